//! Extended reports (RFC 3611), of which we know the two that let a receiver measure the
//! round trip time: its reference time and our answer.
//!
//! Not here: the clock that the answer is made from.

use super::{TYPE_XR, put_u32, read_u32, read_u64, write_packet};

/// A packet of report blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xr<'a> {
    pub sender: u32,
    blocks: &'a [u8],
}

/// A report block of a known type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XrBlock<'a> {
    /// When the receiver sent this (RFC 3611 §4.4).
    ReferenceTime { ntp: u64 },
    /// How long ago it received such times (RFC 3611 §4.5).
    Dlrr(DlrrItems<'a>),
}

/// The items of a DLRR block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlrrItems<'a>(&'a [u8]);

/// The answer to one reference time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DlrrItem {
    /// Who sent the reference time.
    pub ssrc: u32,
    /// The middle 32 bits of that time.
    pub last_rr: u32,
    /// How long ago it came, in 65536ths of a second.
    pub delay_since_last_rr: u32,
}

impl<'a> Xr<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender: read_u32(body, 0)?, blocks: &body[4..] })
    }

    /// The blocks of a known type; stops at one that makes no sense.
    pub fn blocks(self) -> impl Iterator<Item = XrBlock<'a>> + Clone + 'a {
        let mut rest = self.blocks;
        let blocks = std::iter::from_fn(move || {
            let &[block_type, _, len_high, len_low] = rest.first_chunk()?;
            let len = 4 * usize::from(u16::from_be_bytes([len_high, len_low]));
            let (block, tail) = rest[4..].split_at_checked(len)?;
            rest = tail;
            Some((block_type, block))
        });
        blocks.filter_map(|(block_type, block)| match block_type {
            BLOCK_REFERENCE_TIME => Some(XrBlock::ReferenceTime { ntp: read_u64(block, 0)? }),
            BLOCK_DLRR => Some(XrBlock::Dlrr(DlrrItems(block))),
            _ => None,
        })
    }
}

impl<'a> DlrrItems<'a> {
    pub fn iter(self) -> impl Iterator<Item = DlrrItem> + Clone + 'a {
        self.0.chunks_exact(DLRR_ITEM_LEN).filter_map(|item| {
            Some(DlrrItem {
                ssrc: read_u32(item, 0)?,
                last_rr: read_u32(item, 4)?,
                delay_since_last_rr: read_u32(item, 8)?,
            })
        })
    }
}

/// Appends an answer to reference times.
pub fn write_dlrr(out: &mut Vec<u8>, sender: u32, items: &[DlrrItem]) {
    debug_assert!(items.len() <= DLRR_ITEMS_MAX);
    let items = &items[..items.len().min(DLRR_ITEMS_MAX)];
    write_packet(out, TYPE_XR, 0, |out| {
        put_u32(out, sender);
        put_u32(out, u32::from(BLOCK_DLRR) << 24 | (items.len() * DLRR_ITEM_LEN / 4) as u32);
        for item in items {
            put_u32(out, item.ssrc);
            put_u32(out, item.last_rr);
            put_u32(out, item.delay_since_last_rr);
        }
    });
}

/// One answer per receiver that reports to us; a session has one, or one per stream.
const DLRR_ITEMS_MAX: usize = 64;

const BLOCK_REFERENCE_TIME: u8 = 4;
const BLOCK_DLRR: u8 = 5;
const DLRR_ITEM_LEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::super::{Compound, Packet};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_time_is_found_among_other_blocks() {
        let bytes = [
            &[0x80, 207, 0, 6, 0, 0, 0, 9][..],
            &[42, 0, 0, 1, 0, 0, 0, 0],
            &[4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        let Some(Packet::Xr(xr)) = Compound::new(&bytes).next() else { panic!("no XR") };
        assert_eq!(xr.sender, 9);
        let blocks: Vec<_> = xr.blocks().collect();
        assert_eq!(blocks, [XrBlock::ReferenceTime { ntp: 0x0102_0304_0506_0708 }]);
    }

    proptest! {
        #[test]
        fn answers_come_back_as_they_were(
            sender: u32,
            items in prop::collection::vec(any::<[u32; 3]>(), 0..DLRR_ITEMS_MAX),
        ) {
            let items: Vec<DlrrItem> = items
                .into_iter()
                .map(|[ssrc, last_rr, delay_since_last_rr]| DlrrItem { ssrc, last_rr, delay_since_last_rr })
                .collect();
            let mut out = Vec::new();
            write_dlrr(&mut out, sender, &items);
            let Some(Packet::Xr(xr)) = Compound::new(&out).next() else { panic!("no XR") };
            prop_assert_eq!(xr.sender, sender);
            let Some(XrBlock::Dlrr(read)) = xr.blocks().next() else { panic!("no DLRR") };
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), items);
        }
    }
}
