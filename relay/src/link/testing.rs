//! What the unit tests of links share.

use std::time::{Duration, Instant};

use super::{Link, Sink};
use crate::seal::{End, LinkSecret, PairSecret};
use crate::wire::{DATAGRAM_MAX, LaneId, LinkId, Media};

/// Some beginning of time, far enough from the clock's own.
#[expect(clippy::disallowed_methods, reason = "tests need some beginning of time")]
pub(crate) fn start() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(1 << 20))
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Collects datagrams, up to `room` of them.
pub(crate) struct Datagrams {
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) room: usize,
    slot: Box<[u8; DATAGRAM_MAX]>,
}

impl Default for Datagrams {
    fn default() -> Self {
        Self { sent: Vec::new(), room: usize::MAX, slot: Box::new([0; DATAGRAM_MAX]) }
    }
}

impl Datagrams {
    pub(crate) fn lens(&self) -> Vec<usize> {
        self.sent.iter().map(Vec::len).collect()
    }
}

impl Sink for Datagrams {
    fn slot(&mut self) -> &mut [u8] {
        if self.sent.len() < self.room { &mut self.slot[..] } else { &mut [] }
    }

    fn commit(&mut self, len: usize) {
        self.sent.push(self.slot[..len].to_vec());
    }
}

pub(crate) fn ends() -> (End, End) {
    let link = |id| LinkId::new(id).unwrap();
    (End { node: 1, shard: 2, link: link(3) }, End { node: 4, shard: 5, link: link(6) })
}

pub(crate) fn lone() -> Link {
    let (here, there) = ends();
    Link::new(LinkSecret::new(PairSecret::new(&[1; 32]), here, there), start())
}

pub(crate) fn media(lane: u32, seq: u64, payload: &[u8]) -> Media<'_> {
    Media {
        lane: LaneId::new(lane).unwrap(),
        layer: 0,
        codec: 0,
        marker: false,
        keyframe: false,
        padding: 0,
        source: 1,
        seq,
        timestamp: seq as u32 * 3000,
        extensions: &[],
        payload,
    }
}
