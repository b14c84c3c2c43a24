//! The VP9 payload descriptor (RFC 9628, 4.2), and a rewriter that keeps its numbers continuous
//! while the source behind a forwarded stream changes.
//!
//! ```text
//!  I P L F B E V Z | M PictureID(7/15) | TID(3) U SID(3) D | TL0PICIDX    F = 0
//!                                                          | P_DIFF, N …  F = 1 and P = 1
//!                  | scalability structure, V = 1
//! ```
//!
//! Invariants: all layers of a picture share its id, and references are differences of ids:
//! dropping layers never renumbers. Only switches do.
//!
//! Not here: which layers go out.

use super::picture::{CounterMap, Patch, PictureId, PictureMap};

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// P: predicted from earlier pictures.
    pub is_inter_predicted: bool,
    /// B: the first packet of a layer's frame.
    pub starts_frame: bool,
    /// E: the last packet of a layer's frame.
    pub ends_frame: bool,
    /// Z: upper spatial layers do not refer to this frame.
    pub is_unreferenced_above: bool,
    /// F: references are in the descriptor.
    pub is_flexible: bool,
    pub picture_id: Option<PictureId>,
    pub layer: Option<Layer>,
    pub tl0_picture_index: Option<u8>,
    /// The number of spatial layers (1 to 8), if a scalability structure is attached.
    pub spatial_layers: Option<u8>,
    len: u16,
}

/// Layer indices (L = 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    pub temporal_id: u8,
    /// U: the temporal layer can be entered here.
    pub is_switching_up_point: bool,
    pub spatial_id: u8,
    /// D: depends on the spatial layer below.
    pub is_inter_layer_predicted: bool,
}

/// RFC 9628, 4.2: at most three references in flexible mode.
const REFERENCES_MAX: usize = 3;

/// Where the optional fields begin.
const FIELDS_AT: usize = 1;

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut descriptor = Self {
            is_inter_predicted: first & 0x40 != 0,
            starts_frame: first & 0x08 != 0,
            ends_frame: first & 0x04 != 0,
            is_unreferenced_above: first & 0x01 != 0,
            is_flexible: first & 0x10 != 0,
            picture_id: None,
            layer: None,
            tl0_picture_index: None,
            spatial_layers: None,
            len: 1,
        };
        let mut at = FIELDS_AT;
        if first & 0x80 != 0 {
            let id = PictureId::parse(payload, at)?;
            descriptor.picture_id = Some(id);
            at += id.len();
        }
        if first & 0x20 != 0 {
            descriptor.layer = Some(Layer::parse(*payload.get(at)?));
            at += 1;
            if !descriptor.is_flexible {
                descriptor.tl0_picture_index = Some(*payload.get(at)?);
                at += 1;
            }
        }
        if descriptor.is_flexible && descriptor.is_inter_predicted {
            at += references_len(payload.get(at..)?)?;
        }
        if first & 0x02 != 0 {
            let structure = payload.get(at..)?;
            descriptor.spatial_layers = Some((*structure.first()? >> 5) + 1);
            at += structure_len(structure)?;
        }
        descriptor.len = u16::try_from(at).ok()?;
        Some(descriptor)
    }

    /// The descriptor's length in bytes; the VP9 payload follows.
    #[expect(clippy::len_without_is_empty, reason = "a descriptor is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The bytes from the start that [`Vp9Rewriter::rewrite`] may change.
    pub fn patched_len(&self) -> usize {
        self.tl0_at() + usize::from(self.tl0_picture_index.is_some())
    }

    /// The first packet of a key picture: its lowest spatial layer, which is not predicted.
    pub fn starts_keyframe(&self) -> bool {
        let is_lowest = self.layer.is_none_or(|layer| layer.spatial_id == 0);
        self.starts_frame && !self.is_inter_predicted && is_lowest
    }

    fn tl0_at(&self) -> usize {
        FIELDS_AT + self.picture_id.map_or(0, PictureId::len) + usize::from(self.layer.is_some())
    }
}

impl Layer {
    fn parse(byte: u8) -> Self {
        Self {
            temporal_id: byte >> 5,
            is_switching_up_point: byte & 0x10 != 0,
            spatial_id: byte >> 1 & 0x07,
            is_inter_layer_predicted: byte & 0x01 != 0,
        }
    }
}

/// P_DIFF (7) and N, which says that another follows.
fn references_len(bytes: &[u8]) -> Option<usize> {
    let last = bytes.iter().take(REFERENCES_MAX).position(|byte| byte & 0x01 == 0)?;
    Some(last + 1)
}

/// RFC 9628, 4.2.1: N_S (3) Y G, sizes of 4 bytes per layer, then the group of pictures with a
/// byte and R (2) references each.
fn structure_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let mut at = 1;
    if first & 0x10 != 0 {
        at += 4 * usize::from((first >> 5) + 1);
    }
    if first & 0x08 != 0 {
        let pictures = *bytes.get(at)?;
        at += 1;
        for _ in 0..pictures {
            at += 1 + usize::from(*bytes.get(at)? >> 2 & 0x03);
        }
    }
    (at <= bytes.len()).then_some(at)
}

