//! What nodes write to each other about sessions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::cluster::letter::Letter;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(letter) = Letter::parse(bytes) {
        let written = letter.to_bytes().expect("it was short enough to come");
        assert_eq!(Letter::parse(&written), Ok(letter));
    }
});
