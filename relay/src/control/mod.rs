//! Control connections: reliable messages between nodes, and the secret of their media links.
//!
//! One QUIC connection for each pair of nodes that has something to say, made on demand, closed
//! when unused for a minute. It gives three things: messages, the path's MTU and round trip, and
//! 32 secret bytes that both ends and nobody else have.
//!
//! **The contract of messages.** [`Control::send`] queues; messages of one [`Class`] arrive in
//! order and at most once, as long as there is no [`ControlEvent::Broken`]. That event says that
//! any message sent to the node before it may be lost, from the oldest that was not answered,
//! and that none of them will arrive any more. So: what is asked for by messages is soft state,
//! told again after the next [`ControlEvent::Connected`]; a request whose answer is missing when
//! `Broken` comes has failed, and may or may not have been executed. The secret and the link ids
//! go with the connection too. Messages sent after `Broken` belong to the next connection.
//!
//! Invariants: nothing is taken from who has not proven to hold a cluster key; queues, half-open
//! connections and peers are bounded; the outcome of two calls at once is the same at both ends.
//!
//! Not here: who is in the cluster (`members`); the media links.

mod conn;
mod deadlines;
mod duel;
mod fault;
mod frames;
mod half_open;
mod hello;
mod incoming;
mod peer;
mod queue;
mod quic;
mod tls;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::keys::ClusterKeys;
use crate::members::{NODES_MAX, NodeId};
use crate::seal::{End, LinkSecret, PairSecret};
use crate::wire::LinkId;
use conn::{Conn, Note, Stage};
use deadlines::{Deadlines, Key};
use half_open::HalfOpen;
use peer::Peer;
use quic::Quic;

pub use fault::{ControlFault, ControlFaults};
pub use frames::{Class, MESSAGE_MAX};
pub use hello::{VERSION, Versions};
pub use peer::PeerInfo;
pub use queue::{QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX};

/// Nodes that we have something with: the members, and those who know us before we know them.
pub const PEERS_MAX: usize = NODES_MAX + 100;

/// How a node takes part in control connections.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    pub keys: ClusterKeys,
    pub address: SocketAddr,
    pub versions: Versions,
    pub caps: u16,
    pub shards: u8,
    /// Where our shards' media links are reached, by shard; none if there are none.
    pub links: Vec<SocketAddr>,
}

/// Datagrams to one address, to be sent as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlDatagram {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    /// If there are several: how long each is, but the last, which may be shorter (as GSO).
    pub segment: Option<usize>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// A connection is up; [`Control::peer`] tells of it.
    Connected(NodeId),
    Message {
        node: NodeId,
        class: Class,
        bytes: Vec<u8>,
    },
    /// Datagrams to the node may now be of this size (UDP payload).
    Mtu {
        node: NodeId,
        mtu: u16,
    },
    /// See the contract above.
    Broken {
        node: NodeId,
        why: Broken,
    },
    /// The node speaks no version that we speak. One of the two must be updated.
    VersionSkew {
        node: NodeId,
        ours: Versions,
        theirs: Versions,
    },
}

/// Why there is no connection any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The other end closed it: unused, or leaving.
    Closed,
    /// Nothing was heard for too long.
    Lost,
    /// The other end sent what no node sends.
    Misbehaved,
    /// Another connection took its place, since one end had lost this one.
    Replaced,
    /// The other node runs anew.
    Restarted,
    /// Its version is not one that we speak.
    Skewed,
    /// It could not be reached, or went down before it was.
    Unreachable,
    /// We closed it: nobody used it.
    Unused,
}

/// A message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// More waits for that node than may.
    Full,
    /// We are leaving.
    Left,
    /// It is longer than [`MESSAGE_MAX`].
    TooLong,
    /// No such node is up.
    Unknown,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many messages wait for that node",
            Self::Left => "this node is leaving the cluster",
            Self::TooLong => "the message is longer than 256 KiB",
            Self::Unknown => "no such node is up",
        })
    }
}

