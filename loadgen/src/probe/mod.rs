//! Payloads that prove themselves: which track and packet they are, when they were sent, and
//! that not a bit of them was changed.
//!
//! A probe fills a payload behind its codec's headers, which a server may rewrite: filler that
//! follows from track and number, then the stamp at the very end.
//!
//! Invariants: a payload that was changed, cut, or belongs to another packet does not verify.

mod order;

use std::collections::BTreeMap;
use std::sync::OnceLock;

pub use order::{Lost, Order, Place};

/// Who sent a packet, which one it is, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The track, unique within the run.
    pub track: u32,
    /// Counts the track's packets, from 0.
    pub number: u32,
    /// Nanoseconds since the epoch, on the sender's clock.
    pub sent: u64,
}

/// The last number that was sent of each track that is being published.
pub type Published = BTreeMap<u32, u32>;

/// Track, number, time, and a checksum of the three.
pub const STAMP_LEN: usize = 20;

impl Stamp {
    /// Fills all of `out`, which is at least [`STAMP_LEN`] long.
    pub fn fill(self, out: &mut [u8]) {
        let (filler, stamp) = out.split_at_mut(out.len() - STAMP_LEN);
        filler.copy_from_slice(self.filler(filler.len()));
        stamp[..4].copy_from_slice(&self.track.to_be_bytes());
        stamp[4..8].copy_from_slice(&self.number.to_be_bytes());
        stamp[8..16].copy_from_slice(&self.sent.to_be_bytes());
        stamp[16..].copy_from_slice(&self.checksum().to_be_bytes());
    }

    /// Reads what ends a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_LEN] = payload.last_chunk()?;
        let word = |at: usize| {
            u32::from_be_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]])
        };
        let sent = u64::from(word(8)) << 32 | u64::from(word(12));
        let read = Self { track: word(0), number: word(4), sent };
        (word(16) == read.checksum()).then_some(read)
    }

    /// Whether everything in `payload` behind `headers` bytes is as [`Self::fill`] wrote it.
    pub fn matches(self, payload: &[u8], headers: usize) -> bool {
        let filler = payload.get(headers..payload.len().saturating_sub(STAMP_LEN));
        filler.is_some_and(|filler| filler == self.filler_end(filler.len()))
    }

    /// The last `len` bytes of the filler, so that headers of any length may be in front: the
    /// filler ends at the same place of the pool, however much of it is there.
    fn filler_end(self, len: usize) -> &'static [u8] {
        let pool = pool();
        let place = mix(u64::from(self.track) << 32 | u64::from(self.number));
        let end = POOL - (place as usize % (POOL - FILLER_MAX));
        &pool[end - len.min(FILLER_MAX)..end]
    }

    fn filler(self, len: usize) -> &'static [u8] {
        debug_assert!(len <= FILLER_MAX, "payloads fit a datagram");
        self.filler_end(len)
    }

    fn checksum(self) -> u32 {
        let id = mix(u64::from(self.track) << 32 | u64::from(self.number));
        mix(id ^ self.sent) as u32
    }
}

/// Random bytes that fillers are cut from: copying and comparing are all a probe costs.
const POOL: usize = 1 << 14;
const FILLER_MAX: usize = 2048;

fn pool() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| (0..POOL as u64 / 8).flat_map(|n| mix(n).to_le_bytes()).collect())
}

/// The finalizer of SplitMix64.
#[inline]
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_verifies_and_nothing_else(
            track: u32, number: u32, sent: u64, len in STAMP_LEN..1400usize, headers in 0usize..20,
            flip in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let stamp = Stamp { track, number, sent };
            let mut payload = vec![0; headers + len];
            stamp.fill(&mut payload[headers..]);
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
            prop_assert!(stamp.matches(&payload, headers));
            let at = headers + flip.index(len);
            payload[at] ^= 1 << bit;
            let read = Stamp::read(&payload);
            prop_assert!(read.is_none_or(|read| !read.matches(&payload, headers)));
        }
    }
}
