//! A real server on one CPU under the load generator on another: what the benches of whole
//! runs share.
//!
//! The server is a process of its own, the generator a thread of this one, so that each has its
//! own CPU time. Figures are CPU times: what else the machine does disturbs them less.

#![allow(dead_code, reason = "each bench uses a part")]

pub(crate) mod level;
pub(crate) mod replay;
pub(crate) mod soak;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, Parser};
use loadgen::compare::{Entry, Running};
use loadgen::conduct::{self, Interlude};
use loadgen::flags::Flags;
use loadgen::real::limits;
use loadgen::report::summary::Report;

const APP: &str = "bench";
const SECRET: &str = "a-secret-of-this-bench";

/// What is asked on the command line of every bench of stages.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Viewers of the one publisher
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) viewers: usize,
    /// How long each run is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) duration: u64,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) pair: Pair,
}

/// A server and a generator, each with its CPU: the same flags for every such bench.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pair {
    /// The server: a program, with flags of its own if it has any; repeat to compare several
    /// [default: this build's]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) server: Vec<String>,
    /// A flag for every server, such as --server-flag=--packet-io=mmsg; repeatable
    #[arg(long, value_name = "FLAG")]
    pub(crate) server_flag: Vec<String>,
    /// A flag for the load generator, such as --generator-flag=--join-rate=20; repeatable
    #[arg(long, value_name = "FLAG")]
    pub(crate) generator_flag: Vec<String>,
    /// The CPU of the server, and of the replay
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub(crate) server_cpu: usize,
    /// The CPU of the generator
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub(crate) generator_cpu: usize,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is played: a scenario with its flags, and how many peers that makes.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) scenario: &'static str,
    pub(crate) flags: Vec<(&'static str, String)>,
    pub(crate) peers: usize,
}

impl Settings {
    /// One run of the stage, as [`Pair::run`] says.
    pub(crate) fn run(
        &self,
        command: &str,
        shards: usize,
        record: Option<&PathBuf>,
        interlude: Option<Interlude>,
    ) -> Result<Report, String> {
        let flags =
            [("--viewers", self.viewers.to_string()), ("--duration", self.duration.to_string())];
        let (scenario, flags, peers) = ("stage", flags.to_vec(), self.viewers + 1);
        self.pair.run(&Scene { scenario, flags, peers }, command, shards, record, interlude)
    }
}

impl Pair {
    /// The servers to measure.
    pub(crate) fn servers(&self) -> Vec<String> {
        if self.server.is_empty() {
            return vec![env!("CARGO_BIN_EXE_shardcast").to_owned()];
        }
        self.server.clone()
    }

    /// One run: a fresh server of `command` with so many shards, the scene, `interlude` while
    /// everybody is still there, and what came of it, unless a session failed. With `record`, the
    /// server's sends are recorded there.
    pub(crate) fn run(
        &self,
        scene: &Scene,
        command: &str,
        shards: usize,
        record: Option<&PathBuf>,
        interlude: Option<Interlude>,
    ) -> Result<Report, String> {
        limits::allow_files(scene.peers)?;
        // Threads inherit it: nothing of the generator runs where the server does.
        crate::common::pin(self.generator_cpu);
        let entry = self.entry(command, shards, record);
        let server = Running::start(&entry)?;
        let flags = self.flags(scene, &entry, server.pid());
        let (scenario, run) = flags.command.run().expect("a single run");
        let mut plan = run.plan(scenario)?;
        plan.interlude = interlude;
        let report = conduct::run(&plan, &Arc::new(AtomicBool::new(false)));
        server.stop();
        let mut failures = report.stopped.iter().chain(&report.failures);
        match failures.next() {
            // With fewer people than the others it is no run to compare.
            Some(failure) => Err(format!("{} sessions: {}", failure.count, failure.what)),
            None => Ok(report),
        }
    }

    fn entry(&self, command: &str, shards: usize, record: Option<&PathBuf>) -> Entry {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|all| all.local_addr());
        let http = port.expect("a free port");
        let cpu = self.server_cpu;
        let mut start = format!(
            "{command} --http {http} --udp 127.0.0.1:0 --shards {shards} --cpus {cpu} --log error"
        );
        for flag in &self.server_flag {
            start += &format!(" {flag}");
        }
        if let Some(path) = record {
            start += &format!(" --record-sends {}", path.display());
        }
        let env = [
            ("SHARDCAST_APP", format!("{APP}:{SECRET}")),
            ("SHARDCAST_ADMIN_SECRET", SECRET.to_owned()),
        ];
        let env: BTreeMap<String, String> =
            env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Entry {
            name: command.to_owned(),
            start,
            cpus: Some(cpu.to_string()),
            env,
            api: loadgen::api::ApiKind::Realtime,
            dtls: Default::default(),
            url: format!("http://{http}"),
            app: Some(APP.to_owned()),
            secret: Some(SECRET.to_owned()),
            token: None,
            whep: None,
            tokens: None,
            room: None,
            metrics: None,
        }
    }

    /// What would be typed for the same run.
    fn flags(&self, scene: &Scene, entry: &Entry, pid: u32) -> Flags {
        let pairs = [
            ("--target", entry.url.clone()),
            ("--app", APP.to_owned()),
            ("--secret", SECRET.to_owned()),
            ("--metrics-token", SECRET.to_owned()),
            ("--server-pid", pid.to_string()),
            ("--cpus", self.generator_cpu.to_string()),
        ];
        let pairs = pairs.into_iter().chain(scene.flags.clone());
        let pairs = pairs.flat_map(|(flag, value)| [flag.to_owned(), value]);
        let fixed = ["shardcast-loadgen", scene.scenario, "--quiet"].map(str::to_owned);
        Flags::parse_from(fixed.into_iter().chain(pairs).chain(self.generator_flag.clone()))
    }
}

/// Of several figures, the middle one.
pub(crate) fn median_of<T>(all: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    crate::common::median(&mut all.iter().map(figure).collect::<Vec<_>>())
}
