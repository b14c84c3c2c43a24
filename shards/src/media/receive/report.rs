//! Reception statistics of one stream, for the report blocks of RTCP (RFC 3550, 6.4.1, A.3, A.8).
//!
//! Invariants: loss counts by the stream's own numbering; a jump of the numbering is a source
//! that began anew, not loss.
//!
//! Not here: the bytes of a report; when reports are sent; packets restored from RTX, which the
//! caller does not count here, so that the publisher sees the path's true loss.

use std::time::{Duration, Instant};

/// A report block without its SSRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlockData {
    /// Of the packets expected since the last block, in 1/256.
    pub fraction_lost: u8,
    /// Within 24 bits, negative if duplicates outnumber losses.
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    /// In timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time, or 0.
    pub last_sender_report: u32,
    /// In 1/65536 s, or 0 before the first sender report.
    pub delay_since_last: u32,
}

/// Streams silent for longer are left out of reports (as in libwebrtc). RFC 3550 6.4 would leave
/// them out at once; but a short outage should still be seen as loss.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// RFC 3550 A.1's MAX_DROPOUT: a longer gap is a new numbering.
const DROPOUT_MAX: u64 = 3000;

/// A transit change beyond this is a jump of timestamps and would spoil the jitter for minutes.
const TRANSIT_STEP_MAX_S: u32 = 5;

const CUMULATIVE_MAX: i64 = 0x7f_ffff;
const CUMULATIVE_MIN: i64 = -0x80_0000;

/// Counts what arrives on one SSRC.
#[derive(Debug, Clone)]
pub struct ReceptionStats {
    clock_rate: u32,
    stream: Option<Stream>,
    last_sender_report: Option<SenderReport>,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// Arrival times are measured from here.
    epoch: Instant,
    last_arrival: Instant,
    /// The first sequence number, moved along by gaps that do not count.
    base: u64,
    highest: u64,
    received: u64,
    /// Of the newest packet: its timestamp, and its arrival minus that, in timestamp units.
    timestamp: u32,
    transit: u32,
    /// In 1/16 timestamp units, as A.8 keeps it.
    jitter_x16: u32,
    expected_prior: u64,
    received_prior: u64,
}

#[derive(Debug, Clone, Copy)]
struct SenderReport {
    ntp_middle: u32,
    arrival: Instant,
}

impl ReceptionStats {
    /// `clock_rate` is in timestamp units per second.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, stream: None, last_sender_report: None }
    }

    /// A packet arrived on the SSRC itself.
    pub fn on_packet(&mut self, sequence: u64, timestamp: u32, now: Instant) {
        let clock_rate = self.clock_rate;
        match &mut self.stream {
            Some(stream) => stream.on_packet(sequence, timestamp, now, clock_rate),
            None => self.stream = Some(Stream::new(sequence, timestamp, now)),
        }
    }

    /// A sender report for the SSRC arrived.
    pub fn on_sender_report(&mut self, ntp: u64, now: Instant) {
        self.last_sender_report =
            Some(SenderReport { ntp_middle: (ntp >> 16) as u32, arrival: now });
    }

    /// The block for a report at `now`; begins a new interval of `fraction_lost`. `None` if
    /// nothing arrived, ever or for long.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlockData> {
        let stream = self.stream.as_mut()?;
        if now.saturating_duration_since(stream.last_arrival) > SILENCE_MAX {
            return None;
        }
        let delay = self.last_sender_report.map_or(0, |report| {
            let delay = now.saturating_duration_since(report.arrival);
            u32::try_from((delay.as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
        });
        Some(ReportBlockData {
            cumulative_lost: stream.cumulative_lost(),
            fraction_lost: stream.take_fraction_lost(),
            // The low bits are the sequence number and the count of its cycles.
            highest_sequence: stream.highest as u32,
            jitter: stream.jitter_x16 >> 4,
            last_sender_report: self.last_sender_report.map_or(0, |report| report.ntp_middle),
            delay_since_last: delay,
        })
    }

    /// The interarrival jitter at present.
    pub fn jitter(&self) -> Duration {
        let units = self.stream.map_or(0, |stream| stream.jitter_x16 >> 4);
        Duration::from_secs(1) * units / self.clock_rate.max(1)
    }
}

