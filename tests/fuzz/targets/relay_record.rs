//! The records of an authentic datagram, and headers of any.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::wire::{Header, Record, Records};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(bytes[..header.write().len()], header.write());
    }
    for record in Records::new(bytes).flatten() {
        match record {
            Record::Media { media, repair } => {
                // What is read is written again, and read the same.
                let mut out = vec![0; media.record_len()];
                media.write(repair, &mut out);
                let again: Vec<_> = Records::new(&out).collect();
                assert_eq!(again, [Ok(record)]);
            }
            Record::Feedback(feedback) => {
                for run in feedback.missing() {
                    assert!(run.first + run.len <= feedback.largest);
                }
            }
            Record::Fragment(fragment) => {
                assert!(fragment.offset() + fragment.piece.len() <= usize::from(fragment.total));
            }
            Record::Clock(_)
            | Record::Keyframe { .. }
            | Record::Ping { .. }
            | Record::Pong { .. }
            | Record::Unknown => {}
        }
    }
});
