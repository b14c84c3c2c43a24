//! Virtual time for the tests of this module.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Some instant: tests only add to it.
pub(super) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "an instant cannot be made otherwise")]
    *START.get_or_init(Instant::now)
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
