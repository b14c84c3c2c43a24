//! What a forwarded copy costs, against the bare sealing it cannot do without.
//!
//! One publisher, real sessions, [`Engine::spread`] into an outbox that is cleared instead of
//! sent. CPU time of the thread in ns per copy: medians over interleaved rounds, and the median
//! of the rounds' ratios. Bare: a loop of `Sealer::seal_rtp` over as many keys, packets of the
//! same size, behind headers that are in their slots already.
//!
//! Then frames cut as libwebrtc cuts them, sealed for as many and sent over loopback by the ring
//! port, with and without the padding that makes their packets equally long.
//!
//! `cargo bench --bench fanout [-- --quick]`
//!
//! [`Engine::spread`]: shards::engine::Engine::spread

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::stage::{Stage, Track, shard_address};
use common::{clock_cost, median, pin, spent};
use shards::engine::Progress;
use shards::io::port::{self, Port, PortKind};
use shards::io::socket::Sockets;
use shards::media::srtp::{KeyingMaterial, Profile, Sealer};
use shards::outbox::{CAPACITY, Destination, MAX_DATAGRAM, Outbox};

const SUBSCRIBERS: [usize; 4] = [1, 50, 200, 500];
/// At the largest number of subscribers a copy may cost this much more than its sealing.
const TARGET: f64 = 1.3;
/// The fixed header and one-byte elements with transport-wide number and send time.
const HEADER: usize = 12 + 4 + 8;
/// Turns of either side in a round; one more goes before to warm the caches.
const TURNS: usize = 4;

/// A kind of turn.
struct Load {
    track: Track,
    /// Bytes of a datagram that leaves.
    datagram: usize,
    run: usize,
    /// Picture ids differ from the publisher's.
    renumbered: bool,
}

impl Load {
    const fn new(track: Track, datagram: usize, run: usize) -> Self {
        Self { track, datagram, run, renumbered: false }
    }

    const fn renumbered(run: usize) -> Self {
        Self { track: Track::Vp8, datagram: 1200, run, renumbered: true }
    }

    fn name(&self) -> String {
        let mark = if self.renumbered { "*" } else { "" };
        format!("{}{mark}", self.track.name())
    }
}

const LOADS: [Load; 10] = [
    Load::new(Track::H264, 1200, 1),
    Load::new(Track::H264, 1200, 4),
    Load::new(Track::H264, 1200, 10),
    Load::new(Track::Vp8, 1200, 1),
    Load::new(Track::Vp8, 1200, 4),
    Load::new(Track::Vp8, 1200, 10),
    Load::renumbered(1),
    Load::renumbered(4),
    Load::renumbered(10),
    Load::new(Track::Opus, 120, 1),
];

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 9 } else { 61 };
    pin(1);
    let clock = clock_cost();
    println!("one publisher to N subscribers; ns of CPU per copy, median of {rounds} rounds\n");
    println!(
        "{:>5} {:>6} {:>6} {:>4} {:>8} {:>8} {:>7}  {:>16}",
        "N", "codec", "bytes", "run", "bare", "spread", "ratio", "ingest ns/packet"
    );
    let mut stage = Stage::new(1);
    let mut connected = 0;
    let mut worst: f64 = 0.0;
    for subscribers in SUBSCRIBERS {
        stage.subscribe(0, subscribers - connected);
        connected = subscribers;
        for track in Track::ALL {
            assert_eq!(stage.flow(track), subscribers, "everybody is served");
        }
        let mut bare = Bare::new(subscribers);
        for load in &LOADS {
            if load.renumbered {
                stage.jump_pictures();
            }
            let [sealed, copied, ratio, ingest] =
                measure(&mut stage, &mut bare, load, rounds, clock);
            if load.renumbered {
                stage.jump_pictures();
            }
            let verdict = match subscribers {
                500 if ratio <= TARGET => "PASS",
                500 => "over",
                _ => "",
            };
            if subscribers == 500 {
                worst = worst.max(ratio);
            }
            // Reading the clock costs as much as one copy: only what was ingested is told.
            let row = if subscribers == 1 {
                format!("{:>8} {:>8}  {:>6}", "-", "-", "-")
            } else {
                format!("{sealed:>8.0} {copied:>8.0}   ×{ratio:<5.2}")
            };
            println!(
                "{subscribers:>5} {:>6} {:>6} {:>4} {row} {ingest:>16.0}  {verdict}",
                load.name(),
                load.datagram,
                load.run,
            );
        }
    }
    let verdict = if worst <= TARGET { "within" } else { "BEYOND" };
    println!("\n* another encoder than at the subscribers' start: picture ids must be rewritten");
    println!("worst ratio at 500 subscribers ×{worst:.2}, {verdict} the target of ×{TARGET}");
    frames(&mut stage, rounds, clock);
}

