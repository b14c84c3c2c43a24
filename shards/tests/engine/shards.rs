//! Several shards: media crosses once, strays find their owner.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use shards::ids::ShardId;
use shards::mail::Mail;
use str0m::media::MediaKind;

use crate::media::BOTH;
use crate::world::{World, ms, secs, shard_address};

#[test]
fn a_batch_crosses_once_to_each_shard_that_wants_it() {
    let mut world = World::new(4);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let viewers: Vec<_> = (0..20).map(|n| world.viewer(n % 4, &[(session, "mic")]).0).collect();
    world.run(secs(1));
    world.media_mail.clear();
    for &viewer in &viewers {
        world.clients[viewer].got.clear();
    }
    let sent = world.engines[0].meters().packets_in;
    world.run(secs(2));
    let sent = (world.engines[0].meters().packets_in - sent) as usize;
    assert!(sent >= 99, "{sent}");
    // One packet a turn makes one batch a turn.
    let mailed: Vec<_> = world.media_mail.iter().map(|(way, count)| (*way, *count)).collect();
    assert_eq!(mailed, [((0, 1), sent), ((0, 2), sent), ((0, 3), sent)]);
    for viewer in viewers {
        assert!(world.clients[viewer].got.len() >= 98);
    }
}

#[test]
fn a_shard_that_wants_a_track_no_more_gets_none_of_it() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (_, viewing, mids) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    let (_, other, _) = world.viewer(1, &[(session, "mic")]);
    world.run(secs(1));
    world.close(viewing, &[&mids[0]], None);
    world.delete(other);
    world.run(secs(1));
    assert_eq!(world.engines[1].feeds(), 1, "the camera is still watched");
    world.close(viewing, &[&mids[1]], None);
    world.run(ms(100));
    world.media_mail.clear();
    world.run(secs(1));
    assert!(world.media_mail.is_empty());
    assert_eq!(world.engines[1].feeds(), 0);
}

#[test]
fn everything_works_when_every_datagram_reaches_the_wrong_shard() {
    let mut world = World::new(3);
    world.steers = Box::new(|shard, _| (shard + 1) % 3);
    let (publisher, session, _) = world.publisher(0, &BOTH);
    let viewers = [0, 1, 2].map(|n| world.viewer(n, &[(session, "mic"), (session, "cam")]).0);
    world.run(secs(2));
    for viewer in viewers {
        let client = &world.clients[viewer];
        assert!(client.numbers(1).len() > 90 && client.numbers(2).len() > 90);
        // Requests for keyframes and resends come back through the wrong shard, too.
        let mid = "1";
        let now = world.now;
        world.clients[publisher].asked.clear();
        world.clients[viewer].ask_for_keyframe(mid, now);
        world.run(secs(1));
        assert_eq!(world.clients[publisher].asked.len(), 1);
    }
    for engine in &world.engines {
        assert!(engine.meters().strays_received > 50);
        assert_eq!(engine.meters().faults.unknown_source, 0);
    }
}

/// A client of shard 0 vanishes; its address comes to a client of shard `next`.
fn an_address_is_followed(next: usize) {
    let mut world = World::new(2);
    // The kernel steers by address: everything of this one reaches shard 0.
    world.steers = Box::new(|_, _| 0);
    let (_, publisher, _) = world.publisher(1, &BOTH);
    let (first, _, _) = world.viewer(0, &[(publisher, "mic")]);
    world.run(secs(1));
    // The first client vanishes, and its NAT gives its address to another.
    let address = world.clients[first].external;
    world.clients[first].external = shard_address(9);
    world.run(secs(6));
    let second = world.add_client();
    world.clients[second].external = address;
    let session = world.create(next);
    world.pull(second, session, &[(publisher, "mic")]);
    world.connect(second);
    world.run(secs(1));
    assert!(world.clients[second].got.len() > 40);
}

#[test]
fn an_address_that_a_nat_gives_to_another_session_is_followed() {
    an_address_is_followed(0);
}

#[test]
fn an_address_that_moves_to_a_session_of_another_shard_is_followed() {
    an_address_is_followed(1);
}

