//! Real-time priority for a thread that measures: it runs as soon as it is due, whatever else
//! wants the CPU.
//!
//! Not here: shards. They have work without end, and would starve the machine.

/// Puts this thread before all ordinary ones. False if this process may not: that takes root,
/// CAP_SYS_NICE or a limit (`ulimit -r`) of 2 at least.
pub fn realtime() -> bool {
    // One above the lowest: before everything ordinary and what `chrt -f 1` runs, after all else.
    let priority = libc::sched_param { sched_priority: 2 };
    // SAFETY: reads one sched_param, which is ours, and concerns this thread only.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) == 0 }
}
