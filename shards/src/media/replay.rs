//! The packet index of an inbound RTP stream: estimation and replay (RFC 3711 §3.3.1, §3.3.2).
//!
//! A packet carries 16 bits of its 48-bit index. [`ReplayWindow::estimate`] guesses the rest
//! from the highest index so far; the packet is then checked with [`ReplayWindow::is_new`],
//! authenticated under that index, and only then noted with [`ReplayWindow::commit`].
//!
//! Invariants: an unauthenticated packet never moves the window, or a forger could push the
//! real packets out of it.
//!
//! Not here: authentication (`media::srtp`), loss and jitter statistics.

/// How far behind the highest index a packet may arrive. RFC 3711 §3.3.2 asks for 64. A lost
/// packet sent again under its old number comes a round trip late, which at 10 Mbit/s is
/// several hundred packets; fewer would refuse those, more only costs memory per stream.
pub const WINDOW: u64 = 1024;

/// The replay window of one SSRC under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayWindow {
    highest: Option<u64>,
    /// One bit per index in (highest - WINDOW, highest], at its place modulo `WINDOW`.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    pub fn new() -> Self {
        Self { highest: None, seen: [0; WORDS] }
    }

    /// The highest committed index.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// The index closest to the highest so far that ends in `seq` (RFC 3711 appendix A). The
    /// first packet is taken to be before the first wrap, as is one that would otherwise lie
    /// before index 0.
    #[inline]
    pub fn estimate(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest else {
            return u64::from(seq);
        };
        // As a signed distance this is the branch on ±2^15 of the appendix.
        let distance = i64::from(seq.wrapping_sub(highest as u16) as i16);
        highest.checked_add_signed(distance).unwrap_or_else(|| u64::from(seq))
    }

    /// Not committed before, and not so old that this is forgotten.
    #[inline]
    pub fn is_new(&self, index: u64) -> bool {
        let Some(highest) = self.highest else {
            return true;
        };
        if index > highest {
            return true;
        }
        highest - index < WINDOW && self.seen[word(index)] & bit(index) == 0
    }

    /// Notes an index whose packet was authenticated.
    #[inline]
    pub fn commit(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {
                if highest - index < WINDOW {
                    self.seen[word(index)] |= bit(index);
                }
            }
            Some(highest) => {
                self.forget(highest + 1, index);
                self.seen[word(index)] |= bit(index);
                self.highest = Some(index);
            }
            None => {
                self.seen[word(index)] |= bit(index);
                self.highest = Some(index);
            }
        }
    }

    /// Clears the places of `first..=last`, which held indexes one window ago.
    fn forget(&mut self, first: u64, last: u64) {
        if last - first >= WINDOW {
            self.seen = [0; WORDS];
            return;
        }
        for index in first..=last {
            self.seen[word(index)] &= !bit(index);
        }
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn word(index: u64) -> usize {
    (index % WINDOW / 64) as usize
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

const WORDS: usize = (WINDOW / 64) as usize;
const _: () = assert!(WINDOW.is_multiple_of(64) && WINDOW >= 64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A sender's wrap-free index and a receiver that got every packet in order.
    #[test]
    fn the_estimate_follows_the_sender_through_wraps() {
        let mut window = ReplayWindow::new();
        for index in (65_000u64..400_000).step_by(97) {
            assert_eq!(window.estimate(index as u16), index);
            window.commit(index);
        }
    }

    #[test]
    fn the_first_packet_is_before_the_first_wrap() {
        assert_eq!(ReplayWindow::new().estimate(65_535), 65_535);
        let mut window = ReplayWindow::new();
        window.commit(3);
        // RFC 3711 appendix A would say rollover counter -1.
        assert_eq!(window.estimate(65_530), 65_530);
        assert_eq!(window.estimate(1), 1);
    }

    #[test]
    fn a_packet_from_before_the_wrap_is_still_recognised() {
        let mut window = ReplayWindow::new();
        window.commit(65_534);
        assert_eq!(window.estimate(2), 65_538);
        window.commit(65_538);
        assert_eq!(window.estimate(65_535), 65_535);
        assert!(window.is_new(65_535) && !window.is_new(65_534));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            start in 0u64..200_000,
            steps in prop::collection::vec((-1500i64..200, any::<bool>()), 1..400),
            jumps in prop::collection::vec(0u64..5_000, 1..5),
        ) {
            let mut window = ReplayWindow::new();
            let mut committed = BTreeSet::new();
            let mut highest = start;
            for (n, &(step, commit)) in steps.iter().enumerate() {
                if n % 100 == 99 {
                    highest += jumps[n / 100 % jumps.len()];
                }
                let index = highest.saturating_add_signed(step);
                let top = committed.last().copied();
                let expected = match top {
                    None => true,
                    Some(top) => index > top || (top - index < WINDOW && !committed.contains(&index)),
                };
                prop_assert_eq!(window.is_new(index), expected);
                if let Some(top) = top && top.abs_diff(index) < 0x8000 {
                    prop_assert_eq!(window.estimate(index as u16), index);
                }
                if commit && expected {
                    window.commit(index);
                    committed.insert(index);
                    highest = highest.max(index);
                    prop_assert!(!window.is_new(index));
                }
                prop_assert_eq!(window.highest(), committed.last().copied());
            }
        }

        #[test]
        fn the_estimate_ends_in_the_sequence_number(highest in 0u64..1 << 48, seq: u16) {
            let mut window = ReplayWindow::new();
            window.commit(highest);
            let estimate = window.estimate(seq);
            prop_assert_eq!(estimate as u16, seq);
            prop_assert!(estimate.abs_diff(highest) <= 0x8000 || estimate < 0x1_0000);
        }
    }
}
