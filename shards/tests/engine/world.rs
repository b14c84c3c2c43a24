//! The world: engines, clients, and a network between them, on one virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shards::command::{
    Answer, Ask, Command, Description, Location, Reply, SdpKind, TrackObject, TracksReply,
    TracksRequest,
};
use shards::engine::{Engine, EngineConfig, Progress};
use shards::ids::{AppId, SessionId, ShardId};
use shards::mail::Ticket;
use shards::outbox::Outbox;
use shards::session::keys;
use str0m::config::DtlsCert;
use str0m::media::MediaKind;

use crate::client::Client;

pub const APP: AppId = AppId(0);

type Flight = Reverse<(Instant, u64, SocketAddr, SocketAddr, Vec<u8>)>;

pub struct World {
    pub now: Instant,
    pub engines: Vec<Engine>,
    pub clients: Vec<Client>,
    pub answers: Vec<(Ticket, Answer)>,
    /// Whether a datagram is lost: (sent so far, from, to, bytes).
    pub loses: Box<dyn FnMut(u64, SocketAddr, SocketAddr, &[u8]) -> bool>,
    /// Which shard a datagram from this source to this shard's address reaches.
    pub steers: Box<dyn FnMut(usize, SocketAddr) -> usize>,
    pub delay: Duration,
    outbox: Outbox,
    flights: BinaryHeap<Flight>,
    count: u64,
    tickets: u64,
}

/// Where shard `n` listens.
pub fn shard_address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 3478 + n as u16))
}

impl World {
    pub fn new(shards: usize) -> Self {
        let now = Instant::now();
        let cert: DtlsCert =
            keys::provider().dtls_provider.generate_certificate().expect("a certificate");
        let engine = |n: usize| {
            let config = EngineConfig {
                node: 0,
                shard: ShardId(n as u8),
                shards,
                cert: cert.clone(),
                candidates: [shard_address(n)].into(),
            };
            Engine::new(config, now, random(n as u64 + 1))
        };
        Self {
            now,
            engines: (0..shards).map(engine).collect(),
            clients: Vec::new(),
            answers: Vec::new(),
            loses: Box::new(|_, _, _, _| false),
            steers: Box::new(|shard, _| shard),
            delay: Duration::from_millis(10),
            outbox: Outbox::new(64 * 1024),
            flights: BinaryHeap::new(),
            count: 0,
            tickets: 0,
        }
    }

    pub fn add_client(&mut self) -> usize {
        let n = self.clients.len();
        let address = SocketAddr::from(([10, 1, 0, n as u8 + 1], 5000));
        self.clients.push(Client::new(address, self.now));
        n
    }

