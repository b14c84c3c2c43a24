//! The clock. Read once per turn, here; everything above takes the time as an argument.
//!
//! Invariants: an [`Anchor`] never changes, so that the wall-clock times derived from it
//! (sender reports) never jump against the monotonic ones, whatever NTP does meanwhile.

use std::time::{Instant, SystemTime};

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
    use std::time::Duration;

    use super::*;

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
