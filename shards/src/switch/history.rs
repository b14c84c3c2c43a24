//! The recent packets of one track, found by (source, sequence number): one history answers
//! the NACKs of every subscriber on its shard.
//!
//! Invariants: bounded in packets and in age; a packet overwritten is a packet forgotten.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::{Batch, Packet};

/// Packets remembered per track, a power of two. At 2.5 Mbit/s 1,024 packets are four seconds;
/// a keyframe of a simulcast publisher fits too.
const PACKETS: usize = 1024;

/// Nobody can use a resend that comes later than a jitter buffer is deep. More would hold
/// memory: 2.5 Mbit/s are 300 KB a second.
const AGE: Duration = Duration::from_millis(1500);

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    source: u32,
    seq: u64,
    /// Counts batches from the start of the history.
    batch: u64,
    index: u32,
    used: bool,
}

#[derive(Debug, Default)]
pub struct History {
    batches: VecDeque<(Instant, Arc<Batch>)>,
    /// The serial number of `batches[0]`.
    first: u64,
    held: usize,
    places: Box<[Place]>,
}

impl History {
    /// Remembers a batch; `forget` receives those that fell out.
    pub fn push(&mut self, now: Instant, batch: Arc<Batch>, mut forget: impl FnMut(Arc<Batch>)) {
        if self.places.is_empty() {
            self.places = vec![Place::default(); PACKETS].into_boxed_slice();
        }
        let serial = self.first + self.batches.len() as u64;
        for (index, packet) in batch.packets().iter().enumerate() {
            self.places[place(packet.source, packet.seq)] = Place {
                source: packet.source,
                seq: packet.seq,
                batch: serial,
                index: index as u32,
                used: true,
            };
        }
        self.held += batch.packets().len();
        self.batches.push_back((now, batch));
        while let Some((at, oldest)) = self.batches.front() {
            let old = now.saturating_duration_since(*at) > AGE;
            if !old && self.held <= PACKETS {
                break;
            }
            self.held -= oldest.packets().len();
            self.first += 1;
            if let Some((_, batch)) = self.batches.pop_front() {
                forget(batch);
            }
        }
    }

    /// The packet, if it is still remembered.
    pub fn get(&self, source: u32, seq: u64) -> Option<(&Batch, &Packet)> {
        let place = self.places.get(place(source, seq))?;
        if !place.used || place.source != source || place.seq != seq {
            return None;
        }
        let at = usize::try_from(place.batch.checked_sub(self.first)?).ok()?;
        let (_, batch) = self.batches.get(at)?;
        batch.packets().get(place.index as usize).map(|packet| (&**batch, packet))
    }

    /// Forgets everything.
    pub fn clear(&mut self, mut forget: impl FnMut(Arc<Batch>)) {
        self.first += self.batches.len() as u64;
        self.held = 0;
        for (_, batch) in self.batches.drain(..) {
            forget(batch);
        }
    }
}

/// Layers of one track share the places; mixing the source in keeps equal sequence numbers of
/// two layers apart.
fn place(source: u32, seq: u64) -> usize {
    (seq as usize).wrapping_add((source as usize).wrapping_mul(0x9e37)) & (PACKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::super::packet::PacketHead;
    use super::*;
    use crate::testing::start;

    fn batch(source: u32, seqs: std::ops::Range<u64>) -> Arc<Batch> {
        let mut batch = Batch::default();
        for seq in seqs {
            let head = PacketHead {
                layer: 0,
                codec: 0,
                marker: false,
                keyframe: false,
                source,
                seq,
                timestamp: 0,
            };
            batch.push(head, &seq.to_be_bytes(), std::iter::empty());
        }
        Arc::new(batch)
    }

    #[test]
    fn recent_packets_are_found_and_old_ones_are_not() {
        let start = start();
        let mut history = History::default();
        let mut forgotten = 0;
        for n in 0..3000u64 {
            history.push(start, batch(1, n * 2..n * 2 + 2), |_| forgotten += 1);
        }
        assert_eq!(forgotten, 3000 - PACKETS / 2);
        let (held, packet) = history.get(1, 5999).unwrap();
        assert_eq!(held.payload(packet), 5999u64.to_be_bytes());
        assert!(history.get(1, 6000 - PACKETS as u64).is_some());
        assert!(history.get(1, 5999 - PACKETS as u64).is_none());
        assert!(history.get(2, 5999).is_none(), "another source");
    }

    #[test]
    fn what_is_too_old_is_let_go() {
        let start = start();
        let mut history = History::default();
        history.push(start, batch(1, 0..4), |_| {});
        let mut forgotten = 0;
        history.push(start + AGE * 2, batch(1, 4..5), |_| forgotten += 1);
        assert_eq!(forgotten, 1);
        assert!(history.get(1, 0).is_none());
        assert!(history.get(1, 4).is_some());
    }
}
