//! A client as a browser would be one: str0m at the other end, sending stamped packets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shards::session::keys;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, SeqNo, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// A packet as it reached the client.
#[derive(Debug, Clone)]
pub struct Got {
    pub at: Instant,
    pub ssrc: u32,
    pub seq: u64,
    pub timestamp: u32,
    pub payload: Vec<u8>,
    pub mid: Option<String>,
}

impl Got {
    /// The publisher's stamp at the end of the payload: (track, number).
    pub fn stamp(&self) -> (u32, u32) {
        let tail = &self.payload[self.payload.len() - 8..];
        let word = |at: usize| u32::from_be_bytes(tail[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }
}

pub struct Client {
    pub rtc: Rtc,
    pub address: SocketAddr,
    pub connected: bool,
    pub closed: bool,
    pub got: Vec<Got>,
    pub keyframes_wanted: usize,
    pub timeout: Option<Instant>,
    pub outgoing: Vec<(SocketAddr, Vec<u8>)>,
    pending: Option<SdpPendingOffer>,
    sent: BTreeMap<u32, Sender>,
}

#[derive(Default, Clone, Copy)]
struct Sender {
    seq: u64,
    number: u32,
    picture: u16,
}

impl Client {
    pub fn new(address: SocketAddr, now: Instant) -> Self {
        let mut rtc = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_h264(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            address,
            connected: false,
            closed: false,
            got: Vec::new(),
            keyframes_wanted: 0,
            timeout: Some(now),
            outgoing: Vec::new(),
            pending: None,
            sent: BTreeMap::new(),
        }
    }

    /// Offers to send one m-line of each kind; returns the offer and its mids.
    pub fn offer_to_send(&mut self, kinds: &[MediaKind]) -> (String, Vec<String>) {
        self.offer(kinds, Direction::SendOnly)
    }

    pub fn offer_to_receive(&mut self, kinds: &[MediaKind]) -> (String, Vec<String>) {
        self.offer(kinds, Direction::RecvOnly)
    }

    fn offer(&mut self, kinds: &[MediaKind], direction: Direction) -> (String, Vec<String>) {
        let mut change = self.rtc.sdp_api();
        let mids: Vec<Mid> =
            kinds.iter().map(|kind| change.add_media(*kind, direction, None, None, None)).collect();
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        (offer.to_sdp_string(), mids.iter().map(ToString::to_string).collect())
    }

    pub fn offer_restart(&mut self) -> String {
        let mut change = self.rtc.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub fn offer_direction(&mut self, mid: &str, direction: Direction) -> String {
        let mut change = self.rtc.sdp_api();
        change.set_direction(Mid::from(mid), direction);
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub fn accept_answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    pub fn accept_offer(&mut self, sdp: &str) -> String {
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        self.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string()
    }

    /// Sends one stamped packet on a transceiver: a whole frame.
    pub fn send(&mut self, mid: &str, track: u32, keyframe: bool, now: Instant) {
        let mid = Mid::from(mid);
        let kind = self.rtc.media(mid).unwrap().kind();
        let codec = if kind == MediaKind::Audio { Codec::Opus } else { Codec::Vp8 };
        let params = self.rtc.codec_config().iter().find(|p| p.spec().codec == codec);
        let pt = params.unwrap().pt();
        let rate = if kind == MediaKind::Audio { 48_000 } else { 90_000 };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        let ssrc: Ssrc = stream.ssrc();
        let sender = self.sent.entry(*ssrc).or_insert(Sender { seq: 100, number: 0, picture: 7 });
        let mut payload = Vec::new();
        if kind == MediaKind::Video {
            // Extended descriptor with a 15-bit picture id; S bit; then the frame's first byte.
            payload.extend_from_slice(&[0x90, 0x80, 0x80 | (sender.picture >> 8) as u8]);
            payload.push(sender.picture as u8);
            payload.push(u8::from(!keyframe));
            payload.resize(60, 0xaa);
        }
        payload.extend_from_slice(&track.to_be_bytes());
        payload.extend_from_slice(&sender.number.to_be_bytes());
        let timestamp = sender.number.wrapping_mul(rate / 50);
        let write =
            RtpWrite::new(pt, SeqNo::from(sender.seq), timestamp, now, payload).marker(true);
        stream.write_rtp(write);
        sender.seq += 1;
        sender.number += 1;
        sender.picture = (sender.picture + 1) & 0x7fff;
        self.drive(now);
    }

    pub fn ask_for_keyframe(&mut self, mid: &str, now: Instant) {
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(Mid::from(mid), None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.drive(now);
    }

    pub fn receive(&mut self, source: SocketAddr, bytes: &[u8], now: Instant) {
        let Ok(contents) = bytes.try_into() else { return };
        let destination = self.address;
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        self.drive(now);
    }

    /// Runs timers and collects what happened.
    pub fn drive(&mut self, now: Instant) {
        self.drain(now);
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = Some(at.max(now + Duration::from_micros(100)));
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    self.outgoing.push((t.destination, t.contents.into()));
                }
                Ok(Output::Event(event)) => self.notice(event, now),
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn notice(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.connected = true,
            Event::Closed => self.closed = true,
            Event::KeyframeRequest(_) => self.keyframes_wanted += 1,
            Event::RtpPacket(packet) => self.got.push(got(&packet, now)),
            _ => {}
        }
    }
}

fn got(packet: &RtpPacket, now: Instant) -> Got {
    Got {
        at: now,
        ssrc: *packet.header.ssrc,
        seq: *packet.seq_no,
        timestamp: packet.header.timestamp,
        payload: packet.payload.to_vec(),
        mid: packet.header.ext_vals.mid.map(|mid| mid.to_string()),
    }
}
