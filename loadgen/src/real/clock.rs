//! The clocks that peers and measurements go by, and the CPU time of a thread.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::peer::Moment;

/// Now, on both clocks.
pub fn moment() -> Moment {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment { now: shards::io::clock::now(), unix: unix.as_nanos() as u64 }
}

/// CPU time this thread took so far.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
