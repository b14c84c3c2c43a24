//! The media of a shard as a pure machine: datagrams, mail and commands in; datagrams, mail
//! and answers out; time as an argument.
//!
//! Cut by phase: `intake` (datagrams), `execute` and its children (commands), `pending`
//! (commands that wait), `mailroom` (mail), `feeds` (tracks and who wants them), `deadlines`,
//! `feedback` (RTCP), `spread` (fan-out). The rim calls the `handle_*` functions with what has
//! arrived, then [`Engine::spread`] until it says [`Progress::Done`].
//!
//! Invariants: nothing here waits; every table is bounded by `limits`; a fault in one
//! session's input ends at most that session.
//!
//! Not here: sockets, clocks, threads, HTTP.

mod bind;
mod close;
mod deadlines;
mod execute;
mod exports;
mod feedback;
mod feeds;
mod guard;
mod intake;
mod lines;
mod links;
mod mailroom;
mod outlets;
mod pending;
mod pull;
mod push;
mod sessions;
mod spread;
mod update;
mod wants;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use self::deadlines::Deadlines;
pub use self::links::LinkView;
use self::links::Links;
use self::pending::Pending;
use self::sessions::Holder;
use self::spread::{Resend, Run};
use crate::command::Answer;
use crate::ids::{NodeId, ShardId};
use crate::limits;
use crate::mail::{Mail, Nodes, Ticket};
use crate::meters::{Holdings, Meters};
use crate::outbox::Destination;
use crate::session::recheck::Reply;
use crate::session::{DtlsCert, Session};
use crate::slots::{Key, Slots};
use crate::switch::feed::{Feed, FeedKey, TrackKey, Waiter};
use crate::switch::packet::BatchPool;
use crate::switch::pull::Pull;

pub use self::spread::Progress;

pub(crate) type SessionKey = Key<Session>;

/// What a shard is told at its start, for good.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This run of the node, until [`Mail::Nodes`] says otherwise.
    pub node: NodeId,
    pub shard: ShardId,
    /// How many shards this node has.
    pub shards: usize,
    /// Our certificate, one per node.
    pub cert: DtlsCert,
    /// ICE host candidates of this shard, best first.
    pub candidates: Arc<[SocketAddr]>,
}

impl EngineConfig {
    /// The node's other shards.
    fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.shard;
        (0..self.shards).map(|shard| ShardId(shard as u8)).filter(move |&shard| shard != me)
    }
}

/// Everything a shard knows.
pub struct Engine {
    config: EngineConfig,
    nodes: Arc<Nodes>,
    /// The origin of all relative times on the wire.
    epoch: Instant,
    random: Box<dyn FnMut() -> u64>,
    sessions: Slots<Session>,
    feeds: Slots<Feed>,
    pulls: Slots<Pull>,
    registry: HashMap<TrackKey, FeedKey>,
    /// Which session a datagram's source belongs to.
    addresses: HashMap<SocketAddr, Holder>,
    /// Which other shard a datagram's source belongs to.
    routes: HashMap<SocketAddr, ShardId>,
    pending: BTreeMap<Waiter, Pending>,
    next_waiter: Waiter,
    /// Waiting requests that may have something to do.
    woken: Vec<Waiter>,
    deadlines: Deadlines,
    links: Links,
    pool: BatchPool,
    /// Feeds that got packets in this turn; with how many, if the rest of a frame is waited for.
    touched: Vec<(FeedKey, Option<usize>)>,
    runs: VecDeque<Run>,
    resends: VecDeque<Resend>,
    /// Datagrams other than media: (remote, local, bytes).
    control: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Answers to checks that told nothing new.
    rechecks: VecDeque<(Destination, Reply)>,
    mail: Vec<(ShardId, Mail)>,
    answers: Vec<(Ticket, Answer)>,
    /// Decrypted payloads and reports pass through here.
    scratch: Vec<u8>,
    draining: bool,
    next_source: u32,
    meters: Meters,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("shard", &self.config.shard)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// `random` must be unpredictable: ids, ICE passwords and SSRCs come from it.
    pub fn new(config: EngineConfig, now: Instant, random: Box<dyn FnMut() -> u64>) -> Self {
        Self {
            nodes: Arc::new(Nodes::alone(config.node)),
            config,
            epoch: now,
            random,
            sessions: Slots::new(limits::SESSIONS_PER_SHARD),
            feeds: Slots::new(limits::FEEDS_PER_SHARD),
            pulls: Slots::new(limits::PULLS_PER_SHARD),
            registry: HashMap::new(),
            addresses: HashMap::new(),
            routes: HashMap::new(),
            pending: BTreeMap::new(),
            next_waiter: 0,
            woken: Vec::new(),
            deadlines: Deadlines::default(),
            links: Links::default(),
            pool: BatchPool::default(),
            touched: Vec::new(),
            runs: VecDeque::new(),
            resends: VecDeque::new(),
            control: VecDeque::new(),
            rechecks: VecDeque::new(),
            mail: Vec::new(),
            answers: Vec::new(),
            scratch: vec![0; limits::DATAGRAM_LEN.next_power_of_two()],
            draining: false,
            next_source: 1,
            meters: Meters::default(),
        }
    }

    /// Mail for other shards since the last call.
    pub fn poll_mail(&mut self) -> std::vec::Drain<'_, (ShardId, Mail)> {
        self.mail.drain(..)
    }

    /// Answers to commands of this shard's API since the last call.
    pub fn poll_answers(&mut self) -> std::vec::Drain<'_, (Ticket, Answer)> {
        self.answers.drain(..)
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// How much this shard carries, for the placement of new sessions: sessions, and what
    /// they cost most, pulls.
    pub fn load(&self) -> u32 {
        (self.sessions.len() + self.pulls.len()) as u32
    }

    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    pub fn holdings(&self) -> Holdings {
        Holdings {
            sessions: self.sessions.len(),
            tracks: self.feeds.len(),
            pulls: self.pulls.len(),
        }
    }

    /// Tracks known here: published, mirrored, or asked for.
    pub fn feeds(&self) -> usize {
        self.feeds.len()
    }

    /// Nothing is held for anybody: what must be true after all sessions of the node have gone.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.feeds.is_empty()
            && self.pulls.is_empty()
            && self.registry.is_empty()
            && self.addresses.is_empty()
            && self.routes.is_empty()
            && self.pending.is_empty()
            && self.runs.is_empty()
            && self.resends.is_empty()
            && self.control.is_empty()
            && self.rechecks.is_empty()
            && self.mail.is_empty()
            && self.links.is_empty()
    }

    fn post(&mut self, shard: ShardId, mail: Mail) {
        self.mail.push((shard, mail));
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if ticket.shard == self.config.shard {
            self.answers.push((ticket, answer));
        } else {
            self.post(ticket.shard, Mail::Answer { ticket, answer: Box::new(answer) });
        }
    }
}
