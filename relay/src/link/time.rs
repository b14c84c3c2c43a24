//! Time on a link: µs since an instant of our own choice, and how the other side's differ.
//!
//! The offset comes from pings: with t1 and t4 on our clock and t2 and t3 on the other side's,
//! it is ((t2 - t1) + (t3 - t4)) / 2, wrong by half of how much slower one way is. The sample
//! with the shortest round trip of the last ten seconds waited least in queues, so its error is
//! smallest. No wall clock is involved: clocks may be hours apart.
//!
//! Invariants: link times fit 48 bits. A minimum never outlives [`MEMORY`].

use std::time::{Duration, Instant};

use crate::wire::U48_MAX;

/// How long the best sample counts. Clocks drift apart by up to 100 ppm, a millisecond in this
/// time; routes change more often than that.
pub(super) const MEMORY: Duration = Duration::from_secs(10);

/// Turns instants into µs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    epoch: Instant,
}

impl Timeline {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now }
    }

    /// Saturates at 12 days before the link was made, and at 8 years after.
    #[inline]
    pub(super) fn at(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.epoch) {
            Some(after) => (EPOCH + micros(after)).min(U48_MAX),
            None => EPOCH.saturating_sub(micros(self.epoch - now)),
        }
    }

    /// `None` if the clock cannot tell this.
    pub(super) fn instant(&self, at: u64) -> Option<Instant> {
        if at >= EPOCH {
            self.epoch.checked_add(Duration::from_micros(at - EPOCH))
        } else {
            self.epoch.checked_sub(Duration::from_micros(EPOCH - at))
        }
    }
}

/// In link time: what was before the link was made has a time, too.
const EPOCH: u64 = 1 << 40;

#[inline]
pub(super) fn micros(duration: Duration) -> u64 {
    // `as_micros` would divide 128-bit numbers.
    duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros())
}

/// The smallest of the last ten seconds, and what came with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Least<T> {
    /// One per second, at its place modulo ten: second, sample, what came with it.
    seconds: [Option<(u64, i64, T)>; SECONDS],
}

impl<T: Copy> Least<T> {
    pub(super) fn new() -> Self {
        Self { seconds: [None; SECONDS] }
    }

    pub(super) fn note(&mut self, now: u64, sample: i64, with: T) {
        let second = now / 1_000_000;
        let place = &mut self.seconds[(second % SECONDS as u64) as usize];
        match place {
            Some((of, least, _)) if *of == second && *least <= sample => {}
            _ => *place = Some((second, sample, with)),
        }
    }

    pub(super) fn get(&self, now: u64) -> Option<(i64, T)> {
        let second = now / 1_000_000;
        let recent = self.seconds.iter().flatten().filter(|(of, ..)| of + SECONDS as u64 > second);
        recent.min_by_key(|(_, sample, _)| *sample).map(|(_, sample, with)| (*sample, *with))
    }
}

const SECONDS: usize = MEMORY.as_secs() as usize;

/// A smoothed round trip and its variation (RFC 6298, 2).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    smooth: Option<u64>,
    var: u64,
}

impl Rtt {
    pub(super) fn note(&mut self, sample: u64) {
        match self.smooth {
            None => (self.smooth, self.var) = (Some(sample), sample / 2),
            Some(smooth) => {
                self.var = (3 * self.var + smooth.abs_diff(sample)) / 4;
                self.smooth = Some((7 * smooth + sample) / 8);
            }
        }
    }

    /// In µs.
    pub(super) fn smooth(&self) -> Option<u64> {
        self.smooth
    }

    /// In µs; 0 before the first sample.
    pub(super) fn var(&self) -> u64 {
        self.var
    }
}

/// Where the other side's clock stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offset {
    samples: Least<i64>,
    /// The last one, for when all samples are older than [`MEMORY`]: a stale offset is off by
    /// the drift since, no offset would be no clock at all.
    last: Option<i64>,
}

/// A ping and its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echo {
    /// On our clock.
    pub(super) sent_at: u64,
    /// On the other side's.
    pub(super) received_at: u64,
    /// On the other side's.
    pub(super) answered_at: u64,
}

