//! What a node knows of its cluster at one moment: plain data, to be shown.
//!
//! Invariants: counts only ever grow.
//!
//! Not here: names and formats of the outside.

use std::net::SocketAddr;
use std::time::Duration;

pub use relay::members::Load;

use crate::ids::NodeId;

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    pub node: NodeId,
    pub address: SocketAddr,
    /// What we tell the others of ourselves.
    pub load: Load,
    /// The other nodes that are up, in the order of their numbers.
    pub nodes: Vec<NodeView>,
    /// Control connections, those of strangers and those closing too.
    pub connections: usize,
    pub counts: ClusterCounts,
    /// What was dropped: where, why, how often. All kinds, those that never happened too.
    pub faults: Vec<(&'static str, &'static str, u64)>,
}

/// Another node that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub node: NodeId,
    pub address: SocketAddr,
    /// The newest protocol version it speaks.
    pub version: u16,
    pub shards: u8,
    /// `None` until it was heard.
    pub load: Option<Load>,
    /// `None` while no control connection is up.
    pub rtt: Option<Duration>,
    /// UDP payload in bytes; `None` likewise.
    pub mtu: Option<u16>,
}

/// What was counted of calls and datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    /// Our calls that were answered by their node, whatever the answer.
    pub asked: u64,
    /// Our calls refused at once: too many under way.
    pub asked_busy: u64,
    /// Our calls whose node went away before it answered.
    pub asked_broken: u64,
    /// Our calls whose node did not answer in time.
    pub asked_late: u64,
    /// Calls of others that we answered.
    pub served: u64,
    /// Calls of others refused at once: too many under way.
    pub served_busy: u64,
    /// Calls of others whose connection broke before we answered.
    pub served_broken: u64,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// Messages that are no letters, and calls under a number that is taken.
    pub malformed: u64,
    /// Answers nobody waits for any more.
    pub unawaited: u64,
    /// Letters about tracks that found too much waiting for their node. They are written again.
    pub letters_dropped: u64,
    /// Connections made anew because media links were silent.
    pub links_renewed: u64,
}
