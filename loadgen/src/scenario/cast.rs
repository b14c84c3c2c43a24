//! Everybody in a run, and how one of them joins, watches, and leaves.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_local};

use super::cue::Cue;
use crate::api::{Api, Caller, Failure, Joined, Kind, Live, Pull, Push, Source};
use crate::real::clock;
use crate::real::orders::{Hand, Line};
use crate::report::tally::Tally;

/// What all peers of a run share.
#[derive(Debug)]
pub struct Cast<C> {
    pub api: Api,
    pub caller: C,
    workers: Vec<Line>,
    /// Peers and tracks made so far: the next one's number, worker and name.
    peers: Cell<u64>,
    tracks: Cell<u32>,
    /// Makes names unique among runs.
    run: u64,
    /// What is counted here and not by the workers: joins, API calls, failures.
    pub tally: Rc<RefCell<Tally>>,
    patience: Duration,
    /// Who is there.
    pub live: Live,
}

/// A track somebody publishes.
#[derive(Debug, Clone)]
pub struct Track {
    pub kind: Kind,
    name: String,
    source: Source,
    /// What its stamps say.
    number: u32,
}

/// A peer that has joined.
#[derive(Debug)]
pub struct Member {
    /// Among all peers of the run.
    number: u64,
    pub hand: Hand,
    pub joined: Joined,
    pub tracks: Vec<Track>,
    keeper: Keeper,
}

/// What keeps a session alive at the API, from its join until it leaves.
#[derive(Debug)]
struct Keeper {
    task: JoinHandle<()>,
    /// Its end is meant.
    leaving: Rc<Cell<bool>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<C: Caller + Clone + 'static> Cast<C> {
    pub fn new(
        api: Api,
        caller: C,
        workers: Vec<Line>,
        tally: Rc<RefCell<Tally>>,
        patience: Duration,
    ) -> Self {
        let run = caller.random();
        let (peers, tracks) = (Cell::new(0), Cell::new(0));
        let live = Live::default();
        Self { api, caller, workers, peers, tracks, run, tally, patience, live }
    }

    /// Joins: publishes these kinds, pulls those tracks. Failures are counted; `None` then.
    pub async fn join(&self, kinds: &[Kind], pulls: &[Track]) -> Option<Member> {
        self.tally.borrow_mut().begun += 1;
        let member = self.try_join(kinds, pulls).await;
        let member = member.map_err(|failure| self.tally.borrow_mut().fail(failure)).ok()?;
        member.hand.publish(!kinds.is_empty());
        Some(member)
    }

    /// Joins with tracks that are never sent.
    pub async fn join_silently(&self, kinds: &[Kind]) -> Option<Member> {
        self.tally.borrow_mut().begun += 1;
        let member = self.try_join(kinds, &[]).await;
        member.map_err(|failure| self.tally.borrow_mut().fail(failure)).ok()
    }

    async fn try_join(&self, kinds: &[Kind], pulls: &[Track]) -> Result<Member, Failure> {
        let began = clock::moment().now;
        let number = self.peers.get();
        self.peers.set(number + 1);
        let worker = &self.workers[number as usize % self.workers.len()];
        let hand = worker.open(self.run.wrapping_add(number.wrapping_mul(SPREAD))).await?;
        let pushes: Vec<Push> = kinds.iter().map(|kind| self.push(*kind, number)).collect();
        let wanted: Vec<Pull> = pulls.iter().map(Track::pull).collect();
        let joined = self.api.join(&self.caller, &hand, &pushes, &wanted).await?;
        let keeper = self.keep(&joined);
        let member = Member { number, keeper, hand, joined, tracks: Vec::new() };
        self.arrive(member, pushes, pulls, began).await
    }

    /// The rest of a join, once the API has done its part. Who does not arrive leaves nothing
    /// behind on the server.
    async fn arrive(
        &self,
        mut member: Member,
        pushes: Vec<Push>,
        pulls: &[Track],
        began: Instant,
    ) -> Result<Member, Failure> {
        for (push, mid) in pushes.into_iter().zip(&member.joined.pushed) {
            let number = self.tracks.get() + 1;
            self.tracks.set(number);
            member.hand.expect(mid, number);
            let (kind, name, source) = (push.kind, push.name, member.joined.source.clone());
            member.tracks.push(Track { kind, name, source, number });
        }
        let is_to_flow = self.expect(&member.hand, &member.joined.pulled, pulls);
        match self.wait_for(&member.hand, is_to_flow, began).await {
            Ok(()) => {
                self.live.add(member.number, &member.joined.session);
                Ok(member)
            }
            Err(failure) => {
                member.keeper.leaving.set(true);
                // That it could not be told either changes nothing.
                let _ = self.api.leave(&self.caller, &member.joined).await;
                Err(failure)
            }
        }
    }

    async fn wait_for(&self, hand: &Hand, is_to_flow: bool, began: Instant) -> Result<(), Failure> {
        hand.connected(self.patience).await?;
        let elapsed = || clock::moment().now.saturating_duration_since(began);
        Tally::record(&mut self.tally.borrow_mut().join, elapsed());
        if is_to_flow {
            hand.flowing(self.patience).await?;
            Tally::record(&mut self.tally.borrow_mut().first_media, elapsed());
        }
        Ok(())
    }