    /// Gives a command to a shard's API; the answer comes later.
    pub fn tell(&mut self, shard: usize, ask: Ask) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket { shard: ShardId(shard as u8), number: self.tickets };
        let owner = ask.session().map_or(shard, |session| session.shard().index());
        let command = Command { app: APP, ask };
        self.engines[owner].handle_command(ticket, command, self.now);
        self.settle();
        ticket
    }

    pub fn answer_to(&mut self, ticket: Ticket) -> Option<Answer> {
        let at = self.answers.iter().position(|(other, _)| *other == ticket)?;
        Some(self.answers.remove(at).1)
    }

    /// Gives a command and runs the world until it is answered.
    pub fn ask(&mut self, shard: usize, ask: Ask) -> Answer {
        let ticket = self.tell(shard, ask);
        for _ in 0..2000 {
            if let Some(answer) = self.answer_to(ticket) {
                return answer;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("no answer in 20 s");
    }

    pub fn create(&mut self, shard: usize) -> SessionId {
        match self.ask(shard, Ask::Create { offer: None }) {
            Ok(Reply::Created { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    pub fn tracks(&mut self, session: SessionId, request: TracksRequest) -> TracksReply {
        match self.ask(session.shard().index(), Ask::NewTracks { session, request }) {
            Ok(Reply::Tracks(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// Case A: the client pushes; the tracks are named as given.
    pub fn push(
        &mut self,
        client: usize,
        session: SessionId,
        names: &[(&str, MediaKind)],
    ) -> Vec<String> {
        let kinds: Vec<MediaKind> = names.iter().map(|(_, kind)| *kind).collect();
        let (sdp, mids) = self.clients[client].offer_to_send(&kinds);
        let tracks = names.iter().zip(&mids).map(|((name, _), mid)| local(name, mid)).collect();
        let offer = Some(Description { kind: SdpKind::Offer, sdp });
        let reply = self.tracks(session, TracksRequest { offer, tracks, auto_discover: false });
        assert!(!reply.requires_immediate_renegotiation);
        assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{:?}", reply.tracks);
        self.clients[client].accept_answer(&reply.description.unwrap().sdp);
        mids
    }

    /// Case D: the client pulls; returns the mids.
    pub fn pull(
        &mut self,
        client: usize,
        session: SessionId,
        tracks: &[(SessionId, &str)],
    ) -> Vec<String> {
        let tracks = tracks.iter().map(|(publisher, name)| remote(*publisher, name)).collect();
        let reply = self.tracks(session, TracksRequest { tracks, ..TracksRequest::default() });
        assert!(reply.requires_immediate_renegotiation, "{reply:?}");
        self.answer_offer(client, session, &reply.description.unwrap().sdp);
        reply.tracks.into_iter().map(|track| track.mid).collect()
    }

    pub fn answer_offer(&mut self, client: usize, session: SessionId, sdp: &str) {
        let sdp = self.clients[client].accept_offer(sdp);
        let description = Description { kind: SdpKind::Answer, sdp };
        let answer = self.ask(0, Ask::Renegotiate { session, description });
        assert_eq!(answer, Ok(Reply::Renegotiated { answer: None }));
    }

    pub fn connect(&mut self, client: usize) {
        for _ in 0..500 {
            if self.clients[client].connected {
                return;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("client {client} did not connect");
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.settle();
            let next = [
                self.flights.peek().map(|Reverse((at, ..))| *at),
                self.engines.iter().filter_map(Engine::timeout).min(),
                self.clients.iter().filter_map(|client| client.timeout).min(),
            ];
            let next = next.into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
        self.settle();
    }

    fn turn(&mut self) {
        let now = self.now;
        while self.flights.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, from, to, mut bytes))) = self.flights.pop() else { break };
            self.deliver(from, to, &mut bytes);
        }
        for engine in &mut self.engines {
            if engine.timeout().is_some_and(|at| at <= now) {
                engine.handle_timeout(now);
            }
        }
        for client in &mut self.clients {
            if client.timeout.is_some_and(|at| at <= now) {
                client.drive(now);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]) {
        if let Some(shard) = (0..self.engines.len()).find(|&n| shard_address(n) == to) {
            let shard = (self.steers)(shard, from);
            self.engines[shard].handle_datagram(from, to, bytes, self.now);
        }
        let now = self.now;
        if let Some(client) = self.clients.iter_mut().find(|client| client.address == to) {
            client.receive(from, bytes, now);
        }
    }

    /// Moves mail, answers and datagrams until nothing moves any more.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for n in 0..self.engines.len() {
                let mail: Vec<_> = self.engines[n].poll_mail().collect();
                moved |= !mail.is_empty();
                for (shard, mail) in mail {
                    self.engines[shard.index()].handle_mail(ShardId(n as u8), mail, self.now);
                }
                self.answers.extend(self.engines[n].poll_answers());
                moved |= self.flush(n);
            }
            for n in 0..self.clients.len() {
                let from = self.clients[n].address;
                for (to, bytes) in std::mem::take(&mut self.clients[n].outgoing) {
                    self.send(from, to, bytes);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the world does not settle");
    }

    fn flush(&mut self, n: usize) -> bool {
        let mut any = false;
        loop {
            let progress = self.engines[n].spread(&mut self.outbox, self.now);
            let sends: Vec<_> = self
                .outbox
                .sends()
                .flat_map(|send| send.datagrams().map(move |d| (send.to, d.to_vec())))
                .collect();
            self.outbox.clear();
            any |= !sends.is_empty();
            for (to, bytes) in sends {
                self.send(to.local, to.remote, bytes);
            }
            if progress == Progress::Done {
                return any;
            }
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.count += 1;
        if !(self.loses)(self.count, from, to, &bytes) {
            self.flights.push(Reverse((self.now + self.delay, self.count, from, to, bytes)));
        }
    }
}

pub fn local(name: &str, mid: &str) -> TrackObject {
    TrackObject {
        location: Some(Location::Local),
        mid: Some(mid.into()),
        track_name: Some(name.into()),
        ..TrackObject::default()
    }
}

pub fn remote(publisher: SessionId, name: &str) -> TrackObject {
    TrackObject {
        location: Some(Location::Remote),
        session_id: Some(publisher.to_string()),
        track_name: Some(name.into()),
        ..TrackObject::default()
    }
}

/// A fast generator with a seed; unpredictable enough for a test.
fn random(seed: u64) -> Box<dyn FnMut() -> u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
