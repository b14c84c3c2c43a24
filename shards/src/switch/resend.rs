//! Resends of one pull: numbering of its RTX stream, and limits on what NACKs can cause.
//!
//! Invariants: an RTX index is given once; the same packet is not sent twice within a round
//! trip; resends cannot exceed a share of what a subscriber could lose.

use std::time::{Duration, Instant};

/// A packet is not resent again within this time: a second NACK before the first resend can
/// have arrived says nothing.
const AGAIN: Duration = Duration::from_millis(20);

/// Remembered resends, a power of two. A burst of loss longer than this is beyond repair.
const REMEMBERED: usize = 64;

/// Resends a second in the long run, and in a burst. 720p video is 250 packets a second; a
/// third of them lost is a link that needs less bitrate, not more resends.
const PER_SECOND: f32 = 400.0;
const BURST: f32 = 200.0;

/// An index, and when it was last resent.
type Recent = (u64, Option<Instant>);

#[derive(Debug)]
pub struct Resends {
    next: u64,
    recent: Option<Box<[Recent; REMEMBERED]>>,
    allowance: f32,
    counted_at: Option<Instant>,
}

impl Resends {
    pub fn new(next: u64) -> Self {
        Self { next, recent: None, allowance: BURST, counted_at: None }
    }

    /// Whether the packet with this index may be resent now.
    pub fn admit(&mut self, index: u64, now: Instant) -> bool {
        if let Some(at) = self.counted_at {
            let elapsed = now.saturating_duration_since(at).as_secs_f32();
            self.allowance = (self.allowance + elapsed * PER_SECOND).min(BURST);
        }
        self.counted_at = Some(now);
        let recent = self.recent.get_or_insert_with(|| Box::new([(0, None); REMEMBERED]));
        let entry = &mut recent[index as usize & (REMEMBERED - 1)];
        let again =
            entry.0 == index && entry.1.is_some_and(|at| now.saturating_duration_since(at) < AGAIN);
        if again || self.allowance < 1.0 {
            return false;
        }
        self.allowance -= 1.0;
        *entry = (index, Some(now));
        true
    }

    /// Goes on at another index, under a new key.
    pub fn renumber(&mut self, next: u64) {
        self.next = next;
        self.recent = None;
    }

    /// The next index of the RTX stream, not yet given.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The index of the next packet on the RTX stream.
    pub fn next_index(&mut self) -> u64 {
        let index = self.next;
        self.next += 1;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_packet_is_not_resent_twice_within_a_round_trip() {
        let start = start();
        let mut resends = Resends::new(1);
        assert!(resends.admit(7, start));
        assert!(!resends.admit(7, start + AGAIN / 2));
        assert!(resends.admit(7, start + AGAIN));
    }

    #[test]
    fn nacks_without_end_cause_bounded_resends() {
        let start = start();
        let mut resends = Resends::new(1);
        let sent = (0..100_000u64).filter(|n| resends.admit(*n, start)).count();
        assert_eq!(sent, BURST as usize);
        assert!(resends.admit(1 << 20, start + Duration::from_secs(1)));
    }
}