/// Keeps a STUN check that the thief sends as its own, and replays it under the address of the
/// publisher, on the shard that is `thieves`.
fn a_thief_gets_nothing(thieves: usize) {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic")]);
    let (thief, theirs) = (world.add_client(), world.create(thieves));
    let from = world.clients[thief].external;
    let check = Rc::new(RefCell::new(None));
    let seen = Rc::clone(&check);
    world.network = Box::new(move |_, source, to, bytes| {
        if source == from && bytes.starts_with(&[0, 1]) {
            seen.borrow_mut().get_or_insert_with(|| (to, bytes.to_vec()));
        }
        vec![ms(0)]
    });
    world.push(thief, theirs, &[("x", MediaKind::Audio)]);
    world.connect(thief);
    let (to, check) = check.borrow_mut().take().unwrap();
    let spoofed = world.clients[publisher].external;
    world.clients[viewer].got.clear();
    for _ in 0..200 {
        world.deliver(spoofed, to, &mut check.clone());
        world.run(ms(50));
    }
    assert!(world.clients[viewer].got.len() >= 499, "{}", world.clients[viewer].got.len());
    assert_eq!(world.engines[thieves].meters().faults.taken_address, 200);
    assert!(world.describe(theirs).connected && world.describe(session).connected);
}

#[test]
fn a_check_replayed_under_anothers_address_does_not_take_it() {
    a_thief_gets_nothing(0);
}

#[test]
fn a_check_replayed_under_an_address_of_another_shard_does_not_take_it() {
    a_thief_gets_nothing(1);
}

#[test]
fn an_address_is_heard_by_its_media_alone() {
    let mut world = World::new(1);
    let (publisher, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(0, &[(session, "mic")]);
    let address = world.clients[publisher].external;
    // From here on it sends media, and neither checks nor reports arrive.
    world.network = Box::new(move |_, from, _, bytes| {
        let is_media = bytes[0] & 0xc0 == 0x80 && !(192..224).contains(&bytes[1]);
        if from == address && !is_media { vec![] } else { vec![ms(0)] }
    });
    world.run(secs(7));
    let (thief, theirs) = (world.add_client(), world.create(0));
    world.network = Box::new(|_, _, _, _| vec![ms(0)]);
    world.push(thief, theirs, &[("x", MediaKind::Audio)]);
    world.clients[thief].external = address;
    world.clients[viewer].got.clear();
    world.run(secs(1));
    assert!(world.clients[viewer].got.len() >= 49);
    assert!(!world.clients[thief].connected);
}

#[test]
fn an_address_that_another_shard_says_it_has_is_kept_while_alive_and_found_again_later() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic")]);
    let source = world.clients[publisher].external;
    // The other shard says that it has the address, and has it no more.
    world.run(secs(2));
    world.engines[0].handle_mail(ShardId(1), Mail::Route { source }, world.now);
    world.clients[viewer].got.clear();
    world.run(secs(2));
    assert!(world.clients[viewer].got.len() >= 99, "one that is alive stays");
    // The publisher's checks find it after a shard that gave way has lost it.
    let late = world.now + secs(6);
    world.engines[0].handle_mail(ShardId(1), Mail::Route { source }, late);
    world.run(secs(10));
    let last = world.clients[viewer].got.last().unwrap().at;
    assert!(world.now - last < ms(50), "the publisher is heard again");
}

#[test]
fn a_check_replayed_from_thousands_of_addresses_is_not_remembered_from_all() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    let from = world.clients[client].external;
    let check = Rc::new(RefCell::new(None));
    let seen = Rc::clone(&check);
    world.network = Box::new(move |_, source, to, bytes| {
        if source == from && bytes.starts_with(&[0, 1]) {
            seen.borrow_mut().get_or_insert_with(|| (to, bytes.to_vec()));
        }
        vec![ms(0)]
    });
    let mids = world.push(client, session, &[("mic", MediaKind::Audio)]);
    world.flow(client, &mids[0], 1);
    world.connect(client);
    let (to, check) = check.borrow_mut().take().unwrap();
    for port in 1000..6000 {
        let source = ([10, 9, 9, 9], port).into();
        world.engines[0].handle_datagram(source, to, &mut check.clone(), world.now);
    }
    let refused = world.engines[0].meters().faults.too_many_sources;
    assert!(refused >= 4960, "{refused}");
    // The client itself is heard, and may still move.
    world.run(secs(5));
    world.clients[client].external.set_port(7777);
    world.run(secs(10));
    let before = world.engines[0].meters().packets_in;
    world.run(secs(1));
    assert!(world.engines[0].meters().packets_in - before >= 49);
}

#[test]
fn twenty_viewers_on_four_shards_get_the_same() {
    let mut world = World::new(4);
    let (_, session, _) = world.publisher(2, &BOTH);
    let viewers: Vec<_> =
        (0..20).map(|n| world.viewer(n % 4, &[(session, "mic"), (session, "cam")]).0).collect();
    world.run(secs(3));
    let recent: BTreeSet<Vec<u32>> = viewers
        .iter()
        .map(|&viewer| {
            let numbers = world.clients[viewer].numbers(2);
            numbers[numbers.len() - 100..].to_vec()
        })
        .collect();
    assert_eq!(recent.len(), 1, "they all have the last 100 frames");
}
