//! What wake moderation brings, and what it costs in latency: a whole shard on a core of its
//! own, one publisher on another, over loopback.
//!
//! Two shards get the same traffic in turn, one with `--wake-delay off`, one with `auto`. CPU is
//! the shard's thread's, in µs per forwarded packet; latency is from the publisher's `send` to
//! the arrival at one of the viewers, the first that is served; the others never read.
//!
//! `cargo bench --bench wake [-- --quick]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(dead_code, reason = "clients and nodes are those of the tests, and not used in full")]

#[path = "../shards/tests/engine/client.rs"]
mod client;
mod common;
#[path = "../shards/tests/sockets/node.rs"]
mod node;
#[path = "../shards/tests/sockets/peer.rs"]
mod peer;

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use client::{Packet, Source};
use common::{median, pin};
use node::{Layout, Node};
use peer::Stage;
use shards::ids::SessionId;
use shards::io::clock;
use shards::io::port::PortKind;
use shards::snapshot::Snapshot;
use shards::wake::WakeDelay;
use str0m::media::MediaKind;

const FEW: usize = 3;
const DATAGRAM: usize = 1160;

/// What the publisher sends.
#[derive(Debug, Clone, Copy)]
enum Traffic {
    /// Frames of nine packets, 30 a second, packets `apart` µs, to many.
    Frames { apart: u64 },
    /// Single packets to few, so many a second, at random.
    Singles { per_second: u64 },
    /// The same, evenly.
    Even { per_second: u64 },
}

impl Traffic {
    fn name(self, many: usize) -> String {
        match self {
            Self::Frames { apart: 0 } => format!("frames of 9 at once to {many}"),
            Self::Frames { apart } => format!("frames of 9, {apart} µs apart, to {many}"),
            Self::Singles { per_second } => format!("{per_second}/s to {FEW}"),
            Self::Even { per_second } => format!("{per_second}/s to {FEW}, evenly"),
        }
    }

    /// When what is sent, in µs from the start: whether it is the last of its frame.
    fn schedule(self, seconds: f64) -> Vec<(u64, bool)> {
        let end = (seconds * 1e6) as u64;
        match self {
            Self::Frames { apart } => (0..end / 33_333)
                .flat_map(|frame| (0..9).map(move |n| (frame * 33_333 + n * apart, n == 8)))
                .collect(),
            Self::Even { per_second } => (0..end * per_second / 1_000_000)
                .map(|n| (n * 1_000_000 / per_second, true))
                .collect(),
            Self::Singles { per_second } => {
                let (mut at, mut state, mut all) = (0.0, 0x9e37_79b9_7f4a_7c15u64, Vec::new());
                while at < end as f64 {
                    all.push((at as u64, true));
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
                    at += -(1.0 - uniform).ln() * 1e6 / per_second as f64;
                }
                all
            }
        }
    }
}

const TRAFFIC: [Traffic; 9] = [
    Traffic::Frames { apart: 0 },
    Traffic::Frames { apart: 30 },
    Traffic::Frames { apart: 100 },
    Traffic::Frames { apart: 1000 },
    Traffic::Even { per_second: 2000 },
    Traffic::Singles { per_second: 500 },
    Traffic::Singles { per_second: 2000 },
    Traffic::Singles { per_second: 6000 },
    Traffic::Singles { per_second: 15_000 },
];

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (rounds, seconds, many) = if quick { (3, 0.5, 100) } else { (9, 1.0, 200) };
    for kind in [PortKind::Ring, PortKind::Mmsg] {
        let mut houses = [WakeDelay::Off, WakeDelay::Auto].map(|delay| House::new(kind, delay));
        while houses[0].viewers[0] < many {
            // By turns, so that nobody falls asleep while the other is furnished.
            houses.iter_mut().for_each(|house| house.admit(0, 10));
        }
        houses.iter_mut().for_each(House::open);
        println!("\n{kind}; `off` and `auto`, median of {rounds} rounds of {seconds} s\n");
        println!(
            "{:>34} {:>15} {:>6} {:>13} {:>11} {:>13} {:>13} {:>13}",
            "traffic", "µs per copy", "ratio", "sleeps/s", "run", "p50 µs", "p99 µs", "API p90 µs"
        );
        for traffic in TRAFFIC {
            let mut all: [Vec<Measured>; 2] = Default::default();
            for _ in 0..rounds {
                for n in 0..2 {
                    houses.iter_mut().for_each(House::keep_alive);
                    all[n].push(houses[n].measure(traffic, seconds));
                }
            }
            let of = |n: usize, value: fn(&Measured) -> f64| {
                median(&mut all[n].iter().map(value).collect::<Vec<_>>())
            };
            let both = |value: fn(&Measured) -> f64| [of(0, value), of(1, value)];
            let [[off, auto], sleeps, run, p50, p99, api] = [
                both(|m| m.cost),
                both(|m| m.sleeps),
                both(|m| m.run),
                both(|m| m.p50),
                both(|m| m.p99),
                both(|m| m.api),
            ];
            println!(
                "{:>34} {off:>7.2} {auto:>7.2}  ×{:<5.2} {:>6.0} {:>6.0} {:>5.1} {:>5.1} {:>6.0} {:>6.0} {:>6.0} {:>6.0} {:>6.0} {:>6.0}",
                traffic.name(many),
                auto / off,
                sleeps[0],
                sleeps[1],
                run[0],
                run[1],
                p50[0],
                p50[1],
                p99[0],
                p99[1],
                api[0],
                api[1]
            );
        }
    }
}

