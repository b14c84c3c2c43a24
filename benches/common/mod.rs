//! What the benches of the media path share: CPU time, medians, and a stage of engines and
//! clients, and clients that join.

#![allow(dead_code, reason = "each bench uses a part")]

pub(crate) mod bare;
pub(crate) mod joins;
pub(crate) mod stage;

/// CPU time of this thread that `work` takes, in ns.
pub(crate) fn spent(work: impl FnOnce()) -> f64 {
    let before = cpu_time();
    work();
    (cpu_time() - before) as f64
}

/// What reading the clock twice adds to every [`spent`].
pub(crate) fn clock_cost() -> f64 {
    let mut costs: Vec<f64> = (0..1001).map(|_| spent(|| ())).collect();
    median(&mut costs)
}

fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub(crate) fn median(costs: &mut [f64]) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

/// To one CPU, if there is that one; otherwise the thread stays where it is.
pub(crate) fn pin(cpu: usize) {
    // SAFETY: an all-zero cpu_set_t is an empty one, and `cpu` is within its 1,024 bits.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}
