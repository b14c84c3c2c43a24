//! Which datagrams of the other side are missing, and when to say so.
//!
//! A gap may be loss or reordering; only time tells (RFC 8985, RACK). A missing number is
//! reported once it is older than the reorder window, which grows to a quarter more than what
//! came late was late, and shrinks slowly.
//!
//! ```text
//!  gap ── window ──> reported ── 25 ms ──> reported ── 150 ms ──> reported, forgotten
//! ```
//!
//! Invariants: the missing are sorted and at most [`MISSING_MAX`]; the older of two has waited
//! at least as long.
//!
//! Not here: the bytes of a report (`wire::feedback`); replay, which is checked before.

use std::collections::VecDeque;

use crate::wire::MissingRun;
use crate::wire::feedback::{RUNS_MAX, SPAN_MAX};

/// Datagrams missing at once. More is an outage: by the time it is repaired, a keyframe is
/// cheaper.
pub(super) const MISSING_MAX: usize = 1024;

/// Reports may be lost too; but what was asked for three times is lost for good, or the sender
/// does not have it.
const REPORTS_MAX: u8 = 3;

/// When a number is reported again: soon, for one report may be lost, then later, for losses
/// come in bursts and three reports in a row would share one.
const REPEATS: [u64; REPORTS_MAX as usize - 1] = [25_000, 150_000];

/// The reorder window in µs: less would take the jitter of one queue for loss, more would only
/// delay repair. The upper bound is what a path with several routes reorders by.
const WINDOW_MIN: u64 = 2_000;
const WINDOW_MAX: u64 = 30_000;

/// A report each 25 ms while there is something to acknowledge: the sender's picture of delay
/// and loss, at 40 small datagrams a second.
pub(super) const REPORT_INTERVAL: u64 = 25_000;

/// Or when so many datagrams came: at 40,000 a second and more, the sender should not have to
/// guess about a thousand at a time.
const REPORT_DATAGRAMS: u32 = 64;

/// And no more often than this, however many come: a report costs a datagram.
const REPORT_SPACING: u64 = 1_000;

/// The numbers of one direction of a link. Times are µs of link time.
#[derive(Debug)]
pub(super) struct Gaps {
    /// All below were received, or are missing, or are lost.
    next: u64,
    /// When the largest came.
    largest_at: u64,
    missing: VecDeque<Missing>,
    window: u64,
    window_shrunk_at: u64,
    /// When the first missing that was not reported is to be.
    urgent_at: Option<u64>,
    /// When the next usual report is due.
    report_at: Option<u64>,
    reported_at: u64,
    unreported: u32,
    lost: u64,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    number: u64,
    since: u64,
    /// When to report it again.
    again_at: u64,
    reports: u8,
}

impl Missing {
    fn is_due(&self, window: u64, now: u64) -> bool {
        let at = if self.reports == 0 { self.since + window } else { self.again_at };
        at <= now
    }
}

/// What is to be reported.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) largest: u64,
    pub(super) received_at: u64,
    /// From the largest down.
    pub(super) runs: &'a [MissingRun],
}

impl Gaps {
    pub(super) fn new(now: u64) -> Self {
        Self {
            next: 0,
            largest_at: now,
            missing: VecDeque::new(),
            window: WINDOW_MIN,
            window_shrunk_at: now,
            urgent_at: None,
            report_at: None,
            reported_at: 0,
            unreported: 0,
            lost: 0,
        }
    }

    /// An authentic datagram arrived for the first time.
    #[inline]
    pub(super) fn on_datagram(&mut self, number: u64, now: u64) {
        if number < self.next {
            self.on_late(number, now);
            return;
        }
        if number > self.next {
            self.note_gap(number, now);
        }
        self.next = number + 1;
        self.largest_at = now;
    }

    /// It had something that the sender wants to know the fate of.
    #[inline]
    pub(super) fn on_eliciting(&mut self, now: u64) {
        self.unreported += 1;
        if self.report_at.is_none() {
            self.report_at = Some(now + REPORT_INTERVAL);
        }
    }

    /// When to report.
    pub(super) fn deadline(&self) -> Option<u64> {
        match (self.urgent_at, self.report_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    #[inline]
    pub(super) fn is_due(&self, now: u64) -> bool {
        let many = self.unreported >= REPORT_DATAGRAMS && now >= self.reported_at + REPORT_SPACING;
        many || self.deadline().is_some_and(|at| at <= now)
    }

    /// Datagrams that never came, as far as is known.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// In µs.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// What to report now; `runs` is room for it.
    pub(super) fn report<'a>(
        &mut self,
        now: u64,
        runs: &'a mut [MissingRun; RUNS_MAX],
    ) -> Option<Report<'a>> {
        let largest = self.next.checked_sub(1)?;
        self.shrink_window(now);
        let count = self.collect(now, runs);
        self.reported_at = now;
        self.unreported = 0;
        self.settle();
        Some(Report { largest, received_at: self.largest_at, runs: &runs[..count] })
    }

