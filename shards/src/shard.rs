//! One shard: an engine, its packet port, its seat in the mesh, moved by one loop.
//!
//! The loop is the rim's heart: it reads the clock as a turn begins (and, to measure it, as the
//! last datagram has gone), gives the engine what has arrived, flushes what it leaves, and
//! sleeps when there is nothing. HTTP tasks of the same
//! executor reach it through a [`Counter`].
//!
//! Invariants: mail before datagrams before commands, and mail is posted before datagrams are
//! sent: a client's next datagram, on whichever shard it lands, comes after the news of where
//! it belongs. A turn never waits; nothing here decides anything.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use crate::cluster::HUB_SHARD;
use crate::cluster::rim::Post;
use crate::command::{Command, Refusal};
use crate::counter::{Counter, Owner};
use crate::engine::{Engine, EngineConfig, Progress};
use crate::ids::ShardId;
use crate::io::executor::{let_others_in, let_others_in_if_due};
use crate::io::port::{self, Port, Received};
use crate::io::steer::Steering;
use crate::io::{clock, pause};
use crate::mail::{Mail, Ticket};
use crate::mesh::Seat;
use crate::outbox::{CAPACITY, Outbox};
use crate::snapshot::{Pulse, Snapshot};
use crate::wake::{Leisure, Moderator, Rest, Turn, Unfinished, WakeDelay};

/// Datagrams taken in one turn. More would delay what they cause; 256 full ones at fan-out 50
/// are a millisecond of sealing.
const BUDGET: usize = 256;

/// What could wait is taken in smaller portions: the next media waits for them.
const LEISURE_BUDGET: usize = 64;

/// Messages taken in one turn, for the same reason.
const MAIL_BUDGET: usize = 1024;

