//! The end of the node: signals, the shards' leave, and the deadline.
//!
//! ```text
//!            signal            all shards left
//! Serving ----------> Leaving ----------------> Over(Drained)
//!    |                 |  |
//!    | shard left      |  | deadline
//!    +---------------->+  +-------------------> Over(CutOff)
//! ```
//!
//! A shard that leaves by itself ends the node too: its sessions are gone, and a supervisor
//! restarts a process, not a thread. The others then leave as for a signal, and the ending is
//! `ShardLost` however they do.
//!
//! Invariants: a second signal ends the process from within the handler, with code 130, whatever
//! the threads are doing; `Leaving` begins at most once, so shards are woken once.
//!
//! Not here: what a shard does to leave.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::start_error::{BadRights, StartError};

/// How far the node is. See the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Serving,
    Leaving { until: Instant, shard_lost: bool },
    Over(Ending),
}

/// How the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The deadline came first.
    CutOff,
    /// All shards left in time.
    Drained,
    /// A shard left unasked.
    ShardLost,
}

/// What the main thread sees when it looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub signalled: bool,
    /// Shards that began, ever.
    pub started: usize,
    /// Shards that have not left.
    pub running: usize,
}

impl Stage {
    /// The next stage; the same one if nothing happened. `allowed` is the time to leave.
    pub fn after(self, seen: Seen, now: Instant, allowed: Duration) -> Self {
        match self {
            Self::Serving if seen.signalled => {
                Self::Leaving { until: now + allowed, shard_lost: false }
            }
            Self::Serving if seen.running < seen.started => {
                Self::Leaving { until: now + allowed, shard_lost: true }
            }
            Self::Leaving { until, shard_lost } if seen.running == 0 || now >= until => {
                Self::Over(match (shard_lost, seen.running) {
                    (true, _) => Ending::ShardLost,
                    (false, 0) => Ending::Drained,
                    (false, _) => Ending::CutOff,
                })
            }
            Self::Serving | Self::Leaving { .. } | Self::Over(_) => self,
        }
    }
}

impl Ending {
    /// Sessions cut off at the deadline are an orderly end: the operator chose the deadline.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::CutOff | Self::Drained => ExitCode::SUCCESS,
            Self::ShardLost => ExitCode::FAILURE,
        }
    }
}

/// The main thread's end of it. Make it before any shard, so that no signal is missed.
#[derive(Debug)]
pub struct Drain {
    allowed: Duration,
    signalled: Arc<AtomicBool>,
    bell: UnixStream,
    house: House,
}

/// The shards' end of it: whether to leave, and who is still there.
#[derive(Debug, Clone)]
pub struct House(Arc<Counts>);

/// A shard's presence; dropped, also by a panic, when the shard has left.
#[derive(Debug)]
pub struct Presence(House);

#[derive(Debug)]
struct Counts {
    leaving: AtomicBool,
    started: AtomicUsize,
    running: AtomicUsize,
    /// The other end of the main thread's `bell`.
    rope: UnixStream,
}

impl House {
    /// Whether to take no more sessions and end those there are. Cheap enough for every turn.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// Counts a shard in. Call it where the shard is spawned and move it into the thread: a
    /// thread that fails early is then missed too.
    pub fn enter(&self) -> Presence {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        self.0.started.fetch_add(1, Ordering::SeqCst);
        Presence(self.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let counts = &self.0.0;
        counts.running.fetch_sub(1, Ordering::SeqCst);
        // Full means that the bell is ringing already.
        let _ = (&counts.rope).write(&[0]);
    }
}

impl Drain {
    /// Takes over SIGTERM and SIGINT.
    pub fn install(allowed: Duration) -> Result<Self, StartError> {
        Self::try_install(allowed).map_err(|error| {
            let cause = error.to_string();
            BadRights::Machine { what: "handle SIGTERM and SIGINT", cause }.into()
        })
    }

    fn try_install(allowed: Duration) -> io::Result<Self> {
        let drain = Self::without_signals(allowed)?;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it.
            flag::register_conditional_shutdown(signal, SECOND_SIGNAL, drain.signalled.clone())?;
            flag::register(signal, drain.signalled.clone())?;
            low_level::pipe::register(signal, drain.house.0.rope.try_clone()?)?;
        }
        Ok(drain)
    }

    fn without_signals(allowed: Duration) -> io::Result<Self> {
        let (bell, rope) = UnixStream::pair()?;
        rope.set_nonblocking(true)?;
        let counts = Counts {
            leaving: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            rope,
        };
        let signalled = Arc::new(AtomicBool::new(false));
        Ok(Self { allowed, signalled, bell, house: House(Arc::new(counts)) })
    }

    /// What shards hold on to.
    pub fn house(&self) -> House {
        self.house.clone()
    }

