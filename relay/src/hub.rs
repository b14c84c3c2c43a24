//! What goes over a node's cluster socket: membership and control connections, told apart by
//! the first byte.
//!
//! | first byte | |
//! |---|---|
//! | `0x0A` | membership |
//! | `0x0B` | reserved for resets of media links, which have sockets of their own |
//! | bit `0x40` set | QUIC (RFC 9000 §17: its fixed bit, which we never grease) |
//!
//! Invariants: what membership says of nodes the control plane knows before the caller does;
//! whatever arrives is taken, or counted as a fault.
//!
//! Not here: the socket. Its owner calls [`Hub::handle_datagram`] and, when due,
//! [`Hub::handle_timeout`], and after each call of any kind drains [`Hub::poll_transmit`] and
//! [`Hub::poll_event`] and sets a timer for [`Hub::timeout`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::control::{
    Broken, Class, Control, ControlConfig, ControlEvent, ControlFaults, PeerInfo, SendError,
    Versions,
};
use crate::keys::ClusterKeys;
use crate::members::{
    FIRST_BYTE, Identity, Load, MemberEvent, MemberFaults, Members, MembersConfig, NodeId,
};
use crate::seal::LinkSecret;

/// How a node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct HubConfig {
    pub keys: ClusterKeys,
    /// Where others reach the cluster socket: no wildcard.
    pub address: SocketAddr,
    /// Addresses where other nodes may be.
    pub seeds: Vec<SocketAddr>,
    /// 1 to 255.
    pub shards: u8,
    /// Where the shards' media links are reached, by shard; none if there are none.
    pub links: Vec<SocketAddr>,
    pub versions: Versions,
    pub caps: u16,
    /// The wall clock in milliseconds; it need not be right.
    pub start_ms: u64,
}

/// Datagrams to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    /// If there are several: how long each is, but the last, which may be shorter (as GSO).
    pub segment: Option<usize>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    NodeUp(NodeId),
    NodeChanged(NodeId),
    NodeDown(NodeId),
    /// Our own number changed: another node had it first. Ids made before name nobody.
    Renumbered {
        from: NodeId,
        to: NodeId,
    },
    /// A control connection is up: its links and MTU can be had.
    Connected(NodeId),
    /// A message. Of each node and class they come in order.
    Message {
        node: NodeId,
        class: Class,
        bytes: Vec<u8>,
    },
    /// UDP payloads of this size pass to the node.
    Mtu {
        node: NodeId,
        mtu: u16,
    },
    /// What was sent and not answered is lost (see the contract in `control`).
    Broken {
        node: NodeId,
        why: Broken,
    },
    /// One of the two nodes must be updated.
    VersionSkew {
        node: NodeId,
        ours: Versions,
        theirs: Versions,
    },
}

/// A node of the cluster that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo<'a> {
    pub identity: &'a Identity,
    /// `None` until it was heard.
    pub load: Option<Load>,
    /// `None` while no control connection is up.
    pub rtt: Option<Duration>,
    pub mtu: Option<u16>,
}

/// What was dropped because of its first byte alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubFaults {
    /// Nothing that goes over this socket.
    pub unknown: u64,
    /// Resets of media links, which belong elsewhere.
    pub reserved: u64,
}

/// A node's part in the cluster, but for media.
#[derive(Debug)]
pub struct Hub {
    members: Members,
    control: Control,
    /// What membership saw.
    events: VecDeque<Event>,
    faults: HubFaults,
}

impl Hub {
    /// `seed` must be fresh random bytes (in simulations: of the seed).
    pub fn new(config: HubConfig, now: Instant, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let members = MembersConfig {
            keys: config.keys.clone(),
            address: config.address,
            seeds: config.seeds,
            shards: config.shards,
            link_port: config.links.first().map_or(0, SocketAddr::port),
            version: config.versions.newest,
            caps: config.caps,
            start_ms: config.start_ms,
        };
        let members = Members::new(members, now, rng.random());
        let control = ControlConfig {
            keys: config.keys,
            address: config.address,
            versions: config.versions,
            caps: config.caps,
            shards: config.shards,
            links: config.links,
        };
        let control = Control::new(members.identity().node, control, now, rng.random());
        Self { members, control, events: VecDeque::new(), faults: HubFaults::default() }
    }

    /// Our own number.
    pub fn node(&self) -> NodeId {
        self.members.identity().node
    }

