//! What the HTTP side needs of the node: somebody who answers commands, what was counted, and a
//! few facts.
//!
//! Invariants: every command gets exactly one answer; the caller stops waiting after
//! [`crate::Timing::answer`], so a desk must bear that its answer is no longer wanted.
//!
//! Not here: how a command finds its session's shard.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use shards::command::{Answer, Command};
use shards::snapshot::{ApiMeters, Snapshot};

/// Takes commands to where they belong. One per shard.
pub trait Desk: 'static {
    fn ask(&self, command: Command) -> impl Future<Output = Answer>;

    fn node_info(&self) -> NodeInfo;

    /// What every shard has counted, in their order; none of one that did not answer before
    /// `until` was over.
    fn survey(
        &self,
        until: impl Future<Output = ()>,
    ) -> impl Future<Output = Vec<Option<Snapshot>>>;

    fn process(&self) -> Process;

    /// Where this shard's requests are counted.
    fn meters(&self) -> &RefCell<ApiMeters>;
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

/// What the kernel says of the process; what it keeps to itself is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    pub cpu: Duration,
    /// When it began, since 1970.
    pub started: Duration,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}
