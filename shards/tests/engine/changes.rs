//! Publishers that negotiate a live track again, with other codecs or layers.

use str0m::format::Codec;
use str0m::media::{Direction, MediaKind};

use shards::command::{Ask, Description, Reply, SdpKind};

use crate::client::{Abilities, Packet, Source};
use crate::world::{World, local, ms, secs};

/// A first offer made again, with some lines changed (setCodecPreferences and the like).
fn offer_again(
    world: &mut World,
    session: shards::ids::SessionId,
    sdp: &str,
    change: fn(&str) -> String,
) {
    let again: String = sdp.lines().map(|line| change(line) + "\r\n").collect();
    assert_ne!(again, sdp, "it changes something");
    let sdp = again;
    let description = Description { kind: SdpKind::Offer, sdp };
    let answer = world.ask(0, Ask::Renegotiate { session, description });
    assert!(matches!(answer, Ok(Reply::Renegotiated { .. })), "{answer:?}");
}

fn codecs_reversed(line: &str) -> String {
    if !line.starts_with("m=video") {
        return line.to_owned();
    }
    let fields: Vec<&str> = line.split(' ').collect();
    let (head, formats) = fields.split_at(3);
    let formats: Vec<&str> = formats.iter().rev().copied().collect();
    format!("{} {}", head.join(" "), formats.join(" "))
}

#[test]
fn a_track_whose_codecs_are_reordered_goes_on_on_every_shard() {
    let mut world = World::new(2);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) = world.clients[client].offer(&[MediaKind::Video], Direction::SendOnly);
    world.push_offered(client, session, sdp.clone(), vec![local("cam", &mids[0])]);
    world.flow(client, &mids[0], 1);
    world.connect(client);
    let viewers = [0, 1].map(|shard| world.viewer(shard, &[(session, "cam")]).0);
    world.run(secs(1));
    offer_again(&mut world, session, &sdp, codecs_reversed);
    let late = [0, 1].map(|shard| world.viewer(shard, &[(session, "cam")]).0);
    world.run(secs(1));
    for viewer in viewers {
        let got = &world.clients[viewer].got;
        assert!(got.iter().all(|packet| packet.payload_type == got[0].payload_type));
        let numbers = world.clients[viewer].numbers(1);
        assert!(numbers.len() > 90 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
    for viewer in late {
        assert!(world.clients[viewer].numbers(1).len() > 30);
    }
    assert!(world.describe(session).tracks[0].active);
}

#[test]
fn layers_that_are_reordered_keep_their_meaning() {
    let mut world = World::new(2);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mid) = world.clients[client].offer_layers(&["f", "h", "q"]);
    world.push_offered(client, session, sdp.clone(), vec![local("cam", &mid)]);
    for (track, (rid, len)) in [("f", 900), ("h", 300), ("q", 100)].into_iter().enumerate() {
        let source = Source { mid: mid.clone(), rid: Some(rid) };
        world.flow_of(client, source, track as u32 + 1, len);
    }
    world.connect(client);
    let viewers = [0, 1].map(|shard| world.viewer(shard, &[(session, "cam")]).0);
    world.run(secs(4));
    offer_again(&mut world, session, &sdp, |line| match line {
        "a=simulcast:send f;h;q" => "a=simulcast:send q;h;f".to_owned(),
        other => other.to_owned(),
    });
    for viewer in viewers {
        world.clients[viewer].got.clear();
    }
    world.run(secs(4));
    for viewer in viewers {
        let got = &world.clients[viewer].got;
        assert!(got.len() > 190 && got.iter().all(|packet| packet.stamp().track == 1));
    }
}

#[test]
fn a_pull_that_lacks_the_codec_of_now_says_so_and_comes_back() {
    let mut world = World::new(1);
    let (publisher, session, mids) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let viewer =
        world.add_client_with(Abilities { only: Some(Codec::Vp8), ..Abilities::default() });
    let viewing = world.create(0);
    world.pull(viewer, viewing, &[(session, "cam")]);
    world.connect(viewer);
    world.run(ms(500));
    assert!(world.describe(viewing).tracks[0].active);
    world.flows[0].paused = true;
    let configs = world.clients[publisher].rtc.codec_config();
    let h264 = *configs.iter().find(|p| p.spec().codec == Codec::H264).unwrap().pt();
    let payload = vec![0x65; 100];
    let packet = Packet { timestamp: 9000, marker: true, payload, descriptor: None };
    let now = world.now;
    world.clients[publisher].write(&mids[0], h264, &packet, now);
    world.run(ms(100));
    let track = world.describe(viewing).tracks.remove(0);
    assert!(!track.active && track.reason.unwrap().contains("H264"));
    world.flows[0].paused = false;
    world.run(ms(500));
    assert!(world.describe(viewing).tracks[0].active);
}
