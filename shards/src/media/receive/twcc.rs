//! Arrival times of one session's packets by their transport-wide sequence numbers, for the
//! feedback by which the publisher estimates its bandwidth
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! ```text
//!        first                    next                 end
//!  slots  | told, kept for repeats |  not yet told      |
//!         |  x x . x x x x . x x x |  x x . . x x x x   |      x arrived, . did not
//! ```
//!
//! A packet that arrives late, in a slot already told as lost, moves `next` back to it: the next
//! report repeats what follows, truthfully. Senders take the repetition as no news.
//!
//! Invariants: a report's last slot has arrived; its times are within the deltas of the wire;
//! its serialized form fits one datagram.
//!
//! Not here: the bytes of the feedback; the estimate, which is the publisher's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Slots per report. On the wire each takes up to 2 bytes of delta and 2/7 of a chunk: 448 make
/// 1024 bytes and a header.
pub const REPORT_MAX: usize = 448;

/// Slots in all. Only a session whose reports are not fetched for long has so many; it loses the
/// oldest.
const SLOTS_MAX: usize = 1000;

/// Slots kept after they were told: a late packet further back is not worth the repetition.
const TOLD_MAX: usize = 256;

/// A longer jump of the numbers, in either direction, is a new numbering.
const JUMP_MAX: u64 = SLOTS_MAX as u64;

/// Feedback intervals, as in libwebrtc. Shorter ones react sooner and cost more of the downlink.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_DEFAULT: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_millis(250);

/// The interval follows the packet rate such that a report has about so many slots: some 100
/// bytes for each 20 kB received. 200 packets per second make the usual 100 ms.
const SLOTS_AIMED: u32 = 20;

const TICK_NANOS: u128 = 250_000;

/// A 24-bit field on the wire, in units of 256 ticks.
const REFERENCE_MASK: u64 = 0xff_ffff;
const REFERENCE_TICKS: u64 = 256;

/// One feedback packet, ready to be serialized.
#[derive(Debug, PartialEq, Eq)]
pub struct TwccReport<'a> {
    /// The number of the first status.
    pub base_seq: u16,
    /// The time the arrivals refer to, within 24 bits.
    pub reference_time_64ms: u32,
    /// Rises by one with each report.
    pub feedback_count: u8,
    /// Per number, the arrival in ticks of 250 us after the reference time, or `None` if it did
    /// not arrive. The first arrival is below 256; the next differ from each other by what an i16
    /// can hold. The last is an arrival.
    pub statuses: &'a [Option<i32>],
}

/// Records one session's arrivals.
#[derive(Debug)]
pub struct TwccRecorder {
    epoch: Instant,
    /// Ticks since `epoch`, per number from `first` on.
    slots: VecDeque<Option<u64>>,
    first: u64,
    /// The first slot of the next report.
    next: u64,
    /// Arrivals since the last report.
    fresh: u32,
    deadline: Option<Instant>,
    last_report: Option<Instant>,
    interval: Duration,
    feedback_count: u8,
    statuses: Vec<Option<i32>>,
}

