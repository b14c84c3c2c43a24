//! A link's life: its keys change, its path narrows or breaks, its clock is found.

use std::time::Duration;

use relay::link::{Class, Fault, State};
use relay::seal::{OLD_PHASE, PHASE_AGE_MAX};
use relay::wire::{Clock, Header, LaneId};

use crate::world::{Got, Path, World, ms};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn keys_change_under_traffic_and_nothing_is_lost() {
    for seed in 0..4 {
        // Enough reordering that both phases are under way at once.
        let mut world = World::new(seed, Path { loss: 0.005, jitter: ms(8), ..Path::new(20) });
        let lanes = [1, 0].map(|node: usize| world.nodes[node].link.open_lane().unwrap());
        let mut phases = Vec::new();
        for _ in 0..6 {
            world.stream(OLD_PHASE * 2 + ms(100), lanes[0], 200, 500);
            let now = world.now;
            let ahead = world.nodes[0].ahead;
            assert!(world.nodes[0].link.rekey(now + ahead) && world.nodes[1].link.rekey(now));
            world.stream(ms(100), lanes[0], 500, 500);
            let flying = world.flying_to(1);
            phases.extend(flying.iter().map(|bytes| Header::parse(bytes).unwrap().phase));
            for _ in 0..20 {
                world.send(1, lanes[1], 100);
            }
        }
        world.run_for(SECOND);
        let [first, second] = &world.nodes;
        assert_eq!(
            (first.history.len(), second.history.len()),
            (second.delivered.len(), first.delivered.len())
        );
        assert!(phases.contains(&true) && phases.contains(&false));
        for node in &world.nodes {
            assert_eq!(node.link.stats().faults.total(), 0, "no key was missing");
        }
    }
}

#[test]
fn keys_change_after_fifteen_minutes_by_themselves() {
    let mut world = World::new(1, Path::new(5));
    world.nodes.iter_mut().for_each(|node| node.link.set_active(false));
    let lane = world.nodes[1].link.open_lane().unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        world.send(0, lane, 10);
        let flying = world.flying_to(1);
        seen.push(Header::parse(flying.last().unwrap()).unwrap().phase);
        world.run_for(PHASE_AGE_MAX + SECOND);
    }
    assert_eq!(seen, [false, true, false]);
    assert_eq!(world.nodes[1].delivered.len(), 3);
    assert!(world.nodes[1].link.silence(world.now) < ms(5_100), "idle, not dead");
}

#[test]
fn a_publishers_clock_arrives_on_our_time_whatever_the_clocks_say() {
    for ahead in [Duration::ZERO, Duration::from_secs(3600 * 7), Duration::from_secs(86400 * 5)] {
        let path = Path { jitter: ms(10), loss: 0.05, ..Path::new(30) };
        let mut world = World::skewed(9, path, ahead);
        let lane = world.nodes[1].link.open_lane().unwrap();
        let told_at = world.now;
        // The first is told before anything is known of the other side, and of a time before
        // the link was there.
        for round in 0..100u32 {
            let clock = Clock {
                lane,
                layer: 1,
                source: 7,
                ntp: u64::from(round),
                rtp: round,
                clock_rate: 90_000,
                arrival: world.now - ms(300),
            };
            world.act(0, |node, now, out| node.link.clock(now, &clock, out));
            world.run_for(ms(100));
        }
        let node = &world.nodes[1];
        assert!(node.got.len() > 80, "{} clocks", node.got.len());
        for got in &node.got {
            let Got::Clock(clock) = got else { panic!("{got:?}") };
            assert_eq!((clock.lane, clock.layer, clock.source, clock.rtp), (lane, 1, 7, clock.rtp));
            let expected = told_at + ms(u64::from(clock.rtp) * 100) - ms(300) + ahead;
            let off = clock.arrival.max(expected) - clock.arrival.min(expected);
            // Half of the jitter, and less once there were several samples.
            assert!(off < if clock.rtp < 30 { ms(8) } else { ms(4) }, "{off:?} off");
        }
    }
}

#[test]
fn requests_for_keyframes_arrive() {
    let mut world = World::new(1, Path::new(10));
    let lane = LaneId::new(77).unwrap();
    world.act(1, |node, now, out| {
        node.link.keyframe(now, lane, 0, out);
        node.link.keyframe(now, lane, 2, out);
    });
    world.run_for(ms(50));
    assert_eq!(world.nodes[0].got, [0, 2].map(|layer| Got::KeyframeRequest(lane, layer)));
}

#[test]
fn packets_of_any_length_pass_paths_of_any_width() {
    for seed in 0..4 {
        let mut world = World::new(seed, Path { loss: 0.02, jitter: ms(2), ..Path::new(10) });
        let lane = world.nodes[1].link.open_lane().unwrap();
        for mtu in [1472, 1200, 512, 1352, 700] {
            for node in &mut world.nodes {
                node.link.set_mtu(mtu);
                node.path.mtu = mtu;
            }
            for round in 0..200 {
                let len = [0, 20, 500, 1160, 1300, 1440, 3000, 4073][round % 8];
                world.send(0, lane, len);
                world.run_for(ms(4));
            }
            // What was lost on the wider path is sent again on the narrower one.
        }
        world.run_for(2 * SECOND);
        let [sender, receiver] = &world.nodes;
        assert_eq!(receiver.delivered.len(), sender.history.len());
        assert_eq!(receiver.link.stats().faults.of(Fault::Fragment), 0);
        assert!(sender.resent > 10);
    }
}

