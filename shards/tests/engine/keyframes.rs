//! Keyframes: asked for when somebody needs one, and not more often than it helps.

use std::time::Instant;

use str0m::media::MediaKind;

use crate::client::Source;
use crate::world::{FRAME, World, ms, pulling, remote, secs};

const CAM: [(&str, MediaKind); 1] = [("cam", MediaKind::Video)];

fn asked_since(world: &World, publisher: usize, since: Instant) -> Vec<Instant> {
    let asked = world.clients[publisher].asked.iter().map(|(at, _)| *at);
    asked.filter(|at| *at >= since).collect()
}

#[test]
fn a_viewer_that_is_not_connected_yet_asks_for_nothing() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &CAM);
    world.run(secs(2));
    let since = world.now;
    let address = world.clients[publisher].external;
    world.network = Box::new(move |_, from, to, _| {
        let lost = from != address && to != address;
        if lost { vec![] } else { vec![ms(0)] }
    });
    for shard in [0, 1] {
        let (client, viewer) = (world.add_client(), world.create(shard));
        world.pull(client, viewer, &[(session, "cam")]);
        world.run(secs(5));
    }
    assert!(asked_since(&world, publisher, since).is_empty());
}

#[test]
fn fifty_viewers_that_join_at_once_cause_few_requests() {
    let mut world = World::new(4);
    let (publisher, session, _) = world.publisher(0, &CAM);
    world.run(secs(2));
    let since = world.now;
    let viewers: Vec<_> = (0..50).map(|n| (world.add_client(), world.create(n % 4))).collect();
    for (client, viewer) in &viewers {
        let reply = world.tracks(*viewer, pulling(vec![remote(session, "cam")]));
        world.answer_offer(*client, *viewer, &reply.description.unwrap().sdp);
    }
    world.run(secs(3));
    for (client, _) in &viewers {
        assert!(world.clients[*client].track(1).len() > 50);
    }
    let asked = asked_since(&world, publisher, since);
    assert!((1..=5).contains(&asked.len()), "{} requests", asked.len());
}

#[test]
fn requests_of_one_viewer_without_end_reach_the_publisher_throttled() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &CAM);
    let (viewer, _, mids) = world.viewer(1, &[(session, "cam")]);
    world.run(secs(1));
    let since = world.now;
    for _ in 0..200 {
        let now = world.now;
        world.clients[viewer].ask_for_keyframe(&mids[0], now);
        world.run(ms(10));
    }
    let asked = asked_since(&world, publisher, since);
    assert!((3..=6).contains(&asked.len()), "{} requests in 2 s", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= ms(400)));
}

#[test]
fn a_request_that_is_lost_is_repeated_until_a_keyframe_comes() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &CAM);
    world.run(secs(2));
    let address = world.clients[publisher].external;
    let (viewer, viewing) = (world.add_client(), world.create(1));
    world.pull(viewer, viewing, &[(session, "cam")]);
    // Nothing reaches the publisher for a while.
    world.network = Box::new(move |_, _, to, _| if to == address { vec![] } else { vec![ms(0)] });
    world.connect(viewer);
    world.run(secs(1));
    assert!(world.clients[viewer].got.is_empty());
    let since = world.now;
    world.network = Box::new(|_, _, _, _| vec![ms(0)]);
    world.run(ms(400) + FRAME * 3);
    assert_eq!(asked_since(&world, publisher, since).len(), 1);
    assert!(world.clients[viewer].got[0].is_keyframe());
    let since = world.now;
    world.run(secs(5));
    assert!(asked_since(&world, publisher, since).is_empty(), "it came: no more requests");
}

#[test]
fn a_keyframe_is_asked_for_when_the_publishers_losses_cannot_be_repaired() {
    let mut world = World::new(1);
    let (publisher, session, mids) = world.publisher(0, &CAM);
    let (_, _, _) = world.viewer(0, &[(session, "cam")]);
    world.run(secs(1));
    let since = world.now;
    // A gap of more packets than are worth asking for.
    for _ in 0..700 {
        let now = world.now;
        let source = Source { mid: mids[0].clone(), rid: None };
        world.clients[publisher].send(&source, 1, 100, false, now);
        world.clients[publisher].outgoing.clear();
    }
    world.run(secs(1));
    assert_eq!(asked_since(&world, publisher, since).len(), 1);
}
