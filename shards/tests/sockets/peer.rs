//! Clients on sockets of their own, and what they do with a node, step by step, in real time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use shards::command::{
    Answer, Ask, Description, Location, Reply, SdpKind, TrackObject, TracksReply, TracksRequest,
};
use shards::ids::SessionId;
use shards::io::clock;
use shards::io::port::PortKind;
use str0m::media::{Direction, MediaKind};

use crate::client::{Abilities, Client, Source};
use crate::node::{Layout, Node};

pub(crate) const FRAME: Duration = Duration::from_millis(20);

/// Longer than anything takes on a busy machine, lost datagrams and their timers included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A client, its socket, and what it sends.
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) socket: UdpSocket,
    pub(crate) flows: Vec<Flow>,
    /// Sends the first DTLS message in two fragments, as browsers with post-quantum keys do.
    pub(crate) splits_hello: bool,
    /// First messages that were split.
    pub(crate) split: usize,
    /// The DTLS record number, as far as records are readable to us.
    record: u64,
}

pub(crate) struct Flow {
    pub(crate) source: Source,
    pub(crate) track: u32,
    pub(crate) len: usize,
    next: Instant,
}

/// A node and its clients.
pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) peers: Vec<Peer>,
}

impl Stage {
    pub(crate) fn new(layout: Layout, kind: PortKind) -> Self {
        Self { node: Node::start(2, layout, kind), peers: Vec::new() }
    }

    pub(crate) fn add_peer(&mut self) -> usize {
        self.peers.push(Peer::new());
        self.peers.len() - 1
    }

    /// A session on this very shard.
    pub(crate) fn create(&mut self, shard: usize) -> SessionId {
        // Placed by load: the misfits stay until one fits.
        let mut misfits = Vec::new();
        let session = loop {
            assert!(misfits.len() < 100, "shard {shard} gets no session");
            match self.ask(misfits.len() % self.node.shards(), Ask::Create { offer: None }) {
                Ok(Reply::Created { session, .. }) if session.shard().index() == shard => {
                    break session;
                }
                Ok(Reply::Created { session, .. }) => misfits.push(session),
                other => panic!("{other:?}"),
            }
        };
        for session in misfits {
            assert_eq!(self.ask(shard, Ask::Delete { session }), Ok(Reply::Deleted));
        }
        session
    }

