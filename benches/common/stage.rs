//! Engines with one publisher and any number of subscribers, brought up for real (SDP, ICE,
//! DTLS with str0m at the other end) in virtual time, over a network that takes none.
//!
//! Not here: anything that is measured. The benches drive the engines themselves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shards::command::{
    Answer, Ask, Command, Description, Location, Reply, SdpKind, TrackObject, TracksReply,
    TracksRequest,
};
use shards::engine::{Engine, EngineConfig, Progress};
use shards::ids::{AppId, NodeId, SessionId, ShardId};
use shards::mail::Ticket;
use shards::outbox::{CAPACITY, Outbox};
use shards::session::keys;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// A track of the publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Track {
    /// Picture ids in the payload are rewritten for every subscriber.
    Vp8,
    /// Payloads leave as they came.
    H264,
    Opus,
}

impl Track {
    pub(crate) const ALL: [Self; 3] = [Self::Vp8, Self::H264, Self::Opus];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H.264",
            Self::Opus => "Opus",
        }
    }

    /// The payload of a usual datagram: 1,200 bytes of video, 120 of audio.
    pub(crate) fn usual_len(self) -> usize {
        if self == Self::Opus { 80 } else { 1160 }
    }

    fn kind(self) -> MediaKind {
        if self == Self::Opus { MediaKind::Audio } else { MediaKind::Video }
    }

    fn codec(self) -> Codec {
        match self {
            Self::Vp8 => Codec::Vp8,
            Self::H264 => Codec::H264,
            Self::Opus => Codec::Opus,
        }
    }

    fn clock_rate(self) -> u64 {
        if self == Self::Opus { 48_000 } else { 90_000 }
    }

    /// The first packet of a frame of one packet.
    fn payload(self, len: usize, picture: u16, keyframe: bool) -> Vec<u8> {
        let [high, low] = (0x8000 | picture & 0x7fff).to_be_bytes();
        let mut payload = match (self, keyframe) {
            (Self::Vp8, _) => vec![0x90, 0x80, high, low, u8::from(!keyframe)],
            // A sequence parameter set, with which a keyframe begins; a slice of a picture.
            (Self::H264, true) => vec![0x67],
            (Self::H264, false) => vec![0x41],
            (Self::Opus, _) => vec![0x78],
        };
        payload.resize(len, 0xaa);
        payload
    }
}

struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
    timeout: Instant,
    outgoing: Vec<(SocketAddr, Vec<u8>)>,
    /// Media packets it received and could open.
    got: usize,
}

pub(crate) struct Stage {
    pub(crate) now: Instant,
    pub(crate) engines: Vec<Engine>,
    clients: Vec<Client>,
    by_address: HashMap<SocketAddr, usize>,
    outbox: Outbox,
    answers: Vec<(Ticket, Answer)>,
    tickets: u64,
    publisher: SessionId,
    mids: Vec<Mid>,
    /// Added to VP8 picture ids.
    picture_base: u16,
    /// Packets sent, by track.
    sent: [u64; Track::ALL.len()],
}

const STEP: Duration = Duration::from_millis(5);
const PUBLISHER: usize = 0;

pub(crate) fn shard_address(shard: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 3478 + shard as u16))
}

impl Stage {
    /// A publisher of all tracks on shard 0, flowing.
    pub(crate) fn new(shards: usize) -> Self {
        let now = start();
        let provider = keys::provider();
        let cert = provider.dtls_provider.generate_certificate().expect("a certificate");
        let engine = |n: usize| {
            let config = EngineConfig {
                node: NodeId(1),
                shard: ShardId(n as u8),
                shards,
                cert: cert.clone(),
                candidates: [shard_address(n)].into(),
            };
            Engine::new(config, now, random(n as u64 + 1))
        };
        let mut stage = Self {
            now,
            engines: (0..shards).map(engine).collect(),
            clients: Vec::new(),
            by_address: HashMap::new(),
            outbox: Outbox::new(CAPACITY),
            answers: Vec::new(),
            tickets: 0,
            publisher: "0".repeat(32).parse().expect("an id"),
            mids: Vec::new(),
            picture_base: 0,
            sent: [0; Track::ALL.len()],
        };
        stage.publish();
        stage
    }

    pub(crate) fn publisher_address(&self) -> SocketAddr {
        self.clients[PUBLISHER].address
    }

    pub(crate) fn publisher_session(&self) -> SessionId {
        self.publisher
    }

