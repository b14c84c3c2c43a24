//! Where a decoder can start: the first packet of a key frame, per codec.
//!
//! Invariants: answers are about the first packet of the key frame only, so that a switch of
//! sources at a packet that says yes forwards all that a fresh decoder needs. Only
//! descriptors, NAL and OBU headers are read, for the rest may be end-to-end encrypted.
//!
//! Not here: the dependency descriptor, which answers the same question for any codec and goes
//! first where it was negotiated ([`super::dd`]).

use super::{vp8, vp9};
use crate::media::format::Codec;

/// Units looked at inside one aggregation packet. A key frame starts with its parameter sets;
/// two or three small units may stand before them (delimiter, SEI).
const AGGREGATED_MAX: usize = 8;

/// Whether a decoder can start with this packet. Always so for audio.
pub fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => true,
        Codec::Vp8 => vp8::starts_keyframe(payload),
        Codec::Vp9 => vp9::Descriptor::parse(payload).is_some_and(|d| d.starts_keyframe()),
        Codec::H264 => h264_starts_keyframe(payload),
        Codec::H265 => h265_starts_keyframe(payload),
        Codec::Av1 => av1_starts_keyframe(payload),
    }
}

/// Whether this packet is the first of a frame (of a layer's frame, for VP9), or `None` if the
/// payload alone does not tell: then a change of the RTP timestamp has to.
pub fn starts_frame(codec: Codec, payload: &[u8]) -> Option<bool> {
    match codec {
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => Some(true),
        Codec::Vp8 => vp8::Descriptor::parse(payload).map(|d| d.starts_frame),
        Codec::Vp9 => vp9::Descriptor::parse(payload).map(|d| d.starts_frame),
        Codec::H264 => is_fragment_inside(h264_fragment_header(payload)?),
        Codec::H265 => is_fragment_inside(h265_fragment_header(payload)?),
        Codec::Av1 => match *payload.first()? {
            header if header & AV1_Z != 0 => Some(false),
            header if header & AV1_N != 0 => Some(true),
            _ => None,
        },
    }
}

const FU_START: u8 = 0x80;

fn is_fragment_inside(fu_header: u8) -> Option<bool> {
    (fu_header & FU_START == 0).then_some(false)
}

// H.264, RFC 6184. Only a sequence parameter set counts: a fresh decoder cannot begin at a bare
// IDR slice, and taking one for the start would give up an SPS packet that was merely late.
const H264_SPS: u8 = 7;
const H264_STAP_A: u8 = 24;
const H264_FU_A: u8 = 28;

fn h264_type(nal_header: u8) -> u8 {
    nal_header & 0x1f
}

fn h264_starts_keyframe(payload: &[u8]) -> bool {
    let Some((&header, rest)) = payload.split_first() else { return false };
    match h264_type(header) {
        H264_SPS => true,
        // RFC 6184, 5.7.1: two bytes of size before each unit.
        H264_STAP_A => aggregated(rest).any(|nal| h264_type(nal) == H264_SPS),
        // RFC 6184, 5.8: the unit's type is in the FU header.
        H264_FU_A => {
            rest.first().is_some_and(|&fu| fu & FU_START != 0 && h264_type(fu) == H264_SPS)
        }
        _ => false,
    }
}

fn h264_fragment_header(payload: &[u8]) -> Option<u8> {
    (h264_type(*payload.first()?) == H264_FU_A).then(|| payload.get(1).copied()).flatten()
}

// H.265, RFC 7798. Parameter sets only, for the same reason as above.
const H265_VPS: u8 = 32;
const H265_SPS: u8 = 33;
const H265_AP: u8 = 48;
const H265_FU: u8 = 49;
const H265_HEADER_LEN: usize = 2;

fn h265_type(nal_header: u8) -> u8 {
    nal_header >> 1 & 0x3f
}

