//! The Realtime API's cases, one by one.

use shards::command::{
    Ask, CloseRequest, Description, ItemError, Location, MediaKind as Kind, Refusal, Reply,
    SdpKind, TrackObject, TracksRequest,
};
use shards::engine::Progress;
use shards::ids::{AppId, SessionId};
use shards::limits::{TRACK_NAME_LEN, TRACKS_PER_CALL};
use str0m::media::{Direction, MediaKind};

use crate::media::BOTH;
use crate::world::{World, local, ms, offer_of, pulling, remote, remote_on, secs, tracks_of};

const AUDIO: [MediaKind; 1] = [MediaKind::Audio];
const VIDEO: [MediaKind; 1] = [MediaKind::Video];

fn pushing(sdp: String, tracks: Vec<TrackObject>) -> TracksRequest {
    TracksRequest { offer: Some(offer_of(sdp)), tracks, auto_discover: false }
}

/// Packets of this track came within the last moment.
fn flows(world: &World, client: usize, track: u32) -> bool {
    let recent = |got: &&crate::client::Got| world.now - got.at < ms(50);
    world.clients[client].got.iter().rev().take_while(recent).any(|g| g.stamp().track == track)
}

/// A transceiver of case C: what is asked of the SFU.
fn to_be_offered(name: &str, kind: Kind, bidirectional: bool) -> TrackObject {
    TrackObject {
        location: Some(Location::Local),
        track_name: Some(name.into()),
        kind: Some(kind),
        bidirectional,
        ..TrackObject::default()
    }
}

fn gone(session: SessionId, publisher: bool) -> Refusal {
    Refusal::Gone { session: session.to_string(), publisher }
}

#[test]
fn case_a_answers_each_pushed_track_with_its_mid_and_name_only() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) =
        world.clients[client].offer(&[MediaKind::Audio, MediaKind::Video], Direction::SendOnly);
    let tracks = vec![local("mic", &mids[0]), local("cam", &mids[1])];
    let reply = world.tracks(session, pushing(sdp, tracks));
    assert!(!reply.requires_immediate_renegotiation);
    assert_eq!(reply.description.unwrap().kind, SdpKind::Answer);
    for (result, (mid, name)) in reply.tracks.iter().zip(mids.iter().zip(["mic", "cam"])) {
        assert_eq!((&result.mid, result.track_name.as_deref()), (mid, Some(name)));
        assert_eq!((&result.session_id, result.kind, &result.error), (&None, None, &None));
    }
}

#[test]
fn case_b_discovers_what_the_client_sends_under_generated_names() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) =
        world.clients[client].offer(&[MediaKind::Audio, MediaKind::Video], Direction::SendOnly);
    let request = TracksRequest { offer: Some(offer_of(sdp)), tracks: vec![], auto_discover: true };
    let reply = world.tracks(session, request);
    world.clients[client].accept_answer(&reply.description.unwrap().sdp);
    let found: Vec<_> = reply.tracks.iter().map(|t| (t.mid.clone(), t.kind)).collect();
    assert_eq!(found, [(mids[0].clone(), Some(Kind::Audio)), (mids[1].clone(), Some(Kind::Video))]);
    let names: Vec<_> = reply.tracks.iter().map(|t| t.track_name.clone().unwrap()).collect();
    assert!(names[0].len() >= 16 && names[0] != names[1]);
    world.connect(client);
    world.flow(client, &mids[1], 7);
    world.run(ms(100));
    let (viewer, _, _) = world.viewer(0, &[(session, &names[1])]);
    world.run(secs(1));
    assert!(flows(&world, viewer, 7));
}

#[test]
fn discovery_without_an_offer_is_refused() {
    let mut world = World::new(1);
    let session = world.create(0);
    let request = TracksRequest { auto_discover: true, ..TracksRequest::default() };
    assert!(matches!(world.new_tracks(session, request), Err(Refusal::InvalidParams(_))));
}