/// What a shard is made of.
pub struct Shard {
    engine: Engine,
    port: Box<dyn Port>,
    /// Where comes what can wait, if not by `port`.
    patient: Option<Box<dyn Port>>,
    /// The ways to shards of other nodes, in a cluster.
    links: Option<Box<dyn Port>>,
    leisure: Leisure,
    seat: Seat,
    steering: Option<Arc<Steering>>,
    counter: Rc<Counter>,
    /// Of the shard that has the hub, in a cluster.
    cluster: Option<Rc<Post>>,
    outbox: Outbox,
    pulse: Pulse,
    /// To be told what was counted, at the end of this turn.
    surveys: Vec<Ticket>,
    wake: Moderator,
    /// When something last arrived.
    found_at: Option<Instant>,
    /// When the kernel had the oldest datagram of this turn (wall clock).
    oldest: Option<Duration>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl Shard {
    /// To be called on the shard's own thread, inside its executor.
    pub fn new(
        config: EngineConfig,
        port: Box<dyn Port>,
        seat: Seat,
        steering: Option<Arc<Steering>>,
    ) -> Self {
        let counter = Rc::new(Counter::new(seat.me(), config.node, seat.loads()));
        let engine = Engine::new(config, clock::now(), Box::new(clock::random));
        let (outbox, pulse) = (Outbox::new(CAPACITY), Pulse::default());
        let (surveys, wake) = (Vec::new(), Moderator::new(WakeDelay::default()));
        Self {
            engine,
            port,
            patient: None,
            links: None,
            leisure: Leisure::new(WakeDelay::default()),
            seat,
            steering,
            counter,
            cluster: None,
            outbox,
            pulse,
            surveys,
            wake,
            found_at: None,
            oldest: None,
        }
    }

    /// Where comes what can wait, if it does not come by the port for everything.
    pub fn set_patient(&mut self, port: Option<Box<dyn Port>>) {
        self.patient = port;
    }

    /// Where links with shards of other nodes are. `apps` and `local` as [`Engine::join`] wants them.
    pub fn set_links(&mut self, port: Box<dyn Port>, apps: Arc<[String]>, local: SocketAddr) {
        self.engine.join(apps, local);
        self.links = Some(port);
    }

    /// Makes this the shard that has the hub.
    pub fn set_cluster(&mut self, post: Rc<Post>) {
        self.cluster = Some(post);
    }

    /// How long it may wait for more to arrive.
    pub fn set_wake_delay(&mut self, delay: WakeDelay) {
        self.wake = Moderator::new(delay);
        self.leisure = Leisure::new(delay);
    }

    /// Where this shard's API leaves its commands.
    pub fn counter(&self) -> Rc<Counter> {
        Rc::clone(&self.counter)
    }

    /// Moves until `leaving` says so; then closes every session, flushes, and returns.
    pub async fn run(mut self, leaving: impl Fn() -> bool) {
        let mut ear = self.seat.ear();
        pause::prepare();
        loop {
            let now = clock::now();
            if leaving() {
                self.leave(now);
                return;
            }
            let turn = self.turn(now);
            if !turn.busy {
                self.sleep(&mut ear).await;
                self.wake.shared(clock::now());
                self.pulse.wakeups += 1;
                continue;
            }
            match self.wake.rest(clock::now(), turn) {
                Some(Rest { time, alone: true }) => pause::stop(time),
                Some(Rest { time: Duration::ZERO, .. }) => let_others_in().await,
                Some(Rest { time, alone: false }) => {
                    glommio::timer::sleep(time).or(self.counter.asked()).await;
                }
                None if turn.answered => {
                    let_others_in().await;
                    self.wake.shared(clock::now());
                }
                None => {}
            }
            let_others_in_if_due().await;
        }
    }

    /// One turn: takes what is there, waits for the rest of a frame if that pays, and sends.
    fn turn(&mut self, began: Instant) -> Turn {
        let (mut turn, mut now) = (Turn::default(), began);
        self.oldest = None;
        loop {
            let taken = self.take(now);
            turn = turn.and(taken);
            // What somebody waits for is not held up by the rest of a frame.
            let unfinished = || {
                let unfinished = self.engine.unfinished();
                if turn.urgent { Unfinished { copies: 0, ..unfinished } } else { unfinished }
            };
            let Some(wait) = self.wake.gather(now, taken.found, unfinished) else { break };
            pause::stop(wait);
            now = clock::now();
        }
        if turn.found {
            self.found_at = Some(began);
        }
        let sent = self.spread(now);
        let mut ended = clock::now();
        let forwarded = (turn.found && sent).then(|| self.held_up(began, ended));
        if let Some(looked) = self.take_leisurely(ended, turn) {
            ended = clock::now();
            // Where more of it waits, there is another look before the shard sleeps.
            turn.busy |= looked.count > 0 || !looked.drained;
        }
        if turn.busy {
            self.pulse.turned(ended.saturating_duration_since(began), forwarded);
        }
        turn.answered |= self.pass_on();
        self.tell();
        turn
    }

    /// How long the first datagram of a turn was in our hands, the time in its socket included,
    /// until the last that the turn sent was out of them. Mail counts from the turn's begin.
    fn held_up(&self, began: Instant, ended: Instant) -> Duration {
        let turn = ended.saturating_duration_since(began);
        // A wall clock that was set meanwhile tells nothing.
        let waited = self.oldest.and_then(|oldest| clock::wall().checked_sub(oldest));
        waited.filter(|waited| *waited < CLOCK_SET).map_or(turn, |waited| waited.max(turn))
    }

    /// Takes mail, datagrams, commands, and what is due.
    fn take(&mut self, now: Instant) -> Turn {
        let mut turn = Turn::default();
        for _ in 0..MAIL_BUDGET {
            let Some((from, mail)) = self.seat.take() else { break };
            turn.busy = true;
            match mail {
                Mail::Survey { ticket } => self.surveys.push(ticket),
                Mail::Surveyed { ticket, snapshot } => {
                    self.counter.surveyed(ticket.number, from, *snapshot);
                }
                Mail::Call { ticket, command } => self.call(ticket, *command),
                mail @ (Mail::LinkWanted { .. }
                | Mail::ToNode { .. }
                | Mail::LinkSilent { .. }
                | Mail::ForHub { .. }) => self.tell_hub(from, mail),
                mail => {
                    if let Mail::Nodes(nodes) = &mail {
                        self.counter.set_nodes(nodes.clone());
                    }
                    self.engine.handle_mail(from, mail, now);
                    turn.found = true;
                }
            }
        }
        let (engine, oldest) = (&mut self.engine, &mut self.oldest);
        let received = self.port.receive(BUDGET, &mut |arrival| {
            *oldest = arrival.arrived.into_iter().chain(*oldest).min();
            engine.handle_datagram(arrival.source, arrival.local, arrival.bytes, now);
        });
        turn.found |= received.count > 0;
        turn.urgent |= !received.drained;
        if let Some(links) = &mut self.links {
            let received = links.receive(BUDGET, &mut |arrival| {
                *oldest = arrival.arrived.into_iter().chain(*oldest).min();
                engine.handle_link(arrival.source, arrival.bytes, now);
            });
            turn.found |= received.count > 0;
            turn.urgent |= !received.drained;
        }
        while let Some((to, ticket, command)) = self.counter.next() {
            turn.urgent = true;
            let me = self.seat.me();
            match to {
                Owner::Shard(to) if to == me => self.engine.handle_command(ticket, command, now),
                Owner::Shard(to) => {
                    self.seat.post(to, Mail::Command { ticket, command: Box::new(command) });
                }
                Owner::OtherNode if me == HUB_SHARD => self.call(ticket, command),
                Owner::OtherNode => {
                    self.seat.post(HUB_SHARD, Mail::Call { ticket, command: Box::new(command) });
                }
            }
        }
        turn.urgent |= self.take_cluster_mail(now);
        if self.engine.timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            turn.busy = true;
        }
        turn.busy |= turn.found | turn.urgent;
        turn
    }

