//! Requests that wait, and how long.

use std::time::Duration;

use shards::command::{Ask, ItemError, Refusal, TracksReply};
use shards::ids::SessionId;
use shards::limits::{PENDING_PER_SESSION, SOUGHT_PER_SESSION, TRACKS_PER_CALL};
use str0m::media::{Direction, MediaKind};

use crate::world::{FRAME, World, local, ms, offer_of, pulling, remote, secs, tracks_of};

const VIDEO: [(&str, MediaKind); 1] = [("cam", MediaKind::Video)];

/// Pulls one track; returns the reply and how long it took.
fn timed(
    world: &mut World,
    session: SessionId,
    tracks: &[(SessionId, &str)],
) -> (TracksReply, Duration) {
    let started = world.now;
    let tracks = tracks.iter().map(|(publisher, name)| remote(*publisher, name)).collect();
    let reply = world.tracks(session, pulling(tracks));
    (reply, world.now - started)
}

/// As exact as `ask` looks.
fn about(took: Duration, expected: Duration) -> bool {
    took >= expected && took <= expected + ms(20)
}

#[test]
fn a_track_that_never_comes_is_not_found_after_five_seconds() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let publisher = world.create(0);
        let viewer = world.create(shard);
        let (reply, took) = timed(&mut world, viewer, &[(publisher, "cam")]);
        assert!(about(took, secs(5)), "{took:?}");
        assert_eq!(reply.tracks[0].error, Some(ItemError::NotFoundTrack));
        assert_eq!((&*reply.tracks[0].mid, reply.description), ("", None));
        assert!(!reply.requires_immediate_renegotiation);
    }
}

#[test]
fn a_track_without_packets_is_empty_after_eight_seconds() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let (client, publisher) = (world.add_client(), world.create(0));
        world.push(client, publisher, &VIDEO);
        world.connect(client);
        let viewer = world.create(shard);
        let (reply, took) = timed(&mut world, viewer, &[(publisher, "cam")]);
        assert!(about(took, secs(8)), "{took:?}");
        assert_eq!(reply.tracks[0].error, Some(ItemError::EmptyTrack));
    }
}

#[test]
fn a_pull_before_the_publisher_connects_succeeds_with_the_first_packet() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let (client, publisher) = (world.add_client(), world.create(0));
        let viewer = world.create(shard);
        let request = pulling(vec![remote(publisher, "cam")]);
        let ask = Ask::NewTracks { session: viewer, request };
        let ticket = world.tell(shard, ask);
        world.run(secs(3));
        let mids = world.push(client, publisher, &VIDEO);
        world.connect(client);
        world.run(secs(2));
        assert_eq!(world.answer_to(ticket), None, "nothing was sent yet");
        let flow = world.flow(client, &mids[0], 1);
        world.flows[flow].paused = true;
        world.send_frame(flow);
        world.run(world.delay);
        let reply = tracks_of(world.answer_to(ticket).expect("the packet has arrived"));
        assert!(reply.requires_immediate_renegotiation);
        assert_eq!(reply.tracks[0].error, None);
    }
}

#[test]
fn tracks_of_one_batch_are_awaited_concurrently() {
    let mut world = World::new(2);
    let (_, flowing, _) = world.publisher(0, &VIDEO);
    let (silent_client, silent) = (world.add_client(), world.create(1));
    world.push(silent_client, silent, &VIDEO);
    world.connect(silent_client);
    let viewer = world.create(0);
    let tracks = [(flowing, "cam"), (silent, "cam"), (flowing, "none"), (silent, "none")];
    let (reply, took) = timed(&mut world, viewer, &tracks);
    assert!(about(took, secs(8)), "{took:?}");
    let errors: Vec<_> = reply.tracks.iter().map(|track| track.error.clone()).collect();
    let not_found = Some(ItemError::NotFoundTrack);
    assert_eq!(errors, [None, Some(ItemError::EmptyTrack), not_found.clone(), not_found]);
    assert!(reply.requires_immediate_renegotiation);
    let mids: Vec<_> = reply.tracks.iter().map(|track| &*track.mid).collect();
    assert_eq!(mids, ["0", "", "", ""], "the offer has only what succeeded");
    assert_eq!(reply.description.unwrap().sdp.matches("m=").count(), 1);
}

#[test]
fn a_publisher_that_leaves_ends_the_wait_and_is_named() {
    for shard in [0, 1] {
        let mut world = World::new(2);
        let (publisher, viewer) = (world.create(0), world.create(shard));
        let request = pulling(vec![remote(publisher, "cam")]);
        let ticket = world.tell(shard, Ask::NewTracks { session: viewer, request });
        world.run(secs(1));
        world.delete(publisher);
        let gone = Refusal::Gone { session: publisher.to_string(), publisher: true };
        assert_eq!(world.answer_to(ticket), Some(Err(gone)));
    }
}