/// One round.
struct Measured {
    /// µs of the shard's CPU per copy.
    cost: f64,
    sleeps: f64,
    run: f64,
    p50: f64,
    p99: f64,
    /// 90th percentile, µs.
    api: f64,
}

/// A shard with its publisher and viewers.
struct House {
    stage: Stage,
    thread: String,
    shard: SocketAddr,
    session: SessionId,
    sources: [Source; 2],
    /// A viewer of many, one of few.
    probes: [usize; 2],
    viewers: [usize; 2],
    pictures: u16,
}

impl House {
    fn new(kind: PortKind, delay: WakeDelay) -> Self {
        let before = tasks();
        pin(1);
        let node = Node::start_moderated(1, Layout::PerShard, kind, delay);
        pin(0);
        let mut started = tasks();
        started.retain(|task| !before.contains(task) && name_of(task).starts_with("shard"));
        let shard = node.addresses[0];
        let mut stage = Stage { node, peers: Vec::new() };
        let tracks = [("many", MediaKind::Video), ("few", MediaKind::Video)];
        let (publisher, session) = stage.publisher(0, &tracks);
        assert_eq!(publisher, 0);
        let sources = [0, 1].map(|n: usize| stage.peers[0].flows[n].source.clone());
        let mut house = Self {
            stage,
            thread: String::new(),
            shard,
            session,
            sources,
            probes: [0; 2],
            viewers: [0; 2],
            pictures: 0,
        };
        house.admit(1, FEW);
        // The busiest of its threads: the others only help the executor.
        house.thread = started.into_iter().max_by_key(|task| cpu_of(task)).unwrap();
        house
    }

    /// More viewers of many or of few.
    fn admit(&mut self, track: usize, count: usize) {
        for _ in 0..count {
            let (peer, _) = self.stage.viewer(0, self.session, &[["many", "few"][track]]);
            if self.viewers[track] == 0 {
                self.probes[track] = peer;
            }
            self.viewers[track] += 1;
        }
    }

    /// Everybody is there: waits until the last is served.
    fn open(&mut self) {
        let last = self.stage.peers.len() - 1;
        self.stage.watch(last, &[1], 5);
        self.stage.watch(self.probes[1], &[2], 5);
        self.stage.peers[0].flows.clear();
        for (n, peer) in self.stage.peers.iter().enumerate().skip(1) {
            if !self.probes.contains(&n) {
                deafen(&peer.socket);
            }
        }
    }

