//! Received packets, as they are kept and shared: a [`Batch`] holds the packets of one track
//! that arrived in one turn, behind one `Arc` whatever the number of subscribers, histories
//! and shards that look at it.
//!
//! Behind every payload there is room for padding, so that a padded packet is sealed from where
//! it is, too.
//!
//! Invariants: a batch never changes once it is shared. Its memory goes back to the pool of
//! the shard that made it, because freeing another thread's memory costs more than sealing
//! a packet (2.3 µs against 0.2 µs, measured with glibc).

use std::collections::VecDeque;
use std::sync::Arc;

use super::even::{self, PADDING_MAX};
use crate::limits::{BATCH_PACKETS, BATCHES_LENT, BATCHES_SPARE};
use crate::media::format::Extension;

/// One received RTP packet, plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Which simulcast layer, as an index into the track's layers.
    pub layer: u8,
    /// Which codec, as an index into the track's codecs.
    pub codec: u8,
    pub marker: bool,
    /// The packet begins a keyframe; always true for audio.
    pub keyframe: bool,
    /// Numbers the SSRCs a layer came from. Sequence numbers and timestamps continue only
    /// within one source.
    pub source: u32,
    /// The publisher's sequence number, extended.
    pub seq: u64,
    pub timestamp: u32,
    payload: (u32, u32),
    extensions: (u32, u32),
    padding: u8,
}

impl Packet {
    /// Bytes of RTP padding that follow the payload.
    pub fn padding(&self) -> usize {
        usize::from(self.padding)
    }

    /// What it takes of a datagram, as far as that is the same for all subscribers. Extensions
    /// count so much that packets with different ones are never made equal: how long they
    /// become depends on the subscriber.
    fn room(&self) -> usize {
        let ((from, to), (begin, end)) = (self.payload, self.extensions);
        (to - from) as usize + (((end - begin) as usize) << 16)
    }

    /// Header extensions are carried through.
    pub fn has_extensions(&self) -> bool {
        self.extensions.0 != self.extensions.1
    }
}

/// The fields of a packet that are known before its bytes are appended.
#[derive(Debug, Clone, Copy)]
pub struct PacketHead {
    pub layer: u8,
    pub codec: u8,
    pub marker: bool,
    pub keyframe: bool,
    pub source: u32,
    pub seq: u64,
    pub timestamp: u32,
}

/// The packets of one track that arrived in one turn, in order of arrival.
#[derive(Debug, Default)]
pub struct Batch {
    packets: Vec<Packet>,
    bytes: Vec<u8>,
}

impl Batch {
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How much memory its packets take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn payload(&self, packet: &Packet) -> &[u8] {
        let (from, to) = packet.payload;
        &self.bytes[from as usize..to as usize]
    }

    /// The payload with the RTP padding that [`even`](Self::even) found useful.
    pub fn padded(&self, packet: &Packet) -> &[u8] {
        let (from, to) = packet.payload;
        &self.bytes[from as usize..to as usize + packet.padding()]
    }

    /// Pads packets to the length of their neighbours where that makes longer runs, once for
    /// all subscribers. A subscriber gets one source of the track: only those are neighbours.
    pub fn even(&mut self) {
        let Self { packets, bytes } = self;
        let mut pads = [0u8; BATCH_PACKETS];
        if packets.len() < 2 || packets.len() > pads.len() {
            return;
        }
        for first in 0..packets.len() {
            let Packet { source, .. } = packets[first];
            if packets[..first].iter().any(|packet| packet.source == source) {
                continue;
            }
            let same = |at: &usize| packets[*at].source == source;
            let of_source = (first..packets.len()).filter(same);
            even::pads(of_source.clone().map(|at| packets[at].room()), |nth, pad| {
                if let Some(at) = of_source.clone().nth(nth) {
                    pads[at] = pad;
                }
            });
        }
        for (packet, pad) in packets.iter_mut().zip(pads) {
            packet.padding = pad;
            if pad > 0 {
                // RFC 3550 §5.1: the last byte counts them all; the others are zero already.
                bytes[packet.payload.1 as usize + usize::from(pad) - 1] = pad;
            }
        }
    }