#[test]
fn case_c_offers_to_receive_and_publishes_what_the_client_answers_to_send() {
    let mut world = World::new(2);
    let (client, session) = (world.add_client(), world.create(0));
    let tracks = vec![to_be_offered("cam", Kind::Video, false)];
    let reply = world.tracks(session, pulling(tracks));
    assert!(reply.requires_immediate_renegotiation);
    assert_eq!((&*reply.tracks[0].mid, reply.tracks[0].track_name.as_deref()), ("0", Some("cam")));
    let offer = reply.description.unwrap();
    assert!(offer.kind == SdpKind::Offer && offer.sdp.contains("a=recvonly"));
    assert!(world.describe(session).tracks.is_empty(), "nothing before the answer");
    world.answer_offer(client, session, &offer.sdp);
    world.connect(client);
    world.flow(client, "0", 5);
    world.run(ms(100));
    let (viewer, _, _) = world.viewer(1, &[(session, "cam")]);
    world.run(secs(1));
    assert!(flows(&world, viewer, 5));
}

/// The client sends and receives on one transceiver, which is pointed at one track after
/// another: `mid`, `#name`, through `tracks/new`.
#[test]
fn case_f_points_a_bidirectional_transceiver_at_one_track_after_another() {
    let mut world = World::new(3);
    let (_, one, _) = world.publisher(0, &[("a", MediaKind::Audio)]);
    let (_, two, _) = world.publisher(1, &[("b", MediaKind::Audio)]);
    world.flows[1].track = 2;
    let (client, session) = (world.add_client(), world.create(2));
    let reply = world.tracks(session, pulling(vec![to_be_offered("mic", Kind::Audio, true)]));
    let offer = reply.description.unwrap().sdp;
    assert!(offer.contains("a=sendrecv"));
    world.answer_offer(client, session, &offer);
    world.connect(client);
    world.flow(client, "0", 3);
    world.run(ms(100));
    let targets =
        [("0", one, "a", 1), ("#mic", two, "b", 2), ("#mic", one, "a", 1), ("0", two, "b", 2)];
    for (mid, publisher, name, track) in targets {
        let reply = world.tracks(session, pulling(vec![remote_on(mid, publisher, name)]));
        assert!(!reply.requires_immediate_renegotiation && reply.description.is_none());
        assert_eq!((&*reply.tracks[0].mid, &reply.tracks[0].error), ("0", &None));
        world.run(ms(300));
        assert!(flows(&world, client, track) && !flows(&world, client, 3 - track));
    }
    let (other, _, _) = world.viewer(0, &[(session, "mic")]);
    world.run(ms(300));
    assert!(flows(&world, other, 3), "and it publishes all the while");
}

#[test]
fn case_f_into_a_transceiver_that_cannot_send_fails_that_item() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (_, session, mids) = world.publisher(0, &[("own", MediaKind::Video)]);
    for mid in [&*mids[0], "99", "#none", "#own"] {
        let reply = world.tracks(session, pulling(vec![remote_on(mid, publisher, "cam")]));
        let error = reply.tracks[0].error.clone();
        assert!(matches!(error, Some(ItemError::BadTransceiver(_))), "{mid}: {error:?}");
        assert_eq!(reply.tracks[0].mid, "");
    }
}

#[test]
fn case_e_binds_tracks_to_the_m_lines_a_client_offers() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session) = (world.add_client(), world.create(1));
    let kinds = [MediaKind::Video, MediaKind::Audio];
    let (sdp, mids) = world.clients[client].offer(&kinds, Direction::RecvOnly);
    let tracks = vec![remote(publisher, "mic"), remote(publisher, "cam"), remote(publisher, "cam")];
    let reply = world.tracks(session, pushing(sdp, tracks));
    assert!(!reply.requires_immediate_renegotiation);
    let bound: Vec<_> = reply.tracks.iter().map(|track| track.mid.clone()).collect();
    assert_eq!(bound, [mids[1].clone(), mids[0].clone(), String::new()]);
    assert!(matches!(reply.tracks[2].error, Some(ItemError::BadTransceiver(_))));
    world.clients[client].accept_answer(&reply.description.unwrap().sdp);
    world.connect(client);
    world.run(secs(1));
    assert!(flows(&world, client, 1) && flows(&world, client, 2));
}

