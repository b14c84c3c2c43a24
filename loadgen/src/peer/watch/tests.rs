//! What a server can do wrong is done to sealed packets here, and must be told.

use std::time::{Duration, Instant};

use shards::media::rtp::{FixedHeader, HeaderWriter};
use shards::media::srtp::{KeyingMaterial, Opener, Profile, Sealer};

use super::super::Moment;
use super::super::feedback::Feedback;
use super::Watching;
use crate::media::{audio, video};
use crate::probe::{Published, Stamp};
use crate::report::tally::Tally;

/// What the server's description says: sound, and video with repairs.
const SDP: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ssrc:5 cname:x\r\n\
                   m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n\
                   a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=ssrc-group:FID 7 8\r\n\
                   a=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\n";
/// The same of a server that announces no SSRCs, and of its next description, which numbers codecs
/// anew.
const SILENT: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                      m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n\
                      a=rtpmap:97 rtx/90000\r\n";
const SILENT_AGAIN: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 109\r\na=mid:0\r\n\
                      m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n\
                      a=rtpmap:97 rtx/90000\r\n";
const SOUND: FixedHeader = header(111, 5);
const PICTURE: FixedHeader = header(96, 7);
const REPAIR: FixedHeader = header(97, 8);
const SOUND_TRACK: u32 = 41;
const PICTURE_TRACK: u32 = 42;
/// From a publisher's hand to the viewer's socket.
const WAY: u64 = 3_000_000;
const EPOCH: u64 = 1_700_000_000_000_000_000;

const fn header(payload_type: u8, ssrc: u32) -> FixedHeader {
    FixedHeader { marker: false, payload_type, seq: 0, timestamp: 0, ssrc, has_padding: false }
}

/// A viewer, and the keys of the server that sends to it.
struct World {
    watching: Watching,
    opener: Opener,
    sealer: Sealer,
    feedback: Feedback,
    tally: Tally,
    began: Instant,
    /// Nanoseconds since then.
    passed: u64,
}

impl World {
    fn new(check_each: u32) -> Self {
        Self::of(SDP, check_each)
    }

    fn of(sdp: &str, check_each: u32) -> Self {
        let profile = Profile::AeadAes128Gcm;
        let bytes: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let material = KeyingMaterial::new(profile, &bytes).unwrap();
        let (server, _) = material.split(true);
        let mut watching = Watching::new(check_each);
        watching.read(sdp);
        watching.expect("0", SOUND_TRACK);
        watching.expect("1", PICTURE_TRACK);
        let began = Instant::now();
        Self {
            watching,
            opener: Opener::new(&server),
            sealer: Sealer::new(&server),
            feedback: Feedback::new(1, began),
            tally: Tally::default(),
            began,
            passed: 0,
        }
    }

    fn moment(&self) -> Moment {
        let now = self.began + Duration::from_nanos(self.passed);
        Moment { now, unix: EPOCH + self.passed }
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.passed += 1_000_000;
        let (moment, feedback) = (self.moment(), &mut self.feedback);
        self.watching.receive(&self.opener, datagram, moment, feedback, &mut self.tally);
    }

    fn seal(&self, header: FixedHeader, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; payload.len() + 64];
        let fixed = FixedHeader { seq: index as u16, ..header };
        let header_len = HeaderWriter::new(&mut out).write(&fixed, &[]);
        let len = self.sealer.seal_rtp(&mut out, header_len, payload, header.ssrc, index);
        out.truncate(len);
        out
    }

    /// Packet `number` of a sound track, under sequence number `index`.
    fn sound_of(&self, track: u32, number: u64, index: u64) -> Vec<u8> {
        self.seal(SOUND, index, &self.sound_payload(track, number))
    }

    fn sound(&self, number: u64) -> Vec<u8> {
        self.sound_of(SOUND_TRACK, number, number)
    }

    fn sound_payload(&self, track: u32, number: u64) -> Vec<u8> {
        let mut payload = vec![audio::TOC; 80];
        self.stamp(track, number).fill(&mut payload[1..]);
        payload
    }

    /// Each tenth packet begins a keyframe.
    fn picture_payload(&self, number: u64) -> Vec<u8> {
        let mut payload = vec![0; 600];
        let keyframe = number.is_multiple_of(10);
        let part = video::Part { picture: number as u16 & 0x7fff, first: keyframe, keyframe };
        let headers = part.write(&mut payload);
        self.stamp(PICTURE_TRACK, number).fill(&mut payload[headers..]);
        payload
    }

    fn picture(&self, number: u64) -> Vec<u8> {
        self.seal(PICTURE, number, &self.picture_payload(number))
    }

    /// Packet `number` again, as the repair stream's `index`-th (RFC 4588 §4).
    fn repair(&self, index: u64, number: u64) -> Vec<u8> {
        let original = (number as u16).to_be_bytes();
        self.seal(REPAIR, index, &[&original[..], &self.picture_payload(number)].concat())
    }

    fn stamp(&self, track: u32, number: u64) -> Stamp {
        let sent = EPOCH + self.passed - WAY.min(self.passed);
        Stamp { track, number: number as u32, sent }
    }

    /// The tally once all has been counted.
    fn end(mut self) -> Tally {
        self.watching.finish(&mut self.tally);
        self.tally
    }
}

