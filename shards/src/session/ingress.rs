//! What comes in on a session: SRTP opened, streams told apart, losses noticed.
//!
//! Invariants: nothing changes before a packet is authenticated, so a spoofed one can neither
//! bind an SSRC nor move a window; streams are bounded.

use std::collections::VecDeque;
use std::time::Instant;

use super::inlet::Inlet;
use crate::limits::STREAMS_PER_SESSION;
use crate::media::codec::keyframe::starts_keyframe;
use crate::media::format::{Extension, ExtensionIds};
use crate::media::receive::clock::SenderClock;
use crate::media::receive::nack::NackGenerator;
use crate::media::receive::report::ReceptionStats;
use crate::media::receive::twcc::TwccRecorder;
use crate::media::replay::ReplayWindow;
use crate::media::rtp::{RtpHeader, sdes_text, transport_seq, unpad};
use crate::media::srtp::{Opener, RtcpFault};
use crate::switch::feed::FeedKey;
use crate::switch::packet::PacketHead;

/// One received SSRC.
#[derive(Debug)]
pub struct Stream {
    pub ssrc: u32,
    pub mid: String,
    pub layer: u8,
    /// It carries repairs of this source; else its own packets.
    pub repairs: bool,
    /// Numbers the SSRC for the packets' `source`.
    pub source: u32,
    window: ReplayWindow,
    pub stats: ReceptionStats,
    /// Packets came since the last report that had something to tell.
    pub live: bool,
    pub nack: Option<NackGenerator>,
    pub clock: SenderClock,
}

/// An authenticated packet of media, in the caller's buffer.
#[derive(Debug)]
pub struct Received {
    pub feed: Option<FeedKey>,
    pub head: PacketHead,
    /// The payload, as a part of the buffer that was lent.
    pub payload: std::ops::Range<usize>,
    pub extensions: ExtensionIds,
    /// A new SSRC began.
    pub new_source: bool,
}

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No key yet.
    Early,
    Malformed,
    Replayed,
    Unauthentic,
    /// No m-line receives it, or its payload type.
    Unwanted,
    /// The session has too many SSRCs.
    TooManyStreams,
}

#[derive(Debug)]
pub struct Ingress {
    opener: Option<Opener>,
    inlets: Vec<Inlet>,
    pub streams: Vec<Stream>,
    /// Where streams stopped whose m-line receives no more: clients go on with the same SSRC
    /// and numbers, and what was played once must not be played again. Oldest first.
    departed: VecDeque<(u32, ReplayWindow)>,
    pub twcc: Option<TwccRecorder>,
    /// The SSRC our reports to the client come from.
    pub reporter: u32,
    /// Numbers our FIRs.
    pub fir_seq: u8,
    /// Where the next lookup starts: packets of a stream come in rows.
    hint: usize,
}

impl Ingress {
    pub fn new(reporter: u32) -> Self {
        let streams = Vec::new();
        Self {
            opener: None,
            inlets: Vec::new(),
            streams,
            departed: VecDeque::new(),
            twcc: None,
            reporter: reporter.max(1),
            fir_seq: 0,
            hint: 0,
        }
    }

    /// Takes the key of a handshake. Streams of an earlier key begin anew: their rollover
    /// counters do.
    pub fn key(&mut self, opener: Opener) {
        self.opener = Some(opener);
        self.streams.clear();
        self.departed.clear();
        self.twcc = None;
    }

    pub fn is_keyed(&self) -> bool {
        self.opener.is_some()
    }

    /// An m-line receives on these terms now. False if it begins anew: what its packets meant
    /// before must be forgotten.
    pub fn set_inlet(&mut self, mut inlet: Inlet) -> bool {
        let Some(at) = self.inlets.iter().position(|other| other.mid == inlet.mid) else {
            self.inlets.push(inlet);
            return true;
        };
        // Even a stream whose first packet was malformed has its layer.
        self.inlets[at].used |= self.streams.iter().any(|stream| stream.mid == inlet.mid);
        let goes_on = inlet.go_on_from(&self.inlets[at]);
        if !goes_on {
            self.remove_inlet(&inlet.mid.clone());
            self.inlets.push(inlet);
        } else {
            self.inlets[at] = inlet;
        }
        goes_on
    }

