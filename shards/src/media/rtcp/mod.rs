//! RTCP in plain form: views of the packets of a received compound, writers of ours.
//!
//! [`Compound`] walks a decrypted datagram and yields one typed, borrowed [`Packet`] each.
//! The writers append one packet each to a `Vec`, so a compound is a sequence of calls; with
//! room reserved they do not allocate. We negotiate reduced-size RTCP (RFC 5506), so nothing
//! insists on a report coming first.
//!
//! Invariants:
//! - Parsing never panics and never reads outside the datagram, whatever the bytes; work is
//!   linear in the datagram, except for transport feedback, which has a bound of its own.
//! - What is written parses back as itself.
//!
//! Not here: SRTCP (`media::srtp`), when to send what, what a report means.

mod feedback;
mod report;
mod twcc;
mod xr;

pub use feedback::{
    Fir, FirEntry, NACK_ENTRIES_MAX, Nack, Pli, Remb, write_fir, write_nack, write_pli, write_remb,
};
pub use report::{
    Bye, ReceiverReport, ReportBlock, Sdes, SenderInfo, SenderReport, write_bye,
    write_receiver_report, write_sdes_cname, write_sender_report,
};
pub use twcc::{Twcc, TwccStatus, write_twcc};
pub use xr::{DlrrItem, Xr, XrBlock, write_dlrr};

/// One packet of a compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    Sdes(Sdes<'a>),
    Bye(Bye<'a>),
    Nack(Nack<'a>),
    Pli(Pli),
    Fir(Fir<'a>),
    Remb(Remb<'a>),
    Twcc(Twcc<'a>),
    Xr(Xr<'a>),
}

/// Iterates over the packets of a plain compound. Packets of unknown type are skipped; the
/// first that makes no sense ends the iteration.
#[derive(Debug, Clone)]
pub struct Compound<'a> {
    rest: &'a [u8],
    is_malformed: bool,
}

impl<'a> Compound<'a> {
    pub fn new(compound: &'a [u8]) -> Self {
        Self { rest: compound, is_malformed: false }
    }

    /// The iteration has ended before the end of the compound.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// The next packet, with its header taken apart; `None` if there is none that makes sense.
    fn split_next(&mut self) -> Option<RawPacket<'a>> {
        let &[first, packet_type, len_high, len_low] = self.rest.first_chunk()?;
        let len = 4 * (1 + usize::from(u16::from_be_bytes([len_high, len_low])));
        let (packet, rest) = self.rest.split_at_checked(len)?;
        let mut body = &packet[HEADER_LEN..];
        if first >> 6 != 2 {
            return None;
        }
        if first & 0x20 != 0 {
            // RFC 3550 §6.4.1: the last byte of padding counts the padding.
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = &body[..body.len().checked_sub(padding)?];
        }
        self.rest = rest;
        Some(RawPacket { count: first & 0x1F, packet_type, body })
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        while !self.rest.is_empty() {
            match self.split_next().map(RawPacket::parse) {
                Some(Ok(packet)) => return Some(packet),
                Some(Err(Skip::Unknown)) => {}
                Some(Err(Skip::Malformed)) | None => {
                    self.is_malformed = true;
                    self.rest = &[];
                }
            }
        }
        None
    }
}

/// A packet whose lengths make sense, without header and padding.
struct RawPacket<'a> {
    /// The report count, source count or feedback message type.
    count: u8,
    packet_type: u8,
    body: &'a [u8],
}

/// Why a packet is not yielded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skip {
    Unknown,
    Malformed,
}

impl<'a> RawPacket<'a> {
    fn parse(self) -> Result<Packet<'a>, Skip> {
        let Self { count, body, .. } = self;
        let packet = match (self.packet_type, count) {
            (TYPE_SENDER_REPORT, _) => SenderReport::parse(count, body).map(Packet::SenderReport),
            (TYPE_RECEIVER_REPORT, _) => {
                ReceiverReport::parse(count, body).map(Packet::ReceiverReport)
            }
            (TYPE_SDES, _) => Sdes::parse(count, body).map(Packet::Sdes),
            (TYPE_BYE, _) => Bye::parse(count, body).map(Packet::Bye),
            (TYPE_TRANSPORT_FEEDBACK, FORMAT_NACK) => Nack::parse(body).map(Packet::Nack),
            (TYPE_TRANSPORT_FEEDBACK, FORMAT_TWCC) => Twcc::parse(body).map(Packet::Twcc),
            (TYPE_PAYLOAD_FEEDBACK, FORMAT_PLI) => Pli::parse(body).map(Packet::Pli),
            (TYPE_PAYLOAD_FEEDBACK, FORMAT_FIR) => Fir::parse(body).map(Packet::Fir),
            (TYPE_PAYLOAD_FEEDBACK, FORMAT_APPLICATION) => {
                // Other applications than REMB may use this format.
                if body.get(8..12).is_some_and(|name| name != feedback::REMB_NAME) {
                    return Err(Skip::Unknown);
                }
                Remb::parse(body).map(Packet::Remb)
            }
            (TYPE_XR, _) => Xr::parse(body).map(Packet::Xr),
            _ => return Err(Skip::Unknown),
        };
        packet.ok_or(Skip::Malformed)
    }
}

