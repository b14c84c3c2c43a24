//! How a server does at 70 % of its core: many meetings on one shard, everything real, over
//! loopback.
//!
//! It finds by itself how many rooms take that much, and plays them: with looks by the API at a
//! steady rate, and with an idle probe on the server's CPU, whose lateness is the machine's own
//! and in all other figures too. It prints what was measured beside what is aimed at.
//!
//! Latency inside the server cannot be seen from outside, nor wholly from inside: the server's
//! own histogram begins when it looks, so that what waited in the socket is not in it. From the
//! publisher's send to the arrival at the viewer's socket is all of it, and more: both ways
//! through the kernel, and the turn of the generator's thread that sends. So that is what is judged.
//!
//! `cargo bench --bench load [-- --publishers 8 --duration 20 --rooms R]`
//!
//! With `--check-soak` it fails if anything is lost or dropped in the server, or its memory grows,
//! in any of the long runs; if the last of them was beside the aimed load; or if the generator was
//! the limit, which answers nothing:
//! `cargo bench --bench load -- --check-soak --duration 600`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;
mod live;

use std::process::ExitCode;

use clap::Parser;
use live::level::Level;
use live::{Pair, Scene, soak};
use loadgen::report::number::{bits_per_s, digits, known, micros, millis, nanos, percent};
use loadgen::report::summary::{Bounds, Report};

/// 99 of 100 packets are through the server within this, in microseconds.
const LATENCY_P99_US: u64 = 1_000;

/// And 99 of 100 looks by the API, in milliseconds.
const API_P99_MS: f64 = 5.0;

/// Copies a second, of the first try: a load that any machine bears.
const FIRST_COPIES: usize = 150_000;

/// Packets a second of a publisher with 2.5 Mbit/s of video and sound.
const PACKETS: usize = 330;

/// When a run is beside the aim, so often another one is made.
const AGAIN: usize = 2;

/// How a server does at 70 % of its core.
#[derive(Debug, Clone, Parser)]
struct Asked {
    /// People in each meeting
    #[arg(long, value_name = "N", default_value_t = 8)]
    publishers: usize,
    /// Meetings at the same time [default: as many as take --percent]
    #[arg(long, value_name = "N")]
    rooms: Option<usize>,
    /// What the server is to take of its core
    #[arg(long, value_name = "PERCENT", default_value_t = 70.0)]
    percent: f64,
    /// And how far off that may be
    #[arg(long, value_name = "PERCENT", default_value_t = 4.0)]
    tolerance: f64,
    /// Looks at sessions by the API, a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0)]
    api_rate: f64,
    /// How long the run is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    duration: u64,
    /// How long each run is that looks for the load, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    search_duration: u64,
    /// Fails if anything is lost or dropped, memory grows, or the load is not the one aimed at
    #[arg(long)]
    check_soak: bool,
    #[command(flatten)]
    pair: Pair,
}

