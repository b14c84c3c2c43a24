//! Who is in the cluster: membership by SWIM (foca), with what SWIM alone lacks.
//!
//! * **Joining.** A node greets its seeds each second until it knows somebody, and one seed each
//!   minute ever after; two nodes that are down each 15 s, so that partitions heal. One lost
//!   datagram never isolates a node.
//! * **Push-pull.** Each 10 s a node compares what it knows with another one; without that a
//!   cluster of 250 stays incomplete for minutes.
//! * **Sealing and freshness** without clocks: see `envelope`.
//! * **Numbers.** Two nodes that drew one number: the later takes another.
//! * **Loads** travel with what is sent anyway.
//!
//! What the caller must know: `Down` says that nobody reaches the node's control address; a media
//! link that works says otherwise and is right. Nothing about sessions or tracks is told here.
//!
//! Invariants: at most [`NODES_MAX`] nodes are up and [`KNOWN_MAX`] known; nothing that is not
//! sealed by a node of the cluster changes anything or is answered; a wrong clock anywhere has
//! no effect.
//!
//! Not here: control connections (`control`); which socket (`hub`).

mod body;
mod envelope;
mod exchange;
mod fault;
mod identity;
mod loads;
mod swim;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foca::OwnedNotification;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::keys::ClusterKeys;
use body::Body;
use envelope::{Opener, Sealer, Way};
use loads::{LoadItem, Loads};
use swim::Swim;
use table::Table;

pub use envelope::{DATAGRAM_MAX, FIRST_BYTE};
pub use fault::{MemberFault, MemberFaults};
pub(crate) use identity::can_be_sent_to;
pub use identity::{Identity, NodeId};
pub use loads::Load;
pub use table::MemberEvent;

/// Nodes of a cluster. foca walks a list for each message: at 1,000 nodes that is 0.2 ms of CPU
/// a second, at 10,000 it would not be.
pub const NODES_MAX: usize = 1000;

/// Nodes known, those that went down in the last hour too.
pub const KNOWN_MAX: usize = 2 * NODES_MAX;

/// Seeds used of those configured; a name may resolve to all nodes of a cluster.
pub const SEEDS_MAX: usize = 64;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct MembersConfig {
    pub keys: ClusterKeys,
    /// Where others reach our cluster socket.
    pub address: SocketAddr,
    /// Addresses where other nodes may be; our own among them does no harm.
    pub seeds: Vec<SocketAddr>,
    /// How many shards we have, 1 to 255.
    pub shards: u8,
    /// The UDP port of our first shard's media links; 0 if we have none.
    pub link_port: u16,
    pub version: u16,
    pub caps: u16,
    /// The wall clock in milliseconds. It only orders runs of a node at one address, and where
    /// it is wrong the others set it right.
    pub start_ms: u64,
}

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDatagram {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A node that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    pub identity: &'a Identity,
    /// `None` until it was heard.
    pub load: Option<Load>,
}

/// The membership of one node. After each `handle_*` and each verb, drain both `poll_*` and set
/// a timer for [`Self::timeout`].
pub struct Members {
    swim: Swim,
    sealer: Sealer,
    opener: Opener,
    rng: StdRng,
    seeds: Vec<SocketAddr>,
    table: Table,
    loads: Loads,
    own_load: OwnLoad,
    /// Greetings that may still be answered, by nonce: with which number, until when.
    greetings: BTreeMap<u64, (NodeId, Instant)>,
    welcomes: Welcomes,
    next: Next,
    left: bool,
    faults: MemberFaults,
    transmits: VecDeque<MemberDatagram>,
    events: VecDeque<MemberEvent>,
    plain: Vec<u8>,
}

/// What we tell of our load.
#[derive(Debug, Default)]
struct OwnLoad {
    now: Load,
    told: Load,
    told_at: Option<Instant>,
    version: u32,
}

/// How many greetings may still be answered.
#[derive(Debug)]
struct Welcomes {
    left: u32,
    refilled: Instant,
    /// Since then, by the cookie of the greeter.
    given: BTreeMap<[u8; 8], u8>,
}

