//! Media from publisher to subscribers: through loss, repetition and disorder, and while what
//! is behind a transceiver changes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use shards::command::TrackObject;
use shards::media::rtp::{Kind, RtpHeader, kind};
use str0m::media::{Direction, MediaKind};

use crate::client::{Client, Source};
use crate::world::{FRAME, World, local, lossy, ms, pulling, random, remote_on, secs};

pub(crate) const BOTH: [(&str, MediaKind); 2] =
    [("mic", MediaKind::Audio), ("cam", MediaKind::Video)];

/// What a subscriber's decoder depends on, whatever happens upstream: one SSRC, sequence
/// numbers and picture ids without a gap, timestamps that do not step back.
pub(crate) fn assert_continuous(client: &Client, ssrc: u32, is_video: bool) {
    let mut got: Vec<_> = client.got.iter().filter(|got| got.ssrc == ssrc).collect();
    got.sort_by_key(|got| got.seq);
    assert!(got.len() > 10, "only {} packets", got.len());
    for pair in got.windows(2) {
        let [before, after] = pair else { continue };
        assert_eq!(after.seq, before.seq + 1, "sequence numbers are continuous");
        let step = after.timestamp.wrapping_sub(before.timestamp);
        assert!((1..180_000).contains(&step), "a timestamp steps by {step}");
        if is_video {
            let expected = (before.picture() + 1) & 0x7fff;
            assert_eq!(after.picture(), expected, "picture ids are continuous");
        }
    }
}

fn consecutive(numbers: &[u32]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[test]
fn audio_and_video_reach_a_subscriber_on_another_shard() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, _, mids) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    assert_eq!(mids, ["0", "1"], "mids are small decimals in request order");
    world.run(secs(2));
    for (track, label) in [(1, "audio"), (2, "video")] {
        let numbers = world.clients[viewer].numbers(track);
        assert!(numbers.len() > 80, "{label}: {} packets", numbers.len());
        assert!(consecutive(&numbers), "{label} arrives without a gap");
    }
}

#[test]
fn what_viewers_lose_is_repaired_without_asking_the_publisher() {
    for (percent, shard) in [(5, 0), (20, 1)] {
        let mut world = World::new(2);
        let (publisher, session, _) = world.publisher(0, &[("cam", MediaKind::Video)]);
        let viewers: Vec<_> = (0..3).map(|_| world.viewer(shard, &[(session, "cam")]).0).collect();
        let addresses: BTreeSet<_> = viewers.iter().map(|&v| world.clients[v].external).collect();
        world.network =
            lossy(percent, move |from, to| addresses.contains(&from) || addresses.contains(&to));
        world.run(secs(10));
        world.network = lossy(0, |_, _| true);
        world.run(secs(1));
        let counted = world.engines[shard].meters();
        let (repaired, wanted) = (counted.resends, counted.nacks_received);
        assert!(repaired > 20, "{repaired} resends");
        assert!(wanted >= repaired, "{wanted} packets were asked for again");
        assert!(world.engines.iter().all(|engine| engine.meters().nacks_sent == 0));
        for &viewer in &viewers {
            let numbers = world.clients[viewer].numbers(1);
            let span = (numbers[numbers.len() - 1] - numbers[0] + 1) as usize;
            let missing = span - numbers.len();
            assert!(span > 400 && missing * 50 < span, "{missing} of {span} stay lost");
        }
        assert_eq!(world.clients[publisher].nacks(), 0);
    }
}

#[test]
fn what_the_publisher_loses_is_asked_for_again_and_reaches_every_viewer() {
    for percent in [5, 20] {
        let mut world = World::new(2);
        let (publisher, session, _) = world.publisher(0, &[("cam", MediaKind::Video)]);
        let viewers = [0, 1].map(|shard| world.viewer(shard, &[(session, "cam")]).0);
        let address = world.clients[publisher].external;
        world.network = lossy(percent, move |from, to| from == address || to == address);
        world.run(secs(10));
        world.network = lossy(0, |_, _| true);
        world.run(secs(1));
        let heard = world.clients[publisher].nacks();
        assert!(heard > 10);
        assert!(world.engines[0].meters().nacks_sent >= heard, "some were lost");
        for viewer in viewers {
            let numbers = world.clients[viewer].numbers(1);
            let span = (numbers[numbers.len() - 1] - numbers[0] + 1) as usize;
            let missing = span - numbers.len();
            assert!(span > 400 && missing * 200 < span, "{missing} of {span} stay lost");
        }
    }
}

