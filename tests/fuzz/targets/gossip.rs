//! What membership datagrams hold, and the datagrams themselves.
#![no_main]

use std::sync::LazyLock;
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use relay::control::Versions;
use relay::hub::{Hub, HubConfig};
use relay::keys::ClusterKeys;

static CONFIG: LazyLock<HubConfig> = LazyLock::new(|| HubConfig {
    keys: ClusterKeys::parse(&format!("shardcast-key-1:01:{}", "0f".repeat(31) + "00"))
        .expect("this is a key"),
    address: ([192, 0, 2, 1], 4700).into(),
    seeds: Vec::new(),
    shards: 1,
    links: Vec::new(),
    versions: Versions::of(1),
    caps: 0,
    start_ms: 0,
});

fuzz_target!(|bytes: &[u8]| {
    relay::parsers::member_body(bytes);
    let now = Instant::now();
    let mut hub = Hub::new(CONFIG.clone(), now, [7; 32]);
    hub.handle_datagram(now, ([192, 0, 2, 2], 4700).into(), None, bytes);
    while hub.poll_transmit(now).is_some() {}
    assert!(hub.poll_event().is_none(), "nobody has the key");
});
