//! Codecs other than VP8 and Opus: negotiated, begun at a keyframe, forwarded bit by bit.

use str0m::format::Codec;
use str0m::media::MediaKind;

use crate::client::{Abilities, Descriptor, Got, Packet};
use crate::world::{World, ms};

const FRAME_MS: u32 = 40;

/// The payloads of a frame, each with its dependency descriptor.
type Frame = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What a publisher sends.
struct Script {
    abilities: Abilities,
    kind: MediaKind,
    /// Timestamp units in a millisecond.
    rate: u32,
    /// Frame `n`; a keyframe or not.
    frame: fn(n: u32, keyframe: bool) -> Frame,
}

/// What was sent since the first packet that arrived, and what arrived, in order of sequence
/// numbers.
struct Outcome {
    sent: Vec<Packet>,
    got: Vec<Got>,
    /// The codec's, at the subscriber.
    payload_type: u8,
}

impl Script {
    fn video(abilities: Abilities, frame: fn(u32, bool) -> Frame) -> Self {
        Self { abilities, kind: MediaKind::Video, rate: 90, frame }
    }

    /// Plays it to a subscriber on another shard, who comes after the first keyframe.
    fn play(&self, viewer: Abilities) -> Outcome {
        let mut world = World::new(2);
        let session = world.create(0);
        let publisher = world.add_client_with(self.abilities);
        let mids = world.push(publisher, session, &[("track", self.kind)]);
        world.connect(publisher);
        let mut sent: Vec<Packet> = Vec::new();
        let mut number = 0;
        let mut play = |world: &mut World, frames: u32| {
            for _ in 0..frames {
                let client = &mut world.clients[publisher];
                let keyframe = number == 0 || !std::mem::take(&mut client.owed).is_empty();
                let payloads = (self.frame)(number, keyframe);
                let last = payloads.len() - 1;
                for (at, (mut payload, descriptor)) in payloads.into_iter().enumerate() {
                    payload.extend_from_slice(&tag(number, at));
                    let packet = Packet {
                        timestamp: number * FRAME_MS * self.rate,
                        marker: at == last && self.kind == MediaKind::Video,
                        payload,
                        descriptor: descriptor.map(Descriptor),
                    };
                    let payload_type = client.payload_type(self.kind);
                    client.write(&mids[0], payload_type, &packet, world.now);
                    sent.push(packet);
                }
                number += 1;
                world.run(ms(u64::from(FRAME_MS)));
            }
        };
        play(&mut world, 5);
        let (client, viewing) = (world.add_client_with(viewer), world.create(1));
        world.pull(client, viewing, &[(session, "track")]);
        world.connect(client);
        play(&mut world, 50);
        let asked = world.clients[publisher].asked.len();
        assert_eq!(asked > 0, self.kind == MediaKind::Video, "asked for {asked} keyframes");
        assert!(world.describe(viewing).tracks[0].active);
        let client = &world.clients[client];
        let mut got = client.got.clone();
        got.sort_by_key(|got| got.seq);
        let tag = got.first().expect("something arrives").payload.last_chunk::<TAG>().copied();
        let tag = tag.expect("a tagged payload");
        let begin = sent.iter().position(|sent| sent.payload.ends_with(&tag));
        sent.drain(..begin.expect("what arrives was sent"));
        Outcome { sent, got, payload_type: client.payload_type(self.kind) }
    }
}

impl Outcome {
    /// Everything since the first packet arrived once, in order, with the header fields it was
    /// sent with; `payload` tells what of a payload is forwarded as it is.
    fn assert_forwarded(&self, payload: impl Fn(&[u8]) -> &[u8]) {
        let (sent, got) = (&self.sent, &self.got);
        assert!(got.len() >= 40 && got.len() + 4 >= sent.len(), "{} of {}", got.len(), sent.len());
        let shift = |sent: &Packet, got: &Got| got.timestamp.wrapping_sub(sent.timestamp);
        let first = shift(&sent[0], &got[0]);
        for (at, (sent, got)) in sent.iter().zip(got).enumerate() {
            assert_eq!(got.seq, self.got[0].seq + at as u64);
            assert_eq!(got.payload_type, self.payload_type);
            assert_eq!(got.marker, sent.marker, "packet {at}");
            assert_eq!(shift(sent, got), first, "packet {at}");
            assert_eq!(payload(&got.payload), payload(&sent.payload), "packet {at}");
        }
    }

    fn assert_descriptors_forwarded(&self) {
        for (sent, got) in self.sent.iter().zip(&self.got) {
            assert_eq!(got.descriptor, sent.descriptor);
        }
    }
}

fn only(codec: Codec) -> Abilities {
    Abilities { only: Some(codec), ..Abilities::default() }
}

const TAG: usize = 6;

/// At the end of every payload: which packet it is.
fn tag(frame: u32, at: usize) -> [u8; TAG] {
    let [a, b, c, d] = frame.to_be_bytes();
    [0x7a, a, b, c, d, at as u8]
}

