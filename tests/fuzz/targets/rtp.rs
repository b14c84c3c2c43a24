//! RTP headers, header extensions and payload descriptors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::media::codec::{dd, keyframe, red, vp8, vp9};
use shards::media::format::Codec;
use shards::media::rtp::{RtpHeader, kind, unpad};

fuzz_target!(|bytes: &[u8]| {
    let _ = kind(bytes);
    let Ok(header) = RtpHeader::parse(bytes) else { return };
    for (_, data) in header.elements() {
        let _ = dd::DependencyDescriptor::parse(data);
    }
    let payload = &bytes[header.header_len..];
    let _ = unpad(payload);
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1, Codec::Red] {
        let _ = keyframe::starts_keyframe(codec, payload);
        let _ = keyframe::starts_frame(codec, payload);
    }
    let _ = (vp8::Descriptor::parse(payload), vp9::Descriptor::parse(payload));
    let _ = red::primary(payload);
    let mut copy = payload.to_vec();
    let _ = red::rewrite_block_pts(&mut copy, |pt| Some(pt ^ 1));
});
