//! What is done about connections and peers when something happened to them.
//!
//! Invariants: a connection is out of the table while it is pumped, and back in it afterwards
//! unless it is drained; whatever ends a connection that was up is one `Broken`.
//!
//! Not here: calls of others (`incoming`); which of two survives (`duel`).

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ConnectionError, ConnectionHandle, Event, StreamEvent, VarInt};
use rand::RngExt;

use super::conn::{Conn, Note, STREAMS, Stage};
use super::deadlines::Key;
use super::duel::{Has, Verdict, judge};
use super::frames::frame;
use super::hello::{Hello, Versions};
use super::peer::{GIVE_UP, PeerInfo, UNUSED, VERSION_PAUSE};
use super::{
    Broken, Code, Control, ControlEvent, ControlFault, DUEL_PAUSE, EVENTS_MAX, HANDSHAKE_MAX, tls,
};
use crate::members::NodeId;

impl Control {
    /// Carries on with a connection until it has nothing more to do.
    pub(super) fn pump(&mut self, now: Instant, handle: usize) {
        let Some(mut conn) = self.conns.remove(&handle) else { return };
        self.read_all(now, handle, &mut conn);
        loop {
            let mut progress = false;
            while let Some(event) = conn.quic.poll_endpoint_events() {
                let endpoint = &mut self.quic.endpoint;
                if let Some(event) = endpoint.handle_event(ConnectionHandle(handle), event) {
                    conn.quic.handle_event(event);
                }
                progress = true;
            }
            while let Some(event) = conn.quic.poll() {
                self.on_event(now, handle, &mut conn, event);
                progress = true;
            }
            let peer = conn.node.and_then(|node| self.peers.get_mut(&node));
            let own = peer.filter(|peer| peer.up == Some(handle));
            conn.flush(own.map(|peer| &mut peer.queue));
            let mut bytes = Vec::new();
            while let Some(transmit) = conn.quic.poll_transmit(now, SEGMENTS_MAX, &mut bytes) {
                self.push_transmit(&transmit, std::mem::take(&mut bytes));
                progress = true;
            }
            if !progress {
                break;
            }
        }
        self.note_mtu(&mut conn);
        if conn.quic.is_drained() {
            self.deadlines.set(Key::Conn(handle), &mut conn.deadline, None);
            self.unread.remove(&handle);
            return;
        }
        let give_up = (conn.stage == Stage::Shaking).then_some(conn.give_up);
        let due = conn.quic.poll_timeout().into_iter().chain(give_up).min();
        self.deadlines.set(Key::Conn(handle), &mut conn.deadline, due);
        let node = conn.node;
        self.conns.insert(handle, conn);
        if let Some(node) = node {
            self.set_peer_deadline(node);
        }
    }

    pub(super) fn handle_conn_timeout(&mut self, now: Instant, handle: usize) {
        let Some(conn) = self.conns.get_mut(&handle) else { return };
        conn.deadline = None;
        conn.quic.handle_timeout(now);
        if conn.stage == Stage::Shaking && now >= conn.give_up {
            self.faults.count(ControlFault::Late);
            self.close(now, handle, Code::Late, &[]);
        } else {
            self.pump(now, handle);
        }
    }

    /// Does what is due for a peer: calls it, closes what is unused, gives up.
    pub(super) fn attend(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.up.is_some() {
            if !peer.is_held() && now >= peer.used + UNUSED {
                self.hang_up(now, node, Broken::Unused);
            }
        } else if peer.waiting_since.is_some_and(|since| now >= since + GIVE_UP) {
            peer.waiting_since = None;
            peer.queue.clear();
            let why = Broken::Unreachable;
            self.events.push_back(ControlEvent::Broken { node, why });
        } else if peer.may_call(now) && !self.left {
            self.call(now, node);
        }
        if self.peers.get(&node).is_some_and(|peer| peer.is_forgettable()) {
            self.forget(now, node, Broken::Unreachable);
        }
        self.set_peer_deadline(node);
    }

