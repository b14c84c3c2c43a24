//! The counter between a shard's API and its loop, both on one thread: commands are left here
//! with a ticket, answers picked up. What shards have counted comes the same way: a survey asks
//! all of them, and does without those that are not heard from in time.
//!
//! Invariants: a ticket is answered at most once; an answer that nobody waits for any more is
//! dropped. Whoever asks for a survey while one is under way gets what that finds: however many
//! ask, the shards are asked once at a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};

use crate::command::{Answer, Command, Refusal};
use crate::ids::{NodeId, ShardId};
use crate::io::clock;
use crate::mail::{Nodes, Ticket};
use crate::mesh::place;
use crate::snapshot::{ApiMeters, Snapshot};

/// Requests of one shard's API under way at a time. HTTP has fewer connections than this, and
/// a connection asks one thing at a time.
const TICKETS: usize = 4096;

/// Whom a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Shard(ShardId),
    /// Another node of the cluster.
    OtherNode,
}

#[derive(Debug)]
pub struct Counter {
    me: ShardId,
    nodes: RefCell<Arc<Nodes>>,
    loads: Arc<[AtomicU32]>,
    next: Cell<u64>,
    left: RefCell<VecDeque<(Owner, Ticket, Command)>>,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    shard: RefCell<Option<Waker>>,
    readings: RefCell<VecDeque<Rc<RefCell<Reading>>>>,
    /// Surveys that no shard was told of yet.
    called: RefCell<VecDeque<Ticket>>,
    surveys: RefCell<BTreeMap<u64, Survey>>,
    /// The survey to join: not over, and nobody lost patience with it yet. So one that a shard
    /// never answers is joined no longer than one patience, and there are few of them.
    joinable: Cell<Option<u64>>,
    api: RefCell<ApiMeters>,
    /// The loop has something to look at that is not left here.
    nudged: Cell<bool>,
}

#[derive(Debug, Default)]
struct Reading {
    snapshot: Option<Snapshot>,
    waker: Option<Waker>,
}

/// What the shards answered, in their order.
#[derive(Debug, Default)]
struct Survey {
    found: Vec<Option<Snapshot>>,
    /// Everybody who waits for it, by the number of his ticket.
    askers: BTreeMap<u64, Option<Waker>>,
}