#[test]
fn case_g_tells_failures_without_an_offer_and_case_h_offers_the_rest() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let session = world.create(0);
    let bad = TrackObject { session_id: Some("no id".into()), ..remote(publisher, "mic") };
    let reply = world.tracks(session, pulling(vec![bad.clone()]));
    assert_eq!((reply.requires_immediate_renegotiation, reply.description), (false, None));
    assert_eq!(reply.tracks[0].error, Some(ItemError::NotFoundTrack));
    let reply = world.tracks(session, pulling(vec![bad, remote(publisher, "cam")]));
    assert!(reply.requires_immediate_renegotiation);
    let mids: Vec<_> = reply.tracks.iter().map(|track| &*track.mid).collect();
    assert_eq!(mids, ["", "0"]);
    let id = publisher.to_string();
    assert_eq!(reply.tracks[1].session_id.as_ref(), Some(&id));
    assert_eq!(reply.tracks[1].track_name.as_deref(), Some("cam"));
}

#[test]
fn case_i_takes_a_free_line_of_the_client_before_making_a_new_one() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) = world.clients[client].offer(&VIDEO, Direction::RecvOnly);
    let ask = Ask::Renegotiate { session, description: offer_of(sdp) };
    let Ok(Reply::Renegotiated { answer: Some(answer) }) = world.ask(0, ask) else {
        panic!("an answer is expected")
    };
    world.clients[client].accept_answer(&answer.sdp);
    world.connect(client);
    assert_eq!(world.pull(client, session, &[(publisher, "cam")]), mids);
    world.run(secs(1));
    assert!(flows(&world, client, 2));
}

#[test]
fn a_repeated_pull_gets_a_transceiver_of_its_own() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session, _) = world.viewer(0, &[(publisher, "cam")]);
    assert_eq!(world.pull(client, session, &[(publisher, "cam")]), ["1"]);
    world.run(secs(1));
    let ssrcs: std::collections::BTreeSet<_> =
        world.clients[client].got.iter().map(|got| got.ssrc).collect();
    assert_eq!(ssrcs.len(), 2);
}

#[test]
fn while_our_offer_is_open_other_negotiations_are_refused_and_updates_are_not() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session, mids) = world.viewer(0, &[(publisher, "cam")]);
    let reply = world.tracks(session, pulling(vec![remote(publisher, "mic")]));
    let offer = reply.description.unwrap().sdp;
    let again = world.new_tracks(session, pulling(vec![remote(publisher, "mic")]));
    assert_eq!(again, Err(Refusal::HaveLocalOffer));
    let receive = world.tracks_refused(session, to_be_offered("x", Kind::Video, false));
    assert_eq!(receive, Refusal::HaveLocalOffer);
    let description = offer_of(offer.clone());
    let answer = world.ask(0, Ask::Renegotiate { session, description });
    assert_eq!(answer, Err(Refusal::HaveLocalOffer));
    let reply = world.update(session, vec![remote_on(&mids[0], publisher, "cam")]);
    assert_eq!(reply.tracks[0].error, None);
    world.answer_offer(client, session, &offer);
    world.run(secs(1));
    assert!(flows(&world, client, 1));
}

#[test]
fn an_answer_nobody_asked_for_is_refused() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let description = Description { kind: SdpKind::Answer, sdp: "v=0\r\n".into() };
    let answer = world.ask(0, Ask::Renegotiate { session, description });
    assert_eq!(answer, Err(Refusal::NoLocalOffer));
}

#[test]
fn a_bad_answer_leaves_the_offer_open_for_a_better_one() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session) = (world.add_client(), world.create(0));
    let reply = world.tracks(session, pulling(vec![remote(publisher, "cam")]));
    let description = Description { kind: SdpKind::Answer, sdp: "v=0\r\n".into() };
    let answer = world.ask(0, Ask::Renegotiate { session, description });
    assert!(matches!(answer, Err(Refusal::InvalidDescription(_))), "{answer:?}");
    world.answer_offer(client, session, &reply.description.unwrap().sdp);
    world.connect(client);
    world.run(secs(1));
    assert!(flows(&world, client, 2));
}