/// Appends a packet: its header, then what `body` appends, which must be whole words.
fn write_packet(out: &mut Vec<u8>, packet_type: u8, count: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count, packet_type, 0, 0]);
    body(out);
    let words = (out.len() - start) / 4 - 1;
    debug_assert!((out.len() - start).is_multiple_of(4));
    let words = u16::try_from(words).expect("the writers bound what goes into a packet");
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u64::from_be_bytes(bytes))
}

/// The words of a list of SSRCs.
fn ssrcs(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
    bytes.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

const HEADER_LEN: usize = 4;
/// What the five bits of a header can count (RFC 3550 §6.4.1).
const COUNT_MAX: usize = 31;

const TYPE_SENDER_REPORT: u8 = 200;
const TYPE_RECEIVER_REPORT: u8 = 201;
const TYPE_SDES: u8 = 202;
const TYPE_BYE: u8 = 203;
const TYPE_TRANSPORT_FEEDBACK: u8 = 205;
const TYPE_PAYLOAD_FEEDBACK: u8 = 206;
const TYPE_XR: u8 = 207;

const FORMAT_NACK: u8 = 1;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
const FORMAT_TWCC: u8 = 15;
const FORMAT_APPLICATION: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_compound_is_walked_and_unknown_packets_are_skipped() {
        let mut out = Vec::new();
        write_receiver_report(&mut out, 1, &[]);
        out.extend_from_slice(&[0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e']);
        out.extend_from_slice(&[0x8F, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'o', b't', b'h', b'r']);
        write_pli(&mut out, 1, 2);
        let mut compound = Compound::new(&out);
        assert!(
            matches!(compound.next(), Some(Packet::ReceiverReport(report)) if report.ssrc == 1)
        );
        assert_eq!(compound.next(), Some(Packet::Pli(Pli { sender: 1, media: 2 })));
        assert_eq!(compound.next(), None);
        assert!(!compound.is_malformed());
    }

    #[test]
    fn lengths_beyond_the_compound_end_it() {
        let mut out = Vec::new();
        write_pli(&mut out, 1, 2);
        for (at, bad) in [(0, 0x41), (0, 0xA1), (3, 3), (3, 1)] {
            let mut bytes = [&out[..], &out].concat();
            bytes[out.len() + at] = bad;
            let mut compound = Compound::new(&bytes);
            assert!(compound.next().is_some());
            assert_eq!(compound.next(), None);
            assert!(compound.is_malformed(), "byte {at} = {bad:#x}");
        }
        let mut compound = Compound::new(&out[..3]);
        assert!(compound.next().is_none() && compound.is_malformed());
        assert!(!Compound::new(&[]).is_malformed());
    }

    #[test]
    fn padding_is_removed() {
        let bytes = [0xA1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
        let mut compound = Compound::new(&bytes);
        assert_eq!(compound.next(), Some(Packet::Pli(Pli { sender: 1, media: 2 })));
        let bytes = [0xA1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 13];
        let mut compound = Compound::new(&bytes);
        assert!(compound.next().is_none() && compound.is_malformed());
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            packets in prop::collection::vec((200u8..208, 0u8..32, 0u8..20, any::<bool>()), 0..8),
        ) {
            exhaust(&bytes);
            // The same with headers that lead somewhere.
            let mut at = 0;
            for (packet_type, count, words, padded) in packets {
                let Some(header) = bytes.get_mut(at..at + 4) else { break };
                let first = 0x80 | u8::from(padded) << 5 | count;
                header.copy_from_slice(&[first, packet_type, 0, words]);
                at += 4 + 4 * usize::from(words);
            }
            exhaust(&bytes);
        }
    }

    /// Runs every iterator of every packet to its end.
    fn exhaust(bytes: &[u8]) {
        for packet in Compound::new(bytes) {
            let items = match packet {
                Packet::SenderReport(report) => report.blocks().count(),
                Packet::ReceiverReport(report) => report.blocks().count(),
                Packet::Sdes(sdes) => sdes.cnames().count(),
                Packet::Bye(bye) => bye.ssrcs().count(),
                Packet::Nack(nack) => nack.seqs().count(),
                Packet::Pli(_) => 0,
                Packet::Fir(fir) => fir.entries().count(),
                Packet::Remb(remb) => remb.ssrcs().count(),
                Packet::Twcc(twcc) => {
                    assert_eq!(twcc.statuses().count(), usize::from(twcc.count));
                    assert_eq!(twcc.arrivals().count(), usize::from(twcc.count));
                    0
                }
                Packet::Xr(xr) => xr.blocks().fold(0, |items, block| match block {
                    XrBlock::ReferenceTime { .. } => items + 1,
                    XrBlock::Dlrr(dlrr) => items + dlrr.iter().count(),
                }),
            };
            // A NACK has the most: 17 in 4 bytes.
            assert!(items <= 5 * bytes.len());
        }
    }
}
