//! The publisher's clock line of one stream: which NTP time belongs to which RTP timestamp, by
//! its last sender report (RFC 3550, 6.4.1).
//!
//! A forwarder reports to its subscribers on this line, shifted only by what it adds to the
//! timestamps. Audio and video of a publisher share the NTP clock, so lip sync survives,
//! without any clock of ours.
//!
//! NTP times are 64 bits: seconds since 1900 in the upper half, fractions in the lower.
//!
//! Invariants: a pair that is told lies exactly on the line of the last report, whenever asked.
//!
//! Not here: our own wall clock; the drift between publisher and us.

use std::time::{Duration, Instant};

/// A report that steps back by less than this was overtaken by its successor; by more, the
/// publisher's clock was set.
const OVERTAKEN_MAX: Duration = Duration::from_secs(5);

/// A difference to the line that counts as a step. Encoders' and senders' jitter stays well
/// below; viewers notice skew from about here.
const STEP_MIN: Duration = Duration::from_millis(500);

/// How long a line is followed without a new report: a drift of 100 ppm makes 60 ms, the edge
/// of visible skew.
const EXTRAPOLATION_MAX: Duration = Duration::from_secs(600);

/// What a sender report meant to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first, or one near the line.
    Steady,
    /// The line moved: the publisher's clock or its timestamps began anew. Reports to
    /// subscribers should follow soon.
    Stepped,
    /// Overtaken by its successor, or without a time. The line is as it was.
    Ignored,
}

/// The line of one received SSRC.
#[derive(Debug, Clone)]
pub struct SenderClock {
    clock_rate: u32,
    last: Option<Mapping>,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    ntp: u64,
    rtp: u32,
    arrival: Instant,
}

impl SenderClock {
    /// `clock_rate` is in timestamp units per second.
    pub fn new(clock_rate: u32) -> Self {
        debug_assert!(clock_rate > 0, "a codec has a clock");
        Self { clock_rate: clock_rate.max(1), last: None }
    }

    /// The line of a report that came at `arrival` (RFC 3550, 6.4.1).
    pub fn at(clock_rate: u32, ntp: u64, rtp: u32, arrival: Instant) -> Self {
        Self { last: Some(Mapping { ntp, rtp, arrival }), ..Self::new(clock_rate) }
    }

    /// Units per second; and of the last report the NTP time, the timestamp, and when it came.
    pub fn last_report(&self) -> Option<(u32, u64, u32, Instant)> {
        self.last.map(|Mapping { ntp, rtp, arrival }| (self.clock_rate, ntp, rtp, arrival))
    }

    /// A sender report arrived.
    pub fn on_sender_report(&mut self, ntp: u64, rtp: u32, now: Instant) -> Step {
        // RFC 3550, 6.4.1: zero if the sender has no notion of time.
        if ntp == 0 {
            return Step::Ignored;
        }
        let mut step = Step::Steady;
        if let Some(last) = self.last {
            let forward = ntp.wrapping_sub(last.ntp) as i64;
            if forward < 0 && forward > -from_duration(OVERTAKEN_MAX) {
                return Step::Ignored;
            }
            let on_line = self.rtp_to_ntp(rtp).unwrap_or(ntp);
            let off_line = (ntp.wrapping_sub(on_line) as i64).unsigned_abs();
            // RTP and NTP may also jump together; then arrival tells.
            let elapsed = from_duration(now.saturating_duration_since(last.arrival));
            let off_time = forward.abs_diff(elapsed);
            let jump_min = from_duration(STEP_MIN).unsigned_abs();
            let late_max = from_duration(OVERTAKEN_MAX).unsigned_abs();
            if off_line > jump_min || off_time > late_max {
                step = Step::Stepped;
            }
        }
        self.last = Some(Mapping { ntp, rtp, arrival: now });
        step
    }

    /// The NTP time of a timestamp of this stream, no further than half the timestamps' range
    /// (6 h of video) from the last report.
    pub fn rtp_to_ntp(&self, rtp: u32) -> Option<u64> {
        let last = self.last?;
        let units = i64::from(rtp.wrapping_sub(last.rtp) as i32);
        let shift = i128::from(units) * (1 << 32) / i128::from(self.clock_rate);
        Some(last.ntp.wrapping_add_signed(shift as i64))
    }

    /// The pair for a sender report that goes out at `now`, or `None` if the publisher has not
    /// reported yet, or not for 10 minutes.
    pub fn extrapolate(&self, now: Instant) -> Option<(u64, u32)> {
        let last = self.last?;
        let elapsed = now.saturating_duration_since(last.arrival);
        if elapsed > EXTRAPOLATION_MAX {
            return None;
        }
        let units = elapsed.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000;
        let rtp = last.rtp.wrapping_add(units as u32);
        // From the whole units, so that the pair is exact.
        let shift = units * (1 << 32) / u128::from(self.clock_rate);
        Some((last.ntp.wrapping_add(shift as u64), rtp))
    }
}

