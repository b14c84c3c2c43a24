//! What shards tell each other. Plain data; how it travels is `mesh`'s business.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::command::{Answer, Command, ItemError};
use crate::ids::{NodeId, ShardId};
use crate::media::receive::clock::SenderClock;
use crate::snapshot::Snapshot;
use crate::switch::feed::{FeedKey, TrackKey, TrackMeta};
use crate::switch::packet::Batch;

/// A request in flight: which shard's API asked, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub shard: ShardId,
    pub number: u64,
}

/// The nodes of the cluster that are up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes {
    /// Our number.
    pub own: NodeId,
    /// Those of the others, ascending.
    pub others: Vec<NodeId>,
}

impl Nodes {
    /// A node by itself.
    pub fn alone(own: NodeId) -> Self {
        Self { own, others: Vec::new() }
    }

    /// Whether it is another node that is up.
    pub fn has_other(&self, node: NodeId) -> bool {
        node != self.own && self.others.binary_search(&node).is_ok()
    }
}

/// One message from shard to shard. Keys named `feed` and `mirror` belong to the receiver.
#[derive(Debug)]
pub enum Mail {
    /// A command whose session lives at the receiver.
    Command { ticket: Ticket, command: Box<Command> },
    /// A command whose session lives on another node, for the shard that has the hub.
    Call { ticket: Ticket, command: Box<Command> },
    /// Which nodes are up now.
    Nodes(Arc<Nodes>),
    /// The answer to a command of the receiver's API.
    Answer { ticket: Ticket, answer: Box<Answer> },
    /// The sender wants a track of one of the receiver's sessions.
    Want { key: TrackKey, mirror: FeedKey },
    /// The sender wants it no more.
    Unwant { feed: FeedKey, mirror: FeedKey },
    /// The wanted track is (or will be) `feed` at the sender.
    Found { mirror: FeedKey, feed: FeedKey },
    /// The track is published; once packets of it have come, with the codec they are in.
    Published { mirror: FeedKey, meta: Arc<TrackMeta>, flowing: Option<u8> },
    /// The track goes on with more codecs or layers; those it had keep their indexes.
    Changed { mirror: FeedKey, meta: Arc<TrackMeta> },
    /// The wanted track cannot be had, for this reason.
    Refused { mirror: FeedKey, error: ItemError },
    /// The track ended; with `gone`, its session too.
    Ended { mirror: FeedKey, gone: bool },
    /// Packets of the track.
    Media { mirror: FeedKey, batch: Arc<Batch> },
    /// The publisher's clock of one source, which sends one layer.
    Clock { mirror: FeedKey, layer: u8, source: u32, clock: SenderClock },
    /// Somebody needs a keyframe of this layer.
    Keyframe { feed: FeedKey, layer: u8 },
    /// A datagram that reached the sender although its session lives at the receiver.
    Stray { source: SocketAddr, local: SocketAddr, bytes: Box<[u8]> },
    /// Datagrams from this address belong to the sender.
    Route { source: SocketAddr },
    /// They do no more.
    Unroute { source: SocketAddr },
    /// A session of the sender wants to have this address, which the receiver told it has.
    Claim { source: SocketAddr },
    /// Somebody wants to know what the receiver has counted.
    Survey { ticket: Ticket },
    /// What the sender has counted, for a survey of the receiver's API.
    Surveyed { ticket: Ticket, snapshot: Box<Snapshot> },
}

impl Mail {
    /// Media may be dropped when the other shard cannot keep up, and so may what comes again:
    /// with the next datagram, sender report, keyframe request or scrape. A peer can send those as
    /// often as it likes, so none may wait. Everything else must arrive.
    pub fn may_be_dropped(&self) -> bool {
        matches!(
            self,
            Self::Media { .. }
                | Self::Clock { .. }
                | Self::Keyframe { .. }
                | Self::Stray { .. }
                | Self::Claim { .. }
                | Self::Survey { .. }
                | Self::Surveyed { .. }
        )
    }
}