fn whole(payload: &[u8]) -> &[u8] {
    payload
}

fn h265_frame(n: u32, keyframe: bool) -> Frame {
    let body = |len: usize| vec![n as u8; len];
    let unit = |kind: u8, len: usize| [vec![kind << 1, 1], body(len)].concat();
    let sized = |unit: Vec<u8>| [(unit.len() as u16).to_be_bytes().to_vec(), unit].concat();
    let fragment = |flags: u8, kind: u8| [vec![49 << 1, 1, flags | kind], body(1000)].concat();
    let payloads = match (keyframe, n % 2) {
        // Parameter sets in an aggregation packet, then a fragmented IDR_W_RADL.
        (true, 0) => vec![
            [vec![48 << 1, 1], sized(unit(32, 20)), sized(unit(33, 40)), sized(unit(34, 7))]
                .concat(),
            fragment(0x80, 19),
            fragment(0, 19),
            fragment(0x40, 19),
        ],
        // The same in units of their own.
        (true, _) => vec![unit(32, 20), unit(33, 40), unit(34, 7), unit(19, 900)],
        (false, 0) => vec![unit(1, 300)],
        (false, _) => vec![fragment(0x80, 1), fragment(0x40, 1)],
    };
    payloads.into_iter().map(|payload| (payload, None)).collect()
}

#[test]
fn h265_begins_at_its_parameter_sets_and_arrives_bit_by_bit() {
    let outcome = Script::video(only(Codec::H265), h265_frame).play(only(Codec::H265));
    let first = outcome.got[0].payload[0] >> 1;
    assert!([32, 48].contains(&first), "the first unit is of type {first}");
    outcome.assert_forwarded(whole);
}

#[test]
fn vp9_begins_at_a_keyframe_and_keeps_all_but_its_numbering() {
    let frame = |n: u32, keyframe: bool| -> Frame {
        let packet = |begin: u8, end: u8| {
            let predicted = if keyframe { 0 } else { 0x40 };
            let head = [0x80 | predicted | begin | end, 0x80 | (n >> 8) as u8, n as u8];
            ([&head[..], &[n as u8; 700]].concat(), None)
        };
        vec![packet(8, 0), packet(0, 0), packet(0, 4)]
    };
    let outcome = Script::video(only(Codec::Vp9), frame).play(only(Codec::Vp9));
    assert_eq!(outcome.got[0].payload[0], 0x88, "the first packet of a keyframe");
    outcome.assert_forwarded(|payload| &payload[3..]);
    let picture = |got: &Got| u16::from_be_bytes([got.payload[1], got.payload[2]]) & 0x7fff;
    for pair in outcome.got.windows(2) {
        assert_eq!(pair[0].payload[0] & 0x47 | 0x88, pair[0].payload[0] | 0x88, "flags stay");
        let step = picture(&pair[1]) - picture(&pair[0]);
        assert_eq!(step, u16::from(pair[0].marker), "a picture's packets have its id");
    }
}

fn av1_frame(n: u32, keyframe: bool) -> Frame {
    let [_, _, high, low] = n.to_be_bytes();
    let (begin, end) = (0x80, 0x40);
    let structure = || [&[begin, high, low, 0x80][..], &[0x5a; 40]].concat();
    let plain = |flags: u8| vec![flags, high, low];
    let obu = |head: u8, kind: u8| [vec![head, kind << 3], vec![n as u8; 900]].concat();
    if keyframe {
        vec![(obu(0x18, 1), Some(structure())), (obu(0x90, 6), Some(plain(end)))]
    } else {
        vec![(obu(0x10, 6), Some(plain(begin | end)))]
    }
}

#[test]
fn av1_keeps_its_dependency_descriptor_even_where_that_needs_the_long_form() {
    let speaks = |id| Abilities { descriptor_id: Some(id), ..only(Codec::Av1) };
    let outcome = Script::video(speaks(12), av1_frame).play(speaks(13));
    outcome.assert_forwarded(whole);
    outcome.assert_descriptors_forwarded();
    let long = outcome.got[0].descriptor.as_ref().map(|descriptor| descriptor.0.len());
    assert_eq!(long, Some(44), "the structure of the first keyframe came along");
}

#[test]
fn av1_reaches_a_subscriber_that_knows_no_dependency_descriptor() {
    let speaks = Abilities { descriptor_id: Some(12), ..only(Codec::Av1) };
    let outcome = Script::video(speaks, av1_frame).play(only(Codec::Av1));
    outcome.assert_forwarded(whole);
    assert!(outcome.got.iter().all(|got| got.descriptor.is_none()));
}

#[test]
fn g711_arrives_bit_by_bit_on_its_clock() {
    let script = Script {
        abilities: only(Codec::PCMU),
        kind: MediaKind::Audio,
        rate: 8,
        frame: |n, _| vec![(vec![n as u8; 320 - TAG], None)],
    };
    script.play(only(Codec::PCMU)).assert_forwarded(whole);
}
