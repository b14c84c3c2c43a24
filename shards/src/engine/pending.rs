//! Requests that wait: for their session's transport, or for the tracks they pull.
//!
//! Invariants: every one has a deadline; bounded per session and per shard; a session that
//! ends answers its own.

use std::time::Instant;

use super::deadlines::Due;
use super::{Engine, SessionKey};
use crate::command::{Command, Refusal};
use crate::limits::{PENDING_PER_SESSION, PENDING_PER_SHARD};
use crate::mail::Ticket;
use crate::switch::feed::Waiter;

use super::pull::Seeking;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) session: SessionKey,
    /// The last moment to look again.
    pub(super) deadline: Instant,
    pub(super) wait: Wait,
}

#[derive(Debug)]
pub(super) enum Wait {
    /// For the session to connect; then the command is done.
    Transport { command: Command },
    /// For the tracks of a pull or an update.
    Tracks(Box<Seeking>),
}

impl Engine {
    /// Makes a request wait.
    pub(super) fn park(&mut self, pending: Pending) {
        let Pending { ticket, session: key, deadline, .. } = pending;
        let full = self.pending.len() >= PENDING_PER_SHARD;
        let waiter = self.next_waiter;
        match self.sessions.get_mut(key) {
            Some(session) if !full && session.waiters.len() < PENDING_PER_SESSION => {
                session.waiters.push(waiter);
            }
            _ => {
                self.give_up(pending);
                return self.answer(ticket, Err(Refusal::Busy("requests that wait".into())));
            }
        }
        self.next_waiter += 1;
        if let Wait::Tracks(seeking) = &pending.wait {
            for feed in seeking.feeds() {
                if let Some(feed) = self.feeds.get_mut(feed) {
                    feed.waiters.push(waiter);
                }
            }
        }
        self.pending.insert(waiter, pending);
        self.deadlines.push(deadline, Due::Waiter(waiter));
        // What it waits for may be there already.
        self.woken.push(waiter);
    }

    pub(super) fn wake_all_of(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get(key) {
            self.woken.extend_from_slice(&session.waiters);
        }
    }

    /// Looks at every request that may have something to do now.
    pub(super) fn resume_woken(&mut self, now: Instant) {
        // In the order in which they came to wait, so that the first request of a session is
        // the first to be done.
        while !self.woken.is_empty() {
            let mut woken = std::mem::take(&mut self.woken);
            woken.sort_unstable();
            woken.dedup();
            for waiter in woken {
                self.resume(waiter, now);
            }
        }
    }

    fn resume(&mut self, waiter: Waiter, now: Instant) {
        let Some(pending) = self.pending.get_mut(&waiter) else { return };
        let Some(session) = self.sessions.get(pending.session) else {
            return self.session_gone(waiter);
        };
        match &mut pending.wait {
            Wait::Transport { .. } => {
                if session.connected || pending.deadline <= now {
                    let connected = session.connected;
                    self.transport_settled(waiter, connected, now);
                }
            }
            Wait::Tracks(seeking) => match seeking.settle(&self.feeds, now) {
                None => self.tracks_settled(waiter, now),
                // Queued once for each new deadline, however often it is woken.
                Some(deadline) if deadline != pending.deadline => {
                    pending.deadline = deadline;
                    self.deadlines.push(deadline, Due::Waiter(waiter));
                }
                Some(_) => {}
            },
        }
    }

    fn transport_settled(&mut self, waiter: Waiter, connected: bool, now: Instant) {
        let Some(Pending { ticket, wait: Wait::Transport { command }, .. }) = self.unpark(waiter)
        else {
            return;
        };
        if connected {
            self.execute(ticket, command, true, now);
        } else {
            self.answer(ticket, Err(Refusal::NotReady));
        }
    }

    fn tracks_settled(&mut self, waiter: Waiter, now: Instant) {
        let Some(Pending { ticket, session, wait: Wait::Tracks(seeking), .. }) =
            self.unpark(waiter)
        else {
            return;
        };
        let feeds: Vec<_> = seeking.feeds().collect();
        self.finish_seeking(ticket, session, *seeking, now);
        for feed in feeds {
            self.stop_waiting(feed, waiter);
        }
    }

    fn session_gone(&mut self, waiter: Waiter) {
        if let Some(pending) = self.unpark(waiter) {
            let ticket = pending.ticket;
            let session = match &pending.wait {
                Wait::Transport { command } => command.ask.session().map(|id| id.to_string()),
                Wait::Tracks(seeking) => Some(seeking.subscriber.to_string()),
            };
            if let Wait::Tracks(seeking) = &pending.wait {
                for feed in seeking.feeds().collect::<Vec<_>>() {
                    self.stop_waiting(feed, waiter);
                }
            }
            let session = session.unwrap_or_default();
            self.answer(ticket, Err(Refusal::Gone { session, publisher: false }));
        }
    }

    /// Releases the tracks of a request that was never parked.
    fn give_up(&mut self, pending: Pending) {
        if let Wait::Tracks(seeking) = pending.wait {
            for feed in seeking.feeds().collect::<Vec<_>>() {
                self.release_feed(feed);
            }
        }
    }

    fn unpark(&mut self, waiter: Waiter) -> Option<Pending> {
        let pending = self.pending.remove(&waiter)?;
        if let Some(session) = self.sessions.get_mut(pending.session) {
            session.waiters.retain(|&other| other != waiter);
        }
        Some(pending)
    }
}
