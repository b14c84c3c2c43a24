//! A worker: a pinned thread with its peers, their sockets and timers.
//!
//! While media flows the thread does not wait on its sockets but looks at them every so often:
//! on one machine, a server would otherwise pay for waking it with every datagram, which over a
//! network it does not. When nothing flows it sleeps until something comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use super::clock;
use super::orders::{Counted, Line, Order};
use super::seats::{Seats, Timers};
use super::socket::Basin;
use crate::api::{Cause, Failure};
use crate::peer::Common;
use crate::report::tally::Tally;

/// How often sockets are looked at while media flows. Longer makes larger batches, until
/// sockets overflow.
const GLANCE: Duration = Duration::from_millis(1);

/// The longest sleep, so that nothing forgotten sleeps for ever.
const NAP: Duration = Duration::from_millis(100);

/// Sockets told of at once.
const EVENTS: usize = 512;

/// Looks at the sockets before timers have their turn. A socket is in each of them, if it has
/// more than it was allowed in the last one.
const ROUNDS: usize = 16;

/// The bell among the sockets.
const BELL: u64 = u64::MAX;

/// Heap entry: when, and whose place.
pub(super) type Due = Reverse<(Instant, u32)>;

/// How workers are made.
#[derive(Debug, Clone)]
pub struct Settings {
    pub common: Common,
    /// Where peers have their sockets.
    pub local: IpAddr,
    /// Which CPU, if pinned.
    pub cpu: Option<usize>,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    pub line: Line,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread. `number` names it.
    pub fn start(number: usize, settings: Settings) -> Result<Self, Failure> {
        let failed = |step: &str, error: &dyn std::fmt::Display| {
            Failure::new(Cause::Local, format!("a worker cannot {step}: {error}"))
        };
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell =
            EventFd::from_value_and_flags(0, flags).map_err(|e| failed("have a bell", &e))?;
        let bell = Arc::new(bell);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
        let epoll = epoll.map_err(|error| failed("watch sockets", &error))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, BELL);
        epoll.add(&*bell, event).map_err(|error| failed("hear its bell", &error))?;
        let (orders, inbox) = channel();
        let ear = Arc::clone(&bell);
        let thread = std::thread::Builder::new().name(format!("peers-{number}"));
        let thread = thread.spawn(move || Loop::new(settings, epoll, inbox, ear).run());
        let thread = thread.map_err(|error| failed("start", &error))?;
        Ok(Self { line: Line { orders, bell }, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.line.give(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the report goes on without it.
            let _ = thread.join();
        }
    }
}

/// Keeps this thread on these CPUs.
pub(super) fn pin(cpus: &[usize]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

struct Loop {
    settings: Settings,
    epoll: Epoll,
    inbox: Receiver<Order>,
    bell: Arc<EventFd>,
    seats: Seats,
    timers: Timers,
    basin: Basin,
    tally: Tally,
    cpu: Duration,
}

impl Loop {
    fn new(settings: Settings, epoll: Epoll, inbox: Receiver<Order>, bell: Arc<EventFd>) -> Self {
        Self {
            settings,
            epoll,
            inbox,
            bell,
            seats: Seats::default(),
            timers: BinaryHeap::new(),
            basin: Basin::default(),
            tally: Tally::default(),
            cpu: Duration::ZERO,
        }
    }

    fn run(mut self) {
        if let Some(cpu) = self.settings.cpu {
            // Not being pinned costs precision, not correctness.
            let _ = pin(&[cpu]);
        }
        let mut events = vec![EpollEvent::empty(); EVENTS];
        loop {
            if !self.take_orders() {
                return;
            }
            let now = clock::moment();
            self.seats.run_timers(&mut self.timers, now, &mut self.tally);
            let received = self.receive(&mut events);
            self.wait(received > 0, &mut events);
        }
    }

    /// False when told to stop.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Stop => return false,
                Order::Count { reply } => {
                    self.seats.settle_losses(&mut self.tally);
                    let cpu = clock::thread_cpu();
                    let spent = cpu.saturating_sub(self.cpu);
                    self.cpu = cpu;
                    let tally = std::mem::take(&mut self.tally);
                    let _ = reply.send(Counted { tally, cpu: spent });
                }
                Order::Hush => self.seats.hush(),
                Order::Published { reply } => {
                    let _ = reply.send(self.seats.published());
                }
                Order::Begin { published } => self.seats.begin(&published),
                Order::DrawLine { published } => self.seats.draw_line(&published),
                Order::Lacking { reply } => {
                    let _ = reply.send(self.seats.lacking());
                }
                Order::CountStopped => self.seats.count_stopped(&mut self.tally),
                Order::CloseBooks => self.seats.close_books(&mut self.tally),
                order => self.seats.obey(
                    order,
                    &self.settings,
                    &self.epoll,
                    &mut self.timers,
                    &mut self.tally,
                ),
            }
        }
        true
    }

    /// Takes what is in the sockets, as far as a round goes; returns how many messages.
    fn receive(&mut self, events: &mut [EpollEvent]) -> usize {
        let mut total = 0;
        // More rounds would keep timers and orders waiting when sockets never become empty.
        for _ in 0..ROUNDS {
            // An interrupted look is made again with the next glance.
            let count = self.epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0);
            let moment = clock::moment();
            let mut received = 0;
            for event in &events[..count] {
                if event.data() == BELL {
                    let _ = self.bell.read();
                    continue;
                }
                received += self.seats.receive(
                    event.data() as u32,
                    moment,
                    &mut self.basin,
                    &self.settings.common,
                    &mut self.timers,
                    &mut self.tally,
                );
            }
            total += received;
            if received == 0 {
                break;
            }
        }
        total
    }

    fn wait(&mut self, is_flowing: bool, events: &mut [EpollEvent]) {
        let now = clock::moment().now;
        let due = self.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
        if is_flowing {
            let time = due.unwrap_or(GLANCE).min(GLANCE);
            if !time.is_zero() {
                std::thread::sleep(time);
            }
            return;
        }
        let time = due.unwrap_or(NAP).min(NAP);
        // The kernel counts milliseconds here: below one, a glance later will do.
        let timeout = EpollTimeout::try_from(time.min(NAP)).unwrap_or(EpollTimeout::ZERO);
        if time < Duration::from_millis(1) {
            std::thread::sleep(time);
        } else if let Err(error) = self.epoll.wait(&mut events[..1], timeout) {
            debug_assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Interrupted);
        }
    }
}
