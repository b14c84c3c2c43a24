//! Picture ids and small counters (TL0PICIDX, KEYIDX) of VP8 and VP9, kept continuous while the
//! source behind a forwarded stream changes.
//!
//! A source's ids are extended to integers that do not wrap. An offset maps them to ours; it
//! changes at a switch (the list of spans starts anew) and at each picture that is dropped (a
//! span is added), so a late packet gets the offset that was in force at its picture:
//!
//! ```text
//!  source   7  8  9 10 11 12        spans: from 7: +100, from 10: +99, from 12: +98
//!  dropped        x     x           (9 and 11 are dropped)
//!  ours   107 108   109   110
//! ```
//!
//! Invariants: all packets of a picture get one id; a picture's id never changes once told; ids
//! of pictures forwarded in order are consecutive where the source's were.
//!
//! Not here: bytes; the descriptors' parsers and writers are in `vp8` and `vp9`.

/// A picture id as a descriptor carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    /// 15 bits instead of 7.
    pub is_wide: bool,
}

impl PictureId {
    /// Reads an id at `at`: one byte, or two if the top bit (M) is set. RFC 7741, 4.2 and
    /// RFC 9628, 4.2.
    pub(super) fn parse(payload: &[u8], at: usize) -> Option<Self> {
        let first = *payload.get(at)?;
        if first & 0x80 == 0 {
            return Some(Self { value: u16::from(first), is_wide: false });
        }
        let second = *payload.get(at + 1)?;
        Some(Self { value: u16::from_be_bytes([first & 0x7f, second]), is_wide: true })
    }

    pub(super) fn len(self) -> usize {
        1 + usize::from(self.is_wide)
    }

    /// Writes `value` in this id's width. There is no room to widen 7 bits to 15 in place; the
    /// reader of a narrow id sees the low 7 bits, which are continuous as well.
    pub(super) fn patch(self, out: &mut [u8], at: usize, value: u16) -> bool {
        let Some(field) = out.get_mut(at..at + self.len()) else { return false };
        match field {
            [narrow] => *narrow = (value & 0x7f) as u8,
            wide => wide.copy_from_slice(&(0x8000 | value & WIDE_MASK).to_be_bytes()),
        }
        true
    }

    fn modulus(self) -> u32 {
        if self.is_wide { 1 << 15 } else { 1 << 7 }
    }

    /// How many pictures back an id is still taken for a late one. About 8 s of 60 fps; a
    /// quarter of the range for 7 bits.
    fn late_max(self) -> u32 {
        if self.is_wide { 512 } else { 32 }
    }

    /// How many pictures ahead are a gap, and not another numbering (an encoder that began
    /// anew on the same SSRC). About 2 minutes of 60 fps; 7 bits cannot tell.
    fn ahead_max(self) -> u32 {
        if self.is_wide { 8192 } else { 128 }
    }
}

/// What a source's picture becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    pub id: u16,
    /// The source's numbering jumped: its other counters start anew, too.
    pub resynced: bool,
}

