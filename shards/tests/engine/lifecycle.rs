//! Sessions and tracks come and go, and nothing of them stays.

use shards::command::{Ask, Refusal, TracksRequest};
use shards::engine::Progress;
use shards::limits::CLOSED_AT_ONCE;
use str0m::media::{Direction, MediaKind};

use crate::world::{World, local, ms, offer_of, pulling, remote, secs, shard_address};

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
    let request = pulling(vec![remote(publisher, "none"), unnamed]);
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

#[test]
fn a_session_that_never_connects_is_forgotten() {
    let mut world = World::new(1);
    let session = world.create(0);
    world.run(secs(50));
    let info = world.describe(session);
    assert!(!info.connected && info.tracks.is_empty());
    world.run(secs(59));
    world.describe(session);
    world.run(secs(61));
    let gone = Refusal::Gone { session: session.to_string(), publisher: false };
    assert_eq!(world.ask(0, Ask::Describe { session }), Err(gone));
    assert_empty(&world);
}

#[test]
fn a_silent_client_is_disconnected_and_later_forgotten() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &BOTH);
    let (viewer, viewing, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    let address = world.clients[publisher].external;
    world.network =
        Box::new(
            move |_, from, _, _| {
                if from == address { vec![] } else { vec![std::time::Duration::ZERO] }
            },
        );
    world.run(secs(8));
    assert!(world.describe(session).connected);
    world.run(secs(3));
    assert!(!world.describe(session).connected);
    // It comes back within the grace.
    world.network = Box::new(|_, _, _, _| vec![std::time::Duration::ZERO]);
    world.run(secs(10));
    assert!(world.describe(session).connected);
    assert!(world.now - world.clients[viewer].got.last().unwrap().at < secs(1));
    world.network =
        Box::new(
            move |_, from, _, _| {
                if from == address { vec![] } else { vec![std::time::Duration::ZERO] }
            },
        );
    world.run(secs(39));
    world.describe(session);
    world.run(secs(2));
    let gone = Refusal::Gone { session: session.to_string(), publisher: false };
    assert_eq!(world.ask(0, Ask::Describe { session }), Err(gone));
    let tracks = world.describe(viewing).tracks;
    assert!(tracks.iter().all(|track| !track.active && track.reason.is_some()), "{tracks:?}");
}

#[test]
fn a_track_that_is_silent_for_thirty_seconds_is_unpublished() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (_, viewing, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.flows[1].paused = true;
    world.run(secs(29));
    assert!(world.describe(session).tracks.iter().all(|track| track.active));
    world.run(secs(2));
    let active: Vec<_> = world.describe(session).tracks.iter().map(|t| t.active).collect();
    assert_eq!(active, [true, false]);
    let active: Vec<_> = world.describe(viewing).tracks.iter().map(|t| t.active).collect();
    assert_eq!(active, [true, false]);
    world.run(secs(60));
    assert!(world.describe(session).connected, "the session stays");
}

#[test]
fn a_client_that_says_goodbye_is_gone_unless_it_begins_again_at_once() {
    let mut world = World::new(2);
    let (client, session, _) = world.publisher(0, &BOTH);
    world.flows.clear();
    let now = world.now;
    world.clients[client].rtc.close().unwrap();
    world.clients[client].drive(now);
    world.run(secs(1));
    assert!(world.describe(session).connected, "it may be making another transport");
    world.run(secs(2));
    let gone = Refusal::Gone { session: session.to_string(), publisher: false };
    assert_eq!(world.ask(0, Ask::Describe { session }), Err(gone));
    assert_empty(&world);
}

/// A ClientHello that nobody's handshake began with.
fn forged_hello() -> Vec<u8> {
    let mut bytes = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60];
    bytes.extend([1, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 48, 0xfe, 0xfd]);
    bytes.extend([7; 46]);
    bytes
}