#[test]
fn unknown_and_ended_sessions_are_gone_and_the_publisher_is_named_when_it_is_its() {
    let mut world = World::new(2);
    let (publisher, viewer) = (world.create(0), world.create(1));
    let foreign: SessionId = format!("00ff{}", &publisher.to_string()[4..]).parse().unwrap();
    world.delete(publisher);
    for session in [publisher, foreign] {
        for viewer_shard in [0, 1] {
            let viewer = if viewer_shard == 1 { viewer } else { world.create(0) };
            let answer = world.new_tracks(viewer, pulling(vec![remote(session, "cam")]));
            assert_eq!(answer, Err(gone(session, true)));
        }
    }
    let mids = vec!["0".to_owned()];
    for ask in [
        Ask::Describe { session: publisher },
        Ask::Delete { session: publisher },
        Ask::NewTracks { session: publisher, request: pulling(vec![remote(viewer, "x")]) },
        Ask::UpdateTracks { session: publisher, tracks: vec![] },
        Ask::CloseTracks {
            session: publisher,
            request: CloseRequest { mids, force: true, offer: None },
        },
    ] {
        assert_eq!(world.ask(1, ask), Err(gone(publisher, false)));
    }
}

#[test]
fn another_applications_sessions_and_tracks_are_as_if_absent() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let other = AppId(1);
    assert_eq!(
        world.ask_as(other, 0, Ask::Describe { session: publisher }),
        Err(gone(publisher, false))
    );
    for shard in [0, 1] {
        let created = world.ask_as(other, shard, Ask::Create { offer: None });
        let Ok(Reply::Created { session, .. }) = created else { panic!("{created:?}") };
        let request = pulling(vec![remote(publisher, "cam")]);
        let answer = world.ask_as(other, shard, Ask::NewTracks { session, request });
        assert_eq!(answer, Err(gone(publisher, true)), "from shard {shard}");
    }
    assert!(world.describe(publisher).connected);
}

#[test]
fn a_forced_close_stops_media_without_sdp_and_a_second_one_finds_it_closed() {
    let mut world = World::new(2);
    let (_, publisher, mids) = world.publisher(0, &BOTH);
    let (viewer, session, pulled) = world.viewer(1, &[(publisher, "mic"), (publisher, "cam")]);
    world.run(secs(1));
    let reply = world.close(session, &[&pulled[1], "99", &pulled[1]], None);
    assert_eq!((reply.requires_immediate_renegotiation, reply.description), (false, None));
    let told: Vec<_> = reply.tracks.iter().map(|t| (&*t.mid, t.error.clone())).collect();
    let closed = Some(ItemError::AlreadyClosed);
    assert_eq!(told, [("1", None), ("99", closed.clone()), ("1", closed.clone())]);
    world.run(ms(200));
    assert!(flows(&world, viewer, 1) && !flows(&world, viewer, 2));
    assert_eq!(world.close(session, &[&pulled[1]], None).tracks[0].error, closed);
    world.close(publisher, &[&mids[0]], None);
    world.run(ms(200));
    assert!(!flows(&world, viewer, 1), "closing a publication ends it for its viewers");
    let reply = world.ask(
        0,
        Ask::CloseTracks {
            session,
            request: CloseRequest { mids: vec![String::new()], force: true, offer: None },
        },
    );
    assert!(matches!(reply, Err(Refusal::InvalidParams(_))));
}

#[test]
fn a_pull_that_waits_for_its_answer_can_be_closed() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session) = (world.add_client(), world.create(1));
    let reply =
        world.tracks(session, pulling(vec![remote(publisher, "mic"), remote(publisher, "cam")]));
    assert_eq!(world.close(session, &["1"], None).tracks[0].error, None);
    world.answer_offer(client, session, &reply.description.unwrap().sdp);
    world.connect(client);
    world.run(secs(1));
    assert!(flows(&world, client, 1) && !flows(&world, client, 2));
    assert_eq!(world.engines[1].feeds(), 1);
}

#[test]
fn an_unforced_close_is_answered_even_if_items_fail() {
    let mut world = World::new(1);
    let (client, session, mids) = world.publisher(0, &BOTH);
    world.flows[1].paused = true;
    let offer = world.clients[client].offer_direction(&mids[1], Direction::Inactive);
    let reply = world.close(session, &[&mids[1], "99"], Some(offer));
    assert_eq!(reply.tracks[0].error, None);
    assert_eq!(reply.tracks[1].error, Some(ItemError::AlreadyClosed));
    let answer = reply.description.unwrap();
    assert!(answer.sdp.contains("a=inactive"));
    world.clients[client].accept_answer(&answer.sdp);
    let active: Vec<_> = world.describe(session).tracks.iter().map(|t| t.active).collect();
    assert_eq!(active, [true, false]);
    let request = CloseRequest { mids: vec![mids[0].clone()], force: false, offer: None };
    let answer = world.ask(0, Ask::CloseTracks { session, request });
    assert!(matches!(answer, Err(Refusal::InvalidParams(_))));
}