impl TwccRecorder {
    /// `now` only anchors the reference time.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            slots: VecDeque::new(),
            first: 0,
            next: 0,
            fresh: 0,
            deadline: None,
            last_report: None,
            interval: INTERVAL_DEFAULT,
            feedback_count: 0,
            statuses: Vec::new(),
        }
    }

    /// A packet with this transport-wide sequence number arrived, whatever its SSRC.
    pub fn on_packet(&mut self, seq: u16, now: Instant) {
        let Some(sequence) = self.place(seq) else { return };
        while self.end() <= sequence {
            self.slots.push_back(None);
        }
        let arrival = self.ticks(now);
        // `place` answers with numbers from `first` on.
        let slot = &mut self.slots[(sequence - self.first) as usize];
        if slot.is_some() {
            return;
        }
        *slot = Some(arrival);
        self.next = self.next.min(sequence);
        self.trim(SLOTS_MAX);
        self.fresh += 1;
        self.schedule(now);
    }

    /// When [`Self::due`] has something to tell.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The report to be sent at `now`, if any. To be called until there is none: a long stretch
    /// makes several.
    pub fn due(&mut self, now: Instant) -> Option<TwccReport<'_>> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return None;
        }
        let reference = self.fill_statuses()?;
        let base = self.next;
        self.next = base + self.statuses.len() as u64;
        let feedback_count = self.feedback_count;
        self.feedback_count = feedback_count.wrapping_add(1);
        if self.next == self.end() {
            self.adapt_interval(now);
            self.last_report = Some(now);
            self.fresh = 0;
            self.deadline = None;
            self.forget_told();
        }
        Some(TwccReport {
            base_seq: base as u16,
            reference_time_64ms: (reference & REFERENCE_MASK) as u32,
            feedback_count,
            statuses: &self.statuses,
        })
    }

    /// The extended number, or `None` for a packet too late to be told.
    fn place(&mut self, seq: u16) -> Option<u64> {
        let Some(newest) = self.end().checked_sub(1).filter(|_| !self.slots.is_empty()) else {
            self.start_at(seq);
            return Some(self.first);
        };
        let distance = i64::from(seq.wrapping_sub(newest as u16) as i16);
        if distance.unsigned_abs() > JUMP_MAX {
            self.start_at(seq);
            return Some(self.first);
        }
        let sequence = newest.wrapping_add_signed(distance);
        if sequence < self.first {
            return self.place_before_first(sequence);
        }
        Some(sequence)
    }

    /// The very first packets may be reordered, too: as long as nothing was told, the slots can
    /// begin earlier.
    fn place_before_first(&mut self, sequence: u64) -> Option<u64> {
        let is_untold = self.last_report.is_none() && self.next == self.first;
        if !is_untold || self.end() - sequence > SLOTS_MAX as u64 {
            return None;
        }
        while self.first > sequence {
            self.slots.push_front(None);
            self.first -= 1;
        }
        Some(sequence)
    }

    /// What was not told of an old numbering is lost.
    fn start_at(&mut self, seq: u16) {
        self.slots.clear();
        // One cycle up, so that no extended number falls below zero.
        self.first = u64::from(seq) + (1 << 16);
        self.next = self.first;
        self.fresh = 0;
    }

    fn schedule(&mut self, now: Instant) {
        if self.end() - self.next >= REPORT_MAX as u64 {
            self.deadline = Some(now);
        }
        if self.deadline.is_none() {
            // After a silence, wait for what follows the first packet.
            let earliest = now + INTERVAL_MIN;
            let usual = self.last_report.map_or(earliest, |last| last + self.interval);
            self.deadline = Some(usual.max(earliest));
        }
    }

    /// Towards the interval in which [`SLOTS_AIMED`] packets arrive.
    fn adapt_interval(&mut self, now: Instant) {
        let Some(last) = self.last_report else { return };
        let elapsed = now.saturating_duration_since(last).min(INTERVAL_MAX * 4);
        let aimed = elapsed * SLOTS_AIMED / self.fresh.max(1);
        let aimed = aimed.clamp(INTERVAL_MIN, INTERVAL_MAX);
        self.interval = (self.interval * 3 + aimed) / 4;
    }

    /// Fills `statuses` from `next` on and answers with the reference time.
    fn fill_statuses(&mut self) -> Option<u64> {
        let from = (self.next - self.first) as usize;
        self.statuses.clear();
        let mut reference = None;
        let mut previous = 0;
        let mut arrived_len = 0;
        for slot in self.slots.range(from..).take(REPORT_MAX) {
            let Some(ticks) = *slot else {
                self.statuses.push(None);
                continue;
            };
            let reference = *reference.get_or_insert(ticks / REFERENCE_TICKS);
            let since = ticks as i64 - (reference * REFERENCE_TICKS) as i64;
            if i16::try_from(since - previous).is_err() {
                // Not to be told as a delta: the next report begins behind what arrived.
                break;
            }
            previous = since;
            self.statuses.push(i32::try_from(since).ok());
            arrived_len = self.statuses.len();
        }
        if reference.is_none() {
            return self.skip_lost_stretch();
        }
        // What is missing at the end may still come.
        self.statuses.truncate(arrived_len);
        reference
    }

    /// A whole report's worth of slots without one arrival tells the sender nothing it would not
    /// learn from the gap between two reports.
    fn skip_lost_stretch(&mut self) -> Option<u64> {
        let from = (self.next - self.first) as usize;
        match self.slots.range(from..).position(Option::is_some) {
            Some(lost) => {
                self.next += lost as u64;
                self.fill_statuses()
            }
            None => {
                self.deadline = None;
                None
            }
        }
    }

    fn forget_told(&mut self) {
        let told = (self.next - self.first) as usize;
        let forgotten = told.saturating_sub(TOLD_MAX);
        self.slots.drain(..forgotten);
        self.first += forgotten as u64;
    }

    fn trim(&mut self, len: usize) {
        let excess = self.slots.len().saturating_sub(len);
        self.slots.drain(..excess);
        self.first += excess as u64;
        self.next = self.next.max(self.first);
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Always from the epoch, so that rounding does not add up.
    fn ticks(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        (elapsed.as_nanos() / TICK_NANOS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::receive::testing::{ms, start};
    use proptest::prelude::*;

    #[test]
    fn nothing_arrived_nothing_told() {
        let mut recorder = TwccRecorder::new(start());
        assert_eq!(recorder.next_deadline(), None);
        assert_eq!(recorder.due(start() + ms(1000)), None);
    }

    #[test]
    fn a_report_tells_arrivals_and_gaps_across_the_wrap() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        for (seq, at) in [(65_534, 70), (65_535, 71), (1, 75)] {
            recorder.on_packet(seq, t + ms(at));
        }
        assert_eq!(recorder.next_deadline(), Some(t + ms(120)));
        assert_eq!(recorder.due(t + ms(119)), None);
        let statuses = [Some(24), Some(28), None, Some(44)];
        assert_eq!(
            recorder.due(t + ms(120)),
            Some(TwccReport {
                base_seq: 65_534,
                reference_time_64ms: 1,
                feedback_count: 0,
                statuses: &statuses,
            })
        );
        assert_eq!(recorder.due(t + ms(120)), None);
        assert_eq!(recorder.next_deadline(), None);
        recorder.on_packet(2, t + ms(121));
        let deadline = recorder.next_deadline().unwrap();
        assert_eq!(deadline, t + ms(220), "the usual interval");
        let report = recorder.due(deadline).unwrap();
        assert_eq!((report.base_seq, report.feedback_count), (2, 1));
    }

    #[test]
    fn a_late_packet_is_told_with_what_follows_it() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        for seq in [10, 12, 13] {
            recorder.on_packet(seq, t + ms(10));
        }
        assert_eq!(
            told(&mut recorder, t + ms(100)),
            [(10, vec![Some(40), None, Some(40), Some(40)])]
        );
        recorder.on_packet(13, t + ms(101));
        assert_eq!(recorder.next_deadline(), None, "a duplicate is nothing new");
        recorder.on_packet(11, t + ms(110));
        recorder.on_packet(14, t + ms(112));
        let expected = vec![Some(184), Some(-216), Some(-216), Some(192)];
        assert_eq!(told(&mut recorder, t + ms(300)), [(11, expected)]);
    }

    #[test]
    fn the_first_packets_may_be_reordered() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        recorder.on_packet(1, t);
        recorder.on_packet(65_535, t);
        assert_eq!(told(&mut recorder, t + ms(50)), [(65_535, vec![Some(0), None, Some(0)])]);
    }

    #[test]
    fn a_packet_from_long_before_is_not_told() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        for seq in 0..400 {
            recorder.on_packet(seq, t);
        }
        assert_eq!(told(&mut recorder, t + ms(100)).len(), 1);
        recorder.on_packet(65_500, t + ms(101));
        assert_eq!(recorder.next_deadline(), None);
    }

    #[test]
    fn a_new_numbering_starts_over_in_either_direction() {
        for jump in [20_000u16, 50_000] {
            let t = start();
            let mut recorder = TwccRecorder::new(t);
            recorder.on_packet(5, t);
            recorder.on_packet(5 + jump, t + ms(1));
            assert_eq!(told(&mut recorder, t + ms(60)), [(5 + jump, vec![Some(4)])]);
        }
    }

    #[test]
    fn a_full_report_is_told_at_once_and_a_long_stretch_in_parts() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        for seq in 0..900 {
            recorder.on_packet(seq, t);
        }
        assert_eq!(recorder.next_deadline(), Some(t));
        let lens: Vec<_> = told(&mut recorder, t).iter().map(|(_, s)| s.len()).collect();
        assert_eq!(lens, [REPORT_MAX, REPORT_MAX, 4]);
    }

    #[test]
    fn a_session_nobody_asks_loses_the_oldest() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        for seq in 0..5000 {
            recorder.on_packet(seq, t);
        }
        let reports = told(&mut recorder, t);
        assert_eq!(reports[0].0, 4000);
        assert_eq!(reports.iter().map(|(_, s)| s.len()).sum::<usize>(), SLOTS_MAX);
    }

    #[test]
    fn a_pause_too_long_for_a_delta_splits_the_report() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        recorder.on_packet(1, t);
        recorder.on_packet(3, t + ms(9000));
        let reports = told(&mut recorder, t + ms(9000));
        assert_eq!(reports, [(1, vec![Some(0)]), (2, vec![None, Some(160)])]);
    }

    #[test]
    fn a_stretch_without_arrivals_is_left_out() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        recorder.on_packet(1, t);
        assert_eq!(told(&mut recorder, t + ms(50)).len(), 1);
        recorder.on_packet(700, t + ms(64));
        assert_eq!(told(&mut recorder, t + ms(500)), [(700, vec![Some(0)])]);
    }

    #[test]
    fn the_interval_follows_the_packet_rate() {
        for (gap_ms, expected) in [(1, 50..=52), (5, 99..=106), (100, 240..=300)] {
            let t = start();
            let mut recorder = TwccRecorder::new(t);
            let mut times = Vec::new();
            for step in 0..4000u16 {
                let now = t + ms(gap_ms) * u32::from(step);
                recorder.on_packet(step, now);
                while recorder.due(now).is_some() {
                    times.push(now);
                }
            }
            let last = &times[times.len() - 2..];
            let interval = (last[1] - last[0]).as_millis();
            assert!(expected.contains(&interval), "{interval} ms at one packet per {gap_ms} ms");
        }
    }

    #[test]
    fn the_reference_time_wraps_at_24_bits() {
        let t = start();
        let mut recorder = TwccRecorder::new(t);
        recorder.on_packet(1, t + ms(64 * (1 << 24) + 64 * 3));
        let now = recorder.next_deadline().unwrap();
        assert_eq!(recorder.due(now).unwrap().reference_time_64ms, 3);
    }

    proptest! {
        #[test]
        fn reports_can_be_serialized_and_tell_the_truth(
            steps in proptest::collection::vec((0u16..1200, 0u64..12_000, 0u16..4), 1..300),
        ) {
            let t = start();
            let mut recorder = TwccRecorder::new(t);
            let mut arrivals = std::collections::HashMap::new();
            let (mut seq, mut now) = (0u16, t);
            for (ahead, millis, rare) in steps {
                // Mostly small steps, some of them back.
                let ahead = if rare == 0 { ahead } else { ahead % 8 };
                seq = seq.wrapping_add(ahead).wrapping_sub(3);
                now += ms(if rare == 1 { millis } else { millis % 20 });
                recorder.on_packet(seq, now);
                let ticks = ((now - t).as_micros() / 250) as i64;
                arrivals.entry(seq).or_insert_with(Vec::new).push(ticks);
                while let Some(report) = recorder.due(now) {
                    check(&report, &arrivals)?;
                }
                prop_assert!(recorder.next_deadline().is_none_or(|deadline| deadline > now));
                prop_assert!(recorder.slots.len() <= SLOTS_MAX);
            }
        }
    }

    fn check(
        report: &TwccReport<'_>,
        arrivals: &std::collections::HashMap<u16, Vec<i64>>,
    ) -> Result<(), TestCaseError> {
        prop_assert!(report.statuses.len() <= REPORT_MAX);
        prop_assert!(matches!(report.statuses.last(), Some(Some(_))));
        let first = report.statuses.iter().flatten().next();
        prop_assert!(first.is_some_and(|ticks| (0..256).contains(ticks)));
        let mut previous = 0;
        for (at, status) in report.statuses.iter().enumerate() {
            let Some(ticks) = *status else { continue };
            prop_assert!(i16::try_from(ticks - previous).is_ok());
            previous = ticks;
            let seq = report.base_seq.wrapping_add(at as u16);
            let absolute = i64::from(report.reference_time_64ms) * 256 + i64::from(ticks);
            prop_assert!(arrivals[&seq].contains(&absolute));
        }
        Ok(())
    }

    fn told(recorder: &mut TwccRecorder, now: Instant) -> Vec<(u16, Vec<Option<i32>>)> {
        let mut reports = Vec::new();
        while let Some(report) = recorder.due(now) {
            reports.push((report.base_seq, report.statuses.to_vec()));
        }
        reports
    }
}
