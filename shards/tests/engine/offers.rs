//! Offers of ours that are never answered, or cannot be made.

use shards::command::{Ask, CloseRequest, Description, Refusal, SdpKind};
use str0m::media::{Direction, MediaKind};

use crate::media::BOTH;
use crate::world::{World, pulling, remote, remote_on, secs};

fn late_answer(
    world: &mut World,
    client: usize,
    session: shards::ids::SessionId,
    offer: &Description,
) {
    let sdp = world.clients[client].accept_offer(&offer.sdp);
    let description = Description { kind: SdpKind::Answer, sdp };
    let answer = world.ask(0, Ask::Renegotiate { session, description });
    assert_eq!(answer, Err(Refusal::NoLocalOffer));
}

#[test]
fn an_offer_that_is_never_answered_is_given_up() {
    let mut world = World::new(2);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session, _) = world.viewer(1, &[(publisher, "mic")]);
    let reply = world.tracks(session, pulling(vec![remote(publisher, "cam")]));
    let offer = reply.description.unwrap();
    world.run(secs(25));
    let refused = world.new_tracks(session, pulling(vec![remote(publisher, "cam")]));
    assert_eq!(refused, Err(Refusal::HaveLocalOffer));
    world.run(secs(6));
    assert_eq!(world.engines[1].feeds(), 1, "the camera is let go");
    let cam = world.describe(session).tracks.into_iter().find(|t| t.track_name == "cam").unwrap();
    assert!(!cam.active && cam.reason.unwrap().contains("did not answer"));
    late_answer(&mut world, client, session, &offer);
    world.pull(client, session, &[(publisher, "cam")]);
    world.run(secs(1));
    assert!(world.clients[client].numbers(1).len() > 1000, "the microphone never stopped");
    assert!(world.clients[client].numbers(2).len() > 40);
    let tracks = world.describe(session).tracks;
    assert!(tracks.len() == 2 && tracks.iter().all(|track| track.active), "{tracks:?}");
}

#[test]
fn an_offer_whose_tracks_were_all_closed_is_given_up() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (client, session, _) = world.viewer(0, &[(publisher, "mic")]);
    let reply = world.tracks(session, pulling(vec![remote(publisher, "cam")]));
    let (offer, mid) = (reply.description.unwrap(), reply.tracks[0].mid.clone());
    let request = CloseRequest { mids: vec![mid], force: true, offer: None };
    world.ask(0, Ask::CloseTracks { session, request }).unwrap();
    late_answer(&mut world, client, session, &offer);
    world.pull(client, session, &[(publisher, "cam")]);
    world.run(secs(1));
    assert!(world.clients[client].numbers(2).len() > 40);
}

#[test]
fn a_pull_whose_offer_cannot_be_made_moves_no_other_track() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &BOTH);
    let (_, other, _) = world.publisher(0, &[("voice", MediaKind::Audio)]);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) = world.clients[client].offer(&[MediaKind::Audio], Direction::RecvOnly);
    // The client uses every payload type for something of its own: none is left for video.
    let formats: Vec<String> = (35..=127)
        .filter(|pt| !(64..=95).contains(pt) && !sdp.contains(&format!("a=rtpmap:{pt} ")))
        .map(|pt| pt.to_string())
        .collect();
    let mut crowded = String::new();
    for line in sdp.lines() {
        crowded.push_str(line);
        if line.starts_with("m=audio") {
            crowded.extend([" ", &formats.join(" ")]);
        }
        crowded.push_str("\r\n");
    }
    crowded.extend(formats.iter().map(|pt| format!("a=rtpmap:{pt} own{pt}/90000\r\n")));
    let tracks = vec![remote_on(&mids[0], publisher, "mic")];
    world.push_offered(client, session, crowded, tracks);
    world.connect(client);
    let both = vec![remote_on(&mids[0], other, "voice"), remote(publisher, "cam")];
    let refused = world.new_tracks(session, pulling(both));
    assert!(matches!(refused, Err(Refusal::InvalidDescription(_))), "{refused:?}");
    let tracks = world.describe(session).tracks;
    assert_eq!(tracks.len(), 1);
    assert_eq!((tracks[0].track_name.as_str(), tracks[0].active), ("mic", true));
}