    /// The header extensions carried through, as (meaning, value).
    pub fn extensions(&self, packet: &Packet) -> impl Iterator<Item = (Extension, &[u8])> + '_ {
        elements(self.extension_bytes(packet))
    }

    /// The same, as they are kept and go from node to node: of each its place in
    /// [`Extension::ALL`], its length, and its value.
    pub fn extension_bytes(&self, packet: &Packet) -> &[u8] {
        let (from, to) = packet.extensions;
        &self.bytes[from as usize..to as usize]
    }

    /// Appends a packet.
    pub fn push<'a>(
        &mut self,
        head: PacketHead,
        payload: &[u8],
        extensions: impl Iterator<Item = (Extension, &'a [u8])>,
    ) {
        let from = self.bytes.len() as u32;
        self.bytes.extend_from_slice(payload);
        let end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&[0; PADDING_MAX]);
        let middle = self.bytes.len() as u32;
        for (extension, value) in extensions {
            // A one-byte header's element has at most 16 bytes, a two-byte one's 255.
            let Ok(len) = u8::try_from(value.len()) else { continue };
            self.bytes.extend_from_slice(&[extension as u8, len]);
            self.bytes.extend_from_slice(value);
        }
        let to = self.bytes.len() as u32;
        let PacketHead { layer, codec, marker, keyframe, source, seq, timestamp } = head;
        self.packets.push(Packet {
            layer,
            codec,
            marker,
            keyframe,
            source,
            seq,
            timestamp,
            payload: (from, end),
            extensions: (middle, to),
            padding: 0,
        });
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.bytes.clear();
    }
}

/// Reads what [`Batch::extension_bytes`] gives, without what a newer node may have added.
pub fn elements(mut rest: &[u8]) -> impl Iterator<Item = (Extension, &[u8])> {
    let all = std::iter::from_fn(move || {
        let (&[index, len], after) = rest.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(len))?;
        rest = after;
        Some((Extension::ALL.get(usize::from(index)).copied(), value))
    });
    all.filter_map(|(extension, value)| Some((extension?, value)))
}

/// Sizes of a batch's memory. A track's batches are all of about one size, and histories hold
/// thousands of them: if any memory went to any track, sooner or later each batch of one sound
/// packet would hold that of a whole picture. Larger ones are given up: bursts are rare.
const SIZES: [usize; 4] = [512, 2 << 10, 8 << 10, 16 << 10];

/// The smallest of [`SIZES`] that holds so much.
fn size(bytes: usize) -> usize {
    SIZES.iter().position(|size| bytes <= *size).unwrap_or(SIZES.len() - 1)
}

/// Makes batches and takes them back.
#[derive(Debug, Default)]
pub struct BatchPool {
    /// By [`size`].
    spare: [Vec<Arc<Batch>>; SIZES.len()],
    /// Let go of here while another shard still held them; oldest first.
    lent: VecDeque<Arc<Batch>>,
}

impl BatchPool {
    /// An empty batch of its own, for about so many bytes.
    pub fn take(&mut self, bytes: usize) -> Arc<Batch> {
        self.collect();
        let size = size(bytes);
        self.spare[size].pop().unwrap_or_else(|| {
            Arc::new(Batch { bytes: Vec::with_capacity(SIZES[size]), ..Batch::default() })
        })
    }

    /// Takes back a batch made by this pool that its owner needs no more.
    pub fn give(&mut self, batch: Arc<Batch>) {
        if self.lent.len() < BATCHES_LENT {
            self.lent.push_back(batch);
        }
    }

