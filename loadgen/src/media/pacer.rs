//! When packets leave: libwebrtc's pacer. A usual frame leaves in one burst; a keyframe, which
//! is larger than the burst, is spread over the frames that follow.

use std::time::{Duration, Instant};

/// Faster than the target bitrate by this, so that the queue empties.
const FACTOR: f64 = 2.5;

/// What may leave at once, as time at the pacing rate.
const BURST: Duration = Duration::from_millis(40);

/// Counts what has left and says when more may.
#[derive(Debug, Clone)]
pub struct Pacer {
    /// Bytes per second.
    rate: f64,
    /// Bytes that have left and whose time has not yet passed.
    debt: f64,
    at: Instant,
}

impl Pacer {
    /// `bitrate` in bits per second, of the media.
    pub fn new(bitrate: u64, now: Instant) -> Self {
        Self { rate: bitrate as f64 / 8.0 * FACTOR, debt: 0.0, at: now }
    }

    /// When the next packet may leave: `now`, or later.
    pub fn next(&mut self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.debt = (self.debt - passed * self.rate).max(0.0);
        self.at = now;
        let over = self.debt - BURST.as_secs_f64() * self.rate;
        if over <= 0.0 { now } else { now + Duration::from_secs_f64(over / self.rate) }
    }

    /// A packet of `len` bytes left.
    pub fn sent(&mut self, len: usize) {
        self.debt += len as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_at_once_and_a_keyframe_is_spread() {
        let start = shards::io::clock::now();
        let mut pacer = Pacer::new(2_500_000, start);
        for _ in 0..10 {
            assert_eq!(pacer.next(start), start);
            pacer.sent(1100);
        }
        let mut now = start;
        for _ in 0..60 {
            now = pacer.next(now);
            pacer.sent(1100);
        }
        // 77 KB at 781 KB/s, less a burst of 31 KB: the last leaves some 57 ms later.
        let spread = now - start;
        assert!((50..65).contains(&spread.as_millis()), "{spread:?}");
    }
}
