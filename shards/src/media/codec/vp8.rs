//! The VP8 payload descriptor (RFC 7741, 4.2), and a rewriter that keeps its numbers continuous
//! while the source behind a forwarded stream changes.
//!
//! ```text
//!  X R N S R PID(3) | I L T K ---- | M PictureID(7/15) | TL0PICIDX | TID(2) Y KEYIDX(5)
//! ```
//!
//! Invariants: fields are patched in the width they have. Sources of one track mix 7 and 15 bit
//! ids only if different encoders follow each other; the reader then sees the width change at a
//! key frame, which RFC 7741 allows. A descriptor without an id gets none.
//!
//! Not here: which temporal layers go out.

use super::picture::{CounterMap, Patch, PictureId, PictureMap};

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The first packet of a frame: S = 1 and partition 0.
    pub starts_frame: bool,
    /// N: no other frame refers to this one.
    pub is_discardable: bool,
    pub picture_id: Option<PictureId>,
    pub tl0_picture_index: Option<u8>,
    pub temporal_id: Option<u8>,
    /// Y: refers to the base layer only, so the layer can be entered here.
    pub is_layer_sync: bool,
    pub key_index: Option<u8>,
    len: u8,
}

const KEY_INDEX_MASK: u8 = 0x1f;

/// The longest descriptor: everything there is, with a wide id.
pub const DESCRIPTOR_LEN_MAX: usize = 6;

/// Where the optional fields begin: behind the first byte and the extension bits.
const FIELDS_AT: usize = 2;

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor = Self {
            starts_frame: first & 0x10 != 0 && first & 0x07 == 0,
            is_discardable: first & 0x20 != 0,
            picture_id: None,
            tl0_picture_index: None,
            temporal_id: None,
            is_layer_sync: false,
            key_index: None,
            len: 1,
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let extension = *payload.get(1)?;
        let mut at = FIELDS_AT;
        if extension & 0x80 != 0 {
            let id = PictureId::parse(payload, at)?;
            descriptor.picture_id = Some(id);
            at += id.len();
        }
        if extension & 0x40 != 0 {
            descriptor.tl0_picture_index = Some(*payload.get(at)?);
            at += 1;
        }
        // T and K share a byte, present if either is set.
        if extension & 0x30 != 0 {
            let byte = *payload.get(at)?;
            if extension & 0x20 != 0 {
                descriptor.temporal_id = Some(byte >> 6);
                descriptor.is_layer_sync = byte & 0x20 != 0;
            }
            descriptor.key_index = (extension & 0x10 != 0).then_some(byte & KEY_INDEX_MASK);
            at += 1;
        }
        descriptor.len = at as u8;
        Some(descriptor)
    }

    /// The descriptor's length in bytes, at most 6; the VP8 payload follows.
    #[expect(clippy::len_without_is_empty, reason = "a descriptor is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn tl0_at(&self) -> usize {
        FIELDS_AT + self.picture_id.map_or(0, PictureId::len)
    }

    fn key_at(&self) -> usize {
        self.tl0_at() + usize::from(self.tl0_picture_index.is_some())
    }
}

/// Whether a key frame starts here: RFC 7741, 4.3, the P bit of the first payload byte, which
/// end-to-end encryption leaves clear.
pub fn starts_keyframe(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|descriptor| {
        descriptor.starts_frame && payload.get(descriptor.len()).is_some_and(|byte| byte & 1 == 0)
    })
}

/// Keeps picture ids, TL0PICIDX and KEYIDX of one forwarded stream continuous.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Vp8Rewriter {
    tl0: CounterMap,
    key: CounterMap,
    pictures: PictureMap,
}

impl Default for Vp8Rewriter {
    fn default() -> Self {
        Self {
            pictures: PictureMap::default(),
            tl0: CounterMap::new(0xff),
            key: CounterMap::new(KEY_INDEX_MASK),
        }
    }
}

impl Vp8Rewriter {
    /// A new source starts with this packet, the first of a key frame. The packet itself is
    /// then rewritten like the others; late packets of the former source must not be any more.
    /// The first source needs no switch: it keeps its numbers.
    pub fn switch(&mut self, first: &Descriptor) {
        if let Some(id) = first.picture_id {
            self.pictures.switch(id);
        }
        self.tl0.switch();
        self.key.switch();
    }

