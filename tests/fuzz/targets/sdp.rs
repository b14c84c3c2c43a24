//! Offers read and answered, answers taken, in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::command::MediaKind;
use shards::session::sdp::{LocalTransport, Negotiator, SendSpec, Want};

fuzz_target!(|text: &str| {
    let candidates = [([10, 0, 0, 1], 3478).into()];
    let local = LocalTransport {
        ufrag: "ABCDEFabcdefgh",
        pwd: "0123456789abcdef01234567",
        fingerprint: "sha-256 00",
        candidates: &candidates,
    };
    let mut negotiator = Negotiator::new(1);
    if let Ok(offer) = negotiator.read_offer(text) {
        let _ = negotiator.answer(offer, &[], &local);
    }
    let spec = SendSpec {
        ssrc: 1,
        rtx_ssrc: Some(2),
        cname: "c".into(),
        stream_id: "s".into(),
        track_id: "t".into(),
        preferred: None,
    };
    if negotiator.offer(&[Want::Send { kind: MediaKind::Video, spec }], &local).is_ok() {
        let _ = negotiator.accept_answer(text);
    }
});
