//! A client as a browser would be one: str0m at the other end, sending stamped packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use shards::session::keys;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::format::Codec;
use str0m::media::{
    Direction, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer,
};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{
    Extension, ExtensionSerializer, ExtensionValues, RtpPacket, RtpWrite, SeqNo, Ssrc,
};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

/// A packet as it reached the client.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) at: Instant,
    pub(crate) ssrc: u32,
    pub(crate) seq: u64,
    pub(crate) timestamp: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) mid: Option<String>,
    pub(crate) descriptor: Option<Descriptor>,
    /// What the packet's timestamp means on the sender's clock, by the last sender report.
    pub(crate) captured: Option<SystemTime>,
}

/// What a publisher writes at the end of every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) track: u32,
    /// Counts the packets of the track, from 0.
    pub(crate) number: u32,
    /// When it was sent, in microseconds of the world.
    pub(crate) micros: u64,
}

impl Stamp {
    pub(crate) const LEN: usize = 16;

    fn bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.track.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(&self.micros.to_be_bytes());
        bytes
    }
}

impl Got {
    pub(crate) fn stamp(&self) -> Stamp {
        let tail: &[u8; Stamp::LEN] = self.payload.last_chunk().expect("a stamped payload");
        let word = |at: usize| u32::from_be_bytes(tail[at..at + 4].try_into().unwrap());
        let micros = u64::from_be_bytes(tail[8..].try_into().unwrap());
        Stamp { track: word(0), number: word(4), micros }
    }

    /// The VP8 picture id, as `Client::send` writes it.
    pub(crate) fn picture(&self) -> u16 {
        u16::from_be_bytes([self.payload[2], self.payload[3]]) & 0x7fff
    }

    /// The packet begins a VP8 keyframe.
    pub(crate) fn is_keyframe(&self) -> bool {
        self.payload[4] & 1 == 0
    }
}

/// A packet of media, whatever the codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptor: Option<Descriptor>,
}

/// What a client sends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) mid: String,
    pub(crate) rid: Option<&'static str>,
}

pub(crate) struct Client {
    pub(crate) rtc: Rtc,
    cert: DtlsCert,
    /// What it believes its address to be, and what the world sees (NAT).
    pub(crate) address: SocketAddr,
    pub(crate) external: SocketAddr,
    pub(crate) connected: bool,
    pub(crate) closed: bool,
    pub(crate) got: Vec<Got>,
    /// Requests for keyframes, and sources that owe one.
    pub(crate) asked: Vec<(Instant, Source)>,
    pub(crate) owed: BTreeSet<Source>,
    /// NACKed packets, as counted by the sender, by (mid, rid).
    pub(crate) nacked: BTreeMap<Source, u64>,
    pub(crate) timeout: Option<Instant>,
    pub(crate) outgoing: Vec<(SocketAddr, Vec<u8>)>,
    /// The first sequence number of each SSRC.
    pub(crate) first_seq: u64,
    /// What is added to timestamps, by mid: browsers begin anywhere.
    pub(crate) timestamp_base: BTreeMap<String, u32>,
    started: Instant,
    pending: Option<SdpPendingOffer>,
    seqs: BTreeMap<u32, u64>,
    sent: BTreeMap<Source, (u32, u16)>,
}

/// What a client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Abilities {
    pub(crate) red: bool,
    /// Of its kind, this codec and no other.
    pub(crate) only: Option<Codec>,
    /// Speaks of the dependency descriptor, under this id.
    pub(crate) descriptor_id: Option<u8>,
}

/// The dependency descriptor of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor(pub(crate) Vec<u8>);

/// str0m does not know the extension by itself.
#[derive(Debug)]
struct DescriptorExtension;

impl DescriptorExtension {
    const URI: &str = "https://aomediacodec.github.io/av1-rtp-spec/\
                       #dependency-descriptor-rtp-header-extension";
}