/// Frames in payloads about equally long, the last few one byte longer: how many of either.
const FRAMES: [(usize, usize); 5] = [(1, 1), (2, 1), (4, 5), (8, 1), (12, 13)];
const SHORTER: usize = 1155;

/// Sealing and sending frames with and without padding: ns per packet, and packets per send.
fn frames(stage: &mut Stage, rounds: usize, clock: f64) {
    let subscribers = SUBSCRIBERS[SUBSCRIBERS.len() - 1];
    println!("\nframes of nearly equal packets, sealed and sent to {subscribers}, ns per packet");
    println!(
        "{:>8} {:>16} {:>16} {:>7}  engine's run",
        "packets", "as cut, run", "padded, run", "ratio"
    );
    let mut bare = Bare::new(subscribers);
    let peers: Vec<UdpSocket> = (0..subscribers).map(|_| deaf_peer()).collect();
    let remotes: Vec<_> = peers.iter().map(|peer| peer.local_addr().expect("bound")).collect();
    let address = "127.0.0.1:0".parse().expect("an address");
    let sockets = Sockets::bind(&[address]).expect("a free port");
    let port = port::open(PortKind::Ring, sockets);
    let mut port = port.unwrap_or_else(|(refused, _)| panic!("{refused}"));
    let mut outbox = Outbox::new(CAPACITY);
    for (short, long) in FRAMES {
        let cut = [vec![SHORTER; short], vec![SHORTER + 1; long]].concat();
        let padded = vec![SHORTER + 1; short + long];
        let copies = (subscribers * cut.len()) as f64;
        let mut costs: [Vec<f64>; 3] = Default::default();
        let mut runs = [0.0; 2];
        for round in 0..rounds + 1 {
            let mut both = [0.0; 2];
            for (n, lens) in [&cut, &padded].into_iter().enumerate() {
                let mut sends = 0;
                let work = || sends = bare.send(lens, &remotes, &mut outbox, &mut *port);
                both[n] = (spent(work) - clock) / copies;
                runs[n] = copies / sends as f64;
            }
            if round > 0 {
                costs[0].push(both[0]);
                costs[1].push(both[1]);
                costs[2].push(both[1] / both[0]);
            }
        }
        let [as_cut, padded, ratio] = costs.map(|mut costs| median(&mut costs));
        println!(
            "{:>8} {as_cut:>9.0} {:>6.1} {padded:>9.0} {:>6.1}  ×{ratio:<5.2} {:>9.1}",
            cut.len(),
            runs[0],
            runs[1],
            engines_run(stage, &cut)
        );
    }
}

/// Packets per send that the engine makes of such a frame.
fn engines_run(stage: &mut Stage, lens: &[usize]) -> f64 {
    let mut outbox = Outbox::new(CAPACITY);
    let (source, now) = (stage.publisher_address(), stage.now);
    for mut packet in stage.packets_of(Track::H264, lens, false) {
        stage.engines[0].handle_datagram(source, shard_address(0), &mut packet, now);
    }
    let (mut datagrams, mut sends) = (0, 0);
    loop {
        let progress = stage.engines[0].spread(&mut outbox, now);
        datagrams += outbox.datagrams();
        sends += outbox.sends().count();
        outbox.clear();
        if progress == Progress::Done {
            return datagrams as f64 / sends as f64;
        }
    }
}

/// A peer whose receive buffer holds nothing, so that the kernel drops at the socket.
fn deaf_peer() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let size: libc::c_int = 1;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: a live c_int of the size given.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const size).cast(), 4) };
    socket
}