#[test]
fn duplicates_replays_and_disorder_reach_no_viewer_twice() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    let mut random = random(5);
    let old: RefCell<Vec<(std::net::SocketAddr, std::net::SocketAddr, Vec<u8>)>> =
        RefCell::default();
    world.network = Box::new(move |_, from, to, bytes| {
        if old.borrow().len() < 50 {
            old.borrow_mut().push((from, to, bytes.to_vec()));
        }
        match random() % 10 {
            0 => vec![Duration::ZERO, ms(random() % 80)],
            1 => vec![ms(random() % 60)],
            2 => vec![ms(random() % 60), ms(random() % 3000)],
            _ => vec![Duration::ZERO],
        }
    });
    world.run(secs(10));
    for track in [1, 2] {
        let numbers = world.clients[viewer].numbers(track);
        let unique: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(unique.len(), numbers.len(), "none came twice");
        let span = (numbers[numbers.len() - 1] - numbers[0] + 1) as usize;
        assert!(span > 400 && span - numbers.len() < 5, "{} of {span}", numbers.len());
    }
    assert!(world.engines[0].meters().faults.replayed > 20);
}

#[test]
fn a_stream_goes_on_through_the_wrap_of_its_sequence_numbers() {
    let mut world = World::new(2);
    let (client, session) = (world.add_client(), world.create(0));
    world.clients[client].first_seq = 65_500;
    let mids = world.push(client, session, &[("cam", MediaKind::Video)]);
    world.connect(client);
    let flow = world.flow(client, &mids[0], 1);
    world.run(FRAME * 2);
    let (viewer, _, _) = world.viewer(1, &[(session, "cam")]);
    world.network = lossy(10, |_, _| true);
    world.run(secs(10));
    world.network = lossy(0, |_, _| true);
    world.run(secs(1));
    world.flows[flow].paused = true;
    let numbers = world.clients[viewer].numbers(1);
    let span = (numbers[numbers.len() - 1] - numbers[0] + 1) as usize;
    assert!(span > 450 && span - numbers.len() < 5, "{} of {span}", numbers.len());
}

#[test]
fn a_viewer_decrypts_after_the_wrap_of_the_outgoing_numbers() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(0, &[(session, "mic")]);
    world.flows[0].paused = true;
    world.run(secs(1));
    let mut next = world.clients[viewer].got.last().unwrap().stamp().number + 1;
    world.clients[viewer].got.clear();
    let first = next;
    for _ in 0..70_000 / 40 {
        for _ in 0..40 {
            world.now += Duration::from_micros(100);
            world.send_frame(0);
        }
        world.run(ms(1));
        for got in world.clients[viewer].got.drain(..) {
            assert_eq!(got.stamp().number, next);
            next += 1;
        }
    }
    assert!(next - first > 69_000, "{}", next - first);
}

#[test]
fn a_re_pointed_transceiver_stays_continuous() {
    let mut world = World::new(3);
    let (_, one, _) = world.publisher(0, &BOTH);
    world.run(secs(3));
    let (_, two, _) = world.publisher(1, &BOTH);
    for flow in 2..4 {
        world.flows[flow].track += 10;
    }
    let (viewer, session, mids) = world.viewer(2, &[(one, "mic"), (one, "cam")]);
    world.run(secs(1));
    for round in 0..6 {
        let to = if round % 2 == 0 { two } else { one };
        let objects = vec![remote_on(&mids[0], to, "mic"), remote_on(&mids[1], to, "cam")];
        let reply = world.update(session, objects);
        assert!(reply.tracks.iter().all(|track| track.error.is_none()), "{reply:?}");
        world.run(ms(700));
        let last = world.clients[viewer].got.last().unwrap().stamp().track;
        assert_eq!(last > 10, to == two, "media of the new track flows");
    }
    for (track, is_video) in [(1, false), (2, true)] {
        let ssrc = world.clients[viewer].track(track)[0].ssrc;
        assert_continuous(&world.clients[viewer], ssrc, is_video);
    }
}

#[test]
fn audio_and_video_stay_in_sync_on_the_publishers_clock() {
    // On another shard, and on another node.
    for mut world in [World::new(2), World::of_nodes(2, 1)] {
        let (client, session) = (world.add_client(), world.create(0));
        let mids = world.push(client, session, &BOTH);
        for (mid, base) in mids.iter().zip([3_000_000_000, 77]) {
            world.clients[client].timestamp_base.insert(mid.clone(), base);
        }
        world.connect(client);
        world.flow(client, &mids[0], 1);
        world.flow(client, &mids[1], 2);
        world.run(secs(3));
        let (viewer, _, pulled) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
        world.run(secs(5));
        let skew = skew(&world.clients[viewer]);
        assert!(skew < ms(3), "{skew:?}");
        let names: Vec<_> = pulled.iter().map(|mid| world.clients[viewer].cname(mid)).collect();
        assert!(names[0].is_some() && names[0] == names[1], "{names:?}");
    }
}