#[test]
fn a_new_name_on_a_force_closed_mid_carries_media() {
    let mut world = World::new(2);
    let (_, session, mids) = world.publisher(0, &BOTH);
    world.close(session, &[&mids[1]], None);
    for name in ["cam-2", "cam"] {
        let request = pulling(vec![local(name, &mids[1])]);
        let reply = world.tracks(session, request);
        assert_eq!((&reply.tracks[0].error, &reply.description), (&None, &None));
        let (viewer, _, _) = world.viewer(1, &[(session, name)]);
        world.run(secs(1));
        assert!(flows(&world, viewer, 2), "{name}");
    }
    let names: Vec<_> = world.describe(session).tracks.into_iter().map(|t| t.track_name).collect();
    assert_eq!(names, ["mic", "cam"]);
}

#[test]
fn publishing_the_same_again_is_no_error_and_the_name_on_another_mid_is() {
    let mut world = World::new(1);
    let (_, session, mids) = world.publisher(0, &BOTH);
    let reply =
        world.tracks(session, pulling(vec![local("cam", &mids[1]), local("cam", &mids[0])]));
    assert_eq!(reply.tracks[0].error, None);
    assert_eq!(reply.tracks[1].error, Some(ItemError::RepeatedTrack("cam".into())));
    let long = "x".repeat(TRACK_NAME_LEN + 1);
    let reply = world.tracks(session, pulling(vec![local(&long, &mids[0]), local("y", "99")]));
    assert!(matches!(reply.tracks[0].error, Some(ItemError::Limit(_))));
    assert_eq!(reply.tracks[1].error, Some(ItemError::BadTransceiver("99".into())));
}

#[test]
fn an_update_points_elsewhere_and_falls_back_from_a_wrong_mid_to_the_track() {
    let mut world = World::new(2);
    let (_, one, _) = world.publisher(0, &[("a", MediaKind::Video)]);
    let (_, two, _) = world.publisher(1, &[("b", MediaKind::Video)]);
    world.flows[1].track = 2;
    let (viewer, session, mids) = world.viewer(1, &[(one, "a")]);
    let reply = world.update(session, vec![remote_on(&mids[0], two, "b")]);
    let told = &reply.tracks[0];
    assert_eq!((&told.mid, told.track_name.as_deref(), &told.error), (&mids[0], Some("b"), &None));
    world.run(secs(1));
    assert!(flows(&world, viewer, 2) && !flows(&world, viewer, 1));
    let info = world.describe(session);
    assert_eq!((info.tracks.len(), &*info.tracks[0].track_name), (1, "b"));
    // Some clients send the publisher's mid.
    let reply = world.update(session, vec![remote_on("publishers", two, "b")]);
    assert_eq!((&reply.tracks[0].mid, &reply.tracks[0].error), (&mids[0], &None));
    let reply = world.update(session, vec![remote_on("publishers", one, "a")]);
    assert_eq!(reply.tracks[0].error, Some(ItemError::AlreadyClosed));
    let reply = world.update(session, vec![remote_on(&mids[0], one, "none")]);
    assert_eq!(reply.tracks[0].error, Some(ItemError::NotFoundTrack));
    world.run(ms(100));
    assert!(flows(&world, viewer, 2), "a failed update changes nothing");
}

#[test]
fn pushing_and_pulling_in_one_request_or_too_much_of_it_is_refused() {
    let mut world = World::new(1);
    let (_, session, mids) = world.publisher(0, &BOTH);
    let mixed = vec![local("x", &mids[0]), remote(session, "cam")];
    let nowhere = TrackObject { location: None, ..remote(session, "cam") };
    let many = vec![remote(session, "cam"); TRACKS_PER_CALL + 1];
    let nameless = TrackObject { track_name: None, ..remote(session, "cam") };
    for tracks in [mixed, vec![nowhere], many, vec![], vec![nameless]] {
        let answer = world.new_tracks(session, pulling(tracks));
        assert!(matches!(answer, Err(Refusal::InvalidParams(_))), "{answer:?}");
    }
    let most = vec![remote(session, "cam"); TRACKS_PER_CALL];
    assert_eq!(world.tracks(session, pulling(most)).tracks.len(), TRACKS_PER_CALL);
}

