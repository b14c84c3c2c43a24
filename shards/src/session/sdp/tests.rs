//! Tests of the negotiation as a whole.

mod client;
mod properties;
mod recorded;
mod semantics;

use std::net::SocketAddr;

use super::description::{Description, Section};
use super::parse::parse;
use super::*;

pub(super) const UFRAG: &str = "s0aabbcc";
const FINGERPRINT: &str = "sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
                           00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";
const CANDIDATES: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 3478),
    SocketAddr::new(
        std::net::IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        3478,
    ),
];

pub(super) fn local() -> LocalTransport<'static> {
    LocalTransport {
        ufrag: UFRAG,
        pwd: "0123456789abcdef01234567",
        fingerprint: FINGERPRINT,
        candidates: &CANDIDATES,
    }
}

pub(super) fn spec(ssrc: u32, preferred: Option<CodecSpec>) -> SendSpec {
    SendSpec {
        ssrc,
        rtx_ssrc: Some(ssrc + 1),
        cname: "publisher".to_owned(),
        stream_id: "stream".to_owned(),
        track_id: format!("track{ssrc}"),
        preferred,
    }
}

pub(super) fn codec(codec: crate::media::format::Codec, fmtp: &str) -> CodecSpec {
    CodecSpec { codec, fmtp: fmtp.to_owned() }
}

/// A recorded description.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/sdp/", $name, ".sdp"))
    };
}
use fixture;

/// What holds for every description of ours.
pub(super) fn check_ours(text: &str) -> Description {
    assert!(text.ends_with("\r\n"));
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    let ours = parse(text).expect("our own description parses");
    assert!(ours.ice_lite);
    let live: Vec<&Section> = ours.sections.iter().filter(|s| s.port != 0).collect();
    let mids: Vec<&str> = live.iter().map(|s| s.mid.as_deref().expect("mid")).collect();
    let tagged = match &ours.bundle {
        Some(group) => {
            let (mut sorted, mut expected) = (group.clone(), mids.clone());
            sorted.sort();
            expected.sort_unstable();
            assert_eq!(sorted, expected, "BUNDLE has exactly the live lines");
            group.first().cloned()
        }
        None => mids.first().map(|&mid| mid.to_owned()),
    };
    for section in &ours.sections {
        let is_tagged = section.port != 0 && section.mid == tagged;
        let told = text_of(text, section.mid.as_deref().expect("mid"))
            .contains("a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host\r\n");
        assert_eq!(told, is_tagged, "candidates stand in the tagged section: {text}");
        if section.port == 0 {
            continue;
        }
        assert_eq!(section.transport.ufrag.as_deref(), Some(UFRAG));
        assert_eq!(section.transport.fingerprints, [FINGERPRINT]);
        assert!(section.transport.setup.is_some());
        if section.media != "application" {
            check_payload_types(section);
        }
    }
    ours
}

/// The text of the section of a mid.
fn text_of<'a>(text: &'a str, mid: &str) -> &'a str {
    let line = format!("a=mid:{mid}\r\n");
    text.split("\r\nm=").find(|part| part.contains(&line)).expect("section")
}

fn check_payload_types(section: &Section) {
    assert!(section.rtcp_mux);
    let listed = |pt: &str| section.formats.iter().any(|format| format == pt);
    for format in &section.formats {
        let pt: u8 = format.parse().expect("a number");
        assert!(pt < 64 || (96..128).contains(&pt), "payload type {pt}");
        let map = section.maps.iter().find(|map| map.pt == pt).expect("each has a map");
        match map.name.as_str() {
            "rtx" => {
                let apt = section.fmtp(pt).strip_prefix("apt=").expect("apt");
                assert!(listed(apt), "RTX {pt} of {apt}");
            }
            "red" => {
                assert!(section.fmtp(pt).split('/').all(listed), "RED {pt}");
            }
            _ => {}
        }
    }
}

/// What holds for an answer of ours to an offer.
pub(super) fn check_answer(offer: &Description, text: &str) -> Description {
    let answer = check_ours(text);
    assert_eq!(answer.sections.len(), offer.sections.len());
    assert_eq!(answer.bundle.is_some(), offer.bundle.is_some());
    for (offered, answered) in offer.sections.iter().zip(&answer.sections) {
        assert_eq!(offered.media, answered.media);
        assert_eq!(offered.protocol, answered.protocol);
        assert!(offered.mid.is_none() || offered.mid == answered.mid);
        if offered.is_stopped() {
            assert_eq!(answered.port, 0);
        }
        let allowed = offered.direction.reversed();
        if answered.media != "application" {
            assert_eq!(answered.direction.and(allowed), answered.direction);
        }
        for map in &answered.maps {
            let same = |of: &&description::RtpMap| {
                of.pt == map.pt
                    && of.name.eq_ignore_ascii_case(&map.name)
                    && of.clock_rate == map.clock_rate
            };
            assert!(offered.maps.iter().any(|of| same(&of)), "{map:?} was offered");
        }
        for (pt, text) in &answered.feedback {
            assert!(offered.feedback.contains(&(*pt, text.clone())), "{pt:?} {text}");
        }
        for map in &answered.extensions {
            let same = |of: &description::ExtMap| (of.id, &of.uri) == (map.id, &map.uri);
            assert!(offered.extensions.iter().any(same), "{map:?} was offered");
        }
    }
    answer
}
