//! Which nodes are up, by number: SWIM's view with collisions of numbers taken out.
//!
//! Invariants: a number is visible for one address at a time, and each change of what is visible
//! is one event; of two nodes with one number the one that keeps it is visible.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::identity::{Identity, NodeId};

/// A change of what nodes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberEvent {
    /// A node is up.
    Up(NodeId),
    /// A node tells other things about itself than before.
    Changed(NodeId),
    /// A node left, died, or was replaced by a later run at its address.
    Down(NodeId),
    /// Our own number changed, since another node had it first. Ids made before name nobody.
    Renumbered { from: NodeId, to: NodeId },
}

/// The nodes that are up, without this one.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_address: BTreeMap<SocketAddr, Identity>,
    visible: BTreeMap<NodeId, SocketAddr>,
}

impl Table {
    pub(super) fn get(&self, node: NodeId) -> Option<&Identity> {
        self.by_address.get(self.visible.get(&node)?)
    }

    pub(super) fn at(&self, address: SocketAddr) -> Option<&Identity> {
        self.by_address.get(&address)
    }

    /// The visible ones, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.visible.values().filter_map(|address| self.by_address.get(address))
    }

    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn up(&mut self, identity: Identity, events: &mut VecDeque<MemberEvent>) {
        let (node, address) = (identity.node, identity.address);
        match self.by_address.insert(address, identity.clone()) {
            Some(old) if old == identity => return,
            Some(old) if old.node == node && self.visible.get(&node) == Some(&address) => {
                events.push_back(MemberEvent::Changed(node));
                return;
            }
            Some(old) => self.hide(&old, events),
            None => {}
        }
        if let Some(holder) = self.get(node) {
            if !identity.keeps_number_against(holder) {
                return;
            }
            events.push_back(MemberEvent::Down(node));
        }
        self.visible.insert(node, address);
        events.push_back(MemberEvent::Up(node));
    }

    pub(super) fn down(&mut self, address: SocketAddr, events: &mut VecDeque<MemberEvent>) {
        if let Some(old) = self.by_address.remove(&address) {
            self.hide(&old, events);
        }
    }

    /// The identity is no more; another with its number may have waited for that.
    fn hide(&mut self, old: &Identity, events: &mut VecDeque<MemberEvent>) {
        if self.visible.get(&old.node) != Some(&old.address) {
            return;
        }
        self.visible.remove(&old.node);
        events.push_back(MemberEvent::Down(old.node));
        let waiting = self.by_address.values().find(|other| other.node == old.node);
        if let Some(other) = waiting {
            self.visible.insert(other.node, other.address);
            events.push_back(MemberEvent::Up(other.node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::identity;
    use super::MemberEvent::{Changed, Down, Up};
    use super::*;

    fn events(of: &mut VecDeque<MemberEvent>) -> Vec<MemberEvent> {
        of.drain(..).collect()
    }

    #[test]
    fn a_restart_at_an_address_is_the_end_of_the_old_number() {
        let (mut table, mut out) = (Table::default(), VecDeque::new());
        let old = identity(1);
        table.up(old.clone(), &mut out);
        table.up(identity(1), &mut out);
        assert_eq!(events(&mut out), [Up(old.node)]);
        table.up(Identity { rank: 99, ..identity(1) }, &mut out);
        assert_eq!(events(&mut out), [Changed(old.node)]);
        let new = Identity { node: NodeId(77), ..identity(1) };
        table.up(new.clone(), &mut out);
        assert_eq!(events(&mut out), [Down(old.node), Up(NodeId(77))]);
        assert_eq!((table.get(old.node), table.get(new.node)), (None, Some(&new)));
        table.down(new.address, &mut out);
        table.down(new.address, &mut out);
        assert_eq!((events(&mut out), table.len()), (vec![Down(NodeId(77))], 0));
    }

    #[test]
    fn of_two_with_one_number_the_earlier_is_visible_in_either_order() {
        let early = Identity { node: NodeId(5), rank: 10, ..identity(1) };
        let late = Identity { node: NodeId(5), rank: 20, ..identity(2) };
        for order in [[&early, &late], [&late, &early]] {
            let (mut table, mut out) = (Table::default(), VecDeque::new());
            for identity in order {
                table.up(identity.clone(), &mut out);
            }
            assert_eq!(table.get(NodeId(5)), Some(&early));
            assert_eq!(table.iter().count(), 1);
            out.clear();
            table.down(early.address, &mut out);
            assert_eq!(events(&mut out), [Down(NodeId(5)), Up(NodeId(5))]);
            assert_eq!(table.get(NodeId(5)), Some(&late));
        }
    }
}
