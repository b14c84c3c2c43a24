//! One queue of deadlines per shard: sessions, tracks and waiting requests, each queued once
//! for its next moment. Entries that were overtaken are skipped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::{Engine, SessionKey};
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
    Waiter(Waiter),
}

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Deadlines {
    pub(super) fn push(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
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
