//! What the HTTP side needs of the node: somebody who answers commands, and a few facts.
//!
//! Invariants: every command gets exactly one answer; the caller stops waiting after
//! [`crate::Timing::answer`], so a desk must bear that its answer is no longer wanted.
//!
//! Not here: how a command finds its session's shard.

use std::future::Future;

use shards::command::{Answer, Command};

/// Takes commands to where they belong. One per shard.
pub trait Desk: 'static {
    fn ask(&self, command: Command) -> impl Future<Output = Answer>;

    fn node_info(&self) -> NodeInfo;
}

/// What `/healthz` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub version: &'static str,
    /// How many shards the node has.
    pub shards: usize,
    /// Sessions of this node, as far as this shard knows.
    pub sessions: Option<usize>,
    /// No new sessions are taken.
    pub draining: bool,
}