    /// What the first bytes of `payload` become, which starts with the source's descriptor.
    /// `None` for a packet from before the switch: it must not be forwarded.
    #[inline]
    pub fn patch(&mut self, source: &Descriptor, payload: &[u8]) -> Option<Patch> {
        Patch::new(payload, source.len(), |bytes| self.rewrite(source, bytes))
    }

    /// Patches `out`, which starts with a copy of the source's descriptor. False, with `out`
    /// untouched, for a packet from before the switch: it must not be forwarded.
    #[must_use]
    pub fn rewrite(&mut self, source: &Descriptor, out: &mut [u8]) -> bool {
        let Some(out) = out.get_mut(..source.len()) else { return false };
        if let Some(id) = source.picture_id {
            let Some(mapped) = self.pictures.map(id) else { return false };
            if mapped.resynced {
                self.tl0.switch();
                self.key.switch();
            }
            id.patch(out, FIELDS_AT, mapped.id);
        }
        if let Some(index) = source.tl0_picture_index {
            out[source.tl0_at()] = self.tl0.map(index);
        }
        if let Some(index) = source.key_index {
            let at = source.key_at();
            out[at] = out[at] & !KEY_INDEX_MASK | self.key.map(index);
        }
        true
    }

    /// A picture of a temporal layer that is not forwarded, not one packet of it: told for each
    /// of them or only the first, so that the ids of the others have no gap. Never for a
    /// base-layer picture, whose TL0PICIDX would be missed.
    pub fn skip(&mut self, dropped: &Descriptor) {
        if dropped.picture_id.is_some_and(|id| self.pictures.skip(id)) {
            self.tl0.switch();
            self.key.switch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_descriptor_is_one_byte() {
        let descriptor = Descriptor::parse(&[0x30]).unwrap();
        assert!(descriptor.starts_frame && descriptor.is_discardable);
        assert_eq!((descriptor.len(), descriptor.picture_id), (1, None));
    }

    #[test]
    fn a_full_descriptor_is_six_bytes() {
        let descriptor = Descriptor::parse(&[0x90, 0xf0, 0x92, 0x34, 0x56, 0xa3]).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, is_wide: true }));
        assert_eq!(descriptor.tl0_picture_index, Some(0x56));
        assert_eq!((descriptor.temporal_id, descriptor.is_layer_sync), (Some(2), true));
        assert_eq!((descriptor.key_index, descriptor.len()), (Some(3), 6));
    }

    #[test]
    fn a_cut_descriptor_is_refused() {
        let full = [0x90, 0xf0, 0x92, 0x34, 0x56, 0xa3];
        assert!((0..full.len()).all(|len| Descriptor::parse(&full[..len]).is_none()));
    }

    #[test]
    fn numbers_go_on_across_a_switch() {
        let mut rewriter = Vp8Rewriter::default();
        assert_eq!(sent(&mut rewriter, 100, 10, 1), Some((100, 10, 1)));
        let next = packet(7000, 200, 30);
        rewriter.switch(&Descriptor::parse(&next).unwrap());
        assert_eq!(sent(&mut rewriter, 7000, 200, 30), Some((101, 11, 2)));
        assert_eq!(sent(&mut rewriter, 7001, 201, 30), Some((102, 12, 2)));
        assert_eq!(sent(&mut rewriter, 6999, 199, 29), None, "from before the switch");
    }

    #[test]
    fn the_temporal_bits_survive_a_new_key_index() {
        let mut rewriter = Vp8Rewriter::default();
        let mut bytes = [0x90, 0xf0, 0x80, 0x01, 0x02, 0xe0 | 7];
        let source = Descriptor::parse(&bytes).unwrap();
        rewriter.key.map(4);
        rewriter.switch(&source);
        assert!(rewriter.rewrite(&source, &mut bytes));
        assert_eq!(bytes[5], 0xe0 | 5);
    }

    #[test]
    fn a_narrow_id_stays_narrow() {
        let mut rewriter = Vp8Rewriter::default();
        assert!(sent(&mut rewriter, 1000, 0, 0).is_some());
        let mut narrow = [0x90, 0x80, 0x05, 0xaa];
        let source = Descriptor::parse(&narrow).unwrap();
        rewriter.switch(&source);
        assert!(rewriter.rewrite(&source, &mut narrow));
        assert_eq!(narrow, [0x90, 0x80, (1001 % 128) as u8, 0xaa]);
    }

    #[test]
    fn a_short_copy_is_refused() {
        let source = Descriptor::parse(&packet(1, 1, 1)).unwrap();
        assert!(!Vp8Rewriter::default().rewrite(&source, &mut [0x90, 0xf0]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..10)) {
            let _ = starts_keyframe(&bytes);
            if let Some(descriptor) = Descriptor::parse(&bytes) {
                prop_assert!(descriptor.len() <= 6 && descriptor.len() <= bytes.len());
                let before = bytes.clone();
                let patch = Vp8Rewriter::default().patch(&descriptor, &bytes);
                prop_assert!(!patch.expect("of this source").changes);
                prop_assert!(Vp8Rewriter::default().rewrite(&descriptor, &mut bytes));
                prop_assert_eq!(bytes, before, "the first source keeps its numbers");
            }
        }

        /// The model sends pictures of several sources (L1T2: even pictures are the base
        /// layer), in packets that swap places with their neighbours, and drops the upper layer
        /// of some sources.
        #[test]
        fn a_reader_sees_one_encoder(
            sources in proptest::collection::vec(
                (0u16..0x8000, any::<u8>(), 1u16..80, any::<bool>(), any::<u64>()), 1..6),
        ) {
            let mut rewriter = Vp8Rewriter::default();
            let (mut id, mut tl0) = (sources[0].0, sources[0].1);
            for (start, tl0_start, pictures, thinned, swaps) in sources {
                let mut packets = Vec::new();
                for step in 0..pictures {
                    let source = (start + step, tl0_start.wrapping_add((step / 2) as u8));
                    let is_base = step % 2 == 0;
                    let forwarded = is_base || !thinned;
                    let ours = forwarded.then_some((id, tl0));
                    id = (id + u16::from(forwarded)) & 0x7fff;
                    tl0 = tl0.wrapping_add(u8::from(!is_base || step + 1 == pictures));
                    packets.extend([(source, ours); 2]);
                }
                // Both packets of a picture swap places with each other's neighbours, but the
                // first packet of each picture stays before the next picture's first.
                for at in (1..packets.len().saturating_sub(1)).step_by(2) {
                    if swaps >> (at % 64) & 1 == 1 {
                        packets.swap(at, at + 1);
                    }
                }
                let first = packet(packets[0].0.0 & 0x7fff, packets[0].0.1, 0);
                rewriter.switch(&Descriptor::parse(&first).unwrap());
                for ((source_id, source_tl0), ours) in packets {
                    let bytes = packet(source_id & 0x7fff, source_tl0, 0);
                    let descriptor = Descriptor::parse(&bytes).unwrap();
                    let Some((id, tl0)) = ours else {
                        rewriter.skip(&descriptor);
                        continue;
                    };
                    let mut out = bytes;
                    let patch = rewriter.patch(&descriptor, &bytes).expect("of this source");
                    patch.apply(&mut out);
                    prop_assert_eq!(patch.changes, out != bytes);
                    let out = Descriptor::parse(&out).unwrap();
                    prop_assert_eq!(out.picture_id.map(|id| id.value), Some(id));
                    prop_assert_eq!(out.tl0_picture_index, Some(tl0));
                }
            }
        }
    }

    fn packet(id: u16, tl0: u8, key: u8) -> [u8; 6] {
        let [high, low] = (0x8000 | id).to_be_bytes();
        [0x90, 0xf0, high, low, tl0, key & KEY_INDEX_MASK]
    }

    fn sent(rewriter: &mut Vp8Rewriter, id: u16, tl0: u8, key: u8) -> Option<(u16, u8, u8)> {
        let mut bytes = packet(id, tl0, key);
        let source = Descriptor::parse(&bytes).unwrap();
        rewriter.rewrite(&source, &mut bytes).then(|| {
            let out = Descriptor::parse(&bytes).unwrap();
            let id = out.picture_id.unwrap().value;
            (id, out.tl0_picture_index.unwrap(), out.key_index.unwrap())
        })
    }
}
