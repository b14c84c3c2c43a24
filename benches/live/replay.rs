//! The floor: the server's own recorded sends once more, as bare seals and bare `sendmmsg` with
//! GSO, to the same sockets, which are looked at as before.
//!
//! Sizes, runs, order, destinations and times are those of the recording. Each datagram is
//! sealed once, under a key of its destination's own, from a plaintext they share. Its first
//! byte is none that a peer knows, so that it is dropped when it has been received.
//!
//! Only sealing and sending are counted, by this thread's CPU time around either: building
//! headers, and sleeping until a turn is due, are not. So the floor is lower than any program
//! could be.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use loadgen::conduct::Window;
use shards::io::clock;
use shards::io::record::{Recording, Sent};
use shards::media::srtp::{KeyingMaterial, Profile, Sealer};
use shards::outbox::{Destination, Send};

use crate::common::bare::Headers;
use crate::common::{clock_cost, pin};

/// Of the multiplexed protocols, none: the first byte of what is to be dropped.
const NOBODYS: u8 = 0xC0;

/// The fixed header and one-byte elements with transport-wide number and send time.
const HEADER: usize = 12 + 4 + 8;

/// What browsers negotiate with the server, and so do the generator's peers.
pub(crate) const PROFILE: Profile = Profile::AeadAes256Gcm;

/// CPU time of a replay.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floor {
    pub(crate) seal_ns: f64,
    pub(crate) send_ns: f64,
    /// All of the thread: with building headers and sleeping.
    pub(crate) thread_ns: f64,
    pub(crate) turns: usize,
    pub(crate) sends: usize,
    pub(crate) datagrams: usize,
    /// Datagrams of video size, and in how many sends they went.
    pub(crate) large: usize,
    pub(crate) large_sends: usize,
    /// Datagrams the kernel did not take.
    pub(crate) refused: usize,
}

impl Floor {
    pub(crate) fn ns(&self) -> f64 {
        self.seal_ns + self.send_ns
    }
}

/// Above this it is video: sound is 120 bytes, reports less.
const LARGE: u16 = 500;

/// Replays on `cpu` what was sent in `window`, in real time.
pub(crate) fn replay(recording: &Recording, window: Window, cpu: usize) -> Floor {
    pin(cpu);
    let in_window =
        |sent: &&Sent| (window.from..window.to).contains(&(recording.unix + sent.nanos));
    let sends: Vec<Sent> = recording.sends.iter().filter(in_window).copied().collect();
    let Some(first) = sends.first() else { return Floor::default() };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let keys = Keys::new(&sends);
    let size = |turn: &[Sent]| turn.iter().flat_map(Sent::lens).sum::<usize>();
    let largest = sends.chunk_by(is_same_turn).map(size).max().unwrap_or(0);
    let mut arena = vec![0; largest];
    let clock_ns = clock_cost();
    let mut floor = Floor::default();
    let (begin, cpu_before) = (clock::now(), clock::thread_cpu());
    let mut at = 0;
    for turn in sends.chunk_by(is_same_turn) {
        let mut headers = headers(turn, &arena);
        let due = begin + Duration::from_nanos(turn[0].nanos - first.nanos);
        std::thread::sleep(due.saturating_duration_since(clock::now()));
        let before = clock::thread_cpu();
        keys.seal(turn, at, &mut arena);
        let sealed = clock::thread_cpu();
        floor.refused += headers.send(&socket);
        let sent = clock::thread_cpu();
        floor.seal_ns += (sealed - before).as_nanos() as f64 - clock_ns;
        floor.send_ns += (sent - sealed).as_nanos() as f64 - clock_ns;
        floor.turns += 1;
        at += turn.len();
    }
    floor.thread_ns = (clock::thread_cpu() - cpu_before).as_nanos() as f64;
    floor.sends = sends.len();
    floor.datagrams = sends.iter().map(|sent| usize::from(sent.count)).sum();
    let large = || sends.iter().filter(|sent| sent.segment >= LARGE);
    floor.large = large().map(|sent| usize::from(sent.count)).sum();
    floor.large_sends = large().count();
    floor
}

/// Sends handed over together.
fn is_same_turn(one: &Sent, next: &Sent) -> bool {
    one.nanos == next.nanos
}

fn headers(turn: &[Sent], arena: &[u8]) -> Headers {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut rest = arena;
    Headers::new(turn.iter().map(|sent| {
        let bytes = rest.split_off(..sent.lens().sum::<usize>()).expect("room for any turn");
        Send {
            to: Destination { remote: sent.to, local },
            bytes,
            segment: usize::from(sent.segment),
            count: usize::from(sent.count),
        }
    }))
}

/// A key for each destination.
struct Keys {
    sealers: Vec<Sealer>,
    /// For each send, whose.
    whose: Vec<u32>,
    plaintext: Vec<u8>,
}

impl Keys {
    fn new(sends: &[Sent]) -> Self {
        let (mut numbers, mut sealers) = (HashMap::new(), Vec::new());
        let mut number = |to: SocketAddr| {
            *numbers.entry(to).or_insert_with(|| {
                sealers.push(sealer(sealers.len()));
                sealers.len() as u32 - 1
            })
        };
        let whose = sends.iter().map(|sent| number(sent.to)).collect();
        Self { sealers, whose, plaintext: vec![7; usize::from(u16::MAX)] }
    }

    /// Fills the arena with the sends of a turn, the `first` of all sends and the next.
    fn seal(&self, turn: &[Sent], first: usize, arena: &mut [u8]) {
        let (mut rest, whose) = (arena, &self.whose[first..]);
        for (n, sent) in turn.iter().enumerate() {
            if let Some(next) = whose.get(n + 1) {
                self.sealers[*next as usize].prefetch();
            }
            let sealer = &self.sealers[whose[n] as usize];
            let mut index = (first + n) as u64 * u64::from(u16::MAX);
            for len in sent.lens() {
                let out = rest.split_off_mut(..len).expect("room for any turn");
                out[0] = NOBODYS;
                index += 1;
                // What is shorter is a check's answer, which is not sealed by SRTP either.
                if let Some(payload) = len.checked_sub(HEADER + sealer.rtp_overhead()) {
                    sealer.seal_rtp(out, HEADER, &self.plaintext[..payload], 1, index);
                }
            }
        }
    }
}

fn sealer(number: usize) -> Sealer {
    let mut bytes = vec![3; PROFILE.keying_material_len()];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let material = KeyingMaterial::new(PROFILE, &bytes).expect("as long as it must be");
    Sealer::new(&material.split(true).0)
}