/// When what is to be done next.
#[derive(Debug)]
struct Next {
    join: Instant,
    heal: Instant,
    sync: Instant,
    load: Instant,
    spread: Instant,
    /// Not before this may our rank be raised again.
    rank: Instant,
}

impl Members {
    /// `seed` must be fresh random bytes (in simulations: of the seed).
    pub fn new(config: MembersConfig, now: Instant, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let identity = Identity {
            node: NodeId(rng.random_range(1..=u32::MAX)),
            cookie: rng.random(),
            address: config.address,
            rank: config.start_ms,
            shards: config.shards.max(1),
            link_port: config.link_port,
            version: config.version,
            caps: config.caps,
        };
        let salt = format!("{} {}", config.address, config.start_ms);
        let sealer = Sealer::new(&config.keys, rng.random(), salt.as_bytes());
        let opener = Opener::new(&config.keys, sealer.boot(), identity.cookie);
        let mut seeds = config.seeds;
        seeds.retain(|&seed| seed != config.address && can_be_sent_to(seed));
        seeds.sort_unstable();
        seeds.dedup();
        seeds.truncate(SEEDS_MAX);
        let swim = Swim::new(identity, now, StdRng::from_seed(rng.random()));
        let soon = |rng: &mut StdRng, within: Duration| now + within.mul_f64(rng.random());
        let next = Next {
            join: now,
            heal: soon(&mut rng, HEAL_PERIOD),
            sync: soon(&mut rng, SYNC_PERIOD),
            load: now,
            spread: now,
            rank: now,
        };
        Self {
            swim,
            sealer,
            opener,
            rng,
            seeds,
            table: Table::default(),
            loads: Loads::default(),
            own_load: OwnLoad::default(),
            greetings: BTreeMap::new(),
            welcomes: Welcomes { left: WELCOMES_PER_SECOND, refilled: now, given: BTreeMap::new() },
            next,
            left: false,
            faults: MemberFaults::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            plain: Vec::with_capacity(DATAGRAM_MAX),
        }
    }

    /// What we tell of ourselves.
    pub fn identity(&self) -> &Identity {
        self.swim.identity()
    }

