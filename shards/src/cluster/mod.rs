//! A node's part in its cluster: who else is there, and commands for sessions of other nodes.
//!
//! A call goes over the hub to the node its session id names, is executed there as if it had been
//! asked there, and its answer comes back. It is sent once: what is not idempotent must not happen
//! twice, so a call whose node goes away is refused, and may or may not have been executed.
//!
//! **Numbers.** The node's number is the hub's. It can change only when another node drew the
//! same (one in four billion for each pair) and was first. Then new sessions carry the new number;
//! those there are keep their media, but their ids now name the other node, which answers that
//! they are gone, and their clients join again.
//!
//! Invariants: each call asked here gets exactly one answer, [`CALL_WAIT`] after it was asked at
//! the latest; calls under way are bounded for each node; no input ends anything but itself.
//!
//! Not here: sockets and tasks (`rim`); executing.

pub mod letter;
mod links;
pub mod note;
pub mod rim;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relay::control::{Class, ControlFault, SendError};
use relay::hub::{Event, Hub, HubConfig, Transmit};
use relay::members::{Load, MemberFault};

use self::letter::Letter;
use self::view::{ClusterCounts, ClusterView, NodeView};
use crate::command::{Answer, Ask, Command, Refusal};
use crate::ids::{AppId, FarShard, NodeId, ShardId};
use crate::limits::{PACKET_WAIT, TRANSPORT_WAIT};
use crate::mail::{Linked, Nodes, Ticket};

/// The shard that has the hub.
pub const HUB_SHARD: ShardId = ShardId(0);

/// How long an answer is waited for: what the owner itself may wait, and 5 s for the way.
pub const CALL_WAIT: Duration =
    TRANSPORT_WAIT.saturating_add(PACKET_WAIT).saturating_add(Duration::from_secs(5));

/// Calls under way to one node. At the longest wait that is still 50 a second that never end well.
pub const ASKED_PER_NODE: usize = 1024;

/// Calls of one node under way here. More than a node asks, so that it is not this that refuses.
pub const SERVED_PER_NODE: usize = 2 * ASKED_PER_NODE;

/// Something for the rim to do.
#[derive(Debug)]
pub enum Output {
    /// The answer to a call that was asked here.
    Answer { ticket: Ticket, answer: Answer },
    /// Execute this, and bring the answer to [`Cluster::handle_served`].
    Serve { node: NodeId, number: u64, command: Command },
    /// Other nodes are up than before, or we have another number.
    Nodes(Nodes),
    /// A link of this shard's is there.
    Linked(ShardId, Linked),
    /// All links with a node are no more.
    Unlinked { node: NodeId },
    /// Datagrams of this size pass to the node.
    Mtu { node: NodeId, mtu: u16 },
    /// A letter of a node to a shard.
    Letter { to: ShardId, node: NodeId, letter: Vec<u8> },
}

/// A call under way.
#[derive(Debug)]
struct Call {
    ticket: Ticket,
    node: NodeId,
    deadline: Instant,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Cluster {
    hub: Hub,
    address: SocketAddr,
    shards: u8,
    /// Names of applications; an [`AppId`] is an index.
    apps: Vec<String>,
    load: Load,
    /// By number, and so by deadline too.
    asked: BTreeMap<u64, Call>,
    next: u64,
    served: BTreeSet<(NodeId, u64)>,
    /// Links that shards of ours want, by node; the shard is ours.
    links: BTreeSet<(FarShard, ShardId)>,
    leaving: bool,
    outputs: VecDeque<Output>,
    counts: ClusterCounts,
}

impl Cluster {
    /// `seed` must be fresh random bytes (in simulations: of the seed).
    pub fn new(config: HubConfig, apps: Vec<String>, now: Instant, seed: [u8; 32]) -> Self {
        let (address, shards) = (config.address, config.shards);
        Self {
            hub: Hub::new(config, now, seed),
            address,
            shards,
            apps,
            load: Load::default(),
            asked: BTreeMap::new(),
            next: 0,
            served: BTreeSet::new(),
            links: BTreeSet::new(),
            leaving: false,
            outputs: VecDeque::new(),
            counts: ClusterCounts::default(),
        }
    }

    /// Our own number.
    pub fn node(&self) -> NodeId {
        self.hub.node()
    }

    /// Where our cluster socket is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the others our load.
    pub fn set_load(&mut self, now: Instant, load: Load) {
        self.load = Load { draining: load.draining || self.leaving, ..load };
        self.hub.set_load(now, self.load);
        self.settle(now);
    }

    /// Uses other seeds from now on.
    pub fn set_seeds(&mut self, seeds: &[SocketAddr]) {
        self.hub.set_seeds(seeds);
    }