/// received, lost, duplicated, corrupted, foreign, reordered.
fn counts(tally: &Tally) -> [u64; 6] {
    let Tally { packets_out, lost, duplicated, corrupted, foreign, reordered, .. } = tally;
    [*packets_out, *lost, *duplicated, *corrupted, *foreign, *reordered]
}

#[test]
fn what_is_as_it_was_sent_passes_across_two_wraps_of_the_sequence_number() {
    let mut world = World::new(1);
    for number in 0..70_000 {
        let packet = world.sound_of(SOUND_TRACK, number, number + 65_000);
        world.receive(&packet);
    }
    let tally = world.end();
    assert_eq!(counts(&tally), [70_000, 0, 0, 0, 0, 0]);
    assert_eq!((tally.checked, tally.latency.len()), (70_000, 70_000));
    let worst = tally.latency.max();
    assert!((WAY / 1000..=WAY / 1000 + 1010).contains(&worst), "{worst}");
}

#[test]
fn a_packet_left_out_is_lost_and_one_that_comes_late_is_not() {
    let mut world = World::new(1);
    let packets: Vec<Vec<u8>> = (0..3000).map(|number| world.sound(number)).collect();
    for (number, packet) in packets.iter().enumerate() {
        match number {
            1500 => {}
            700 => {
                world.receive(&packets[701]);
                world.receive(packet);
            }
            701 => {}
            _ => world.receive(packet),
        }
    }
    assert_eq!(counts(&world.end()), [2999, 1, 0, 0, 0, 1]);
}

#[test]
fn a_packet_that_comes_twice_is_told() {
    let mut world = World::new(1);
    for number in 0..20 {
        let packet = world.sound(number);
        world.receive(&packet);
        if number == 11 {
            world.receive(&packet);
        }
    }
    assert_eq!(counts(&world.end()), [20, 0, 1, 0, 0, 0]);
}

#[test]
fn any_flipped_bit_of_a_payload_is_told() {
    let len = World::new(1).sound(0).len();
    for at in 12..len {
        let mut world = World::new(1);
        let mut packet = world.sound(0);
        packet[at] ^= 1 << (at % 8);
        world.receive(&packet);
        assert_eq!(world.end().corrupted, 1, "byte {at}");
    }
}

#[test]
fn a_payload_that_was_changed_before_it_was_sealed_is_told() {
    for at in [1, 40, 60, 79] {
        let mut world = World::new(1);
        let mut payload = world.sound_payload(SOUND_TRACK, 0);
        payload[at] ^= 0x10;
        let packet = world.seal(SOUND, 0, &payload);
        world.receive(&packet);
        assert_eq!(counts(&world.end()), [1, 0, 0, 1, 0, 0], "byte {at}");
    }
}

#[test]
fn a_packet_from_before_the_first_does_not_pass_for_the_end_of_the_cycle() {
    let mut world = World::new(1);
    for number in 2..10 {
        let packet = world.sound(number);
        world.receive(&packet);
        if number == 3 {
            let late = World::new(1).sound(65_535);
            world.receive(&late);
        }
    }
    let tally = world.end();
    assert_eq!((counts(&tally), tally.ancient), ([8, 0, 0, 0, 0, 0], 1));
}

#[test]
fn content_of_another_track_is_told() {
    let mut world = World::new(1);
    for number in 0..10 {
        let track = if number == 6 { PICTURE_TRACK } else { SOUND_TRACK };
        let packet = world.sound_of(track, number, number);
        world.receive(&packet);
    }
    assert_eq!(counts(&world.end()), [10, 0, 0, 0, 1, 0]);
}

#[test]
fn content_in_another_order_than_its_sequence_numbers_is_told() {
    let mut world = World::new(1);
    for (index, number) in [0, 1, 2, 4, 5].into_iter().enumerate() {
        let packet = world.sound_of(SOUND_TRACK, number, index as u64);
        world.receive(&packet);
    }
    // A packet was left out and the numbers closed up.
    assert_eq!(counts(&world.end()), [5, 0, 0, 1, 0, 0]);
}

