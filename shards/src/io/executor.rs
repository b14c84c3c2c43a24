//! How the thread's executor is kept from sleeping while there is something to run.
//!
//! Before glommio 0.9 runs any task, it asks whether it should rather look for I/O. If so, for
//! instance because the thread did not have its CPU while the preemption timer ran out, it runs
//! nothing, takes that for "nothing to run", and sleeps: with tasks that are ready, until the next
//! event, and what made them ready is no event any more. A shard was seen to sleep on a full socket
//! like that, about once in ten thousand calls of the API on an overloaded machine.
//!
//! Its sleep ends with the next timer, though. So there always is one: [`never_oversleep`] for all
//! that a thread does, a nearer one where somebody is known to be ready ([`let_others_in`]) or
//! likely to become it (the shard's loop, when it sleeps).
//!
//! A timer is gone once it has rung, and whoever it woke may be slept over again before it runs and
//! sets another. So [`never_oversleep`] sets several ahead, each at its own time, however late its
//! task is: all of them would have to be slept over in a row. (One that is set anew each time was
//! seen to be lost within some hundred times.)
//!
//! Not here: how long the shard's loop sleeps (`shard`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::timer::{Timer, sleep};

use super::clock;

/// How long at most nothing happens on this thread, although something could. Four timers a
/// second cost 0.02 % of a core.
pub const OVERSLEPT_MAX: Duration = Duration::from_millis(250);

/// How many timers are set ahead.
const AHEAD: usize = 8;

/// The same for who lets others in: they rarely take longer.
const SHARED_MAX: Duration = Duration::from_millis(1);

/// To be called once, on a thread with an executor, before anything else is done there.
pub fn never_oversleep() {
    never_oversleep_longer_than(OVERSLEPT_MAX);
}

fn never_oversleep_longer_than(period: Duration) {
    let mut timers = Timers { period, last: clock::now(), ahead: VecDeque::with_capacity(AHEAD) };
    glommio::spawn_local(poll_fn(move |cx| timers.keep(cx))).detach();
}

/// Timers a period apart.
struct Timers {
    period: Duration,
    /// When the last of them rings.
    last: Instant,
    ahead: VecDeque<Timer>,
}

impl Timers {
    /// Sets new ones in place of those that have rung. Never done.
    fn keep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        self.ahead.retain_mut(|timer| Pin::new(timer).poll(cx).is_pending());
        while self.ahead.len() < AHEAD {
            // From the last one, not from now: two that are late together stay apart.
            self.last = self.last.max(now) + self.period;
            let mut timer = Timer::new(self.last.saturating_duration_since(now));
            // Polled, it is set.
            if Pin::new(&mut timer).poll(cx).is_pending() {
                self.ahead.push_back(timer);
            }
        }
        Poll::Pending
    }
}

/// Lets tasks of other queues that can go on do so.
///
/// Woken, a task is ready but does not have the thread: it would get it when the time of the
/// caller's queue is up.
pub async fn let_others_in() {
    // The timer comes first, so that it is there when the queue is left. It costs no system call
    // unless the executor falls asleep.
    let overslept = async {
        sleep(SHARED_MAX).await;
        std::future::pending().await
    };
    overslept.or(glommio::executor().yield_task_queue_now()).await;
}

/// Lets others in if the time of the caller's queue is up, or I/O is done that cannot wait.
pub async fn let_others_in_if_due() {
    if glommio::executor().need_preempt() {
        let_others_in().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::mpsc::channel;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    /// Runs `task` on an executor whose preemption timer has often run out before the first task
    /// runs, as on a thread that does not get its CPU in time. Without timers to wake it, it sleeps
    /// for ever within some thousand tasks.
    fn run_preempted<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
        let (done, is_done) = channel();
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .preempt_timer(Duration::from_micros(30))
            .spawn(move || async move {
                task().await;
                done.send(()).unwrap();
            })
            .unwrap();
        let patience = Duration::from_secs(60);
        is_done.recv_timeout(patience).expect("the executor sleeps, although a task is ready");
        executor.join().unwrap();
    }

    /// Yields until it was slept over so often, or for 5 s where that hardly happens.
    async fn until_slept_over<F: Future<Output = ()>>(
        times: u32,
        least: Duration,
        yields: impl Fn() -> F,
    ) {
        let began = clock::now();
        let mut slept_over = 0;
        while slept_over < times && began.elapsed() < Duration::from_secs(5) {
            let left = clock::now();
            yields().await;
            slept_over += u32::from(left.elapsed() >= least);
        }
    }

    #[test]
    fn a_thread_that_never_oversleeps_goes_on_whatever_its_tasks_do() {
        run_preempted(|| async {
            never_oversleep_longer_than(Duration::from_millis(2));
            let yields = || async { glommio::executor().yield_task_queue_now().await };
            until_slept_over(500, Duration::from_millis(1), yields).await;
        });
    }

    #[test]
    fn whoever_lets_others_in_goes_on_although_the_executor_falls_asleep() {
        run_preempted(|| async {
            // For what a single timer cannot do.
            never_oversleep_longer_than(Duration::from_secs(1));
            until_slept_over(100, SHARED_MAX, let_others_in).await;
            let_others_in_if_due().await;
        });
    }
}