impl std::error::Error for SendError {}

/// The control connections of one node. After each `handle_*` and each verb, drain both
/// `poll_*` and set a timer for [`Self::timeout`].
pub struct Control {
    own: NodeId,
    config: ControlConfig,
    draining: bool,
    left: bool,
    quic: Quic,
    conns: BTreeMap<usize, Conn>,
    peers: BTreeMap<NodeId, Peer>,
    /// Where members are.
    addresses: BTreeMap<SocketAddr, NodeId>,
    deadlines: Deadlines,
    half_open: HalfOpen,
    link_ids: BTreeSet<u32>,
    last_link_id: u32,
    rng: StdRng,
    started: Instant,
    now: Instant,
    /// Peers that were sent something since the last transmit.
    fresh: BTreeSet<NodeId>,
    /// Connections that were not read to the end, since too many events wait.
    unread: BTreeSet<usize>,
    faults: ControlFaults,
    transmits: VecDeque<ControlDatagram>,
    events: VecDeque<ControlEvent>,
}

impl Control {
    /// `seed` must be fresh random bytes (in simulations: of the seed).
    pub fn new(own: NodeId, config: ControlConfig, now: Instant, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let quic = Quic::new(&config.keys, config.address, rng.random());
        Self {
            own,
            config,
            draining: false,
            left: false,
            quic,
            conns: BTreeMap::new(),
            peers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            deadlines: Deadlines::default(),
            half_open: HalfOpen::default(),
            link_ids: BTreeSet::new(),
            last_link_id: 0,
            rng,
            started: now,
            now,
            fresh: BTreeSet::new(),
            unread: BTreeSet::new(),
            faults: ControlFaults::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A node is up, at this address. Whoever was there before is no more.
    pub fn set_member(&mut self, now: Instant, node: NodeId, address: SocketAddr) {
        self.set_now(now);
        let is_before = |(_, peer): &(&NodeId, &Peer)| peer.address == address;
        let before = self.peers.iter().filter(is_before).map(|(&before, _)| before);
        for before in before.filter(|&before| before != node).collect::<Vec<_>>() {
            self.forget(now, before, Broken::Restarted);
        }
        let Some(peer) = self.peer_entry(now, node, address) else { return };
        let moved = peer.address != address;
        let old = std::mem::replace(&mut peer.address, address);
        peer.member = true;
        if moved {
            // Another node has the number now (see `NodeId`).
            self.addresses.remove(&old);
            self.hang_up(now, node, Broken::Restarted);
        }
        self.addresses.insert(address, node);
        self.attend(now, node);
    }

    /// Membership says that a node is down. A connection to it that works goes on, since that
    /// knows better; if it does not it ends within 15 s.
    pub fn unset_member(&mut self, now: Instant, node: NodeId) {
        self.set_now(now);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.member = false;
        if self.addresses.get(&peer.address) == Some(&node) {
            self.addresses.remove(&peer.address);
        }
        if peer.up.is_none() {
            self.forget(now, node, Broken::Unreachable);
        }
    }

    /// Our number changed. All that was said under the old one is void.
    pub fn set_own(&mut self, now: Instant, own: NodeId) {
        self.set_now(now);
        self.own = own;
        for node in self.peers.keys().copied().collect::<Vec<_>>() {
            self.hang_up(now, node, Broken::Restarted);
            self.attend(now, node);
        }
    }

    /// What new connections are told of us.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Connects to the node if nothing does yet, and keeps the connection while it is held.
    ///
    /// # Errors
    ///
    /// [`SendError::Unknown`] and [`SendError::Left`].
    pub fn hold(&mut self, now: Instant, node: NodeId, hold: bool) -> Result<(), SendError> {
        self.set_now(now);
        if self.left {
            return Err(SendError::Left);
        }
        let peer = self.peers.get_mut(&node).ok_or(SendError::Unknown)?;
        let changed = std::mem::replace(&mut peer.hold, hold) != hold;
        peer.used = now;
        let up = peer.up.filter(|_| changed);
        if let Some(conn) = up.and_then(|handle| self.conns.get_mut(&handle)) {
            conn.note(if hold { Note::Held } else { Note::Released });
            self.fresh.insert(node);
        }
        self.attend(now, node);
        Ok(())
    }

    /// Queues a message, and connects to the node if nothing does yet. See the contract above.
    ///
    /// # Errors
    ///
    /// If it was not queued, for the reason given; nothing of it is sent then.
    pub fn send(
        &mut self,
        now: Instant,
        node: NodeId,
        class: Class,
        message: &[u8],
    ) -> Result<(), SendError> {
        self.set_now(now);
        if self.left {
            return Err(SendError::Left);
        }
        if message.len() > MESSAGE_MAX {
            return Err(SendError::TooLong);
        }
        let peer = self.peers.get_mut(&node).ok_or(SendError::Unknown)?;
        if peer.queue.push(class, message).is_err() {
            self.faults.count(ControlFault::QueueFull);
            return Err(SendError::Full);
        }
        peer.used = now;
        if peer.up.is_none() {
            peer.waiting_since.get_or_insert(now);
        }
        self.fresh.insert(node);
        Ok(())
    }

    /// What the node at the other end of a connection that is up said of itself.
    pub fn peer(&self, node: NodeId) -> Option<&PeerInfo> {
        self.peers.get(&node)?.info.as_ref()
    }

    /// What the media link between a shard of ours and one of that node is made of: once for each
    /// connection and pair of shards, since a link made again of the same would use nonces again.
    /// `None` if it was taken before, no connection is up, or there is no such shard.
    pub fn take_link(&mut self, node: NodeId, here: u8, there: u8) -> Option<LinkSecret> {
        let peer = self.peers.get_mut(&node)?;
        let (info, secret) = (peer.info.as_ref()?, peer.secret.as_ref()?);
        if here >= self.config.shards || there >= info.shards {
            return None;
        }
        let end = |node: NodeId, shard, link| {
            Some(End { node: node.0.into(), shard, link: LinkId::new(link)? })
        };
        let ours = end(self.own, here, info.link_id_here)?;
        let theirs = end(node, there, info.link_id_there)?;
        let first = peer.taken.insert((here, there));
        first.then(|| LinkSecret::new(PairSecret::new(secret), ours, theirs))
    }

    /// Closes the connection with a node, at both ends with [`Broken::Replaced`]: if a media link
    /// is silent though the connection is not, its links can be made anew after the next. That
    /// is made as the node is held or sent something. One that is being made goes on.
    pub fn renew(&mut self, now: Instant, node: NodeId) {
        self.set_now(now);
        if self.up(node).is_some() {
            self.hang_up(now, node, Broken::Replaced);
            self.attend(now, node);
        }
    }

    /// The largest UDP payload known to pass to the node, in bytes.
    pub fn mtu(&self, node: NodeId) -> Option<u16> {
        self.up(node).map(|conn| conn.mtu)
    }

    /// The smoothed round trip to the node.
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.up(node).map(|conn| conn.quic.rtt())
    }

    /// What went wrong, and how often.
    pub fn faults(&self) -> &ControlFaults {
        &self.faults
    }

    /// Connections there are, those that are closing and those of strangers too.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Handshakes of others that are not complete.
    pub fn half_open(&self) -> usize {
        self.half_open.total()
    }

    /// Closes all connections. What [`Self::poll_transmit`] gives is to be sent before the
    /// socket is closed.
    pub fn leave(&mut self, now: Instant) {
        self.set_now(now);
        if !self.left {
            // Whoever is still wanted would be called again and again.
            for node in self.peers.keys().copied().collect::<Vec<_>>() {
                if let Some(peer) = self.peers.get_mut(&node) {
                    (peer.hold, peer.waiting_since) = (false, None);
                    peer.queue.clear();
                }
                self.set_peer_deadline(node);
            }
            for handle in self.conns.keys().copied().collect::<Vec<_>>() {
                self.close(now, handle, Code::Leave, &[]);
            }
            self.left = true;
        }
    }

    /// A datagram of QUIC came. `local` is the address of ours that it came to, if known.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) {
        self.set_now(now);
        if !self.left {
            self.take(now, from, local, datagram);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        if !self.unread.is_empty() && self.events.len() < EVENTS_MAX {
            return Some(self.now);
        }
        self.deadlines.first()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        for handle in std::mem::take(&mut self.unread) {
            self.pump(now, handle);
        }
        // What is handled may be due again at once; that is for the next time.
        for key in self.deadlines.take_due(now) {
            match key {
                Key::Conn(handle) => self.handle_conn_timeout(now, handle),
                Key::Peer(node) => {
                    if let Some(peer) = self.peers.get_mut(&node) {
                        peer.deadline = None;
                    }
                    self.attend(now, node);
                }
            }
        }
    }

    /// The next datagrams to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<ControlDatagram> {
        self.set_now(now);
        // All that was sent since goes out together.
        while let Some(node) = self.fresh.pop_first() {
            match self.peers.get(&node).and_then(|peer| peer.up) {
                Some(handle) => self.pump(now, handle),
                None => self.attend(now, node),
            }
        }
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<ControlEvent> {
        self.events.pop_front()
    }

    fn up(&self, node: NodeId) -> Option<&Conn> {
        self.conns.get(&self.peers.get(&node)?.up?).filter(|conn| conn.stage == Stage::Up)
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.quic.set_elapsed(now.saturating_duration_since(self.started));
    }

    /// The peer, made if there is room.
    fn peer_entry(&mut self, now: Instant, node: NodeId, address: SocketAddr) -> Option<&mut Peer> {
        if !self.peers.contains_key(&node) {
            if self.peers.len() >= PEERS_MAX {
                self.faults.count(ControlFault::TooManyPeers);
                return None;
            }
            let link_id = self.take_link_id();
            self.peers.insert(node, Peer::new(now, address, link_id));
        }
        self.peers.get_mut(&node)
    }

    /// The next free one in turn, so that one is not soon another's.
    fn take_link_id(&mut self) -> u32 {
        loop {
            self.last_link_id = self.last_link_id % LINKS_MAX + 1;
            if self.link_ids.insert(self.last_link_id) {
                return self.last_link_id;
            }
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("own", &self.own)
            .field("peers", &self.peers.len())
            .field("connections", &self.conns.len())
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// Why a connection is closed, as the other end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Unused = 1,
    Leave = 2,
    /// The other one of two survives.
    Duplicate = 3,
    /// The reason holds our versions.
    Version = 4,
    Reflected = 5,
    /// The node that was called is no more.
    WrongNode = 6,
    Misbehaved = 7,
    Late = 8,
}

/// Whether these bytes are a hello.
pub(crate) fn parse_hello(bytes: &[u8]) -> bool {
    hello::Hello::parse(bytes).is_ok()
}

/// The messages in these bytes.
pub(crate) fn parse_messages(bytes: &[u8], piece: usize) -> Option<Vec<Vec<u8>>> {
    let mut reader = frames::FrameReader::new(MESSAGE_MAX);
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece, |message| messages.push(message)).ok()?;
    }
    Some(messages)
}

/// Link ids in use at once; a table indexed by them is small.
const LINKS_MAX: u32 = 4095;
const _: () = assert!(PEERS_MAX < LINKS_MAX as usize);
/// A handshake takes two round trips.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// A call that lost against the other's is tried again if that did not come about.
const DUEL_PAUSE: Duration = Duration::from_secs(1);
/// Who does not drain events gets no more messages, and neither does its peers' sending go on.
const EVENTS_MAX: usize = 4096;
/// Connections, with those that are closing: more and strangers are not listened to.
const CONNS_MAX: usize = 2 * PEERS_MAX;
