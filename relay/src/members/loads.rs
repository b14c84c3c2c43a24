//! What changes while nodes run: how loaded each is, and whether it drains. Each node tells its
//! own load, the others pass it on with what they send anyway; the newest version wins.
//!
//! This is beside SWIM's own broadcasts, not in them, so that the bytes are bounded: the loads
//! of a big cluster spread more slowly, never with more traffic.
//!
//! Invariants: only known nodes have a load; a datagram carries at most [`PER_DATAGRAM`].
//!
//! Not here: when a node tells its load (`Members`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// Loads in one datagram: 16 bytes each, so that a probe stays under 300 bytes.
pub(super) const PER_DATAGRAM: usize = 8;

/// How loaded a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Sessions it has.
    pub sessions: u32,
    /// Tracks it sends to them.
    pub pulls: u32,
    /// Its busiest shard's share of a core, in thousandths.
    pub cpu_permille: u16,
    /// It takes no more sessions.
    pub draining: bool,
}

impl Load {
    /// Whether others would decide otherwise, had they known.
    pub(super) fn differs_from(&self, told: &Self) -> bool {
        let apart = |now: u32, told: u32| now.abs_diff(told) > told / 20 + 4;
        self.draining != told.draining
            || apart(self.sessions, told.sessions)
            || apart(self.pulls, told.pulls)
            || self.cpu_permille.abs_diff(told.cpu_permille) > 50
    }
}

/// The load of a node, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoadItem {
    pub(super) node: NodeId,
    pub(super) version: u32,
    pub(super) load: Load,
}

/// The newest known load of each node.
#[derive(Debug, Default)]
pub(super) struct Loads {
    known: BTreeMap<NodeId, Told>,
    /// Entries that are still to be passed on.
    pending: usize,
}

#[derive(Debug, Default)]
struct Told {
    version: u32,
    load: Load,
    /// How often it is still to be passed on.
    left: u8,
}

impl Loads {
    /// Notes a load; whether it was news. It will be passed on `times` times.
    pub(super) fn note(&mut self, item: LoadItem, times: u8) -> bool {
        let told = self.known.entry(item.node).or_default();
        if item.version <= told.version {
            return false;
        }
        self.pending += usize::from(times > 0);
        self.pending -= usize::from(told.left > 0);
        *told = Told { version: item.version, load: item.load, left: times };
        true
    }

    pub(super) fn get(&self, node: NodeId) -> Option<LoadItem> {
        let told = self.known.get(&node)?;
        Some(LoadItem { node, version: told.version, load: told.load })
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(told) = self.known.remove(&node) {
            self.pending -= usize::from(told.left > 0);
        }
    }

    /// Whether any load is still to be passed on.
    pub(super) fn has_pending(&self) -> bool {
        self.pending > 0
    }

    /// What to put into the next datagram: those that were passed on least.
    pub(super) fn take(&mut self, out: &mut Vec<LoadItem>) {
        if self.pending == 0 {
            return;
        }
        let mut best: Vec<(u8, NodeId)> = Vec::with_capacity(PER_DATAGRAM + 1);
        for (&node, told) in &self.known {
            let full = best.len() == PER_DATAGRAM;
            if told.left == 0 || full && told.left <= best[PER_DATAGRAM - 1].0 {
                continue;
            }
            let at = best.partition_point(|(left, _)| *left >= told.left);
            best.insert(at, (told.left, node));
            best.truncate(PER_DATAGRAM);
        }
        for (_, node) in best {
            if let Some(told) = self.known.get_mut(&node) {
                told.left -= 1;
                self.pending -= usize::from(told.left == 0);
                out.push(LoadItem { node, version: told.version, load: told.load });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(node: u32, version: u32) -> LoadItem {
        let load = Load { sessions: version, ..Load::default() };
        LoadItem { node: NodeId(node), version, load }
    }

    #[test]
    fn the_newest_version_wins_and_is_passed_on_so_often() {
        let mut loads = Loads::default();
        assert!(loads.note(item(1, 2), 3));
        assert!(!loads.note(item(1, 2), 3) && !loads.note(item(1, 1), 3));
        let mut out = Vec::new();
        while loads.has_pending() {
            loads.take(&mut out);
        }
        assert_eq!(out, [item(1, 2); 3]);
        assert!(loads.note(item(1, 3), 1));
        assert_eq!(loads.get(NodeId(1)), Some(item(1, 3)));
        loads.forget(NodeId(1));
        assert_eq!((loads.get(NodeId(1)), loads.has_pending()), (None, false));
    }

    #[test]
    fn a_datagram_takes_those_passed_on_least() {
        let mut loads = Loads::default();
        for node in 0..20 {
            loads.note(item(node, 1), if node % 2 == 0 { 2 } else { 9 });
        }
        let mut out = Vec::new();
        loads.take(&mut out);
        assert_eq!(out.len(), PER_DATAGRAM);
        assert!(out.iter().all(|item| item.node.0 % 2 == 1));
    }

    #[test]
    fn a_load_is_told_again_when_it_matters() {
        let told = Load { sessions: 1000, pulls: 10, cpu_permille: 500, draining: false };
        assert!(!Load { sessions: 1050, cpu_permille: 540, ..told }.differs_from(&told));
        assert!(Load { sessions: 1060, ..told }.differs_from(&told));
        assert!(Load { pulls: 15, ..told }.differs_from(&told));
        assert!(Load { cpu_permille: 440, ..told }.differs_from(&told));
        assert!(Load { draining: true, ..told }.differs_from(&told));
    }
}