    /// The nodes that are up, without this one, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.table.iter().map(|identity| Node {
            identity,
            load: self.loads.get(identity.node).map(|item| item.load),
        })
    }

    /// A node that is up.
    pub fn node(&self, node: NodeId) -> Option<Node<'_>> {
        let load = self.loads.get(node).map(|item| item.load);
        self.table.get(node).map(|identity| Node { identity, load })
    }

    /// What was dropped, and why.
    pub fn faults(&self) -> &MemberFaults {
        &self.faults
    }

    /// Tells the others our load, at once if it drains, else as often as the cluster bears.
    pub fn set_load(&mut self, now: Instant, load: Load) {
        self.own_load.now = load;
        if load.draining != self.own_load.told.draining {
            self.tell_load(now);
        }
    }

    /// Uses other seeds from now on: names are resolved anew now and then.
    pub fn set_seeds(&mut self, seeds: &[SocketAddr]) {
        let own = self.identity().address;
        let usable = |seed: &SocketAddr| *seed != own && can_be_sent_to(*seed);
        self.seeds = seeds.iter().copied().filter(usable).take(SEEDS_MAX).collect();
    }

    /// Tells the others that we go. From here on nothing is believed or answered; what
    /// [`Self::poll_transmit`] gives is to be sent before the socket is closed.
    pub fn leave(&mut self, now: Instant) {
        if !self.left {
            self.swim.leave(now);
            self.drain_swim(now);
            self.left = true;
        }
    }

    /// A datagram that starts with [`FIRST_BYTE`] came.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.left {
            return;
        }
        if let Err(fault) = self.take(now, datagram) {
            self.faults.count(fault);
        }
        self.drain_swim(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn timeout(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let next = &self.next;
        let mut at = next.join.min(next.heal).min(next.sync);
        if self.loads.has_pending() {
            at = at.min(next.spread);
        }
        at = at.min(next.load);
        Some(self.swim.timeout().map_or(at, |timer| at.min(timer)))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.left {
            return;
        }
        self.swim.handle_timeout(now);
        self.drain_swim(now);
        if now >= self.next.join {
            self.join(now);
        }
        if now >= self.next.heal {
            self.next.heal = now + HEAL_PERIOD;
            self.greet_downs(now);
        }
        if now >= self.next.sync {
            self.next.sync = now + SYNC_PERIOD.mul_f64(self.rng.random_range(0.9..1.1));
            self.send_digest();
        }
        if now >= self.next.load {
            self.consider_load(now);
        }
        if now >= self.next.spread && self.loads.has_pending() {
            self.next.spread = now + SPREAD_PERIOD;
            self.spread_loads();
        }
        if self.opener.wants_cookie() {
            self.take_cookie(now);
        }
        self.drain_swim(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<MemberDatagram> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<MemberEvent> {
        self.events.pop_front()
    }

    /// Seals and sends all that foca wants to have sent, and notes what it saw.
    fn drain_swim(&mut self, now: Instant) {
        loop {
            let (sends, notes) = (self.swim.take_sends(), self.swim.take_notes());
            if sends.is_empty() && notes.is_empty() {
                return;
            }
            for (to, swim) in sends {
                let mut loads = Vec::new();
                self.loads.take(&mut loads);
                self.send(&to, &Body::Swim { swim: &swim, loads });
            }
            for note in notes {
                self.note(now, note);
            }
        }
    }

    fn note(&mut self, now: Instant, note: OwnedNotification<Identity>) {
        let before = self.events.len();
        match note {
            OwnedNotification::MemberUp(identity) => {
                self.table.up(identity.clone(), &mut self.events);
                self.settle_number(now, &identity);
            }
            OwnedNotification::MemberDown(identity) => {
                self.table.down(identity.address, &mut self.events);
            }
            OwnedNotification::Rename(old, new) => {
                // If the old one was down, another note says whether the new one is up.
                if self.table.at(old.address).is_some() {
                    self.table.up(new.clone(), &mut self.events);
                    self.settle_number(now, &new);
                }
            }
            OwnedNotification::Rejoin(_) => {
                // Others thought we were down; those we think are down may know us anew now.
                self.next.heal = self.next.heal.min(now + JOIN_PERIOD);
            }
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
        }
        let downs: Vec<NodeId> = self
            .events
            .iter()
            .skip(before)
            .filter_map(|event| match *event {
                MemberEvent::Down(node) => Some(node),
                MemberEvent::Up(_) | MemberEvent::Changed(_) | MemberEvent::Renumbered { .. } => {
                    None
                }
            })
            .collect();
        for node in downs {
            if self.table.get(node).is_none() {
                self.loads.forget(node);
            }
        }
    }

    /// If another node has our number, the later of us takes another one.
    fn settle_number(&mut self, now: Instant, other: &Identity) {
        let own = self.identity();
        if other.node == own.node && !own.keeps_number_against(other) {
            self.renumber(now);
        }
    }

    fn renumber(&mut self, now: Instant) {
        let old = self.identity().clone();
        let from = old.node;
        let mut node = from;
        while node == from || self.table.get(node).is_some() {
            node = NodeId(self.rng.random_range(1..=u32::MAX));
        }
        self.loads.forget(from);
        self.own_load.version = 0;
        self.next.load = now;
        self.change(now, Identity { node, rank: old.rank.saturating_add(1), ..old });
        self.events.push_back(MemberEvent::Renumbered { from, to: node });
    }

    /// Tells the others something else about ourselves.
    fn change(&mut self, now: Instant, identity: Identity) {
        self.swim.change(now, identity);
        // foca takes part again once it hears something; this makes somebody answer.
        if let Some(to) = self.random_active() {
            self.swim.announce(now, to);
        }
        self.next.join = now + JOIN_PERIOD;
    }

    fn take_cookie(&mut self, now: Instant) {
        let own = self.identity().clone();
        let cookie = self.rng.random();
        self.opener.set_cookie(now, cookie);
        self.change(now, Identity { cookie, rank: own.rank.saturating_add(1), ..own });
    }

    fn random_active(&mut self) -> Option<Identity> {
        let count = self.swim.num_active();
        if count == 0 {
            return None;
        }
        let at = self.rng.random_range(0..count);
        self.swim.active().nth(at).map(|member| member.id().clone())
    }

    /// How often a load is passed on: as foca does with its updates.
    fn load_times(&self) -> u8 {
        let n = self.table.len() as f64;
        (4.0 * (n + 2.0).log10()).ceil() as u8
    }

    fn tell_load(&mut self, now: Instant) {
        let own = &mut self.own_load;
        own.version += 1;
        own.told = own.now;
        own.told_at = Some(now);
        let (version, load) = (own.version, own.now);
        let item = LoadItem { node: self.identity().node, version, load };
        let times = self.load_times();
        self.loads.note(item, times);
        self.next.load = now + self.load_period();
    }

    /// A cluster's bytes for loads shall not grow with its square.
    fn load_period(&self) -> Duration {
        LOAD_PERIOD.max(LOAD_PERIOD * (self.table.len() as u32) / 50)
    }

    fn consider_load(&mut self, now: Instant) {
        let own = &self.own_load;
        let is_old = own.told_at.is_none_or(|at| now >= at + LOAD_REPEAT);
        if own.version == 0 || own.now.differs_from(&own.told) || is_old {
            self.tell_load(now);
        } else {
            // Looked at again after a period, told again after `LOAD_REPEAT`.
            self.next.load = now + self.load_period();
        }
    }

    fn send(&mut self, to: &Identity, body: &Body<'_>) {
        self.send_to(to.address, Way::Bound(to.cookie), body);
    }

    fn send_to(&mut self, to: SocketAddr, way: Way, body: &Body<'_>) {
        body.write(&mut self.plain);
        if self.plain.len() > body::BODY_MAX || self.transmits.len() >= TRANSMITS_MAX {
            // Only a caller that does not drain comes here; all of it is sent again.
            return;
        }
        let bytes = self.sealer.seal(way, &self.plain);
        self.transmits.push_back(MemberDatagram { to, bytes });
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("own", self.identity())
            .field("up", &self.table.len())
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// Whether these bytes are what a datagram may hold.
pub(crate) fn parse_body(bytes: &[u8]) -> bool {
    match Body::parse(bytes) {
        Ok(Body::Swim { swim, .. }) => swim.is_empty() || body::Inside::parse(swim).is_ok(),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// While nobody is known.
const JOIN_PERIOD: Duration = Duration::from_secs(1);
/// Once somebody is: joins clusters that started apart.
const SEED_PERIOD: Duration = Duration::from_secs(60);
const HEAL_PERIOD: Duration = Duration::from_secs(15);
const SYNC_PERIOD: Duration = Duration::from_secs(10);
/// Loads are told at most this often; in clusters of more than 50 nodes more seldom.
const LOAD_PERIOD: Duration = Duration::from_secs(2);
/// A load that did not change is told again, for those who missed it.
const LOAD_REPEAT: Duration = Duration::from_secs(60);
/// How often loads are passed on when there is no other datagram to put them into.
const SPREAD_PERIOD: Duration = Duration::from_millis(500);
/// A cluster of 1,000 that starts at once greets three seeds with 1,000 a second.
const WELCOMES_PER_SECOND: u32 = 500;
/// A node that joins greets each seed once a second.
const WELCOMES_PER_GREETER: u8 = 2;
/// More than a push-pull of 1,000 nodes with every other node at once would be a burst that no
/// socket takes.
const TRANSMITS_MAX: usize = 1024;

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn start() -> Instant {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "no test depends on which instant it is")]
        *START.get_or_init(Instant::now)
    }

    /// Keys with these numbers, the first one sending.
    pub(crate) fn keys(kids: &[u8]) -> ClusterKeys {
        let lines: String = kids
            .iter()
            .map(|kid| format!("shardcast-key-1:{kid:02x}:{:02x}{}\n", kid, "ab".repeat(31)))
            .collect();
        ClusterKeys::parse(&lines).unwrap()
    }

    pub(crate) fn identity(n: u8) -> Identity {
        Identity {
            node: NodeId(u32::from(n) + 1),
            cookie: [n; 8],
            address: SocketAddr::from(([192, 0, 2, n], 4700)),
            rank: 1000,
            shards: 4,
            link_port: 4701,
            version: 1,
            caps: 0,
        }
    }
}
