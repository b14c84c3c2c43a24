//! Who waits for which event of which session.
//!
//! Janus hands each event of a session to one request for news, and a request that was given
//! up still takes its event with it. So one request at a time stands for a session, whoever
//! needs news makes it when nobody else has, and what it brings is sorted for all.
//!
//! Invariants: at most one request for news per session; an event is kept only for who said
//! before that it would come; what is told of a session ends with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::events::Event;
use crate::api::{Caller, Cause, Failure, Request, answer};

/// Requests that brought nothing, half a minute each, before a result is given up.
const QUIET: u32 = 2;

/// Requests that brought other news before a result is given up: ten events each, and a room
/// of a thousand publishers tells each of all others.
const BUSY: u32 = 1000;

/// All sessions whose news is waited for. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk(Arc<Mutex<BTreeMap<u64, Session>>>);

#[derive(Debug, Default)]
struct Session {
    /// Results that will come, by transaction: from which handle, and the result.
    expected: BTreeMap<String, (u64, Option<Event>)>,
    /// Somebody asks for news.
    asking: bool,
    /// Rings when news was sorted, or somebody else should ask.
    turn: Arc<Notify>,
    /// How often there was no news.
    quiet: u32,
    /// Why there will be no more.
    over: Option<Failure>,
}

/// A result that will come. Forgotten when dropped.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    desk: &'a Desk,
    session: u64,
    transaction: String,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.desk.lock().get_mut(&self.session) {
            session.expected.remove(&self.transaction);
        }
    }
}

/// The right to ask, and the duty to let others know.
struct Asking<'a> {
    desk: &'a Desk,
    session: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.desk.lock().get_mut(&self.session) {
            session.asking = false;
            session.turn.notify_waiters();
        }
    }
}

enum Next<'a> {
    Here(Box<Event>),
    Ask(Asking<'a>),
    Wait,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        // Every change is whole, so a panic elsewhere spoils nothing here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn open(&self, session: u64) {
        self.lock().insert(session, Session::default());
    }

    pub(super) fn close(&self, session: u64) {
        if let Some(session) = self.lock().remove(&session) {
            session.turn.notify_waiters();
        }
    }

    /// To be said before the request is made: the result may come before its acknowledgement.
    pub(super) fn expect(&self, session: u64, handle: u64, transaction: String) -> Expected<'_> {
        if let Some(session) = self.lock().get_mut(&session) {
            session.expected.insert(transaction.clone(), (handle, None));
        }
        Expected { desk: self, session, transaction }
    }

    /// Waits for a result.
    pub(super) async fn result<C: Caller>(
        &self,
        caller: &C,
        call: &str,
        news: &Request,
        expected: Expected<'_>,
    ) -> Result<Event, Failure> {
        let begin = self.quiet(expected.session)?;
        for _ in 0..BUSY {
            if let Some(event) = self.turn(caller, news, &expected).await? {
                return Ok(event);
            }
            if self.quiet(expected.session)?.wrapping_sub(begin) >= QUIET {
                break;
            }
        }
        Err(Failure::new(Cause::Slow, format!("{call}: acknowledged, but no result came")))
    }

    /// Takes all news until there will be no more.
    pub(super) async fn keep<C: Caller>(
        &self,
        caller: &C,
        news: &Request,
        session: u64,
    ) -> Failure {
        // A transaction that is never made: it finds nothing.
        let nothing = Expected { desk: self, session, transaction: String::new() };
        loop {
            if let Err(failure) = self.turn(caller, news, &nothing).await {
                return failure;
            }
        }
    }

    /// Looks for the result, or asks for news, or waits until somebody did.
    async fn turn<C: Caller>(
        &self,
        caller: &C,
        news: &Request,
        expected: &Expected<'_>,
    ) -> Result<Option<Event>, Failure> {
        let ring = self.lock().get(&expected.session).map(|session| session.turn.clone());
        let ring = ring.ok_or_else(left)?;
        // Made before looking, so that a ring in between is heard.
        let rung = ring.notified();
        match self.look(expected)? {
            Next::Here(event) => return Ok(Some(*event)),
            Next::Wait => rung.await,
            Next::Ask(asking) => {
                // While this one asks, nobody rings but who leaves.
                let response = tokio::select! {
                    response = caller.wait_for_news(news.clone()) => response?,
                    () = rung => return Err(left()),
                };
                self.sort(expected.session, Event::read_all("events", &response));
                drop(asking);
            }
        }
        Ok(None)
    }

    fn look(&self, expected: &Expected<'_>) -> Result<Next<'_>, Failure> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(&expected.session).ok_or_else(left)?;
        if let Some((_, event)) = session.expected.get_mut(&expected.transaction)
            && let Some(event) = event.take()
        {
            return Ok(Next::Here(Box::new(event)));
        }
        if let Some(failure) = &session.over {
            return Err(failure.clone());
        }
        if session.asking {
            return Ok(Next::Wait);
        }
        session.asking = true;
        Ok(Next::Ask(Asking { desk: self, session: expected.session }))
    }

    fn sort(&self, session: u64, events: Result<Vec<Event>, Failure>) {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&session) else { return };
        let events = match events {
            Ok(events) => events,
            Err(failure) => {
                session.over = Some(failure);
                return;
            }
        };
        for event in events {
            match event.janus.as_str() {
                "keepalive" => session.quiet = session.quiet.wrapping_add(1),
                "hangup" => {
                    let why = answer::scrub(event.reason.as_deref().unwrap_or("no reason given"));
                    let what = format!("the server hung up: {why}");
                    session.over = Some(Failure::new(Cause::Closed, what));
                }
                "timeout" => {
                    let what = "the server forgot the session: it was not asked for news";
                    session.over = Some(Failure::new(Cause::Closed, what));
                }
                _ => session.take(event),
            }
        }
    }

    fn quiet(&self, session: u64) -> Result<u32, Failure> {
        self.lock().get(&session).map(|session| session.quiet).ok_or_else(left)
    }
}

impl Session {
    fn take(&mut self, event: Event) {
        let transaction = event.transaction.as_deref().unwrap_or_default();
        if let Some((handle, place)) = self.expected.get_mut(transaction)
            && event.sender.is_none_or(|sender| sender == *handle)
        {
            *place = Some(event);
        }
    }
}

fn left() -> Failure {
    Failure::new(Cause::Closed, "the session was left")
}