/// How far apart the last audio and video are, on the clock that sender reports tell, beyond
/// how far apart they were sent.
pub(crate) fn skew(client: &Client) -> Duration {
    let captured = |track: u32| -> (SystemTime, u64) {
        let got = *client.track(track).last().unwrap();
        (got.captured.expect("a sender report came"), got.stamp().micros)
    };
    let ((audio, audio_sent), (video, video_sent)) = (captured(1), captured(2));
    let between = |a: SystemTime, b: SystemTime| match a.duration_since(b) {
        Ok(ahead) => ahead.as_micros() as i64,
        Err(behind) => -(behind.duration().as_micros() as i64),
    };
    let skew = between(audio, video) - (audio_sent as i64 - video_sent as i64);
    Duration::from_micros(skew.unsigned_abs())
}

#[test]
fn the_mid_is_told_until_the_subscriber_reports_on_the_stream() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(0, &[(session, "mic")]);
    world.run(secs(10));
    let got = &world.clients[viewer].got;
    assert!(got[0].mid.is_some());
    assert!(got.last().unwrap().mid.is_none(), "reports have come by now");
}

/// Counts plain RTP packets to one address by SSRC.
#[test]
fn a_track_is_sent_on_one_ssrc_and_repaired_on_another() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let (viewer, _, _) = world.viewer(0, &[(session, "cam")]);
    let seen: Rc<RefCell<BTreeMap<u32, BTreeSet<u16>>>> = Rc::default();
    let (log, address) = (Rc::clone(&seen), world.clients[viewer].external);
    let mut random = random(3);
    world.network = Box::new(move |_, _, to, bytes| {
        if to == address && kind(bytes) == Kind::Rtp {
            let header = RtpHeader::parse(bytes).unwrap();
            let fresh = log.borrow_mut().entry(header.ssrc).or_default().insert(header.seq);
            assert!(fresh, "a sequence number is sent twice on one SSRC");
            if random().is_multiple_of(10) {
                return vec![];
            }
        }
        vec![Duration::ZERO]
    });
    world.run(secs(10));
    let seen = seen.borrow();
    let counts: Vec<usize> = seen.values().map(BTreeSet::len).collect();
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert!(counts.iter().max().unwrap() > &450 && counts.iter().min().unwrap() > &20);
}

#[test]
fn media_follows_a_client_whose_nat_gives_it_another_address() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &BOTH);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    for (client, port) in [(viewer, 6000), (publisher, 6001)] {
        world.clients[client].external.set_port(port);
        world.run(secs(5));
        let last = world.clients[viewer].got.last().unwrap().at;
        assert!(world.now - last < ms(50), "media flows again");
    }
}

#[test]
fn a_second_association_learns_its_path_after_an_ice_restart_too() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    let from = world.clients[client].external;
    let hello = Rc::new(RefCell::new(None));
    let answers = Rc::new(Cell::new(0));
    let (seen, counted) = (Rc::clone(&hello), Rc::clone(&answers));
    world.network = Box::new(move |_, source, to, bytes| {
        let is_hello = bytes[0] == 22 && bytes[13] == 1;
        if is_hello && source == from {
            seen.borrow_mut().get_or_insert_with(|| (to, bytes.to_vec()));
        }
        // In epoch 0: of a handshake, and not of the association that is up.
        if to == from && bytes[0] == 22 && bytes[3..5] == [0, 0] {
            counted.set(counted.get() + 1);
        }
        vec![ms(0)]
    });
    world.push(client, session, &[("mic", MediaKind::Audio)]);
    world.connect(client);
    let offer = crate::world::offer_of(world.clients[client].offer_restart());
    let ask = shards::command::Ask::Renegotiate { session, description: offer };
    let Ok(shards::command::Reply::Renegotiated { answer: Some(answer) }) = world.ask(0, ask)
    else {
        panic!("an answer is expected")
    };
    world.clients[client].accept_answer(&answer.sdp);
    let now = world.now;
    world.clients[client].drive(now);
    world.run(secs(10));
    // The same client begins anew: another random.
    let (to, mut bytes) = hello.borrow_mut().take().unwrap();
    bytes[30] ^= 0xff;
    answers.set(0);
    world.deliver(from, to, &mut bytes);
    world.run(secs(1));
    assert!(answers.get() > 0, "the second association answers");
}

