//! Headers for many packets to one receiver, which differ in few bytes: the extension elements
//! are encoded once, when they are negotiated.
//!
//! Invariants: the one-byte form only (RFC 8285 §4.2); what does not fit it is refused.
//!
//! Not here: the two-byte form, reading (`rtp`).

use super::rtp::{ELEMENTS_AT, FIXED_LEN, FixedHeader, ONE_BYTE_PROFILE, put};

/// Header extension elements in the one-byte form, encoded once for many headers that differ
/// in the numbers of [`PerPacket`] only.
///
/// Invariants: what follows the elements is zero, so that a copy of the whole is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElementBlock {
    bytes: [u8; BLOCK_LEN],
    len: u8,
    /// Where these go; 0 for nowhere.
    transport_seq_at: u8,
    abs_send_time_at: u8,
}

/// What every packet has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerPacket {
    pub transport_seq: u16,
    pub abs_send_time: [u8; 3],
}

impl Default for ElementBlock {
    fn default() -> Self {
        Self { bytes: [0; BLOCK_LEN], len: 0, transport_seq_at: 0, abs_send_time_at: 0 }
    }
}

impl ElementBlock {
    /// Appends an element. False if it needs the two-byte form, or there is no room.
    #[must_use]
    pub fn push(&mut self, id: u8, data: &[u8]) -> bool {
        match put_one_byte(&mut self.bytes, usize::from(self.len), id, data) {
            Some(end) => {
                self.len = end as u8;
                true
            }
            None => false,
        }
    }

    /// Appends the element of [`PerPacket::transport_seq`].
    #[must_use]
    pub fn push_transport_seq(&mut self, id: u8) -> bool {
        self.transport_seq_at = self.len + 1;
        self.push(id, &[0; 2])
    }

    /// Appends the element of [`PerPacket::abs_send_time`].
    #[must_use]
    pub fn push_abs_send_time(&mut self, id: u8) -> bool {
        self.abs_send_time_at = self.len + 1;
        self.push(id, &[0; 3])
    }

    /// Begins a header with these elements at the start of `out`.
    ///
    /// # Panics
    /// If the buffer is shorter than [`BLOCK_HEADER_LEN`], all of which is overwritten.
    #[inline]
    pub fn begin<'a>(&self, out: &'a mut [u8], own: PerPacket) -> BegunHeader<'a> {
        let (fixed, rest) =
            out.split_first_chunk_mut().expect("the caller's buffer holds a header");
        let elements: &mut [u8; BLOCK_LEN] =
            rest.first_chunk_mut().expect("the caller's buffer holds a header");
        // All of it: a copy of fixed length is a few moves.
        *elements = self.bytes;
        let at = usize::from(self.transport_seq_at);
        if at != 0 && at <= BLOCK_LEN - 2 {
            elements[at..at + 2].copy_from_slice(&own.transport_seq.to_be_bytes());
        }
        let at = usize::from(self.abs_send_time_at);
        if at != 0 && at <= BLOCK_LEN - 3 {
            elements[at..at + 3].copy_from_slice(&own.abs_send_time);
        }
        BegunHeader { fixed, elements, len: usize::from(self.len) }
    }
}

/// A header begun with an [`ElementBlock`], to which elements may be added.
#[derive(Debug)]
pub struct BegunHeader<'a> {
    fixed: &'a mut [u8; ELEMENTS_AT],
    elements: &'a mut [u8; BLOCK_LEN],
    len: usize,
}

impl BegunHeader<'_> {
    /// Appends an element. False if it needs the two-byte form, or there is no room.
    #[inline]
    #[must_use]
    pub fn push(&mut self, id: u8, data: &[u8]) -> bool {
        match put_one_byte(self.elements, self.len, id, data) {
            Some(end) => {
                self.len = end;
                true
            }
            None => false,
        }
    }

    /// Writes the rest and returns the header's length.
    #[inline]
    pub fn finish(self, fixed: &FixedHeader) -> usize {
        let words = self.len.div_ceil(4);
        let len = if words == 0 { FIXED_LEN } else { ELEMENTS_AT + 4 * words };
        // As one number, because many small stores to where the cipher then loads 16 bytes at
        // once make it wait.
        let start = u128::from(fixed.first_bytes(words > 0)) << 112
            | u128::from(fixed.seq) << 96
            | u128::from(fixed.timestamp) << 64
            | u128::from(fixed.ssrc) << 32
            | u128::from(ONE_BYTE_PROFILE) << 16
            | words as u128;
        *self.fixed = start.to_be_bytes();
        len
    }
}

/// Encodes one element at `at` and returns where it ends, if it fits the one-byte form
/// (RFC 8285 §4.2: ids 1 to 14, 1 to 16 bytes) and the room.
#[inline]
fn put_one_byte(out: &mut [u8; BLOCK_LEN], at: usize, id: u8, data: &[u8]) -> Option<usize> {
    let fits = (1..=14).contains(&id) && (1..=16).contains(&data.len());
    if !fits || at + 1 + data.len() > BLOCK_LEN {
        return None;
    }
    out[at] = id << 4 | (data.len() - 1) as u8;
    Some(put(out, at + 1, data))
}

/// Room in an [`ElementBlock`]: both times, a MID, and what browsers let through besides.
const BLOCK_LEN: usize = 48;
/// What [`ElementBlock::begin`] may touch.
pub const BLOCK_HEADER_LEN: usize = ELEMENTS_AT + BLOCK_LEN;

#[cfg(test)]
mod tests {
    use super::super::rtp::{HeaderWriter, RtpHeader};
    use super::*;

    const FIXED: FixedHeader = FixedHeader {
        marker: true,
        payload_type: 96,
        seq: 0x1234,
        timestamp: 0x5678_9ABC,
        ssrc: 0xDEAD_BEEF,
        has_padding: false,
    };

    #[test]
    fn a_block_is_written_as_its_elements_would_be() {
        let own = PerPacket { transport_seq: 0x1234, abs_send_time: [7, 8, 9] };
        let mut block = ElementBlock::default();
        assert!(block.push_transport_seq(3) && block.push_abs_send_time(1));
        assert!(!block.push(15, &[1]) && !block.push(0, &[1]));
        assert!(!block.push(2, &[]) && !block.push(2, &[1; 17]));
        let (mut begun, mut elements) = ([0xEE; BLOCK_HEADER_LEN], [0xEE; 64]);
        let mut header = block.begin(&mut begun, own);
        assert!(header.push(5, &[0x80]) && !header.push(6, &[0; 17]));
        let len = header.finish(&FIXED);
        let list: [(u8, &[u8]); 3] = [(3, &[0x12, 0x34]), (1, &[7, 8, 9]), (5, &[0x80])];
        assert_eq!(HeaderWriter::new(&mut elements).write(&FIXED, &list), len);
        assert_eq!(begun[..len], elements[..len]);
        while block.push(4, &[1; 16]) {}
        let len = block.begin(&mut begun, own).finish(&FIXED);
        assert_eq!(RtpHeader::parse(&begun).unwrap().elements().count(), 4);
        assert!(len <= BLOCK_HEADER_LEN);
        let none = ElementBlock::default().begin(&mut begun, own);
        assert_eq!((none.finish(&FIXED), begun[0]), (12, 0x80));
    }
}
