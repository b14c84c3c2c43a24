//! The command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::api::{ApiKind, Target};
use crate::conduct::{Plan, ServerWatch};
use crate::peer::{Common, Dtls, VideoShape};
use crate::real::http;
use crate::real::limits::PEERS_MAX;
use crate::real::stalls::may_run_on;
use crate::report::objective::Objective;
use crate::scenario::{Scenario, Sizes};

/// Load and proof for WebRTC SFUs: thousands of peers that publish, watch, and check every
/// packet.
#[derive(Debug, Parser)]
#[command(name = "shardcast-loadgen", version, propagate_version = true)]
#[command(after_help = AFTER_HELP)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Against a shardcast that runs with its development app:
  shardcast-loadgen stage --target http://127.0.0.1:8080/v1/apps/ID --secret SECRET --viewers 200

Exit codes: 0 all well; 1 packets lost, changed or doubled, or an objective missed; 2 wrong
flags; 3 target not reachable or login refused; 4 some peers failed, or looks by the API.";

/// What is played.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// 1 publisher, many viewers
    Stage(Run),
    /// Everyone sees everyone
    Meeting(Run),
    /// 10 speakers, many listeners
    AudioRoom(Run),
    /// Viewers come and go; time to first media
    Churn(Run),
    /// A track goes viral: many pulls a second on one track
    PullStorm(Run),
    /// Viewers change their address, with and without an ICE restart
    Roam(Run),
    /// Sessions that are connected and do nothing
    Idle(Run),
    /// A stage, a meeting, an audio room and churn at once
    Mixed(Run),
    /// The same scenario against several servers in turn, and their ratios
    Compare(Compare),
}

