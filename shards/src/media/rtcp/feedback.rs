//! Feedback about packets and pictures: NACK and PLI (RFC 4585 §6.2.1, §6.3.1), FIR (RFC 5104
//! §4.3.1), REMB (draft-alvestrand-rmcat-remb-03 §2.2).
//!
//! Not here: transport-wide feedback (`twcc`); whether to ask again and whom.

use super::{
    FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI, TYPE_PAYLOAD_FEEDBACK,
    TYPE_TRANSPORT_FEEDBACK, put_u32, read_u32, ssrcs, write_packet,
};

/// Packets that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nack<'a> {
    pub sender: u32,
    pub media: u32,
    entries: &'a [u8],
}

/// A picture is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pli {
    pub sender: u32,
    pub media: u32,
}

/// Key frames are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fir<'a> {
    pub sender: u32,
    entries: &'a [u8],
}

/// A key frame of one stream is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirEntry {
    pub media: u32,
    /// Tells a new request from an old one repeated.
    pub seq: u8,
}

/// A receiver's estimate of what it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remb<'a> {
    pub sender: u32,
    /// Bits per second.
    pub bitrate: u64,
    ssrcs: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender: read_u32(body, 0)?, media: read_u32(body, 4)?, entries: &body[8..] })
    }

    /// At most 17 sequence numbers for every 4 bytes.
    pub fn seqs(self) -> impl Iterator<Item = u16> + Clone + 'a {
        self.entries.chunks_exact(4).flat_map(|entry| {
            let first = u16::from_be_bytes([entry[0], entry[1]]);
            let mask = u16::from_be_bytes([entry[2], entry[3]]);
            let following = (0..16)
                .filter(move |bit| mask >> bit & 1 == 1)
                .map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(following)
        })
    }
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { sender: read_u32(body, 0)?, media: read_u32(body, 4)? })
    }
}

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        // RFC 5104 §4.3.1.2: the media SSRC in front of the entries is unused.
        Some(Self { sender: read_u32(body, 0)?, entries: body.get(8..)? })
    }

    pub fn entries(self) -> impl Iterator<Item = FirEntry> + Clone + 'a {
        self.entries
            .chunks_exact(8)
            .filter_map(|entry| Some(FirEntry { media: read_u32(entry, 0)?, seq: entry[4] }))
    }
}

impl<'a> Remb<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let word = read_u32(body, 12)?;
        let (count, exponent, mantissa) = (word >> 24, word >> 18 & 0x3F, word & REMB_MANTISSA_MAX);
        // An exponent of 46 and up can shift bits out: that is "no limit".
        let bitrate = u64::from(mantissa);
        let bitrate =
            if bitrate.leading_zeros() >= exponent { bitrate << exponent } else { u64::MAX };
        let ssrcs = body.get(16..16 + 4 * count as usize)?;
        Some(Self { sender: read_u32(body, 0)?, bitrate, ssrcs })
    }

    pub fn ssrcs(self) -> impl Iterator<Item = u32> + Clone + 'a {
        ssrcs(self.ssrcs)
    }
}

/// Appends a NACK of `seqs`, which pack best in ascending order (modulo 2^16), up to
/// [`NACK_ENTRIES_MAX`] entries. Returns how many sequence numbers went in; without any,
/// nothing is appended.
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, seqs: &[u16]) -> usize {
    let Some((&first, _)) = seqs.split_first() else {
        return 0;
    };
    let mut taken = 0;
    write_packet(out, TYPE_TRANSPORT_FEEDBACK, FORMAT_NACK, |out| {
        put_u32(out, sender);
        put_u32(out, media);
        let (mut pid, mut mask, mut entries) = (first, 0u16, 1);
        for &seq in seqs {
            match seq.wrapping_sub(pid) {
                0 => {}
                ahead @ 1..=16 => mask |= 1 << (ahead - 1),
                _ if entries == NACK_ENTRIES_MAX => break,
                _ => {
                    put_u32(out, u32::from(pid) << 16 | u32::from(mask));
                    (pid, mask) = (seq, 0);
                    entries += 1;
                }
            }
            taken += 1;
        }
        put_u32(out, u32::from(pid) << 16 | u32::from(mask));
    });
    taken
}

pub fn write_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    write_packet(out, TYPE_PAYLOAD_FEEDBACK, FORMAT_PLI, |out| {
        put_u32(out, sender);
        put_u32(out, media);
    });
}

/// Appends a FIR of up to 64 entries.
pub fn write_fir(out: &mut Vec<u8>, sender: u32, entries: &[FirEntry]) {
    debug_assert!(entries.len() <= FIR_ENTRIES_MAX);
    let entries = &entries[..entries.len().min(FIR_ENTRIES_MAX)];
    write_packet(out, TYPE_PAYLOAD_FEEDBACK, FORMAT_FIR, |out| {
        put_u32(out, sender);
        put_u32(out, 0);
        for entry in entries {
            put_u32(out, entry.media);
            put_u32(out, u32::from(entry.seq) << 24);
        }
    });
}