    fn note_gap(&mut self, number: u64, now: u64) {
        let count = number - self.next;
        if count > MISSING_MAX as u64 {
            self.lost += count - MISSING_MAX as u64 + self.missing.len() as u64;
            self.missing.clear();
            self.urgent_at = None;
        }
        let first = number - count.min(MISSING_MAX as u64);
        for number in first..number {
            if self.missing.len() == MISSING_MAX {
                self.missing.pop_front();
                self.lost += 1;
            }
            self.missing.push_back(Missing { number, since: now, again_at: 0, reports: 0 });
        }
        if self.urgent_at.is_none() {
            self.urgent_at = Some(self.urgent(now));
        }
    }

    fn urgent(&self, since: u64) -> u64 {
        (since + self.window).max(self.reported_at + REPORT_SPACING)
    }

    #[cold]
    fn on_late(&mut self, number: u64, now: u64) {
        let Ok(at) = self.missing.binary_search_by_key(&number, |missing| missing.number) else {
            return;
        };
        if let Some(Missing { since, .. }) = self.missing.remove(at) {
            let late = now.saturating_sub(since);
            self.window = self.window.max(late + late / 4).min(WINDOW_MAX);
        }
        self.settle();
    }

    /// By a percent a second.
    fn shrink_window(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.window_shrunk_at);
        if elapsed < 1_000_000 {
            return;
        }
        self.window_shrunk_at = now;
        let part = self.window.saturating_mul(elapsed) / 100_000_000;
        self.window = self.window.saturating_sub(part).max(WINDOW_MIN);
    }

    /// Gathers runs of what is missing long enough, from the largest down.
    fn collect(&mut self, now: u64, runs: &mut [MissingRun; RUNS_MAX]) -> usize {
        let Self { missing, window, next, .. } = self;
        let (mut count, mut below) = (0, *next - 1);
        for missing in missing.iter_mut().rev().filter(|m| m.is_due(*window, now)) {
            let number = missing.number;
            match runs[..count].last_mut() {
                Some(run) if run.first == number + 1 => run.first = number,
                _ if count == RUNS_MAX || below - number > SPAN_MAX => break,
                _ => {
                    runs[count] = MissingRun { first: number, len: 0 };
                    count += 1;
                }
            }
            runs[count - 1].len += 1;
            below = number;
            if let Some(after) = REPEATS.get(usize::from(missing.reports)) {
                missing.again_at = now + after;
            }
            missing.reports += 1;
        }
        let before = missing.len();
        missing.retain(|missing| missing.reports < REPORTS_MAX);
        self.lost += (before - missing.len()) as u64;
        count
    }

    /// Sets the deadlines anew after the missing changed or were reported.
    fn settle(&mut self) {
        let first = self.missing.iter().find(|missing| missing.reports == 0);
        self.urgent_at = first.map(|missing| self.urgent(missing.since));
        if self.unreported == 0 {
            let reported = self.missing.iter().filter(|missing| missing.reports > 0);
            let again = reported.map(|missing| missing.again_at).min();
            self.report_at = again.map(|at| at.max(self.reported_at + REPORT_INTERVAL));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn datagrams_in_order_are_acknowledged_after_the_interval_or_in_numbers() {
        let mut gaps = Gaps::new(0);
        for number in 0..10 {
            gaps.on_datagram(number, number);
            gaps.on_eliciting(number);
        }
        assert_eq!(gaps.deadline(), Some(REPORT_INTERVAL));
        assert!(!gaps.is_due(REPORT_INTERVAL - 1));
        assert_eq!(report(&mut gaps, REPORT_INTERVAL), (9, vec![]));
        assert_eq!(gaps.deadline(), None, "there is nothing to tell");
        for number in 10..10 + u64::from(REPORT_DATAGRAMS) {
            assert!(!gaps.is_due(30_000));
            gaps.on_datagram(number, 30_000);
            gaps.on_eliciting(30_000);
        }
        assert!(gaps.is_due(30_000));
    }

    #[test]
    fn a_gap_is_reported_when_it_is_older_than_the_window_and_three_times_in_all() {
        let mut gaps = Gaps::new(0);
        gaps.on_datagram(2, 100);
        assert_eq!(gaps.deadline(), Some(100 + WINDOW_MIN));
        let mut now = 100 + WINDOW_MIN;
        for again in [25_000, 150_000, 0] {
            assert!(gaps.is_due(now) && !gaps.is_due(now - 1));
            assert_eq!(report(&mut gaps, now), (2, vec![(0, 2)]));
            now += again;
        }
        assert_eq!((gaps.deadline(), gaps.lost()), (None, 2));
    }

    #[test]
    fn what_comes_late_is_not_reported_and_widens_the_window() {
        let mut gaps = Gaps::new(0);
        gaps.on_datagram(0, 0);
        gaps.on_datagram(2, 0);
        gaps.on_datagram(1, 1_900);
        assert_eq!((gaps.deadline(), gaps.window()), (None, 2_375));
        gaps.on_datagram(4, 10_000);
        assert_eq!(report(&mut gaps, 12_375).1, [(3, 1)]);
        gaps.on_datagram(3, 20_000);
        assert_eq!(gaps.window(), 12_500, "late though reported");
        gaps.on_datagram(6, 30_000);
        gaps.on_datagram(5, 90_000);
        assert_eq!(gaps.window(), WINDOW_MAX);
    }

    #[test]
    fn the_window_shrinks_by_a_percent_a_second() {
        let mut gaps = Gaps::new(0);
        gaps.on_datagram(1, 0);
        gaps.on_datagram(0, 16_000);
        assert_eq!(gaps.window(), 20_000);
        let mut runs = [MissingRun { first: 0, len: 0 }; RUNS_MAX];
        for tick in 1..=4_000 {
            gaps.report(tick * 25_000, &mut runs);
        }
        assert!((7_000..7_700).contains(&gaps.window()), "{} after 100 s", gaps.window());
    }

    #[test]
    fn an_outage_is_bounded_and_its_end_is_reported_first() {
        let mut gaps = Gaps::new(0);
        gaps.on_datagram(0, 0);
        gaps.on_datagram(5_000, 0);
        let (largest, runs) = report(&mut gaps, WINDOW_MIN);
        assert_eq!((largest, runs), (5_000, vec![(5_000 - 1_024, 1_024)]));
        assert_eq!(gaps.lost(), 4_999 - 1_024);
        gaps.on_datagram(u64::from(u32::MAX), 10_000);
        assert_eq!(gaps.missing.len(), MISSING_MAX);
    }

    #[test]
    fn more_bursts_than_fit_one_report_are_told_by_the_next() {
        let mut gaps = Gaps::new(0);
        for number in (1..300).step_by(2) {
            gaps.on_datagram(number, 0);
        }
        let mut told = Vec::new();
        let mut now;
        while gaps.deadline().is_some() {
            now = gaps.deadline().unwrap();
            told.extend(report(&mut gaps, now).1);
        }
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 150);
    }

    proptest! {
        #[test]
        fn every_number_is_received_missing_or_lost(
            steps in prop::collection::vec((0u64..40, 0u64..3_000, any::<bool>()), 1..300),
        ) {
            let mut gaps = Gaps::new(0);
            let (mut now, mut received) = (0, std::collections::BTreeSet::new());
            let mut late = 0;
            for (step, wait, backwards) in steps {
                now += wait;
                let number =
                    if backwards { gaps.next.saturating_sub(step) } else { gaps.next + step / 8 };
                if received.insert(number) {
                    let was = gaps.missing.iter().any(|missing| missing.number == number);
                    late += u64::from(number < gaps.next && !was);
                    gaps.on_datagram(number, now);
                    gaps.on_eliciting(now);
                }
                if gaps.is_due(now) {
                    let before = gaps.deadline();
                    report(&mut gaps, now);
                    prop_assert!(gaps.deadline() > before || gaps.deadline().is_none_or(|at| at > now));
                }
                let counted = received.len() as u64 - late + gaps.missing.len() as u64 + gaps.lost;
                prop_assert_eq!(counted, gaps.next);
                let numbers = gaps.missing.iter().map(|missing| missing.number);
                prop_assert!(numbers.is_sorted());
            }
        }
    }

    fn report(gaps: &mut Gaps, now: u64) -> (u64, Vec<(u64, u64)>) {
        let mut runs = [MissingRun { first: 0, len: 0 }; RUNS_MAX];
        let report = gaps.report(now, &mut runs).unwrap();
        (report.largest, report.runs.iter().map(|run| (run.first, run.len)).collect())
    }
}
