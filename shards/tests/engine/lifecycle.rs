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

#[test]
fn an_offer_that_is_never_answered_leaves_nothing_behind() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let viewer = world.create(1);
    let reply = world.tracks(viewer, pulling(vec![remote(publisher, "cam")]));
    assert!(reply.requires_immediate_renegotiation);
    world.delete(viewer);
    world.delete(publisher);
    world.run(secs(1));
    assert_empty(&world);
}

#[test]
fn a_pull_that_the_client_refuses_leaves_nothing_behind() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, viewer) = (world.add_client(), world.create(1));
    let reply =
        world.tracks(viewer, pulling(vec![remote(publisher, "mic"), remote(publisher, "cam")]));
    let sdp = world.clients[client].accept_offer(&reply.description.unwrap().sdp);
    // The second m-line is answered inactive.
    let at = sdp.rfind("a=recvonly").expect("the client would receive");
    let sdp = format!("{}a=inactive{}", &sdp[..at], &sdp[at + "a=recvonly".len()..]);
    let description = shards::command::Description { kind: shards::command::SdpKind::Answer, sdp };
    world.ask(1, Ask::Renegotiate { session: viewer, description }).unwrap();
    let info = world.describe(viewer);
    assert!(info.tracks[0].active && !info.tracks[1].active, "{info:?}");
    assert_eq!(info.tracks[1].reason.as_deref(), Some("the client does not receive on the m-line"));
    assert_eq!(world.engines[1].feeds(), 1, "only the accepted track is mirrored");
    world.delete(viewer);
    world.delete(publisher);
    world.run(secs(1));
    assert_empty(&world);
}
