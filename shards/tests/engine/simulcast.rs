//! Simulcast: which layer a viewer gets, and what happens when layers come and go.

use std::time::Instant;

use shards::command::{Description, ItemError, Simulcast, TrackObject};
use shards::ids::SessionId;
use str0m::media::MediaKind;

use crate::client::Source;
use crate::media::assert_continuous;
use crate::world::{FRAME, World, lossy, ms, pulling, remote, remote_on, secs};

const RIDS: [&str; 3] = ["f", "h", "q"];
/// Bytes of a frame, by layer.
const LENS: [usize; 3] = [900, 300, 100];

/// Shard 1 is another shard of the same node, another node, and one of another node that gets the
/// track from a third shard or not.
fn worlds() -> [World; 3] {
    [World::new(2), World::of_nodes(2, 1), World::of_nodes(2, 3)]
}

/// The shard of a world where its other viewers are.
fn elsewhere(world: &World) -> usize {
    world.engines.len() - 1
}

/// A publisher of one track with three layers, which are tracks 1 to 3 to the viewers.
fn publisher(world: &mut World, lens: [usize; 3]) -> (usize, SessionId) {
    let (client, session) = (world.add_client(), world.create(0));
    let mid = world.push_layers(client, session, "cam", &RIDS);
    for (at, rid) in RIDS.into_iter().enumerate() {
        let source = Source { mid: mid.clone(), rid: Some(rid) };
        world.flow_of(client, source, at as u32 + 1, lens[at]);
    }
    world.connect(client);
    world.run(secs(3));
    (client, session)
}

fn preferring(rid: &str, object: TrackObject) -> TrackObject {
    let simulcast = Simulcast { preferred_rid: Some(rid.into()), ..Simulcast::default() };
    TrackObject { simulcast: Some(simulcast), ..object }
}

/// A connected viewer that pulls with a preference; returns its client, session and mid.
fn viewer(world: &mut World, shard: usize, object: TrackObject) -> (usize, SessionId, String) {
    let (client, session) = (world.add_client(), world.create(shard));
    let reply = world.tracks(session, pulling(vec![object]));
    let Some(Description { sdp, .. }) = reply.description else { panic!("{:?}", reply.tracks) };
    world.answer_offer(client, session, &sdp);
    world.connect(client);
    (client, session, reply.tracks[0].mid.clone())
}

/// The layers a viewer got since then, each once, in order.
fn layers(world: &World, viewer: usize, since: Instant) -> Vec<u32> {
    let got = world.clients[viewer].got.iter().filter(|got| got.at > since);
    let mut layers: Vec<u32> = got.map(|got| got.stamp().track).collect();
    layers.dedup();
    layers
}

#[test]
fn a_viewer_without_a_preference_gets_the_best_layer() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, LENS);
        for shard in [0, other] {
            let (client, _, _) = viewer(&mut world, shard, remote(session, "cam"));
            world.run(secs(3));
            let since = world.now - secs(1);
            assert_eq!(layers(&world, client, since), [1], "on shard {shard}");
            let ssrc = world.clients[client].got[0].ssrc;
            assert_continuous(&world.clients[client], ssrc, true);
        }
    }
}

#[test]
fn a_preferred_layer_is_forwarded_and_an_empty_preference_is_none() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, LENS);
        for (shard, rid, layer) in [(0, "h", 2), (other, "q", 3), (other, "", 1)] {
            let object = preferring(rid, remote(session, "cam"));
            let (client, _, _) = viewer(&mut world, shard, object);
            world.run(secs(3));
            let since = world.now - secs(1);
            assert_eq!(layers(&world, client, since), [layer], "{rid:?} on shard {shard}");
        }
    }
}

#[test]
fn another_layer_is_chosen_at_once_and_the_stream_stays_continuous() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, LENS);
        let (client, pulling, mid) =
            viewer(&mut world, other, preferring("q", remote(session, "cam")));
        world.run(secs(2));
        for (rid, layer) in [("f", 1), ("h", 2), ("q", 3), ("f", 1), ("q", 3)] {
            let object = preferring(rid, remote_on(&mid, session, "cam"));
            assert_eq!(world.update(pulling, vec![object]).tracks[0].error, None);
            let asked = world.now;
            world.run_until(ms(600), |world| layers(world, client, asked).contains(&layer));
            world.run(secs(1));
            let since = world.now - ms(500);
            assert_eq!(layers(&world, client, since), [layer]);
        }
        let ssrc = world.clients[client].got[0].ssrc;
        assert_continuous(&world.clients[client], ssrc, true);
    }
}

