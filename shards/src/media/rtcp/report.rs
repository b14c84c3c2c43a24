//! Sender and receiver reports, source descriptions, goodbyes (RFC 3550 §6.4 to §6.6).
//!
//! Not here: how the figures of a report come about (`media::receive`).

use super::{
    COUNT_MAX, TYPE_BYE, TYPE_RECEIVER_REPORT, TYPE_SDES, TYPE_SENDER_REPORT, put_u32, read_u32,
    read_u64, ssrcs, write_packet,
};

/// A sender report (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport<'a> {
    pub info: SenderInfo,
    blocks: &'a [u8],
}

/// What a sender says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    /// Seconds since 1900 in 32.32 fixed point.
    pub ntp: u64,
    /// The same instant in units of the RTP timestamp.
    pub rtp: u32,
    pub packets: u32,
    /// Payload only, modulo 2^32.
    pub octets: u32,
}

/// A receiver report (RFC 3550 §6.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: u32,
    blocks: &'a [u8],
}

/// What a receiver says of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Since the start: 24 bits, negative when duplicates outnumber losses.
    pub lost: i32,
    /// The highest sequence number, below the number of times it wrapped.
    pub highest_seq: u32,
    /// In units of the RTP timestamp.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report, or 0.
    pub last_sr: u32,
    /// How long ago that came, in 65536ths of a second.
    pub delay_since_last_sr: u32,
}

/// Source descriptions (RFC 3550 §6.5), of which only the CNAME matters to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sdes<'a> {
    chunks: &'a [u8],
    count: u8,
}

/// Streams that end (RFC 3550 §6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let info = SenderInfo {
            ssrc: read_u32(body, 0)?,
            ntp: read_u64(body, 4)?,
            rtp: read_u32(body, 12)?,
            packets: read_u32(body, 16)?,
            octets: read_u32(body, 20)?,
        };
        // Profile-specific extensions may follow the blocks.
        let blocks = body.get(24..24 + BLOCK_LEN * usize::from(count))?;
        Some(Self { info, blocks })
    }

    pub fn blocks(self) -> impl Iterator<Item = ReportBlock> + Clone + 'a {
        self.blocks.chunks_exact(BLOCK_LEN).filter_map(ReportBlock::parse)
    }
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        let blocks = body.get(4..4 + BLOCK_LEN * usize::from(count))?;
        Some(Self { ssrc: read_u32(body, 0)?, blocks })
    }

    pub fn blocks(self) -> impl Iterator<Item = ReportBlock> + Clone + 'a {
        self.blocks.chunks_exact(BLOCK_LEN).filter_map(ReportBlock::parse)
    }
}

impl ReportBlock {
    fn parse(block: &[u8]) -> Option<Self> {
        let loss = read_u32(block, 4)?;
        Some(Self {
            ssrc: read_u32(block, 0)?,
            fraction_lost: (loss >> 24) as u8,
            // Sign-extends the low 24 bits.
            lost: ((loss << 8) as i32) >> 8,
            highest_seq: read_u32(block, 8)?,
            jitter: read_u32(block, 12)?,
            last_sr: read_u32(block, 16)?,
            delay_since_last_sr: read_u32(block, 20)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        // RFC 3550 §6.4.1: 24 bits that clamp rather than wrap.
        let lost = self.lost.clamp(-0x80_0000, 0x7F_FFFF) as u32 & 0xFF_FFFF;
        put_u32(out, self.ssrc);
        put_u32(out, u32::from(self.fraction_lost) << 24 | lost);
        put_u32(out, self.highest_seq);
        put_u32(out, self.jitter);
        put_u32(out, self.last_sr);
        put_u32(out, self.delay_since_last_sr);
    }
}

impl<'a> Sdes<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Self { chunks: body, count })
    }

    /// The (SSRC, CNAME) of every chunk that has a CNAME; stops at one that makes no sense.
    pub fn cnames(self) -> impl Iterator<Item = (u32, &'a [u8])> + Clone + 'a {
        let mut rest = self.chunks;
        let chunks = (0..self.count).map_while(move |_| {
            let (chunk, tail) = split_chunk(rest)?;
            rest = tail;
            Some(chunk)
        });
        chunks.filter_map(|(ssrc, cname)| Some((ssrc, cname?)))
    }
}

/// Splits off one chunk: its SSRC and its CNAME, if it has one.
#[expect(clippy::type_complexity, reason = "three things that only the caller above wants")]
fn split_chunk(bytes: &[u8]) -> Option<((u32, Option<&[u8]>), &[u8])> {
    let ssrc = read_u32(bytes, 0)?;
    let mut cname = None;
    let mut at = 4;
    loop {
        let item = *bytes.get(at)?;
        if item == 0 {
            break;
        }
        let len = usize::from(*bytes.get(at + 1)?);
        let text = bytes.get(at + 2..at + 2 + len)?;
        if item == SDES_CNAME {
            cname = Some(text);
        }
        at += 2 + len;
    }
    // RFC 3550 §6.5: null bytes, at least one, up to the next word.
    let next = (at / 4 + 1) * 4;
    Some(((ssrc, cname), bytes.get(next..)?))
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrcs: body.get(..4 * usize::from(count))? })
    }

    pub fn ssrcs(self) -> impl Iterator<Item = u32> + Clone + 'a {
        ssrcs(self.ssrcs)
    }
}