    fn publish(&mut self) {
        let session = self.create(0);
        self.publisher = session;
        let client = self.add_client();
        let mut change = self.clients[client].rtc.sdp_api();
        for track in Track::ALL {
            let direction = Direction::SendOnly;
            self.mids.push(change.add_media(track.kind(), direction, None, None, None));
        }
        let (offer, pending) = change.apply().expect("an offer");
        let tracks = Track::ALL.iter().zip(&self.mids).map(|(track, mid)| TrackObject {
            location: Some(Location::Local),
            mid: Some(mid.to_string()),
            track_name: Some(track.name().to_owned()),
            ..TrackObject::default()
        });
        let tracks = tracks.collect();
        let offer = Some(Description { kind: SdpKind::Offer, sdp: offer.to_sdp_string() });
        let request = TracksRequest { offer, tracks, auto_discover: false };
        let reply = tracks_of(self.ask(Ask::NewTracks { session, request }));
        let answer = reply.description.expect("an answer").sdp;
        let answer = SdpAnswer::from_sdp_string(&answer).expect("SDP");
        self.clients[client].rtc.sdp_api().accept_answer(pending, answer).expect("accepted");
        self.connect();
        for track in Track::ALL {
            self.flow(track);
        }
    }

    /// Connects so many more subscribers to a shard; each pulls all tracks, is served, and has
    /// reported its reception once.
    pub(crate) fn subscribe(&mut self, shard: usize, count: usize) {
        for _ in 0..count {
            let session = self.create(shard);
            let client = self.add_client();
            let tracks = Track::ALL.iter().map(|track| TrackObject {
                location: Some(Location::Remote),
                session_id: Some(self.publisher.to_string()),
                track_name: Some(track.name().to_owned()),
                ..TrackObject::default()
            });
            let request = TracksRequest { tracks: tracks.collect(), ..TracksRequest::default() };
            let reply = tracks_of(self.ask(Ask::NewTracks { session, request }));
            let offer = reply.description.expect("an offer").sdp;
            let offer = SdpOffer::from_sdp_string(&offer).expect("SDP");
            let answer = self.clients[client].rtc.sdp_api().accept_offer(offer).expect("accepted");
            let description = Description { kind: SdpKind::Answer, sdp: answer.to_sdp_string() };
            let answer = self.ask(Ask::Renegotiate { session, description });
            assert!(answer.is_ok(), "{answer:?}");
        }
        self.connect();
        // Until the receiver reports have come, every packet carries the MID: not what a
        // subscriber costs in the long run.
        for _ in 0..6 {
            for track in Track::ALL {
                self.flow(track);
            }
            self.run(Duration::from_secs(1));
        }
    }

    /// Sends a keyframe of the track to everybody and says how many clients got it.
    pub(crate) fn flow(&mut self, track: Track) -> usize {
        let before: usize = self.clients.iter().map(|client| client.got).sum();
        for mut datagram in self.packets(track, 1, 100, true) {
            let from = self.publisher_address();
            self.engines[0].handle_datagram(from, shard_address(0), &mut datagram, self.now);
        }
        self.settle();
        self.clients.iter().map(|client| client.got).sum::<usize>() - before
    }

    /// The next packets of a track as they come from the network, each a frame of its own.
    pub(crate) fn packets(
        &mut self,
        track: Track,
        count: usize,
        len: usize,
        keyframe: bool,
    ) -> Vec<Vec<u8>> {
        self.packets_of(track, &vec![len; count], keyframe)
    }