#[test]
fn an_ssrc_that_nobody_announced_is_told() {
    let mut world = World::new(1);
    let stray = FixedHeader { ssrc: 99, payload_type: 120, ..SOUND };
    let packet = world.seal(stray, 0, &world.sound_payload(SOUND_TRACK, 0));
    world.receive(&packet);
    assert_eq!(counts(&world.end()), [0, 0, 0, 0, 1, 0]);
}

#[test]
fn a_repair_makes_up_for_what_was_lost_and_is_checked_too() {
    let mut world = World::new(1);
    for number in (0..50).filter(|number| ![20, 30].contains(number)) {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    let mut asked = Vec::new();
    world.passed += 50_000_000;
    let now = world.moment().now;
    world.watching.missing(now, &mut |ssrc, seqs, _| asked.extend(seqs.iter().map(|s| (ssrc, *s))));
    assert_eq!(asked, [(7, 20), (7, 30)]);
    let repair = world.repair(0, 20);
    world.receive(&repair);
    world.receive(&repair);
    // A repair with the wrong content.
    let wrong = [&30u16.to_be_bytes()[..], &world.picture_payload(31)].concat();
    let wrong = world.seal(REPAIR, 1, &wrong);
    world.receive(&wrong);
    let tally = world.end();
    assert_eq!(counts(&tally), [50, 0, 1, 1, 0, 0]);
    assert_eq!(tally.resent, 2);
}

#[test]
fn padding_is_neither_content_nor_a_repair() {
    let mut world = World::new(1);
    // Number 0, which zeros would name, is still to come.
    for number in 64_000..65_000 {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    // libwebrtc probes with repairs that are padding alone, and pads media packets.
    let mut padding = vec![0; 224];
    padding[223] = 224;
    let probe = world.seal(FixedHeader { has_padding: true, ..REPAIR }, 0, &padding);
    world.receive(&probe);
    let padded = [&world.picture_payload(65_000)[..], &[0, 0, 3]].concat();
    let padded = world.seal(FixedHeader { has_padding: true, ..PICTURE }, 65_000, &padded);
    world.receive(&padded);
    let tally = world.end();
    assert_eq!(counts(&tally), [1001, 0, 0, 0, 0, 0]);
    assert_eq!(tally.checked, 1001);
}

#[test]
fn media_begins_with_a_keyframe_and_the_last_of_the_tracks() {
    let mut world = World::new(1);
    for number in 5..10 {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    let packet = world.sound(0);
    world.receive(&packet);
    assert_eq!(world.watching.take_first_media(), None);
    let packet = world.picture(10);
    world.receive(&packet);
    assert_eq!(world.watching.take_first_media(), Some(world.moment().unix));
}

#[test]
fn a_track_that_came_and_comes_no_more_has_stopped() {
    let mut world = World::new(1);
    let first = world.sound(0);
    world.receive(&first);
    let stopped = |world: &World| world.watching.stopped(world.moment().unix);
    for number in 0..1999 {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    // Each packet took a millisecond.
    assert_eq!(stopped(&world), 0);
    for number in 1999..2002 {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    assert_eq!(stopped(&world), 1);
    world.passed += 10_000_000_000;
    assert_eq!(stopped(&world), 2);
}

#[test]
fn losses_are_counted_on_their_side_of_the_marks() {
    let mut world = World::new(1);
    for number in (0..40).filter(|number| ![5, 20, 30].contains(number)) {
        if number == 10 {
            world.watching.begin(&Published::new());
        }
        if number == 25 {
            world.watching.draw_line(&Published::new());
        }
        let packet = world.picture(number);
        world.receive(&packet);
    }
    let repair = world.repair(0, 20);
    world.receive(&repair);
    world.watching.close_books(true, &mut world.tally);
    assert_eq!((world.tally.lost, world.tally.lost_early), (1, 1));
    let tally = world.end();
    assert_eq!((tally.lost, tally.lost_early), (2, 1));
}

#[test]
fn a_tail_that_was_published_and_did_not_come_is_lost() {
    // The server numbers from elsewhere, the publisher has sent up to 109 of the sound.
    let published = Published::from([(SOUND_TRACK, 109)]);
    for (all, lost) in [(true, 10), (false, 0)] {
        let mut world = World::new(16);
        for number in 0..100 {
            let sound = world.sound_of(SOUND_TRACK, number, number + 65_500);
            world.receive(&sound);
            // Nobody in this process publishes the picture.
            let picture = world.picture(number);
            world.receive(&picture);
        }
        world.watching.draw_line(&published);
        assert_eq!(world.watching.lacking(), 10);
        // The server does no harm by being slow, nor what was published later by being lost.
        let sound = world.sound_of(SOUND_TRACK, 99 + 1, 65_500 + 100);
        world.receive(&sound);
        assert_eq!(world.watching.lacking(), 9);
        world.watching.close_books(all, &mut world.tally);
        assert_eq!(world.tally.lost + u64::from(all), lost);
        let late = world.sound_of(SOUND_TRACK, 101, 65_500 + 101);
        world.receive(&late);
        assert_eq!(world.tally.ancient, u64::from(all));
    }
}

#[test]
fn a_viewer_on_the_move_and_a_stream_that_was_replaced_lack_nothing() {
    let published = Published::from([(SOUND_TRACK, 500)]);
    let mut world = World::new(1);
    let first = world.sound(0);
    world.receive(&first);
    world.watching.moved();
    world.watching.draw_line(&published);
    assert_eq!(world.watching.lacking(), 0);
    world.watching.close_books(true, &mut world.tally);
    assert_eq!(world.end().lost, 0);
    let mut world = World::of(SILENT, 1);
    for (ssrc, number) in [(5, 0), (6, 500)] {
        let payload = world.sound_payload(SOUND_TRACK, number);
        let packet = world.seal(FixedHeader { ssrc, ..SOUND }, number, &payload);
        world.receive(&packet);
    }
    world.watching.draw_line(&published);
    assert_eq!(world.watching.lacking(), 0);
}

#[test]
fn a_payload_type_that_its_line_has_not_is_told() {
    let mut world = World::new(1);
    let first = world.sound(0);
    world.receive(&first);
    let payload = world.sound_payload(SOUND_TRACK, 1);
    let second = world.seal(FixedHeader { payload_type: 96, ..SOUND }, 1, &payload);
    world.receive(&second);
    assert_eq!(counts(&world.end()), [1, 0, 0, 0, 1, 0]);
}

#[test]
fn the_sample_is_its_share_and_meets_faults_of_any_rhythm() {
    for rhythm in [2, 16, 64, 100] {
        let mut world = World::new(16);
        for number in 0..20_000 {
            let mut payload = world.sound_payload(SOUND_TRACK, number);
            payload[40] ^= u8::from(number % rhythm == 1);
            let packet = world.seal(SOUND, number, &payload);
            world.receive(&packet);
        }
        let tally = world.end();
        let (checked, expected) = (tally.checked, 20_000 / 16);
        assert!(checked.abs_diff(expected) < expected / 5, "{checked} checked");
        let (found, faults) = (tally.corrupted, expected / rhythm);
        assert!(found.abs_diff(faults) < faults / 2 + 5 && found > 0, "{found} of each {rhythm}");
    }
}

#[test]
fn what_was_learned_of_unannounced_streams_survives_a_new_description() {
    let mut world = World::of(SILENT, 1);
    let sound = world.sound(0);
    world.receive(&sound);
    for number in (0..20).filter(|number| *number != 10) {
        let packet = world.picture(number);
        world.receive(&packet);
    }
    world.watching.read(SILENT_AGAIN);
    // Its track changes with its line's, and its repairs still find it.
    world.watching.expect("0", 77);
    let payload = world.sound_payload(77, 1);
    let sound = world.seal(FixedHeader { payload_type: 109, ..SOUND }, 1, &payload);
    world.receive(&sound);
    let repair = world.repair(0, 10);
    world.receive(&repair);
    assert_eq!(counts(&world.end()), [22, 0, 0, 0, 0, 0]);
}

#[test]
fn a_line_whose_ssrc_changes_goes_on_and_repairs_are_for_the_new_one() {
    let mut world = World::of(SILENT, 1);
    let mut sent = 0;
    // More often than a peer keeps SSRCs.
    for ssrc in 1000..1000 + 3 * super::STREAMS_MAX as u32 {
        for number in [0, 1, 3] {
            let header = FixedHeader { ssrc, ..PICTURE };
            let packet = world.seal(header, number, &world.picture_payload(number));
            world.receive(&packet);
            sent += 1;
        }
    }
    let repair = world.repair(0, 2);
    world.receive(&repair);
    assert!(world.watching.streams.len() <= 2 * super::SSRCS_PER_LINE);
    let tally = world.end();
    // Of each but the last, one is missing.
    assert_eq!(counts(&tally), [sent + 1, 3 * super::STREAMS_MAX as u64 - 1, 0, 0, 0, 0]);
}