#[test]
fn a_session_can_be_opened_with_an_offer_that_sends_nothing() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    for direction in [Direction::Inactive, Direction::RecvOnly] {
        let client = world.add_client();
        let (sdp, _) = world.clients[client].offer(&AUDIO, direction);
        let created = world.ask(1, Ask::Create { offer: Some(offer_of(sdp)) });
        let Ok(Reply::Created { session, answer: Some(answer) }) = created else {
            panic!("{created:?}")
        };
        world.clients[client].accept_answer(&answer.sdp);
        world.connect(client);
        world.pull(client, session, &[(publisher, "cam")]);
        world.run(secs(1));
        assert!(flows(&world, client, 2));
    }
}

#[test]
fn a_session_whose_first_offer_is_bad_does_not_come_to_be() {
    let mut world = World::new(1);
    let answer = world.ask(0, Ask::Create { offer: Some(offer_of("nonsense".into())) });
    assert!(matches!(answer, Err(Refusal::InvalidDescription(_))), "{answer:?}");
    assert!(world.engines[0].is_empty());
}

#[test]
fn a_draining_shard_takes_no_new_sessions_and_keeps_the_old_ones() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &BOTH);
    world.engines[0].drain();
    assert_eq!(world.ask(0, Ask::Create { offer: None }), Err(Refusal::Draining));
    assert!(world.describe(session).connected);
    let now = world.now;
    assert_eq!(world.engines[0].close_some(now), Progress::Done);
    world.flows.clear();
    world.run(secs(1));
    assert!(world.engines[0].is_empty());
}

impl World {
    fn tracks_refused(&mut self, session: SessionId, track: TrackObject) -> Refusal {
        self.new_tracks(session, pulling(vec![track])).unwrap_err()
    }
}

#[test]
fn a_request_may_come_to_any_shard() {
    let mut world = World::new(3);
    let session = world.create(2);
    let ticket = world.tell(0, Ask::Describe { session });
    assert_eq!(ticket.shard.index(), 0);
    assert!(matches!(world.wait_for(ticket), Ok(Reply::Described(info)) if !info.connected));
    let reply = world.ask(1, Ask::UpdateTracks { session, tracks: vec![] });
    assert_eq!(tracks_of(reply).tracks, []);
}

#[test]
fn a_stopped_m_line_is_recycled_and_the_lists_do_not_grow() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session, _) = world.viewer(0, &[(publisher, "mic")]);
    for round in 0..5 {
        let mids = world.pull(client, session, &[(publisher, "cam")]);
        assert_eq!(mids, [(round + 1).to_string()], "a recycled m-line has a new mid");
        world.run(secs(1));
        let offer = world.clients[client].offer_stop(&mids[0]);
        let reply = world.close(session, &[&mids[0]], Some(offer));
        world.clients[client].accept_answer(&reply.description.unwrap().sdp);
        world.run(ms(200));
        assert!(flows(&world, client, 1) && !flows(&world, client, 2));
    }
    assert_eq!(world.describe(session).tracks.len(), 2, "the last one's m-line is still there");
}

#[test]
fn case_c_with_a_taken_or_repeated_name_fails_that_item() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let tracks = vec![
        to_be_offered("cam", Kind::Video, false),
        to_be_offered("new", Kind::Video, false),
        to_be_offered("new", Kind::Audio, false),
        to_be_offered("", Kind::Audio, false),
    ];
    let reply = world.tracks(session, pulling(tracks));
    let errors: Vec<_> = reply.tracks.iter().map(|track| track.error.clone()).collect();
    let repeated = |name: &str| Some(ItemError::RepeatedTrack(name.into()));
    let too_long = Some(ItemError::Limit("characters of a track name".into()));
    assert_eq!(errors, [repeated("cam"), None, repeated("new"), too_long]);
    assert!(reply.requires_immediate_renegotiation);
}
