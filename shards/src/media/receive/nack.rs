//! Which packets of one received stream are missing, and when to ask for them again (RFC 4585,
//! 6.2.1).
//!
//! A gap is noted when a later packet arrives. Its packets get a short grace, for they may
//! only be reordered; then they are asked for once per round trip, until they arrive, directly or
//! by RTX, or are given up:
//!
//! ```text
//!  gap ── grace ──> asked ── round trip ──> asked ── … ──> given up after 10 times or 1.5 s
//! ```
//!
//! Invariants: the missing list is sorted and holds at most [`MISSING_MAX`] packets, none older
//! than [`WINDOW`] behind the newest; one answer of [`NackGenerator::due`] fits one RTCP packet.
//!
//! Not here: the RTCP bytes; whether a key frame is requested (the caller joins such wishes);
//! what we resend to subscribers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets missing at once. More is no loss to repair but an outage: asking for that many would
/// take the link's capacity just when there is none, and a key frame is cheaper.
pub const MISSING_MAX: usize = 512;

/// How far behind the newest packet a missing one is still asked for. Publishers keep about this
/// many packets (libwebrtc: 600 or 1 s of them, whichever is more).
pub const WINDOW: u64 = 1000;

/// Sequence numbers per answer. Each may need 4 bytes of its own: 253 of them and the header
/// make 1024 bytes, which fit one datagram along with a report.
pub const BATCH_MAX: usize = 253;

/// Asking again more often would repair more of a burst on a path with 30 % loss, and nothing
/// where it matters.
const TRIES_MAX: u8 = 10;

/// After this, decoders that waited have asked for a key frame long ago.
const AGE_MAX: Duration = Duration::from_millis(1500);

/// Before a round trip was measured.
const RTT_DEFAULT: Duration = Duration::from_millis(100);

/// A larger one would space the tries so that only one fits in [`AGE_MAX`].
const RTT_MAX: Duration = Duration::from_millis(1000);

/// On a LAN, a loss burst lasts longer than a round trip: do not waste the tries in it.
const SPACING_MIN: Duration = Duration::from_millis(20);

/// The grace for reordering: more delays each repair, less asks for packets under way. It grows
/// up to the maximum on paths that do reorder.
const GRACE_MIN: Duration = Duration::from_millis(10);
const GRACE_MAX: Duration = Duration::from_millis(60);

/// What a packet was to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The newest so far.
    Newest,
    /// One that was missing: late, or repaired.
    Recovered,
    /// Not missing: a duplicate, or one that was given up.
    Unexpected,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    /// To be asked for, ascending, at most [`BATCH_MAX`]. If it is full, more may be due.
    pub sequence_numbers: &'a [u16],
    /// Packets were given up since the last call: video cannot be decoded without a key frame
    /// from here on (unless the frames were droppable).
    pub wants_keyframe: bool,
}

/// Watches the sequence numbers of one received SSRC.
#[derive(Debug)]
pub struct NackGenerator {
    newest: Option<u64>,
    missing: VecDeque<Missing>,
    rtt: Duration,
    grace: Duration,
    /// No missing packet is due earlier. It may be too early, after some were recovered.
    deadline: Option<Instant>,
    wants_keyframe: bool,
    batch: Vec<u16>,
    given_up: u64,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    sequence: u64,
    since: Instant,
    due: Instant,
    tries: u8,
}

impl Default for NackGenerator {
    fn default() -> Self {
        Self {
            newest: None,
            missing: VecDeque::new(),
            rtt: RTT_DEFAULT,
            grace: GRACE_MIN,
            deadline: None,
            wants_keyframe: false,
            batch: Vec::new(),
            given_up: 0,
        }
    }
}

impl NackGenerator {
    /// A packet arrived, on the stream itself or restored from RTX.
    pub fn on_packet(&mut self, sequence: u64, now: Instant) -> Arrival {
        let Some(newest) = self.newest else {
            self.newest = Some(sequence);
            return Arrival::Newest;
        };
        if sequence <= newest {
            return self.on_late(sequence, now);
        }
        self.newest = Some(sequence);
        self.note_gap(newest + 1, sequence, now);
        Arrival::Newest
    }

