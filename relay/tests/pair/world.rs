//! Two links, a network that loses, reorders, repeats, changes and delays, and virtual time: one
//! seed, one course of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use relay::link::{Class, Event, Fault, Link, Sink};
use relay::seal::{End, LinkSecret, PairSecret};
use relay::wire::{Clock, DATAGRAM_MAX, Header, LaneId, LinkId, Media};

/// What one direction does to datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) delay: Duration,
    /// Added to each datagram by itself, evenly from nothing on.
    pub(crate) jitter: Duration,
    /// Of each thousand.
    pub(crate) loss: f64,
    /// How many are lost in a row, on average.
    pub(crate) burst: f64,
    pub(crate) duplicate: f64,
    pub(crate) corrupt: f64,
    /// Longer ones do not arrive.
    pub(crate) mtu: usize,
}

impl Path {
    pub(crate) fn new(delay_ms: u64) -> Self {
        Self {
            delay: ms(delay_ms),
            jitter: Duration::from_micros(300),
            loss: 0.0,
            burst: 1.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: usize::MAX,
        }
    }
}

/// SplitMix64: every seed is a good one.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Clock(Clock<Instant>),
    KeyframeRequest(LaneId, u8),
}

/// One end and what its owner knows.
pub(crate) struct Node {
    pub(crate) link: Link,
    /// What this end's clock is ahead of the world's.
    pub(crate) ahead: Duration,
    pub(crate) path: Path,
    bad: bool,
    /// Packets it sent, with the time and the number of times.
    pub(crate) history: BTreeMap<(LaneId, u64), (Instant, Vec<u8>)>,
    pub(crate) resent: u64,
    /// Resent although it had arrived.
    pub(crate) spurious: u64,
    /// What came, and when first.
    pub(crate) delivered: BTreeMap<(LaneId, u64), Instant>,
    pub(crate) got: Vec<Got>,
    pub(crate) faults: Vec<Fault>,
    /// Numbers of datagrams that arrived, and how many of them came after three later ones.
    arrived: BTreeSet<u64>,
    pub(crate) overtaken: u64,
    pub(crate) sent: u64,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) nodes: [Node; 2],
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    serial: u64,
    /// To end a simulation in which time stands still.
    turns_now: u32,
    pub(crate) class: Class,
}

/// The datagrams of one turn.
#[derive(Default)]
pub(crate) struct Out(Vec<Vec<u8>>, Vec<u8>);

impl Sink for Out {
    fn slot(&mut self) -> &mut [u8] {
        self.1.resize(DATAGRAM_MAX, 0);
        &mut self.1
    }

    fn commit(&mut self, len: usize) {
        self.0.push(self.1[..len].to_vec());
    }
}

impl World {
    pub(crate) fn new(seed: u64, path: Path) -> Self {
        Self::skewed(seed, path, Duration::ZERO)
    }

    /// The second node's clock is ahead.
    pub(crate) fn skewed(seed: u64, path: Path, ahead: Duration) -> Self {
        let now = start();
        let (here, there) = ends();
        let node = |here, there, ahead: Duration| Node {
            link: Link::new(LinkSecret::new(PairSecret::new(&[7; 32]), here, there), now + ahead),
            ahead,
            path,
            bad: false,
            history: BTreeMap::new(),
            resent: 0,
            spurious: 0,
            delivered: BTreeMap::new(),
            got: Vec::new(),
            faults: Vec::new(),
            arrived: BTreeSet::new(),
            overtaken: 0,
            sent: 0,
        };
        let mut nodes = [node(here, there, Duration::ZERO), node(there, here, ahead)];
        nodes.iter_mut().for_each(|node| node.link.set_active(true));
        Self {
            now,
            rng: Rng(seed),
            nodes,
            flying: BTreeMap::new(),
            serial: 0,
            turns_now: 0,
            class: Class::Video,
        }
    }

    /// Runs for `span`, the first node sending `pps` packets of `len` bytes on `lane` at random
    /// intervals.
    pub(crate) fn stream(&mut self, span: Duration, lane: LaneId, pps: u64, len: usize) {
        let end = self.now + span;
        while self.now < end {
            let wait = 1e9 / pps as f64 * (0.5 + self.rng.unit());
            self.run((self.now + Duration::from_nanos(wait as u64)).min(end));
            self.send(0, lane, len);
        }
    }

    /// One packet from a node, and its turn.
    pub(crate) fn send(&mut self, from: usize, lane: LaneId, len: usize) {
        let seq = self.nodes[from].history.len() as u64 + (1 << 32);
        let mut payload = vec![seq as u8; len];
        let stamp = seq.to_be_bytes();
        let stamped = len.min(8);
        payload[..stamped].copy_from_slice(&stamp[..stamped]);
        self.nodes[from].history.insert((lane, seq), (self.now, payload));
        self.turn(from, Some((lane, seq)));
    }

    /// Lets all happen that is due until `end`.
    pub(crate) fn run(&mut self, end: Instant) {
        loop {
            let arrival = self.flying.first_key_value().map(|(&(at, _), _)| at);
            let due = |n: usize| {
                let node = &self.nodes[n];
                node.link.timeout().map(|at| (at - node.ahead, n))
            };
            let due = due(0).into_iter().chain(due(1)).min();
            match (arrival, due) {
                (Some(at), due) if at <= end && due.is_none_or(|(due, _)| at <= due) => {
                    self.advance(at);
                    self.deliver();
                }
                (_, Some((at, n))) if at <= end => {
                    self.advance(at);
                    self.turn(n, None);
                }
                _ => break,
            }
        }
        self.advance(end);
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run(self.now + span);
    }

