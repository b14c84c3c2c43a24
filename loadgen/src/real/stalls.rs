//! The idle probe: a thread that does nothing but sleep, and says by how much it woke late. What
//! kept it waiting keeps everybody on that CPU waiting, so that the machine's own stalls (a
//! hypervisor that runs somebody else, interrupts) can be told from the server's.
//!
//! It sleeps for a millisecond at a time, against absolute deadlines: a stall of ten counts at
//! each of the ten deadlines in it, with what was left of it, as it would hit arrivals.
//!
//! Invariants: with real-time priority it waits for no ordinary program, only for what the
//! kernel does not interrupt; without, also for whoever shares its CPU, and it says which it is.
//! Only what was due between [`Probe::begin`] and [`Probe::end`] counts.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use shards::io::priority;
use tokio::sync::oneshot;

use super::worker::pin;
use crate::api::{Cause, Failure};
use crate::report::beside::Stalls;
use crate::report::tally::{MICROS_MAX, Tally};

/// From one deadline to the next: often enough for ten thousand in ten seconds, seldom enough
/// (a few µs of CPU each) to disturb nobody.
const STEP: Duration = Duration::from_millis(1);

/// The thread.
#[derive(Debug)]
pub struct Probe {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Begin,
    End(oneshot::Sender<Stalls>),
}

impl Probe {
    /// Starts it, on these CPUs if there are any. It only measures when told to.
    pub fn start(cpus: Vec<usize>) -> Result<Self, Failure> {
        let (orders, inbox) = channel();
        let thread = std::thread::Builder::new().name("stalls".to_owned());
        let thread = thread.spawn(move || attend(&inbox, &cpus)).map_err(|error| {
            Failure::new(Cause::Local, format!("no thread for the idle probe: {error}"))
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub fn begin(&self) {
        self.give(Order::Begin);
    }

    /// Ends it at once. What it gives is there within a step.
    pub fn end(&self) -> oneshot::Receiver<Stalls> {
        let (found, result) = oneshot::channel();
        self.give(Order::End(found));
        result
    }

    fn give(&self, order: Order) {
        // A probe that has ended gives nothing, and whoever waits for it notices.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a thread of this process may be on that CPU.
pub fn may_run_on(cpu: usize) -> bool {
    // Tried by a thread of its own: whoever asks stays where it is.
    std::thread::spawn(move || pin(&[cpu]).is_ok()).join().unwrap_or(false)
}

/// Until nobody can give orders any more.
fn attend(orders: &Receiver<Order>, cpus: &[usize]) {
    let is_pinned = !cpus.is_empty() && pin(cpus).is_ok();
    // Of several there is none to be named.
    let cpu = if let [cpu] = cpus { Some(*cpu).filter(|_| is_pinned) } else { None };
    // Without it the kernel may be late by 50 µs on purpose.
    let _ = set_timerslack(1);
    let is_realtime = priority::realtime();
    while let Ok(order) = orders.recv() {
        match order {
            Order::Begin => {}
            // It was not begun.
            Order::End(_) => continue,
        }
        let mut lateness = Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("valid bounds");
        let next = watch(orders, |late| Tally::record(&mut lateness, late));
        if let Ok(Order::End(found)) = next {
            let _ = found.send(Stalls { lateness, is_realtime, cpu });
        }
    }
}

/// Sleeps, and tells how late it woke, until there is an order.
fn watch(orders: &Receiver<Order>, mut late: impl FnMut(Duration)) -> Result<Order, TryRecvError> {
    let clock = ClockId::CLOCK_MONOTONIC;
    let now = || clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    let mut due = now();
    loop {
        due += STEP;
        let until = TimeSpec::from(due);
        // A signal ends it early; then it is not late at all, and the next one is in time.
        let _ = clock_nanosleep(clock, ClockNanosleepFlags::TIMER_ABSTIME, &until);
        late(now().saturating_sub(due));
        match orders.try_recv() {
            Err(TryRecvError::Empty) => {}
            next => return next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(found: oneshot::Receiver<Stalls>) -> Option<u64> {
        found.blocking_recv().ok().map(|stalls| stalls.lateness.len())
    }

    #[test]
    fn each_deadline_of_the_window_counts_once_however_late() {
        let (give, orders) = channel();
        let mut lateness = Vec::new();
        let next = watch(&orders, |late| {
            lateness.push(late);
            match lateness.len() {
                // Twenty deadlines go by while it is held up.
                3 => std::thread::sleep(20 * STEP),
                40 => give.send(Order::Begin).unwrap(),
                _ => {}
            }
        });
        assert!(matches!(next, Ok(Order::Begin)));
        assert_eq!(lateness.len(), 40);
        for (deadline, left) in lateness[3..].iter().zip((0..20).rev()) {
            assert!(*deadline >= left * STEP, "{left}: {lateness:?}");
        }
    }

    #[test]
    fn nothing_counts_outside_of_the_window() {
        let probe = Probe::start(Vec::new()).unwrap();
        assert_eq!(count(probe.end()), None);
        probe.begin();
        assert!(count(probe.end()).unwrap() > 0);
        assert_eq!(count(probe.end()), None);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_known_before_and_not_told_after() {
        assert!(!may_run_on(1023) && (0..1023).any(may_run_on));
        let told = |cpus: &[usize]| {
            let probe = Probe::start(cpus.to_vec()).unwrap();
            probe.begin();
            probe.end().blocking_recv().unwrap().cpu
        };
        let one = (0..1023).find(|cpu| may_run_on(*cpu)).unwrap();
        assert_eq!((told(&[1023]), told(&[one])), (None, Some(one)));
        assert_eq!(told(&[one, 1023]), None, "several have no name");
    }
}
