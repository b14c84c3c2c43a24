//! What the kernel says of this process, for the metrics.
//!
//! Invariants: asked only for a scrape, and quick (a few files of /proc, none of which the kernel
//! walks memory for), as a shard's thread does it.

use std::fs;
use std::time::{Duration, SystemTime};

use http::Process;
use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};

/// When the process began, since 1970; to be called as early as possible.
pub(crate) fn began() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Reads the numbers of now.
pub(crate) fn read(started: Duration) -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    Process {
        cpu: cpu.map_or(Duration::ZERO, Duration::from),
        started,
        resident_bytes: kibibytes(&status, "VmRSS:"),
        virtual_bytes: kibibytes(&status, "VmSize:"),
        open_fds: open_files(),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
    }
}

/// A line such as `VmRSS:     1234 kB` of /proc/self/status, in bytes.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    number.checked_mul(1024)
}

/// From Linux 6.2 on the folder's size is how many there are; older ones have to be counted.
fn open_files() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        many => Some(many),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let files = || open_files().unwrap();
        let before = files();
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        assert!(files() >= before + 40, "{before} and {} more are {}", held.len(), files());
        let started = began();
        let process = read(started);
        assert!(process.started == started && process.cpu > Duration::ZERO);
        let (resident, mapped) = (process.resident_bytes.unwrap(), process.virtual_bytes.unwrap());
        assert!(resident > 1 << 20 && mapped > resident, "{resident} of {mapped}");
        assert!(process.max_fds.unwrap() >= files());
    }

    #[test]
    fn a_line_of_the_status_is_read_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    1234 kB\nVmData:\tmany kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1234 << 10));
        assert_eq!(kibibytes(status, "VmData:"), None);
        assert_eq!(kibibytes(status, "VmSize:"), None);
    }
}
