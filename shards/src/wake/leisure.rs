//! When to look at what nobody hurries for: reports and checks, which have sockets of their own
//! where the kernel can tell them (`io::lanes`).
//!
//! They are fetched when the shard is awake anyway, a little while after the last time, or when
//! they have waited long enough. Where hardly any come there is no timer: the shard is woken.
//!
//! Invariants: a look is due at most `LONGEST` after the last one, or at once; only a turn that
//! is longer, or media that fills all turns, makes it later. Time is an argument.

use std::time::{Duration, Instant};

use super::{Turn, WakeDelay};
use crate::io::port::Received;

/// How long they may wait. It makes the round trips that reports and checks tell longer by up to
/// as much, and is a tenth of the interval in which browsers send feedback.
const LONGEST: Duration = Duration::from_millis(10);

/// Looks at an empty socket cost half a microsecond: not in each of 50,000 turns a second.
const APART: Duration = Duration::from_millis(2);

/// When to look.
#[derive(Debug)]
pub struct Leisure {
    /// Nothing may wait.
    hurried: bool,
    /// When the last look was.
    looked: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Few come: whoever waits for them is woken by the next.
    Listening,
    /// Many come: the next look is to be [`LONGEST`] after the last one.
    Resting,
    /// There are more than the last look took, or one was announced.
    More,
}

impl Leisure {
    /// With [`WakeDelay::Off`] nothing waits here either.
    pub fn new(delay: WakeDelay) -> Self {
        Self { hurried: delay == WakeDelay::Off, looked: None, state: State::Listening }
    }

    /// Whether to look now, at the end of a turn.
    pub fn is_due(&self, now: Instant, turn: Turn) -> bool {
        let ago = |time| self.looked.is_none_or(|at| now.saturating_duration_since(at) >= time);
        let apart = if self.hurried { Duration::ZERO } else { APART };
        // What somebody waits for goes first, but not for ever.
        let has_time = !turn.urgent || ago(LONGEST);
        match self.state {
            State::More => has_time,
            State::Listening => turn.busy && has_time && ago(apart),
            State::Resting => ago(LONGEST) || turn.busy && has_time && ago(apart),
        }
    }

    /// What a look found.
    pub fn looked(&mut self, now: Instant, received: Received) {
        let soon = self.looked.is_some_and(|at| now.saturating_duration_since(at) < LONGEST);
        self.state = match received {
            Received { drained: false, .. } => State::More,
            _ if self.hurried => State::Listening,
            Received { count: 0, .. } => State::Listening,
            // One alone, after a long silence, promises no others.
            Received { count: 1, .. } if !soon => State::Listening,
            Received { .. } => State::Resting,
        };
        self.looked = Some(now);
    }

    /// Whether to be woken when something comes.
    pub fn listens(&self) -> bool {
        self.state == State::Listening
    }

    /// Something came.
    pub fn heard(&mut self) {
        self.state = State::More;
    }

    /// When to wake up for a look, come what may.
    pub fn deadline(&self) -> Option<Instant> {
        let looked = self.looked?;
        match self.state {
            State::Listening => None,
            State::Resting => Some(looked + LONGEST),
            State::More => Some(looked),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::start;

    /// What became of reports that came at these times.
    #[derive(Debug, Default)]
    struct Served {
        delays: Vec<Duration>,
        /// Times the shard was woken, or woke, for nothing but reports.
        wakes: usize,
        looks: usize,
    }

    /// Moves as `shard` does, which is also `busy` at these times; a look takes `budget`.
    fn serve(reports: Vec<Instant>, busy: Vec<Instant>, budget: usize) -> Served {
        serve_with(WakeDelay::Auto, reports, busy, budget)
    }

    fn serve_with(
        delay: WakeDelay,
        mut reports: Vec<Instant>,
        mut busy: Vec<Instant>,
        budget: usize,
    ) -> Served {
        let (mut leisure, mut served) = (Leisure::new(delay), Served::default());
        reports.sort();
        busy.sort();
        let (mut taken, mut turns) = (0, 0);
        while taken < reports.len() {
            let rung = leisure.listens().then_some(reports[taken]);
            let turn = busy.get(turns).copied();
            let now = turn.into_iter().chain(rung).chain(leisure.deadline()).min().unwrap();
            let now = now.max(leisure.looked.unwrap_or(now));
            let is_busy = turn == Some(now);
            turns += usize::from(is_busy);
            served.wakes += usize::from(!is_busy);
            if !is_busy && rung == Some(now) {
                leisure.heard();
            }
            if !leisure.is_due(now, Turn { busy: is_busy, ..Turn::default() }) {
                continue;
            }
            served.looks += 1;
            let waiting = reports[taken..].iter().take_while(|at| **at <= now).count();
            let count = waiting.min(budget);
            served.delays.extend(reports[taken..taken + count].iter().map(|at| now - *at));
            taken += count;
            leisure.looked(now, Received { count, drained: count < budget });
        }
        served
    }

    fn every(gap: Duration, count: u32) -> Vec<Instant> {
        (1..=count).map(|n| start() + gap * n).collect()
    }

    #[test]
    fn many_reports_wake_a_shard_a_hundred_times_a_second() {
        let second = serve(every(Duration::from_micros(130), 7700), Vec::new(), 256);
        assert!((100..110).contains(&second.wakes), "{}", second.wakes);
    }

    #[test]
    fn where_media_keeps_a_shard_awake_reports_wake_it_no_more() {
        let media = every(Duration::from_millis(5), 200);
        let second = serve(every(Duration::from_micros(130), 7600), media, 256);
        assert!(second.wakes <= 2 && second.looks <= 202, "{} {}", second.wakes, second.looks);
    }

    #[test]
    fn few_reports_are_taken_as_they_come_without_timers() {
        let minute = serve(every(Duration::from_millis(200), 300), Vec::new(), 256);
        assert_eq!(minute.wakes, 300);
        assert!(minute.delays.iter().all(Duration::is_zero));
    }

    #[test]
    fn in_a_busy_shard_looks_are_apart() {
        let turns = every(Duration::from_micros(20), 50_000);
        let second = serve(every(Duration::from_micros(130), 7600), turns, 256);
        assert!(second.looks <= 500, "{}", second.looks);
    }

    #[test]
    fn who_wants_no_waiting_gets_none() {
        let reports = every(Duration::from_micros(700), 1000);
        let second = serve_with(WakeDelay::Off, reports, Vec::new(), 256);
        assert!(second.delays.iter().all(Duration::is_zero));
    }

    #[test]
    fn media_that_is_not_done_goes_first_but_not_for_ever() {
        let mut leisure = Leisure::new(WakeDelay::Auto);
        let urgent = Turn { busy: true, urgent: true, ..Turn::default() };
        leisure.looked(start(), Received { count: 64, drained: false });
        assert!(leisure.is_due(start(), Turn::default()));
        assert!(!leisure.is_due(start() + APART, urgent));
        assert!(leisure.is_due(start() + LONGEST, urgent));
    }

    proptest! {
        #[test]
        fn none_waits_longer_than_it_may(
            reports in prop::collection::vec(0u64..100_000, 1..200),
            busy in prop::collection::vec(0u64..100_000, 0..200),
            budget in 1usize..64,
        ) {
            let at = |micros: Vec<u64>| -> Vec<Instant> {
                micros.into_iter().map(|us| start() + Duration::from_micros(us)).collect()
            };
            let count = reports.len();
            let served = serve(at(reports), at(busy), budget);
            prop_assert_eq!(served.delays.len(), count);
            prop_assert!(served.delays.iter().all(|delay| *delay <= LONGEST));
        }
    }
}
