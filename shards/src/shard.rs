//! One shard: an engine, its packet port, its seat in the mesh, moved by one loop.
//!
//! The loop is the rim's heart: it reads the clock once per turn, gives the engine what has
//! arrived, flushes what it leaves, and sleeps when there is nothing. HTTP tasks of the same
//! executor reach it through a [`Counter`].
//!
//! Invariants: mail before datagrams before commands, and mail is posted before datagrams are
//! sent: a client's next datagram, on whichever shard it lands, comes after the news of where
//! it belongs. A turn waits no longer than `wake` says; nothing here decides anything.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;

use crate::counter::{Counter, Snapshot};
use crate::engine::{Engine, EngineConfig, Progress};
use crate::io::port::Port;
use crate::io::steer::Steering;
use crate::io::{clock, pause};
use crate::mail::Mail;
use crate::mesh::Seat;
use crate::outbox::{CAPACITY, Outbox};
use crate::wake::{Moderator, Rest, Turn, WakeDelay};

/// Datagrams taken in one turn. More would delay what they cause; 256 full ones at fan-out 50
/// are a millisecond of sealing.
const BUDGET: usize = 256;

/// Messages taken in one turn, for the same reason.
const MAIL_BUDGET: usize = 1024;

/// What a shard is made of.
pub struct Shard {
    engine: Engine,
    port: Box<dyn Port>,
    seat: Seat,
    steering: Option<Arc<Steering>>,
    counter: Rc<Counter>,
    outbox: Outbox,
    wake: Moderator,
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
        let (outbox, wake) = (Outbox::new(CAPACITY), Moderator::new(WakeDelay::default()));
        Self { engine, port, seat, steering, counter, outbox, wake }
    }

    /// How long it may wait for more to arrive.
    pub fn set_wake_delay(&mut self, delay: WakeDelay) {
        self.wake = Moderator::new(delay);
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
                self.sleep(&mut ear, now).await;
                continue;
            }
            match self.wake.rest(clock::now(), turn) {
                Some(Rest { time, alone: true }) => pause::stop(time),
                Some(Rest { time, alone: false }) => {
                    glommio::timer::sleep(time).or(self.counter.asked()).await;
                }
                None => {}
            }
            glommio::yield_if_needed().await;
        }
    }

    /// One turn: takes what is there, waits for the rest of a frame if that pays, and sends.
    fn turn(&mut self, mut now: Instant) -> Turn {
        let mut turn = Turn::default();
        loop {
            let taken = self.take(now);
            turn = turn.and(taken);
            // What somebody waits for is not held up by the rest of a frame.
            let unfinished = || if turn.urgent { 0 } else { self.engine.unfinished() };
            let Some(wait) = self.wake.gather(now, taken.found, unfinished) else { break };
            pause::stop(wait);
            now = clock::now();
        }
        turn.urgent |= self.flush(now);
        self.counter
            .show(|| Snapshot { meters: self.engine.meters().clone(), port: self.port.counters() });
        turn
    }

    /// Takes mail, datagrams, commands, and what is due.
    fn take(&mut self, now: Instant) -> Turn {
        let mut turn = Turn::default();
        for _ in 0..MAIL_BUDGET {
            let Some((from, mail)) = self.seat.take() else { break };
            self.engine.handle_mail(from, mail, now);
            turn.found = true;
        }
        let engine = &mut self.engine;
        let received = self.port.receive(BUDGET, &mut |arrival| {
            engine.handle_datagram(arrival.source, arrival.local, arrival.bytes, now);
        });
        turn.found |= received.count > 0;
        turn.urgent |= !received.drained;
        while let Some((to, ticket, command)) = self.counter.next() {
            turn.urgent = true;
            if to == self.seat.me() {
                self.engine.handle_command(ticket, command, now);
            } else {
                self.seat.post(to, Mail::Command { ticket, command: Box::new(command) });
            }
        }
        if self.engine.timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
            turn.busy = true;
        }
        turn.busy |= turn.found | turn.urgent;
        turn
    }

    /// Sends all there is; whether somebody on this thread waited for some of it.
    fn flush(&mut self, now: Instant) -> bool {
        loop {
            let progress = self.engine.spread(&mut self.outbox, now);
            self.post();
            if !self.outbox.is_empty() {
                self.port.send(&self.outbox);
                self.outbox.clear();
            }
            if progress == Progress::Done {
                break;
            }
        }
        self.seat.ring();
        let mut answered = false;
        for (ticket, answer) in self.engine.poll_answers() {
            self.counter.settle(ticket, answer);
            answered = true;
        }
        self.seat.set_load(self.engine.load());
        answered
    }

    fn post(&mut self) {
        // What all others are told, the kernel is told once.
        let first = usize::from(self.seat.me().index() == 0);
        for (to, mail) in self.engine.poll_mail() {
            if to.index() == first {
                steer(self.steering.as_deref(), &self.seat, &mail);
            }
            self.seat.post(to, mail);
        }
    }

    /// Waits for a datagram, a bell, a command, or the next deadline.
    async fn sleep(&mut self, ear: &mut crate::io::bell::Ear, now: Instant) {
        let deadline = self.engine.timeout();
        let again = self.seat.has_waiting().then(|| now + RING_FULL);
        let deadline = deadline.into_iter().chain(again).min();
        let port = &mut self.port;
        let readable = poll_fn(|cx| port.poll_readable(cx));
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
        readable.or(rung).or(asked).or(due).await;
    }

    fn leave(&mut self, now: Instant) {
        self.engine.drain();
        while self.engine.close_some(now) == Progress::More {
            self.flush(now);
        }
        self.flush(now);
    }
}

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