    /// Puts a datagram on its way as if `to`'s other end had sent it.
    pub(crate) fn inject(&mut self, to: usize, bytes: Vec<u8>) {
        self.serial += 1;
        self.flying.insert((self.now, self.serial), (to, bytes));
    }

    /// What is on its way to a node.
    pub(crate) fn flying_to(&self, to: usize) -> Vec<Vec<u8>> {
        self.flying.values().filter(|(at, _)| *at == to).map(|(_, bytes)| bytes.clone()).collect()
    }

    fn advance(&mut self, at: Instant) {
        if at > self.now {
            (self.now, self.turns_now) = (at, 0);
        }
        self.turns_now += 1;
        assert!(self.turns_now < 10_000, "time stands still");
    }

    fn deliver(&mut self) {
        let Some((_, (to, mut bytes))) = self.flying.pop_first() else { return };
        let (now, node) = (self.now, &mut self.nodes[to]);
        if let Ok(Header { number, .. }) = Header::parse(&bytes) {
            node.overtaken += u64::from(node.arrived.range(number + 1..).take(3).count() == 3);
            node.arrived.insert(number);
        }
        let (delivered, got, ahead) = (&mut node.delivered, &mut node.got, node.ahead);
        let done = node.link.handle_datagram(now + ahead, &mut bytes, |event| match event {
            Event::Media { media, .. } => {
                let stamp = media.seq.to_be_bytes();
                let stamped = media.payload.len().min(8);
                assert_eq!(media.payload[..stamped], stamp[..stamped], "it is what was sent");
                assert_eq!(media.timestamp, media.seq as u32);
                let again = delivered.insert((media.lane, media.seq), now);
                assert_eq!(again, None, "a packet is delivered once");
            }
            Event::Clock(clock) => got.push(Got::Clock(clock)),
            Event::KeyframeRequest { lane, layer } => got.push(Got::KeyframeRequest(lane, layer)),
        });
        match done {
            Ok(()) => self.turn(to, None),
            Err(fault) => {
                node.faults.push(fault);
            }
        }
    }

    /// A whole turn of one node, as its owner would do it.
    pub(crate) fn turn(&mut self, from: usize, packet: Option<(LaneId, u64)>) {
        let class = self.class;
        self.act(from, |node, now, out| {
            let Some(key) = packet else { return };
            let (_, payload) = &node.history[&key];
            node.link.push(now, &media(key, payload), class, out);
        });
    }

    /// A turn in which the owner does something besides.
    pub(crate) fn act(&mut self, from: usize, act: impl FnOnce(&mut Node, Instant, &mut Out)) {
        let [a, b] = &mut self.nodes;
        let (node, other) = if from == 0 { (a, b) } else { (b, a) };
        let now = self.now + node.ahead;
        let mut out = Out::default();
        node.link.handle_timeout(now);
        while let Some(lost) = node.link.poll_resend(now) {
            let key = (lost.lane, lost.seq);
            let Some((_, payload)) = node.history.get(&key) else { continue };
            node.resent += 1;
            node.spurious += u64::from(other.delivered.contains_key(&key));
            node.link.resend(now, lost, &media(key, payload), &mut out);
        }
        act(node, now, &mut out);
        node.link.flush(now, &mut out);
        for bytes in out.0 {
            self.carry(from, bytes);
        }
    }

    fn carry(&mut self, from: usize, mut bytes: Vec<u8>) {
        let Self { rng, nodes, .. } = self;
        let node = &mut nodes[from];
        let path = node.path;
        node.sent += 1;
        // Gilbert's model: a bad state in which everything is lost.
        let leaves_bad = 1.0 / path.burst;
        let enters_bad = path.loss * leaves_bad / (1.0 - path.loss);
        node.bad = if node.bad && path.burst > 1.0 {
            rng.unit() >= leaves_bad
        } else {
            rng.unit() < if path.burst > 1.0 { enters_bad } else { path.loss }
        };
        if node.bad || bytes.len() > path.mtu {
            return;
        }
        if rng.unit() < path.corrupt {
            let bit = rng.next() as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = 1 + usize::from(rng.unit() < path.duplicate);
        for _ in 0..copies {
            let at = self.now + path.delay + path.jitter.mul_f64(self.rng.unit());
            self.serial += 1;
            self.flying.insert((at, self.serial), (1 - from, bytes.clone()));
        }
    }
}

pub(crate) fn media((lane, seq): (LaneId, u64), payload: &[u8]) -> Media<'_> {
    Media {
        lane,
        layer: 0,
        codec: 0,
        marker: false,
        keyframe: false,
        padding: 0,
        source: 1,
        seq,
        timestamp: seq as u32,
        extensions: &[],
        payload,
    }
}

pub(crate) fn ends() -> (End, End) {
    let link = |id| LinkId::new(id).unwrap();
    (End { node: 1, shard: 2, link: link(3) }, End { node: 4, shard: 5, link: link(6) })
}

/// Some beginning of time, the same for all tests.
#[expect(clippy::disallowed_methods, reason = "tests need some beginning of time")]
pub(crate) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(|| Instant::now() + Duration::from_secs(1 << 20))
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