/// Keeps picture ids and TL0PICIDX of one forwarded stream continuous.
#[derive(Debug, Clone)]
pub struct Vp9Rewriter {
    pictures: PictureMap,
    tl0: CounterMap,
}

impl Default for Vp9Rewriter {
    fn default() -> Self {
        Self { pictures: PictureMap::default(), tl0: CounterMap::new(0xff) }
    }
}

impl Vp9Rewriter {
    /// A new source starts with this packet, the first of a key picture. The packet itself is
    /// then rewritten like the others; late packets of the former source must not be any more.
    /// The first source needs no switch: it keeps its numbers.
    pub fn switch(&mut self, first: &Descriptor) {
        if let Some(id) = first.picture_id {
            self.pictures.switch(id);
        }
        self.tl0.switch();
    }

    /// What the first bytes of `payload` become, which starts with the source's descriptor.
    /// `None` for a packet from before the switch: it must not be forwarded.
    pub fn patch(&mut self, source: &Descriptor, payload: &[u8]) -> Option<Patch> {
        Patch::new(payload, source.patched_len(), |bytes| self.rewrite(source, bytes))
    }

    /// Patches `out`, which starts with a copy of the source's first
    /// [`Descriptor::patched_len`] bytes. False, with `out` untouched, for a packet from before
    /// the switch: it must not be forwarded.
    #[must_use]
    pub fn rewrite(&mut self, source: &Descriptor, out: &mut [u8]) -> bool {
        let Some(out) = out.get_mut(..source.patched_len()) else { return false };
        if let Some(id) = source.picture_id {
            let Some(mapped) = self.pictures.map(id) else { return false };
            if mapped.resynced {
                self.tl0.switch();
            }
            id.patch(out, FIELDS_AT, mapped.id);
        }
        if let Some(index) = source.tl0_picture_index {
            out[source.tl0_at()] = self.tl0.map(index);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_non_flexible_svc_key_picture_with_its_structure() {
        // I L B V; id 0x1234; TID 0 SID 0; TL0PICIDX 7; 2 layers with sizes; a group of two.
        let mut bytes = vec![0xaa, 0x92, 0x34, 0x00, 0x07, 0x38];
        bytes.extend([1, 64, 0, 180, 2, 128, 1, 104]);
        bytes.extend([2, 0x14, 1, 0x38, 1, 2, 0x82]);
        let descriptor = Descriptor::parse(&bytes).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId { value: 0x1234, is_wide: true }));
        assert_eq!(descriptor.tl0_picture_index, Some(7));
        assert_eq!(descriptor.spatial_layers, Some(2));
        assert_eq!(descriptor.len(), bytes.len() - 1, "one byte of VP9 follows");
        assert!(descriptor.starts_keyframe());
    }

    #[test]
    fn a_flexible_inter_picture_with_two_references() {
        let bytes = [0xfc, 0x80, 0x01, 0x35, 0x03, 0x04, 0x99];
        let descriptor = Descriptor::parse(&bytes).unwrap();
        let layer = descriptor.layer.unwrap();
        assert_eq!((layer.temporal_id, layer.spatial_id), (1, 2));
        assert!(layer.is_switching_up_point && layer.is_inter_layer_predicted);
        assert_eq!((descriptor.tl0_picture_index, descriptor.len()), (None, 6));
        assert_eq!(descriptor.patched_len(), 4);
    }

    #[test]
    fn a_fourth_reference_is_refused() {
        assert_eq!(Descriptor::parse(&[0xf0, 1, 0, 3, 3, 3, 2]), None);
    }

    #[test]
    fn numbers_go_on_across_a_switch_and_layers_share_them() {
        let mut rewriter = Vp9Rewriter::default();
        assert_eq!(sent(&mut rewriter, [0xa8, 0x80, 0x64, 0x00, 250]), Some((100, 250)));
        let key = [0xa8, 0x9f, 0xff, 0x00, 3];
        rewriter.switch(&Descriptor::parse(&key).unwrap());
        assert_eq!(sent(&mut rewriter, key), Some((101, 251)));
        assert_eq!(sent(&mut rewriter, [0xa8, 0x9f, 0xff, 0x03, 3]), Some((101, 251)));
        assert_eq!(sent(&mut rewriter, [0xe8, 0xa0, 0x01, 0x00, 4]), Some((103, 252)));
        assert_eq!(sent(&mut rewriter, [0xe8, 0x9f, 0xfe, 0x00, 2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            if let Some(descriptor) = Descriptor::parse(&bytes) {
                prop_assert!(descriptor.patched_len() <= descriptor.len());
                prop_assert!(descriptor.len() <= bytes.len());
                let before = bytes.clone();
                prop_assert!(Vp9Rewriter::default().rewrite(&descriptor, &mut bytes));
                prop_assert_eq!(bytes, before, "the first source keeps its numbers");
            }
        }
    }

    fn sent(rewriter: &mut Vp9Rewriter, mut bytes: [u8; 5]) -> Option<(u16, u8)> {
        let source = Descriptor::parse(&bytes).unwrap();
        rewriter.rewrite(&source, &mut bytes).then(|| {
            let out = Descriptor::parse(&bytes).unwrap();
            (out.picture_id.unwrap().value, out.tl0_picture_index.unwrap())
        })
    }
}