    /// A command for a session of another node.
    fn call(&mut self, ticket: Ticket, command: Command) {
        match &self.cluster {
            Some(post) => post.call(ticket, command),
            None => self.counter.settle(ticket, Err(Refusal::Internal)),
        }
    }

    fn tell_hub(&self, from: ShardId, mail: Mail) {
        if let Some(post) = &self.cluster {
            post.handle_mail(from, mail);
        }
    }

    /// What the hub has for the shards; whether there was anything.
    fn take_cluster_mail(&mut self, now: Instant) -> bool {
        let nudged = self.counter.take_nudge();
        let Some(post) = self.cluster.as_ref().filter(|_| nudged) else { return nudged };
        let me = self.seat.me();
        for (to, mail) in post.take_mail() {
            match (to == me, mail) {
                (false, mail) => self.seat.post(to, mail),
                (true, Mail::Answer { ticket, answer }) => self.counter.settle(ticket, *answer),
                (true, mail) => {
                    if let Mail::Nodes(nodes) = &mail {
                        self.counter.set_nodes(nodes.clone());
                    }
                    self.engine.handle_mail(me, mail, now);
                }
            }
        }
        true
    }

    /// Takes what could wait, when it is time to, after everything else. `None`: it was not.
    fn take_leisurely(&mut self, now: Instant, turn: Turn) -> Option<Received> {
        let port = self.patient.as_mut()?;
        if !self.leisure.is_due(now, turn) {
            return None;
        }
        let engine = &mut self.engine;
        let received = port.receive(LEISURE_BUDGET, &mut |arrival| {
            engine.handle_datagram(arrival.source, arrival.local, arrival.bytes, now);
        });
        self.leisure.looked(now, received);
        if received.count > 0 {
            self.spread(now);
        }
        Some(received)
    }

    fn flush(&mut self, now: Instant) {
        self.spread(now);
        self.pass_on();
    }

