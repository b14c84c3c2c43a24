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
//! Not here: how long the shard's loop sleeps (`shard`).

use std::time::Duration;

use futures_lite::FutureExt;
use glommio::timer::sleep;

/// How long at most nothing happens on this thread, although something could. Four timers a
/// second cost 0.02 % of a core.
pub const OVERSLEPT_MAX: Duration = Duration::from_millis(250);

/// The same for who lets others in: they rarely take longer.
const SHARED_MAX: Duration = Duration::from_millis(1);

/// To be called once, on a thread with an executor, before anything else is done there.
pub fn never_oversleep() {
    let timers = async {
        loop {
            sleep(OVERSLEPT_MAX).await;
        }
    };
    glommio::spawn_local(timers).detach();
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
    /// runs, as on a thread that does not get its CPU in time. Without a timer to wake it, it
    /// sleeps for ever within some thousand tasks.
    fn run_preempted<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
        let (done, is_done) = channel();
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .preempt_timer(Duration::from_micros(30))
            .spawn(move || async move {
                never_oversleep();
                task().await;
                done.send(()).unwrap();
            })
            .unwrap();
        let patience = Duration::from_secs(60);
        is_done.recv_timeout(patience).expect("the executor sleeps, although a task is ready");
        executor.join().unwrap();
    }

    #[test]
    fn whoever_lets_others_in_goes_on_although_the_executor_falls_asleep() {
        run_preempted(|| async {
            for _ in 0..20_000 {
                let_others_in().await;
                let_others_in_if_due().await;
            }
        });
    }

    #[test]
    fn a_thread_that_never_oversleeps_goes_on_whatever_its_tasks_do() {
        run_preempted(|| async {
            for _ in 0..5000 {
                glommio::executor().yield_task_queue_now().await;
            }
        });
    }
}
