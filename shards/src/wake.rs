//! Wake moderation: when a shard waits a little although it could go on, because waking up, and
//! handing the kernel one datagram instead of a run, cost more than what arrived.
//!
//! Two waits:
//! *Gathering* (stops the thread, `io::pause`): packets of a frame were taken, their marker has not come, and many copies are
//! about to be made of them. The rest of the frame is usually right behind, and a run of nine
//! costs a third of nine single datagrams.
//! *Resting*: after a turn that found something the shard does not wait for the next datagram,
//! but does nothing for a while and then looks. It pays when something usually comes within that
//! while, and only then. Mostly it stops the thread, too: 16 µs of CPU, where a timer of the
//! executor takes a whole cycle of it, some 50 µs, more than the wake-up to be spared. But the
//! API lives on the same thread, so once a millisecond the rest is a timer's.
//!
//! Both learn from their own success, so neither happens on an idle or lightly loaded shard:
//! what arrives there is answered at once.
//!
//! And what can wait much longer, because nobody hurries for it, is for [`Leisure`].
//!
//! Invariants: nothing else that arrived waits longer than the bound of [`WakeDelay`] before it is
//! taken and sent. After commands of the API there is no rest, and after answers to it the
//! thread is the API's once before anything else: answers go first. Time is an argument.

mod leisure;

use std::time::{Duration, Instant};

pub use leisure::Leisure;

/// How long a shard may wait for more to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WakeDelay {
    /// As it pays, [`LONGEST`] at most.
    #[default]
    Auto,
    /// Never.
    Off,
    /// This long after every turn that found something, and for the rest of a frame as it pays.
    Fixed(Duration),
}

/// The longest wait of [`WakeDelay::Auto`]. Less than a frame of a display by two orders, and
/// more would hardly pay: at 300 µs there are 3,000 wake-ups a second at most.
pub const LONGEST: Duration = Duration::from_micros(300);

/// The longest [`WakeDelay::Fixed`]: a video call's audio packet is 20 ms long, and nobody asks
/// for more than a twentieth of that.
pub const LONGEST_FIXED: Duration = Duration::from_micros(1000);

/// A turn and the rest after it, of [`WakeDelay::Auto`]. Shorter than [`LONGEST`], because the
/// kernel's timers are late by 50 to 100 µs on virtual machines.
///
/// A rest after long turns would make them longer: at 70 % of a core, turns and rests of 200 µs
/// are 670 µs together, for nothing, as a shard that is so busy hardly sleeps.
const REST: Duration = Duration::from_micros(200);

/// A rest is not worth less: stopping costs 16 µs.
const SHORTEST: Duration = Duration::from_micros(80);

/// One look for the rest of a frame. A publisher's packets leave it within a few of these, or
/// with milliseconds between them.
const GATHER: Duration = Duration::from_micros(50);

/// Sends that gathering must be expected to spare the kernel. Each spares 0.5 µs, a look costs
/// 16 µs, and a frame takes up to three: measured over loopback, it neither wins nor loses with
/// 100 viewers, and wins 7 % with 250.
const GATHER_COPIES: f32 = 128.0;

/// When gathering has not paid lately, it is tried again once in so many times.
const TRY_AGAIN: u32 = 16;

/// Resting begins when something comes within a rest this often, and ends when it comes less
/// often than that. Four rests in a row cost 25 µs of CPU each and being woken 34 µs and more;
/// packets that leave together are gain besides.
const REST_ODDS: [f32; 2] = [0.65, 0.55];

/// How long the thread is the media's alone.
const ALONE: Duration = Duration::from_millis(1);

/// What a turn was, as far as waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// There was anything to do.
    pub busy: bool,
    /// Datagrams or mail arrived.
    pub found: bool,
    /// There is more to do at once, or somebody on this thread waits for an answer.
    pub urgent: bool,
    /// Somebody on this thread got one and is to pass it on.
    pub answered: bool,
}

impl Turn {
    /// Both as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            busy: self.busy | other.busy,
            found: self.found | other.found,
            urgent: self.urgent | other.urgent,
            answered: self.answered | other.answered,
        }
    }
}

/// Frames of which a part has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unfinished {
    /// How many copies would leave before the rest of their frame.
    pub copies: usize,
    /// Of how many of the copies that were waited for more has come since.
    pub went_on: usize,
}

/// To do nothing for a while, or, for no time, to let others on the thread run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    pub time: Duration,
    /// By stopping the thread; otherwise others on it shall run.
    pub alone: bool,
}

