//! Reports for tests: a run that went well, one in trouble, one in which nothing happened.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::beside::{Beside, Stalls};
use super::make::{Facts, GeneratorUse, ServerUse};
use super::metrics::Scrape;
use super::series::{Moment, Series};
use super::summary::Report;
use super::tally::Tally;
use crate::api::{Cause, Failure};

pub(super) fn facts() -> Facts {
    Facts {
        scenario: "stage".to_owned(),
        api: "realtime".to_owned(),
        target: "http://127.0.0.1:8080/v1/apps/demo".to_owned(),
        settings: BTreeMap::from([("bitrate".to_owned(), "2.5 Mbit/s".to_owned())]),
        publishers: 1,
        viewers: 500,
        threads: 1,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_717_243_200),
        duration: Duration::from_secs(20),
        warm_up: Duration::from_secs(3),
        interrupted: false,
    }
}

fn stage_tally() -> Tally {
    let mut tally = Tally {
        packets_in: 6_000,
        bytes_in: 6_250_000,
        packets_out: 3_000_000,
        bytes_out: 3_125_000_000,
        reordered: 12,
        checked: 30_000,
        keyframes: 20,
        keyframe_requests: 4,
        begun: 501,
        connected: 501,
        left: 501,
        profiles: BTreeMap::from([("AEAD_AES_128_GCM".to_owned(), 501)]),
        ..Tally::default()
    };
    for at in 0..10_000u64 {
        // A body around 400 µs, and a tail to 8 ms.
        let tail = if at % 100 == 99 { (at % 1000) * 8 } else { 0 };
        Tally::record(&mut tally.latency, Duration::from_micros(300 + at % 200 + tail));
    }
    for at in 0..501u64 {
        Tally::record(&mut tally.join, Duration::from_micros(8_000 + at * 40));
        Tally::record(&mut tally.first_media, Duration::from_micros(12_000 + at * 60));
        Tally::record(&mut tally.api, Duration::from_micros(900 + at * 5));
    }
    tally
}

fn waves(lost: bool) -> Series {
    let mut series = Series::default();
    for at in 0..23u32 {
        let joined = f64::from(at.min(3)) / 3.0;
        let swing = 1.0 + 0.05 * (f64::from(at) * 0.9).sin();
        let packets_out = (150_000.0 * joined * swing) as u64;
        series.push(Moment {
            at_s: f64::from(at),
            span_s: 1.0,
            packets_in: 300,
            bytes_in: 312_500,
            packets_out,
            bytes_out: packets_out * 1042,
            lost: if lost && (9..12).contains(&at) { 1_500 } else { 0 },
            overrun: if lost && at == 10 { 7 } else { 0 },
            failed: u64::from(lost && at < 3) * 4,
            sessions: (501.0 * joined) as u64,
            latency_p50_us: (packets_out > 0).then_some((400.0 * swing).round()),
            latency_p99_us: (packets_out > 0).then_some((1_900.0 * swing * swing).round()),
            server_cpu_ns: Some(packets_out * 5_000),
            generator_cpu_ns: Some(packets_out * 3_000),
            server_rss_bytes: Some(12_000_000 + (50_000_000.0 * joined) as u64),
        });
    }
    series
}

fn server() -> ServerUse {
    ServerUse {
        cpu: Some(Duration::from_secs(15)),
        rss_bytes: Some(62_000_000),
        sessions: Some(500),
        rss_before_bytes: Some(12_000_000),
        metrics: Some(Scrape {
            shards_out: BTreeMap::from([("0".to_owned(), 1_530_000), ("1".to_owned(), 1_470_000)]),
            gso: Some((3_000_000, 600_000)),
            drops: Some(BTreeMap::new()),
            turns: BTreeMap::from([(500_000, 900), (1_000_000, 999), (u64::MAX, 1_000)]),
            arrival_to_send: BTreeMap::from([(200_000, 900), (500_000, 999), (u64::MAX, 1_000)]),
            ..Scrape::default()
        }),
    }
}

fn generator() -> GeneratorUse {
    GeneratorUse { cpu: Some(Duration::from_secs(9)), workers: vec![Duration::from_millis(8_600)] }
}

/// 500 viewers, nothing amiss.
pub(super) fn stage() -> Report {
    Report::new(facts(), &stage_tally(), None, &waves(false), server(), &generator())
        .with(&beside())
}

fn beside() -> Beside {
    let (mut late, mut looks) = (Tally::default().api, Tally::default().api);
    for at in 0..1_000u64 {
        Tally::record(&mut late, Duration::from_micros(5 + at / 10));
        Tally::record(&mut looks, Duration::from_micros(400 + at));
    }
    let stalls = Stalls { lateness: late, is_realtime: true, cpu: Some(0) };
    Beside { stalls: Some(stalls), looks: Some(looks), ..Beside::default() }
}

/// 12 failures of sessions, losses, a generator that is too slow, and words to escape.
pub(super) fn trouble() -> Report {
    let mut tally = Tally { begun: 500, connected: 491, lost: 4_500, overrun: 7, ..stage_tally() };
    tally.packets_out = 2_995_500;
    for _ in 0..200 {
        Tally::record(&mut tally.latency, Duration::from_millis(40));
    }
    let refused = "The API answered 503 to sessions/new: <b>\"too many\" & more</b>";
    let path = "ICE did not connect within 10 s: is UDP open between here and the server?";
    let closed = "The server closed the session.";
    for (cause, what, count) in
        [(Cause::Refused, refused, 5), (Cause::NoPath, path, 4), (Cause::Closed, closed, 3)]
    {
        tally.failures.insert(Failure { cause, what: what.to_owned() }, count);
    }
    let facts = Facts { scenario: "stage <script>alert(1)</script>".to_owned(), ..facts() };
    let mut server = server();
    if let Some(metrics) = &mut server.metrics {
        metrics.drops = Some(BTreeMap::from([("send: kernel_buffer_full".to_owned(), 4_493)]));
    }
    let busy =
        GeneratorUse { cpu: Some(Duration::from_secs(20)), workers: vec![Duration::from_secs(19)] };
    Report::new(facts, &tally, None, &waves(true), server, &busy)
}

/// No time, no session, no packet, and nobody known.
pub(super) fn nothing() -> Report {
    report_of_facts(Facts { duration: Duration::ZERO, ..facts() }, &Tally::default(), None)
}

pub(super) fn report_of(total: &Tally, before: Option<&Tally>) -> Report {
    report_of_facts(facts(), total, before)
}

fn report_of_facts(facts: Facts, total: &Tally, before: Option<&Tally>) -> Report {
    let (series, generator) = (Series::default(), GeneratorUse::default());
    Report::new(facts, total, before, &series, ServerUse::default(), &generator)
}