    /// Recycles what has come home. Looks at the oldest few only, so that a batch held long by
    /// another shard costs nothing.
    fn collect(&mut self) {
        for _ in 0..2 {
            let Some(mut batch) = self.lent.pop_front() else { return };
            match Arc::get_mut(&mut batch) {
                Some(home) if home.bytes.capacity() <= SIZES[SIZES.len() - 1] => {
                    home.clear();
                    let spare = &mut self.spare[size(home.bytes.capacity())];
                    if spare.len() < BATCHES_SPARE {
                        spare.push(batch);
                    }
                }
                Some(_) => {}
                None => self.lent.push_back(batch),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> PacketHead {
        PacketHead {
            layer: 0,
            codec: 0,
            marker: false,
            keyframe: true,
            source: 1,
            seq,
            timestamp: 9,
        }
    }

    #[test]
    fn a_batch_gives_back_what_was_appended() {
        let mut batch = Batch::default();
        let level: &[u8] = &[7];
        batch.push(head(1), b"first", [(Extension::AudioLevel, level)].into_iter());
        batch.push(head(2), b"", std::iter::empty());
        let [first, second] = batch.packets() else { panic!("two packets") };
        assert_eq!(batch.payload(first), b"first");
        assert_eq!(batch.payload(second), b"");
        let carried: Vec<_> = batch.extensions(first).collect();
        assert_eq!(carried, [(Extension::AudioLevel, level)]);
        assert_eq!(batch.extensions(second).count(), 0);
    }

    #[test]
    fn neighbours_of_one_source_are_evened_out_and_keep_their_payloads() {
        let mut batch = Batch::default();
        let level: &[u8] = &[7];
        for (seq, source, len) in [(1, 1, 100), (1, 2, 50), (2, 1, 101), (3, 1, 101), (2, 2, 53)] {
            let head = PacketHead { source, ..head(seq) };
            batch.push(head, &vec![0xEE; len], [(Extension::AudioLevel, level)].into_iter());
        }
        batch.push(head(4), &[0xEE; 103], std::iter::empty());
        batch.even();
        let pads: Vec<usize> = batch.packets().iter().map(Packet::padding).collect();
        assert_eq!(pads, [1, 3, 0, 0, 0, 0], "the last has other extensions");
        for (packet, pad) in batch.packets().iter().zip(pads) {
            let (payload, padded) = (batch.payload(packet), batch.padded(packet));
            assert!(payload.iter().all(|byte| *byte == 0xEE));
            assert_eq!(padded.len(), payload.len() + pad);
            if pad > 0 {
                assert_eq!(crate::media::rtp::unpad(padded), Ok(payload));
                assert!(padded[payload.len()..padded.len() - 1].iter().all(|byte| *byte == 0));
            }
            let carried = usize::from(packet.seq != 4);
            assert_eq!(batch.extensions(packet).count(), carried);
        }
    }

    #[test]
    fn a_batch_is_reused_only_when_nobody_looks_at_it() {
        let mut pool = BatchPool::default();
        let mut batch = pool.take(1);
        Arc::get_mut(&mut batch).unwrap().push(head(1), b"x", std::iter::empty());
        let reader = Arc::clone(&batch);
        let address = Arc::as_ptr(&batch);
        pool.give(batch);
        assert_ne!(Arc::as_ptr(&pool.take(1)), address, "still lent");
        drop(reader);
        let again = pool.take(1);
        assert_eq!(Arc::as_ptr(&again), address, "home again");
        assert!(again.is_empty());
    }

    #[test]
    fn sound_does_not_come_to_hold_the_memory_of_pictures() {
        let mut pool = BatchPool::default();
        let (mut sounds, mut pictures) = (VecDeque::new(), VecDeque::new());
        for n in 0..5000 {
            for (held, bytes) in [(&mut sounds, 100), (&mut pictures, 10_000)] {
                let mut batch = pool.take(bytes);
                Arc::get_mut(&mut batch).unwrap().push(
                    head(n),
                    &vec![7; bytes],
                    std::iter::empty(),
                );
                held.push_back(batch);
                if held.len() > 50 {
                    pool.give(held.pop_front().unwrap());
                }
            }
        }
        assert!(sounds.iter().all(|batch| batch.bytes.capacity() <= 512));
        assert!(pictures.iter().all(|batch| batch.bytes.capacity() <= 16 << 10));
        let made: usize = pool.spare.iter().map(Vec::len).sum();
        assert!(made <= 8, "{made} spare: what was given back was used again");
    }
}
