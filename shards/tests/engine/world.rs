//! The world: engines, clients, and a network between them, on one virtual clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shards::command::{
    Answer, Ask, CloseRequest, Command, Description, Location, Reply, SdpKind, SessionInfo,
    TrackObject, TracksReply, TracksRequest,
};
use shards::engine::{Engine, EngineConfig, Progress};
use shards::ids::{AppId, NodeId, SessionId, ShardId};
use shards::mail::{Mail, Nodes, Ticket};
use shards::outbox::Outbox;
use shards::session::keys;
use str0m::config::DtlsCert;
use str0m::media::{Direction, MediaKind};

use crate::client::{Abilities, Client, Source};
use crate::hub::{self, Hub, node_id};

pub(crate) const APP: AppId = AppId(0);

/// How often a flow sends.
pub(crate) const FRAME: Duration = Duration::from_millis(20);

type Flight = Reverse<(Instant, u64, SocketAddr, SocketAddr, Vec<u8>)>;

/// What becomes of a datagram: one extra delay for each copy that arrives. Given how many were
/// sent before, from, to, and the bytes.
pub(crate) type Network = Box<dyn FnMut(u64, SocketAddr, SocketAddr, &[u8]) -> Vec<Duration>>;

/// A source that sends a frame every [`FRAME`].
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) client: usize,
    pub(crate) source: Source,
    pub(crate) track: u32,
    /// Bytes of a frame.
    pub(crate) len: usize,
    pub(crate) paused: bool,
    next: Instant,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) engines: Vec<Engine>,
    pub(crate) clients: Vec<Client>,
    pub(crate) answers: Vec<(Ticket, Answer)>,
    pub(crate) network: Network,
    /// Which shard a datagram from this source to this shard's address reaches.
    pub(crate) steers: Box<dyn FnMut(usize, SocketAddr) -> usize>,
    pub(crate) delay: Duration,
    pub(crate) flows: Vec<Flow>,
    /// Batches of media mailed, by (from, to).
    pub(crate) media_mail: BTreeMap<(usize, usize), usize>,
    /// Timeouts handled, by shard.
    pub(crate) timeouts: Vec<usize>,
    outbox: Outbox,
    flights: BinaryHeap<Flight>,
    count: u64,
    tickets: u64,
    shards: usize,
    pub(crate) hub: Hub,
}

/// Where shard `n` listens.
pub(crate) fn shard_address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 3478 + n as u16))
}

impl World {
    pub(crate) fn new(shards: usize) -> Self {
        Self::of_nodes(1, shards)
    }

    /// Several nodes, which all know each other. Their shards are counted through.
    pub(crate) fn of_nodes(nodes: usize, shards: usize) -> Self {
        let now = start();
        let cert: DtlsCert =
            keys::provider().dtls_provider.generate_certificate().expect("a certificate");
        let engine = |n: usize| {
            let config = EngineConfig {
                node: node_id(n / shards),
                shard: ShardId((n % shards) as u8),
                shards,
                cert: cert.clone(),
                candidates: [shard_address(n)].into(),
            };
            let mut engine = Engine::new(config, now, random(n as u64 + 1));
            if nodes > 1 {
                let own = node_id(n / shards);
                let others = (0..nodes).map(node_id).filter(|node| *node != own).collect();
                engine.join(["app".to_owned()].into(), hub::address(n / shards));
                engine.handle_mail(ShardId(0), Mail::Nodes(Nodes { own, others }.into()), now);
            }
            engine
        };
        Self {
            now,
            shards,
            hub: Hub::new(nodes),
            engines: (0..nodes * shards).map(engine).collect(),
            clients: Vec::new(),
            answers: Vec::new(),
            network: Box::new(|_, _, _, _| vec![Duration::ZERO]),
            steers: Box::new(|shard, _| shard),
            delay: Duration::from_millis(10),
            flows: Vec::new(),
            media_mail: BTreeMap::new(),
            timeouts: vec![0; nodes * shards],
            outbox: Outbox::new(64 * 1024),
            flights: BinaryHeap::new(),
            count: 0,
            tickets: 0,
        }
    }

    pub(crate) fn add_client(&mut self) -> usize {
        self.add_client_with(Abilities::default())
    }