#[derive(Debug, Default)]
struct Waiting {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

impl Counter {
    pub fn new(me: ShardId, node: NodeId, loads: Arc<[AtomicU32]>) -> Self {
        Self {
            me,
            nodes: RefCell::new(Arc::new(Nodes::alone(node))),
            loads,
            next: Cell::new(0),
            left: RefCell::default(),
            waiting: RefCell::default(),
            shard: RefCell::default(),
            readings: RefCell::default(),
            called: RefCell::default(),
            surveys: RefCell::default(),
            joinable: Cell::new(None),
            api: RefCell::default(),
            nudged: Cell::new(false),
        }
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, command: Command) -> Answer {
        if self.waiting.borrow().len() >= TICKETS {
            return Err(Refusal::Busy("requests under way".into()));
        }
        let ticket = self.ticket();
        let number = ticket.number;
        let stub = Stub { counter: self, number };
        self.waiting.borrow_mut().insert(number, Waiting::default());
        self.left.borrow_mut().push_back((self.owner(&command), ticket, command));
        self.wake_shard();
        poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let Some(entry) = waiting.get_mut(&stub.number) else {
                return Poll::Ready(Err(Refusal::Internal));
            };
            match entry.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    entry.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Reads the shard's counters at the end of its next turn.
    pub async fn read(&self) -> Snapshot {
        let reading = Rc::new(RefCell::new(Reading::default()));
        self.readings.borrow_mut().push_back(Rc::clone(&reading));
        self.wake_shard();
        poll_fn(|cx| {
            let mut reading = reading.borrow_mut();
            reading.waker = Some(cx.waker().clone());
            reading.snapshot.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Hands what `read` yields to whoever asked for it since the last call.
    pub fn show(&self, read: impl Fn() -> Snapshot) {
        while let Some(reading) = self.readings.borrow_mut().pop_front() {
            let mut reading = reading.borrow_mut();
            reading.snapshot = Some(read());
            if let Some(waker) = reading.waker.take() {
                waker.wake();
            }
        }
    }

    /// Asks every shard what it has counted. In their order; none of one that did not answer
    /// before `until` was over.
    pub async fn survey(&self, until: impl Future<Output = ()>) -> Vec<Option<Snapshot>> {
        let slip = self.slip();
        let mut until = pin!(until);
        poll_fn(|cx| {
            let over = until.as_mut().poll(cx).is_ready();
            let mut surveys = self.surveys.borrow_mut();
            let Some(survey) = surveys.get_mut(&slip.survey) else {
                return Poll::Ready(Vec::new());
            };
            if over || survey.is_complete() {
                if self.joinable.get() == Some(slip.survey) {
                    self.joinable.set(None);
                }
                return Poll::Ready(survey.found.clone());
            }
            survey.askers.insert(slip.asker, Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Joins the survey under way, or calls one.
    fn slip(&self) -> Slip<'_> {
        let ticket = self.ticket();
        let asker = ticket.number;
        let mut surveys = self.surveys.borrow_mut();
        let joined =
            self.joinable.get().and_then(|number| Some((number, surveys.get_mut(&number)?)));
        if let Some((number, survey)) = joined.filter(|(_, survey)| !survey.is_complete()) {
            survey.askers.insert(asker, None);
            return Slip { counter: self, survey: number, asker };
        }
        let askers = BTreeMap::from([(asker, None)]);
        surveys.insert(asker, Survey { found: vec![None; self.shards()], askers });
        self.joinable.set(Some(asker));
        self.called.borrow_mut().push_back(ticket);
        self.wake_shard();
        Slip { counter: self, survey: asker, asker }
    }

    /// The next survey that all shards are to be told of.
    pub fn next_survey(&self) -> Option<Ticket> {
        let mut called = self.called.borrow_mut();
        // One that was given up already costs nobody anything.
        std::iter::from_fn(|| called.pop_front())
            .find(|ticket| self.surveys.borrow().contains_key(&ticket.number))
    }

    /// Hands what a shard answered to the survey it is for, if that still waits.
    pub fn surveyed(&self, number: u64, shard: ShardId, snapshot: Snapshot) {
        if let Some(survey) = self.surveys.borrow_mut().get_mut(&number) {
            if let Some(place) = survey.found.get_mut(shard.index()) {
                *place = Some(snapshot);
            }
            if survey.is_complete() {
                survey.askers.values_mut().filter_map(Option::take).for_each(Waker::wake);
            }
        }
    }

    /// What this shard's API counts.
    pub fn api(&self) -> &RefCell<ApiMeters> {
        &self.api
    }

    /// Sessions and pulls of the whole node, roughly.
    pub fn load(&self) -> u64 {
        self.loads.iter().map(|load| u64::from(load.load(Ordering::Relaxed))).sum()
    }

    pub fn shards(&self) -> usize {
        self.loads.len()
    }

    /// The next command, with whom it is for.
    pub fn next(&self) -> Option<(Owner, Ticket, Command)> {
        self.left.borrow_mut().pop_front()
    }

    /// Ready when there is a command, or somebody wants to read the counters.
    pub async fn asked(&self) {
        poll_fn(|cx| {
            let idle = !self.nudged.get()
                && self.left.borrow().is_empty()
                && self.readings.borrow().is_empty()
                && self.called.borrow().is_empty();
            if !idle {
                return Poll::Ready(());
            }
            *self.shard.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Makes the loop take a turn.
    pub fn nudge(&self) {
        self.nudged.set(true);
        self.wake_shard();
    }

    /// Whether somebody nudged since the last call.
    pub fn take_nudge(&self) -> bool {
        self.nudged.replace(false)
    }

    /// Which nodes are up from now on.
    pub fn set_nodes(&self, nodes: Arc<Nodes>) {
        self.nodes.replace(nodes);
    }

    /// Hands an answer to whoever waits for it.
    pub fn settle(&self, ticket: Ticket, answer: Answer) {
        if let Some(entry) = self.waiting.borrow_mut().get_mut(&ticket.number) {
            entry.answer = Some(answer);
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    fn ticket(&self) -> Ticket {
        let number = self.next.get();
        self.next.set(number + 1);
        Ticket { shard: self.me, number }
    }

    fn wake_shard(&self) {
        if let Some(shard) = self.shard.borrow_mut().take() {
            shard.wake();
        }
    }

    /// Whom a command is for. An id that names no shard of this node and no other node is nobody's
    /// session, which this shard can say as well as any.
    fn owner(&self, command: &Command) -> Owner {
        let nodes = self.nodes.borrow();
        match command.ask.session() {
            None => Owner::Shard(place(&self.loads, clock::random())),
            Some(id) if id.node() == nodes.own && id.shard().index() < self.loads.len() => {
                Owner::Shard(id.shard())
            }
            Some(id) if nodes.has_other(id.node()) => Owner::OtherNode,
            Some(_) => Owner::Shard(self.me),
        }
    }
}

/// Removes the waiting entry, also when the asker gives up.
struct Stub<'a> {
    counter: &'a Counter,
    number: u64,
}

impl Drop for Stub<'_> {
    fn drop(&mut self) {
        self.counter.waiting.borrow_mut().remove(&self.number);
    }
}

impl Survey {
    fn is_complete(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }
}

/// The same for a survey, which ends with its last asker.
struct Slip<'a> {
    counter: &'a Counter,
    survey: u64,
    asker: u64,
}

impl Drop for Slip<'_> {
    fn drop(&mut self) {
        let mut surveys = self.counter.surveys.borrow_mut();
        let Some(survey) = surveys.get_mut(&self.survey) else { return };
        survey.askers.remove(&self.asker);
        if survey.askers.is_empty() {
            surveys.remove(&self.survey);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, pending, poll_once};

    use super::*;
    use crate::command::{Ask, Reply};
    use crate::ids::{AppId, SessionId};
    use crate::meters::Meters;

    fn counter(shards: usize) -> Counter {
        Counter::new(ShardId(0), NodeId(1), (0..shards).map(|_| AtomicU32::new(0)).collect())
    }

    fn command() -> Command {
        Command { app: AppId(0), ask: Ask::Create { offer: None } }
    }

    #[test]
    fn an_answer_reaches_its_asker() {
        let counter = counter(1);
        let mut asking = pin!(counter.ask(command()));
        assert!(block_on(poll_once(asking.as_mut())).is_none());
        let (to, ticket, _) = counter.next().unwrap();
        assert_eq!(to, Owner::Shard(ShardId(0)));
        counter.settle(ticket, Ok(Reply::Deleted));
        assert_eq!(block_on(asking), Ok(Reply::Deleted));
        assert!(counter.waiting.borrow().is_empty());
    }

    #[test]
    fn a_command_for_a_session_of_another_node_is_the_hubs_while_that_node_is_up() {
        let counter = counter(2);
        let owner = |node| {
            let session = SessionId::new(NodeId(node), ShardId(1), 0, 7);
            counter.owner(&Command { app: AppId(0), ask: Ask::Describe { session } })
        };
        assert_eq!(owner(1), Owner::Shard(ShardId(1)));
        assert_eq!(owner(2), Owner::Shard(ShardId(0)), "nobody's: it is gone");
        counter.set_nodes(Arc::new(Nodes { own: NodeId(9), others: vec![NodeId(2)] }));
        assert_eq!(owner(2), Owner::OtherNode);
        assert_eq!(owner(9), Owner::Shard(ShardId(1)));
        assert_eq!(owner(1), Owner::Shard(ShardId(0)), "it was ours before");
    }

    #[test]
    fn a_nudge_makes_the_loop_take_a_turn() {
        let counter = counter(1);
        assert!(block_on(poll_once(pin!(counter.asked()))).is_none());
        counter.nudge();
        block_on(counter.asked());
        assert!(counter.take_nudge() && !counter.take_nudge());
    }

    #[test]
    fn whoever_reads_the_counters_gets_them_as_of_the_next_turn() {
        let counter = counter(1);
        let mut reading = pin!(counter.read());
        assert!(block_on(poll_once(reading.as_mut())).is_none());
        block_on(counter.asked());
        let meters = Meters { packets_in: 7, ..Meters::default() };
        counter.show(|| Snapshot { meters: meters.clone(), ..Snapshot::default() });
        assert_eq!(block_on(reading).meters, meters);
        counter.show(|| panic!("nobody asked"));
    }

    /// As shard `of` would answer.
    fn counted(of: u8) -> Snapshot {
        let meters = Meters { packets_in: u64::from(of) + 1, ..Meters::default() };
        Snapshot { meters, ..Snapshot::default() }
    }

    #[test]
    fn a_survey_is_over_when_all_shards_have_answered() {
        let counter = counter(3);
        let mut survey = pin!(counter.survey(pending()));
        assert!(block_on(poll_once(survey.as_mut())).is_none());
        block_on(counter.asked());
        let ticket = counter.next_survey().unwrap();
        assert!(counter.next_survey().is_none());
        for shard in [1, 0, 2] {
            assert!(block_on(poll_once(survey.as_mut())).is_none());
            counter.surveyed(ticket.number, ShardId(shard), counted(shard));
        }
        assert_eq!(block_on(survey), [0, 1, 2].map(|shard| Some(counted(shard))));
        assert!(counter.surveys.borrow().is_empty());
    }

    #[test]
    fn a_shard_that_stalls_is_left_out_of_a_survey_and_its_late_answer_ignored() {
        let counter = counter(2);
        let over = Cell::new(false);
        let until = poll_fn(|_| if over.get() { Poll::Ready(()) } else { Poll::Pending });
        let mut survey = pin!(counter.survey(until));
        assert!(block_on(poll_once(survey.as_mut())).is_none());
        let late = counter.next_survey().unwrap();
        counter.surveyed(late.number, ShardId(0), counted(0));
        assert!(block_on(poll_once(survey.as_mut())).is_none());
        over.set(true);
        assert_eq!(block_on(survey), [Some(counted(0)), None]);
        counter.surveyed(late.number, ShardId(1), counted(1));
        assert!(counter.surveys.borrow().is_empty());
    }

    #[test]
    fn whoever_asks_during_a_survey_joins_it() {
        let counter = counter(2);
        let mut gone = Box::pin(counter.survey(pending()));
        let mut surveys: Vec<_> = (0..5).map(|_| Box::pin(counter.survey(pending()))).collect();
        assert!(block_on(poll_once(gone.as_mut())).is_none());
        for survey in &mut surveys {
            assert!(block_on(poll_once(survey.as_mut())).is_none());
        }
        // That whoever called it gives up is nothing to the others.
        drop(gone);
        let ticket = counter.next_survey().unwrap();
        assert!(counter.next_survey().is_none());
        for shard in [0, 1] {
            counter.surveyed(ticket.number, ShardId(shard), counted(shard));
        }
        // Complete, though nobody has fetched it yet: too old to join.
        let mut later = pin!(counter.survey(pending()));
        assert!(block_on(poll_once(later.as_mut())).is_none());
        assert_ne!(counter.next_survey().unwrap().number, ticket.number);
        for survey in surveys {
            assert_eq!(block_on(survey), [0, 1].map(|shard| Some(counted(shard))));
        }
        assert_eq!(counter.surveys.borrow().len(), 1, "the later one");
        assert!(counter.joinable.get().is_some());
    }

    #[test]
    fn a_survey_that_somebody_lost_patience_with_is_not_joined_any_more() {
        let counter = counter(2);
        let mut waits = pin!(counter.survey(pending()));
        assert!(block_on(poll_once(waits.as_mut())).is_none());
        assert!(counter.next_survey().is_some());
        assert_eq!(block_on(counter.survey(std::future::ready(()))), [None, None]);
        assert!(counter.next_survey().is_none(), "that one had joined");
        let mut anew = pin!(counter.survey(pending()));
        assert!(block_on(poll_once(anew.as_mut())).is_none());
        assert!(counter.next_survey().is_some());
    }

    #[test]
    fn an_asker_who_gives_up_leaves_nothing_behind() {
        let counter = counter(2);
        {
            let mut asking = pin!(counter.ask(command()));
            assert!(block_on(poll_once(asking.as_mut())).is_none());
        }
        let (_, ticket, _) = counter.next().unwrap();
        counter.settle(ticket, Ok(Reply::Deleted));
        assert!(counter.waiting.borrow().is_empty());
    }
}
