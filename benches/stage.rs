//! What forwarding costs a whole server, against a floor: one publisher of 720p-like video with
//! sound, many viewers, everything real, over loopback.
//!
//! The server records its sends. When a run has been measured, the publisher stops, and the
//! recorded sends are made once more by a bare loop on the server's CPU (`live/replay.rs` says
//! what that leaves out), while the viewers' sockets are still looked at as before. Runs and
//! floors take turns, each run with a fresh server.
//!
//! `cargo bench --bench stage [-- --viewers 500 --duration 10 --rounds 5]`
//!
//! With `--check-soak` it is one long run without a floor instead, which fails if anything is
//! lost or dropped in the server, or its memory grows:
//! `cargo bench --bench stage -- --check-soak --duration 600 --viewers N`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;
mod live;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use live::replay::{Floor, PROFILE, replay};
use live::{Settings, median_of, soak};
use loadgen::conduct::{Interlude, Window};
use loadgen::peer::profile_name;
use loadgen::report::summary::Report;
use shards::io::record::{PERIOD, Recording};

/// Forwarding may cost this much more than the floor.
const TARGET: f64 = 1.3;

/// What forwarding costs a whole server, against a floor.
#[derive(Debug, Parser)]
struct Asked {
    #[command(flatten)]
    settings: Settings,
    /// One run without a floor; fails if anything is lost or dropped, or memory grows
    #[arg(long)]
    check_soak: bool,
}

fn main() -> ExitCode {
    let Asked { settings, check_soak } = Asked::parse();
    if check_soak {
        return check(&settings);
    }
    let servers = settings.pair.servers();
    println!(
        "1 publisher, {} viewers, {} s; ns of CPU per forwarded packet; server and floor on CPU \
         {}, generator on CPU {}\n",
        settings.viewers, settings.duration, settings.pair.server_cpu, settings.pair.generator_cpu
    );
    println!("{HEAD}");
    let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
    for number in 1..=settings.rounds {
        for (at, server) in servers.iter().enumerate() {
            let name = format!("{number}{}", letter(at));
            match Round::play(&settings, server) {
                Ok(round) => {
                    println!("{name:>8} {}", round.line());
                    rounds[at].push(round);
                }
                Err(sentence) => println!("{name:>8}   FAILED: {sentence}"),
            }
        }
    }
    println!();
    for (at, (server, rounds)) in servers.iter().zip(&rounds).enumerate() {
        if !rounds.is_empty() {
            conclude(letter(at), server, rounds);
        }
    }
    let whole = rounds.iter().all(|rounds| rounds.len() == settings.rounds);
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn letter(server: usize) -> char {
    char::from(b'a' + server as u8)
}

const HEAD: &str = "   round   packets/s   server    floor =   seal +   send   ratio   run  video's run   \
                    generator  busy   lost overrun refused";

/// One run and its floor.
struct Round {
    report: Report,
    floor: Floor,
}

impl Round {
    fn play(settings: &Settings, server: &str) -> Result<Self, String> {
        let record = folder().join(format!("shardcast-sends-{}", std::process::id()));
        let found = Arc::new(Mutex::new(Floor::default()));
        let (result, cpu, path) =
            (Arc::clone(&found), settings.pair.server_cpu, shard_file(&record));
        let interlude = Interlude::new(move |window: Window| {
            // Until the last of it is written.
            std::thread::sleep(4 * PERIOD);
            let file = File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let recording = Recording::read(file).expect("a record of sends");
            *result.lock().expect("nobody panics with it") = replay(&recording, window, cpu);
        });
        let report = settings.run(server, 1, Some(&record), Some(interlude));
        // A server that did not start left none.
        let _ = std::fs::remove_file(shard_file(&record));
        let report = report?;
        let others = report.srtp_profiles.keys().any(|name| *name != profile_name(PROFILE));
        assert!(!others, "the floor seals otherwise: {:?}", report.srtp_profiles);
        let floor = found.lock().expect("nobody panics with it").clone();
        assert!(floor.datagrams as u64 >= report.packets_out, "{} recorded", floor.datagrams);
        Ok(Self { report, floor })
    }

    fn server_ns(&self) -> f64 {
        self.report.server_cpu_ns_per_packet.expect("the server is a process of this machine")
    }

    fn per_packet(&self, ns: f64) -> f64 {
        ns / self.report.packets_out as f64
    }

    fn floor_ns(&self) -> f64 {
        self.per_packet(self.floor.ns())
    }

    fn ratio(&self) -> f64 {
        self.server_ns() / self.floor_ns()
    }

    fn run(&self) -> f64 {
        self.floor.datagrams as f64 / self.floor.sends as f64
    }

    fn video_run(&self) -> f64 {
        self.floor.large as f64 / self.floor.large_sends.max(1) as f64
    }

    fn line(&self) -> String {
        let report = &self.report;
        format!(
            "{:>11.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0}   ×{:<5.2} {:>5.2} {:>12.2} {:>11.0} {:>3.0} % \
             {:>6} {:>7} {:>7}",
            report.packets_out_per_s.unwrap_or(0.0),
            self.server_ns(),
            self.floor_ns(),
            self.per_packet(self.floor.seal_ns),
            self.per_packet(self.floor.send_ns),
            self.ratio(),
            self.run(),
            self.video_run(),
            report.generator_cpu_ns_per_packet.unwrap_or(f64::NAN),
            report.generator_busiest_percent.unwrap_or(f64::NAN),
            report.lost,
            report.overrun,
            self.floor.refused,
        )
    }
}

/// In memory where there is such a folder: the record is no load for a disk.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

fn shard_file(record: &std::path::Path) -> PathBuf {
    PathBuf::from(format!("{}.0", record.display()))
}

fn conclude(letter: char, server: &str, rounds: &[Round]) {
    let name = std::path::Path::new(server).file_name().unwrap_or_default().to_string_lossy();
    let ratio = median_of(rounds, Round::ratio);
    let verdict = if ratio <= TARGET { "within" } else { "BEYOND" };
    println!(
        "{letter} ({name}): medians: server {:.0} ns, floor {:.0} ns (seal {:.0}, send {:.0}; with \
         sleeping and headers {:.0}), server at {:.0} % of a core",
        median_of(rounds, Round::server_ns),
        median_of(rounds, Round::floor_ns),
        median_of(rounds, |round| round.per_packet(round.floor.seal_ns)),
        median_of(rounds, |round| round.per_packet(round.floor.send_ns)),
        median_of(rounds, |round| round.per_packet(round.floor.thread_ns)),
        median_of(rounds, |round| round.report.server_cpu_percent.unwrap_or(f64::NAN)),
    );
    println!(
        "   GSO run {:.2}, of video {:.2}; {:.0} turns/s; ratio ×{ratio:.2}, {verdict} the aim of \
         ×{TARGET}",
        median_of(rounds, Round::run),
        median_of(rounds, Round::video_run),
        median_of(rounds, |round| round.floor.turns as f64 / round.report.duration_s),
    );
}

fn check(settings: &Settings) -> ExitCode {
    let servers = settings.pair.servers();
    match settings.run(&servers[0], 1, None, None) {
        Ok(report) => {
            let load = format!("1 publisher, {} viewers", settings.viewers);
            soak::check(&load, &report, Vec::new())
        }
        Err(sentence) => {
            println!("FAULT: {sentence}");
            ExitCode::FAILURE
        }
    }
}
