//! Between the measurement and the leaving: nobody publishes any more, and everybody is there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::node::{APP, SECRET, start};
use clap::Parser;
use loadgen::conduct::{self, Interlude, Window};
use loadgen::flags::Flags;
use loadgen::report::metrics::samples;

/// RTP packets the node received, and sessions it has.
fn asked(url: &str) -> (u64, u64) {
    let host = url.strip_prefix("http://").unwrap();
    let mut link = TcpStream::connect(host).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    link.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    link.read_to_string(&mut text).unwrap();
    let sum = |name: &str, direction: Option<&str>| {
        let told = samples(&text).filter(|sample| sample.name == name);
        let told =
            told.filter(|sample| sample.labels.get("direction").map(String::as_str) == direction);
        told.map(|sample| sample.value as u64).sum()
    };
    (sum("shardcast_media_packets_total", Some("in")), sum("shardcast_sessions", None))
}

fn plan(url: &str) -> conduct::Plan {
    let args = ["stage", "--viewers", "2", "--settle", "0.2", "--duration", "0.5", "--quiet"];
    let target = ["--target", url, "--app", APP, "--secret", SECRET];
    let flags = Flags::parse_from(["shardcast-loadgen"].into_iter().chain(args).chain(target));
    let (scenario, run) = flags.command.run().unwrap();
    run.plan(scenario).unwrap()
}

#[test]
fn the_interlude_comes_after_the_measurement_with_everybody_there_and_silent() {
    let (url, _) = start();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (node, notes) = (url.clone(), Arc::clone(&seen));
    let mut plan = plan(&url);
    plan.interlude = Some(Interlude::new(move |window: Window| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        // What was on its way when the publisher was told.
        std::thread::sleep(Duration::from_millis(200));
        let before = asked(&node);
        std::thread::sleep(Duration::from_millis(500));
        notes.lock().unwrap().push((window, now, before, asked(&node)));
    }));
    let report = conduct::run(&plan, &Arc::new(AtomicBool::new(false)));
    let seen = seen.lock().unwrap();
    let [(window, now, before, after)] = seen[..] else { panic!("played once: {seen:?}") };
    assert!(window.from + 500_000_000 <= window.to && window.to <= now, "{window:?} {now}");
    assert!(before.0 > 0 && before.1 == 3, "{before:?}");
    assert_eq!(before, after, "nothing is published, nobody leaves");
    assert!(report.packets_out > 0 && report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!((report.sessions.left, report.lost), (3, 0));
}

#[test]
fn a_run_that_is_stopped_has_none_and_one_that_panics_ends_the_run_as_usual() {
    let (url, _) = start();
    let mut plan = plan(&url);
    // Not by the hook: this panic is meant.
    plan.interlude = Some(Interlude::new(|_| std::panic::resume_unwind(Box::new(()))));
    let report = conduct::run(&plan, &Arc::new(AtomicBool::new(false)));
    assert_eq!((report.sessions.left, report.interrupted), (3, false));
    plan.sizes.duration = Duration::from_secs(3600);
    plan.interlude = Some(Interlude::new(|_| panic!("the run was stopped")));
    let stop = Arc::new(AtomicBool::new(false));
    let hand = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        hand.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let report = conduct::run(&plan, &stop);
    assert_eq!((report.sessions.left, report.interrupted), (report.sessions.connected, true));
}