#[test]
fn resends_across_a_change_of_layers_do_not_disturb_picture_ids() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, LENS);
        let (client, pulling, mid) =
            viewer(&mut world, other, preferring("q", remote(session, "cam")));
        let address = world.clients[client].external;
        world.network = lossy(15, move |from, to| from == address || to == address);
        for rid in ["f", "q", "h", "f", "q", "h", "f", "q"] {
            let object = preferring(rid, remote_on(&mid, session, "cam"));
            world.update(pulling, vec![object]);
            world.run(ms(700));
        }
        let mut got: Vec<_> = world.clients[client].got.iter().collect();
        got.sort_by_key(|got| got.seq);
        let first = (got[0].seq, got[0].picture());
        for got in &got {
            let ahead = (got.seq - first.0) as u16;
            assert_eq!(got.picture(), first.1 + ahead, "a picture per packet, without a gap");
        }
        assert!(world.engines[other].meters().resends > 20);
    }
}

#[test]
fn when_a_layer_stops_another_is_forwarded_until_it_comes_back() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, LENS);
        let (best, _, _) = viewer(&mut world, other, remote(session, "cam"));
        let (picky, _, _) = viewer(&mut world, 0, preferring("f", remote(session, "cam")));
        world.run(secs(3));
        world.flows[0].paused = true;
        world.run(secs(4));
        let since = world.now - secs(1);
        assert_eq!([best, picky].map(|viewer| layers(&world, viewer, since)), [[2], [2]]);
        world.flows[0].paused = false;
        world.run(secs(4));
        let since = world.now - secs(1);
        assert_eq!([best, picky].map(|viewer| layers(&world, viewer, since)), [[1], [1]]);
    }
}

#[test]
fn a_layer_of_a_track_without_layers_cannot_be_chosen() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let (_, pulling, mids) = world.viewer(0, &[(session, "cam")]);
    let object = preferring("f", remote_on(&mids[0], session, "cam"));
    let reply = world.update(pulling, vec![object]);
    assert_eq!(reply.tracks[0].error, Some(ItemError::NotSimulcast));
}

#[test]
fn a_pull_into_a_transceiver_brings_its_own_preference() {
    let mut world = World::new(2);
    let (_, session) = publisher(&mut world, LENS);
    let (client, viewing, mid) = viewer(&mut world, 1, preferring("q", remote(session, "cam")));
    world.run(secs(1));
    for (object, layer) in [
        (preferring("h", remote_on(&mid, session, "cam")), 2),
        (remote_on(&mid, session, "cam"), 1),
    ] {
        let reply = world.tracks(viewing, pulling(vec![object]));
        assert_eq!((&reply.tracks[0].error, &reply.tracks[0].mid), (&None, &mid));
        world.run(secs(2));
        let since = world.now - ms(500);
        assert_eq!(layers(&world, client, since), [layer]);
    }
}

#[test]
fn layers_of_nearly_equal_rates_do_not_alternate() {
    for mut world in worlds() {
        let other = elsewhere(&world);
        let (_, session) = publisher(&mut world, [500, 500, 500]);
        let (client, _, _) = viewer(&mut world, other, remote(session, "cam"));
        world.run(secs(1));
        let since = world.now;
        for n in 0..400 {
            for flow in 0..3 {
                world.flows[flow].len = 450 + (n * 37 + flow * 61) % 100;
            }
            world.run(FRAME);
        }
        assert_eq!(layers(&world, client, since).len(), 1);
    }
}

#[test]
fn only_the_layers_that_somebody_there_wants_go_to_another_node() {
    let mut world = World::of_nodes(2, 2);
    let (_, session) = publisher(&mut world, LENS);
    let (_, small, mid) = viewer(&mut world, 2, preferring("q", remote(session, "cam")));
    world.run(secs(4));
    let relayed = |world: &World| -> u64 {
        world.engines.iter().map(|engine| engine.meters().packets_relayed_in).sum()
    };
    let count = |world: &mut World| {
        let before = relayed(world);
        world.run(secs(2));
        (relayed(world) - before) / 100
    };
    assert_eq!(count(&mut world), 1, "fifty packets a second of one layer");
    let (_, large, _) = viewer(&mut world, 3, preferring("f", remote(session, "cam")));
    world.run(secs(1));
    assert_eq!(count(&mut world), 2);
    let object = preferring("f", remote_on(&mid, session, "cam"));
    world.update(small, vec![object]);
    world.run(secs(4));
    assert_eq!(count(&mut world), 1);
    world.delete(large);
    world.delete(small);
    world.run(secs(1));
    assert_eq!(count(&mut world), 0);
}
