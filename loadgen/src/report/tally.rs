//! What is counted while a run goes on. Each worker has a tally of its own; they are added up
//! once a second, and at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::api::Failure;
use crate::probe::Lost;

/// Counters and histograms since the beginning of the run. Adding two is exact.
#[derive(Debug, Clone)]
pub struct Tally {
    /// RTP packets that publishers sent, resends and padding apart, and their UDP bytes.
    pub packets_in: u64,
    pub bytes_in: u64,
    /// RTP packets that viewers received, and their UDP bytes.
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Resends (RTX) among what viewers received, counted apart from `packets_out`.
    pub resent: u64,
    /// Sequence numbers that never reached their viewer.
    pub lost: u64,
    /// Of `lost`, those that were sent before the measurement began, but found out in it.
    pub lost_early: u64,
    /// Times that a socket of this process overran: the generator's fault. Each may be of several
    /// datagrams, media or reports, so it is no part of `lost` that could be taken off.
    pub overrun: u64,
    /// Datagrams this machine's kernel did not take: never sent, whoever missed them.
    pub unsent: u64,
    /// Frames that were not made because the generator was too late for them.
    pub skipped_frames: u64,
    pub duplicated: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Came so late that it was counted lost, or told no more from a duplicate.
    pub ancient: u64,
    /// Reports (RTCP) that came again, or too late to tell.
    pub rtcp_replayed: u64,
    /// Packets that were decrypted and checked bit by bit.
    pub checked: u64,
    /// Content that was not what its publisher sent, or authentication that failed.
    pub corrupted: u64,
    /// Content of a track that this viewer did not pull.
    pub foreign: u64,
    /// Keyframes that publishers sent, and those they were asked for.
    pub keyframes: u64,
    pub keyframe_requests: u64,
    /// Packets that the server asked publishers for again, and viewers the server.
    pub nacks_in: u64,
    pub nacks_out: u64,
    /// Sessions: begun, connected, ended on purpose, and failed by cause.
    pub begun: u64,
    pub connected: u64,
    pub left: u64,
    pub failures: BTreeMap<Failure, u64>,
    /// Sessions by SRTP profile.
    pub profiles: BTreeMap<String, u64>,
    /// From a publisher's send to the arrival at the viewer's socket, microseconds.
    pub latency: Histogram<u64>,
    /// From the first API call to a connected transport, microseconds.
    pub join: Histogram<u64>,
    /// From the first API call to the first media packet, microseconds.
    pub first_media: Histogram<u64>,
    /// From a viewer's move to the first media at its new address, microseconds.
    pub outage: Histogram<u64>,
    /// One API call until it was answered, refused, broke or was given up, microseconds. From when
    /// it was wanted, so that what it waited for its turn is in it.
    pub api: Histogram<u64>,
}

/// Everything above an hour is an hour.
pub const MICROS_MAX: u64 = 3_600_000_000;

impl Default for Tally {
    fn default() -> Self {
        // Three digits: enough to tell 1.00 from 1.01 ms, small enough to add up each second.
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("valid bounds");
        Self {
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            resent: 0,
            lost: 0,
            lost_early: 0,
            overrun: 0,
            unsent: 0,
            skipped_frames: 0,
            duplicated: 0,
            reordered: 0,
            ancient: 0,
            rtcp_replayed: 0,
            checked: 0,
            corrupted: 0,
            foreign: 0,
            keyframes: 0,
            keyframe_requests: 0,
            nacks_in: 0,
            nacks_out: 0,
            begun: 0,
            connected: 0,
            left: 0,
            failures: BTreeMap::new(),
            profiles: BTreeMap::new(),
            latency: histogram(),
            join: histogram(),
            first_media: histogram(),
            outage: histogram(),
            api: histogram(),
        }
    }
}

impl Tally {
    pub fn fail(&mut self, failure: Failure) {
        self.fails(failure, 1);
    }

    /// So many times.
    pub fn fails(&mut self, failure: Failure, count: u64) {
        *self.failures.entry(failure).or_default() += count;
    }

    pub fn lose(&mut self, lost: Lost) {
        self.lost += lost.all;
        self.lost_early += lost.early;
    }

    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Records a duration, saturating.
    pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(MICROS_MAX);
        histogram.saturating_record(micros.clamp(1, MICROS_MAX));
    }

    /// Adds what another worker counted.
    pub fn add(&mut self, other: &Self) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.resent += other.resent;
        self.lost += other.lost;
        self.lost_early += other.lost_early;
        self.overrun += other.overrun;
        self.unsent += other.unsent;
        self.skipped_frames += other.skipped_frames;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.ancient += other.ancient;
        self.rtcp_replayed += other.rtcp_replayed;
        self.checked += other.checked;
        self.corrupted += other.corrupted;
        self.foreign += other.foreign;
        self.keyframes += other.keyframes;
        self.keyframe_requests += other.keyframe_requests;
        self.nacks_in += other.nacks_in;
        self.nacks_out += other.nacks_out;
        self.begun += other.begun;
        self.connected += other.connected;
        self.left += other.left;
        for (failure, count) in &other.failures {
            self.fails(failure.clone(), *count);
        }
        for (profile, count) in &other.profiles {
            *self.profiles.entry(profile.clone()).or_default() += count;
        }
        let pairs = [
            (&mut self.latency, &other.latency),
            (&mut self.join, &other.join),
            (&mut self.first_media, &other.first_media),
            (&mut self.outage, &other.outage),
            (&mut self.api, &other.api),
        ];
        for (into, from) in pairs {
            into.add(from).expect("all tallies have the same bounds");
        }
    }
}
