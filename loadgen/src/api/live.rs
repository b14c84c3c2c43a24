//! The sessions that stand, for whoever looks at them from another thread.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    /// By the peer's number: how the dialect calls its session.
    sessions: BTreeMap<u64, String>,
    /// Whose turn it was last.
    last: u64,
}

impl Live {
    pub fn add(&self, peer: u64, session: &str) {
        self.list().sessions.insert(peer, session.to_owned());
    }

    pub fn remove(&self, peer: u64) {
        self.list().sessions.remove(&peer);
    }

    pub fn has(&self, peer: u64) -> bool {
        self.list().sessions.contains_key(&peer)
    }

    /// One after the other, and then the first again.
    pub fn next(&self) -> Option<(u64, String)> {
        let mut list = self.list();
        let mut after = list.sessions.range((Bound::Excluded(list.last), Bound::Unbounded));
        let next = after.next().or_else(|| list.sessions.first_key_value());
        let (peer, session) = next.map(|(peer, session)| (*peer, session.clone()))?;
        list.last = peer;
        Some((peer, session))
    }

    /// Whoever panicked with it left it whole: each change is one.
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_who_is_there() {
        let live = Live::default();
        assert_eq!(live.next(), None);
        (0..3).for_each(|peer| live.add(peer, &format!("s{peer}")));
        let turns = |count: usize| -> Vec<u64> {
            (0..count).filter_map(|_| live.next()).map(|(peer, _)| peer).collect()
        };
        // Nobody had the first turn yet, which peer 0 gets in the second round.
        assert_eq!(turns(5), [1, 2, 0, 1, 2]);
        live.remove(0);
        live.add(7, "s7");
        assert_eq!(turns(3), [7, 1, 2]);
        assert!(live.has(7) && !live.has(0));
        assert_eq!(live.next(), Some((7, "s7".to_owned())));
    }
}
