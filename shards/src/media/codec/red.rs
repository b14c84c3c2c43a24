//! Redundant audio (RFC 2198): block headers rewritten to a subscriber's payload types, and
//! the primary block unwrapped for subscribers without RED.
//!
//! ```text
//!  F=1 | block PT (7) | timestamp offset (14) | block length (10)   redundant, oldest first
//!  F=0 | block PT (7)                                               primary, to the end
//! ```
//!
//! Invariants: a header is rewritten wholly or not at all; lengths never change.
//!
//! Not here: recovery of lost packets from redundant blocks; subscribers do that.

/// Block headers looked at before a packet is refused. Chromium sends 2 blocks, and at most 10
/// when told to; more would only be a way to make us work.
pub const BLOCKS_MAX: usize = 16;

const REDUNDANT_HEADER_LEN: usize = 4;

/// The length of all block headers: what must be copied before [`rewrite_block_pts`].
pub fn header_len(payload: &[u8]) -> Option<usize> {
    layout(payload).map(|layout| layout.header_len)
}

/// The payload type and the bytes of the primary block. The bytes are empty while the
/// publisher is silent (DTX).
pub fn primary(payload: &[u8]) -> Option<(u8, &[u8])> {
    let layout = layout(payload)?;
    let block = payload.get(layout.header_len + layout.redundant_len..)?;
    Some((layout.primary_pt, block))
}

/// Replaces the payload type in each block header by what `map` says. Answers false, with
/// nothing changed, if the headers are malformed or `map` does not know one of the types; such a
/// packet can still be forwarded as its [`primary`] block.
#[must_use]
pub fn rewrite_block_pts(header: &mut [u8], map: impl Fn(u8) -> Option<u8>) -> bool {
    let Some(layout) = layout(header) else { return false };
    let starts = || (0..layout.header_len).step_by(REDUNDANT_HEADER_LEN);
    if !starts().all(|at| map(header[at] & 0x7f).is_some_and(|pt| pt < 0x80)) {
        return false;
    }
    for at in starts() {
        if let Some(pt) = map(header[at] & 0x7f) {
            header[at] = header[at] & 0x80 | pt;
        }
    }
    true
}

struct Layout {
    header_len: usize,
    redundant_len: usize,
    primary_pt: u8,
}

/// RFC 2198, section 3. Does not look behind the headers.
fn layout(payload: &[u8]) -> Option<Layout> {
    let mut header_len = 0;
    let mut redundant_len = 0;
    for _ in 0..BLOCKS_MAX {
        let first = *payload.get(header_len)?;
        if first & 0x80 == 0 {
            return Some(Layout { header_len: header_len + 1, redundant_len, primary_pt: first });
        }
        let header = payload.get(header_len..header_len + REDUNDANT_HEADER_LEN)?;
        redundant_len += usize::from(u16::from_be_bytes([header[2] & 0x03, header[3]]));
        header_len += REDUNDANT_HEADER_LEN;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One redundant block of three bytes (960 timestamp units older), a primary of two.
    const PACKET: [u8; 10] = [0x80 | 111, 0x0f, 0x00, 0x03, 111, 0xa1, 0xa2, 0xa3, 0xb1, 0xb2];

    #[test]
    fn the_primary_block_is_the_last() {
        assert_eq!(primary(&PACKET), Some((111, &[0xb1, 0xb2][..])));
        assert_eq!(header_len(&PACKET), Some(5));
    }

    #[test]
    fn a_packet_without_redundancy_is_its_primary_block() {
        assert_eq!(primary(&[111, 1, 2]), Some((111, &[1, 2][..])));
        assert_eq!(primary(&[111]), Some((111, &[][..])));
    }

    #[test]
    fn every_block_gets_the_subscribers_payload_type() {
        let mut header = [0; 5];
        header.copy_from_slice(&PACKET[..5]);
        assert!(rewrite_block_pts(&mut header, |pt| (pt == 111).then_some(96)));
        assert_eq!(header, [0x80 | 96, 0x0f, 0x00, 0x03, 96]);
    }

    #[test]
    fn an_unknown_payload_type_leaves_the_header_untouched() {
        let mut header = [0x80 | 111, 0x0f, 0x00, 0x03, 13];
        let before = header;
        assert!(!rewrite_block_pts(&mut header, |pt| (pt == 111).then_some(96)));
        assert_eq!(header, before);
    }

    #[test]
    fn malformed_packets_are_refused() {
        assert_eq!(primary(&[]), None);
        assert_eq!(primary(&[0x80 | 111, 0, 0]), None, "a cut block header");
        assert_eq!(primary(&[0x80 | 111, 0, 0, 9, 111, 1]), None, "a block beyond the end");
        assert_eq!(primary(&[0xff; 200]), None, "headers without an end");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let before = bytes.clone();
            let len = header_len(&bytes);
            if let Some((_, block)) = primary(&bytes) {
                prop_assert!(block.len() < bytes.len());
            }
            let done = rewrite_block_pts(&mut bytes, Some);
            prop_assert_eq!(done, len.is_some());
            prop_assert_eq!(bytes, before);
        }
    }
}
