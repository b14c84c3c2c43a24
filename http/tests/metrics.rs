//! The metrics' text: what Prometheus reads in it is what was counted.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[allow(dead_code, reason = "tests of the whole node use all of it")]
mod exposition;

use std::collections::BTreeMap;
use std::time::Duration;

use exposition::{Family, assert_monotone, read, value};
use http::metrics::{Scrape, text};
use http::tally::Kind;
use http::{NodeInfo, Process};
use shards::snapshot::Snapshot;

fn show(shards: Vec<Option<Snapshot>>) -> BTreeMap<String, Family> {
    let node = NodeInfo { version: "1.2.3", shards: 2, sessions: None, draining: false };
    let process = Process {
        cpu: Duration::from_millis(1500),
        started: Duration::from_secs(1_700_000_000),
        resident_bytes: Some(1 << 20),
        virtual_bytes: None,
        open_fds: Some(7),
        max_fds: Some(1024),
    };
    read(&text(Scrape { node, process, shards }))
}

/// A shard that did something of most kinds.
fn busy() -> Snapshot {
    let mut shard = Snapshot::default();
    shard.meters.packets_in = 1000;
    shard.meters.packets_out = 5000;
    shard.meters.faults.replayed = 3;
    shard.meters.copies_dropped = 2;
    shard.mail.dropped = 4;
    shard.port.drops_out.full = 5;
    // Runs of 1, 5 and 20.
    shard.port.runs_out = [10, 0, 0, 4, 0, 2, 0];
    shard.port.messages_out = 16;
    shard.port.datagrams_out = 10 + 4 * 5 + 2 * 20;
    shard.port.bytes_out = u64::MAX / 2;
    shard.pulse.turned(Duration::from_micros(40), Some(Duration::from_micros(40)));
    shard.pulse.turned(Duration::from_micros(41), None);
    shard.pulse.turned(Duration::from_secs(1), Some(Duration::from_secs(1)));
    shard.pulse.wakeups = 9;
    shard.cpu = Duration::from_millis(250);
    shard.holdings.sessions = 3;
    shard.api.requests[Kind::NewTracks as usize] = [0, 8, 0, 1, 0];
    shard.api.latency[Kind::NewTracks as usize].record_time(Duration::from_millis(3));
    shard
}

#[test]
fn what_was_counted_is_told() {
    let shown = show(vec![Some(Snapshot::default()), Some(busy())]);
    for (sample, number) in [
        (r#"shardcast_media_packets_total{shard="1",direction="in"}"#, 1000.0),
        (r#"shardcast_media_packets_total{shard="1",direction="out"}"#, 5000.0),
        (r#"shardcast_media_packets_total{shard="0",direction="out"}"#, 0.0),
        (r#"shardcast_datagram_bytes_total{shard="1",direction="out"}"#, (u64::MAX / 2) as f64),
        (r#"shardcast_drops_total{shard="1",stage="intake",reason="replayed"}"#, 3.0),
        (r#"shardcast_drops_total{shard="1",stage="forward",reason="copy_unfit"}"#, 2.0),
        (r#"shardcast_drops_total{shard="1",stage="mail",reason="ring_full"}"#, 4.0),
        (r#"shardcast_drops_total{shard="1",stage="send",reason="kernel_buffer_full"}"#, 5.0),
        (r#"shardcast_gso_run_length_bucket{le="4.0",shard="1"}"#, 10.0),
        (r#"shardcast_gso_run_length_bucket{le="8.0",shard="1"}"#, 14.0),
        (r#"shardcast_gso_run_length_sum{shard="1"}"#, 70.0),
        (r#"shardcast_gso_run_length_count{shard="1"}"#, 16.0),
        (r#"shardcast_turn_seconds_count{shard="1"}"#, 3.0),
        (r#"shardcast_turn_seconds_sum{shard="1"}"#, 1.000_081),
        (r#"shardcast_arrival_to_send_seconds_bucket{le="0.001",shard="1"}"#, 1.0),
        (r#"shardcast_arrival_to_send_seconds_bucket{le="0.1",shard="1"}"#, 1.0),
        (r#"shardcast_arrival_to_send_seconds_bucket{le="+Inf",shard="1"}"#, 2.0),
        (r#"shardcast_wakeups_total{shard="1"}"#, 9.0),
        (r#"shardcast_shard_cpu_seconds_total{shard="1"}"#, 0.25),
        (r#"shardcast_sessions{shard="1"}"#, 3.0),
        (r#"shardcast_http_requests_total{shard="1",route="tracks/new",code="2xx"}"#, 8.0),
        (r#"shardcast_http_requests_total{shard="1",route="tracks/new",code="4xx"}"#, 1.0),
        (r#"shardcast_api_latency_seconds_bucket{le="0.005",shard="1",route="tracks/new"}"#, 1.0),
        (r#"shardcast_build_info{version="1.2.3"}"#, 1.0),
        ("process_cpu_seconds_total", 1.5),
        ("process_start_time_seconds", 1.7e9),
        ("process_resident_memory_bytes", 1_048_576.0),
        ("process_open_fds", 7.0),
    ] {
        assert_eq!(value(&shown, sample), number, "{sample}");
    }
    assert!(!shown.contains_key("process_virtual_memory_bytes"), "what is unknown is not told");
}

#[test]
fn a_shard_that_did_not_answer_is_down_and_nothing_else() {
    let shown = show(vec![Some(busy()), None]);
    assert_eq!(value(&shown, r#"shardcast_shard_up{shard="0"}"#), 1.0);
    assert_eq!(value(&shown, r#"shardcast_shard_up{shard="1"}"#), 0.0);
    let of_it = shown.values().flat_map(|family| family.samples.keys());
    assert_eq!(of_it.filter(|sample| sample.contains(r#"shard="1""#)).count(), 1);
    show(vec![None, None]);
    show(vec![]);
}

#[test]
fn what_only_grows_only_grows() {
    let (before, mut after) = (busy(), busy());
    after.meters.packets_in += 1;
    after.pulse.turned(Duration::from_micros(3), Some(Duration::from_micros(3)));
    after.api.requests[Kind::Create as usize][1] += 1;
    assert_monotone(&show(vec![Some(before.clone())]), &show(vec![Some(after.clone())]));
    let shrunk = || assert_monotone(&show(vec![Some(after)]), &show(vec![Some(before)]));
    assert!(std::panic::catch_unwind(shrunk).is_err(), "the check itself");
}

#[test]
fn the_readme_names_every_metric() {
    let readme = include_str!("../../README.md");
    for (name, family) in show(vec![Some(busy())]) {
        let name = match &*family.kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name,
        };
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}