fn h265_starts_keyframe(payload: &[u8]) -> bool {
    let is_start = |nal_type| matches!(nal_type, H265_VPS | H265_SPS);
    let Some((&header, rest)) = payload.split_first() else { return false };
    match h265_type(header) {
        // RFC 7798, 4.4.2; DONL fields are not negotiated in WebRTC.
        H265_AP => {
            aggregated(rest.get(1..).unwrap_or_default()).any(|nal| is_start(h265_type(nal)))
        }
        // RFC 7798, 4.4.3: S, E, and the type in the low six bits.
        H265_FU => payload
            .get(H265_HEADER_LEN)
            .is_some_and(|&fu| fu & FU_START != 0 && is_start(fu & 0x3f)),
        nal_type => is_start(nal_type),
    }
}

fn h265_fragment_header(payload: &[u8]) -> Option<u8> {
    (h265_type(*payload.first()?) == H265_FU)
        .then(|| payload.get(H265_HEADER_LEN).copied())
        .flatten()
}

/// The first header byte of each unit in an aggregation packet, as far as sizes make sense.
fn aggregated(mut units: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (&size, rest) = units.split_first_chunk::<2>()?;
        let unit = rest.get(..usize::from(u16::from_be_bytes(size)))?;
        units = &rest[unit.len()..];
        unit.first().copied()
    })
    .take(AGGREGATED_MAX)
}

// AV1 RTP specification, 4.4: the aggregation header Z Y W(2) N.
const AV1_Z: u8 = 0x80;
const AV1_N: u8 = 0x08;
const AV1_SEQUENCE_HEADER: u8 = 1;
const AV1_TEMPORAL_DELIMITER: u8 = 2;

fn av1_starts_keyframe(payload: &[u8]) -> bool {
    let Some((&header, mut elements)) = payload.split_first() else { return false };
    if header & AV1_Z != 0 {
        return false;
    }
    if header & AV1_N != 0 {
        return true;
    }
    // Senders that forget N still put the sequence header first, perhaps behind a delimiter.
    let element_count = usize::from(header >> 4 & 0x03);
    for index in 1..=2 {
        // All elements have a length, but for the last of a known number (W).
        if element_count != index {
            let Some((len, rest)) = leb128(elements) else { return false };
            let Some(element) = rest.get(..len) else { return false };
            match element.first().map(|obu| obu >> 3 & 0x0f) {
                Some(AV1_SEQUENCE_HEADER) => return true,
                Some(AV1_TEMPORAL_DELIMITER) => elements = &rest[len..],
                _ => return false,
            }
        } else {
            return elements.first().is_some_and(|obu| obu >> 3 & 0x0f == AV1_SEQUENCE_HEADER);
        }
    }
    false
}

