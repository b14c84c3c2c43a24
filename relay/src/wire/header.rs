//! The part of a datagram that is read before any key is known.
//!
//! The first byte lies outside all ranges that RFC 7983, as updated by RFC 9443, gives to STUN
//! (0-3), ZRTP (16-19), DTLS (20-63), TURN and QUIC (64-127), RTP (128-191) and QUIC's long
//! headers (192-255): relay and clients could share a socket. The shard the datagram is for
//! comes next, so that a packet filter can steer by one byte.
//!
//! Invariants: [`Header::parse`] of [`Header::write`] is the identity. The header is
//! authenticated along with the records, so nothing in it can be changed on the way.

use super::bytes::{u24, u48};
use super::{LinkId, Malformed, OVERHEAD, U48_MAX};

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// The first byte of a media datagram is this, or one more in every other key phase.
pub const TYPE_MEDIA: u8 = 0x08;

/// Which datagram this is, of which link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last bit of the number of the key phase.
    pub phase: bool,
    pub dst_shard: u8,
    pub src_shard: u8,
    pub link: LinkId,
    /// Counts the sender's datagrams on this link from 0, through all key phases: 48 bits, never
    /// used twice.
    pub number: u64,
}

impl Header {
    /// The header of a datagram that is long enough to be one of ours and has our type.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let (&head, rest) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(Malformed)?;
        if rest.len() < OVERHEAD - HEADER_LEN {
            return Err(Malformed);
        }
        let [kind, dst_shard, src_shard, l0, l1, l2, n0, n1, n2, n3, n4, n5] = head;
        if kind & !1 != TYPE_MEDIA {
            return Err(Malformed);
        }
        Ok(Self {
            phase: kind & 1 != 0,
            dst_shard,
            src_shard,
            link: LinkId(u24([l0, l1, l2])),
            number: u48([n0, n1, n2, n3, n4, n5]),
        })
    }

    pub fn write(&self) -> [u8; HEADER_LEN] {
        debug_assert!(self.number <= U48_MAX);
        let [_, l0, l1, l2] = self.link.0.to_be_bytes();
        let [_, _, n0, n1, n2, n3, n4, n5] = self.number.to_be_bytes();
        let kind = TYPE_MEDIA | u8::from(self.phase);
        [kind, self.dst_shard, self.src_shard, l0, l1, l2, n0, n1, n2, n3, n4, n5]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_of_other_protocols_and_short_ones_are_refused() {
        let mut datagram = [0; OVERHEAD];
        for first in 0..=255 {
            datagram[0] = first;
            assert_eq!(Header::parse(&datagram).is_ok(), matches!(first, 8 | 9), "{first}");
        }
        datagram[0] = 8;
        assert_eq!(Header::parse(&datagram[..OVERHEAD - 1]), Err(Malformed));
        assert_eq!(Header::parse(&[]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            phase: bool, dst_shard: u8, src_shard: u8,
            link in 0u32..1 << 24, number in 0u64..1 << 48,
        ) {
            let header = Header { phase, dst_shard, src_shard, link: LinkId(link), number };
            let mut datagram = [0xAA; OVERHEAD];
            datagram[..HEADER_LEN].copy_from_slice(&header.write());
            prop_assert_eq!(Header::parse(&datagram), Ok(header));
        }
    }
}