/// Bare sealing and spread per copy, their ratio, and ingest per packet.
fn measure(stage: &mut Stage, bare: &mut Bare, load: &Load, rounds: usize, clock: f64) -> [f64; 4] {
    let mut outbox = Outbox::new(CAPACITY);
    let payload = load.track.usual_len();
    let source = stage.publisher_address();
    let copies = (bare.sealers.len() * load.run) as f64;
    let mut costs: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        let (mut sealed, mut copied, mut ingested) = (0.0, 0.0, 0.0);
        for turn in 0..=TURNS {
            let cost = spent(|| bare.turn(payload, load.run)) - clock;
            sealed += if turn > 0 { cost } else { 0.0 };
        }
        for turn in 0..=TURNS {
            let mut packets = stage.packets(load.track, load.run, payload, false);
            stage.now += Duration::from_millis(5);
            let (now, engine) = (stage.now, &mut stage.engines[0]);
            let ingest = spent(|| {
                for packet in &mut packets {
                    engine.handle_datagram(source, shard_address(0), packet, now);
                }
            }) - clock;
            let before = engine.meters().packets_out;
            let cost = spent(|| {
                while engine.spread(&mut outbox, now) == Progress::More {
                    outbox.clear();
                }
            }) - clock;
            assert_eq!(engine.meters().packets_out - before, copies as u64);
            let last = outbox.sends().last().expect("something was sent");
            assert_eq!(last.segment, load.datagram);
            outbox.clear();
            if turn > 0 {
                copied += cost;
                ingested += ingest;
            }
        }
        let turns = TURNS as f64;
        costs[0].push(sealed / turns / copies);
        costs[1].push(copied / turns / copies);
        costs[2].push(copied / sealed);
        costs[3].push(ingested / turns / load.run as f64);
    }
    costs.map(|mut costs| median(&mut costs))
}

/// Sealing and nothing else.
struct Bare {
    sealers: Vec<Sealer>,
    arena: Box<[u8]>,
    payload: Vec<u8>,
    index: u64,
}

impl Bare {
    fn new(keys: usize) -> Self {
        let profile = Profile::AeadAes256Gcm;
        let sealer = |n: usize| {
            let mut bytes = vec![0x5a; profile.keying_material_len()];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            let material = KeyingMaterial::new(profile, &bytes).expect("the right length");
            Sealer::new(&material.split(true).0)
        };
        Self {
            sealers: (0..keys).map(sealer).collect(),
            arena: vec![0; CAPACITY + MAX_DATAGRAM].into_boxed_slice(),
            payload: vec![0xaa; MAX_DATAGRAM * 10],
            index: 0,
        }
    }

    /// Fills and empties the arena as an outbox is.
    fn turn(&mut self, payload: usize, run: usize) {
        let mut used = 0;
        for sealer in &self.sealers {
            for (n, text) in self.payload.chunks_exact(payload).take(run).enumerate() {
                if used + MAX_DATAGRAM > CAPACITY {
                    used = 0;
                }
                let slot = &mut self.arena[used..used + MAX_DATAGRAM];
                used += sealer.seal_rtp(slot, HEADER, text, 1, self.index + n as u64);
            }
        }
        self.index += run as u64;
    }
    /// Seals a frame for everybody and hands it to the kernel; how many sends it took.
    fn send(
        &mut self,
        lens: &[usize],
        remotes: &[SocketAddr],
        outbox: &mut Outbox,
        port: &mut dyn Port,
    ) -> usize {
        let mut sends = 0;
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        for (sealer, &remote) in self.sealers.iter().zip(remotes) {
            if outbox.room() < lens.len() {
                sends += outbox.sends().count();
                port.send(outbox);
                outbox.clear();
            }
            let mut lane = outbox.lane(Destination { remote, local });
            for (n, &len) in lens.iter().enumerate() {
                let index = self.index + n as u64;
                let len = sealer.seal_rtp(lane.slot(), HEADER, &self.payload[..len], 1, index);
                lane.commit(len);
            }
        }
        self.index += lens.len() as u64;
        sends += outbox.sends().count();
        port.send(outbox);
        outbox.clear();
        sends
    }
}