/// Appends a REMB, which rounds `bitrate` down to 18 significant bits and names up to 255
/// streams.
pub fn write_remb(out: &mut Vec<u8>, sender: u32, bitrate: u64, ssrcs: &[u32]) {
    debug_assert!(ssrcs.len() <= 255);
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(REMB_MANTISSA_BITS);
    let mantissa = (bitrate >> exponent) as u32;
    write_packet(out, TYPE_PAYLOAD_FEEDBACK, FORMAT_APPLICATION, |out| {
        put_u32(out, sender);
        put_u32(out, 0);
        out.extend_from_slice(REMB_NAME);
        put_u32(out, (ssrcs.len() as u32) << 24 | exponent << 18 | mantissa);
        ssrcs.iter().for_each(|&ssrc| put_u32(out, ssrc));
    });
}

/// A quarter of a kilobyte of entries, so that a NACK and the reports around it fit one
/// datagram. A receiver that misses more than this is better served by a key frame.
pub const NACK_ENTRIES_MAX: usize = 64;

/// One per video stream of a session; half a kilobyte.
const FIR_ENTRIES_MAX: usize = 64;

pub(super) const REMB_NAME: &[u8] = b"REMB";
const REMB_MANTISSA_BITS: u32 = 18;
const REMB_MANTISSA_MAX: u32 = (1 << REMB_MANTISSA_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::super::{Compound, Packet};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_share_an_entry_across_the_wrap() {
        let mut out = Vec::new();
        let seqs = [65_530, 65_535, 0, 10, 11];
        assert_eq!(write_nack(&mut out, 1, 2, &seqs), 5);
        assert_eq!(out.len(), 12 + 2 * 4);
        let Some(Packet::Nack(nack)) = Compound::new(&out).next() else { panic!("no NACK") };
        assert_eq!(nack.seqs().collect::<Vec<_>>(), seqs);
        assert_eq!(write_nack(&mut out, 1, 2, &[]), 0);
        assert_eq!(out.len(), 20);
    }

    #[test]
    fn a_nack_is_bounded() {
        let mut out = Vec::new();
        let seqs: Vec<u16> = (0..200).map(|n| n * 17).collect();
        assert_eq!(write_nack(&mut out, 1, 2, &seqs), NACK_ENTRIES_MAX);
        assert_eq!(out.len(), 12 + 4 * NACK_ENTRIES_MAX);
    }

    #[test]
    fn an_absurd_remb_means_no_limit() {
        let mut out = Vec::new();
        write_remb(&mut out, 1, 0, &[]);
        out[17..20].copy_from_slice(&[0xFF, 0xFF, 0xFF]);
        let Some(Packet::Remb(remb)) = Compound::new(&out).next() else { panic!("no REMB") };
        assert_eq!(remb.bitrate, u64::MAX);
    }

    proptest! {
        #[test]
        fn feedback_comes_back_as_it_was(
            sender: u32,
            media: u32,
            start: u16,
            steps in prop::collection::vec(1u16..40, 1..60),
            bitrate: u64,
            shift in 0u32..64,
            ssrcs in prop::collection::vec(any::<u32>(), 0..10),
            fir in prop::collection::vec((any::<u32>(), any::<u8>()), 0..10),
        ) {
            let seqs: Vec<u16> = steps
                .iter()
                .scan(start, |seq, step| { *seq = seq.wrapping_add(*step); Some(*seq) })
                .collect();
            let entries: Vec<FirEntry> =
                fir.into_iter().map(|(media, seq)| FirEntry { media, seq }).collect();
            let bitrate = bitrate >> shift;
            let mut out = Vec::new();
            prop_assert_eq!(write_nack(&mut out, sender, media, &seqs), seqs.len());
            write_pli(&mut out, sender, media);
            write_fir(&mut out, sender, &entries);
            write_remb(&mut out, sender, bitrate, &ssrcs);

            let mut compound = Compound::new(&out);
            let Some(Packet::Nack(nack)) = compound.next() else { panic!("no NACK") };
            prop_assert_eq!((nack.sender, nack.media), (sender, media));
            prop_assert_eq!(nack.seqs().collect::<Vec<_>>(), seqs);
            prop_assert_eq!(compound.next(), Some(Packet::Pli(Pli { sender, media })));
            let Some(Packet::Fir(fir)) = compound.next() else { panic!("no FIR") };
            prop_assert_eq!(fir.sender, sender);
            prop_assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
            let Some(Packet::Remb(remb)) = compound.next() else { panic!("no REMB") };
            prop_assert_eq!(remb.sender, sender);
            prop_assert!(remb.bitrate <= bitrate && bitrate - remb.bitrate <= bitrate >> 17);
            prop_assert_eq!(remb.ssrcs().collect::<Vec<_>>(), ssrcs);
            prop_assert!(compound.next().is_none() && !compound.is_malformed());
        }
    }
}