    /// Waits for the end. Meanwhile, when shards are to leave, `wake` is called to rouse those
    /// asleep: until they have left, as any waking can get lost.
    pub fn wait(mut self, mut wake: impl FnMut()) -> Ending {
        let mut told = false;
        let mut stage = Stage::Serving;
        loop {
            let now = Instant::now();
            stage = stage.after(self.look(), now, self.allowed);
            let patience = match stage {
                Stage::Serving => PACE,
                Stage::Leaving { until, .. } => {
                    self.house.0.leaving.store(true, Ordering::Release);
                    wake();
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(seconds = self.allowed.as_secs(), "leaving");
                        // Shards may be gone already, without ringing again.
                        continue;
                    }
                    // No waiting for zero time: the kernel takes it for ever.
                    let rest = until.saturating_duration_since(now);
                    rest.clamp(Duration::from_millis(1), PACE)
                }
                Stage::Over(ending) => return ending,
            };
            self.sleep(patience);
        }
    }

    /// `started` before `running`: a shard that enters in between is not taken for one that left.
    fn look(&self) -> Seen {
        let signalled = self.signalled.load(Ordering::SeqCst);
        let started = self.house.0.started.load(Ordering::SeqCst);
        Seen { signalled, started, running: self.house.0.running.load(Ordering::SeqCst) }
    }

    fn sleep(&mut self, patience: Duration) {
        let mut rings = [0; 64];
        let heard =
            self.bell.set_read_timeout(Some(patience)).and_then(|()| self.bell.read(&mut rings));
        // A timeout or a signal is a reason to look up like any other; a bell that is broken
        // must not make the loop spin.
        if let Err(error) = heard
            && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// How often to look up without being told to: a signal that came just before a look is seen then.
const PACE: Duration = Duration::from_millis(250);

/// What shells report for a process that SIGINT ended.
const SECOND_SIGNAL: i32 = 130;

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn seen(signalled: bool, running: usize, started: usize) -> Seen {
        Seen { signalled, started, running }
    }

    #[test]
    fn a_signal_gives_shards_until_the_deadline() {
        let now = Instant::now();
        let quiet = Stage::Serving.after(seen(false, 2, 2), now, FIVE);
        assert_eq!(quiet, Stage::Serving);
        let leaving = Stage::Serving.after(seen(true, 2, 2), now, FIVE);
        assert_eq!(leaving, Stage::Leaving { until: now + FIVE, shard_lost: false });
        let later = now + Duration::from_secs(3);
        assert_eq!(leaving.after(seen(true, 1, 2), later, FIVE), leaving, "no new deadline");
        assert_eq!(leaving.after(seen(true, 0, 2), later, FIVE), Stage::Over(Ending::Drained));
        assert_eq!(leaving.after(seen(true, 1, 2), now + FIVE, FIVE), Stage::Over(Ending::CutOff));
    }

    #[test]
    fn a_shard_that_leaves_unasked_ends_the_node_with_a_failure() {
        let now = Instant::now();
        let leaving = Stage::Serving.after(seen(false, 1, 2), now, FIVE);
        assert_eq!(leaving, Stage::Leaving { until: now + FIVE, shard_lost: true });
        assert_eq!(leaving.after(seen(true, 0, 2), now, FIVE), Stage::Over(Ending::ShardLost));
    }

    #[test]
    fn the_end_is_the_end() {
        let over = Stage::Over(Ending::Drained);
        assert_eq!(over.after(seen(true, 1, 1), Instant::now(), FIVE), over);
    }

    #[test]
    fn shards_that_are_woken_leave_and_the_node_is_drained() {
        let drain = Drain::without_signals(FIVE).unwrap();
        let (house, signalled) = (drain.house(), drain.signalled.clone());
        let shards: Vec<_> = (0..3)
            .map(|_| {
                let (presence, house) = (house.enter(), house.clone());
                std::thread::spawn(move || {
                    while !house.is_leaving() {
                        std::thread::park();
                    }
                    drop(presence);
                })
            })
            .collect();
        signalled.store(true, Ordering::SeqCst);
        let wake = || shards.iter().for_each(|shard| shard.thread().unpark());
        assert_eq!(drain.wait(wake), Ending::Drained);
    }

    #[test]
    fn a_shard_that_does_not_leave_is_cut_off() {
        let drain = Drain::without_signals(Duration::from_millis(20)).unwrap();
        let _stays = drain.house().enter();
        drain.signalled.store(true, Ordering::SeqCst);
        assert_eq!(drain.wait(|| {}), Ending::CutOff);
    }

    #[test]
    fn a_shard_that_missed_the_wake_up_to_leave_is_roused_again() {
        let drain = Drain::without_signals(Duration::from_secs(60)).unwrap();
        let house = drain.house();
        let mut presence = Some(house.enter());
        drain.signalled.store(true, Ordering::SeqCst);
        let mut wakes = 0;
        let wake = || {
            assert!(house.is_leaving());
            wakes += 1;
            if wakes == 3 {
                presence = None;
            }
        };
        assert_eq!(drain.wait(wake), Ending::Drained);
        assert_eq!(wakes, 3);
    }

    #[test]
    fn a_panic_in_a_shard_is_noticed() {
        let drain = Drain::without_signals(FIVE).unwrap();
        let presence = drain.house().enter();
        let shard = std::thread::spawn(move || {
            let _presence = presence;
            // Without the hook's message: this panic is meant.
            std::panic::resume_unwind(Box::new(()));
        });
        assert_eq!(drain.wait(|| {}), Ending::ShardLost);
        assert!(shard.join().is_err());
    }
}
