//! What a link between two nodes costs per packet, against the sealing and opening it cannot do
//! without.
//!
//! Two links in one thread: each turn one pushes packets and flushes, the other receives what
//! came out, and reports go back as they are due. CPU time of the thread in ns per packet, both
//! ends together: medians over interleaved rounds, and the median of the rounds' ratios. Bare:
//! AES-128-GCM over datagrams of the same number and lengths, out of place and then in place, as
//! the links do it.
//!
//! `cargo bench --bench relay [-- --quick]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::{clock_cost, median, pin, spent};
use relay::link::{Class, Event, Link, Sink};
use relay::seal::{End, LinkSecret, PairSecret};
use relay::wire::{DATAGRAM_MAX, HEADER_LEN, LaneId, LinkId, Media, OVERHEAD};

/// A packet may cost this much more than its sealing and opening.
const TARGET: f64 = 1.3;

/// Packets in one round of either side, about.
const PACKETS: usize = 4096;

/// Packets that one end sends before the other receives, and that are timed at once: what fits
/// the arena of an outbox.
const BATCH: usize = 64;

/// Packets of so many bytes of payload, so many in a turn.
const LOADS: [(usize, usize); 6] =
    [(1200, 1), (1200, 4), (1200, 16), (120, 1), (120, 4), (120, 16)];

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 9 } else { 61 };
    pin(1);
    let clock = clock_cost();
    println!("a link, both ends; ns of CPU per packet, median of {rounds} rounds\n");
    println!(
        "{:>7} {:>6} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "payload", "burst", "datagrams", "bare", "send", "receive", "both", "ratio"
    );
    let mut worst: f64 = 0.0;
    for (payload, burst) in LOADS {
        let [bare, send, receive, ratio, datagrams] = measure(payload, burst, rounds, clock);
        worst = worst.max(ratio);
        let verdict = if ratio <= TARGET { "PASS" } else { "over" };
        println!(
            "{payload:>7} {burst:>6} {datagrams:>10.2} {bare:>8.0} {send:>8.0} {receive:>8.0} \
             {:>8.0}   ×{ratio:<5.2} {verdict}",
            send + receive
        );
    }
    let verdict = if worst <= TARGET { "within" } else { "BEYOND" };
    println!("\ndatagrams: so many per packet");
    println!("worst ratio ×{worst:.2}, {verdict} the target of ×{TARGET}");
}

/// Bare, sending, receiving, ratio, and datagrams per packet.
fn measure(payload: usize, burst: usize, rounds: usize, clock: f64) -> [f64; 5] {
    let mut pair = Pair::new(payload);
    let mut bare = Bare::new();
    // Until the tables are as large as they will be.
    for _ in 0..4 * PACKETS / burst {
        pair.turn(burst);
    }
    let turns = PACKETS / burst;
    let batch = BATCH / burst;
    let packets = PACKETS as f64;
    let mut costs: [Vec<f64>; 4] = Default::default();
    let mut datagrams = 0.0;
    for _ in 0..rounds {
        let lens = pair.shape(burst);
        datagrams = lens.len() as f64 / burst as f64;
        let (mut sealed, mut sent, mut received) = (0.0, 0.0, 0.0);
        for _ in 0..turns / batch {
            sealed += spent(|| bare.turns(&lens, batch)) - clock;
            sent += spent(|| (0..batch).for_each(|_| pair.send(burst))) - clock;
            received += spent(|| pair.receive()) - clock;
        }
        costs[0].push(sealed / packets);
        costs[1].push(sent / packets);
        costs[2].push(received / packets);
        costs[3].push((sent + received) / sealed);
    }
    let [bare, send, receive, ratio] = costs.map(|mut costs| median(&mut costs));
    [bare, send, receive, ratio, datagrams]
}

/// Two links, and what one has sent to the other.
struct Pair {
    links: [Link; 2],
    lane: LaneId,
    arenas: [Arena; 2],
    payload: Vec<u8>,
    seq: u64,
    now: Instant,
    delivered: u64,
}

/// Datagrams back to back, as they lie in the buffer that the kernel gets.
struct Arena {
    bytes: Box<[u8]>,
    used: usize,
    lens: Vec<usize>,
}

impl Arena {
    fn new() -> Self {
        Self { bytes: vec![0; 160 << 10].into_boxed_slice(), used: 0, lens: Vec::new() }
    }
}

impl Sink for Arena {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..][..DATAGRAM_MAX]
    }

    fn commit(&mut self, len: usize) {
        self.used += len;
        self.lens.push(len);
    }
}