    /// A key frame starts at `sequence`: what is missing before it is not needed any more.
    pub fn on_keyframe(&mut self, sequence: u64) {
        self.forget_before(sequence);
        // The wish is fulfilled, unless this is an older key frame that was only repaired.
        if self.newest.is_none_or(|newest| sequence >= newest) {
            self.wants_keyframe = false;
        }
        self.settle();
    }

    /// The round trip to the publisher, which spaces the tries.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.min(RTT_MAX);
    }

    /// Starts over: the source began a new numbering.
    pub fn reset(&mut self) {
        self.newest = None;
        self.missing.clear();
        self.wants_keyframe = false;
        self.settle();
    }

    /// When [`Self::due`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Packets given up so far, for statistics.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// What to ask for at `now`, or `None` if there is nothing to do.
    pub fn due(&mut self, now: Instant) -> Option<Repair<'_>> {
        self.batch.clear();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.collect(now);
        }
        let wants_keyframe = std::mem::take(&mut self.wants_keyframe);
        if self.batch.is_empty() && !wants_keyframe {
            return None;
        }
        Some(Repair { sequence_numbers: &self.batch, wants_keyframe })
    }

    fn on_late(&mut self, sequence: u64, now: Instant) -> Arrival {
        let Ok(at) = self.missing.binary_search_by_key(&sequence, |m| m.sequence) else {
            return Arrival::Unexpected;
        };
        if let Some(missing) = self.missing.remove(at) {
            self.adapt_grace(missing, now);
        }
        self.settle();
        Arrival::Recovered
    }

    /// A packet that comes unasked, or sooner after being asked for than an answer could, was
    /// reordered. The grace follows the latest of those, and shrinks at true losses.
    fn adapt_grace(&mut self, recovered: Missing, now: Instant) {
        let late = now.saturating_duration_since(recovered.since);
        let is_reordered = match recovered.tries {
            0 => true,
            1 => now + self.spacing() < recovered.due + self.rtt / 2,
            _ => false,
        };
        if is_reordered {
            self.grace = self.grace.max(late + late / 4).min(GRACE_MAX);
        } else {
            self.grace -= (self.grace - GRACE_MIN) / 16;
        }
    }

    fn note_gap(&mut self, first: u64, end: u64, now: Instant) {
        let count = end - first;
        if count > 0 {
            if count + self.missing.len() as u64 > MISSING_MAX as u64 {
                self.given_up += count + self.missing.len() as u64;
                self.missing.clear();
                self.wish_keyframe(now);
                return;
            }
            let due = now + self.grace;
            let noted = |sequence| Missing { sequence, since: now, due, tries: 0 };
            self.missing.extend((first..end).map(noted));
            self.wake_at(due);
        }
        let oldest = end.saturating_sub(WINDOW);
        if self.missing.front().is_some_and(|missing| missing.sequence < oldest) {
            let count = self.forget_before(oldest);
            self.given_up += count as u64;
            self.wish_keyframe(now);
        }
    }

    fn collect(&mut self, now: Instant) {
        let spacing = self.spacing();
        let mut next: Option<Instant> = None;
        let mut given_up = 0;
        let batch = &mut self.batch;
        self.missing.retain_mut(|missing| {
            if missing.due <= now && batch.len() < BATCH_MAX {
                let age = now.saturating_duration_since(missing.since);
                if missing.tries >= TRIES_MAX || age >= AGE_MAX {
                    given_up += 1;
                    return false;
                }
                // The low 16 bits are what the wire carries.
                batch.push(missing.sequence as u16);
                missing.tries += 1;
                missing.due = now + spacing;
            }
            next = Some(next.map_or(missing.due, |next| next.min(missing.due)));
            true
        });
        self.deadline = next;
        self.given_up += given_up;
        self.wants_keyframe |= given_up > 0;
    }

    /// A quarter more than the round trip, so that its jitter does not cause duplicates.
    fn spacing(&self) -> Duration {
        (self.rtt + self.rtt / 4).max(SPACING_MIN)
    }

    fn wish_keyframe(&mut self, now: Instant) {
        self.wants_keyframe = true;
        self.wake_at(now);
    }

    fn wake_at(&mut self, due: Instant) {
        self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
    }

    fn settle(&mut self) {
        if self.missing.is_empty() && !self.wants_keyframe {
            self.deadline = None;
        }
    }

    fn forget_before(&mut self, sequence: u64) -> usize {
        let count = self.missing.partition_point(|missing| missing.sequence < sequence);
        self.missing.drain(..count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::receive::testing::{ms, start};
    use proptest::prelude::*;

    #[test]
    fn packets_in_order_are_not_asked_for() {
        let (mut nack, t) = (NackGenerator::default(), start());
        for sequence in 65_530..65_550 {
            assert_eq!(nack.on_packet(sequence, t), Arrival::Newest);
        }
        assert_eq!(nack.next_deadline(), None);
        assert_eq!(nack.due(t + ms(5000)), None);
    }

    #[test]
    fn a_gap_across_the_wrap_is_asked_for_after_the_grace() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(65_534, t);
        nack.on_packet(65_538, t);
        assert_eq!(nack.next_deadline(), Some(t + GRACE_MIN));
        assert_eq!(nack.due(t + ms(9)), None);
        assert_eq!(asked(&mut nack, t + ms(10)), [65_535, 0, 1]);
        assert_eq!(nack.due(t + ms(10)), None);
    }

    #[test]
    fn a_reordered_packet_is_not_asked_for_and_lengthens_the_grace() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(1, t);
        nack.on_packet(3, t);
        assert_eq!(nack.on_packet(2, t + ms(8)), Arrival::Recovered);
        assert_eq!(nack.on_packet(2, t + ms(8)), Arrival::Unexpected);
        assert_eq!(nack.next_deadline(), None);
        nack.on_packet(5, t + ms(20));
        assert_eq!(nack.next_deadline(), Some(t + ms(30)), "1.25 of 8 ms are the minimum yet");
        nack.on_packet(4, t + ms(44));
        nack.on_packet(7, t + ms(50));
        assert_eq!(nack.next_deadline(), Some(t + ms(80)), "1.25 of 24 ms");
    }

    #[test]
    fn a_packet_faster_than_the_round_trip_was_reordered() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.set_rtt(ms(100));
        nack.on_packet(1, t);
        nack.on_packet(3, t);
        assert_eq!(asked(&mut nack, t + ms(10)), [2]);
        nack.on_packet(2, t + ms(16));
        assert_eq!(nack.grace, ms(20));
        nack.on_packet(5, t + ms(100));
        assert_eq!(asked(&mut nack, t + ms(120)), [4]);
        nack.on_packet(4, t + ms(225));
        assert!(nack.grace < ms(20), "a repair shrinks it");
    }

    #[test]
    fn tries_are_a_round_trip_apart_and_end_with_a_wish_for_a_key_frame() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.set_rtt(ms(40));
        nack.on_packet(1, t);
        nack.on_packet(3, t);
        let mut times = Vec::new();
        loop {
            let now = nack.next_deadline().unwrap();
            let repair = nack.due(now).unwrap();
            if repair.wants_keyframe {
                assert!(repair.sequence_numbers.is_empty());
                break;
            }
            times.push((now - t).as_millis());
        }
        assert_eq!(times, [10, 60, 110, 160, 210, 260, 310, 360, 410, 460]);
        assert_eq!((nack.next_deadline(), nack.given_up()), (None, 1));
    }

    #[test]
    fn a_lan_is_not_asked_more_often_than_the_floor() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.set_rtt(ms(1));
        nack.on_packet(1, t);
        nack.on_packet(3, t);
        assert_eq!(asked(&mut nack, t + ms(10)), [2]);
        assert_eq!(nack.next_deadline(), Some(t + ms(30)));
    }

    #[test]
    fn a_long_round_trip_ends_by_age() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.set_rtt(Duration::from_secs(9));
        nack.on_packet(1, t);
        nack.on_packet(3, t);
        assert_eq!(asked(&mut nack, t + ms(10)), [2]);
        assert_eq!(asked(&mut nack, t + ms(1260)), [2]);
        assert!(nack.due(t + ms(2510)).unwrap().wants_keyframe);
    }

    #[test]
    fn a_burst_is_asked_for_in_batches() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(0, t);
        nack.on_packet(301, t);
        assert_eq!(asked(&mut nack, t + ms(10)), (1..=253).collect::<Vec<u16>>());
        assert_eq!(nack.next_deadline(), Some(t + ms(10)), "the rest is due at once");
        assert_eq!(asked(&mut nack, t + ms(10)), (254..=300).collect::<Vec<u16>>());
        assert_eq!(nack.due(t + ms(10)), None);
    }

    #[test]
    fn an_outage_wants_a_key_frame_instead() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(0, t);
        nack.on_packet(1 + MISSING_MAX as u64 + 1, t);
        assert_eq!(nack.next_deadline(), Some(t));
        assert_eq!(
            nack.due(t),
            Some(Repair { sequence_numbers: &[], wants_keyframe: true }),
            "at once"
        );
        assert_eq!(nack.due(t + ms(100)), None, "only once");
        assert_eq!(nack.given_up(), 513);
    }

    #[test]
    fn what_leaves_the_window_is_given_up() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(0, t);
        nack.on_packet(2, t);
        for sequence in 3..=WINDOW + 1 {
            nack.on_packet(sequence, t);
        }
        assert_eq!(nack.due(t), None);
        nack.on_packet(WINDOW + 2, t);
        assert_eq!(nack.next_deadline(), Some(t));
        assert!(nack.due(t).unwrap().wants_keyframe);
        assert_eq!(nack.next_deadline(), None);
    }

    #[test]
    fn a_key_frame_clears_what_was_missing_before_it() {
        let (mut nack, t) = (NackGenerator::default(), start());
        for sequence in [1, 3, 5, 7] {
            nack.on_packet(sequence, t);
        }
        nack.on_keyframe(5);
        assert_eq!(asked(&mut nack, t + ms(10)), [6]);
    }

    #[test]
    fn a_key_frame_fulfils_the_wish_for_one() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(0, t);
        nack.on_packet(5000, t);
        nack.on_keyframe(5000);
        assert_eq!((nack.next_deadline(), nack.due(t)), (None, None));
        nack.on_packet(10_000, t);
        nack.on_keyframe(9000);
        assert!(nack.due(t).is_some_and(|repair| repair.wants_keyframe), "an older one does not");
    }

    #[test]
    fn a_reset_accepts_a_new_numbering() {
        let (mut nack, t) = (NackGenerator::default(), start());
        nack.on_packet(1000, t);
        nack.on_packet(1002, t);
        nack.reset();
        assert_eq!(nack.on_packet(5, t), Arrival::Newest);
        assert_eq!(nack.next_deadline(), None);
    }

    proptest! {
        /// Random arrivals against the plain definition of "missing"; time stands still, so
        /// nothing is given up but by the window and by outages.
        #[test]
        fn exactly_what_is_missing_is_asked_for(
            steps in proptest::collection::vec((0u64..40, any::<bool>()), 1..200),
        ) {
            let (mut nack, t) = (NackGenerator::default(), start());
            let mut missing = std::collections::BTreeSet::new();
            let mut newest = 70_000;
            nack.on_packet(newest, t);
            for (step, is_late) in steps {
                if is_late {
                    let sequence = newest - step;
                    let was_missing = missing.remove(&sequence);
                    let arrival = nack.on_packet(sequence, t);
                    prop_assert_eq!(arrival == Arrival::Recovered, was_missing);
                } else if step > 0 {
                    missing.extend(newest + 1..newest + step);
                    if missing.len() > MISSING_MAX {
                        missing.clear();
                    }
                    newest += step;
                    missing = missing.split_off(&(newest.saturating_sub(WINDOW)));
                    nack.on_packet(newest, t);
                }
            }
            let expected: Vec<u16> = missing.iter().map(|&sequence| sequence as u16).collect();
            let mut all = Vec::new();
            while let Some(repair) = nack.due(t + GRACE_MAX) {
                all.extend_from_slice(repair.sequence_numbers);
            }
            prop_assert_eq!(all, expected);
        }
    }

    fn asked(nack: &mut NackGenerator, now: Instant) -> Vec<u16> {
        let repair = nack.due(now).unwrap();
        assert!(!repair.wants_keyframe);
        repair.sequence_numbers.to_vec()
    }
}
