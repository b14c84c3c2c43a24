//! Clients that join an engine one after the other, each engine call on the CPU clock, and
//! that are gone afterwards: what stays in memory is the server's.
//!
//! Browsers' offers are recorded ones under the credentials of a str0m client, which does ICE
//! and DTLS. Nothing is subtracted from what is measured.

use std::net::SocketAddr;
use std::time::Duration;

use shards::command::{
    Answer, Ask, Command, Description, Location, Reply, SdpKind, TrackObject, TracksReply,
    TracksRequest,
};
use shards::engine::Progress;
use shards::ids::{AppId, SessionId, ShardId};
use shards::mail::Ticket;
use shards::outbox::Outbox;
use shards::session::{DtlsCert, keys};
use str0m::change::SdpOffer;
use str0m::config::Fingerprint;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

use super::spent;
use super::stage::{Stage, Track, shard_address};

/// For the answers to thousands, in one turn.
const ROOM: usize = 4 << 20;

/// Where the server's time goes, in the order of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    NewTracks,
    Renegotiate,
    Ice,
    Dtls,
    Timers,
}

impl Step {
    pub(crate) const ALL: [Self; 6] =
        [Self::Create, Self::NewTracks, Self::Renegotiate, Self::Ice, Self::Dtls, Self::Timers];
}

/// ns of CPU and engine calls, by step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) ns: [f64; Step::ALL.len()],
    pub(crate) calls: [u32; Step::ALL.len()],
}

impl Costs {
    pub(crate) fn total(&self) -> f64 {
        self.ns.iter().sum()
    }
}

/// What is left of a client: enough to keep its path alive.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) address: SocketAddr,
    /// `ours:theirs`, and our password.
    pub(crate) username: String,
    pub(crate) password: String,
}

pub(crate) struct Lobby {
    pub(crate) stage: Stage,
    pub(crate) outbox: Outbox,
    cert: DtlsCert,
    clients: u32,
    tickets: u64,
}

struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
    timeout: std::time::Instant,
    outgoing: Vec<Vec<u8>>,
}

/// A camera and a microphone, sent by Chromium.
const OFFER: &str = include_str!("../../shards/tests/fixtures/sdp/chromium156_a_sendonly_av.sdp");

impl Lobby {
    pub(crate) fn new() -> Self {
        let provider = keys::provider();
        let cert = provider.dtls_provider.generate_certificate().expect("a certificate");
        let outbox = Outbox::new(ROOM);
        Self { stage: Stage::new(1), outbox, cert, clients: 0, tickets: 1 << 32 }
    }

    /// A session that publishes a microphone and a camera, and sends nothing.
    pub(crate) fn push(&mut self) -> (Joined, Costs) {
        let mut costs = Costs::default();
        let session = self.create(&mut costs);
        let mut client = self.client();
        let local = |mid: &str| TrackObject {
            location: Some(Location::Local),
            mid: Some(mid.to_owned()),
            track_name: Some(format!("track-{mid}")),
            ..TrackObject::default()
        };
        let offer = Some(Description { kind: SdpKind::Offer, sdp: client.offer() });
        let tracks = vec![local("0"), local("1")];
        let request = TracksRequest { offer, tracks, auto_discover: false };
        let ask = Ask::NewTracks { session, request };
        let reply = tracks_of(self.ask(ask, Step::NewTracks, &mut costs));
        assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{reply:?}");
        let answer = reply.description.expect("an answer").sdp;
        client.meet(&answer, self.stage.now);
        (self.connect(client, &answer, &mut costs), costs)
    }

    /// A session that pulls a microphone and a camera, by an offer of the server's.
    pub(crate) fn pull(&mut self) -> (Joined, Costs) {
        let mut costs = Costs::default();
        let session = self.create(&mut costs);
        let mut client = self.client();
        let publisher = self.stage.publisher_session().to_string();
        let remote = |track: Track| TrackObject {
            location: Some(Location::Remote),
            session_id: Some(publisher.clone()),
            track_name: Some(track.name().to_owned()),
            ..TrackObject::default()
        };
        let tracks = vec![remote(Track::Opus), remote(Track::Vp8)];
        let request = TracksRequest { tracks, ..TracksRequest::default() };
        let ask = Ask::NewTracks { session, request };
        let reply = tracks_of(self.ask(ask, Step::NewTracks, &mut costs));
        assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{reply:?}");
        let text = reply.description.expect("an offer").sdp;
        let offer = SdpOffer::from_sdp_string(&text).expect("SDP");
        let answer = client.rtc.sdp_api().accept_offer(offer).expect("accepted");
        client.drive(self.stage.now);
        let description = Description { kind: SdpKind::Answer, sdp: answer.to_sdp_string() };
        let ask = Ask::Renegotiate { session, description };
        let answer = self.ask(ask, Step::Renegotiate, &mut costs);
        assert!(answer.is_ok(), "{answer:?}");
        (self.connect(client, &text, &mut costs), costs)
    }

