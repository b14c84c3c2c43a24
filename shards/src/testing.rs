//! What unit tests of several modules share.

use std::time::Instant;

/// Some instant to count virtual time from.
#[expect(clippy::disallowed_methods, reason = "an arbitrary origin; tests only add to it")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
