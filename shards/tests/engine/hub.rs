//! The hubs of all nodes in one: connects nodes at once, and carries letters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use relay::seal::{End, LinkSecret, PairSecret};
use relay::wire::{DATAGRAM_USUAL, LinkId};
use shards::cluster::note::{self, Notes};
use shards::ids::{FarShard, NodeId, ShardId};
use shards::mail::{Linked, Mail};

pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(node as u32 + 1)
}

/// Where a node's links come and go.
pub(crate) fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 9, node as u8 + 1], 7000))
}

pub(crate) fn node_at(address: SocketAddr) -> Option<usize> {
    (0..250).find(|&node| self::address(node) == address)
}

/// One end of a link: engine, and the shard there.
type Wanted = (usize, FarShard);

pub(crate) struct Hub {
    nodes: usize,
    wanted: BTreeSet<Wanted>,
    given: BTreeSet<Wanted>,
    /// Which pairs are connected, by the lower node; and how often they were.
    down: BTreeSet<(usize, usize)>,
    epochs: BTreeMap<(usize, usize), u64>,
    out: VecDeque<(usize, Mail)>,
    /// Letters that were carried.
    pub(crate) letters: Vec<Notes>,
    /// Whether to lose the next letters.
    pub(crate) loses: bool,
}

impl Hub {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            wanted: BTreeSet::new(),
            given: BTreeSet::new(),
            down: BTreeSet::new(),
            epochs: BTreeMap::new(),
            out: VecDeque::new(),
            letters: Vec::new(),
            loses: false,
        }
    }

    /// Takes what is for the hub; gives back what is not.
    pub(crate) fn take(&mut self, engine: usize, shards: usize, mail: Mail) -> Option<Mail> {
        let own = engine / shards;
        match mail {
            Mail::LinkWanted { far, wanted: true } => {
                self.wanted.insert((engine, far));
                self.link(engine, far, shards);
            }
            Mail::LinkWanted { far, wanted: false } => {
                self.wanted.remove(&(engine, far));
            }
            Mail::ToNode { node, epoch, letter } => {
                let to = index(node);
                if self.loses || self.epoch(own, to) != Some(epoch) {
                    return None;
                }
                let (from, shard) = note::shards(&letter).unwrap();
                self.letters.push(Notes::read(&letter).unwrap());
                let there = to * shards + shard.index();
                self.link(there, FarShard { node: node_id(own), shard: from }, shards);
                self.out.push_back((there, Mail::FromNode { node: node_id(own), letter }));
            }
            Mail::LinkSilent { .. } | Mail::ForHub { .. } => {}
            other => return Some(other),
        }
        None
    }

    pub(crate) fn poll(&mut self, _shards: usize) -> Vec<(usize, Mail)> {
        self.out.drain(..).collect()
    }

    /// Breaks the connection of two nodes until [`Self::connect`].
    pub(crate) fn disconnect(&mut self, a: usize, b: usize, shards: usize) {
        self.down.insert((a.min(b), a.max(b)));
        for (one, other) in [(a, b), (b, a)] {
            for engine in one * shards..(one + 1) * shards {
                self.given.retain(|(at, far)| *at != engine || index(far.node) != other);
                self.out.push_back((engine, Mail::Unlinked { node: node_id(other) }));
            }
        }
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize, shards: usize) {
        let pair = (a.min(b), a.max(b));
        self.down.remove(&pair);
        *self.epochs.entry(pair).or_insert(1) += 1;
        for (engine, far) in self.wanted.clone() {
            self.link(engine, far, shards);
        }
    }

    fn epoch(&self, a: usize, b: usize) -> Option<u64> {
        let pair = (a.min(b), a.max(b));
        (b < self.nodes && !self.down.contains(&pair))
            .then(|| self.epochs.get(&pair).copied().unwrap_or(1))
    }

    fn link(&mut self, engine: usize, far: FarShard, shards: usize) {
        let (own, other) = (engine / shards, index(far.node));
        let Some(epoch) = self.epoch(own, other) else { return };
        if !self.given.insert((engine, far)) {
            return;
        }
        let end = |node: usize, of: usize, shard: ShardId| End {
            node: node_id(node).0.into(),
            shard: shard.0,
            link: LinkId::new(100 + of as u32).unwrap(),
        };
        let here = end(own, other, ShardId((engine % shards) as u8));
        let there = end(other, own, far.shard);
        let pair = PairSecret::new(&[epoch as u8; 32]);
        let (to, mtu) = (address(other), DATAGRAM_USUAL as u16);
        let secret = LinkSecret::new(pair, here, there);
        let linked = Linked { far, secret, to, mtu, epoch };
        self.out.push_back((engine, Mail::Linked(Box::new(linked))));
    }
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}
