//! What shards tell each other. Plain data; how it travels is `mesh`'s business.

use std::net::SocketAddr;
use std::sync::Arc;

use relay::seal::LinkSecret;

use crate::cluster::note::Layers;
use crate::command::{Answer, Command, ItemError};
use crate::ids::{FarShard, NodeId, ShardId};
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

/// What a link with a shard of another node is made of.
#[derive(Debug)]
pub struct Linked {
    pub far: FarShard,
    pub secret: LinkSecret,
    /// Where its datagrams go.
    pub to: SocketAddr,
    /// The largest UDP payload known to pass.
    pub mtu: u16,
    /// Names the connection of the two nodes that the secret is of.
    pub epoch: u64,
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
    /// For the shard that has the hub: whether the sender wants a link with a shard of another node.
    LinkWanted { far: FarShard, wanted: bool },
    /// For the shard that has the hub: a letter to a node, of the connection of this epoch.
    ToNode { node: NodeId, epoch: u64, letter: Vec<u8> },
    /// For the shard that has the hub: the links with a node are silent though its connection, of this
    /// epoch, is not.
    LinkSilent { node: NodeId, epoch: u64 },
    /// For the shard that has the hub: a datagram for it that the kernel brought here.
    ForHub { source: SocketAddr, bytes: Box<[u8]> },
    /// A datagram of a link of the receiver's that the kernel brought to the sender.
    LinkStray { bytes: Box<[u8]> },
    /// There is a link now with a shard of another node.
    Linked(Box<Linked>),
    /// There are none any more with this node.
    Unlinked { node: NodeId },
    /// Datagrams of this size pass to the node.
    Mtu { node: NodeId, mtu: u16 },
    /// A letter of a shard of another node.
    FromNode { letter: Vec<u8>, node: NodeId },
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
    /// Of a track of another node: the codec its packets are in, if any came, and of each layer the
    /// bytes a second, if it flows.
    Flows { mirror: FeedKey, codec: Option<u8>, rates: Arc<[Option<u64>]> },
    /// Of a track of another node: the layers that the sender wants.
    Layers { feed: FeedKey, mirror: FeedKey, layers: Layers },
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
                | Self::LinkStray { .. }
                | Self::ForHub { .. }
                | Self::Flows { .. }
                | Self::Claim { .. }
                | Self::Survey { .. }
                | Self::Surveyed { .. }
        )
    }
}
