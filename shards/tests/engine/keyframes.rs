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