    /// Keeps a session alive; an end that nobody asked for is a failure.
    fn keep(&self, joined: &Joined) -> Keeper {
        let (api, caller, joined) = (self.api.clone(), self.caller.clone(), joined.clone());
        let (tally, leaving) = (Rc::clone(&self.tally), Rc::new(Cell::new(false)));
        let meant = Rc::clone(&leaving);
        let task = spawn_local(async move {
            let failure = api.keep(&caller, &joined).await;
            if !meant.get() {
                tally.borrow_mut().fail(failure);
            }
        });
        Keeper { task, leaving }
    }

    /// Pulls more tracks; says how long until they flow.
    pub async fn pull_more(&self, member: &mut Member, pulls: &[Track]) -> Result<(), Failure> {
        let began = clock::moment().now;
        let wanted: Vec<Pull> = pulls.iter().map(Track::pull).collect();
        let before = member.joined.pulled.len();
        let (hand, joined) = (&member.hand, &mut member.joined);
        self.api.pull_more(&self.caller, hand, joined, &wanted).await?;
        if self.expect(hand, &joined.pulled[before..], pulls) {
            hand.flowing(self.patience).await?;
            let elapsed = clock::moment().now.saturating_duration_since(began);
            Tally::record(&mut self.tally.borrow_mut().first_media, elapsed);
        }
        Ok(())
    }

    /// Whether anything is to flow.
    fn expect(&self, hand: &Hand, mids: &[Result<String, Failure>], pulls: &[Track]) -> bool {
        let mut any = false;
        for (mid, track) in mids.iter().zip(pulls) {
            match mid {
                Ok(mid) => {
                    hand.expect(mid, track.number);
                    any = true;
                }
                Err(failure) => self.tally.borrow_mut().fail(failure.clone()),
            }
        }
        any
    }

    fn push(&self, kind: Kind, peer: u64) -> Push {
        let name = format!("{}-{peer}-{:08x}", kind.name(), self.run as u32);
        Push { kind, name }
    }

    /// Leaves: tells the API, then the peer's transport.
    pub async fn leave(&self, member: Member) {
        self.live.remove(member.number);
        member.keeper.leaving.set(true);
        member.hand.leave();
        if let Err(failure) = self.api.leave(&self.caller, &member.joined).await {
            self.tally.borrow_mut().fail(failure);
        }
        member.hand.goodbye();
        self.tally.borrow_mut().left += 1;
    }

    pub fn fail(&self, failure: Failure) {
        self.tally.borrow_mut().fail(failure);
    }
}

/// What a viewer of these tracks asks for, session by session, when a session receives from at
/// most so many publishers.
pub fn by_session(tracks: &[Track], publishers: usize) -> Rc<[Vec<Track>]> {
    let each: Vec<&[Track]> = tracks.chunk_by(|a, b| a.source == b.source).collect();
    each.chunks(publishers.max(1)).map(<[&[Track]]>::concat).collect()
}

impl Track {
    fn pull(&self) -> Pull {
        Pull { kind: self.kind, name: self.name.clone(), source: self.source.clone() }
    }
}

/// Starts `count` of something, `rate` a second, and waits for all of them. Stops starting
/// when the run is stopped.
pub async fn at_rate<T: 'static, F: Future<Output = T> + 'static>(
    cue: &Cue,
    count: usize,
    rate: f64,
    mut start: impl FnMut(usize) -> F,
) -> Vec<T> {
    let mut tasks = Vec::with_capacity(count);
    let began = tokio::time::Instant::now();
    for number in 0..count {
        // Against the beginning, so that a late start is made up for.
        let at = began + Duration::from_secs_f64(number as f64 / rate.max(RATE_MIN));
        let wait = at.saturating_duration_since(tokio::time::Instant::now());
        if !wait.is_zero() && !cue.wait(wait).await || cue.is_stopped() {
            break;
        }
        tasks.push(spawn_local(start(number)));
    }
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        // A task that panicked has said so; the others go on.
        if let Ok(result) = task.await {
            results.push(result);
        }
    }
    results
}

/// Everybody leaves, as many at once as the API's connections allow.
pub async fn all_leave<C: Caller + Clone + 'static>(cast: &Rc<Cast<C>>, members: Vec<Member>) {
    let tasks: Vec<_> = members
        .into_iter()
        .map(|member| {
            let cast = Rc::clone(cast);
            spawn_local(async move { cast.leave(member).await })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

/// One in a quarter of an hour: slower is not a rate.
const RATE_MIN: f64 = 0.001;

/// Seeds of neighbours are far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_has_as_many_sessions_as_its_publishers_need() {
        let track = |publisher: u32, kind| Track {
            kind,
            name: format!("{kind:?}"),
            source: Source(publisher.to_string()),
            number: publisher,
        };
        let tracks: Vec<Track> =
            (0..3).flat_map(|at| [track(at, Kind::Audio), track(at, Kind::Video)]).collect();
        let sizes = |publishers| -> Vec<usize> {
            by_session(&tracks, publishers).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(1), [2, 2, 2]);
        assert_eq!(sizes(2), [4, 2]);
        assert_eq!(sizes(usize::MAX), [6]);
        assert!(by_session(&[], 1).is_empty());
    }
}