    /// A command for a session of another node.
    pub fn handle_call(&mut self, now: Instant, ticket: Ticket, command: Command) {
        let Err(refusal) = self.ask(now, ticket, command) else { return };
        self.outputs.push_back(Output::Answer { ticket, answer: Err(refusal) });
    }

    fn ask(&mut self, now: Instant, ticket: Ticket, command: Command) -> Result<(), Refusal> {
        let Command { app, ask } = command;
        let session = ask.session().ok_or(Refusal::Internal)?;
        let node = session.node();
        let app = self.apps.get(usize::from(app.0)).cloned().ok_or(Refusal::Internal)?;
        if self.leaving {
            return Err(Refusal::Unreachable);
        }
        if self.asked.values().filter(|call| call.node == node).count() >= ASKED_PER_NODE {
            self.counts.asked_busy += 1;
            return Err(Refusal::Busy("requests to another node".into()));
        }
        let number = self.next;
        self.next += 1;
        let bytes = Letter::Call { number, app, ask }.to_bytes().ok_or(Refusal::Internal)?;
        match self.hub.send(now, node, Class::Calls, &bytes) {
            Ok(()) => {
                self.asked.insert(number, Call { ticket, node, deadline: now + CALL_WAIT });
                Ok(())
            }
            Err(SendError::Full) => {
                self.counts.asked_busy += 1;
                Err(Refusal::Busy("requests to another node".into()))
            }
            Err(SendError::Unknown) => {
                Err(Refusal::Gone { session: session.to_string(), publisher: false })
            }
            Err(SendError::Left | SendError::TooLong) => Err(Refusal::Internal),
        }
    }

    /// The answer to a command of another node, as [`Output::Serve`] gave it.
    pub fn handle_served(&mut self, now: Instant, node: NodeId, number: u64, answer: Answer) {
        if !self.served.remove(&(node, number)) {
            return;
        }
        self.counts.served += 1;
        self.answer(now, node, number, answer);
    }

    fn answer(&mut self, now: Instant, node: NodeId, number: u64, answer: Answer) {
        let letter = Letter::Answer { number, answer };
        let too_long = || Letter::Answer { number, answer: Err(Refusal::Internal) }.to_bytes();
        let Some(bytes) = letter.to_bytes().or_else(too_long) else { return };
        // If it cannot be sent, the asker learns that from the connection's end.
        let _ = self.hub.send(now, node, Class::Calls, &bytes);
    }

    /// A datagram came to the cluster socket.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.counts.datagrams_in += 1;
        self.hub.handle_datagram(now, from, None, datagram);
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        let late = self.asked.first_key_value().map(|(_, call)| call.deadline);
        self.hub.timeout().into_iter().chain(late).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.hub.handle_timeout(now);
        self.settle(now);
        while let Some(late) = self.asked.first_entry().filter(|call| call.get().deadline <= now) {
            let ticket = late.remove().ticket;
            self.counts.asked_late += 1;
            self.outputs.push_back(Output::Answer { ticket, answer: Err(Refusal::Unreachable) });
        }
    }

    /// The next datagrams to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let transmit = self.hub.poll_transmit(now)?;
        let datagrams = transmit.segment.map_or(1, |each| transmit.bytes.len().div_ceil(each));
        self.counts.datagrams_out += datagrams as u64;
        Some(transmit)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Tells the others that we go. Calls of theirs that come from here on are for sessions that
    /// are gone.
    pub fn begin_leave(&mut self, now: Instant) {
        self.leaving = true;
        self.set_load(now, self.load);
    }

    /// Calls of others that are under way here.
    pub fn serving(&self) -> usize {
        self.served.len()
    }

    /// Gives up what is under way, in both directions. To be sent before [`Self::leave`].
    pub fn give_up(&mut self, now: Instant) {
        for (node, number) in std::mem::take(&mut self.served) {
            self.answer(now, node, number, Err(Refusal::Unreachable));
        }
        self.fail(|_| true);
    }

    /// Leaves. What [`Self::poll_transmit`] then gives is the last.
    pub fn leave(&mut self, now: Instant) {
        self.hub.leave(now);
    }

    /// What there is to show.
    pub fn view(&self) -> ClusterView {
        let nodes = self.hub.nodes().map(|node| NodeView {
            node: node.identity.node,
            address: node.identity.address,
            version: node.identity.version,
            shards: node.identity.shards,
            load: node.load,
            rtt: node.rtt,
            mtu: node.mtu,
        });
        let (hub, members, control) =
            (self.hub.faults(), self.hub.member_faults(), self.hub.control_faults());
        let mut faults = vec![
            ("hub", "unknown", hub.unknown),
            ("hub", "reserved", hub.reserved),
            ("calls", "malformed", self.counts.malformed),
            ("calls", "unawaited", self.counts.unawaited),
            ("letters", "queue_full", self.counts.letters_dropped),
        ];
        faults.extend(MemberFault::ALL.map(|fault| ("members", fault.name(), members.of(fault))));
        faults.extend(ControlFault::ALL.map(|fault| ("control", fault.name(), control.of(fault))));
        ClusterView {
            node: self.node(),
            address: self.address,
            load: self.load,
            nodes: nodes.collect(),
            connections: self.hub.connections(),
            counts: self.counts,
            faults,
        }
    }

