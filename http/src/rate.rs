//! How often a session is asked.
//!
//! A token bucket per session, in a table of fixed size: a session has a few places it may
//! take, by its id's hash. A bucket unused for a second is full again and need not be kept, so
//! a place is free as soon as its session was quiet for that long.
//!
//! Invariants: memory is fixed; who stays under the limit is never refused; when all places of
//! a session are taken by others just as busy, it goes unlimited rather than refused.
//!
//! Not here: limits between shards. A client keeps its connection, so its requests come to one.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use shards::ids::SessionId;

use crate::limits::{RATE_SETS, RATE_WAYS, REQUESTS_PER_SECOND};

#[derive(Debug)]
pub struct Rates {
    sets: Vec<[Option<Bucket>; RATE_WAYS]>,
}

/// A session's bucket, as the instant it will be full again.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    session: SessionId,
    full_at: Instant,
}

impl Rates {
    pub fn new() -> Self {
        Self { sets: vec![[None; RATE_WAYS]; RATE_SETS] }
    }

    /// Counts a request of the session; false when it is one too many.
    pub fn allow(&mut self, session: SessionId, now: Instant) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(session) as usize;
        let set = &mut self.sets[hash % RATE_SETS];
        let known = |bucket: &Option<Bucket>| bucket.is_some_and(|b| b.session == session);
        let free = |bucket: &Option<Bucket>| bucket.is_none_or(|b| b.full_at <= now);
        let Some(at) = set.iter().position(known).or_else(|| set.iter().position(free)) else {
            return true;
        };
        let full_at = match set[at] {
            Some(bucket) if bucket.session == session => bucket.full_at.max(now),
            _ => now,
        };
        let after = full_at + PER_REQUEST;
        if after > now + BURST {
            return false;
        }
        set[at] = Some(Bucket { session, full_at: after });
        true
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::new()
    }
}

const BURST: Duration = Duration::from_secs(1);
const PER_REQUEST: Duration =
    Duration::from_nanos(BURST.as_nanos() as u64 / REQUESTS_PER_SECOND as u64);

#[cfg(test)]
mod tests {
    use shards::ids::{NodeId, ShardId};

    use super::*;

    #[test]
    fn fifty_at_once_and_fifty_per_second_pass() {
        let (mut rates, start) = (Rates::new(), Instant::now());
        let passed = |rates: &mut Rates, now| (0..200).filter(|_| rates.allow(id(1), now)).count();
        assert_eq!(passed(&mut rates, start), 50);
        assert_eq!(passed(&mut rates, start + Duration::from_millis(100)), 5);
        assert!(rates.allow(id(2), start), "another session is not concerned");
        assert_eq!(passed(&mut rates, start + Duration::from_secs(60)), 50);
    }

    #[test]
    fn more_sessions_than_places_are_not_refused() {
        let (mut rates, now) = (Rates::new(), Instant::now());
        let sessions = (RATE_SETS * RATE_WAYS * 3) as u64;
        assert!((0..sessions).all(|n| rates.allow(id(n), now)));
    }

    fn id(n: u64) -> SessionId {
        SessionId::new(NodeId(1), ShardId(0), n as u32 & 0xff_ffff, n)
    }
}