    /// All other nodes that are up, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = NodeInfo<'_>> {
        self.members.nodes().map(|node| NodeInfo {
            identity: node.identity,
            load: node.load,
            rtt: self.control.rtt(node.identity.node),
            mtu: self.control.mtu(node.identity.node),
        })
    }

    /// Whether this node is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.members.node(node).is_some()
    }

    /// Tells the others our load.
    pub fn set_load(&mut self, now: Instant, load: Load) {
        self.control.set_draining(load.draining);
        self.members.set_load(now, load);
        self.settle(now);
    }

    /// Uses other seeds from now on.
    pub fn set_seeds(&mut self, seeds: &[SocketAddr]) {
        self.members.set_seeds(seeds);
    }

    /// Connects to a node, or keeps its connection, while it is held.
    ///
    /// # Errors
    ///
    /// If the node is not up, or we are leaving.
    pub fn hold(&mut self, now: Instant, node: NodeId, hold: bool) -> Result<(), SendError> {
        self.control.hold(now, node, hold)
    }

    /// Queues a message to a node, connecting first if need be. Reliable and in order within its
    /// class until [`Event::Broken`].
    ///
    /// # Errors
    ///
    /// If it was not queued, for the reason given.
    pub fn send(
        &mut self,
        now: Instant,
        node: NodeId,
        class: Class,
        message: &[u8],
    ) -> Result<(), SendError> {
        self.control.send(now, node, class, message)
    }

    /// What the node at the other end of a connection said of itself.
    pub fn peer(&self, node: NodeId) -> Option<&PeerInfo> {
        self.control.peer(node)
    }

    /// What the media link between a shard of ours and one of that node is made of: once for each
    /// connection and pair of shards. To make a link anew, [`Self::renew`] the connection.
    pub fn take_link(&mut self, node: NodeId, here: u8, there: u8) -> Option<LinkSecret> {
        self.control.take_link(node, here, there)
    }

    /// Closes the connection with a node, and with it goes every link ([`Event::Broken`]). The
    /// next is made as the node is held or sent something.
    pub fn renew(&mut self, now: Instant, node: NodeId) {
        self.control.renew(now, node);
    }

    /// The largest UDP payload known to pass to that node, while connected.
    pub fn mtu(&self, node: NodeId) -> Option<u16> {
        self.control.mtu(node)
    }

    /// The smoothed round trip to that node, while connected.
    pub fn rtt(&self, node: NodeId) -> Option<Duration> {
        self.control.rtt(node)
    }

    /// Leaves: tells the members, closes the connections. Send what [`Self::poll_transmit`]
    /// gives; after that this node is silent.
    pub fn leave(&mut self, now: Instant) {
        self.members.leave(now);
        self.control.leave(now);
    }

    /// A datagram came from `from`; to `local`, if the socket knows.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) {
        match datagram.first() {
            Some(&FIRST_BYTE) => {
                self.members.handle_datagram(now, datagram);
                self.settle(now);
            }
            Some(&RESET_BYTE) => self.faults.reserved += 1,
            Some(byte) if byte & QUIC_BIT != 0 => {
                self.control.handle_datagram(now, from, local, datagram);
            }
            Some(_) | None => self.faults.unknown += 1,
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        self.members.timeout().into_iter().chain(self.control.timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.members.timeout().is_some_and(|at| at <= now) {
            self.members.handle_timeout(now);
            self.settle(now);
        }
        if self.control.timeout().is_some_and(|at| at <= now) {
            self.control.handle_timeout(now);
        }
    }

    /// The next datagrams to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some(datagram) = self.members.poll_transmit() {
            return Some(Transmit { to: datagram.to, bytes: datagram.bytes, segment: None });
        }
        let datagram = self.control.poll_transmit(now)?;
        Some(Transmit { to: datagram.to, bytes: datagram.bytes, segment: datagram.segment })
    }

    /// The next thing that happened. Changes of nodes come before what follows from them.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        Some(match self.control.poll_event()? {
            ControlEvent::Connected(node) => Event::Connected(node),
            ControlEvent::Message { node, class, bytes } => Event::Message { node, class, bytes },
            ControlEvent::Mtu { node, mtu } => Event::Mtu { node, mtu },
            ControlEvent::Broken { node, why } => Event::Broken { node, why },
            ControlEvent::VersionSkew { node, ours, theirs } => {
                Event::VersionSkew { node, ours, theirs }
            }
        })
    }

    /// What was dropped because of its first byte.
    pub fn faults(&self) -> HubFaults {
        self.faults
    }

    /// What was dropped of membership.
    pub fn member_faults(&self) -> &MemberFaults {
        self.members.faults()
    }

    /// What went wrong on control connections.
    pub fn control_faults(&self) -> &ControlFaults {
        self.control.faults()
    }

    /// Control connections there are, those of strangers and those closing too.
    pub fn connections(&self) -> usize {
        self.control.connections()
    }

    /// Tells the control plane what membership has seen.
    fn settle(&mut self, now: Instant) {
        while let Some(change) = self.members.poll_event() {
            self.events.push_back(match change {
                MemberEvent::Up(node) => Event::NodeUp(node),
                MemberEvent::Changed(node) => Event::NodeChanged(node),
                MemberEvent::Down(node) => Event::NodeDown(node),
                MemberEvent::Renumbered { from, to } => Event::Renumbered { from, to },
            });
            match change {
                MemberEvent::Up(node) | MemberEvent::Changed(node) => {
                    if let Some(node) = self.members.node(node) {
                        let identity = node.identity;
                        self.control.set_member(now, identity.node, identity.address);
                    }
                }
                MemberEvent::Down(node) => {
                    if self.members.node(node).is_none() {
                        self.control.unset_member(now, node);
                    }
                }
                MemberEvent::Renumbered { to, .. } => self.control.set_own(now, to),
            }
        }
    }
}

const RESET_BYTE: u8 = 0x0B;
const QUIC_BIT: u8 = 0x40;