#[derive(Debug, Clone, Args)]
pub struct Compare {
    /// What is played
    pub scenario: Scenario,
    /// The servers, in one or several files (see loadgen/compare); the first is compared with
    /// each other one
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub servers: Vec<PathBuf>,
    /// Only these of them, by name
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each has its turn
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    #[command(flatten)]
    pub sizes: SizeFlags,
    #[command(flatten)]
    pub generator: GeneratorFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

impl Command {
    /// The scenario of a single run.
    pub fn run(&self) -> Option<(Scenario, &Run)> {
        Some(match self {
            Self::Stage(run) => (Scenario::Stage, run),
            Self::Meeting(run) => (Scenario::Meeting, run),
            Self::AudioRoom(run) => (Scenario::AudioRoom, run),
            Self::Churn(run) => (Scenario::Churn, run),
            Self::PullStorm(run) => (Scenario::PullStorm, run),
            Self::Roam(run) => (Scenario::Roam, run),
            Self::Idle(run) => (Scenario::Idle, run),
            Self::Mixed(run) => (Scenario::Mixed, run),
            Self::Compare(_) => return None,
        })
    }
}

#[derive(Debug, Clone, Args)]
pub struct Run {
    #[command(flatten)]
    pub target: TargetFlags,
    #[command(flatten)]
    pub sizes: SizeFlags,
    #[command(flatten)]
    pub objective: ObjectiveFlags,
    #[command(flatten)]
    pub generator: GeneratorFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Objective")]
pub struct ObjectiveFlags {
    /// Find the largest load (viewers; people of a meeting; sessions of idle) that holds the
    /// objective; begins with the sizes given
    #[arg(long)]
    pub ramp: bool,
    /// 99 of 100 packets take no longer, in milliseconds [with --ramp: 20; not for idle]
    #[arg(long, value_name = "MS")]
    pub max_p99: Option<f64>,
    /// Lost packets in a million [with --ramp: 10; not for idle]
    #[arg(long, value_name = "PPM")]
    pub max_lost: Option<f64>,
    /// Failed sessions, from 0 to 1 [with --ramp: 0]
    #[arg(long, value_name = "SHARE")]
    pub max_failed: Option<f64>,
}

impl ObjectiveFlags {
    /// What is asked of a run, or a sentence about what cannot be asked of this scenario.
    pub fn objective(&self, scenario: Scenario) -> Result<Option<Objective>, String> {
        let has_media = scenario != Scenario::Idle;
        if !has_media && (self.max_p99.is_some() || self.max_lost.is_some()) {
            return Err("idle sends no media that --max-p99 or --max-lost could judge: sessions \
                        that do not join, or get lost, are what --max-failed limits"
                .to_owned());
        }
        let or = |value: Option<f64>, default: Option<f64>| {
            value.or_else(|| default.filter(|_| self.ramp))
        };
        let of_media = |default: f64| has_media.then_some(default);
        let objective = Objective {
            latency_p99_us: or(self.max_p99, of_media(20.0)).map(|ms| (ms * 1000.0) as u64),
            lost_ppm: or(self.max_lost, of_media(10.0)),
            failed_share: or(self.max_failed, Some(0.0)),
        };
        Ok((objective != Objective::default()).then_some(objective))
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetFlags {
    /// Where the server's API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub target: String,
    /// Which API it speaks
    #[arg(long, value_name = "API", default_value = "realtime")]
    pub api: ApiKind,
    /// Realtime: the app's id, unless the URL has it
    #[arg(long, value_name = "ID", env = "LOADGEN_APP")]
    pub app: Option<String>,
    /// Realtime: the app's secret
    #[arg(long, value_name = "SECRET", env = "LOADGEN_SECRET", hide_env_values = true)]
    pub secret: Option<String>,
    /// WHIP: the bearer token, with {name} for the stream's. Janus: the token
    #[arg(long, value_name = "TOKEN", env = "LOADGEN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// WHIP: where streams are played, unless it is the target with whep for whip
    #[arg(long, value_name = "URL")]
    pub whep: Option<String>,
    /// WHIP: where tokens are made for --secret
    #[arg(long, value_name = "URL")]
    pub tokens: Option<String>,
    /// Janus: a room that exists, instead of one made for the run
    #[arg(long, value_name = "ROOM")]
    pub room: Option<u64>,
    /// The peers' DTLS: dimpl, or openssl for servers with RSA certificates
    #[arg(long, value_name = "NAME", default_value = "dimpl")]
    pub dtls: Dtls,
    /// Take the server's certificate without looking
    #[arg(long)]
    pub insecure: bool,
    /// The server's process on this machine: its CPU and memory go into the report
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Its metrics in Prometheus text; asked for at the target's /metrics if not said
    #[arg(long, value_name = "URL")]
    pub metrics: Option<String>,
    /// A bearer token for its metrics
    #[arg(long, value_name = "TOKEN", env = "LOADGEN_METRICS_TOKEN", hide_env_values = true)]
    pub metrics_token: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sizes")]
pub struct SizeFlags {
    /// Peers that publish; in a meeting, all of a room [default: by scenario]
    #[arg(long, value_name = "N")]
    pub publishers: Option<usize>,
    /// Peers that watch [default: by scenario]
    #[arg(long, value_name = "N")]
    pub viewers: Option<usize>,
    /// Meetings at the same time, each of so many publishers [default: 1]
    #[arg(long, value_name = "N")]
    pub rooms: Option<usize>,
    /// How long is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub duration: f64,
    /// After the last join, before the measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub settle: f64,
    /// Joins a second while everybody comes
    #[arg(long, value_name = "PER_SECOND", default_value_t = 50.0)]
    pub join_rate: f64,
    /// Joins (churn), pulls (pull-storm) or moves (roam) a second [default: 10, 1000, 10]
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Looks at sessions by the API, a second, while it is measured: GET of one after the
    /// other, each timed from when it was due (Realtime API only)
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    pub api_rate: f64,
    /// Video of each publisher, in bits per second; 0 for none
    #[arg(long, value_name = "BPS", default_value_t = 2_500_000)]
    pub video_bitrate: u64,
    /// Frames a second
    #[arg(long, value_name = "FPS", default_value_t = 30)]
    pub fps: u32,
    /// Sound of each publisher, in bits per second; 0 for none
    #[arg(long, value_name = "BPS", default_value_t = 32_000)]
    pub audio_bitrate: u64,
    /// How long a peer may take to connect, and a track to begin, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub patience: f64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generator")]
pub struct GeneratorFlags {
    /// Threads that move packets
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// CPUs they are pinned to, such as 1 or 2,3, and the threads that measure beside them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// The CPU of the idle probe, which tells how long the machine itself kept everybody
    /// waiting: the server's, to see what disturbed it [default: those of --cpus, or any]
    #[arg(long, value_name = "CPU")]
    pub probe_cpu: Option<usize>,
    /// One in so many packets is decrypted and checked bit by bit (a power of two)
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub check_each: u32,
    /// The address peers send from [default: the one that leads to the target]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// The report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The report as one self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No progress while it runs
    #[arg(long)]
    pub quiet: bool,
}

impl Run {
    /// The plan of a run, or a sentence about the flag that makes none.
    pub fn plan(&self, scenario: Scenario) -> Result<Plan, String> {
        let flags = &self.target;
        let target = Target {
            url: flags.target.clone(),
            app: flags.app.clone(),
            secret: flags.secret.clone(),
            token: flags.token.clone(),
            whep: flags.whep.clone(),
            tokens: flags.tokens.clone(),
            room: flags.room,
        };
        // Said now, before anything is started.
        target.api(flags.api)?;
        let local = self.generator.local(&target.url)?;
        let mut plan = plan(scenario, &self.sizes, &self.generator, local)?;
        plan.set_dtls(flags.dtls).map_err(|what| format!("--dtls: {what}"))?;
        plan.check(flags.api)?;
        Ok(Plan {
            api: flags.api,
            http: http::Settings { insecure: flags.insecure, ..http::Settings::default() },
            server: flags.watch(),
            quiet: self.output.quiet,
            target,
            ..plan
        })
    }
}

impl Compare {
    /// The plan of every run, but for its target.
    pub fn plan(&self, url: &str) -> Result<Plan, String> {
        let local = self.generator.local(url)?;
        let plan = plan(self.scenario, &self.sizes, &self.generator, local)?;
        Ok(Plan { quiet: self.output.quiet, ..plan })
    }
}

/// A plan without a target.
fn plan(
    scenario: Scenario,
    flags: &SizeFlags,
    generator: &GeneratorFlags,
    local: IpAddr,
) -> Result<Plan, String> {
    let sizes = flags.sizes(scenario)?;
    if generator.workers == 0 || generator.check_each == 0 {
        return Err("--workers and --check-each are 1 or more".into());
    }
    let workers = generator.cpus.iter().map(|cpu| ("--cpus", *cpu));
    let all = workers.chain(generator.probe_cpu.map(|cpu| ("--probe-cpu", cpu)));
    if let Some((flag, cpu)) = all.into_iter().find(|(_, cpu)| !may_run_on(*cpu)) {
        return Err(format!("{flag} {cpu}: there is none, or this process may not use it"));
    }
    let cert = shards::session::keys::provider().dtls_provider.generate_certificate();
    let common = Common {
        cert: cert.ok_or("no DTLS certificate can be made on this machine")?,
        crypto: Dtls::default().provider()?,
        check_each: generator.check_each,
        video: VideoShape { bitrate: flags.video_bitrate, fps: flags.fps },
        audio_bitrate: flags.audio_bitrate,
    };
    Ok(Plan {
        scenario,
        sizes,
        api: ApiKind::default(),
        target: Target::default(),
        http: http::Settings::default(),
        common,
        local,
        cpus: generator.cpus.clone(),
        workers: generator.workers,
        probe_cpu: generator.probe_cpu,
        server: ServerWatch::default(),
        settings: settings(flags, generator),
        quiet: false,
        interlude: None,
    })
}

impl SizeFlags {
    fn sizes(&self, scenario: Scenario) -> Result<Sizes, String> {
        let (publishers, viewers) = scenario.people();
        let seconds = |flag: &str, value: f64| {
            let time = Duration::try_from_secs_f64(value);
            time.map_err(|_| format!("{flag} {value}: a number of seconds, 0 or more"))
        };
        let rate = self.rate.unwrap_or_else(|| scenario.event_rate());
        for (flag, value) in [("--join-rate", self.join_rate), ("--rate", rate)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{flag} {value}: a number of events a second, more than 0"));
            }
        }
        if self.rate.is_some() && !scenario.has_events() {
            return Err(format!("--rate: nothing happens at a rate in {scenario}"));
        }
        if self.duration == 0.0 {
            return Err("--duration 0: nothing is measured in no time".to_owned());
        }
        if self.rooms.is_some() && scenario != Scenario::Meeting {
            return Err(format!("--rooms: only a meeting has rooms, which {scenario} is not"));
        }
        let sizes = Sizes {
            publishers: self.publishers.unwrap_or(publishers),
            viewers: self.viewers.unwrap_or(viewers),
            rooms: self.rooms,
            video: self.video_bitrate > 0,
            audio: self.audio_bitrate > 0,
            join_rate: self.join_rate,
            event_rate: rate,
            api_rate: self.api_rate,
            duration: seconds("--duration", self.duration)?,
            settle: seconds("--settle", self.settle)?,
            patience: seconds("--patience", self.patience)?,
        };
        self.check(&sizes)?;
        Ok(sizes)
    }

    fn check(&self, sizes: &Sizes) -> Result<(), String> {
        let rate = sizes.api_rate;
        if rate != 0.0 && !(API_RATE_MIN..=API_RATE_MAX).contains(&rate) {
            return Err(format!(
                "--api-rate {rate}: from {API_RATE_MIN} to {API_RATE_MAX} calls a second, or 0"
            ));
        }
        if !sizes.video && !sizes.audio {
            return Err("--video-bitrate and --audio-bitrate are both 0: nothing to send".into());
        }
        if self.fps == 0 || self.fps > FPS_MAX {
            return Err(format!("--fps {}: from 1 to {FPS_MAX}", self.fps));
        }
        for (flag, value, most) in [
            ("--video-bitrate", self.video_bitrate, VIDEO_MAX),
            ("--audio-bitrate", self.audio_bitrate, AUDIO_MAX),
        ] {
            if value > most {
                return Err(format!("{flag} {value}: {most} bit/s at most"));
            }
        }
        if sizes.publishers == 0 || sizes.rooms() == 0 || sizes.peers() > PEERS_MAX {
            let rooms = sizes.rooms.map(|rooms| format!(" in each of {rooms} rooms"));
            return Err(format!(
                "{} publishers and {} viewers{}: at least one publisher, and at most {PEERS_MAX} peers",
                sizes.publishers,
                sizes.viewers,
                rooms.unwrap_or_default()
            ));
        }
        Ok(())
    }
}

/// One in a quarter of an hour: slower is not a rate.
const API_RATE_MIN: f64 = 0.001;

/// More than a node of many cores answers; it would be a benchmark of HTTP.
const API_RATE_MAX: f64 = 10_000.0;

/// Faster than any camera.
const FPS_MAX: u32 = 240;

/// More than any camera sends.
const VIDEO_MAX: u64 = 50_000_000;

/// Opus ends at 510 kbit/s; with its variation a packet of this still fits a datagram.
const AUDIO_MAX: u64 = 400_000;

impl TargetFlags {
    fn watch(&self) -> ServerWatch {
        let default = || {
            let origin = reqwest::Url::parse(&self.target).ok()?.origin();
            let is_ours = self.api == ApiKind::Realtime;
            is_ours.then(|| format!("{}/metrics", origin.ascii_serialization()))
        };
        ServerWatch {
            pid: self.server_pid,
            metrics: self.metrics.clone().or_else(default),
            metrics_token: self.metrics_token.clone(),
        }
    }
}

impl GeneratorFlags {
    /// The address that leads to the target, as the kernel would choose it.
    fn local(&self, url: &str) -> Result<IpAddr, String> {
        if let Some(ip) = self.bind {
            return Ok(ip);
        }
        // What WHIP puts in the place of `{name}` is no host.
        let url = reqwest::Url::parse(&url.replace("{name}", "name"))
            .map_err(|error| format!("--target {url}: {error}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let found = (host.as_str(), port).to_socket_addrs();
        let mut found = found.map_err(|error| format!("--target: {host} is not known: {error}"))?;
        let remote = found.next().ok_or_else(|| format!("--target: {host} has no address"))?;
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let route = || {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(remote)?;
            socket.local_addr()
        };
        let local = route().map_err(|error| format!("--target: no way to {remote}: {error}"))?;
        Ok(local.ip())
    }
}

/// What differs from one run to another, for the report.
fn settings(sizes: &SizeFlags, generator: &GeneratorFlags) -> BTreeMap<String, String> {
    let all = [
        ("video-bitrate", sizes.video_bitrate.to_string()),
        ("audio-bitrate", sizes.audio_bitrate.to_string()),
        ("fps", sizes.fps.to_string()),
        ("join-rate", sizes.join_rate.to_string()),
        ("check-each", generator.check_each.to_string()),
    ];
    let rate = sizes.rate.map(|rate| ("rate", rate.to_string()));
    let rooms = sizes.rooms.map(|rooms| ("rooms", rooms.to_string()));
    let asked = (sizes.api_rate > 0.0).then(|| ("api-rate", sizes.api_rate.to_string()));
    all.into_iter()
        .chain(rate)
        .chain(rooms)
        .chain(asked)
        .map(|(flag, value)| (flag.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_asked_for_what_it_can_fail_at() {
        let ramp = ObjectiveFlags { ramp: true, max_p99: None, max_lost: None, max_failed: None };
        let failed = Objective { failed_share: Some(0.0), ..Objective::default() };
        assert_eq!(ramp.objective(Scenario::Idle), Ok(Some(failed)));
        let all = ramp.objective(Scenario::Stage).unwrap().unwrap();
        assert_eq!((all.latency_p99_us, all.lost_ppm), (Some(20_000), Some(10.0)));
        for flags in [
            ObjectiveFlags { max_p99: Some(5.0), ..ramp.clone() },
            ObjectiveFlags { max_lost: Some(5.0), ramp: false, ..ramp },
        ] {
            let error = flags.objective(Scenario::Idle).unwrap_err();
            assert!(error.starts_with("idle sends no media"), "{error}");
            assert!(flags.objective(Scenario::Stage).is_ok());
        }
    }
}
