//! When something is to be done about which connection or peer.
//!
//! Invariants: each has at most one deadline, and its owner keeps a copy of it.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::members::NodeId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Conn(usize),
    Peer(NodeId),
}

#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, Key)>);

impl Deadlines {
    pub(super) fn set(&mut self, key: Key, copy: &mut Option<Instant>, at: Option<Instant>) {
        if *copy == at {
            return;
        }
        if let Some(old) = *copy {
            self.0.remove(&(old, key));
        }
        if let Some(new) = at {
            self.0.insert((new, key));
        }
        *copy = at;
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }

    /// Takes out all that are due; their owners must clear their copies.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.0.first()
            && at <= now
        {
            self.0.pop_first();
            due.push(key);
        }
        due
    }
}