    /// Asks through a shard's API and lets the clients live until the answer comes.
    pub(crate) fn ask(&mut self, shard: usize, ask: Ask) -> Answer {
        let answer = self.node.ask(shard, ask);
        let end = clock::now() + PATIENCE;
        loop {
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Empty) => assert!(clock::now() < end, "no answer"),
                Err(TryRecvError::Disconnected) => panic!("the shard is gone"),
            }
            self.turn();
        }
    }

    fn tracks(&mut self, session: SessionId, request: TracksRequest) -> TracksReply {
        // Of the API's shards, the one that the session is not on: commands travel too.
        let other = (session.shard().index() + 1) % self.node.shards();
        match self.ask(other, Ask::NewTracks { session, request }) {
            Ok(Reply::Tracks(reply)) => {
                assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{reply:?}");
                reply
            }
            other => panic!("{other:?}"),
        }
    }

    /// Case A: a connected publisher of these tracks, numbered from 1, on `shard`.
    pub(crate) fn publisher(
        &mut self,
        shard: usize,
        names: &[(&str, MediaKind)],
    ) -> (usize, SessionId) {
        let (peer, session) = (self.add_peer(), self.create(shard));
        self.publish(peer, session, names);
        (peer, session)
    }

    pub(crate) fn publish(&mut self, peer: usize, session: SessionId, names: &[(&str, MediaKind)]) {
        let kinds: Vec<MediaKind> = names.iter().map(|(_, kind)| *kind).collect();
        let (sdp, mids) = self.peers[peer].client.offer(&kinds, Direction::SendOnly);
        let local = |((name, _), mid): (&(&str, MediaKind), &String)| TrackObject {
            location: Some(Location::Local),
            mid: Some(mid.clone()),
            track_name: Some((*name).to_owned()),
            ..TrackObject::default()
        };
        let tracks = names.iter().zip(&mids).map(local).collect();
        let offer = Some(Description { kind: SdpKind::Offer, sdp });
        let reply = self.tracks(session, TracksRequest { offer, tracks, auto_discover: false });
        let peer_now = &mut self.peers[peer];
        peer_now.client.accept_answer(&reply.description.expect("an answer").sdp);
        for (at, mid) in mids.iter().enumerate() {
            let source = Source { mid: mid.clone(), rid: None };
            peer_now.client.owed.insert(source.clone());
            let (track, next) = (at as u32 + 1, clock::now());
            peer_now.flows.push(Flow { source, track, len: 300, next });
        }
        self.until("the publisher connects", |stage| stage.peers[peer].client.connected);
    }

    /// Case D: a connected subscriber on `shard` that pulls these tracks of `publisher`.
    pub(crate) fn viewer(
        &mut self,
        shard: usize,
        publisher: SessionId,
        names: &[&str],
    ) -> (usize, SessionId) {
        let (peer, session) = (self.add_peer(), self.create(shard));
        let remote = |name: &&str| TrackObject {
            location: Some(Location::Remote),
            session_id: Some(publisher.to_string()),
            track_name: Some((*name).to_owned()),
            ..TrackObject::default()
        };
        let tracks = names.iter().map(remote).collect();
        let reply = self.tracks(session, TracksRequest { tracks, ..TracksRequest::default() });
        let offer = reply.description.expect("an offer").sdp;
        let sdp = self.peers[peer].client.accept_offer(&offer);
        let description = Description { kind: SdpKind::Answer, sdp };
        let answer = self.ask(shard, Ask::Renegotiate { session, description });
        assert_eq!(answer, Ok(Reply::Renegotiated { answer: None }));
        self.until("the viewer connects", |stage| stage.peers[peer].client.connected);
        (peer, session)
    }

    /// Runs until `done`.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = clock::now() + PATIENCE;
        while !done(self) {
            assert!(clock::now() < end, "in vain: {what}");
            self.turn();
        }
    }

    /// Runs until the viewer has `count` more packets of each of these tracks.
    pub(crate) fn watch(&mut self, viewer: usize, tracks: &[u32], count: usize) {
        let have = |stage: &Self, track: u32| {
            let got = &stage.peers[viewer].client.got;
            got.iter().filter(|got| got.stamp().track == track).count()
        };
        let had: Vec<usize> = tracks.iter().map(|&track| have(self, track)).collect();
        self.until("media arrives", |stage| {
            tracks.iter().zip(&had).all(|(&track, had)| have(stage, track) >= had + count)
        });
    }

    /// One turn of all clients; waits a little when there is nothing to do.
    fn turn(&mut self) {
        let mut busy = false;
        for peer in &mut self.peers {
            busy |= peer.turn();
        }
        if !busy {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Peer {
    fn new() -> Self {
        let socket = open();
        let address = socket.local_addr().expect("bound");
        Self {
            client: Client::new(address, Abilities::default(), clock::now()),
            socket,
            flows: Vec::new(),
            splits_hello: false,
            split: 0,
            record: 0,
        }
    }

    /// Goes on from another address, as behind a NAT that rebinds: it does not know itself.
    pub(crate) fn rebind(&mut self) -> (SocketAddr, SocketAddr) {
        let old = std::mem::replace(&mut self.socket, open());
        let at = |socket: &UdpSocket| socket.local_addr().expect("bound");
        (at(&old), at(&self.socket))
    }

    fn turn(&mut self) -> bool {
        let mut busy = false;
        let mut bytes = [0; 2048];
        while let Ok((len, source)) = self.socket.recv_from(&mut bytes) {
            self.client.receive(source, &bytes[..len], clock::now());
            busy = true;
        }
        let now = clock::now();
        if self.client.timeout.is_some_and(|at| at <= now) {
            self.client.drive(now);
        }
        for flow in &mut self.flows {
            if self.client.connected && flow.next <= now {
                flow.next = now + FRAME;
                let keyframe = self.client.owed.remove(&flow.source);
                self.client.send(&flow.source, flow.track, flow.len, keyframe, now);
            }
        }
        for (to, bytes) in std::mem::take(&mut self.client.outgoing) {
            busy = true;
            for bytes in self.records(bytes) {
                // A full buffer or a closed port is loss.
                let _ = self.socket.send_to(&bytes, to);
            }
        }
        busy
    }

    /// Cuts a ClientHello in two, each half in a datagram of its own, and numbers the records
    /// anew. What is encrypted stays as it is.
    fn records(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if !self.splits_hello || !matches!(bytes.first(), Some(20..=63)) {
            return vec![bytes];
        }
        let is_hello = bytes[0] == 22 && bytes[3..5] == [0, 0] && bytes[RECORD] == 1;
        if is_hello {
            let body = bytes.split_off(RECORD + HANDSHAKE);
            let middle = body.len() / 2;
            self.split += 1;
            let part = |from: usize, part: &[u8], number: u64| {
                let mut head = bytes.clone();
                head[5..11].copy_from_slice(&number.to_be_bytes()[2..]);
                head[11..13].copy_from_slice(&((part.len() + HANDSHAKE) as u16).to_be_bytes());
                head[19..22].copy_from_slice(&(from as u32).to_be_bytes()[1..]);
                head[22..25].copy_from_slice(&(part.len() as u32).to_be_bytes()[1..]);
                [&head, part].concat()
            };
            self.record += 2;
            return vec![
                part(0, &body[..middle], self.record - 2),
                part(middle, &body[middle..], self.record - 1),
            ];
        }
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + RECORD).filter(|head| head[3..5] == [0, 0]) {
            let len = usize::from(u16::from_be_bytes([head[11], head[12]]));
            bytes[at + 5..at + 11].copy_from_slice(&self.record.to_be_bytes()[2..]);
            self.record += 1;
            at += RECORD + len;
        }
        vec![bytes]
    }
}

/// Type, version, epoch, number, length (RFC 6347, 4.1).
const RECORD: usize = 13;
/// Type, length, message number, offset and length of the fragment (RFC 6347, 4.2.2).
const HANDSHAKE: usize = 12;

fn open() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// Whether none is missing in between.
pub(crate) fn consecutive(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}
