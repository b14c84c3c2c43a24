//! The file of cluster keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::keys::ClusterKeys;

fuzz_target!(|text: &str| {
    match ClusterKeys::parse(text) {
        Ok(keys) => assert!(keys.get(keys.sending().kid()).is_some()),
        Err(error) => assert!(error.to_string().contains("line")),
    }
});
