//! The hub's part in media between nodes: connections held while shards want links, secrets handed
//! to them, letters taken to and fro.
//!
//! Invariants: a shard has its link's secret before the first letter of the shard at the other end;
//! a letter goes only over the connection whose link it is about, since it names lanes of that link.
//!
//! Not here: what letters say (`note`), and the links themselves (`engine`).

use std::time::Instant;

use relay::control::Class;

use super::{Cluster, Output, note};
use crate::ids::{FarShard, NodeId, ShardId};
use crate::mail::Linked;

impl Cluster {
    /// Whether shard `here` wants a link with a shard of another node.
    pub fn handle_link_wanted(&mut self, now: Instant, here: ShardId, far: FarShard, wanted: bool) {
        if wanted {
            self.links.insert((far, here));
            self.hold(now, far.node);
            self.link(far, here);
        } else {
            self.links.remove(&(far, here));
            if !self.wants_links(far.node) {
                // If it is not up, there is nothing to let go of.
                let _ = self.hub.hold(now, far.node, false);
            }
        }
        self.settle(now);
    }

    /// A letter of a shard of ours. Dropped if its connection is no more, or is too busy: what it
    /// says is said again.
    pub fn handle_letter(&mut self, now: Instant, node: NodeId, epoch: u64, letter: &[u8]) {
        if self.epoch(node) == Some(epoch)
            && self.hub.send(now, node, Class::Wants, letter).is_err()
        {
            self.counts.letters_dropped += 1;
        }
        self.settle(now);
    }

    /// A shard hears nothing over its links with a node, though the connection of this epoch is up.
    pub fn handle_link_silent(&mut self, now: Instant, node: NodeId, epoch: u64) {
        if self.epoch(node) == Some(epoch) {
            self.counts.links_renewed += 1;
            self.hub.renew(now, node);
        }
        self.settle(now);
    }

    /// Keeps a connection with a node that is up while links with it are wanted.
    pub(super) fn hold(&mut self, now: Instant, node: NodeId) {
        if self.wants_links(node) {
            // If it is not up, this is called again when it is.
            let _ = self.hub.hold(now, node, true);
        }
    }

    /// The connection with a node is up: makes the links that are wanted.
    pub(super) fn link_all(&mut self, node: NodeId) {
        let wanted: Vec<_> = self.links.range(range(node)).copied().collect();
        for (far, here) in wanted {
            self.link(far, here);
        }
    }

    pub(super) fn letter_arrived(&mut self, node: NodeId, letter: Vec<u8>) {
        match note::shards(&letter) {
            Some((from, to)) if to.0 < self.shards => {
                self.link(FarShard { node, shard: from }, to);
                self.outputs.push_back(Output::Letter { to, node, letter });
            }
            Some(_) | None => self.counts.malformed += 1,
        }
    }

    /// Gives a shard its link, if the connection is up and it has not got it yet.
    fn link(&mut self, far: FarShard, here: ShardId) {
        let FarShard { node, shard } = far;
        let Some(info) = self.hub.peer(node) else { return };
        let Some(&to) = info.links.get(shard.index()) else { return };
        let epoch = info.epoch;
        let mtu = self.hub.mtu(node).unwrap_or(relay::wire::DATAGRAM_USUAL as u16);
        let Some(secret) = self.hub.take_link(node, here.0, shard.0) else { return };
        self.outputs.push_back(Output::Linked(here, Linked { far, secret, to, mtu, epoch }));
    }

    fn epoch(&self, node: NodeId) -> Option<u64> {
        self.hub.peer(node).map(|info| info.epoch)
    }

    fn wants_links(&self, node: NodeId) -> bool {
        self.links.range(range(node)).next().is_some()
    }
}

type Wanted = (FarShard, ShardId);

fn range(node: NodeId) -> std::ops::RangeInclusive<Wanted> {
    let end = |shard| (FarShard { node, shard: ShardId(shard) }, ShardId(shard));
    end(0)..=end(u8::MAX)
}
