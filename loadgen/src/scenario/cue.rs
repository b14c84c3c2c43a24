//! The run's phases, as a scenario announces them and the conductor follows.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

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
