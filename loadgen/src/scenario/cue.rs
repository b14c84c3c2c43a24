//! The run's phases, as a scenario announces them and the conductor follows.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::real::clock;

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// So many of so many have joined, or failed to.
    Joining {
        done: usize,
        of: usize,
    },
    /// Everybody is there; nothing is measured yet.
    Settling,
    /// Measured.
    Steady,
    Leaving,
}

/// Between scenario and conductor.
#[derive(Debug)]
pub struct Cue {
    phase: Cell<Phase>,
    /// When the measurement ended.
    ended: Cell<Option<Instant>>,
    stopped: Cell<bool>,
    stop: Notify,
    /// The conductor's marks: when measuring begins and ends it takes stock.
    mark: Notify,
    marked: Notify,
}

impl Default for Cue {
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Joining { done: 0, of: 0 }),
            ended: Cell::new(None),
            stopped: Cell::new(false),
            stop: Notify::new(),
            mark: Notify::new(),
            marked: Notify::new(),
        }
    }
}

impl Cue {
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// So many more are expected to join.
    pub fn expect_joins(&self, count: usize) {
        let (done, of) = match self.phase.get() {
            Phase::Joining { done, of } => (done, of),
            _ => (0, 0),
        };
        self.phase.set(Phase::Joining { done, of: of + count });
    }

    /// Whether what began at `at` is the measurement's, or the warm-up's: not of the time after,
    /// however long it takes.
    pub fn counts(&self, at: Instant) -> bool {
        self.ended.get().is_none_or(|ended| at < ended)
    }

    /// One has joined, or failed to.
    pub fn joined(&self) {
        if let Phase::Joining { done, of } = self.phase.get() {
            self.phase.set(Phase::Joining { done: done + 1, of });
        }
    }

    /// Settles, then measures for `duration`, or until stopped.
    pub async fn steady(&self, settle: Duration, duration: Duration) {
        self.phase.set(Phase::Settling);
        self.wait(settle).await;
        self.take_stock(Phase::Steady).await;
        self.wait(duration).await;
        self.ended.set(Some(clock::moment().now));
        self.take_stock(Phase::Leaving).await;
    }

    /// Lets the conductor count what was, and goes on in another phase.
    async fn take_stock(&self, next: Phase) {
        let marked = self.marked.notified();
        self.mark.notify_one();
        marked.await;
        self.phase.set(next);
    }

    /// The conductor's side: waits until stock is to be taken.
    pub async fn marking(&self) {
        self.mark.notified().await;
    }

    /// The conductor has taken stock.
    pub fn mark_done(&self) {
        self.marked.notify_waiters();
    }

    /// Ends the run early.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.stop.notify_waiters();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Waits, unless stopped. False if stopped.
    pub async fn wait(&self, time: Duration) -> bool {
        let stop = self.stop.notified();
        if self.stopped.get() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = stop => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_measurements_if_it_was_wanted_before_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let cue = Cue::default();
            let conductor = async {
                for _ in 0..2 {
                    cue.marking().await;
                    cue.mark_done();
                }
            };
            let before = clock::moment().now;
            tokio::join!(cue.steady(Duration::ZERO, Duration::ZERO), conductor);
            // When it was answered does not matter.
            assert!(cue.counts(before) && !cue.counts(clock::moment().now));
        });
    }
}