    /// The same, with payloads of these lengths.
    pub(crate) fn packets_of(
        &mut self,
        track: Track,
        lens: &[usize],
        keyframe: bool,
    ) -> Vec<Vec<u8>> {
        let picture_base = self.picture_base;
        let publisher = &mut self.clients[PUBLISHER];
        let mid = self.mids[track as usize];
        let negotiated = publisher.rtc.media(mid).expect("negotiated").remote_pts().to_vec();
        let params = publisher.rtc.codec_config().iter();
        let codec = |p: &&str0m::format::PayloadParams| p.spec().codec == track.codec();
        let pt = params.filter(codec).map(|p| p.pt()).find(|pt| negotiated.contains(pt));
        let pt = pt.expect("the codec was negotiated");
        for &len in lens {
            let sent = &mut self.sent[track as usize];
            let payload = track.payload(len, picture_base.wrapping_add(*sent as u16), keyframe);
            let timestamp = (*sent * track.clock_rate() / 50) as u32;
            let level = (track == Track::Opus).then_some(-30);
            let values = ExtensionValues { audio_level: level, ..ExtensionValues::default() };
            let write = RtpWrite::new(pt, SeqNo::from(100 + *sent), timestamp, self.now, payload);
            let mut api = publisher.rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None).expect("declared");
            stream.write_rtp(write.marker(true).ext_vals(values));
            *sent += 1;
            publisher.drive(self.now);
        }
        let outgoing = std::mem::take(&mut publisher.outgoing);
        let media =
            |bytes: &[u8]| (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1]);
        outgoing.into_iter().map(|(_, bytes)| bytes).filter(|bytes| media(bytes)).collect()
    }

    /// The publisher's picture ids jump, as after a change of its encoder: from now on those of
    /// present subscribers differ from them. A second jump undoes it.
    pub(crate) fn jump_pictures(&mut self) {
        self.picture_base ^= 0x4000;
    }

    fn add_client(&mut self) -> usize {
        let n = self.clients.len();
        let address = SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 5000));
        let mut rtc = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_h264(true)
            .build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        let (timeout, outgoing) = (self.now, Vec::new());
        self.clients.push(Client { rtc, address, connected: false, timeout, outgoing, got: 0 });
        self.by_address.insert(address, n);
        n
    }

    fn create(&mut self, shard: usize) -> SessionId {
        match self.ask_at(shard, Ask::Create { offer: None }) {
            Ok(Reply::Created { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        let shard = ask.session().map_or(0, |session| session.shard().index());
        self.ask_at(shard, ask)
    }

    fn ask_at(&mut self, shard: usize, ask: Ask) -> Answer {
        self.tickets += 1;
        let ticket = Ticket { shard: ShardId(shard as u8), number: self.tickets };
        self.engines[shard].handle_command(ticket, Command { app: AppId(0), ask }, self.now);
        for _ in 0..200 {
            self.settle();
            if let Some(at) = self.answers.iter().position(|(other, _)| *other == ticket) {
                return self.answers.swap_remove(at).1;
            }
            self.run(STEP);
        }
        panic!("no answer");
    }

    fn connect(&mut self) {
        for _ in 0..1000 {
            if self.clients.iter().all(|client| client.connected) {
                return;
            }
            self.run(STEP);
        }
        panic!("not all clients connected");
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            for engine in &mut self.engines {
                if engine.timeout().is_some_and(|at| at <= self.now) {
                    engine.handle_timeout(self.now);
                }
            }
            for client in &mut self.clients {
                if client.timeout <= self.now {
                    client.drive(self.now);
                }
            }
            self.settle();
        }
    }

    /// Moves mail, answers and datagrams until nothing moves any more.
    fn settle(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for n in 0..self.engines.len() {
                let mail: Vec<_> = self.engines[n].poll_mail().collect();
                for (to, mail) in mail {
                    self.engines[to.index()].handle_mail(ShardId(n as u8), mail, self.now);
                    moved = true;
                }
                self.answers.extend(self.engines[n].poll_answers());
                moved |= self.flush(n);
            }
            for n in 0..self.clients.len() {
                let from = self.clients[n].address;
                for (to, mut bytes) in std::mem::take(&mut self.clients[n].outgoing) {
                    let shard = usize::from(to.port() - shard_address(0).port());
                    self.engines[shard].handle_datagram(from, to, &mut bytes, self.now);
                    moved = true;
                }
            }
        }
    }

    fn flush(&mut self, n: usize) -> bool {
        let mut any = false;
        loop {
            let progress = self.engines[n].spread(&mut self.outbox, self.now);
            for send in self.outbox.sends() {
                // Clients of others are served by them.
                let Some(&at) = self.by_address.get(&send.to.remote) else { continue };
                let client = &mut self.clients[at];
                for datagram in send.datagrams() {
                    client.receive(send.to.local, datagram, self.now);
                    any = true;
                }
            }
            self.outbox.clear();
            if progress == Progress::Done {
                return any;
            }
        }
    }
}

impl Client {
    fn receive(&mut self, source: SocketAddr, bytes: &[u8], now: Instant) {
        let Ok(contents) = bytes.try_into() else { return };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).expect("a live client");
        self.drive(now);
    }

    fn drive(&mut self, now: Instant) {
        self.drain(now);
        self.rtc.handle_input(Input::Timeout(now)).expect("a live client");
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output().expect("a live client") {
                Output::Timeout(at) => {
                    self.timeout = at.max(now + Duration::from_micros(100));
                    return;
                }
                Output::Transmit(t) => self.outgoing.push((t.destination, t.contents.into())),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(_)) => self.got += 1,
                Output::Event(_) => {}
            }
        }
    }
}

fn tracks_of(answer: Answer) -> TracksReply {
    match answer {
        Ok(Reply::Tracks(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn start() -> Instant {
    Instant::now()
}

/// A fast generator with a seed; unpredictable enough for a bench.
fn random(seed: u64) -> Box<dyn FnMut() -> u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
