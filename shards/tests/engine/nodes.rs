//! Several nodes: a track crosses once, and only what is wanted of it; wants heal.

use relay::wire::Header;
use shards::cluster::note::Note;
use str0m::media::MediaKind;

use crate::hub;
use crate::media::BOTH;
use crate::world::{World, lossy, ms, pulling, remote, secs};

fn between_nodes(from: std::net::SocketAddr, to: std::net::SocketAddr) -> bool {
    hub::node_at(from).is_some() && hub::node_at(to).is_some()
}

#[test]
fn a_track_of_another_node_crosses_once_and_reaches_all_its_viewers() {
    let mut world = World::of_nodes(3, 2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let viewers: Vec<_> =
        (0..12).map(|n| world.viewer(n % 6, &[(session, "mic"), (session, "cam")]).0).collect();
    world.run(secs(2));
    let relayed = |world: &World, node: usize| -> u64 {
        world.engines[node * 2..][..2].iter().map(|e| e.meters().packets_relayed_in).sum()
    };
    let before = (world.engines[0].meters().packets_in, relayed(&world, 1), relayed(&world, 2));
    for &viewer in &viewers {
        world.clients[viewer].got.clear();
    }
    world.run(secs(2));
    let sent = world.engines[0].meters().packets_in - before.0;
    assert!(sent > 190, "{sent}");
    for (node, before) in [(1, before.1), (2, before.2)] {
        let came = relayed(&world, node) - before;
        assert!(came.abs_diff(sent) <= 4, "node {node}: {came} of {sent}");
    }
    for viewer in viewers {
        let client = &world.clients[viewer];
        assert!(client.numbers(1).len() >= 98 && client.numbers(2).len() >= 98);
    }
}

#[test]
fn losses_between_nodes_are_healed_there_and_no_viewer_or_publisher_sees_them() {
    let mut world = World::of_nodes(2, 1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, ..) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    world.network = lossy(2, between_nodes);
    world.clients[viewer].got.clear();
    world.run(secs(10));
    world.network = lossy(0, between_nodes);
    world.run(secs(1));
    let client = &world.clients[viewer];
    for track in [1, 2] {
        let numbers = client.numbers(track);
        let (first, last) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
        assert_eq!(u64::from(last - first) + 1, numbers.len() as u64, "none is missing");
    }
    let lost: u64 = world.engines[1].links().map(|link| link.stats.lost_in).sum();
    assert!(lost > 5, "{lost}");
    assert_eq!(world.engines[0].meters().nacks_received, 0);
}

#[test]
fn what_nobody_wants_any_more_stops_and_all_is_forgotten() {
    let mut world = World::of_nodes(2, 2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let viewers: Vec<_> = (2..4).map(|n| world.viewer(n, &[(session, "mic")]).1).collect();
    world.run(secs(1));
    for viewer in viewers {
        world.delete(viewer);
    }
    world.run(ms(200));
    let before: u64 = world.engines.iter().map(|e| e.meters().packets_relayed_in).sum();
    world.run(secs(3));
    let after: u64 = world.engines.iter().map(|e| e.meters().packets_relayed_in).sum();
    assert_eq!(before, after);
    world.delete(session);
    world.run(secs(8));
    for engine in &world.engines {
        assert!(engine.is_empty(), "{engine:?}");
    }
}

#[test]
fn a_viewer_that_was_lost_with_its_letters_is_forgotten_within_seconds() {
    let mut world = World::of_nodes(2, 1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (_, viewing, _) = world.viewer(1, &[(session, "mic")]);
    world.run(secs(1));
    world.hub.loses = true;
    world.delete(viewing);
    world.run(secs(8));
    assert!(world.engines[0].links().all(|link| link.lanes_out == 0));
}

#[test]
fn a_connection_that_breaks_and_comes_back_carries_on() {
    let mut world = World::of_nodes(2, 2);
    let (_, session, _) = world.publisher(1, &BOTH);
    let (viewer, ..) = world.viewer(3, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    world.hub.disconnect(0, 1, 2);
    world.run(secs(3));
    world.clients[viewer].got.clear();
    world.run(secs(1));
    assert!(world.clients[viewer].got.is_empty(), "nothing comes meanwhile");
    world.hub.connect(0, 1, 2);
    world.run(ms(500));
    world.clients[viewer].got.clear();
    world.run(secs(2));
    let client = &world.clients[viewer];
    assert!(client.numbers(1).len() >= 98 && client.numbers(2).len() >= 98);
}

#[test]
fn a_track_that_comes_later_is_waited_for_and_one_that_never_comes_is_not_found() {
    let mut world = World::of_nodes(2, 2);
    let publisher = world.create(0);
    let viewer = world.create(3);
    let request = pulling(vec![remote(publisher, "cam")]);
    let answer = world.new_tracks(viewer, request);
    assert!(format!("{answer:?}").contains("NotFoundTrack"), "{answer:?}");
    world.delete(publisher);
    world.run(secs(1));
    let answer = world.new_tracks(viewer, pulling(vec![remote(publisher, "cam")]));
    assert!(format!("{answer:?}").contains("Gone"), "{answer:?}");
}

#[test]
fn a_want_for_a_session_of_another_shard_or_app_is_refused() {
    let mut world = World::of_nodes(2, 1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (_, viewing, _) = world.viewer(1, &[(session, "mic")]);
    world.run(secs(1));
    let wants = world.hub.letters.iter().flat_map(|letter| &letter.notes);
    let apps: Vec<_> = wants
        .filter_map(|note| match note {
            Note::Want(want) => Some(want.app.as_str()),
            _ => None,
        })
        .collect();
    assert!(!apps.is_empty() && apps.iter().all(|app| *app == "app"));
    let other = shards::ids::AppId(1);
    let stranger = world.ask_as(other, 1, shards::command::Ask::Create { offer: None });
    assert!(stranger.is_ok());
    world.delete(viewing);
}

#[test]
fn a_strangers_datagram_at_the_cluster_address_changes_nothing() {
    let mut world = World::of_nodes(2, 1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, ..) = world.viewer(1, &[(session, "mic")]);
    world.run(secs(1));
    world.clients[viewer].got.clear();
    let mut datagram = vec![0x55; 200];
    for n in 0..100u64 {
        let link = relay::wire::LinkId::new(100).unwrap();
        let header = Header { phase: n % 2 == 1, dst_shard: 0, src_shard: 0, link, number: n };
        datagram[..12].copy_from_slice(&header.write());
        let now = world.now;
        world.engines[1].handle_link(([10, 9, 9, 9], 9).into(), &mut datagram, now);
        world.settle();
    }
    world.run(secs(1));
    assert!(world.clients[viewer].numbers(1).len() >= 49);
    let refused: u64 = world.engines[1].links().map(|link| link.stats.faults.total()).sum();
    assert!(refused >= 90, "{refused}");
}

#[test]
fn nothing_begins_with_a_node_that_is_not_heard_of_and_its_tracks_end_after_30_s() {
    let mut world = World::of_nodes(2, 1);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, viewing, _) = world.viewer(1, &[(session, "mic")]);
    world.run(secs(1));
    world.hub.disconnect(0, 1, 1);
    world.forget_others(1);
    let late = world.create(1);
    let answer = world.new_tracks(late, pulling(vec![remote(session, "mic")]));
    assert!(format!("{answer:?}").contains("Gone"), "{answer:?}");
    world.run(secs(20));
    assert!(world.describe(viewing).tracks[0].active, "it may come back");
    world.know_others(1);
    world.hub.connect(0, 1, 1);
    world.run(ms(500));
    world.clients[viewer].got.clear();
    world.run(secs(1));
    assert!(world.clients[viewer].numbers(1).len() >= 49);
    world.hub.disconnect(0, 1, 1);
    world.forget_others(1);
    world.run(secs(33));
    assert!(!world.describe(viewing).tracks[0].active, "and it did not");
}
