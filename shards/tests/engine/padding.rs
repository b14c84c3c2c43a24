//! Frames in nearly equal packets leave in equal ones, and arrive as they were sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use shards::media::rtp::{Kind, RtpHeader, kind};
use shards::media::srtp::Profile;
use str0m::media::MediaKind;

use crate::client::Packet;
use crate::world::{World, ms, secs};

/// As libwebrtc cuts 10,400 bytes: the last few are one byte longer.
const FRAME: [usize; 9] = [1155, 1155, 1155, 1155, 1156, 1156, 1156, 1156, 1156];

/// Lengths of media datagrams, and whether they say that they are padded, by timestamp.
type Left = Rc<RefCell<BTreeMap<u32, Vec<(usize, bool)>>>>;

#[test]
fn nearly_equal_packets_leave_equal_and_arrive_as_they_were_sent() {
    let mut world = World::new(2);
    let (publisher, session, mids) = world.publisher(0, &[("cam", MediaKind::Video)]);
    let (viewer, _, _) = world.viewer(1, &[(session, "cam")]);
    world.run(secs(1));
    world.flows.clear();
    world.run(secs(1));
    let (left, lost) = (Left::default(), Rc::new(RefCell::new(0u64)));
    let (record, losses, to_viewer) =
        (Rc::clone(&left), Rc::clone(&lost), world.clients[viewer].external);
    world.network = Box::new(move |count, _, to, bytes| {
        if to == to_viewer && kind(bytes) == Kind::Rtp {
            let header = RtpHeader::parse(bytes).unwrap();
            let mut left = record.borrow_mut();
            left.entry(header.timestamp).or_default().push((bytes.len(), header.has_padding));
            if count % 10 == 0 {
                *losses.borrow_mut() += 1;
                return vec![];
            }
        }
        vec![Duration::ZERO]
    });
    world.clients[viewer].got.clear();
    let mut sent = Vec::new();
    for frame in 0..60u16 {
        // Halfway the encoder begins anew: from then on picture ids are rewritten in place.
        let picture = 0x8000 | if frame < 30 { 1000 + frame } else { 5000 + frame };
        let client = &mut world.clients[publisher];
        let payload_type = client.payload_type(MediaKind::Video);
        for (at, len) in FRAME.into_iter().enumerate() {
            let [high, low] = picture.to_be_bytes();
            let mut payload = vec![if at == 0 { 0x90 } else { 0x80 }, 0x80, high, low, 1];
            payload.resize(len, frame as u8 ^ at as u8);
            let packet = Packet {
                timestamp: 1_000_000_000 + u32::from(frame) * 3000,
                marker: at == 8,
                payload,
                descriptor: None,
            };
            client.write(&mids[0], payload_type, &packet, world.now);
            sent.push(packet);
        }
        world.run(ms(33));
    }
    world.run(secs(1));
    assert!(*lost.borrow() > 20, "the network loses some");
    let resends = world.engines[1].meters().resends;
    assert!(resends > 20, "{resends} resends");
    let overhead = Profile::AeadAes256Gcm.tag_len();
    for datagrams in left.borrow().values().filter(|datagrams| datagrams.len() >= FRAME.len()) {
        // Resends come later, with two bytes more.
        let (frame, resent) = datagrams.split_at(FRAME.len());
        assert!(frame.iter().all(|(len, _)| *len == frame[0].0), "{frame:?}");
        assert!(frame[0].0 >= FRAME[8] + 12 + overhead);
        let padded: Vec<bool> = frame.iter().map(|(_, padded)| *padded).collect();
        assert_eq!(padded, FRAME.map(|len| len == FRAME[0]));
        assert!(resent.iter().all(|(_, padded)| !padded), "a resend is not padded");
    }
    assert_eq!(left.borrow().len(), 60);
    let mut got = world.clients[viewer].got.clone();
    got.sort_by_key(|got| got.seq);
    assert_eq!(got.len(), sent.len());
    for (sent, got) in sent.iter().zip(&got) {
        assert_eq!(got.marker, sent.marker);
        assert_eq!(got.payload.len(), sent.payload.len());
        assert_eq!(got.payload[4..], sent.payload[4..], "all but the picture id");
    }
}
