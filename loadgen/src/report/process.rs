//! What a process of this machine used: CPU to the nanosecond, by thread, and memory.
//!
//! Both what threads add up to and what the kernel says of the whole process are too low in
//! their own way (threads that began and ended unseen; clock ticks rounded down), so the larger
//! of them is taken.
//!
//! Invariants: CPU time never goes back, also when threads end; a process that took over the pid
//! of another is not mistaken for it. Children are processes of their own and not counted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Clock ticks of `/proc`: 100 in a second on every Linux, whatever its own tick is.
const TICK: Duration = Duration::from_millis(10);

/// A process that is being watched.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Clock ticks from the machine's start to the process's: together with the pid its identity.
    born: u64,
    /// CPU time of the threads there are, by their ids.
    threads: BTreeMap<u32, Duration>,
    /// CPU time of threads that ended.
    ended: Duration,
    most: Duration,
}

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    cpu: Duration,
    born: u64,
}

impl Process {
    pub fn watch(pid: u32) -> io::Result<Self> {
        let stat = stat(pid)?;
        let (threads, ended, most) = (BTreeMap::new(), Duration::ZERO, Duration::ZERO);
        let mut process = Self { pid, born: stat.born, threads, ended, most };
        process.look_at_threads();
        // What ended before: kept, so that later differences are exact.
        process.ended = stat.cpu.saturating_sub(process.in_threads());
        Ok(process)
    }

    /// This process.
    pub fn own() -> io::Result<Self> {
        Self::watch(std::process::id())
    }

    /// CPU time since the process began; `None` when it has ended.
    pub fn cpu(&mut self) -> Option<Duration> {
        let stat = stat(self.pid).ok().filter(|stat| stat.born == self.born)?;
        self.look_at_threads();
        self.most = self.most.max(self.ended + self.in_threads()).max(stat.cpu);
        Some(self.most)
    }

    /// CPU time of a thread, as of the last [`Self::cpu`].
    pub fn thread_cpu(&self, tid: u32) -> Option<Duration> {
        self.threads.get(&tid).copied()
    }

    /// CPU time by thread, as of the last [`Self::cpu`]: the threads there are.
    pub fn threads(&self) -> &BTreeMap<u32, Duration> {
        &self.threads
    }

    /// Resident memory in bytes, as the kernel keeps count: cheap, and up to some pages off.
    pub fn rss_bytes(&self) -> Option<u64> {
        self.kilobytes("status", "VmRSS:")
    }

    /// Resident memory in bytes, counted page by page where that is allowed: exact, and slow for
    /// a large process, which waits for it.
    pub fn rss_bytes_exact(&self) -> Option<u64> {
        self.kilobytes("smaps_rollup", "Rss:").or_else(|| self.rss_bytes())
    }

    fn in_threads(&self) -> Duration {
        self.threads.values().sum()
    }

    fn look_at_threads(&mut self) {
        let found: BTreeMap<u32, Duration> = thread_ids(self.pid)
            .into_iter()
            .filter_map(|tid| Some((tid, thread_time(self.pid, tid)?)))
            .collect();
        for (tid, last) in &self.threads {
            // One with less than before is another thread under the same id.
            if found.get(tid).is_none_or(|now| now < last) {
                self.ended += *last;
            }
        }
        self.threads = found;
    }

    fn kilobytes(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(folder(self.pid).join(file)).ok()?;
        field_kilobytes(&text, name).map(|kilobytes| kilobytes * 1024)
    }
}

/// The id of the thread that asks, for [`Process::thread_cpu`].
pub fn own_tid() -> Option<u32> {
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

fn folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(folder(pid).join("stat"))?;
    let strange = || io::Error::other(format!("/proc/{pid}/stat cannot be understood"));
    parse_stat(&text).ok_or_else(strange)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses of its own.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Counted from 3, the first after the name: 14 utime, 15 stime, 22 starttime.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = u32::try_from(number(14)?.saturating_add(number(15)?)).ok()?;
    Some(Stat { cpu: TICK * ticks, born: number(22)? })
}

fn thread_ids(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(folder(pid).join("task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn thread_time(pid: u32, tid: u32) -> Option<Duration> {
    let folder = folder(pid).join("task").join(tid.to_string());
    let exact = || {
        let text = fs::read_to_string(folder.join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?))
    };
    // A kernel may be built without the former.
    exact().or_else(|| Some(parse_stat(&fs::read_to_string(folder.join("stat")).ok()?)?.cpu))
}

fn field_kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::*;

    const WORK: Duration = Duration::from_millis(30);

    /// Uses CPU until the kernel has counted at least [`WORK`] for this thread.
    fn work() -> Duration {
        let (pid, tid) = (std::process::id(), own_tid().unwrap());
        loop {
            black_box((0..200_000u64).fold(0, |sum, at| black_box(sum ^ at)));
            let used = thread_time(pid, tid).unwrap();
            if used >= WORK {
                return used;
            }
        }
    }

    /// A thread that was joined is in `/proc` a little longer.
    fn wait_for_end(tid: u32) {
        while thread_ids(std::process::id()).contains(&tid) {
            thread::yield_now();
        }
    }

    #[test]
    fn cpu_of_threads_is_kept_when_they_end() {
        let mut process = Process::own().unwrap();
        let before = process.cpu().unwrap();
        let (tid, used) = thread::spawn(|| (own_tid().unwrap(), work())).join().unwrap();
        wait_for_end(tid);
        let unseen = process.cpu().unwrap();
        assert_eq!(process.thread_cpu(tid), None);
        // Never looked at while it lived: known by the process's own ticks, rounded down.
        assert!(unseen + 2 * TICK >= before + used, "{unseen:?} {before:?} {used:?}");
        assert!(process.cpu().unwrap() >= unseen);
    }

    #[test]
    fn a_thread_is_seen_by_its_id() {
        let mut process = Process::own().unwrap();
        let (say, hear) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let worker = thread::spawn(move || {
            say.send((own_tid().unwrap(), work())).unwrap();
            let _ = ended.recv();
        });
        let (tid, used) = hear.recv().unwrap();
        let total = process.cpu().unwrap();
        assert!(process.thread_cpu(tid).unwrap() >= used);
        drop(end);
        worker.join().unwrap();
        wait_for_end(tid);
        let after = process.cpu().unwrap();
        assert!(after >= total && process.thread_cpu(tid).is_none());
    }

    #[test]
    fn memory_is_read_both_ways() {
        let process = Process::own().unwrap();
        assert!(process.rss_bytes().unwrap() > 100_000);
        assert!(process.rss_bytes_exact().unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_ended_uses_nothing() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut process = Process::watch(child.id()).unwrap();
        assert!(process.cpu().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(process.cpu(), None);
        assert_eq!(process.rss_bytes(), None);
        assert!(Process::watch(child.id()).is_err());
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 6 7 20 0 3 0 987654 1 2";
        assert_eq!(parse_stat(text), Some(Stat { cpu: Duration::from_secs(2), born: 987_654 }));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(field_kilobytes("VmHWM:\t 9 kB\nVmRSS:\t  1234 kB\n", "VmRSS:"), Some(1234));
    }
}
