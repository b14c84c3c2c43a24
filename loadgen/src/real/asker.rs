//! Looks at sessions by the API, at a steady rate, while media flows: how long the API takes
//! then, as nobody's join tells it.
//!
//! Invariants: a look is timed from when it was due, however late it was sent, so that a server
//! that is slow once is not asked less; it is due whether or not the ones before were answered.
//! It has a thread of its own, with real-time priority where that is allowed: what keeps the
//! generator busy is not to be taken for the server's slowness.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use shards::io::priority;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_local;

use super::http::{self, Http};
use super::worker::pin;
use crate::api::{ApiKind, Cause, Failure, Live, Target};
use crate::report::tally::{MICROS_MAX, Tally};

/// Looks that are under way or wait for a connection. A server that leaves so many unanswered
/// gets no more of them; their times run on.
const WAITING_MAX: u32 = 1024;

/// Whom to ask, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    pub target: Target,
    pub api: ApiKind,
    pub http: http::Settings,
    /// A second.
    pub rate: f64,
    pub live: Live,
    /// Where its threads are; empty: anywhere.
    pub cpus: Vec<usize>,
}

/// What came of it.
#[derive(Debug)]
pub struct Looks {
    /// From when each was due until it was answered, refused, broken or given up, microseconds.
    pub times: Histogram<u64>,
    pub failures: BTreeMap<Failure, u64>,
}

impl Default for Looks {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("valid bounds");
        Self { times, failures: BTreeMap::new() }
    }
}

impl Looks {
    /// Counts a look at that peer's session.
    fn note(&mut self, looked: Result<(), Failure>, took: Duration, peer: u64, live: &Live) {
        let cause = looked.as_ref().err().map(|failure| failure.cause);
        // However it ended, it took that long, unless it never left this machine.
        if cause != Some(Cause::Local) {
            Tally::record(&mut self.times, took);
        }
        // Who left meanwhile is rightly unknown.
        let Some(failure) = looked.err().filter(|_| live.has(peer)) else { return };
        *self.failures.entry(failure).or_default() += 1;
        // One session that the server closed is one failure, not one each round.
        if cause == Some(Cause::Closed) {
            live.remove(peer);
        }
    }
}

/// The thread.
#[derive(Debug)]
pub struct Asker {
    begin: Option<oneshot::Sender<()>>,
    end: Option<oneshot::Sender<()>>,
    found: Option<oneshot::Receiver<Result<Looks, Failure>>>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    /// Starts it. It only asks when told to.
    pub fn start(settings: Settings) -> Result<Self, Failure> {
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (result, found) = oneshot::channel();
        let thread = std::thread::Builder::new().name("asker".to_owned()).spawn(move || {
            let looks = http::run(look(&settings, begun, ended)).and_then(|looks| looks);
            let _ = result.send(looks);
        });
        let thread = thread.map_err(|error| {
            Failure::new(Cause::Local, format!("no thread to ask the API from: {error}"))
        })?;
        Ok(Self { begin: Some(begin), end: Some(end), found: Some(found), thread: Some(thread) })
    }

    pub fn begin(&mut self) {
        // One that has ended says so when it is asked for what it found.
        let _ = self.begin.take().map(|begin| begin.send(()));
    }

    /// Ends it at once. What it found is there when what is under way has been answered; once.
    pub fn end(&mut self) -> Option<oneshot::Receiver<Result<Looks, Failure>>> {
        let _ = self.end.take().map(|end| end.send(()));
        self.found.take()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        (self.begin, self.end) = (None, None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn look(
    settings: &Settings,
    begin: oneshot::Receiver<()>,
    mut end: oneshot::Receiver<()>,
) -> Result<Looks, Failure> {
    settle_in(&settings.cpus);
    let refused = |what| Failure::new(Cause::Refused, what);
    let api = Rc::new(settings.target.api(settings.api).map_err(refused)?);
    let caller = Http::new(&settings.http, Rc::new(|_, _| {}))?;
    let looks = Rc::new(RefCell::new(Looks::default()));
    let room = Arc::new(Semaphore::new(WAITING_MAX as usize));
    if begin.await.is_ok() {
        let mut beats = metronome(settings.rate, settings.cpus.clone()).map_err(|error| {
            Failure::new(Cause::Local, format!("no thread to time looks: {error}"))
        })?;
        loop {
            let next = async {
                let place = Arc::clone(&room).acquire_owned().await.ok();
                beats.recv().await.zip(place)
            };
            let (due, place) = tokio::select! {
                // Also when nobody is there any more to end it.
                _ = &mut end => break,
                next = next => match next {
                    Some(next) => next,
                    None => break,
                },
            };
            let Some((peer, session)) = settings.live.next() else { continue };
            let (api, caller, looks) = (Rc::clone(&api), caller.clone(), Rc::clone(&looks));
            let live = settings.live.clone();
            spawn_local(async move {
                let looked = api.look(&caller, &session).await;
                let mut looks = looks.borrow_mut();
                looks.note(looked, now().saturating_sub(due), peer, &live);
                drop(place);
            });
        }
        // All that is under way has ended when all places are free.
        let _ = room.acquire_many(WAITING_MAX).await;
    }
    Ok(looks.replace(Looks::default()))
}

/// Starts a thread that says when each look is due, until nobody listens. The runtime's own
/// timers go by milliseconds, as long as the looks themselves.
fn metronome(rate: f64, cpus: Vec<usize>) -> io::Result<Receiver<Duration>> {
    let (say, beats) = channel(WAITING_MAX as usize);
    std::thread::Builder::new().name("metronome".to_owned()).spawn(move || {
        settle_in(&cpus);
        let began = now();
        for number in 1u32.. {
            // Against the beginning, so that rounding does not add up.
            let due = began + Duration::from_secs_f64(f64::from(number) / rate);
            let flags = ClockNanosleepFlags::TIMER_ABSTIME;
            // A signal ends it early, by nothing that matters.
            let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, flags, &TimeSpec::from(due));
            if say.blocking_send(due).is_err() {
                return;
            }
        }
    })?;
    Ok(beats)
}

/// Puts this thread where it belongs: before the generator's other threads, off the server's CPUs,
/// which it would take with its priority. Without either, it is measured all the same.
fn settle_in(cpus: &[usize]) {
    if !cpus.is_empty() {
        let _ = pin(cpus);
    }
    priority::realtime();
}

/// On the metronome's clock.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_count_with_their_time_however_they_end_and_a_closed_session_once() {
        const TOOK: Duration = Duration::from_secs(3);
        let (live, mut looks) = (Live::default(), Looks::default());
        live.add(1, "one");
        live.add(2, "two");
        let failed = |cause| Err(Failure::new(cause, "why"));
        looks.note(Ok(()), TOOK, 1, &live);
        for cause in [Cause::Refused, Cause::Unreachable, Cause::Slow, Cause::Incomprehensible] {
            looks.note(failed(cause), TOOK, 1, &live);
        }
        assert_eq!((looks.times.len(), looks.failures.len()), (5, 4));
        // It never left this machine.
        looks.note(failed(Cause::Local), TOOK, 1, &live);
        assert_eq!((looks.times.len(), looks.failures.len()), (5, 5));
        for _ in 0..3 {
            looks.note(failed(Cause::Closed), TOOK, 2, &live);
        }
        assert!(live.has(1) && !live.has(2));
        assert_eq!(looks.failures[&Failure::new(Cause::Closed, "why")], 1);
        assert_eq!(looks.times.len(), 8);
        assert!(looks.times.min() >= 2_990_000);
    }
}
