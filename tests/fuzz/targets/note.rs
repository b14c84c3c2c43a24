//! What shards of different nodes write to each other about tracks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::cluster::note::Notes;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(notes) = Notes::read(bytes) {
        let written = notes.to_letters();
        assert_eq!(written.len(), 1, "it was short enough to come");
        assert_eq!(Notes::read(&written[0]), Ok(notes));
    }
});