/// Maps the picture ids of changing sources to one continuous line.
///
/// What most packets touch comes first: nothing but the newest source, in a single span.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct PictureMap {
    source: Option<Source>,
    newest_out: Option<u16>,
    span_count: usize,
    spans: [Span; SPANS_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Source {
    newest: PictureId,
    /// `newest`, extended.
    extended: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    /// The first extended source id the offset is for.
    from: u32,
    /// Ours minus the source's, modulo 2^15.
    offset: u16,
}

/// A stretch of forwarded pictures between dropped ones takes a span: at least 32 pictures, or
/// half a second of 60 fps, for late packets to find their offset. Costs 256 bytes per forwarded
/// stream.
const SPANS_MAX: usize = 32;

const WIDE_MASK: u16 = 0x7fff;

/// Where extended ids begin, so that a late id before the first does not underflow. At 60 fps
/// they last for two years.
const EXTENDED_BASE: u32 = 1 << 16;

enum Place {
    At(u32),
    Jumped,
}

impl Default for PictureMap {
    fn default() -> Self {
        Self { source: None, newest_out: None, spans: [Span::default(); SPANS_MAX], span_count: 0 }
    }
}

impl PictureMap {
    /// Starts a new source with the picture `id`, which follows our newest one.
    pub fn switch(&mut self, id: PictureId) -> u16 {
        let extended = EXTENDED_BASE + u32::from(id.value);
        let out = self.newest_out.map_or(id.value, |newest| newest.wrapping_add(1) & WIDE_MASK);
        self.source = Some(Source { newest: id, extended });
        self.newest_out = Some(out);
        self.spans[0] = Span { from: extended, offset: out.wrapping_sub(extended as u16) };
        self.span_count = 1;
        out
    }

    /// Maps the id of a packet that is forwarded. `None` for a late packet from before the
    /// switch, or older than our memory of offsets: it must not be forwarded.
    pub fn map(&mut self, id: PictureId) -> Option<Mapped> {
        let extended = match self.place(id) {
            Place::At(extended) => extended,
            Place::Jumped => return Some(Mapped { id: self.switch(id), resynced: true }),
        };
        let span = self.spans[..self.span_count].iter().rev().find(|s| s.from <= extended)?;
        let out = (extended as u16).wrapping_add(span.offset) & WIDE_MASK;
        if self.advance(id, extended) {
            self.newest_out = Some(out);
        }
        Some(Mapped { id: out, resynced: false })
    }

    /// Notes that this picture is not forwarded, not one packet of it, so that it leaves no
    /// gap. To be told for every packet, or only the first; too late for a picture that comes
    /// after a newer one. Answers whether the numbering jumped, as [`Mapped::resynced`] does.
    pub fn skip(&mut self, id: PictureId) -> bool {
        if self.source.is_none() {
            return false;
        }
        match self.place(id) {
            Place::At(extended) => {
                if self.advance(id, extended) {
                    self.drop_after(extended);
                }
                false
            }
            Place::Jumped => {
                // Our newest is not used up: the picture after this one follows it.
                let newest = self.newest_out;
                self.switch(id);
                self.newest_out = newest;
                self.drop_after(EXTENDED_BASE + u32::from(id.value));
                true
            }
        }
    }

    fn place(&self, id: PictureId) -> Place {
        let Some(source) = self.source else { return Place::Jumped };
        if source.newest.is_wide != id.is_wide {
            return Place::Jumped;
        }
        let modulus = id.modulus();
        // A mask, because the compiler divides otherwise.
        let behind = u32::from(source.newest.value.wrapping_sub(id.value)) & (modulus - 1);
        if behind <= id.late_max() {
            return Place::At(source.extended - behind);
        }
        let ahead = modulus - behind;
        if ahead > id.ahead_max() {
            return Place::Jumped;
        }
        Place::At(source.extended.wrapping_add(ahead))
    }

    fn advance(&mut self, id: PictureId, extended: u32) -> bool {
        match &mut self.source {
            Some(source) if extended > source.extended => {
                *source = Source { newest: id, extended };
                true
            }
            _ => false,
        }
    }

    /// The pictures after `extended` move up by one.
    fn drop_after(&mut self, extended: u32) {
        let Some(last) = self.spans[..self.span_count].last().copied() else { return };
        let span = Span { from: extended + 1, offset: last.offset.wrapping_sub(1) };
        if last.from == extended {
            // No picture was forwarded since the last drop.
            self.spans[self.span_count - 1] = span;
            return;
        }
        if self.span_count == SPANS_MAX {
            self.spans.copy_within(1.., 0);
            self.span_count -= 1;
        }
        self.spans[self.span_count] = span;
        self.span_count += 1;
    }
}

/// Maps a counter of up to 8 bits that rises by one per base-layer picture (TL0PICIDX) or key
/// frame (KEYIDX).
#[derive(Debug, Clone, Copy)]
pub struct CounterMap {
    mask: u8,
    newest_out: Option<u8>,
    /// Unknown until the new source's first value.
    offset: Option<u8>,
}

impl CounterMap {
    pub fn new(mask: u8) -> Self {
        Self { mask, newest_out: None, offset: None }
    }

    /// The next value is a new source's first.
    pub fn switch(&mut self) {
        self.offset = None;
    }

    pub fn map(&mut self, value: u8) -> u8 {
        let offset = *self.offset.get_or_insert_with(|| {
            let first = self.newest_out.map_or(value, |newest| newest.wrapping_add(1));
            first.wrapping_sub(value)
        });
        let out = value.wrapping_add(offset) & self.mask;
        let ahead = self.newest_out.map_or(1, |newest| out.wrapping_sub(newest) & self.mask);
        if (1..=self.mask / 2).contains(&ahead) {
            self.newest_out = Some(out);
        }
        out
    }
}

/// A descriptor's first bytes as one subscriber gets them.
#[derive(Debug, Clone, Copy)]
pub struct Patch {
    bytes: [u8; PATCH_LEN_MAX],
    len: u8,
    /// They differ from the source's.
    pub changes: bool,
}

/// The numbers stand in the first six bytes of a VP8 descriptor, the first five of a VP9 one.
const PATCH_LEN_MAX: usize = 6;

impl Patch {
    /// What `rewrite` makes of the first `len` bytes of `payload`; `None` if it refuses.
    #[inline]
    pub(super) fn new(
        payload: &[u8],
        len: usize,
        rewrite: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Self> {
        let mut bytes = [0; PATCH_LEN_MAX];
        for (to, from) in bytes.iter_mut().zip(payload) {
            *to = *from;
        }
        let len = len.min(PATCH_LEN_MAX);
        let fits = rewrite(&mut bytes);
        let changes = bytes.iter().zip(payload).any(|(to, from)| to != from);
        fits.then_some(Self { bytes, len: len as u8, changes })
    }

    /// Writes them over the source's, at the start of `out`.
    pub fn apply(&self, out: &mut [u8]) {
        for (to, from) in out.iter_mut().zip(&self.bytes[..usize::from(self.len)]) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_source_keeps_its_ids() {
        let mut map = PictureMap::default();
        assert_eq!(map.map(wide(700)).map(|m| m.id), Some(700));
        assert_eq!(map.map(wide(701)).map(|m| m.id), Some(701));
    }

    #[test]
    fn a_switch_goes_on_where_the_last_source_stopped() {
        let mut map = PictureMap::default();
        map.map(wide(32_766));
        assert_eq!(map.switch(wide(5)), 32_767);
        assert_eq!(told(&mut map, 5), Some(32_767));
        assert_eq!(told(&mut map, 6), Some(0), "wraps at 15 bits");
        assert_eq!(told(&mut map, 4), None, "from before the switch");
    }

    #[test]
    fn late_packets_get_the_offset_of_their_picture() {
        let mut map = PictureMap::default();
        map.switch(wide(7));
        assert_eq!(told(&mut map, 8), Some(8));
        map.skip(wide(9));
        map.skip(wide(9));
        assert_eq!(told(&mut map, 10), Some(9));
        map.skip(wide(11));
        map.skip(wide(12));
        assert_eq!(told(&mut map, 13), Some(10));
        assert_eq!(told(&mut map, 8), Some(8));
        assert_eq!(told(&mut map, 10), Some(9));
    }

    #[test]
    fn a_long_run_of_dropped_pictures_takes_one_span() {
        let mut map = PictureMap::default();
        map.switch(wide(0));
        (1..300).for_each(|value| {
            map.skip(wide(value));
        });
        assert_eq!(told(&mut map, 300), Some(1));
        assert_eq!(told(&mut map, 0), Some(0));
    }

    #[test]
    fn a_lost_picture_leaves_its_gap() {
        let mut map = PictureMap::default();
        map.switch(wide(100));
        map.switch(wide(50));
        assert_eq!(told(&mut map, 53), Some(104));
        assert_eq!(told(&mut map, 52), Some(103), "repaired later");
    }

    #[test]
    fn an_encoder_that_begins_anew_is_followed() {
        let mut map = PictureMap::default();
        map.switch(wide(20_000));
        let jumped = map.map(wide(9_000)).unwrap();
        assert_eq!((jumped.id, jumped.resynced), (20_001, true));
        assert_eq!(told(&mut map, 9_001), Some(20_002));
    }

    #[test]
    fn a_dropped_picture_of_a_new_numbering_uses_up_no_id() {
        let mut map = PictureMap::default();
        map.switch(wide(20_000));
        assert!(map.skip(wide(9_000)));
        assert_eq!(told(&mut map, 9_001), Some(20_001));
    }

    #[test]
    fn narrow_ids_wrap_at_7_bits_and_go_on_as_wide_ones() {
        let mut map = PictureMap::default();
        for step in 0..300u16 {
            let id = PictureId { value: (100 + step) % 128, is_wide: false };
            assert_eq!(map.map(id).unwrap().id, 100 + step);
        }
        assert_eq!(map.switch(wide(9)), 400);
    }

    #[test]
    fn counters_go_on_across_a_switch_and_ignore_late_values() {
        let mut map = CounterMap::new(0xff);
        assert_eq!((map.map(254), map.map(255), map.map(254)), (254, 255, 254));
        map.switch();
        assert_eq!((map.map(17), map.map(18)), (0, 1));
        let mut map = CounterMap::new(0x1f);
        assert_eq!(map.map(31), 31);
        map.switch();
        assert_eq!(map.map(9), 0);
    }

    proptest! {
        #[test]
        fn forwarded_pictures_are_consecutive_whatever_is_dropped_and_switched(
            sources in proptest::collection::vec(
                (0u16..0x8000, proptest::collection::vec(any::<bool>(), 1..200)), 1..6),
        ) {
            let mut map = PictureMap::default();
            let mut expected = sources[0].0;
            for (start, kept) in sources {
                map.switch(wide(start));
                for (step, keep) in kept.into_iter().enumerate() {
                    let id = wide(start.wrapping_add(step as u16) & WIDE_MASK);
                    if step == 0 || keep {
                        prop_assert_eq!(map.map(id).map(|m| m.id), Some(expected));
                        prop_assert_eq!(map.map(id).map(|m| m.id), Some(expected));
                        expected = (expected + 1) & WIDE_MASK;
                    } else {
                        map.skip(id);
                    }
                }
            }
        }

        #[test]
        fn a_picture_keeps_its_id_in_any_order(
            steps in proptest::collection::vec((0u16..400, any::<bool>()), 1..400),
        ) {
            let mut map = PictureMap::default();
            map.switch(wide(0));
            let mut known = std::collections::BTreeMap::new();
            for (value, _) in &steps {
                // Every third picture is dropped.
                if value % 3 == 2 {
                    map.skip(wide(*value));
                } else if let Some(mapped) = map.map(wide(*value)) {
                    prop_assert!(!mapped.resynced);
                    prop_assert_eq!(*known.entry(*value).or_insert(mapped.id), mapped.id);
                }
            }
            let ids: Vec<_> = known.values().collect();
            prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    fn wide(value: u16) -> PictureId {
        PictureId { value, is_wide: true }
    }

    fn told(map: &mut PictureMap, value: u16) -> Option<u16> {
        map.map(wide(value)).map(|mapped| mapped.id)
    }
}