    pub(crate) fn add_client_with(&mut self, abilities: Abilities) -> usize {
        let n = self.clients.len();
        let address = SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 5000));
        self.clients.push(Client::new(address, abilities, self.now));
        n
    }

    /// Gives a command to a shard's API; the answer comes later.
    pub(crate) fn tell(&mut self, shard: usize, ask: Ask) -> Ticket {
        self.tell_as(APP, shard, ask)
    }

    pub(crate) fn tell_as(&mut self, app: AppId, shard: usize, ask: Ask) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket { shard: ShardId((shard % self.shards) as u8), number: self.tickets };
        let owner = ask.session().map_or(shard, |session| self.engine_of(session));
        let command = Command { app, ask };
        self.engines[owner].handle_command(ticket, command, self.now);
        self.settle();
        ticket
    }

    /// Membership of this node's says that no other is up.
    pub(crate) fn forget_others(&mut self, node: usize) {
        self.tell_nodes(node, Vec::new());
    }

    /// Membership of this node's says that all are up.
    pub(crate) fn know_others(&mut self, node: usize) {
        let nodes = (0..self.engines.len() / self.shards).filter(|other| *other != node);
        self.tell_nodes(node, nodes.map(node_id).collect());
    }

    fn tell_nodes(&mut self, node: usize, others: Vec<NodeId>) {
        let nodes = std::sync::Arc::new(Nodes { own: node_id(node), others });
        for engine in &mut self.engines[node * self.shards..][..self.shards] {
            engine.handle_mail(ShardId(0), Mail::Nodes(nodes.clone()), self.now);
        }
        self.settle();
    }

    pub(crate) fn engine_of(&self, session: SessionId) -> usize {
        (session.node().0 as usize - 1) * self.shards + session.shard().index()
    }

    pub(crate) fn answer_to(&mut self, ticket: Ticket) -> Option<Answer> {
        let at = self.answers.iter().position(|(other, _)| *other == ticket)?;
        Some(self.answers.remove(at).1)
    }

    /// Gives a command and runs the world until it is answered.
    pub(crate) fn ask(&mut self, shard: usize, ask: Ask) -> Answer {
        let ticket = self.tell(shard, ask);
        self.wait_for(ticket)
    }

    pub(crate) fn ask_as(&mut self, app: AppId, shard: usize, ask: Ask) -> Answer {
        let ticket = self.tell_as(app, shard, ask);
        self.wait_for(ticket)
    }

    pub(crate) fn wait_for(&mut self, ticket: Ticket) -> Answer {
        for _ in 0..2000 {
            if let Some(answer) = self.answer_to(ticket) {
                return answer;
            }
            self.run(Duration::from_millis(10));
        }
        panic!("no answer in 20 s");
    }

    pub(crate) fn create(&mut self, shard: usize) -> SessionId {
        match self.ask(shard, Ask::Create { offer: None }) {
            Ok(Reply::Created { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn new_tracks(&mut self, session: SessionId, request: TracksRequest) -> Answer {
        self.ask(self.engine_of(session), Ask::NewTracks { session, request })
    }

    pub(crate) fn tracks(&mut self, session: SessionId, request: TracksRequest) -> TracksReply {
        tracks_of(self.new_tracks(session, request))
    }

    pub(crate) fn update(&mut self, session: SessionId, tracks: Vec<TrackObject>) -> TracksReply {
        tracks_of(self.ask(0, Ask::UpdateTracks { session, tracks }))
    }

    pub(crate) fn close(
        &mut self,
        session: SessionId,
        mids: &[&str],
        offer: Option<String>,
    ) -> TracksReply {
        let mids = mids.iter().map(|mid| (*mid).to_owned()).collect();
        let request = CloseRequest { mids, force: offer.is_none(), offer: offer.map(offer_of) };
        tracks_of(self.ask(0, Ask::CloseTracks { session, request }))
    }

    pub(crate) fn describe(&mut self, session: SessionId) -> SessionInfo {
        match self.ask(0, Ask::Describe { session }) {
            Ok(Reply::Described(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn delete(&mut self, session: SessionId) {
        assert_eq!(self.ask(0, Ask::Delete { session }), Ok(Reply::Deleted));
    }

    /// Case A: the client pushes; the tracks are named as given.
    pub(crate) fn push(
        &mut self,
        client: usize,
        session: SessionId,
        names: &[(&str, MediaKind)],
    ) -> Vec<String> {
        let kinds: Vec<MediaKind> = names.iter().map(|(_, kind)| *kind).collect();
        let (sdp, mids) = self.clients[client].offer(&kinds, Direction::SendOnly);
        let tracks = names.iter().zip(&mids).map(|((name, _), mid)| local(name, mid)).collect();
        self.push_offered(client, session, sdp, tracks);
        mids
    }

    /// One video track with layers; returns its mid.
    pub(crate) fn push_layers(
        &mut self,
        client: usize,
        session: SessionId,
        name: &str,
        rids: &[&str],
    ) -> String {
        let (sdp, mid) = self.clients[client].offer_layers(rids);
        self.push_offered(client, session, sdp, vec![local(name, &mid)]);
        mid
    }

    pub(crate) fn push_offered(
        &mut self,
        client: usize,
        session: SessionId,
        sdp: String,
        tracks: Vec<TrackObject>,
    ) {
        let offer = Some(offer_of(sdp));
        let reply = self.tracks(session, TracksRequest { offer, tracks, auto_discover: false });
        assert!(!reply.requires_immediate_renegotiation);
        assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{:?}", reply.tracks);
        self.clients[client].accept_answer(&reply.description.unwrap().sdp);
    }

    /// Case D: the client pulls; returns the mids.
    pub(crate) fn pull(
        &mut self,
        client: usize,
        session: SessionId,
        tracks: &[(SessionId, &str)],
    ) -> Vec<String> {
        let tracks = tracks.iter().map(|(publisher, name)| remote(*publisher, name)).collect();
        let reply = self.tracks(session, pulling(tracks));
        assert!(reply.requires_immediate_renegotiation, "{reply:?}");
        self.answer_offer(client, session, &reply.description.unwrap().sdp);
        reply.tracks.into_iter().map(|track| track.mid).collect()
    }

    pub(crate) fn answer_offer(&mut self, client: usize, session: SessionId, sdp: &str) {
        let sdp = self.clients[client].accept_offer(sdp);
        let description = Description { kind: SdpKind::Answer, sdp };
        let answer = self.ask(0, Ask::Renegotiate { session, description });
        assert_eq!(answer, Ok(Reply::Renegotiated { answer: None }));
    }

    /// The client offers anew, for no tracks in particular.
    pub(crate) fn renegotiate(&mut self, client: usize, session: SessionId, sdp: String) {
        match self.ask(0, Ask::Renegotiate { session, description: offer_of(sdp) }) {
            Ok(Reply::Renegotiated { answer: Some(answer) }) => {
                self.clients[client].accept_answer(&answer.sdp);
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn connect(&mut self, client: usize) {
        for _ in 0..500 {
            if self.clients[client].connected {
                // The client's last flight is still under way.
                return self.run(self.delay * 2);
            }
            self.run(Duration::from_millis(10));
        }
        panic!("client {client} did not connect");
    }

    /// A publisher on `shard` that is connected and sends each of the tracks, numbered from 1;
    /// returns its client, session and mids.
    pub(crate) fn publisher(
        &mut self,
        shard: usize,
        names: &[(&str, MediaKind)],
    ) -> (usize, SessionId, Vec<String>) {
        let (client, session) = (self.add_client(), self.create(shard));
        let mids = self.push(client, session, names);
        for (at, mid) in mids.iter().enumerate() {
            self.flow(client, mid, at as u32 + 1);
        }
        self.connect(client);
        self.run(FRAME * 2);
        (client, session, mids)
    }

    /// A connected session that pulls; returns its client, session and mids.
    pub(crate) fn viewer(
        &mut self,
        shard: usize,
        tracks: &[(SessionId, &str)],
    ) -> (usize, SessionId, Vec<String>) {
        let (client, session) = (self.add_client(), self.create(shard));
        let mids = self.pull(client, session, tracks);
        self.connect(client);
        (client, session, mids)
    }

    /// From now on the client sends on this transceiver; returns the number of the flow.
    pub(crate) fn flow(&mut self, client: usize, mid: &str, track: u32) -> usize {
        self.flow_of(client, Source { mid: mid.to_owned(), rid: None }, track, 100)
    }

    pub(crate) fn flow_of(
        &mut self,
        client: usize,
        source: Source,
        track: u32,
        len: usize,
    ) -> usize {
        self.clients[client].owed.insert(source.clone());
        self.flows.push(Flow { client, source, track, len, paused: false, next: self.now });
        self.flows.len() - 1
    }

    /// Lets virtual time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut stalled = 0;
        loop {
            self.settle();
            let next = [
                self.flights.peek().map(|Reverse((at, ..))| *at),
                self.engines.iter().filter_map(Engine::timeout).min(),
                self.clients.iter().filter_map(|client| client.timeout).min(),
                self.flows.iter().filter(|flow| !flow.paused).map(|flow| flow.next).min(),
            ];
            let next = next.into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            stalled = if next > self.now { 0 } else { stalled + 1 };
            assert!(stalled < 10_000, "the world turns without time passing");
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
        self.settle();
    }

    /// Runs until `done`; panics if it takes longer than `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "it did not happen within {limit:?}");
            self.run(Duration::from_millis(1));
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        while self.flights.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((_, _, from, to, mut bytes))) = self.flights.pop() else { break };
            self.deliver(from, to, &mut bytes);
        }
        for (n, engine) in self.engines.iter_mut().enumerate() {
            if engine.timeout().is_some_and(|at| at <= now) {
                engine.handle_timeout(now);
                self.timeouts[n] += 1;
            }
        }
        for client in &mut self.clients {
            if client.timeout.is_some_and(|at| at <= now) {
                client.drive(now);
            }
        }
        for at in 0..self.flows.len() {
            if !self.flows[at].paused && self.flows[at].next <= now {
                self.flows[at].next = now + FRAME;
                self.send_frame(at);
            }
        }
    }

    /// Sends the next frame of a flow now.
    pub(crate) fn send_frame(&mut self, flow: usize) {
        let Flow { client, source, track, len, .. } = self.flows[flow].clone();
        let client = &mut self.clients[client];
        if client.connected {
            let keyframe = client.owed.remove(&source);
            client.send(&source, track, len, keyframe, self.now);
        }
    }

    /// A datagram arrives.
    pub(crate) fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]) {
        if let Some(shard) = (0..self.engines.len()).find(|&n| shard_address(n) == to) {
            let shard = (self.steers)(shard, from);
            self.engines[shard].handle_datagram(from, to, bytes, self.now);
        }
        if let Some(node) = hub::node_at(to) {
            let shard = node * self.shards + usize::from(bytes[1]);
            self.engines[shard].handle_link(from, bytes, self.now);
        }
        let now = self.now;
        if let Some(client) = self.clients.iter_mut().find(|client| client.external == to) {
            client.receive(from, bytes, now);
        }
    }

    /// Moves mail, answers and datagrams until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for n in 0..self.engines.len() {
                let mail: Vec<_> = self.engines[n].poll_mail().collect();
                moved |= !mail.is_empty();
                let from = ShardId((n % self.shards) as u8);
                for (shard, mail) in mail {
                    let Some(mail) = self.hub.take(n, self.shards, mail) else { continue };
                    let to = n / self.shards * self.shards + shard.index();
                    if matches!(mail, Mail::Media { .. }) {
                        *self.media_mail.entry((n, to)).or_default() += 1;
                    }
                    self.engines[to].handle_mail(from, mail, self.now);
                }
                for (to, mail) in self.hub.poll(self.shards) {
                    self.engines[to].handle_mail(ShardId(0), mail, self.now);
                    moved = true;
                }
                self.answers.extend(self.engines[n].poll_answers());
                moved |= self.flush(n);
            }
            for n in 0..self.clients.len() {
                let from = self.clients[n].external;
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
            let links = self.engines[n].links_outbox();
            let datagrams = |send: shards::outbox::Send<'_>| {
                let all = send.datagrams().map(|d| (send.to, d.to_vec()));
                all.collect::<Vec<_>>()
            };
            let linked: Vec<_> = links.sends().flat_map(datagrams).collect();
            links.clear();
            let sends: Vec<_> = sends.into_iter().chain(linked).collect();
            assert!(progress == Progress::Done || !sends.is_empty(), "more of nothing");
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
        for extra in (self.network)(self.count, from, to, &bytes) {
            let at = self.now + self.delay + extra;
            self.flights.push(Reverse((at, self.count, from, to, bytes.clone())));
        }
    }
}

/// Loses this share of what `matches`, at random.
pub(crate) fn lossy(
    percent: u64,
    mut matches: impl FnMut(SocketAddr, SocketAddr) -> bool + 'static,
) -> Network {
    let mut random = random(99);
    Box::new(move |_, from, to, _| {
        let lost = matches(from, to) && random() % 100 < percent;
        if lost { vec![] } else { vec![Duration::ZERO] }
    })
}

pub(crate) fn tracks_of(answer: Answer) -> TracksReply {
    match answer {
        Ok(Reply::Tracks(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn offer_of(sdp: String) -> Description {
    Description { kind: SdpKind::Offer, sdp }
}

pub(crate) fn pulling(tracks: Vec<TrackObject>) -> TracksRequest {
    TracksRequest { tracks, ..TracksRequest::default() }
}

pub(crate) fn local(name: &str, mid: &str) -> TrackObject {
    TrackObject {
        location: Some(Location::Local),
        mid: Some(mid.into()),
        track_name: Some(name.into()),
        ..TrackObject::default()
    }
}

pub(crate) fn remote(publisher: SessionId, name: &str) -> TrackObject {
    TrackObject {
        location: Some(Location::Remote),
        session_id: Some(publisher.to_string()),
        track_name: Some(name.into()),
        ..TrackObject::default()
    }
}

/// The same, for a transceiver that is there already.
pub(crate) fn remote_on(mid: &str, publisher: SessionId, name: &str) -> TrackObject {
    TrackObject { mid: Some(mid.into()), ..remote(publisher, name) }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[expect(clippy::disallowed_methods, reason = "virtual time must begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// A fast generator with a seed; unpredictable enough for a test.
pub(crate) fn random(seed: u64) -> Box<dyn FnMut() -> u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}
