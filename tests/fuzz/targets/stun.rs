//! STUN messages, and the ufrags in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::session::{recheck, stun, ufrag};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(check) = stun::Check::parse(bytes) {
        let _ = ufrag::address(check.ufrag());
    }
    let _ = recheck::Request::parse(bytes);
});