    pub(super) fn set_peer_deadline(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            let due = peer.due();
            self.deadlines.set(Key::Peer(node), &mut peer.deadline, due);
        }
    }

    fn call(&mut self, now: Instant, node: NodeId) {
        let jitter = self.rng.random();
        let epoch = self.rng.random_range(1..=u64::MAX);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let client = self.quic.client.clone();
        let name = tls::SERVER_NAME;
        match self.quic.endpoint.connect(now, client, peer.address, name) {
            Ok((handle, quic)) => {
                peer.calls += 1;
                peer.calling = Some(handle.0);
                let mut conn = Conn::new(quic, true, now + HANDSHAKE_MAX);
                (conn.node, conn.epoch, conn.call) = (Some(node), epoch, peer.calls);
                self.conns.insert(handle.0, conn);
                self.pump(now, handle.0);
            }
            // Such an address can never be called; membership should not have it.
            Err(_) => peer.failed(now, jitter),
        }
    }

    fn on_event(&mut self, now: Instant, handle: usize, conn: &mut Conn, event: Event) {
        match event {
            Event::Connected => {
                if conn.outgoing && conn.stage == Stage::Shaking {
                    let node = conn.node.expect("we called somebody");
                    self.say_hello(conn, node);
                }
            }
            Event::Stream(StreamEvent::Opened { .. } | StreamEvent::Readable { .. }) => {
                conn.accept_streams();
                self.read_all(now, handle, conn);
            }
            Event::ConnectionLost { reason } => self.lost(now, handle, conn, &reason),
            Event::Stream(
                StreamEvent::Writable { .. }
                | StreamEvent::Finished { .. }
                | StreamEvent::Stopped { .. }
                | StreamEvent::Available { .. },
            )
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn say_hello(&mut self, conn: &mut Conn, to: NodeId) {
        let peer = self.peers.get(&to);
        let hello = Hello {
            node: self.own,
            to,
            epoch: conn.epoch,
            call: conn.call,
            known: peer.map_or(0, |peer| peer.last_epoch),
            caps: self.config.caps,
            shards: self.config.shards,
            links: self.config.links.clone(),
            link_id: peer.map_or(0, |peer| peer.link_id),
            draining: self.draining,
        };
        // If streams cannot be opened the other end says no hello either, and is given up.
        conn.greet(frame(&hello.write(self.config.versions)));
    }

    fn read_all(&mut self, now: Instant, handle: usize, conn: &mut Conn) {
        for at in 0..STREAMS {
            let room = EVENTS_MAX.saturating_sub(self.events.len());
            let read = conn.read(at, room);
            if read.stopped {
                self.unread.insert(handle);
            }
            for bytes in read.messages {
                match (Conn::class(at), conn.node) {
                    (Some(class), Some(node)) => {
                        if let Some(peer) = self.peers.get_mut(&node) {
                            peer.used = now;
                        }
                        self.events.push_back(ControlEvent::Message { node, class, bytes });
                    }
                    _ => self.take_hello(now, handle, conn, &bytes),
                }
            }
            if let Some(fault) = read.fault {
                self.misbehaved(now, handle, conn, fault);
            }
        }
    }

    fn take_hello(&mut self, now: Instant, handle: usize, conn: &mut Conn, bytes: &[u8]) {
        if conn.stage != Stage::Shaking {
            return self.take_note(conn, bytes);
        }
        let (theirs, hello) = match Hello::parse(bytes) {
            Ok(parsed) => parsed,
            Err(fault) => return self.misbehaved(now, handle, conn, fault),
        };
        if hello.node == self.own {
            self.faults.count(ControlFault::Reflected);
            return self.end(now, handle, conn, Code::Reflected, &[]);
        }
        let ours = self.config.versions;
        let Some(version) = ours.common(theirs) else {
            let node = hello.node;
            self.events.push_back(ControlEvent::VersionSkew { node, ours, theirs });
            self.skewed(now, node);
            return self.end(now, handle, conn, Code::Version, &ours.to_bytes());
        };
        if hello.to != self.own {
            return self.end(now, handle, conn, Code::WrongNode, &[]);
        }
        if conn.outgoing {
            // The answer repeats what we asked.
            if conn.node != Some(hello.node) || conn.epoch != hello.epoch {
                return self.misbehaved(now, handle, conn, ControlFault::Malformed);
            }
        } else {
            if !self.accepts(now, conn.quic.remote_address(), &hello) {
                return self.end(now, handle, conn, Code::Duplicate, &[]);
            }
            (conn.node, conn.epoch, conn.call) = (Some(hello.node), hello.epoch, hello.call);
            self.say_hello(conn, hello.node);
        }
        self.come_up(now, handle, conn, hello, version);
    }

    fn take_note(&mut self, conn: &Conn, note: &[u8]) {
        let peer = conn.node.and_then(|node| self.peers.get_mut(&node));
        if let (Some(peer), &[note]) = (peer, note) {
            if note == Note::Held as u8 {
                peer.held_there = true;
            } else if note == Note::Released as u8 {
                peer.held_there = false;
            }
        }
    }

    /// Whether a call is accepted; if so, what stood against it is no more.
    fn accepts(&mut self, now: Instant, from: SocketAddr, hello: &Hello) -> bool {
        let own = self.own;
        let Some(peer) = self.peer_entry(now, hello.node, from) else { return false };
        let has = match (&peer.info, peer.their_call, peer.calling) {
            (Some(_), Some(call), _) => Has::UpByThem { call },
            (Some(info), None, _) => Has::UpByUs { epoch: info.epoch },
            (None, _, Some(_)) => Has::Calling,
            (None, _, None) => Has::Nothing,
        };
        match judge(own, hello.node, has, hello.call, hello.known) {
            Verdict::Accept => true,
            Verdict::AcceptInstead => {
                if let Some(handle) = peer.calling.take() {
                    self.close(now, handle, Code::Duplicate, &[]);
                }
                self.peer_entry(now, hello.node, from).is_some()
            }
            Verdict::Replace => {
                self.hang_up(now, hello.node, Broken::Replaced);
                // One that is no member was forgotten with its connection.
                self.peer_entry(now, hello.node, from).is_some()
            }
            Verdict::Refuse => false,
        }
    }

    fn come_up(
        &mut self,
        now: Instant,
        handle: usize,
        conn: &mut Conn,
        hello: Hello,
        version: u16,
    ) {
        let node = hello.node;
        let secret = conn.secret();
        let Some(peer) = self.peers.get_mut(&node).filter(|_| secret.is_some()) else {
            return self.end(now, handle, conn, Code::WrongNode, &[]);
        };
        conn.stage = Stage::Up;
        if let Some(place) = conn.half_open.take() {
            self.half_open.remove(place);
        }
        peer.up = Some(handle);
        peer.calling = peer.calling.filter(|&calling| calling != handle);
        peer.their_call = (!conn.outgoing).then_some(conn.call);
        peer.last_epoch = conn.epoch;
        peer.secret = secret;
        peer.info = Some(PeerInfo {
            node,
            version,
            caps: hello.caps,
            shards: hello.shards,
            links: hello.links,
            link_id_there: hello.link_id,
            link_id_here: peer.link_id,
            draining: hello.draining,
            epoch: conn.epoch,
        });
        peer.used = now;
        peer.waiting_since = None;
        peer.succeeded();
        if peer.hold {
            conn.note(Note::Held);
        }
        self.events.push_back(ControlEvent::Connected(node));
        // Messages may have come before the hello did.
        conn.accept_streams();
    }

    fn misbehaved(&mut self, now: Instant, handle: usize, conn: &mut Conn, fault: ControlFault) {
        self.faults.count(fault);
        self.end(now, handle, conn, Code::Misbehaved, &[]);
    }

    /// Closes a connection that is in the table.
    pub(super) fn close(&mut self, now: Instant, handle: usize, code: Code, reason: &[u8]) {
        if let Some(mut conn) = self.conns.remove(&handle) {
            self.end(now, handle, &mut conn, code, reason);
            self.conns.insert(handle, conn);
            self.pump(now, handle);
        }
    }

    /// Closes a connection that is out of the table.
    fn end(&mut self, now: Instant, handle: usize, conn: &mut Conn, code: Code, reason: &[u8]) {
        if conn.stage == Stage::Closed {
            return;
        }
        let reason = Bytes::copy_from_slice(reason);
        conn.quic.close(now, VarInt::from_u32(code as u32), reason);
        let why = match code {
            Code::Unused => Broken::Unused,
            Code::Leave => Broken::Closed,
            Code::Duplicate => Broken::Replaced,
            Code::Version => Broken::Skewed,
            Code::WrongNode => Broken::Restarted,
            Code::Reflected | Code::Misbehaved => Broken::Misbehaved,
            Code::Late => Broken::Unreachable,
        };
        self.ended(now, handle, conn, why);
    }

    /// The other end, or the network, ended a connection.
    fn lost(&mut self, now: Instant, handle: usize, conn: &mut Conn, reason: &ConnectionError) {
        if conn.stage == Stage::Closed {
            return;
        }
        let is_code = |code: VarInt, of: Code| code == VarInt::from_u32(of as u32);
        let why = match reason {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code;
                if is_code(code, Code::Version) {
                    self.note_skew(now, conn, &close.reason);
                    Broken::Skewed
                } else if is_code(code, Code::Duplicate) {
                    Broken::Replaced
                } else if is_code(code, Code::WrongNode) {
                    Broken::Restarted
                } else {
                    Broken::Closed
                }
            }
            ConnectionError::TransportError(_)
            | ConnectionError::VersionMismatch
            | ConnectionError::ConnectionClosed(_) => {
                self.faults.count(ControlFault::Handshake);
                if conn.stage == Stage::Up { Broken::Misbehaved } else { Broken::Unreachable }
            }
            ConnectionError::Reset => Broken::Restarted,
            ConnectionError::TimedOut => Broken::Lost,
            ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => Broken::Closed,
        };
        self.ended(now, handle, conn, why);
    }

    /// Settles what a connection's end means for its peer.
    fn ended(&mut self, now: Instant, handle: usize, conn: &mut Conn, why: Broken) {
        conn.stage = Stage::Closed;
        self.unread.remove(&handle);
        if let Some(place) = conn.half_open.take() {
            self.half_open.remove(place);
        }
        let jitter = self.rng.random();
        let Some(node) = conn.node else { return };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.calling == Some(handle) {
            peer.calling = None;
            if why == Broken::Replaced {
                // Theirs comes up, or should.
                peer.pause(now + DUEL_PAUSE);
            } else if why != Broken::Skewed {
                peer.failed(now, jitter);
            }
        }
        if peer.up == Some(handle) {
            peer.go_down();
            peer.failed(now, jitter);
            self.events.push_back(ControlEvent::Broken { node, why });
        }
        self.set_peer_deadline(node);
        if self.peers.get(&node).is_some_and(|peer| peer.is_forgettable()) {
            self.forget(now, node, why);
        }
    }

    /// Closes what is up with a node, for this reason.
    pub(super) fn hang_up(&mut self, now: Instant, node: NodeId, why: Broken) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let calling = peer.calling.take();
        let up = peer.up;
        if up.is_some() {
            peer.go_down();
            self.events.push_back(ControlEvent::Broken { node, why });
        }
        let code = if why == Broken::Unused { Code::Unused } else { Code::Duplicate };
        for handle in up.into_iter().chain(calling) {
            self.close(now, handle, code, &[]);
        }
    }

    /// A node is no more.
    pub(super) fn forget(&mut self, now: Instant, node: NodeId, why: Broken) {
        let Some(mut peer) = self.peers.remove(&node) else { return };
        self.deadlines.set(Key::Peer(node), &mut peer.deadline, None);
        self.fresh.remove(&node);
        self.link_ids.remove(&peer.link_id);
        if self.addresses.get(&peer.address) == Some(&node) {
            self.addresses.remove(&peer.address);
        }
        if peer.up.is_some() || !peer.queue.is_empty() {
            self.events.push_back(ControlEvent::Broken { node, why });
        }
        for handle in peer.up.into_iter().chain(peer.calling) {
            self.close(now, handle, Code::Duplicate, &[]);
        }
    }

    fn note_skew(&mut self, now: Instant, conn: &Conn, reason: &[u8]) {
        let (Some(node), Some(theirs)) = (conn.node, Versions::parse(reason)) else { return };
        let ours = self.config.versions;
        self.events.push_back(ControlEvent::VersionSkew { node, ours, theirs });
        self.skewed(now, node);
    }

    /// No call will do until one of the two was updated.
    fn skewed(&mut self, now: Instant, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.pause(now + VERSION_PAUSE);
        if !peer.queue.is_empty() {
            peer.queue.clear();
            peer.waiting_since = None;
            self.events.push_back(ControlEvent::Broken { node, why: Broken::Skewed });
        }
    }

    fn note_mtu(&mut self, conn: &mut Conn) {
        let mtu = conn.quic.current_mtu();
        if let (Stage::Up, Some(node)) = (conn.stage, conn.node)
            && mtu != conn.mtu
        {
            conn.mtu = mtu;
            self.events.push_back(ControlEvent::Mtu { node, mtu });
        }
    }
}

/// Datagrams of one send: as many as pacing gives in a millisecond of a gigabit.
const SEGMENTS_MAX: usize = 10;
