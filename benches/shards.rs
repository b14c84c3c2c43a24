//! What a second shard costs: the same fan-out with all subscribers on the publisher's shard,
//! and with half of them on another, to which its packets go by mail through the real rings.
//!
//! Both shards run in this thread, one after the other, so that their CPU times add up. What
//! moving cache lines between cores costs is not in the figures; waking is in `port`'s.
//!
//! `cargo bench --bench shards [-- --quick]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;

use std::time::Duration;

use common::stage::{Stage, Track, shard_address};
use common::{clock_cost, median, pin, spent};
use shards::engine::{Engine, Progress};
use shards::mail::Mail;
use shards::mesh::{Seat, seats};
use shards::outbox::{CAPACITY, Outbox};

const SUBSCRIBERS: usize = 200;
/// What a copy may cost more when its subscriber lives on another shard.
const TARGET: f64 = 1.05;
/// Turns of either stage in a round; one more goes before to warm the caches.
const TURNS: usize = 4;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 9 } else { 61 };
    pin(1);
    let clock = clock_cost();
    let mut one = House::new(&[SUBSCRIBERS]);
    let mut two = House::new(&[SUBSCRIBERS / 2; 2]);
    println!("{SUBSCRIBERS} subscribers; ns of CPU, median of {rounds} rounds\n");
    println!(
        "{:>6} {:>4} {:>12} {:>12} {:>7} {:>12}",
        "codec", "run", "one shard", "two shards", "ratio", "ns per mail"
    );
    let mut worst: f64 = 0.0;
    for (track, run) in
        [(Track::H264, 1), (Track::H264, 4), (Track::H264, 10), (Track::Vp8, 4), (Track::Opus, 1)]
    {
        let copies = (SUBSCRIBERS * run) as f64;
        let mut costs: [Vec<f64>; 4] = Default::default();
        for _ in 0..rounds {
            let here = one.round(track, run, clock);
            let spread = two.round(track, run, clock);
            costs[0].push(here.copies / copies);
            costs[1].push(spread.copies / copies);
            costs[2].push(spread.copies / here.copies);
            costs[3].push(spread.mail);
        }
        let [one, two, ratio, mail] = costs.map(|mut costs| median(&mut costs));
        worst = worst.max(ratio);
        println!(
            "{:>6} {run:>4} {one:>12.0} {two:>12.0}   ×{ratio:<5.2} {mail:>11.0}",
            track.name()
        );
    }
    let verdict = if worst <= TARGET { "within" } else { "BEYOND" };
    println!("\ncolumns 3 and 4: per copy, mail included; one message per track, shard and turn");
    println!("worst ratio ×{worst:.2}, {verdict} the target of ×{TARGET}");
}

/// What a turn took, in ns.
struct Cost {
    /// All of it but ingest.
    copies: f64,
    /// From one engine through the ring into the other.
    mail: f64,
}

struct House {
    stage: Stage,
    seats: Vec<Seat>,
    outbox: Outbox,
}

impl House {
    /// So many subscribers on each shard.
    fn new(subscribers: &[usize]) -> Self {
        let mut stage = Stage::new(subscribers.len());
        for (shard, &count) in subscribers.iter().enumerate() {
            stage.subscribe(shard, count);
        }
        let total = subscribers.iter().sum::<usize>();
        for track in Track::ALL {
            assert_eq!(stage.flow(track), total, "everybody is served");
        }
        let seats = seats(subscribers.len()).expect("bells");
        Self { stage, seats, outbox: Outbox::new(CAPACITY) }
    }

    fn round(&mut self, track: Track, run: usize, clock: f64) -> Cost {
        let mut sum = Cost { copies: 0.0, mail: 0.0 };
        for turn in 0..=TURNS {
            let cost = self.turn(track, run, clock);
            if turn > 0 {
                sum.copies += cost.copies / TURNS as f64;
                sum.mail += cost.mail / TURNS as f64;
            }
        }
        sum
    }

    fn turn(&mut self, track: Track, run: usize, clock: f64) -> Cost {
        let source = self.stage.publisher_address();
        let mut packets = self.stage.packets(track, run, track.usual_len(), false);
        self.stage.now += Duration::from_millis(5);
        let now = self.stage.now;
        for packet in &mut packets {
            self.stage.engines[0].handle_datagram(source, shard_address(0), packet, now);
        }
        let (outbox, engines) = (&mut self.outbox, &mut self.stage.engines);
        let before: u64 = engines.iter().map(|engine| engine.meters().packets_out).sum();
        let (mut copies, mut mail) = (0.0, 0.0);
        copies += spent(|| spread(&mut engines[0], outbox, now)) - clock;
        if let [first, second] = &mut engines[..] {
            let mut count = 0;
            mail = spent(|| {
                for (to, mail) in first.poll_mail() {
                    self.seats[0].post(to, mail);
                }
                while let Some((from, mail)) = self.seats[1].take() {
                    count += u32::from(matches!(mail, Mail::Media { .. }));
                    second.handle_mail(from, mail, now);
                }
            }) - clock;
            assert_eq!(count, 1, "one message per track, shard and turn");
            copies += mail;
            copies += spent(|| spread(second, outbox, now)) - clock;
        }
        let after: u64 = engines.iter().map(|engine| engine.meters().packets_out).sum();
        assert_eq!(after - before, (SUBSCRIBERS * run) as u64);
        Cost { copies, mail }
    }
}

fn spread(engine: &mut Engine, outbox: &mut Outbox, now: std::time::Instant) {
    while engine.spread(outbox, now) == Progress::More {
        outbox.clear();
    }
    outbox.clear();
}