/// Decides when to wait, from what came of waiting before.
#[derive(Debug)]
pub struct Moderator {
    delay: WakeDelay,
    rest: Odds,
    resting: bool,
    /// When the last turn that found something ended, until it is known whether a rest from
    /// then on would have ended with something there.
    trial: Option<Instant>,
    /// The end of that turn was the begin of a rest.
    rested: bool,
    gather: Odds,
    /// The copies whose frames are being waited for, while they are.
    gathering: Option<usize>,
    passed_over: u32,
    /// When others on this thread were last let in.
    shared_at: Option<Instant>,
    /// Since when what is taken now may have waited for us.
    since: Option<Instant>,
    /// When this turn began.
    began: Option<Instant>,
}

impl Moderator {
    pub fn new(delay: WakeDelay) -> Self {
        Self {
            delay,
            rest: Odds(0.0),
            resting: false,
            trial: None,
            rested: false,
            gather: Odds(1.0),
            gathering: None,
            passed_over: 0,
            shared_at: None,
            since: None,
            began: None,
        }
    }

    /// Arrivals were taken, nothing of them is sent yet: how long to wait for more before
    /// sending, if at all. To be asked again after that wait and another taking.
    ///
    /// It was worth it if those frames went on of which most copies are made: that anything came,
    /// from whichever publisher, says nothing.
    pub fn gather(
        &mut self,
        now: Instant,
        found: bool,
        unfinished: impl FnOnce() -> Unfinished,
    ) -> Option<Duration> {
        let longest = match self.delay {
            WakeDelay::Off => return None,
            WakeDelay::Auto => LONGEST,
            WakeDelay::Fixed(delay) => delay,
        };
        let awaited = self.gathering.take();
        if awaited.is_none() {
            self.began = Some(now);
            self.judge_rest(now, found);
            if !std::mem::take(&mut self.rested) {
                self.since = Some(now);
            }
        }
        let waited =
            self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let Unfinished { copies, went_on } =
            if found { unfinished() } else { Unfinished::default() };
        if let Some(awaited) = awaited {
            self.gather.note(2 * went_on >= awaited);
        }
        if !found || waited + GATHER > longest {
            return None;
        }
        if copies as f32 * self.gather.0 < GATHER_COPIES {
            // Frames of few copies say nothing about those of many.
            self.passed_over += u32::from(copies as f32 >= GATHER_COPIES);
            if self.passed_over < TRY_AGAIN {
                return None;
            }
        }
        self.passed_over = 0;
        self.gathering = Some(copies);
        Some(GATHER)
    }

    /// Everything is sent: how long to stop before looking for more, or `None` to go on at once
    /// if `turn` found something, and to sleep until woken if not.
    pub fn rest(&mut self, now: Instant, turn: Turn) -> Option<Rest> {
        if turn.urgent || turn.answered {
            self.trial = None;
            return None;
        }
        if !turn.found {
            return None;
        }
        self.trial = Some(now);
        let rest = match self.delay {
            WakeDelay::Off => return None,
            WakeDelay::Auto => {
                self.resting = self.rest.0 >= REST_ODDS[usize::from(self.resting)];
                let turn = self.began.map(|began| now.saturating_duration_since(began));
                let rest = REST.checked_sub(turn.unwrap_or_default());
                rest.filter(|rest| self.resting && *rest >= SHORTEST)
            }
            WakeDelay::Fixed(delay) => Some(delay),
        };
        self.rested = rest.is_some();
        let alone = self.shared_at.is_some_and(|at| now.saturating_duration_since(at) < ALONE);
        // After a long turn others are let in without a rest.
        let only_share = (self.resting && !alone).then_some(Duration::ZERO);
        let time = rest.or(only_share)?;
        if self.rested {
            self.since = Some(now);
        }
        if !alone {
            self.shared_at = Some(now + time);
        }
        Some(Rest { time, alone })
    }

    /// Others on this thread were let in until now, by sleeping or by yielding to them. Rests do
    /// not need to be told.
    pub fn shared(&mut self, now: Instant) {
        self.shared_at = Some(now);
    }

    /// Whether a rest would have ended with something there, whether or not there was one.
    fn judge_rest(&mut self, now: Instant, found: bool) {
        let Some(trial) = self.trial else { return };
        if !self.rested && !found {
            return;
        }
        let in_time = self.rested || now.saturating_duration_since(trial) <= REST;
        self.rest.note(found && in_time);
        self.trial = None;
    }
}

/// How often something happened lately, from 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Odds(f32);

impl Odds {
    /// One of the last sixteen or so.
    fn note(&mut self, happened: bool) {
        let new = if happened { 1.0 } else { 0.0 };
        self.0 += (new - self.0) / 16.0;
    }
}

#[cfg(test)]
mod tests;