#[test]
fn a_path_that_breaks_one_way_is_noticed_at_both_ends() {
    let mut world = World::new(1, Path::new(20));
    let lane = world.nodes[1].link.open_lane().unwrap();
    world.stream(SECOND, lane, 300, 800);
    assert_eq!(world.nodes[0].link.state(), State::Ok);
    world.nodes[0].path.loss = 1.0;
    world.stream(4 * SECOND, lane, 300, 800);
    assert_eq!(world.nodes[0].link.state(), State::Break, "nobody tells what became of it");
    let only = relay::link::Standing::ONLY;
    assert!(world.nodes[0].link.admits(Class::Audio, only));
    assert!(!world.nodes[0].link.admits(Class::Video, only));
    assert!(world.nodes[1].link.silence(world.now) > ms(3900));
    let pings = world.nodes[1].link.stats().datagrams_out;
    assert!(world.nodes[0].link.silence(world.now) < ms(150), "the other way is open");
    assert!(pings > 20, "and used");
    world.nodes[0].path.loss = 0.0;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.nodes[0].link.state(), State::Ok);
    world.stream(SECOND, lane, 300, 800);
    assert!(world.nodes[1].link.silence(world.now) < ms(50));
}

#[test]
fn reports_that_were_lost_do_not_leave_a_path_broken_for_ever() {
    let mut world = World::new(1, Path::new(20));
    let lane = world.nodes[1].link.open_lane().unwrap();
    world.stream(SECOND, lane, 300, 800);
    world.nodes[1].path.loss = 1.0;
    world.stream(5 * SECOND, lane, 300, 800);
    assert_eq!(world.nodes[0].link.state(), State::Break);
    world.nodes[1].path.loss = 0.0;
    // Nothing is sent, for nothing may be.
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.nodes[0].link.state(), State::Ok);
}

#[test]
fn a_probe_is_answered_within_a_round_trip() {
    let mut world = World::new(1, Path::new(20));
    world.run_for(SECOND + ms(10));
    let heard = world.nodes[0].link.stats().datagrams_in;
    world.act(0, |node, _, _| node.link.probe());
    world.run_for(ms(41));
    assert!(world.nodes[0].link.stats().datagrams_in > heard);
    assert!(world.nodes[0].link.silence(world.now) < ms(1));
}

#[test]
fn a_queue_on_the_path_makes_the_sender_shed_and_its_end_restores() {
    let mut world = World::new(1, Path::new(20));
    let lane = world.nodes[1].link.open_lane().unwrap();
    let best = relay::link::Standing { above: 0, below: 1 };
    world.stream(SECOND, lane, 300, 800);
    assert!(world.nodes[0].link.admits(Class::Video, best));
    world.nodes[0].path.delay = ms(120);
    world.stream(SECOND, lane, 300, 800);
    let link = &world.nodes[0].link;
    assert_eq!(link.state(), State::Hot);
    assert!(link.stats().queue_us > 90_000);
    assert!(!link.admits(Class::Video, best) && link.admits(Class::Audio, best));
    world.nodes[0].path.delay = ms(20);
    world.stream(12 * SECOND, lane, 300, 800);
    assert_eq!(world.nodes[0].link.state(), State::Ok);
    assert!(world.nodes[0].link.admits(Class::Video, best));
}

#[test]
fn sound_is_not_repaired_when_it_is_too_late_and_video_is() {
    for (class, repaired) in [(Class::Audio, false), (Class::Video, true)] {
        let mut world = World::new(5, Path { loss: 0.05, ..Path::new(150) });
        world.class = class;
        let lane = world.nodes[1].link.open_lane().unwrap();
        world.stream(5 * SECOND, lane, 200, 100);
        world.run_for(2 * SECOND);
        assert_eq!(world.nodes[0].resent > 0, repaired, "{class:?}");
        assert_eq!(world.nodes[0].link.stats().given_up > 20, !repaired);
    }
}

#[test]
fn the_tail_of_a_burst_is_repaired_without_anything_after_it() {
    let mut world = World::new(1, Path::new(20));
    let lane = world.nodes[1].link.open_lane().unwrap();
    world.stream(SECOND, lane, 100, 500);
    world.nodes[0].path.loss = 1.0;
    world.send(0, lane, 1300);
    world.send(0, lane, 1300);
    let sent_at = world.now;
    world.nodes[0].path.loss = 0.0;
    world.run_for(SECOND);
    let lates: Vec<_> =
        world.nodes[1].delivered.values().map(|at| at.saturating_duration_since(sent_at)).collect();
    assert_eq!(lates.len(), world.nodes[0].history.len());
    assert!(lates.iter().all(|late| *late < ms(120)), "{lates:?}");
}

#[test]
fn one_seed_is_one_course_of_events() {
    let course = |seed| {
        let mut world =
            World::new(seed, Path { loss: 0.02, duplicate: 0.02, jitter: ms(4), ..Path::new(15) });
        let lane = world.nodes[1].link.open_lane().unwrap();
        world.stream(2 * SECOND, lane, 700, 600);
        let stats = world.nodes.each_ref().map(|node| node.link.stats());
        (stats, world.nodes[1].delivered.clone())
    };
    assert_eq!(course(7), course(7));
    assert_ne!(course(7), course(8));
}