impl ExtensionSerializer for DescriptorExtension {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Descriptor(bytes)) = values.user_values.get() else { return 0 };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Descriptor(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values.user_values.get().is_some_and(|Descriptor(bytes)| bytes.len() > 16)
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, abilities: Abilities, now: Instant) -> Self {
        let (only, red) = (abilities.only, abilities.red);
        let may = |codec: Codec| only.is_none_or(|only| only == codec);
        let cert = keys::provider().dtls_provider.generate_certificate().unwrap();
        let mut config = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_dtls_cert(cert.clone())
            .set_rtp_mode(true)
            .set_stats_interval(Some(Duration::from_millis(250)))
            .clear_codecs()
            .enable_opus(only.is_none_or(|only| only.is_video() || only == Codec::Opus), red)
            .enable_pcmu(only == Some(Codec::PCMU), false)
            .enable_vp8(may(Codec::Vp8))
            .enable_h264(may(Codec::H264))
            .enable_h265(only == Some(Codec::H265))
            .enable_vp9(only == Some(Codec::Vp9))
            .enable_av1(only == Some(Codec::Av1));
        if let Some(id) = abilities.descriptor_id {
            let extension =
                Extension::with_serializer(DescriptorExtension::URI, DescriptorExtension);
            config = config.set_extension(id, extension);
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            cert,
            address,
            external: address,
            connected: false,
            closed: false,
            got: Vec::new(),
            asked: Vec::new(),
            owed: BTreeSet::new(),
            nacked: BTreeMap::new(),
            timeout: Some(now),
            outgoing: Vec::new(),
            first_seq: 100,
            timestamp_base: BTreeMap::new(),
            started: now,
            pending: None,
            seqs: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Begins another transport under the same credentials, as browsers do, without a goodbye
    /// to the old one. `answer` is what the server described itself with.
    pub(crate) fn begin_anew(&mut self, answer: &str, now: Instant) {
        let of = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the answer has it").to_owned()
        };
        let fingerprint = of("a=fingerprint:").parse().unwrap();
        let theirs = IceCreds { ufrag: of("a=ice-ufrag:"), pass: of("a=ice-pwd:") };
        let server = format!("candidate:{}", of("a=candidate:"));
        let server = Candidate::from_sdp_string(&server).unwrap();
        let ours = self.rtc.direct_api().local_ice_credentials();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_dtls_cert(self.cert.clone())
            .set_local_ice_credentials(ours)
            .build(now);
        rtc.add_local_candidate(Candidate::host(self.address, "udp").unwrap());
        rtc.add_remote_candidate(server);
        let mut api = rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(theirs);
        api.set_remote_fingerprint(fingerprint);
        api.start_dtls(true).unwrap();
        self.rtc = rtc;
        self.connected = false;
        self.drive(now);
    }

    /// Offers m-lines; returns the offer and their mids.
    pub(crate) fn offer(
        &mut self,
        kinds: &[MediaKind],
        direction: Direction,
    ) -> (String, Vec<String>) {
        let mut change = self.rtc.sdp_api();
        let mids: Vec<Mid> =
            kinds.iter().map(|kind| change.add_media(*kind, direction, None, None, None)).collect();
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        (offer.to_sdp_string(), mids.iter().map(ToString::to_string).collect())
    }

    /// Offers one video m-line with simulcast layers.
    pub(crate) fn offer_layers(&mut self, rids: &[&str]) -> (String, String) {
        let mut simulcast = Simulcast::new();
        for rid in rids {
            simulcast.add_send_layer(SimulcastLayer::new(rid));
        }
        let mut change = self.rtc.sdp_api();
        let (kind, direction) = (MediaKind::Video, Direction::SendOnly);
        let mid = change.add_media(kind, direction, None, None, Some(simulcast));
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        (offer.to_sdp_string(), mid.to_string())
    }

    pub(crate) fn offer_restart(&mut self) -> String {
        let mut change = self.rtc.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub(crate) fn offer_direction(&mut self, mid: &str, direction: Direction) -> String {
        let mut change = self.rtc.sdp_api();
        change.set_direction(Mid::from(mid), direction);
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub(crate) fn offer_stop(&mut self, mid: &str) -> String {
        let mut change = self.rtc.sdp_api();
        change.stop_media(Mid::from(mid));
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str) {
        // str0m insists on a name for the formats of a stopped line.
        let mut named = String::new();
        let mut stopped = false;
        for line in sdp.lines() {
            named.extend([line, "\r\n"]);
            stopped = if line.starts_with("m=") { line.starts_with("m=video 0 ") } else { stopped };
            if stopped && line.starts_with("a=mid:") {
                named.push_str("a=rtpmap:96 VP8/90000\r\n");
            }
        }
        let answer = SdpAnswer::from_sdp_string(&named).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    pub(crate) fn accept_offer(&mut self, sdp: &str) -> String {
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        self.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string()
    }

    /// Sends one stamped packet of about `len` bytes: a whole frame.
    pub(crate) fn send(
        &mut self,
        source: &Source,
        track: u32,
        len: usize,
        keyframe: bool,
        now: Instant,
    ) {
        let mid = Mid::from(&*source.mid);
        let Some(media) = self.rtc.media(mid) else { return };
        let kind = media.kind();
        let codec = if kind == MediaKind::Audio { Codec::Opus } else { Codec::Vp8 };
        let params = self.rtc.codec_config().iter().find(|p| p.spec().codec == codec);
        let Some((pt, red)) = params.map(|params| (params.pt(), params.red())) else { return };
        let rate = if kind == MediaKind::Audio { 48_000 } else { 90_000u64 };
        let mut api = self.rtc.direct_api();
        let rid = source.rid.map(Rid::from);
        let Some(stream) = api.stream_tx_by_mid(mid, rid) else { return };
        let ssrc: Ssrc = stream.ssrc();
        let first_seq = self.first_seq;
        let seq = self.seqs.entry(*ssrc).or_insert_with(|| {
            // Without its cap on the share of resends: browsers have none.
            stream.set_rtx_cache(1024, Duration::from_secs(3), None);
            first_seq
        });
        let (number, picture) = self.sent.entry(source.clone()).or_insert((0, 7));
        let micros = now.duration_since(self.started).as_micros() as u64;
        let mut payload = Vec::new();
        if kind == MediaKind::Video {
            // Extended descriptor with a 15-bit picture id; S bit; then the frame's first byte.
            payload.extend_from_slice(&[0x90, 0x80, 0x80 | (*picture >> 8) as u8]);
            payload.push(*picture as u8);
            payload.push(u8::from(!keyframe));
        }
        if red.is_some() {
            payload.extend_from_slice(&red_headers(*pt));
        }
        payload.resize(len.saturating_sub(Stamp::LEN).max(payload.len()), 0xaa);
        payload.extend_from_slice(&Stamp { track, number: *number, micros }.bytes());
        let base = self.timestamp_base.get(&source.mid).copied().unwrap_or(0);
        let timestamp = base.wrapping_add((micros * rate / 1_000_000) as u32);
        let write = RtpWrite::new(red.unwrap_or(pt), SeqNo::from(*seq), timestamp, now, payload);
        let write = write.marker(true).nackable(kind == MediaKind::Video);
        stream.write_rtp(write);
        *seq += 1;
        *number += 1;
        *picture = (*picture + 1) & 0x7fff;
        self.drive(now);
    }

    /// Of the first codec of a kind.
    pub(crate) fn payload_type(&self, kind: MediaKind) -> u8 {
        let is_it = |codec: Codec| codec.is_video() == (kind == MediaKind::Video);
        let mut all = self.rtc.codec_config().iter();
        *all.find(|params| is_it(params.spec().codec)).expect("a codec of this kind").pt()
    }

    /// Sends one packet as it is given, with the next sequence number.
    pub(crate) fn write(&mut self, mid: &str, payload_type: u8, packet: &Packet, now: Instant) {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(Mid::from(mid), None).expect("a sending stream");
        let seq = self.seqs.entry(*stream.ssrc()).or_insert(self.first_seq);
        let mut values = ExtensionValues::default();
        if let Some(descriptor) = &packet.descriptor {
            values.user_values.set(descriptor.clone());
        }
        let (pt, payload) = (payload_type.into(), packet.payload.clone());
        let write = RtpWrite::new(pt, SeqNo::from(*seq), packet.timestamp, now, payload);
        stream.write_rtp(write.marker(packet.marker).ext_vals(values).nackable(true));
        *seq += 1;
        self.drive(now);
    }

    /// The next packets of a source come from another SSRC.
    pub(crate) fn change_ssrc(&mut self, source: &Source, ssrc: u32) {
        let rid = source.rid.map(Rid::from);
        let mut api = self.rtc.direct_api();
        let (ssrc, rtx) = (Ssrc::from(ssrc), Ssrc::from(ssrc + 1));
        let kind = api.stream_tx_by_mid(Mid::from(&*source.mid), rid).unwrap().rtx();
        api.reset_stream_tx(Mid::from(&*source.mid), rid, ssrc, kind.map(|_| rtx)).unwrap();
    }

    pub(crate) fn ask_for_keyframe(&mut self, mid: &str, now: Instant) {
        let mut api = self.rtc.direct_api();
        if let Some(stream) = api.stream_rx_by_mid(Mid::from(mid), None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        self.drive(now);
    }

    /// The canonical name of what arrives on a transceiver.
    pub(crate) fn cname(&mut self, mid: &str) -> Option<String> {
        let mut api = self.rtc.direct_api();
        api.stream_rx_by_mid(Mid::from(mid), None)?.cname().map(ToOwned::to_owned)
    }

    pub(crate) fn receive(&mut self, source: SocketAddr, bytes: &[u8], now: Instant) {
        let Ok(contents) = bytes.try_into() else { return };
        let destination = self.address;
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        self.drive(now);
    }

    /// Runs timers and collects what happened.
    pub(crate) fn drive(&mut self, now: Instant) {
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
                    self.timeout = None;
                    return;
                }
            }
        }
    }

    fn notice(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.connected = true,
            Event::Closed => self.closed = true,
            Event::KeyframeRequest(request) => {
                let source = source(request.mid, request.rid);
                self.asked.push((now, source.clone()));
                self.owed.insert(source);
            }
            Event::RtpPacket(packet) => self.got.push(got(&packet, now)),
            Event::MediaEgressStats(stats) => {
                self.nacked.insert(source(stats.mid, stats.rid), stats.nacks);
            }
            _ => {}
        }
    }

    /// Packets it was NACKed, all sources together.
    pub(crate) fn nacks(&self) -> u64 {
        self.nacked.values().sum()
    }

    /// What it got of one track, in the order of their sequence numbers.
    pub(crate) fn track(&self, track: u32) -> Vec<&Got> {
        let mut got: Vec<&Got> = self.got.iter().filter(|g| g.stamp().track == track).collect();
        got.sort_by_key(|got| got.seq);
        got
    }

    /// The numbers of the track's packets it got, in order.
    pub(crate) fn numbers(&self, track: u32) -> Vec<u32> {
        self.track(track).iter().map(|got| got.stamp().number).collect()
    }
}