#[test]
fn an_ice_restart_keeps_media_flowing() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    let (viewer, pulling, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    let offer = crate::world::offer_of(world.clients[viewer].offer_restart());
    let ask = shards::command::Ask::Renegotiate { session: pulling, description: offer };
    let Ok(shards::command::Reply::Renegotiated { answer: Some(answer) }) = world.ask(0, ask)
    else {
        panic!("an answer is expected")
    };
    // The answer is on its way for long: the old path must carry on meanwhile.
    let count = world.clients[viewer].got.len();
    world.run(secs(1));
    assert!(world.clients[viewer].got.len() > count + 80);
    world.clients[viewer].accept_answer(&answer.sdp);
    let now = world.now;
    world.clients[viewer].drive(now);
    world.run(secs(60));
    let client = &world.clients[viewer];
    assert!(world.now - client.got.last().unwrap().at < ms(50));
    assert!(consecutive(&client.numbers(1)) && consecutive(&client.numbers(2)));
    assert!(world.describe(pulling).connected);
}

#[test]
fn a_burst_larger_than_the_outbox_arrives_whole() {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let viewers = [0, 1].map(|shard| world.viewer(shard, &[(session, "mic")]).0);
    world.flows[0].paused = true;
    world.run(secs(1));
    let address = world.clients[publisher].external;
    // All of it reaches the shard within one turn.
    let mut burst = Vec::new();
    for _ in 0..300 {
        world.now += ms(1);
        let (client, now) = (world.flows[0].client, world.now);
        let source = world.flows[0].source.clone();
        world.clients[client].send(&source, 1, 100, true, now);
        burst.append(&mut world.clients[client].outgoing);
    }
    let before: Vec<usize> = viewers.iter().map(|&v| world.clients[v].got.len()).collect();
    for (to, mut bytes) in burst {
        world.deliver(address, to, &mut bytes);
    }
    world.run(secs(1));
    for (viewer, before) in viewers.into_iter().zip(before) {
        assert_eq!(world.clients[viewer].got.len() - before, 300);
    }
}

#[test]
fn a_packet_that_no_datagram_holds_with_our_extensions_is_counted() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    let (viewer, _, _) = world.viewer(0, &[(session, "mic")]);
    world.run(secs(1));
    let counts = |world: &World| {
        let meters = world.engines[0].meters();
        (meters.packets_in, meters.packets_out, meters.copies_dropped)
    };
    let before = counts(&world);
    assert_eq!(before.2, 0);
    // From one that fits to one that fills the publisher's datagram.
    for len in 1420..1480 {
        world.flows[0].len = len;
        world.run(FRAME);
    }
    world.flows[0].len = 100;
    world.run(secs(1));
    let after = counts(&world);
    let (received, sent, dropped) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    assert!(dropped > 0 && sent > 0, "{dropped} dropped, {sent} sent");
    assert_eq!(received, sent + dropped, "no copy is lost without being counted");
    assert!(world.now - world.clients[viewer].got.last().unwrap().at < ms(50), "it goes on");
}

#[test]
fn a_late_joiner_starts_with_a_keyframe_and_its_audio_at_once() {
    let mut world = World::new(2);
    let (_, session, _) = world.publisher(0, &BOTH);
    world.run(secs(5));
    for shard in [0, 1] {
        let (viewer, _, _) = world.viewer(shard, &[(session, "mic"), (session, "cam")]);
        world.run(secs(1));
        let connected = world.now - secs(1);
        let client = &world.clients[viewer];
        let (audio, video) = (client.track(1), client.track(2));
        assert!(video[0].is_keyframe());
        assert!(consecutive(&client.numbers(2)));
        // `viewer` waited for two flights after the handshake.
        assert!(audio[0].at <= connected + world.delay + FRAME, "{:?}", audio[0].at - connected);
        // A keyframe is asked for, sent with the next frame, and forwarded.
        assert!(video[0].at <= connected + world.delay * 3 + FRAME);
    }
}