    fn client(&mut self) -> Client {
        self.clients += 1;
        let [_, a, b, c] = self.clients.to_be_bytes();
        let address = SocketAddr::from(([11, a, b, c], 5000));
        let now = self.stage.now;
        let mut rtc = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_dtls_cert(self.cert.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        Client { rtc, address, connected: false, timeout: now, outgoing: Vec::new() }
    }

    fn create(&mut self, costs: &mut Costs) -> SessionId {
        match self.ask(Ask::Create { offer: None }, Step::Create, costs) {
            Ok(Reply::Created { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Every request here is answered at once.
    fn ask(&mut self, ask: Ask, step: Step, costs: &mut Costs) -> Answer {
        self.tickets += 1;
        let ticket = Ticket { shard: ShardId(0), number: self.tickets };
        let (engine, now) = (&mut self.stage.engines[0], self.stage.now);
        let command = Command { app: AppId(0), ask };
        let outbox = &mut self.outbox;
        costs.ns[step as usize] += spent(|| {
            engine.handle_command(ticket, command, now);
            while engine.spread(outbox, now) == Progress::More {
                outbox.clear();
            }
        });
        costs.calls[step as usize] += 1;
        let (_, answer) = engine.poll_answers().next().expect("an answer");
        answer
    }

    fn connect(&mut self, mut client: Client, sdp: &str, costs: &mut Costs) -> Joined {
        for _ in 0..10_000 {
            while let Some(mut bytes) = client.outgoing.pop() {
                self.deliver(&mut client, &mut bytes, costs);
            }
            if client.connected {
                let engine = &self.stage.engines[0];
                assert_eq!(engine.meters().faults, Default::default());
                let username = format!("{}:{}", field(sdp, "a=ice-ufrag:"), client.ufrag());
                let password = field(sdp, "a=ice-pwd:").to_owned();
                return Joined { address: client.address, username, password };
            }
            self.stage.now += Duration::from_micros(100);
            let now = self.stage.now;
            self.timers(costs);
            if client.timeout <= now {
                client.drive(now);
            }
        }
        panic!("not connected");
    }

    fn deliver(&mut self, client: &mut Client, bytes: &mut [u8], costs: &mut Costs) {
        let step = if bytes[0] < 4 { Step::Ice } else { Step::Dtls };
        let (engine, now) = (&mut self.stage.engines[0], self.stage.now);
        let outbox = &mut self.outbox;
        costs.ns[step as usize] += spent(|| {
            engine.handle_datagram(client.address, shard_address(0), bytes, now);
            assert_eq!(engine.spread(outbox, now), Progress::Done);
        });
        costs.calls[step as usize] += 1;
        for send in self.outbox.sends() {
            // The rest asks the publisher for a keyframe.
            if send.to.remote != client.address {
                continue;
            }
            for datagram in send.datagrams() {
                client.receive(datagram, now);
            }
        }
        self.outbox.clear();
    }

    fn timers(&mut self, costs: &mut Costs) {
        let (engine, now) = (&mut self.stage.engines[0], self.stage.now);
        if engine.timeout().is_some_and(|at| at <= now) {
            let outbox = &mut self.outbox;
            costs.ns[Step::Timers as usize] += spent(|| {
                engine.handle_timeout(now);
                while engine.spread(outbox, now) == Progress::More {
                    outbox.clear();
                }
            });
            costs.calls[Step::Timers as usize] += 1;
            self.outbox.clear();
        }
    }
}

impl Client {
    fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// The recorded offer, as if it were this client's.
    fn offer(&mut self) -> String {
        let IceCreds { ufrag, pass } = self.rtc.direct_api().local_ice_credentials();
        let fingerprint = self.rtc.direct_api().local_dtls_fingerprint().to_string();
        let mut offer = String::with_capacity(OFFER.len());
        for line in OFFER.lines() {
            match line.split_once(':').map_or(line, |(name, _)| name) {
                "a=ice-ufrag" => offer.push_str(&format!("a=ice-ufrag:{ufrag}")),
                "a=ice-pwd" => offer.push_str(&format!("a=ice-pwd:{pass}")),
                "a=fingerprint" => offer.push_str(&format!("a=fingerprint:{fingerprint}")),
                _ => offer.push_str(line),
            }
            offer.push_str("\r\n");
        }
        offer
    }

    /// Takes the server's side of the transport from its answer.
    fn meet(&mut self, answer: &str, now: std::time::Instant) {
        let (ufrag, pass) = (field(answer, "a=ice-ufrag:"), field(answer, "a=ice-pwd:"));
        let (_, fingerprint) = field(answer, "a=fingerprint:").split_once(' ').expect("a hash");
        let byte = |hex: &str| u8::from_str_radix(hex, 16).expect("hex");
        let bytes = fingerprint.split(':').map(byte).collect();
        let candidate = Candidate::host(shard_address(0), "udp").expect("a candidate");
        self.rtc.add_remote_candidate(candidate);
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(IceCreds { ufrag: ufrag.into(), pass: pass.into() });
        api.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".into(), bytes });
        api.start_dtls(true).expect("DTLS");
        self.drive(now);
    }

    fn receive(&mut self, bytes: &[u8], now: std::time::Instant) {
        let Ok(contents) = bytes.try_into() else { return };
        let (source, destination) = (shard_address(0), self.address);
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).expect("a live client");
        self.drive(now);
    }

    fn drive(&mut self, now: std::time::Instant) {
        self.drain(now);
        self.rtc.handle_input(Input::Timeout(now)).expect("a live client");
        self.drain(now);
    }

    fn drain(&mut self, now: std::time::Instant) {
        loop {
            match self.rtc.poll_output().expect("a live client") {
                Output::Timeout(at) => {
                    self.timeout = at.max(now + Duration::from_micros(100));
                    return;
                }
                Output::Transmit(t) => self.outgoing.insert(0, t.contents.into()),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(_) => {}
            }
        }
    }
}

fn field<'a>(sdp: &'a str, name: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(name)).expect("told in the SDP")
}

fn tracks_of(answer: Answer) -> TracksReply {
    match answer {
        Ok(Reply::Tracks(reply)) => reply,
        other => panic!("{other:?}"),
    }
}