/// A length of up to three bytes, more than a datagram can hold.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(3).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn audio_can_start_anywhere() {
        for codec in [Codec::Opus, Codec::Red, Codec::Pcmu, Codec::Pcma] {
            assert!(starts_keyframe(codec, &[]));
        }
    }

    #[test]
    fn vp8_key_frames_start_with_a_clear_p_bit_in_the_first_partition() {
        let key = |payload: &[u8]| starts_keyframe(Codec::Vp8, payload);
        assert!(key(&[0x10, 0x50, 0x9d, 0x01, 0x2a]), "S, partition 0, P = 0");
        assert!(key(&[0x90, 0xe0, 0x81, 0x02, 0x07, 0x21, 0x50, 0x9d]), "with I, L, T");
        assert!(!key(&[0x10, 0x31]), "an inter frame");
        assert!(!key(&[0x00, 0x50]), "not the first packet");
        assert!(!key(&[0x11, 0x50]), "partition 1");
        assert!(!key(&[0x10]), "no payload");
    }

    #[test]
    fn vp9_key_frames_start_with_an_unpredicted_base_layer() {
        let key = |payload: &[u8]| starts_keyframe(Codec::Vp9, payload);
        assert!(key(&[0x88, 0x12]), "I B, 7 bit id, no layers");
        assert!(key(&[0xa8, 0x81, 0x02, 0x00, 0x05]), "I L B, non-flexible");
        assert!(key(&[0xb8, 0x81, 0x02, 0x00]), "I L F B, flexible");
        assert!(!key(&[0xa8, 0x81, 0x02, 0x03, 0x05]), "spatial layer 1, predicted from 0");
        assert!(!key(&[0xe8, 0x81, 0x02, 0x00, 0x05]), "inter picture");
        assert!(!key(&[0xa0, 0x81, 0x02, 0x00, 0x05]), "not the first packet");
    }

    #[test]
    fn h264_key_frames_start_with_an_sps() {
        let key = |payload: &[u8]| starts_keyframe(Codec::H264, payload);
        assert!(key(&[0x67, 0x42, 0xe0, 0x1f]), "single SPS");
        assert!(key(&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce]), "STAP-A of SPS and PPS");
        assert!(key(&[0x78, 0, 2, 0x09, 0x10, 0, 2, 0x67, 0x42]), "delimiter first");
        assert!(key(&[0x7c, 0x87, 0x42]), "FU-A start of an SPS");
        assert!(!key(&[0x7c, 0x07, 0x42]), "FU-A continuation");
        assert!(!key(&[0x65, 0x88]), "IDR without parameter sets");
        assert!(!key(&[0x7c, 0x85, 0x88]), "the same in fragments");
        assert!(!key(&[0x41, 0x9a]), "inter slice");
        assert!(!key(&[0x78, 0, 9, 0x67]), "a unit beyond the end");
    }

    #[test]
    fn h265_key_frames_start_with_vps_or_sps() {
        let key = |payload: &[u8]| starts_keyframe(Codec::H265, payload);
        assert!(key(&[0x40, 0x01, 0x0c]), "VPS");
        assert!(key(&[0x42, 0x01, 0x01]), "SPS");
        assert!(key(&[0x60, 0x01, 0, 3, 0x40, 0x01, 0x0c, 0, 3, 0x42, 0x01, 0x01]), "AP");
        assert!(key(&[0x62, 0x01, 0x80 | 33]), "FU start of an SPS");
        assert!(!key(&[0x62, 0x01, 33]), "FU continuation");
        assert!(!key(&[0x26, 0x01, 0xaf]), "IDR_W_RADL without parameter sets");
        assert!(!key(&[0x02, 0x01, 0xd0]), "TRAIL_R");
    }

    #[test]
    fn av1_key_frames_start_a_coded_video_sequence() {
        let key = |payload: &[u8]| starts_keyframe(Codec::Av1, payload);
        assert!(key(&[0x18, 0x0a, 0x0b]), "W = 1 and N");
        assert!(key(&[0x10, 0x08, 0x00]), "sequence header, W = 1, without N");
        assert!(key(&[0x20, 0x02, 0x08, 0x00, 0x30]), "sequence header with a length, W = 2");
        assert!(key(&[0x00, 0x01, 0x10, 0x02, 0x08, 0x00]), "behind a delimiter, W = 0");
        assert!(!key(&[0x88, 0x0a]), "a continuation cannot start one");
        assert!(!key(&[0x10, 0x30]), "a frame OBU");
        assert!(!key(&[0x00, 0xff, 0xff, 0xff, 0xff]), "a length without an end");
    }

    #[test]
    fn frames_start_where_the_payload_says_so() {
        assert_eq!(starts_frame(Codec::Opus, &[]), Some(true));
        assert_eq!(starts_frame(Codec::Vp8, &[0x10, 0x31]), Some(true));
        assert_eq!(starts_frame(Codec::Vp8, &[0x00, 0x31]), Some(false));
        assert_eq!(starts_frame(Codec::Vp9, &[0xc8, 0x12]), Some(true));
        assert_eq!(starts_frame(Codec::H264, &[0x7c, 0x05, 0x88]), Some(false));
        assert_eq!(starts_frame(Codec::H264, &[0x41, 0x9a]), None);
        assert_eq!(starts_frame(Codec::H265, &[0x62, 0x01, 0x13]), Some(false));
        assert_eq!(starts_frame(Codec::Av1, &[0x90, 0x30]), Some(false));
        assert_eq!(starts_frame(Codec::Av1, &[0x10, 0x30]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
                let _ = starts_keyframe(codec, &bytes);
                let _ = starts_frame(codec, &bytes);
            }
        }
    }
}