impl Stream {
    fn new(sequence: u64, timestamp: u32, now: Instant) -> Self {
        Self {
            epoch: now,
            last_arrival: now,
            base: sequence,
            highest: sequence,
            received: 1,
            timestamp,
            transit: 0u32.wrapping_sub(timestamp),
            jitter_x16: 0,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    fn on_packet(&mut self, sequence: u64, timestamp: u32, now: Instant, clock_rate: u32) {
        self.last_arrival = now;
        if sequence.saturating_add(DROPOUT_MAX) < self.highest {
            // Far from the past: not one of these packets is missing.
            return;
        }
        self.received += 1;
        if sequence <= self.highest {
            // One from before the first was not expected so far.
            self.base = self.base.min(sequence);
            return;
        }
        let gap = sequence - self.highest;
        if gap > DROPOUT_MAX {
            self.base += gap - 1;
        }
        self.highest = sequence;
        self.update_jitter(timestamp, now, clock_rate);
    }

    /// RFC 3550 A.8. Packets of one frame share a timestamp but leave one by one; as in
    /// libwebrtc, only the first of them counts.
    fn update_jitter(&mut self, timestamp: u32, now: Instant, clock_rate: u32) {
        if timestamp == self.timestamp {
            return;
        }
        let elapsed = now.saturating_duration_since(self.epoch);
        let arrival = (elapsed.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        let change = (transit.wrapping_sub(self.transit) as i32).unsigned_abs();
        self.timestamp = timestamp;
        self.transit = transit;
        if change > clock_rate.saturating_mul(TRANSIT_STEP_MAX_S) {
            return;
        }
        self.jitter_x16 = (self.jitter_x16 + change) - ((self.jitter_x16 + 8) >> 4);
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    fn cumulative_lost(&self) -> i32 {
        let lost = self.expected() as i64 - self.received as i64;
        lost.clamp(CUMULATIVE_MIN, CUMULATIVE_MAX) as i32
    }

    /// RFC 3550 A.3.
    fn take_fraction_lost(&mut self) -> u8 {
        let expected = self.expected() as i64 - self.expected_prior as i64;
        let received = (self.received - self.received_prior) as i64;
        self.expected_prior = self.expected();
        self.received_prior = self.received;
        let lost = expected - received;
        if expected <= 0 || lost <= 0 {
            return 0;
        }
        (lost * 256 / expected).min(255) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::receive::testing::{ms, start};
    use proptest::prelude::*;

    #[test]
    fn without_packets_there_is_no_report() {
        let mut stats = ReceptionStats::new(48_000);
        assert_eq!(stats.report(start()), None);
    }

    #[test]
    fn loss_is_counted_per_interval_and_in_total() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        for sequence in (65_530..65_630).filter(|sequence| sequence % 4 != 0) {
            stats.on_packet(sequence, 0, t);
        }
        let block = stats.report(t).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (25, 64));
        assert_eq!(block.highest_sequence, 65_629, "one cycle and 93");
        for sequence in 65_630..65_640 {
            stats.on_packet(sequence, 0, t);
        }
        let block = stats.report(t).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (25, 0));
    }

    #[test]
    fn total_loss_of_an_interval_is_255() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        stats.on_packet(1, 0, t);
        stats.report(t);
        stats.on_packet(2002, 0, t);
        assert_eq!(stats.report(t).unwrap().fraction_lost, 255);
    }

    #[test]
    fn duplicates_make_the_loss_negative_and_never_the_fraction() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        for _ in 0..5 {
            stats.on_packet(9, 0, t);
        }
        let block = stats.report(t).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (-4, 0));
    }

    #[test]
    fn a_packet_from_before_the_first_is_expected_too() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        stats.on_packet(10, 0, t);
        stats.on_packet(9, 0, t);
        assert_eq!(stats.report(t).unwrap().cumulative_lost, 0);
    }

    #[test]
    fn a_new_numbering_is_not_loss() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        stats.on_packet(10, 0, t);
        stats.on_packet(30_000, 0, t);
        stats.on_packet(30_002, 0, t);
        assert_eq!(stats.report(t).unwrap().cumulative_lost, 1);
    }

    #[test]
    fn even_pacing_has_no_jitter_and_wraps_do_not_matter() {
        let (mut stats, t) = (ReceptionStats::new(48_000), start());
        for step in 0..100u32 {
            let timestamp = (u32::MAX - 9600).wrapping_add(960 * step);
            stats.on_packet(u64::from(step), timestamp, t + ms(20) * step);
        }
        assert_eq!(stats.report(t + ms(2000)).unwrap().jitter, 0);
    }

    #[test]
    fn jitter_settles_at_the_mean_change_of_transit() {
        let (mut stats, t) = (ReceptionStats::new(90_000), start());
        for step in 0..400u32 {
            // Every second packet is 10 ms late: the transit changes by 900 units each time.
            let now = t + ms(33) * step + ms(10) * (step % 2);
            stats.on_packet(u64::from(step), 2970 * step, now);
            stats.on_packet(u64::from(step), 2970 * step, now + ms(5));
        }
        let jitter = stats.report(t + ms(13_200)).unwrap().jitter;
        assert!((890..=900).contains(&jitter), "{jitter}");
        assert!(stats.jitter().as_micros().abs_diff(9_950) < 60);
    }

    #[test]
    fn a_jump_of_timestamps_is_no_jitter() {
        let (mut stats, t) = (ReceptionStats::new(90_000), start());
        stats.on_packet(1, 0, t);
        stats.on_packet(2, 0x7000_0000, t + ms(33));
        stats.on_packet(3, 0x7000_0000 + 2970, t + ms(66));
        assert_eq!(stats.report(t + ms(66)).unwrap().jitter, 0);
    }

    #[test]
    fn the_last_sender_report_and_its_age_are_told() {
        let (mut stats, t) = (ReceptionStats::new(90_000), start());
        stats.on_packet(1, 0, t);
        let block = stats.report(t).unwrap();
        assert_eq!((block.last_sender_report, block.delay_since_last), (0, 0));
        stats.on_sender_report(0x1122_3344_5566_7788, t);
        let block = stats.report(t + ms(1500)).unwrap();
        assert_eq!(block.last_sender_report, 0x3344_5566);
        assert_eq!(block.delay_since_last, 0x1_8000);
    }

    #[test]
    fn a_silent_stream_leaves_the_reports() {
        let (mut stats, t) = (ReceptionStats::new(90_000), start());
        stats.on_packet(1, 0, t);
        assert!(stats.report(t + SILENCE_MAX).is_some());
        assert_eq!(stats.report(t + SILENCE_MAX + ms(1)), None);
    }

    proptest! {
        #[test]
        fn any_packets_are_survived_and_fields_stay_in_their_bits(
            packets in proptest::collection::vec(
                (0u64..1 << 48, any::<u32>(), 0u64..1 << 40), 1..60),
        ) {
            let (mut stats, t) = (ReceptionStats::new(90_000), start());
            for (sequence, timestamp, micros) in packets {
                let now = t + Duration::from_micros(micros);
                stats.on_packet(sequence, timestamp, now);
                let block = stats.report(now).unwrap();
                prop_assert!(i64::from(block.cumulative_lost) <= CUMULATIVE_MAX);
                prop_assert!(i64::from(block.cumulative_lost) >= CUMULATIVE_MIN);
            }
        }
    }
}