    /// Posts and sends what the turn left; whether anything was sent.
    fn spread(&mut self, now: Instant) -> bool {
        let mut sent = false;
        loop {
            let progress = self.engine.spread(&mut self.outbox, now);
            self.post();
            if let Some(links) = &mut self.links {
                let outbox = self.engine.links_outbox();
                if !outbox.is_empty() {
                    links.send(outbox);
                    outbox.clear();
                    sent = true;
                }
            }
            if !self.outbox.is_empty() {
                self.port.send(&self.outbox);
                self.outbox.clear();
                sent = true;
            }
            if progress == Progress::Done {
                return sent;
            }
        }
    }

    /// Wakes whom something was left for; whether somebody on this thread waited for it.
    fn pass_on(&mut self) -> bool {
        self.seat.ring();
        let mut answered = false;
        for (ticket, answer) in self.engine.poll_answers() {
            self.counter.settle(ticket, answer);
            answered = true;
        }
        self.seat.set_load(self.engine.load());
        answered
    }

    /// Tells what was counted to whoever asked in this turn.
    fn tell(&mut self) {
        while let Some(ticket) = self.counter.next_survey() {
            self.surveys.push(ticket);
            for to in (0..self.seat.shards()).map(|shard| ShardId(shard as u8)) {
                if to != ticket.shard {
                    self.seat.post(to, Mail::Survey { ticket });
                }
            }
        }
        self.counter.show(|| self.snapshot());
        if self.surveys.is_empty() {
            return;
        }
        let snapshot = self.snapshot();
        let me = self.seat.me();
        for ticket in self.surveys.drain(..) {
            if ticket.shard == me {
                self.counter.surveyed(ticket.number, me, snapshot.clone());
            } else {
                let snapshot = Box::new(snapshot.clone());
                self.seat.post(ticket.shard, Mail::Surveyed { ticket, snapshot });
            }
        }
        self.seat.ring();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            meters: self.engine.meters().clone(),
            holdings: self.engine.holdings(),
            port: match &self.patient {
                Some(patient) => self.port.counters().and(&patient.counters()),
                None => self.port.counters(),
            },
            pulse: self.pulse.clone(),
            mail: self.seat.counters(),
            outbox_refused: self.outbox.refused(),
            cpu: clock::thread_cpu(),
            api: self.counter.api().borrow().clone(),
            cluster: self.cluster.as_ref().map(|post| Box::new(post.view())),
            links: self.engine.links().collect(),
            link_port: self.links.as_ref().map(|port| Box::new(port.counters())),
        }
    }

    fn post(&mut self) {
        // What all others are told, the kernel is told once.
        let me = self.seat.me();
        let first = usize::from(me.index() == 0);
        for (to, mail) in self.engine.poll_mail() {
            if to == me {
                // Only the hub is told so, if it is here.
                if let Some(post) = &self.cluster {
                    post.handle_mail(me, mail);
                }
                continue;
            }
            if to.index() == first {
                steer(self.steering.as_deref(), &self.seat, &mail);
            }
            self.seat.post(to, mail);
        }
    }

    /// Waits for a datagram, a bell, a command, or the next deadline.
    async fn sleep(&mut self, ear: &mut crate::io::bell::Ear) {
        let now = clock::now();
        let deadline = self.engine.timeout();
        let again = self.seat.has_waiting().then(|| now + RING_FULL);
        let look = self.patient.as_ref().and_then(|_| self.leisure.deadline());
        let overslept = self.found_at.filter(|at| now.saturating_duration_since(*at) < FLOWING);
        let overslept = overslept.map(|_| now + OVERSLEPT_MAX);
        let deadline = deadline.into_iter().chain(again).chain(look).chain(overslept).min();
        let port = &mut self.port;
        let readable = poll_fn(|cx| port.poll_readable(cx));
        let heard = async {
            match &mut self.patient {
                Some(patient) if self.leisure.listens() => {
                    port::readable(patient.as_mut()).await;
                    self.leisure.heard();
                }
                _ => std::future::pending().await,
            }
        };
        let linked = async {
            match &mut self.links {
                Some(links) => port::readable(links.as_mut()).await,
                None => std::future::pending().await,
            }
        };
        let seat = &self.seat;
        let rung = async {
            if ear.rung(|| seat.has_work()).await.is_err() {
                // Without its eventfd the shard would sleep through mail: look soon instead.
                glommio::timer::sleep(BELL_BROKEN).await;
            }
        };
        let asked = self.counter.asked();
        let due = async {
            match deadline {
                Some(at) => glommio::timer::sleep(at.saturating_duration_since(now)).await,
                None => std::future::pending().await,
            }
        };
        readable.or(linked).or(rung).or(asked).or(heard).or(due).await;
    }

    fn leave(&mut self, now: Instant) {
        self.engine.drain();
        while self.engine.close_some(now) == Progress::More {
            self.flush(now);
        }
        self.flush(now);
    }
}