impl Offset {
    pub(super) fn new() -> Self {
        Self { samples: Least::new(), last: None }
    }

    /// The round trip in µs, or `None` if the answer cannot be true.
    pub(super) fn note(&mut self, echo: &Echo, now: u64) -> Option<u64> {
        let Echo { sent_at, received_at, answered_at } = *echo;
        let away = now.checked_sub(sent_at)?;
        let held = answered_at.checked_sub(received_at)?;
        let rtt = away.checked_sub(held)?;
        if rtt > RTT_MAX {
            return None;
        }
        // Both fit 48 bits, so nothing overflows.
        let (there, back) = (received_at as i64 - sent_at as i64, answered_at as i64 - now as i64);
        self.samples.note(now, rtt as i64, (there + back) / 2);
        self.last = self.get(now);
        Some(rtt)
    }

    /// Whether there was any sample.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.last.is_some()
    }

    /// What to subtract from a time of the other side's to have it on our clock, in µs.
    pub(super) fn get(&self, now: u64) -> Option<i64> {
        self.samples.get(now).map(|(_, offset)| offset).or(self.last)
    }
}

/// An answer that comes later tells nothing about the clock.
const RTT_MAX: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::testing::start;

    #[test]
    fn instants_before_the_link_was_made_have_a_time() {
        let now = start() + Duration::from_secs(1 << 21);
        let time = Timeline::new(now);
        for (at, us) in [
            (now, EPOCH),
            (now + Duration::from_micros(3), EPOCH + 3),
            (now - Duration::from_secs(60), EPOCH - 60_000_000),
        ] {
            assert_eq!(time.at(at), us);
            assert_eq!(time.instant(us), Some(at));
        }
        assert_eq!(time.at(now - Duration::from_secs(1 << 21)), 0, "saturates");
    }

    #[test]
    fn the_least_is_forgotten_after_ten_seconds() {
        let mut least = Least::new();
        let at = |second: u64| second * 1_000_000 + 5;
        least.note(at(100), 7, 'a');
        least.note(at(100), 9, 'b');
        assert_eq!(least.get(at(109)), Some((7, 'a')));
        least.note(at(105), 8, 'c');
        assert_eq!(least.get(at(109)), Some((7, 'a')));
        assert_eq!(least.get(at(110)), Some((8, 'c')));
        assert_eq!(least.get(at(115)), None);
    }

    #[test]
    fn the_offset_is_that_of_the_shortest_round_trip() {
        let mut offset = Offset::new();
        let ahead = 7_200_000_000u64;
        let now = EPOCH;
        // 5 ms each way, then 5 there and 45 back, which looks 20 ms off.
        let quick = Echo {
            sent_at: now,
            received_at: now + ahead + 5_000,
            answered_at: now + ahead + 6_000,
        };
        assert_eq!(offset.note(&quick, now + 11_000), Some(10_000));
        let slow = Echo { sent_at: now, ..quick };
        assert_eq!(offset.note(&slow, now + 51_000), Some(50_000));
        assert_eq!(offset.get(now + 51_000), Some(ahead as i64));
        assert_eq!(offset.get(now + 100_000_000), Some(ahead as i64), "better than none");
    }

    #[test]
    fn an_answer_that_cannot_be_true_is_ignored() {
        let mut offset = Offset::new();
        let now = EPOCH;
        let echo = Echo { sent_at: now, received_at: 500, answered_at: 600 };
        assert_eq!(offset.note(&echo, now - 1), None, "before it was asked");
        assert_eq!(offset.note(&echo, now + 50), None, "held longer than it was away");
        assert_eq!(offset.note(&Echo { answered_at: 400, ..echo }, now + 50), None);
        assert_eq!(offset.note(&echo, now + RTT_MAX + 101), None, "too late");
        assert_eq!(offset.get(now), None);
    }

    proptest! {
        #[test]
        fn no_answer_overflows(times in prop::array::uniform4(0..U48_MAX + 1)) {
            let [sent_at, received_at, answered_at, now] = times;
            Offset::new().note(&Echo { sent_at, received_at, answered_at }, now);
        }
    }
}
