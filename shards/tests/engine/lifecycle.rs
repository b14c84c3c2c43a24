//! Sessions and tracks come and go, and nothing of them stays.

use shards::command::{Ask, Refusal};
use str0m::media::MediaKind;

use crate::world::{World, pulling, remote, secs};

const BOTH: [(&str, MediaKind); 2] = [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];

fn assert_empty(world: &World) {
    for (n, engine) in world.engines.iter().enumerate() {
        assert!(engine.is_empty(), "shard {n} still holds something: {engine:?}");
    }
}

#[test]
fn nothing_stays_after_all_sessions_have_ended() {
    let mut world = World::new(3);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let mut sessions = vec![publisher];
    for shard in [0, 1, 2, 1] {
        sessions.push(world.viewer(shard, &[(publisher, "mic"), (publisher, "cam")]).1);
    }
    world.run(secs(2));
    for order in [[1, 0, 2, 3, 4]] {
        for at in order {
            world.delete(sessions[at]);
        }
    }
    world.run(secs(1));
    assert_empty(&world);
}

#[test]
fn a_pull_that_failed_leaves_nothing_behind() {
    let mut world = World::new(2);
    let publisher = world.create(0);
    for shard in [0, 1] {
        let viewer = world.create(shard);
        let reply = world.tracks(viewer, pulling(vec![remote(publisher, "none")]));
        assert!(reply.tracks[0].error.is_some());
        world.delete(viewer);
    }
    world.run(secs(1));
    assert_eq!(world.engines[1].feeds(), 0, "the mirror is gone");
    assert_eq!(world.engines[0].feeds(), 0, "and so is what it mirrored");
}

#[test]
fn a_request_refused_half_way_leaves_nothing_behind() {
    let mut world = World::new(2);
    let (publisher, viewer) = (world.create(0), world.create(1));
    let mut unnamed = remote(publisher, "x");
    unnamed.track_name = None;
    let request = pulling(vec![remote(publisher, "none"), unnamed.clone()]);
    let answer = world.new_tracks(viewer, request);
    assert!(matches!(answer, Err(Refusal::InvalidParams(_))), "{answer:?}");
    world.run(secs(1));
    assert_eq!((world.engines[0].feeds(), world.engines[1].feeds()), (0, 0));
}