/// A duration in NTP units; longer than 34 years is not told apart.
fn from_duration(duration: Duration) -> i64 {
    let nanos = duration.as_nanos().min(1_000_000_000 << 30);
    ((nanos << 32) / 1_000_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::receive::testing::{ms, start};
    use proptest::prelude::*;

    const SECOND: u64 = 1 << 32;
    const NOON: u64 = 0xe000_0000_0000_0000;

    #[test]
    fn before_the_first_report_there_is_no_line() {
        let clock = SenderClock::new(90_000);
        assert_eq!(clock.extrapolate(start()), None);
        assert_eq!(clock.rtp_to_ntp(5), None);
    }

    #[test]
    fn a_pair_is_extrapolated_across_the_wrap_of_timestamps() {
        let (mut clock, t) = (SenderClock::new(90_000), start());
        assert_eq!(clock.on_sender_report(NOON, u32::MAX - 44_999, t), Step::Steady);
        assert_eq!(clock.extrapolate(t + ms(1500)), Some((NOON + SECOND * 3 / 2, 90_000)));
        assert_eq!(clock.rtp_to_ntp(45_000), Some(NOON + SECOND));
        assert_eq!(clock.rtp_to_ntp(u32::MAX - 134_999), Some(NOON - SECOND));
    }

    #[test]
    fn audio_and_video_of_one_capture_time_have_one_ntp_time() {
        let (mut audio, mut video) = (SenderClock::new(48_000), SenderClock::new(90_000));
        let t = start();
        audio.on_sender_report(NOON, 1000, t);
        // The video's report comes later, on a slow path.
        video.on_sender_report(NOON + SECOND, 7000, t + ms(1300));
        assert_eq!(audio.rtp_to_ntp(1000 + 96_000), video.rtp_to_ntp(7000 + 90_000));
    }

    #[test]
    fn overtaken_and_timeless_reports_are_ignored() {
        let (mut clock, t) = (SenderClock::new(48_000), start());
        clock.on_sender_report(NOON + SECOND, 48_000, t);
        assert_eq!(clock.on_sender_report(NOON, 0, t + ms(1)), Step::Ignored);
        assert_eq!(clock.on_sender_report(0, 96_000, t + ms(2)), Step::Ignored);
        assert_eq!(clock.rtp_to_ntp(48_000), Some(NOON + SECOND));
    }

    #[test]
    fn a_step_of_either_clock_is_followed() {
        let (mut clock, t) = (SenderClock::new(48_000), start());
        clock.on_sender_report(NOON, 0, t);
        let back = NOON - SECOND * 3600;
        assert_eq!(clock.on_sender_report(back, 48_000, t + ms(1000)), Step::Stepped);
        assert_eq!(clock.rtp_to_ntp(48_000), Some(back));
        let next = clock.on_sender_report(back + SECOND, 96_000, t + ms(2000));
        assert_eq!(next, Step::Steady);
        // Timestamps begin anew.
        let anew = clock.on_sender_report(back + SECOND * 2, 3_000_000_000, t + ms(3000));
        assert_eq!(anew, Step::Stepped);
        // Both leap together, as after a laptop's sleep without network time.
        let leap = clock.on_sender_report(back + SECOND * 62, 3_002_880_000, t + ms(4000));
        assert_eq!(leap, Step::Stepped);
    }

    #[test]
    fn a_stale_line_is_not_followed() {
        let (mut clock, t) = (SenderClock::new(48_000), start());
        clock.on_sender_report(NOON, 0, t);
        assert!(clock.extrapolate(t + EXTRAPOLATION_MAX).is_some());
        assert_eq!(clock.extrapolate(t + EXTRAPOLATION_MAX + ms(1)), None);
    }

    proptest! {
        #[test]
        fn an_extrapolated_pair_lies_on_the_line(
            ntp in 1u64.., rtp in any::<u32>(), elapsed in 0u64..600_000_000,
            rate in prop_oneof![Just(8_000u32), Just(48_000), Just(90_000)],
        ) {
            let (mut clock, t) = (SenderClock::new(rate), start());
            clock.on_sender_report(ntp, rtp, t);
            let (there, at) = clock.extrapolate(t + Duration::from_micros(elapsed)).unwrap();
            prop_assert_eq!(clock.rtp_to_ntp(at), Some(there));
        }

        #[test]
        fn any_reports_are_survived(
            reports in proptest::collection::vec(
                (any::<u64>(), any::<u32>(), 0u64..1 << 40), 1..20),
        ) {
            let (mut clock, t) = (SenderClock::new(90_000), start());
            for (ntp, rtp, micros) in reports {
                let now = t + Duration::from_micros(micros);
                clock.on_sender_report(ntp, rtp, now);
                let _ = (clock.extrapolate(t), clock.extrapolate(now), clock.rtp_to_ntp(!rtp));
            }
        }
    }
}
