//! The clock. Read once per turn, here; everything above takes the time as an argument.
//!
//! Invariants: an [`Anchor`] never changes, so that the wall-clock times derived from it
//! (sender reports) never jump against the monotonic ones, whatever NTP does meanwhile.

use std::time::{Duration, Instant, SystemTime};

/// One instant, read on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The monotonic reading.
    pub instant: Instant,
    /// The wall clock at that moment.
    pub system: SystemTime,
}

impl Anchor {
    /// Reads both clocks. Once per process.
    #[expect(clippy::disallowed_methods, reason = "this is the rim's clock")]
    pub fn take() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    /// The wall-clock time at `instant`. The epoch itself if that lies before 1970.
    pub fn system_at(&self, instant: Instant) -> SystemTime {
        let later = instant.checked_duration_since(self.instant);
        let earlier = self.instant.saturating_duration_since(instant);
        match later {
            Some(after) => self.system.checked_add(after),
            None => self.system.checked_sub(earlier),
        }
        .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// The time of this turn.
#[expect(clippy::disallowed_methods, reason = "this is the rim's clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, since 1970: for comparing with the kernel's times of arrival only.
#[expect(clippy::disallowed_methods, reason = "this is the rim's clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// CPU time this thread has used. Zero if the kernel keeps it to itself.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which is ours.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if failed != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Unpredictable bits, from the kernel.
///
/// # Panics
/// If the kernel has no randomness to give, which it has from early boot on: to go on with
/// guessable ids and passwords would be worse.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the kernel gives randomness");
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = thread_cpu();
        let work = |_| std::hint::black_box(random());
        assert!((0..1_000_000).map(work).any(|_| thread_cpu() > before));
    }

    #[test]
    fn wall_clock_time_follows_the_anchor_both_ways() {
        let anchor = Anchor::take();
        let second = Duration::from_secs(1);
        assert_eq!(anchor.system_at(anchor.instant), anchor.system);
        assert_eq!(anchor.system_at(anchor.instant + second), anchor.system + second);
        assert_eq!(anchor.system_at(anchor.instant - second), anchor.system - second);
        assert!(now() >= anchor.instant);
    }
}