#[test]
fn a_publisher_that_changes_its_ssrc_is_followed_without_a_gap() {
    let mut world = World::new(2);
    let (publisher, session, mids) = world.publisher(0, &BOTH);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(1));
    for n in 0..3 {
        let asked = world.engines[0].meters().keyframes_asked;
        for (at, mid) in mids.iter().enumerate() {
            let source = Source { mid: mid.clone(), rid: None };
            world.clients[publisher].change_ssrc(&source, 1000 + n * 100 + at as u32 * 10);
        }
        world.run(ms(100));
        assert!(world.engines[0].meters().keyframes_asked > asked, "a keyframe is asked for");
        // str0m does not find its own stream by the new SSRC.
        world.clients[publisher].owed.insert(Source { mid: mids[1].clone(), rid: None });
        world.run(secs(1));
    }
    for (track, is_video) in [(1, false), (2, true)] {
        let client = &world.clients[viewer];
        let got = client.track(track);
        assert_continuous(client, got[0].ssrc, is_video);
        let newest = got.last().unwrap();
        assert!(world.now - newest.at < ms(50), "track {track} still flows");
    }
}

#[test]
fn after_an_ssrc_change_no_report_tells_the_old_clock() {
    let mut world = World::new(2);
    let (publisher, session, mids) = world.publisher(0, &BOTH);
    let (viewer, _, _) = world.viewer(1, &[(session, "mic"), (session, "cam")]);
    world.run(secs(10));
    let source = Source { mid: mids[1].clone(), rid: None };
    world.clients[publisher].change_ssrc(&source, 5000);
    // The new source begins with other timestamps, as browsers do.
    world.clients[publisher].timestamp_base.insert(mids[1].clone(), 0x8000_0000);
    world.clients[publisher].owed.insert(source);
    for _ in 0..60 {
        world.run(ms(100));
        let skew = skew(&world.clients[viewer]);
        assert!(skew < ms(30), "{skew:?}");
    }
}

#[test]
fn a_transceiver_that_was_inactive_is_heard_again_after_a_wrap() {
    let mut world = World::new(1);
    let (client, session) = (world.add_client(), world.create(0));
    world.clients[client].first_seq = 65_500;
    let mids = world.push(client, session, &[("cam", MediaKind::Video)]);
    world.connect(client);
    let flow = world.flow(client, &mids[0], 1);
    world.run(secs(3));
    for direction in [Direction::Inactive, Direction::SendOnly] {
        world.flows[flow].paused = true;
        world.run(ms(200));
        let sdp = world.clients[client].offer_direction(&mids[0], direction);
        if direction == Direction::Inactive {
            let reply = world.close(session, &[&mids[0]], Some(sdp));
            world.clients[client].accept_answer(&reply.description.unwrap().sdp);
        } else {
            world.push_offered(client, session, sdp, vec![local("cam", &mids[0])]);
        }
    }
    world.flows[flow].paused = false;
    world.run(secs(1));
    let (viewer, _, _) = world.viewer(0, &[(session, "cam")]);
    world.run(secs(1));
    assert!(world.clients[viewer].numbers(1).len() > 40);
    assert_eq!(world.engines[0].meters().faults.unauthentic, 0);
}

#[test]
fn a_line_that_rests_while_others_change_goes_on_with_its_numbering() {
    let mut world = World::new(1);
    let (_, publisher, _) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let (client, session) = (world.add_client(), world.create(0));
    let (sdp, mids) = world.clients[client].offer(&[MediaKind::Video], Direction::SendRecv);
    let own = TrackObject { bidirectional: true, ..local("own", &mids[0]) };
    world.push_offered(client, session, sdp, vec![own]);
    world.connect(client);
    for _ in 0..3 {
        let reply = world.tracks(session, pulling(vec![remote_on(&mids[0], publisher, "cam")]));
        assert_eq!(reply.tracks[0].error, None);
        world.run(secs(1));
        // The line rests; meanwhile another is added, which settles what is still numbered.
        let sdp = world.clients[client].offer_direction(&mids[0], Direction::SendOnly);
        world.renegotiate(client, session, sdp);
        let (sdp, _) = world.clients[client].offer(&[MediaKind::Audio], Direction::RecvOnly);
        world.renegotiate(client, session, sdp);
        let sdp = world.clients[client].offer_direction(&mids[0], Direction::SendRecv);
        world.renegotiate(client, session, sdp);
    }
    // The same SSRC under the same key: an index twice would give the key away.
    let got = &world.clients[client].got;
    assert!(got.iter().all(|packet| packet.ssrc == got[0].ssrc));
    let seqs: Vec<u64> = got.iter().map(|packet| packet.seq).collect();
    let unbroken: Vec<u64> = (seqs[0]..seqs[0] + seqs.len() as u64).collect();
    assert_eq!(seqs, unbroken, "nothing is numbered twice, and nothing is left out");
    assert!(seqs.len() > 120, "{}", seqs.len());
}
