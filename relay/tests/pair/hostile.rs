//! What forgers, replayers and a hostile other side can do: be counted.

use std::time::Duration;

use relay::link::{Class, Event, Fault, Link};
use relay::seal::{End, LinkSecret, PairSecret, Sealer};
use relay::wire::feedback::MissingRun;
use relay::wire::record::{PREFIX_LEN, write_feedback_prefix};
use relay::wire::{DATAGRAM_MAX, Header, LaneId, OVERHEAD, feedback};

use crate::world::{Path, Rng, World, ends, media, ms, start};

#[test]
fn forgeries_replays_and_pieces_deliver_nothing_and_are_not_answered() {
    for seed in 0..4 {
        let mut world = World::new(seed, Path::new(10));
        let lane = world.nodes[1].link.open_lane().unwrap();
        world.run_for(ms(200));
        for _ in 0..50 {
            world.send(0, lane, 300);
        }
        let genuine = world.flying_to(1);
        assert!(genuine.len() >= 10);
        world.run_for(ms(200));
        let delivered = world.nodes[1].delivered.len();
        assert_eq!(delivered, 50);
        let (stats, timeout) = (world.nodes[1].link.stats(), world.nodes[1].link.timeout());
        let (faults, sent) = (world.nodes[1].faults.len(), world.nodes[1].sent);
        let mut rng = Rng(seed);
        let mut injected = 0;
        for bytes in &genuine {
            let mut flipped = bytes.clone();
            let bit = rng.next() as usize % (bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut ahead = bytes.clone();
            ahead[7] ^= 0x10;
            let short = bytes[..rng.next() as usize % bytes.len()].to_vec();
            let noise = (0..bytes.len()).map(|_| rng.next() as u8).collect();
            let mut long = bytes.clone();
            long.push(0);
            for bytes in [bytes.clone(), flipped, ahead, short, noise, long] {
                world.inject(1, bytes);
                injected += 1;
            }
        }
        world.run(world.now);
        let node = &world.nodes[1];
        assert_eq!(node.delivered.len(), delivered);
        assert_eq!(node.faults.len() - faults, injected, "each is counted once");
        assert_eq!(node.link.stats().faults.total(), (faults + injected) as u64);
        assert_eq!(node.sent, sent, "none is answered");
        assert_eq!(node.link.timeout(), timeout, "nor does any change what comes next");
        let after = node.link.stats();
        assert_eq!(relay::link::Stats { faults: stats.faults, ..after }, stats);
        assert!(
            node.faults.contains(&Fault::Replayed) && node.faults.contains(&Fault::Unauthentic)
        );
    }
}

#[test]
fn a_datagram_for_another_link_or_from_another_shard_is_a_stray() {
    let (mut link, mut sealer, _) = hostile();
    let mut out = [0; DATAGRAM_MAX];
    let len = sealer.seal(&[], &mut out);
    let header = Header::parse(&out[..len]).unwrap();
    for stray in [
        Header { dst_shard: 9, ..header },
        Header { src_shard: 9, ..header },
        Header { link: relay::wire::LinkId::new(9).unwrap(), ..header },
    ] {
        let mut bytes = out[..len].to_vec();
        bytes[..12].copy_from_slice(&stray.write());
        assert_eq!(receive(&mut link, &mut bytes), Err(Fault::Stray));
    }
    assert_eq!(receive(&mut link, &mut out[..len]), Ok(0));
}

#[test]
fn damage_and_duplicates_on_the_way_are_survived() {
    for seed in 0..4 {
        let path =
            Path { loss: 0.01, corrupt: 0.02, duplicate: 0.05, jitter: ms(3), ..Path::new(15) };
        let mut world = World::new(seed, path);
        let lane = world.nodes[1].link.open_lane().unwrap();
        world.stream(Duration::from_secs(5), lane, 1000, 700);
        world.run_for(ms(1500));
        let [sender, receiver] = &world.nodes;
        let missing = sender.history.len() - receiver.delivered.len();
        assert!(missing * 2000 < sender.history.len(), "{missing} missing");
        let stats = receiver.link.stats();
        assert!(stats.faults.of(Fault::Replayed) > 100 && stats.faults.of(Fault::Unauthentic) > 50);
        assert!(stats.repaired > 50);
    }
}

/// All tables at once: the other side may say what it likes, as often as it likes.
#[test]
fn a_hostile_other_side_takes_bounded_memory_and_nothing_breaks() {
    let (mut link, mut sealer, lane) = hostile();
    let mut rng = Rng(3);
    let mut now = start();
    let mut out = vec![0; DATAGRAM_MAX];
    let mut text = Vec::new();
    for round in 0..12_000u64 {
        now += Duration::from_micros(rng.next() % 300);
        text.clear();
        match round % 6 {
            // Any lane, source and number.
            0 => {
                let lane = if rng.next().is_multiple_of(2) { lane } else { lane_of(&mut rng) };
                let payload = [0; 40];
                let mut media = media((lane, rng.next() >> 16), &payload);
                media.source = rng.next() as u32;
                text.resize(media.record_len(), 0);
                media.write(false, &mut text);
            }
            // Fragments of nothing.
            1 => {
                let id = (rng.next() as u16).to_be_bytes();
                text.extend([0x70, 0, 10, id[0], id[1], 0, 2, 0, 8, 1, 2, 3, 4]);
            }
            // Reports of any loss.
            2 => {
                let mut fields = [0; feedback::len_max(feedback::RUNS_MAX)];
                let largest = rng.next() % (round + 1);
                let first = rng.next() % (largest + 1);
                let run = MissingRun { first, len: (largest - first).max(1) };
                let at = rng.next() >> 16;
                let len = feedback::write(&mut fields, largest, at, 0, [run].into_iter());
                text.resize(PREFIX_LEN, 0);
                write_feedback_prefix(len, &mut text);
                text.extend_from_slice(&fields[..len]);
            }
            // Clocks, requests, pings and answers nobody asked for.
            3 => {
                for (kind, len) in [(2u8, 30), (3, 4), (5, 6), (6, 18)] {
                    text.extend([kind << 4, 0, len]);
                    text.extend((0..len).map(|_| rng.next() as u8));
                }
            }
            // Noise.
            4 => text.extend((0..rng.next() % 200).map(|_| rng.next() as u8)),
            // Numbers far ahead, so that all before is missing.
            _ => (0..rng.next() % 3000).for_each(|_| {
                sealer.seal(&[], &mut out);
            }),
        }
        let len = sealer.seal(&text, &mut out);
        link.handle_datagram(now, &mut out[..len], |_| ()).unwrap();
        if round.is_multiple_of(3) {
            let mut sink = Void(vec![0; DATAGRAM_MAX], 0);
            link.handle_timeout(now);
            let mut resends = 0;
            while link.poll_resend(now).is_some() {
                resends += 1;
            }
            assert!(resends <= 1024);
            for seq in 0..3 {
                link.push(
                    now,
                    &media((lane, round * 3 + seq), &[0; 1000]),
                    Class::Video,
                    &mut sink,
                );
            }
            link.flush(now, &mut sink);
            // What one turn may add to what was pushed: a report, an answer, a ping.
            assert!(sink.1 <= 4, "{} datagrams", sink.1);
        }
    }
    assert!(link.stats().faults.total() > 3_000);
    let bytes = size_of_val(&link);
    assert!(bytes < 8 << 10, "the link itself has {bytes} bytes");
}

struct Void(Vec<u8>, usize);

impl relay::link::Sink for Void {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn commit(&mut self, _: usize) {
        self.1 += 1;
    }
}

fn lane_of(rng: &mut Rng) -> LaneId {
    LaneId::new(rng.next() as u32 >> 8).unwrap()
}

/// A link, and the keys of its other side.
fn hostile() -> (Link, Sealer, LaneId) {
    let (here, there): (End, End) = ends();
    let pair = || PairSecret::new(&[7; 32]);
    let mut link = Link::new(LinkSecret::new(pair(), here, there), start());
    let lane = link.open_lane().unwrap();
    (link, Sealer::new(&pair(), &there, &here, start()), lane)
}

fn receive(link: &mut Link, bytes: &mut [u8]) -> Result<usize, Fault> {
    assert!(bytes.len() >= OVERHEAD);
    let mut events = 0;
    let done = link.handle_datagram(start(), bytes, |event| {
        events += usize::from(matches!(event, Event::Media { .. }));
    });
    done.map(|()| events)
}