impl Pair {
    fn new(payload: usize) -> Self {
        let link = |id| LinkId::new(id).expect("24 bits");
        let here = End { node: 1, shard: 2, link: link(3) };
        let there = End { node: 4, shard: 5, link: link(6) };
        let secret = |here, there| LinkSecret::new(PairSecret::new(&[7; 32]), here, there);
        let now = Instant::now();
        let mut links =
            [secret(here, there), secret(there, here)].map(|secret| Link::new(secret, now));
        links.iter_mut().for_each(|link| link.set_active(true));
        let lane = links[1].open_lane().expect("the first");
        Self {
            links,
            lane,
            arenas: [Arena::new(), Arena::new()],
            payload: vec![0xaa; payload],
            seq: 0,
            now,
            delivered: 0,
        }
    }

    /// One turn of the sending end.
    fn send(&mut self, burst: usize) {
        self.now += Duration::from_micros(100) * burst as u32;
        let [link, _] = &mut self.links;
        let [arena, _] = &mut self.arenas;
        link.handle_timeout(self.now);
        for _ in 0..burst {
            self.seq += 1;
            let media = Media {
                lane: self.lane,
                layer: 0,
                codec: 0,
                marker: false,
                keyframe: false,
                padding: 0,
                source: 1,
                seq: self.seq,
                timestamp: self.seq as u32,
                extensions: &[],
                payload: black_box(&self.payload),
            };
            link.push(self.now, &media, Class::Video, arena);
        }
        link.flush(self.now, arena);
    }

    /// The receiving end takes all that was sent; what it reports goes back.
    fn receive(&mut self) {
        let now = self.now;
        let [sender, receiver] = &mut self.links;
        let [there, back] = &mut self.arenas;
        let mut at = 0;
        for len in there.lens.drain(..) {
            let datagram = &mut there.bytes[at..at + len];
            at += len;
            let taken = receiver.handle_datagram(now, datagram, |event| {
                if let Event::Media { media, .. } = event {
                    self.delivered += u64::from(black_box(media.payload)[0]);
                }
            });
            taken.expect("authentic and in order");
        }
        there.used = 0;
        receiver.handle_timeout(now);
        receiver.flush(now, back);
        let mut at = 0;
        for len in back.lens.drain(..) {
            let datagram = &mut back.bytes[at..at + len];
            at += len;
            sender.handle_datagram(now, datagram, |_| ()).expect("authentic and in order");
        }
        back.used = 0;
    }

    fn turn(&mut self, burst: usize) {
        self.send(burst);
        self.receive();
    }

    /// The lengths of one turn's datagrams.
    fn shape(&mut self, burst: usize) -> Vec<usize> {
        self.send(burst);
        let lens = self.arenas[0].lens.clone();
        self.receive();
        lens
    }
}

/// Sealing and opening, and nothing else.
struct Bare {
    key: LessSafeKey,
    text: Vec<u8>,
    arena: Box<[u8]>,
    number: u64,
}

impl Bare {
    fn new() -> Self {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes");
        Self {
            key: LessSafeKey::new(key),
            text: vec![0xaa; DATAGRAM_MAX],
            arena: vec![0; 160 << 10].into_boxed_slice(),
            number: 0,
        }
    }

    /// Fills the arena with so many turns' datagrams, and empties it.
    fn turns(&mut self, lens: &[usize], turns: usize) {
        let lens = || (0..turns).flat_map(|_| lens.iter().copied());
        let (mut at, first) = (0, self.number);
        for len in lens() {
            let (header, body) = self.arena[at..at + len].split_at_mut(HEADER_LEN);
            at += len;
            let text = len - OVERHEAD;
            let (sealed, tag) = body.split_at_mut(text);
            let (nonce, aad) = (nonce(self.number), Aad::from(&*header));
            let text = &self.text[..text];
            let done = self.key.seal_out_of_place_scatter(nonce, aad, text, sealed, &[], tag);
            done.expect("a short text");
            self.number += 1;
        }
        let (mut at, mut number) = (0, first);
        for len in lens() {
            let (header, body) = self.arena[at..at + len].split_at_mut(HEADER_LEN);
            at += len;
            let (sealed, tag) = body.split_at_mut(len - OVERHEAD);
            let (nonce, aad) = (nonce(number), Aad::from(&*header));
            let opened = self.key.open_in_place_separate_tag(nonce, aad, tag, sealed);
            black_box(opened.expect("what was sealed"));
            number += 1;
        }
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