fn main() -> ExitCode {
    let asked = Asked::parse();
    let mut whole = true;
    for server in asked.pair.servers() {
        whole &= asked.measure(&server).unwrap_or_else(|sentence| {
            println!("FAILED: {sentence}");
            false
        });
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Asked {
    /// Finds the load, unless it is said, and plays it. Whether all is as it must be.
    fn measure(&self, server: &str) -> Result<bool, String> {
        let mut level = Level::new(self.first(), self.percent, self.tolerance);
        let mut rooms = match self.rooms {
            Some(rooms) => rooms,
            None => self.find(server, &mut level)?,
        };
        let again = if self.rooms.is_some() { 0 } else { AGAIN };
        let mut is_sound = true;
        for left in (0..=again).rev() {
            let report = self.play(server, rooms, self.duration)?;
            let took = cpu(&report)?;
            // What a long run took is truer than what a short one did.
            level.corrected(rooms, took);
            let next = if left > 0 { level.next_or_nearest(rooms) } else { None };
            is_sound &= self.judge(rooms, &report, next.is_none());
            let Some(next) = next else { break };
            println!("\n{rooms} rooms: {} this time, so {next} are played", percent(took));
            rooms = next;
        }
        Ok(is_sound)
    }

    fn first(&self) -> usize {
        let copies = self.publishers * self.publishers.saturating_sub(1) * PACKETS;
        FIRST_COPIES / copies.max(1)
    }

    /// By short runs, so many rooms as come nearest to the aim.
    fn find(&self, server: &str, level: &mut Level) -> Result<usize, String> {
        while let Some(rooms) = level.next() {
            let took = match self.search(server, rooms) {
                Ok(report) => cpu(&report)?,
                // A first run that fails is no overload.
                Err(sentence) if level.nearest().is_none() => return Err(sentence),
                Err(_) => OVERLOAD,
            };
            if took.is_finite() {
                println!("{rooms} rooms: {}", percent(took));
            }
            level.tried(rooms, took);
        }
        level.nearest().map(|(rooms, _)| rooms).ok_or_else(|| "nothing was tried".to_owned())
    }

    /// Shows a long run. Each must be sound, and the last one at the load that was aimed at.
    fn judge(&self, rooms: usize, report: &Report, is_last: bool) -> bool {
        self.show(rooms, report);
        if !self.check_soak {
            return true;
        }
        let took = report.server_cpu_percent.unwrap_or(f64::NAN);
        let is_beside = is_last && !self.is_there(took);
        let beside = is_beside.then(|| {
            format!("the server took {}, not the {} aimed at", percent(took), percent(self.percent))
        });
        let load = format!("\n{rooms} rooms of {}", self.publishers);
        soak::check(&load, report, beside.into_iter().collect()) == ExitCode::SUCCESS
    }

    fn is_there(&self, took: f64) -> bool {
        (took - self.percent).abs() <= self.tolerance
    }

    /// A short run. One that fails is made again, since a hiccup of the machine is no overload.
    fn search(&self, server: &str, rooms: usize) -> Result<Report, String> {
        let play = || {
            let report = self.play(server, rooms, self.search_duration);
            report.inspect_err(|sentence| println!("{rooms} rooms: FAILED: {sentence}"))
        };
        play().or_else(|_| play())
    }

    fn play(&self, server: &str, rooms: usize, duration: u64) -> Result<Report, String> {
        let flags = vec![
            ("--rooms", rooms.to_string()),
            ("--publishers", self.publishers.to_string()),
            ("--duration", duration.to_string()),
            ("--api-rate", self.api_rate.to_string()),
            ("--probe-cpu", self.pair.server_cpu.to_string()),
        ];
        let scene = Scene { scenario: "meeting", flags, peers: rooms * self.publishers };
        self.pair.run(&scene, server, 1, None, None)
    }

    fn show(&self, rooms: usize, report: &Report) {
        let took = report.server_cpu_percent.unwrap_or(f64::NAN);
        println!(
            "\n{rooms} rooms of {}, {:.0} s; server on CPU {} at {} of it ({}), generator on CPU {} at \
             {}",
            self.publishers,
            report.duration_s,
            self.pair.server_cpu,
            percent(took),
            if self.is_there(took) { "as aimed at" } else { "BESIDE the aim" },
            self.pair.generator_cpu,
            known(report.generator_busiest_percent, percent),
        );
        println!(
            "{} packets/s out, {}; {} of server CPU a packet, GSO run {}\n",
            known(report.packets_out_per_s, digits),
            known(report.bits_out_per_s, bits_per_s),
            known(report.server_cpu_ns_per_packet, nanos),
            known(report.server_gso_run, digits),
        );
        times(report);
        losses(report);
        for warning in &report.generator_warnings {
            println!("Warning: {warning}");
        }
    }
}

/// A server that fails sessions has no core left, whatever it took.
const OVERLOAD: f64 = f64::INFINITY;

fn cpu(report: &Report) -> Result<f64, String> {
    let took = report.server_cpu_percent;
    took.ok_or_else(|| "the server's CPU time cannot be read".to_owned())
}

fn times(report: &Report) {
    let us = |value: Option<u64>| known(value, |us| micros(us as f64));
    let line = |name: &str, [p50, p99, p999, max]: [String; 4], aim: &str| {
        let row = format!("{name:<36} {p50:>10} {p99:>10} {p999:>10} {max:>10}   {aim}");
        println!("{}", row.trim_end());
    };
    line("", ["p50", "p99", "p99.9", "max"].map(str::to_owned), "aim");
    let way = report.latency_us;
    let is_short = way.p99.map(|us| us < LATENCY_P99_US);
    let aim = format!("p99 < 1 ms: {}", met(report, is_short));
    let [p50, p99, p999, max] = [way.p50, way.p99, way.p999, way.max].map(us);
    line("publisher's send to viewer's socket", [p50, p99, p999, max], &aim);
    let within = |bounds: Option<Bounds>| {
        let Bounds { p50, p99, p999 } =
            bounds.unwrap_or(Bounds { p50: None, p99: None, p999: None });
        let bound = |us| known(us, |us| format!("≤ {}", micros(us)));
        [bound(p50), bound(p99), bound(p999), String::new()]
    };
    line("  in the server: arrival to send", within(report.server_arrival_to_send_us), "");
    line("  in the server: a turn", within(report.server_turn_us), "");
    let api = report.api_look_ms;
    let failed = report.looks_failed();
    let is_short = api.p99.map(|ms| ms < API_P99_MS && failed == 0);
    let aim = format!("p99 < 5 ms, none failed: {}", met(report, is_short));
    let [p50, p99, max] = [api.p50, api.p99, api.max].map(|ms| known(ms, millis));
    line(
        &format!("API, {} looks, {failed} failed", api.count),
        [p50, p99, String::new(), max],
        &aim,
    );
    let stalls = report.stalls_us;
    let class = report.stalls_probe.as_deref().unwrap_or("no probe");
    let cpu = known(report.stalls_cpu, |cpu| cpu.to_string());
    let [p50, p99, p999, max] = [stalls.p50, stalls.p99, stalls.p999, stalls.max].map(us);
    line(&format!("machine stalls, CPU {cpu} ({class})"), [p50, p99, p999, max], "");
}

fn losses(report: &Report) {
    let drops: Vec<String> = report
        .server_drops
        .iter()
        .flatten()
        .map(|(reason, count)| format!("{count} × {reason}"))
        .collect();
    let told = match (&report.server_drops, drops.is_empty()) {
        (None, _) => "not told".to_owned(),
        (Some(_), true) => "none".to_owned(),
        (Some(_), false) => drops.join(", "),
    };
    let wrong = report.corrupted + report.foreign + report.duplicated;
    let none = report
        .server_drops
        .as_ref()
        .map(|drops| drops.is_empty() && report.lost + report.overrun + wrong == 0);
    println!(
        "\nlost {} ({} in the warm-up); times that a socket of the generator overran: {}; dropped \
         by the server: {told}; changed {}, somebody else's {}, twice {}   aim none: {}",
        report.lost,
        report.lost_warm_up,
        report.overrun,
        report.corrupted,
        report.foreign,
        report.duplicated,
        met(report, none),
    );
}

/// Of a run that measured the load generator, nothing is known.
fn met(report: &Report, is_met: Option<bool>) -> &'static str {
    match is_met.filter(|_| !report.generator_was_the_limit()) {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not known",
    }
}
