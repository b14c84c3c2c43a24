//! The lanes this side receives on: allotted here, so that no other side can make the table
//! grow; and which of their packets were delivered.
//!
//! A lane's number is an index into a table and a generation: what is still on its way for a
//! lane that was closed is not taken for the next one's at the same place.
//!
//! Invariants: at most [`LANES_MAX`] lanes, [`SOURCES_MAX`] sources each. A packet, named by
//! lane, source and sequence number, is new once while its source is kept; one that is [`WINDOW`]
//! behind the newest of its source is never new.

use crate::replay::{Seen, Window};
use crate::wire::LaneId;

/// Lanes at once, each a track that one shard of ours pulls from one shard of another node.
pub const LANES_MAX: usize = 1 << INDEX_BITS;

/// Sources of one lane: three layers, and those before a change that are still under way. The
/// one unused for longest makes room.
pub(super) const SOURCES_MAX: usize = 8;

/// Packets of one source that are told apart from ones delivered: a keyframe of many packets,
/// and a second of 10 Mbit/s. 128 bytes per source.
const WINDOW: usize = 1024;

/// What a packet is to its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    Duplicate,
    /// No such lane.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    places: Vec<Place>,
    /// Indexes of places without a lane.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    id: LaneId,
    open: bool,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    source: u32,
    used_at: u64,
    delivered: Window<WORDS>,
}

impl Lanes {
    /// A lane to be named to the other side; `None` if there are [`LANES_MAX`].
    pub(super) fn open(&mut self) -> Option<LaneId> {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.open = true;
            return Some(place.id);
        }
        if self.places.len() == LANES_MAX {
            return None;
        }
        let id = LaneId::new(self.places.len() as u32)?;
        self.places.push(Place { id, open: true, sources: Vec::new() });
        Some(id)
    }

    /// False if it is not open.
    pub(super) fn close(&mut self, lane: LaneId) -> bool {
        let Some(place) = self.get_mut(lane) else { return false };
        place.open = false;
        place.sources = Vec::new();
        let next = (lane.get() + (1 << INDEX_BITS)) & 0xff_ffff;
        if let Some(next) = LaneId::new(next) {
            place.id = next;
        }
        self.free.push(lane.get() & INDEX_MASK);
        true
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// A packet arrived.
    #[inline]
    pub(super) fn on_packet(&mut self, lane: LaneId, source: u32, seq: u64, now: u64) -> Arrival {
        let Some(place) = self.get_mut(lane) else { return Arrival::Unknown };
        let known = place.sources.iter_mut().find(|known| known.source == source);
        let Some(known) = known else {
            place.add(source, seq, now);
            return Arrival::New;
        };
        known.used_at = now;
        match known.delivered.look(seq) {
            Seen::New => {
                known.delivered.note(seq);
                Arrival::New
            }
            Seen::Before | Seen::Forgotten => Arrival::Duplicate,
        }
    }

    #[inline]
    fn get_mut(&mut self, lane: LaneId) -> Option<&mut Place> {
        let place = self.places.get_mut((lane.get() & INDEX_MASK) as usize)?;
        (place.open && place.id == lane).then_some(place)
    }
}

impl Place {
    #[cold]
    fn add(&mut self, source: u32, seq: u64, now: u64) {
        if self.sources.len() == SOURCES_MAX {
            let ages = self.sources.iter().enumerate();
            if let Some((oldest, _)) = ages.min_by_key(|(_, known)| known.used_at) {
                self.sources.swap_remove(oldest);
            }
        }
        let mut delivered = Window::new();
        delivered.note(seq);
        self.sources.push(Source { source, used_at: now, delivered });
    }
}

const INDEX_BITS: u32 = 14;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const WORDS: usize = WINDOW / 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_new_once_per_lane_and_source() {
        let mut lanes = Lanes::default();
        let (one, two) = (lanes.open().unwrap(), lanes.open().unwrap());
        for (lane, source) in [(one, 1), (one, 2), (two, 1)] {
            assert_eq!(lanes.on_packet(lane, source, 7, 0), Arrival::New);
            assert_eq!(lanes.on_packet(lane, source, 7, 0), Arrival::Duplicate);
        }
        assert_eq!(lanes.on_packet(one, 1, 7 + WINDOW as u64, 0), Arrival::New);
        assert_eq!(lanes.on_packet(one, 1, 6, 0), Arrival::Duplicate, "nobody knows");
        assert_eq!(lanes.on_packet(one, 1, 8, 0), Arrival::New);
    }

    #[test]
    fn what_comes_for_a_closed_lane_is_not_its_successors() {
        let mut lanes = Lanes::default();
        let first = lanes.open().unwrap();
        assert!(lanes.close(first) && !lanes.close(first));
        let second = lanes.open().unwrap();
        assert_ne!(first, second);
        assert_eq!(lanes.places.len(), 1);
        assert_eq!(lanes.on_packet(first, 1, 1, 0), Arrival::Unknown);
        assert_eq!(lanes.on_packet(second, 1, 1, 0), Arrival::New);
        assert!(!lanes.close(first));
        let never = LaneId::new(99).unwrap();
        assert_eq!(lanes.on_packet(never, 1, 1, 0), Arrival::Unknown);
    }

    #[test]
    fn lanes_and_sources_are_bounded() {
        let mut lanes = Lanes::default();
        let all: Vec<_> = std::iter::from_fn(|| lanes.open()).collect();
        assert_eq!((all.len(), lanes.len()), (LANES_MAX, LANES_MAX));
        for source in 0..100 {
            lanes.on_packet(all[0], source, 1, u64::from(source));
            lanes.on_packet(all[0], 0, u64::from(source) + 2, u64::from(source));
        }
        assert_eq!(lanes.places[0].sources.len(), SOURCES_MAX);
        assert_eq!(lanes.on_packet(all[0], 0, 50, 200), Arrival::Duplicate, "it was in use");
        let again = lanes.on_packet(all[0], 1, 1, 300);
        assert_eq!(again, Arrival::New, "its source was forgotten");
        lanes.close(all[5]);
        assert_eq!(
            (lanes.len(), lanes.open().is_some(), lanes.open()),
            (LANES_MAX - 1, true, None)
        );
    }

    #[test]
    fn generations_of_a_place_wrap() {
        let mut lanes = Lanes::default();
        let first = lanes.open().unwrap();
        let mut lane = first;
        for _ in 0..1 << (24 - INDEX_BITS) {
            lanes.close(lane);
            lane = lanes.open().unwrap();
        }
        assert_eq!(lane, first);
    }
}