/// How long to sleep at most while media flows, as the executor can miss that it was woken
/// (`io::executor`): a packet's time in a call of nothing but sound, and what jitter buffers bear.
const OVERSLEPT_MAX: Duration = Duration::from_millis(20);

/// Media flows if anything came within this time.
const FLOWING: Duration = Duration::from_secs(1);

/// No datagram waits so long: then its time of arrival, or ours, is wrong.
const CLOCK_SET: Duration = Duration::from_secs(10);

/// How long to sleep at most when mail waits for room in a ring.
const RING_FULL: Duration = Duration::from_millis(1);

/// How long to sleep at most when the doorbell cannot be heard.
const BELL_BROKEN: Duration = Duration::from_millis(1);

/// The kernel learns where a session's datagrams belong as the other shards do.
fn steer(steering: Option<&Steering>, seat: &Seat, mail: &Mail) {
    match (steering, mail) {
        (Some(steering), Mail::Route { source }) => {
            steering.learn(*source, seat.me());
        }
        (Some(steering), Mail::Unroute { source }) => {
            steering.forget(*source, seat.me());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;

    use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

    use super::*;
    use crate::command::{Ask, Reply};
    use crate::ids::{AppId, NodeId};

    /// Queues and shares as the server has them.
    #[test]
    fn whoever_is_answered_passes_it_on_before_the_next_turn() {
        const ROUNDS: u32 = 200;
        let node = LocalExecutorBuilder::new(Placement::Unbound).spawn(|| async {
            let executor = glommio::executor();
            let latency = Latency::Matters(Duration::from_millis(1));
            let media = executor.create_task_queue(Shares::Static(1000), latency, "media");
            let web =
                executor.create_task_queue(Shares::Static(100), Latency::NotImportant, "http");
            let loads = (0..1).map(|_| AtomicU32::new(0)).collect();
            let counter = Rc::new(Counter::new(ShardId(0), NodeId(1), loads));
            let passed_on = Rc::new(Cell::new(0));
            let asker = {
                let (counter, passed_on) = (Rc::clone(&counter), Rc::clone(&passed_on));
                async move {
                    for _ in 0..ROUNDS {
                        let ask = Ask::Create { offer: None };
                        counter.ask(Command { app: AppId(0), ask }).await.unwrap();
                        passed_on.set(passed_on.get() + 1);
                    }
                }
            };
            let shard = async move {
                for round in 1..=ROUNDS {
                    counter.asked().await;
                    let (_, ticket, _) = counter.next().unwrap();
                    pause::stop(Duration::from_micros(50));
                    counter.settle(ticket, Ok(Reply::Deleted));
                    let_others_in().await;
                    assert_eq!(passed_on.get(), round);
                }
            };
            let asker = glommio::spawn_local_into(asker, web).unwrap();
            glommio::spawn_local_into(shard, media).unwrap().await;
            asker.await;
        });
        node.unwrap().join().unwrap();
    }
}