/// Appends a sender report. Only 31 report blocks fit; the rest belongs into another report.
pub fn write_sender_report(out: &mut Vec<u8>, info: &SenderInfo, blocks: &[ReportBlock]) {
    debug_assert!(blocks.len() <= COUNT_MAX);
    let blocks = &blocks[..blocks.len().min(COUNT_MAX)];
    write_packet(out, TYPE_SENDER_REPORT, blocks.len() as u8, |out| {
        put_u32(out, info.ssrc);
        out.extend_from_slice(&info.ntp.to_be_bytes());
        put_u32(out, info.rtp);
        put_u32(out, info.packets);
        put_u32(out, info.octets);
        blocks.iter().for_each(|block| block.write(out));
    });
}

/// Appends a receiver report. Only 31 report blocks fit; the rest belongs into another report.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    debug_assert!(blocks.len() <= COUNT_MAX);
    let blocks = &blocks[..blocks.len().min(COUNT_MAX)];
    write_packet(out, TYPE_RECEIVER_REPORT, blocks.len() as u8, |out| {
        put_u32(out, ssrc);
        blocks.iter().for_each(|block| block.write(out));
    });
}

/// Appends a source description of one CNAME, of which 255 bytes fit.
pub fn write_sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &[u8]) {
    debug_assert!(cname.len() <= 255);
    let cname = &cname[..cname.len().min(255)];
    write_packet(out, TYPE_SDES, 1, |out| {
        put_u32(out, ssrc);
        out.extend_from_slice(&[SDES_CNAME, cname.len() as u8]);
        out.extend_from_slice(cname);
        let nulls = 4 - (2 + cname.len()) % 4;
        out.extend_from_slice(&[0; 4][..nulls]);
    });
}

/// Appends a goodbye of up to 31 streams.
pub fn write_bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    debug_assert!(ssrcs.len() <= COUNT_MAX);
    let ssrcs = &ssrcs[..ssrcs.len().min(COUNT_MAX)];
    write_packet(out, TYPE_BYE, ssrcs.len() as u8, |out| {
        ssrcs.iter().for_each(|&ssrc| put_u32(out, ssrc));
    });
}

const BLOCK_LEN: usize = 24;
const SDES_CNAME: u8 = 1;

#[cfg(test)]
mod tests {
    use super::super::{Compound, Packet};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_items_and_chunks_without_cname_are_passed_over() {
        let bytes = [
            &[0x83, 202, 0, 8, 0, 0, 0, 1, 2, 1, b'x', 1, 2, b'a', b'b', 0][..],
            &[0, 0, 0, 2, 0, 0, 0, 0],
            &[0, 0, 0, 3, 1, 1, b'c', 8, 2, b'p', b'v', 0],
        ]
        .concat();
        let Some(Packet::Sdes(sdes)) = Compound::new(&bytes).next() else { panic!("no SDES") };
        assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(1, &b"ab"[..]), (3, b"c")]);
    }

    #[test]
    fn cumulative_loss_clamps_at_24_bits() {
        let mut out = Vec::new();
        let blocks =
            [i32::MAX, i32::MIN, -1].map(|lost| ReportBlock { lost, ..Default::default() });
        write_receiver_report(&mut out, 1, &blocks);
        let Some(Packet::ReceiverReport(report)) = Compound::new(&out).next() else {
            panic!("no report")
        };
        let lost: Vec<i32> = report.blocks().map(|block| block.lost).collect();
        assert_eq!(lost, [0x7F_FFFF, -0x80_0000, -1]);
    }

    fn any_block() -> impl Strategy<Value = ReportBlock> {
        (any::<[u32; 5]>(), any::<u8>(), -0x80_0000i32..0x80_0000).prop_map(
            |(words, fraction_lost, lost)| ReportBlock {
                ssrc: words[0],
                fraction_lost,
                lost,
                highest_seq: words[1],
                jitter: words[2],
                last_sr: words[3],
                delay_since_last_sr: words[4],
            },
        )
    }

    proptest! {
        #[test]
        fn reports_come_back_as_they_were(
            words: [u32; 4],
            ntp: u64,
            blocks in prop::collection::vec(any_block(), 0..32),
            cname in prop::collection::vec(any::<u8>(), 0..256),
            ended in prop::collection::vec(any::<u32>(), 0..32),
        ) {
            let [ssrc, rtp, packets, octets] = words;
            let info = SenderInfo { ssrc, ntp, rtp, packets, octets };
            let mut out = Vec::new();
            write_sender_report(&mut out, &info, &blocks);
            write_sdes_cname(&mut out, ssrc, &cname);
            write_receiver_report(&mut out, ssrc, &blocks);
            write_bye(&mut out, &ended);
            let mut compound = Compound::new(&out);
            let Some(Packet::SenderReport(report)) = compound.next() else { panic!("no SR") };
            prop_assert_eq!(report.info, info);
            prop_assert_eq!(report.blocks().collect::<Vec<_>>(), blocks.clone());
            let Some(Packet::Sdes(sdes)) = compound.next() else { panic!("no SDES") };
            prop_assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(ssrc, &cname[..])]);
            let Some(Packet::ReceiverReport(report)) = compound.next() else { panic!("no RR") };
            prop_assert_eq!(report.ssrc, ssrc);
            prop_assert_eq!(report.blocks().collect::<Vec<_>>(), blocks);
            let Some(Packet::Bye(bye)) = compound.next() else { panic!("no BYE") };
            prop_assert_eq!(bye.ssrcs().collect::<Vec<_>>(), ended);
            prop_assert!(compound.next().is_none() && !compound.is_malformed());
        }
    }
}