    pub fn remove_inlet(&mut self, mid: &str) {
        self.inlets.retain(|inlet| inlet.mid != mid);
        for stream in self.streams.extract_if(.., |stream| stream.mid == mid) {
            if self.departed.len() == STREAMS_PER_SESSION {
                self.departed.pop_front();
            }
            self.departed.push_back((stream.ssrc, stream.window));
        }
    }

    /// Packets of this m-line belong to this track.
    pub fn bind(&mut self, mid: &str, feed: FeedKey) {
        if let Some(inlet) = self.inlets.iter_mut().find(|inlet| inlet.mid == mid) {
            inlet.feed = Some(feed);
        }
    }

    pub fn unbind(&mut self, mid: &str) {
        if let Some(inlet) = self.inlets.iter_mut().find(|inlet| inlet.mid == mid) {
            inlet.feed = None;
        }
    }

    /// The track of an m-line.
    pub fn feed_of(&self, mid: &str) -> Option<FeedKey> {
        self.inlets.iter().find(|inlet| inlet.mid == mid)?.feed
    }

    pub fn inlet(&self, mid: &str) -> Option<&Inlet> {
        self.inlets.iter().find(|inlet| inlet.mid == mid)
    }

    pub fn inlet_of(&self, feed: FeedKey) -> Option<&Inlet> {
        self.inlets.iter().find(|inlet| inlet.feed == Some(feed))
    }

    /// The stream whose own packets are this layer of an m-line, newest first.
    pub fn stream_of(&self, mid: &str, layer: u8) -> Option<&Stream> {
        let matches = |s: &&Stream| s.mid == mid && s.layer == layer && !s.repairs;
        self.streams.iter().rev().find(matches)
    }

    /// Opens an RTCP compound.
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, RtcpFault> {
        self.opener.as_mut().ok_or(RtcpFault::Unauthentic)?.open_rtcp(packet, out)
    }

    /// Takes an RTP packet: authenticates it and opens its payload into `out`. `Ok(None)`: it
    /// was fine, and carried nothing to forward.
    pub fn receive(
        &mut self,
        packet: &[u8],
        out: &mut [u8],
        next_source: &mut u32,
        now: Instant,
    ) -> Result<Option<Received>, Fault> {
        let header = RtpHeader::parse(packet).map_err(|_| Fault::Malformed)?;
        let known = self.find(header.ssrc);
        let opener = self.opener.as_ref().ok_or(Fault::Early)?;
        let departed = match known {
            Some(_) => None,
            None => self.departed.iter().position(|(ssrc, _)| *ssrc == header.ssrc),
        };
        let window = known.map(|at| &self.streams[at].window);
        let window = window.or_else(|| departed.map(|at| &self.departed[at].1));
        let index =
            window.map_or_else(|| u64::from(header.seq), |window| window.estimate(header.seq));
        if window.is_some_and(|window| !window.is_new(index)) {
            return Err(Fault::Replayed);
        }
        let len = opener
            .open_rtp(packet, header.header_len, header.ssrc, index, out)
            .map_err(|_| Fault::Unauthentic)?;
        // Authentic from here on.
        let (at, new_source) = match known {
            Some(at) => (at, false),
            None => (self.add_stream(&header, next_source)?, true),
        };
        if let Some((_, window)) = departed.and_then(|at| self.departed.remove(at)) {
            self.streams[at].window = window;
        }
        self.streams[at].window.commit(index);
        let len = if header.has_padding {
            unpad(&out[..len]).map_err(|_| Fault::Malformed)?.len()
        } else {
            len
        };
        self.take(at, &header, index, &out[..len], new_source, now)
    }

    fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.streams.get(self.hint).is_some_and(|stream| stream.ssrc == ssrc) {
            return Some(self.hint);
        }
        self.hint = self.streams.iter().position(|stream| stream.ssrc == ssrc)?;
        Some(self.hint)
    }

    fn take(
        &mut self,
        at: usize,
        header: &RtpHeader<'_>,
        index: u64,
        payload: &[u8],
        new_source: bool,
        now: Instant,
    ) -> Result<Option<Received>, Fault> {
        let stream = &mut self.streams[at];
        let inlet = self.inlets.iter_mut().find(|inlet| inlet.mid == stream.mid);
        let inlet = inlet.ok_or(Fault::Unwanted)?;
        inlet.used = true;
        if let Some(seq) = inlet.element(header, Extension::TransportCc).and_then(transport_seq) {
            self.twcc.get_or_insert_with(|| TwccRecorder::new(now)).on_packet(seq, now);
        }
        stream.stats.on_packet(index, header.timestamp, now);
        stream.live = true;
        let (codec, repairs) = inlet.payload_type(header.payload_type).ok_or(Fault::Unwanted)?;
        let (at, seq, range) = match (repairs, stream.repairs) {
            (true, _) => match repaired(&mut self.streams, at, payload) {
                Some(repaired) => repaired,
                None => return Ok(None),
            },
            // Padding under the media's payload type, sent to probe for bandwidth.
            (false, true) => return Ok(None),
            (false, false) => (at, index, 0..payload.len()),
        };
        let stream = &mut self.streams[at];
        let kind = inlet.codec(codec).ok_or(Fault::Unwanted)?;
        let keyframe = starts_keyframe(kind, &payload[range.clone()]);
        if let Some(nack) = &mut stream.nack {
            nack.on_packet(seq, now);
            if keyframe {
                nack.on_keyframe(seq);
            }
        }
        let head = PacketHead {
            layer: stream.layer,
            codec,
            marker: header.marker,
            keyframe,
            source: stream.source,
            seq,
            timestamp: header.timestamp,
        };
        let (feed, extensions) = (inlet.feed, inlet.extensions);
        Ok(Some(Received { feed, head, payload: range, extensions, new_source }))
    }

    /// Finds out what a new SSRC is, from what its first authentic packet says (RFC 8843 §9.2):
    /// its MID and RID, the client's description, or at last its payload type.
    fn add_stream(
        &mut self,
        header: &RtpHeader<'_>,
        next_source: &mut u32,
    ) -> Result<usize, Fault> {
        if self.streams.len() >= STREAMS_PER_SESSION {
            return Err(Fault::TooManyStreams);
        }
        let text = |extension| {
            let mut found = self.inlets.iter().filter_map(|i| i.element(header, extension));
            found.next().and_then(sdes_text)
        };
        let mid = text(Extension::Mid);
        let told = |inlet: &&Inlet| {
            inlet.ssrcs.iter().any(|&(ssrc, rtx)| ssrc == header.ssrc || rtx == Some(header.ssrc))
        };
        let carries = |inlet: &&Inlet| inlet.payload_type(header.payload_type).is_some();
        let inlet = match mid {
            Some(mid) => self.inlets.iter().find(|inlet| inlet.mid == mid),
            None => self.inlets.iter().find(told).or_else(|| {
                let mut carrying = self.inlets.iter().filter(carries);
                carrying.next().filter(|_| carrying.next().is_none())
            }),
        };
        let inlet = inlet.ok_or(Fault::Unwanted)?;
        let (codec, rtx_type) = inlet.payload_type(header.payload_type).ok_or(Fault::Unwanted)?;
        let (rid, repaired_rid) = (text(Extension::Rid), text(Extension::RepairedRid));
        let told = inlet.ssrcs.iter().position(|&(ssrc, _)| ssrc == header.ssrc);
        let told_rtx = inlet.ssrcs.iter().position(|&(_, rtx)| rtx == Some(header.ssrc));
        let layer = match (rid.or(repaired_rid), told.or(told_rtx)) {
            (Some(rid), _) if inlet.layered => inlet.layer(rid).ok_or(Fault::Unwanted)?,
            (None, Some(at)) if inlet.layered => inlet.told_layer(at).ok_or(Fault::Unwanted)?,
            (None, None) if inlet.layered => return Err(Fault::Unwanted),
            _ => inlet.told_layer(0).unwrap_or(0),
        };
        let repairs = rtx_type || repaired_rid.is_some() || told_rtx.is_some();
        let rate = inlet.codec(codec).map_or(90_000, |codec| codec.clock_rate());
        let source = *next_source;
        *next_source = next_source.wrapping_add(1).max(1);
        let stream = Stream {
            ssrc: header.ssrc,
            mid: inlet.mid.clone(),
            layer,
            repairs,
            source,
            window: ReplayWindow::new(),
            stats: ReceptionStats::new(rate),
            live: true,
            nack: (inlet.wants_nack && !repairs).then(NackGenerator::default),
            clock: SenderClock::new(rate),
        };
        self.streams.push(stream);
        Ok(self.streams.len() - 1)
    }
}