/// One redundant block of [`RED_BLOCK`] bytes, 960 ticks older, and the primary (RFC 2198).
pub(crate) fn red_headers(opus: u8) -> [u8; 5] {
    let [_, a, b, c] = (960u32 << 10 | RED_BLOCK as u32).to_be_bytes();
    [0x80 | opus, a, b, c, opus]
}

pub(crate) const RED_BLOCK: usize = 30;

fn source(mid: Mid, rid: Option<Rid>) -> Source {
    let known = ["f", "h", "q"];
    let rid = rid.and_then(|rid| known.into_iter().find(|known| **known == *rid));
    Source { mid: mid.to_string(), rid }
}

fn got(packet: &RtpPacket, now: Instant) -> Got {
    let captured = packet.last_sender_info.as_ref().map(|info| {
        let ahead = packet.time.as_seconds() - info.rtp_time.as_seconds();
        let span = Duration::from_secs_f64(ahead.abs());
        if ahead < 0.0 { info.ntp_time - span } else { info.ntp_time + span }
    });
    Got {
        at: now,
        ssrc: *packet.header.ssrc,
        seq: *packet.seq_no,
        timestamp: packet.header.timestamp,
        payload_type: *packet.header.payload_type,
        marker: packet.header.marker,
        descriptor: packet.header.ext_vals.user_values.get().cloned(),
        payload: packet.payload.to_vec(),
        mid: packet.header.ext_vals.mid.map(|mid| mid.to_string()),
        captured,
    }
}