    /// Clients answer what is not media, and forget the rest.
    fn keep_alive(&mut self) {
        let end = clock::now() + Duration::from_millis(20);
        while clock::now() < end {
            let mut bytes = [0; 2048];
            for peer in &mut self.stage.peers {
                while let Ok((len, source)) = peer.socket.recv_from(&mut bytes) {
                    if bytes[0] < 128 {
                        peer.client.receive(source, &bytes[..len], clock::now());
                    }
                }
                peer.client.drive(clock::now());
                for (to, bytes) in std::mem::take(&mut peer.client.outgoing) {
                    let _ = peer.socket.send_to(&bytes, to);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn measure(&mut self, traffic: Traffic, seconds: f64) -> Measured {
        let schedule = traffic.schedule(seconds);
        let few = usize::from(!matches!(traffic, Traffic::Frames { .. }));
        let datagrams = self.datagrams(few, &schedule);
        let probe = self.stage.peers[self.probes[few]].socket.try_clone().unwrap();
        let socket = self.stage.peers[0].socket.try_clone().unwrap();
        let before = self.stage.node.read(0);
        std::thread::sleep(Duration::from_millis(20));
        let (cpu, sleeps) = (cpu_of(&self.thread), sleeps_of(&self.thread));
        let mut late = Latencies { probe, under_way: VecDeque::new(), found: Vec::new() };
        let begin = clock::now();
        let (mut asked, mut answers) = (None, Vec::new());
        for ((at, _), datagram) in schedule.iter().zip(&datagrams) {
            let due = begin + Duration::from_micros(*at);
            while clock::now() < due {
                late.look();
                self.ask_now_and_then(&mut asked, &mut answers);
            }
            late.under_way.push_back(clock::now());
            socket.send_to(datagram, self.shard).unwrap();
        }
        let end = clock::now() + Duration::from_millis(20);
        while clock::now() < end {
            late.look();
        }
        let (cpu, sleeps) = (cpu_of(&self.thread) - cpu, sleeps_of(&self.thread) - sleeps);
        let after = self.stage.node.read(0);
        let copies = after.meters.packets_out - before.meters.packets_out;
        let expected = datagrams.len() * self.viewers[few];
        assert!(copies as usize > expected * 9 / 10, "{copies} of {expected} copies");
        let (count, sends) = (after.port.datagrams_out, after.port.messages_out);
        let run =
            (count - before.port.datagrams_out) as f64 / (sends - before.port.messages_out) as f64;
        answers.sort_by(f64::total_cmp);
        late.found.sort_by(f64::total_cmp);
        let at = |share: f64| late.found[(late.found.len() as f64 * share) as usize];
        Measured {
            cost: cpu as f64 / 1000.0 / copies as f64,
            sleeps: sleeps as f64 / seconds,
            run,
            p50: at(0.5),
            p99: at(0.99),
            api: answers[answers.len() * 9 / 10],
        }
    }

    /// Asks the shard, as its API would, 100 times a second, and notes how long answers take.
    fn ask_now_and_then(
        &self,
        asked: &mut Option<(Instant, Option<Receiver<Snapshot>>)>,
        answers: &mut Vec<f64>,
    ) {
        let now = clock::now();
        match asked {
            Some((at, answer)) => {
                if answer.as_ref().is_some_and(|answer| answer.try_recv().is_ok()) {
                    answers.push((now - *at).as_secs_f64() * 1e6);
                    *answer = None;
                }
                if answer.is_none() && now - *at > Duration::from_millis(10) {
                    *asked = None;
                }
            }
            None => *asked = Some((now, Some(self.stage.node.begin_reading(0)))),
        }
    }

    /// Sealed by the publisher beforehand.
    fn datagrams(&mut self, track: usize, schedule: &[(u64, bool)]) -> Vec<Vec<u8>> {
        let peer = &mut self.stage.peers[0];
        let pt = peer.client.payload_type(MediaKind::Video);
        let mid = self.sources[track].mid.clone();
        let mut all = Vec::with_capacity(schedule.len());
        for (_, marker) in schedule {
            let [high, low] = (0x8000 | self.pictures & 0x7fff).to_be_bytes();
            let mut payload = vec![0x90, 0x80, high, low, 1];
            payload.resize(DATAGRAM, 0xaa);
            let timestamp = u32::from(self.pictures) * 3000;
            let packet = Packet { timestamp, marker: *marker, payload, descriptor: None };
            peer.client.write(&mid, pt, &packet, clock::now());
            self.pictures = self.pictures.wrapping_add(u16::from(*marker));
            for (to, bytes) in std::mem::take(&mut peer.client.outgoing) {
                if (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1]) {
                    all.push(bytes);
                } else {
                    let _ = peer.socket.send_to(&bytes, to);
                }
            }
        }
        assert_eq!(all.len(), schedule.len());
        all
    }
}

/// Matches what the probe gets with what was sent: loopback neither loses nor reorders here.
struct Latencies {
    probe: UdpSocket,
    under_way: VecDeque<Instant>,
    found: Vec<f64>,
}

impl Latencies {
    fn look(&mut self) {
        let mut bytes = [0; 2048];
        while self.probe.recv(&mut bytes).is_ok() {
            let media = (128..192).contains(&bytes[0]) && !(192..224).contains(&bytes[1]);
            if media && let Some(sent) = self.under_way.pop_front() {
                self.found.push((clock::now() - sent).as_secs_f64() * 1e6);
            }
        }
    }
}

/// The threads of this process.
fn tasks() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| task.unwrap().path().display().to_string()).collect()
}

fn name_of(task: &str) -> String {
    std::fs::read_to_string(format!("{task}/comm")).unwrap_or_default()
}

/// ns on a CPU.
fn cpu_of(task: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{task}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Times it went to sleep by itself.
fn sleeps_of(task: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{task}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Holds one packet, so that the kernel drops at the socket.
fn deafen(socket: &UdpSocket) {
    let size: libc::c_int = 1;
    // SAFETY: a live c_int of the size given.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const size).cast(),
            4,
        )
    };
}