/// The packet that an RTX packet on stream `at` repairs: its stream, sequence number, and
/// where its payload lies. `None` for padding, and for what has arrived meanwhile.
fn repaired(
    streams: &mut [Stream],
    at: usize,
    payload: &[u8],
) -> Option<(usize, u64, std::ops::Range<usize>)> {
    // RFC 4588 §4: the original sequence number comes first.
    let seq = u16::from_be_bytes(*payload.first_chunk()?);
    let (mid, layer) = (&streams[at].mid, streams[at].layer);
    let original = streams.iter().rposition(|s| s.layer == layer && !s.repairs && s.mid == *mid)?;
    let window = &mut streams[original].window;
    let index = window.estimate(seq);
    if !window.is_new(index) {
        return None;
    }
    window.commit(index);
    Some((original, index, 2..payload.len()))
}

#[cfg(test)]
mod tests {
    use super::super::sdp::{Feedback, NegotiatedCodec, Receiving};
    use super::*;
    use crate::media::format::Codec;
    use crate::media::srtp::{KeyingMaterial, Profile, Sealer};
    use crate::testing::start;

    fn keys(seed: u8) -> (Sealer, Opener) {
        let profile = Profile::AeadAes128Gcm;
        let material = vec![seed; profile.keying_material_len()];
        let material = KeyingMaterial::new(profile, &material).unwrap();
        (Sealer::new(&material.split(true).0), Opener::new(&material.split(false).1))
    }

    fn inlet() -> Inlet {
        let opus = NegotiatedCodec {
            codec: Codec::Opus,
            pt: 111,
            rtx_pt: None,
            fmtp: String::new(),
            feedback: Feedback::default(),
        };
        let receiving = Receiving {
            codecs: vec![opus],
            extensions: ExtensionIds::default(),
            rids: Vec::new(),
            ssrcs: Vec::new(),
        };
        Inlet::new("0", &receiving)
    }

    fn packet(sealer: &Sealer, index: u64) -> Vec<u8> {
        let mut bytes = vec![0x80, 111, (index >> 8) as u8, index as u8, 0, 0, 0, 0, 0, 0, 0, 5];
        bytes.resize(100, 0);
        let len = sealer.seal_rtp(&mut bytes, 12, &[1, 2, 3], 5, index);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_new_key_begins_at_rollover_zero_for_ssrcs_of_stopped_lines_too() {
        let now = start();
        let mut out = [0; 200];
        let mut next_source = 1;
        let mut ingress = Ingress::new(1);
        let (old, opener) = keys(1);
        ingress.key(opener);
        ingress.set_inlet(inlet());
        // The numbers wrap once, then the line stops.
        for index in [65_000, 65_535, 65_536, 65_600] {
            let packet = packet(&old, index);
            ingress.receive(&packet, &mut out, &mut next_source, now).unwrap();
        }
        ingress.remove_inlet("0");
        let (new, opener) = keys(2);
        ingress.key(opener);
        ingress.set_inlet(inlet());
        let packet = packet(&new, 70);
        assert!(ingress.receive(&packet, &mut out, &mut next_source, now).is_ok());
    }
}
