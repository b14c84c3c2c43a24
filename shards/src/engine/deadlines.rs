//! One queue of deadlines per shard: sessions, tracks and waiting requests, each queued once
//! for its next moment. Entries that were overtaken are skipped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::{Engine, SessionKey};
use crate::ids::FarShard;
use crate::switch::feed::{FeedKey, Waiter};

/// A session that was looked at rests this long: the resolution of its timers.
const AT_LEAST: Duration = Duration::from_millis(1);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Session(SessionKey),
    /// A keyframe request may go out again.
    Keyframe(FeedKey),
    /// Pulls of a simulcast track look at its layers.
    Layers(FeedKey),
    /// A link's turn, or the wants of its peer.
    Link(FarShard),
    Waiter(Waiter),
}

/// Entries that are worth no search for overtaken ones.
const FEW: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
    /// Twice what was live when last looked.
    limit: usize,
}

impl Deadlines {
    pub(super) fn push(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Forgets what was overtaken, once it may be half of all: a session that is put forward
    /// with each packet leaves an entry each time.
    fn trim(&mut self, is_live: impl Fn(Instant, Due) -> bool) {
        if self.heap.len() <= self.limit.max(FEW) {
            return;
        }
        self.heap.retain(|Reverse((at, due))| is_live(*at, *due));
        self.limit = 2 * self.heap.len();
    }

    fn pop(&mut self, now: Instant) -> Option<(Instant, Due)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Engine {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, due)) = self.deadlines.pop(now) {
            match due {
                Due::Session(key) => {
                    self.guarded(now, |_| Some(key), |this| this.session_due(key, at, now));
                }
                Due::Keyframe(key) => self.keyframes_due(key, now),
                Due::Layers(key) => self.review_layers(key, now),
                Due::Link(far) => self.link_due(far, at, now),
                Due::Waiter(waiter) => self.woken.push(waiter),
            }
        }
        self.resume_woken(now);
    }

    /// Queues a session for `at`, unless it is queued for an earlier moment already.
    pub(super) fn schedule(&mut self, key: SessionKey, at: Instant) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.due.is_none_or(|due| due > at)
        {
            session.due = Some(at);
            self.deadlines.push(at, Due::Session(key));
            let sessions = &self.sessions;
            self.deadlines.trim(|at, due| match due {
                Due::Session(key) => {
                    sessions.get(key).is_some_and(|session| session.due == Some(at))
                }
                Due::Keyframe(_) | Due::Layers(_) | Due::Link(_) | Due::Waiter(_) => true,
            });
        }
    }

    /// Everything a session does by the clock.
    fn session_due(&mut self, key: SessionKey, at: Instant, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.due != Some(at) {
            return;
        }
        session.due = None;
        if self.expire(key, now) {
            return;
        }
        self.abandon_late_offer(key, now);
        self.drive_transport(key, now);
        self.report(key, now);
        if let Some(at) = self.next_deadline(key) {
            // A deadline that stays in the past must not keep the shard turning.
            self.schedule(key, at.max(now + AT_LEAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Key;
    use crate::testing::start;

    #[test]
    fn a_session_put_forward_again_and_again_does_not_pile_up() {
        let (mut deadlines, start) = (Deadlines::default(), start());
        let keyframe = (start, Due::Keyframe(Key::dangling()));
        deadlines.push(keyframe.0, keyframe.1);
        for n in (1..10_000).rev() {
            let at = start + Duration::from_millis(n);
            deadlines.push(at, Due::Session(Key::dangling()));
            deadlines.trim(|when, due| when == at || due == keyframe.1);
            assert!(deadlines.heap.len() <= FEW + 1);
        }
        assert_eq!(deadlines.pop(start), Some(keyframe), "what is live stays");
        assert_eq!(deadlines.next(), Some(start + Duration::from_millis(1)));
    }
}
