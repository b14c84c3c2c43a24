//! Redundant audio: as it is to those who negotiated it, unwrapped for the others.

use str0m::media::MediaKind;

use crate::client::{Abilities, RED_BLOCK, red_headers};
use crate::world::{World, pulling, remote, secs};

const LEN: usize = 100;

#[test]
fn redundant_audio_is_passed_through_or_unwrapped() {
    let mut world = World::new(2);
    let red = Abilities { red: true, ..Abilities::default() };
    let (publisher, session) = (world.add_client_with(red), world.create(0));
    let mids = world.push(publisher, session, &[("mic", MediaKind::Audio)]);
    world.connect(publisher);
    world.flow(publisher, &mids[0], 1);
    world.run(secs(1));
    for (abilities, shard) in [(red, 0), (red, 1), (Abilities::default(), 0)] {
        let (viewer, viewing) = (world.add_client_with(abilities), world.create(shard));
        let reply = world.tracks(viewing, pulling(vec![remote(session, "mic")]));
        world.answer_offer(viewer, viewing, &reply.description.unwrap().sdp);
        world.connect(viewer);
        world.run(secs(1));
        let client = &world.clients[viewer];
        assert!(client.track(1).len() > 45);
        for got in client.track(1) {
            let opus = client.rtc.codec_config().iter().next().unwrap();
            if abilities.red {
                assert_eq!(Some(got.payload_type), opus.red().map(|pt| *pt));
                assert_eq!(
                    (&got.payload[..5], got.payload.len()),
                    (&red_headers(*opus.pt())[..], LEN)
                );
            } else {
                assert_eq!(got.payload_type, *opus.pt());
                assert_eq!(got.payload.len(), LEN - 5 - RED_BLOCK, "the primary block alone");
            }
        }
    }
}