#[test]
fn a_client_that_begins_anew_without_a_goodbye_takes_over() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) = world.clients[client].offer(&[MediaKind::Audio], Direction::SendOnly);
    let request = TracksRequest {
        offer: Some(offer_of(sdp)),
        tracks: vec![local("mic", &mids[0])],
        auto_discover: false,
    };
    let answer = world.tracks(session, request).description.unwrap().sdp;
    world.clients[client].accept_answer(&answer);
    world.connect(client);
    world.run(secs(3));
    let now = world.now;
    world.clients[client].begin_anew(&answer, now);
    world.connect(client);
    // Past the time of a handshake and of silence: the second association is the one now.
    world.run(secs(60));
    assert!(world.describe(session).connected);
    let now = world.now;
    world.clients[client].rtc.close().unwrap();
    world.clients[client].drive(now);
    world.run(secs(4));
    assert_empty(&world);
}

#[test]
fn a_goodbye_is_heard_although_somebody_forged_a_hello() {
    let mut world = World::new(1);
    let (client, session, _) = world.publisher(0, &BOTH);
    world.run(secs(3));
    let from = world.clients[client].external;
    world.deliver(from, shard_address(0), &mut forged_hello());
    world.run(ms(100));
    world.flows.clear();
    let now = world.now;
    world.clients[client].rtc.close().unwrap();
    world.clients[client].drive(now);
    // The time of a handshake, in case that the hello was no forgery.
    world.run(secs(7));
    let gone = Refusal::Gone { session: session.to_string(), publisher: false };
    assert_eq!(world.ask(0, Ask::Describe { session }), Err(gone));
    assert_empty(&world);
}

#[test]
fn a_new_association_that_loses_a_flight_has_the_time_of_a_handshake() {
    let mut world = World::new(1);
    let (client, session, _) = world.publisher(0, &BOTH);
    let from = world.clients[client].external;
    world.flows.clear();
    let now = world.now;
    world.clients[client].rtc.close().unwrap();
    world.clients[client].drive(now);
    world.run(ms(1500));
    world.deliver(from, shard_address(0), &mut forged_hello());
    world.run(secs(5));
    assert!(world.describe(session).connected, "the handshake may still end well");
    // But not for ever.
    world.deliver(from, shard_address(0), &mut forged_hello());
    world.run(secs(2));
    let gone = Refusal::Gone { session: session.to_string(), publisher: false };
    assert_eq!(world.ask(0, Ask::Describe { session }), Err(gone));
}

#[test]
fn a_deleted_sessions_client_is_told() {
    let mut world = World::new(1);
    let (client, session, _) = world.publisher(0, &BOTH);
    world.flows.clear();
    world.delete(session);
    world.run(secs(1));
    assert!(world.clients[client].closed || !world.clients[client].rtc.is_alive());
    assert_empty(&world);
}

#[test]
fn a_full_shard_says_all_its_goodbyes() {
    let mut world = World::new(1);
    let (client, _, _) = world.publisher(0, &BOTH);
    world.flows.clear();
    for _ in 0..CLOSED_AT_ONCE * 2 {
        world.create(0);
    }
    let (last, _, _) = world.publisher(0, &BOTH);
    world.flows.clear();
    let now = world.now;
    world.engines[0].drain();
    for progress in [Progress::More, Progress::More, Progress::Done] {
        assert_eq!(world.engines[0].close_some(now), progress);
        world.settle();
    }
    world.run(secs(1));
    assert!([client, last].iter().all(|&n| !world.clients[n].rtc.is_alive()));
    assert_empty(&world);
}

#[test]
fn an_idle_session_costs_next_to_nothing() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    world.push(client, session, &BOTH);
    world.connect(client);
    world.run(secs(60));
    world.timeouts[0] = 0;
    world.run(secs(60));
    assert!(world.describe(session).connected);
    assert!(world.timeouts[0] <= 30, "{} timeouts a minute", world.timeouts[0]);
}
