//! Whole runs of the program against the real node: what it finds, prints, writes, and how it
//! exits.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::node::{APP, SECRET, free_port, start};
use loadgen::report::summary::Report;

/// A run against `url`, its output and its JSON report.
fn play(scenario: &str, url: &str, flags: &[&str]) -> (Output, Option<Report>) {
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "{scenario}-{}-{:?}.json",
        std::process::id(),
        std::thread::current().id()
    ));
    let output = command(scenario, url, flags).arg("--json").arg(&json).output();
    let output = output.expect("the program starts");
    let text = std::fs::read_to_string(&json).ok();
    let report = text.map(|text| Report::from_json(&text).expect("its own JSON"));
    let _ = std::fs::remove_file(json);
    (output, report)
}

fn command(scenario: &str, url: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast-loadgen"));
    command.args([scenario, "--target", url, "--app", APP, "--settle", "0.5"]).args(flags);
    command.env("LOADGEN_SECRET", SECRET).stdin(Stdio::null());
    command
}

/// A CPU that this process may use: not all have the first.
fn own_cpu() -> u64 {
    let mask = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("a mask");
    let is_in = |cpu: &usize| mask.is_set(*cpu).expect("within the mask");
    (0..nix::sched::CpuSet::count()).find(is_in).expect("it runs on one") as u64
}

/// What every run of a healthy node must come to.
fn healthy(scenario: &str, output: &Output, report: Option<Report>) -> Report {
    let said = String::from_utf8_lossy(&output.stdout);
    let erred = String::from_utf8_lossy(&output.stderr);
    let report = report.unwrap_or_else(|| panic!("{scenario}: no report\n{said}{erred}"));
    assert_eq!(output.status.code(), Some(0), "{scenario}\n{said}{erred}");
    assert_eq!(report.sessions.failed, 0, "{scenario}: {:?}", report.failures);
    assert_eq!((report.corrupted, report.foreign, report.duplicated), (0, 0, 0), "{scenario}");
    assert!(report.checked > 0 && report.packets_out > 0, "{scenario}: {report:?}");
    report
}

#[test]
fn every_scenario_runs_and_finds_nothing_wrong_with_a_healthy_node() {
    let (url, _) = start();
    // Small and slow enough for a busy machine in a debug build.
    let light = ["--duration", "2", "--video-bitrate", "300000", "--join-rate", "10"];
    for (scenario, sizes) in [
        ("stage", &["--viewers", "4"][..]),
        ("meeting", &["--publishers", "3"]),
        ("audio-room", &["--publishers", "3", "--viewers", "4"]),
        ("churn", &["--viewers", "3", "--rate", "2"]),
        ("pull-storm", &["--viewers", "4", "--rate", "50"]),
        ("roam", &["--viewers", "2", "--rate", "1"]),
        ("mixed", &["--viewers", "4", "--rate", "1"]),
    ] {
        let flags: Vec<&str> = light.iter().chain(sizes).copied().collect();
        let (output, report) = play(scenario, &url, &flags);
        let report = healthy(scenario, &output, report);
        assert_eq!(report.scenario, scenario);
        if scenario == "stage" {
            // Each of four viewers gets all that was sent, give or take what was under way.
            let (sent, got) = (report.packets_in * 4, report.packets_out);
            assert!(got.abs_diff(sent) < sent / 5, "{got} of {sent}");
            assert_eq!(report.sessions.connected, 5);
            assert_eq!(report.lost_ppm, Some(0.0));
        }
    }
}

#[test]
fn rooms_are_apart_and_the_api_is_looked_at_beside_the_media() {
    let (url, _) = start();
    let light = ["--duration", "2", "--video-bitrate", "300000", "--join-rate", "10"];
    let cpu = own_cpu();
    let probe = cpu.to_string();
    let flags = ["--publishers", "3", "--rooms", "2", "--api-rate", "20", "--probe-cpu", &probe];
    let flags: Vec<&str> = light.into_iter().chain(flags).collect();
    let (output, report) = play("meeting", &url, &flags);
    let report = healthy("meeting", &output, report);
    assert_eq!((report.sessions.connected, report.publishers, report.viewers), (6, 6, 6));
    // Each of the six is seen by the two others of the room, not by five.
    let (sent, got) = (report.packets_in * 2, report.packets_out);
    assert!(got.abs_diff(sent) < sent / 5, "{got} of {sent}");
    let looks = report.api_look_ms;
    assert!(looks.count > 0 && looks.p50 <= looks.p99, "{looks:?}");
    // What joins called is counted apart: nobody joins during the measurement.
    assert_eq!(report.api_ms.count, 0);
    // A deadline each millisecond, however late the probe was for it.
    assert!(report.stalls_us.count >= 1000, "{:?}", report.stalls_us);
    assert!(report.stalls_probe.is_some() && report.stalls_cpu == Some(cpu));
    assert!(report.api_looks_failed.is_empty(), "{:?}", report.api_looks_failed);
}

#[test]
fn a_wrong_secret_an_absent_server_and_wrong_flags_are_told_apart() {
    let (url, _) = start();
    let (output, report) = play("stage", &url, &["--secret", "not-the-secret-of-this-app"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(report.is_some_and(|report| report.stopped.is_some()));
    let nobody = format!("http://{}", free_port());
    let (output, _) = play("stage", &nobody, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no connection to 127.0.0.1"));
    for (scenario, flags) in [
        ("stage", &["--viewers", "90000"][..]),
        ("stage", &["--join-rate", "0"]),
        ("stage", &["--fps", "0"]),
        ("stage", &["--rooms", "2"]),
        ("stage", &["--rate", "5"]),
        ("stage", &["--duration", "0"]),
        ("stage", &["--cpus", "1023"]),
        ("stage", &["--html", "/nowhere/to/be/found.html"]),
        ("stage", &["--api-rate", "20000"]),
        ("stage", &["--api-rate", "5", "--api", "janus"]),
        ("stage", &["--probe-cpu", "1023"]),
        ("idle", &["--ramp", "--max-p99", "5"]),
    ] {
        let (output, report) = play(scenario, &url, flags);
        assert_eq!((output.status.code(), report.is_some()), (Some(2), false), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn ctrl_c_gives_the_report_of_what_was_done() {
    let (url, _) = start();
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interrupted.json");
    let flags = ["--viewers", "2", "--duration", "600", "--video-bitrate", "300000"];
    let mut child = command("stage", &url, &flags)
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    std::thread::sleep(Duration::from_secs(4));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    let text = std::fs::read_to_string(json).expect("a report");
    let report = Report::from_json(&text).expect("its own JSON");
    assert!(report.interrupted && report.duration_s < 60.0);
    assert_eq!(report.sessions.left, 3, "everybody took leave");
}