#[test]
fn a_subscriber_that_leaves_ends_its_own_wait() {
    let mut world = World::new(2);
    let (publisher, viewer) = (world.create(0), world.create(1));
    let request = pulling(vec![remote(publisher, "cam")]);
    let ticket = world.tell(1, Ask::NewTracks { session: viewer, request });
    world.delete(viewer);
    let gone = Refusal::Gone { session: viewer.to_string(), publisher: false };
    assert_eq!(world.answer_to(ticket), Some(Err(gone)));
}

#[test]
fn a_transport_that_does_not_connect_is_not_ready_after_five_seconds() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    world.network = Box::new(|_, _, _, _| vec![]);
    world.push(client, session, &VIDEO);
    let (sdp, mids) = world.clients[client].offer(&[MediaKind::Video], Direction::SendOnly);
    let started = world.now;
    let request = shards::command::TracksRequest {
        offer: Some(offer_of(sdp)),
        tracks: vec![local("more", &mids[0])],
        auto_discover: false,
    };
    let answer = world.new_tracks(session, request);
    assert_eq!(answer, Err(Refusal::NotReady));
    assert!(about(world.now - started, secs(5)));
}

#[test]
fn a_request_made_while_connecting_is_done_once_connected() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &VIDEO);
    let (client, session) = (world.add_client(), world.create(0));
    world.push(client, session, &[("mic", MediaKind::Audio)]);
    let started = world.now;
    let reply = world.tracks(session, pulling(vec![remote(publisher, "cam")]));
    assert!(reply.requires_immediate_renegotiation);
    assert!(world.now - started > world.delay * 4, "it waited for ICE and DTLS");
    assert!(world.now - started < secs(2));
    world.run(world.delay * 2);
    assert!(world.clients[client].connected);
}

#[test]
fn requests_that_wait_are_bounded_per_session() {
    let mut world = World::new(1);
    let (publisher, viewer) = (world.create(0), world.create(0));
    let ask = |n: usize| {
        let request = pulling(vec![remote(publisher, &format!("t{n}"))]);
        Ask::NewTracks { session: viewer, request }
    };
    let tickets: Vec<_> = (0..=PENDING_PER_SESSION).map(|n| world.tell(0, ask(n))).collect();
    let last = world.answer_to(tickets[PENDING_PER_SESSION]);
    assert_eq!(last, Some(Err(Refusal::Busy("requests that wait".into()))));
    for &ticket in &tickets[..PENDING_PER_SESSION] {
        assert_eq!(world.answer_to(ticket), None);
    }
    world.run(secs(5) + FRAME);
    for &ticket in &tickets[..PENDING_PER_SESSION] {
        assert!(world.answer_to(ticket).is_some());
    }
}

#[test]
fn a_track_that_ends_while_others_are_awaited_is_not_told_as_a_success() {
    let mut world = World::new(2);
    let (_, publisher, mids) = world.publisher(0, &[("a", MediaKind::Video)]);
    let viewer = world.create(1);
    let request = pulling(vec![remote(publisher, "a"), remote(publisher, "b")]);
    let ticket = world.tell(1, Ask::NewTracks { session: viewer, request });
    world.run(secs(1));
    world.close(publisher, &[&mids[0]], None);
    let reply = tracks_of(world.wait_for(ticket));
    assert_eq!(reply.tracks[0].error, Some(ItemError::NotFoundTrack));
    assert_eq!(reply.description, None);
}

#[test]
fn requests_that_waited_for_the_transport_are_done_in_their_order() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &VIDEO);
    let (client, session) = (world.add_client(), world.create(0));
    world.push(client, session, &[("mic", MediaKind::Audio)]);
    let request = || pulling(vec![remote(publisher, "cam")]);
    let first = world.tell(0, Ask::NewTracks { session, request: request() });
    let second = world.tell(0, Ask::NewTracks { session, request: request() });
    assert!(tracks_of(world.wait_for(first)).requires_immediate_renegotiation);
    assert_eq!(world.wait_for(second), Err(Refusal::HaveLocalOffer));
}

#[test]
fn a_limit_is_told_alike_on_every_shard() {
    let mut world = World::new(2);
    let publisher = world.create(0);
    let names: Vec<String> = (0..SOUGHT_PER_SESSION).map(|n| n.to_string()).collect();
    let seeker = world.create(0);
    for some in names.chunks(TRACKS_PER_CALL) {
        let tracks = some.iter().map(|name| remote(publisher, name)).collect();
        world.tell(0, Ask::NewTracks { session: seeker, request: pulling(tracks) });
    }
    for shard in [0, 1] {
        let viewer = world.create(shard);
        let reply = world.tracks(viewer, pulling(vec![remote(publisher, "one more")]));
        let limit = ItemError::Limit("tracks sought from one session".into());
        assert_eq!(reply.tracks[0].error, Some(limit), "shard {shard}");
    }
}