    fn settle(&mut self, now: Instant) {
        let mut changed = false;
        while let Some(event) = self.hub.poll_event() {
            match event {
                Event::NodeUp(node) => {
                    changed = true;
                    self.hold(now, node);
                }
                Event::NodeDown(node) => {
                    changed = true;
                    // Another one may have come in its place at once; its calls are its own.
                    self.broken(node);
                }
                Event::Renumbered { .. } => {
                    changed = true;
                    self.fail(|_| true);
                    self.forget(|_| true);
                }
                Event::Broken { node, .. } => {
                    self.broken(node);
                    self.outputs.push_back(Output::Unlinked { node });
                }
                Event::Connected(node) => self.link_all(node),
                Event::Mtu { node, mtu } => self.outputs.push_back(Output::Mtu { node, mtu }),
                Event::Message { node, class: Class::Calls, bytes } => {
                    match Letter::parse(&bytes) {
                        Ok(letter) => self.read(now, node, letter),
                        Err(_) => self.counts.malformed += 1,
                    }
                }
                Event::Message { node, class: Class::Wants, bytes } => {
                    self.letter_arrived(node, bytes);
                }
                Event::VersionSkew { node, ours, theirs } => tracing::warn!(
                    %node, ?ours, ?theirs,
                    "a node of the cluster speaks no version that this one speaks: update the older"
                ),
                Event::NodeChanged(_) => {}
            }
        }
        if changed {
            let others = self.hub.nodes().map(|node| node.identity.node).collect();
            let nodes = Nodes { own: self.node(), others };
            self.outputs.push_back(Output::Nodes(nodes));
        }
    }

    fn read(&mut self, now: Instant, node: NodeId, letter: Letter) {
        match letter {
            Letter::Answer { number, answer } => {
                // Only the node that was asked may answer.
                if self.asked.get(&number).is_none_or(|call| call.node != node) {
                    self.counts.unawaited += 1;
                } else if let Some(Call { ticket, .. }) = self.asked.remove(&number) {
                    self.counts.asked += 1;
                    self.outputs.push_back(Output::Answer { ticket, answer });
                }
            }
            Letter::Call { number, app, ask } => match self.admit(node, number, &app, ask) {
                Admitted::Serve(command) => {
                    self.served.insert((node, number));
                    self.outputs.push_back(Output::Serve { node, number, command });
                }
                Admitted::Refuse(refusal) => self.answer(now, node, number, Err(refusal)),
                Admitted::Drop => self.counts.malformed += 1,
            },
        }
    }

    fn admit(&mut self, node: NodeId, number: u64, app: &str, ask: Ask) -> Admitted {
        let Some(session) = ask.session() else { return Admitted::Drop };
        if self.served.contains(&(node, number)) {
            return Admitted::Drop;
        }
        let of_node = self.served.range((node, 0)..=(node, u64::MAX));
        if of_node.count() >= SERVED_PER_NODE {
            self.counts.served_busy += 1;
            return Admitted::Refuse(Refusal::Busy("requests of another node".into()));
        }
        let ours = session.node() == self.node() && session.shard().0 < self.shards;
        match self.apps.iter().position(|name| name == app) {
            Some(at) if ours && !self.leaving => {
                Admitted::Serve(Command { app: AppId(at as u16), ask })
            }
            _ => {
                self.counts.served += 1;
                let session = session.to_string();
                Admitted::Refuse(Refusal::Gone { session, publisher: false })
            }
        }
    }

    /// What was under way between us and that node is lost.
    fn broken(&mut self, node: NodeId) {
        self.fail(|other| other == node);
        self.forget(|other| other == node);
    }

    fn fail(&mut self, of: impl Fn(NodeId) -> bool) {
        let (outputs, counts) = (&mut self.outputs, &mut self.counts);
        self.asked.retain(|_, call| {
            let lost = of(call.node);
            if lost {
                counts.asked_broken += 1;
                let (ticket, answer) = (call.ticket, Err(Refusal::Unreachable));
                outputs.push_back(Output::Answer { ticket, answer });
            }
            !lost
        });
    }

    fn forget(&mut self, of: impl Fn(NodeId) -> bool) {
        let before = self.served.len();
        self.served.retain(|&(node, _)| !of(node));
        self.counts.served_broken += (before - self.served.len()) as u64;
    }
}

/// What becomes of a call of another node.
enum Admitted {
    Serve(Command),
    Refuse(Refusal),
    Drop,
}

#[cfg(test)]
mod tests;
