//! How QUIC is set up between nodes. Nothing in it reads a clock or makes random numbers of its
//! own: what quinn-proto would take from the system it is given here.
//!
//! Invariants: given one seed, all connection ids and packet numbers are the same in each run
//! (TLS draws its own randomness, which changes bytes but no length).
//!
//! Not here: who may connect (`Control`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    MtuDiscoveryConfig, NoneTokenStore, ServerConfig, TimeSource, TransportConfig, VarInt,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::frames::{CLASSES, MESSAGE_MAX};
use super::tls;
use crate::keys::{self, ClusterKeys, Purpose};

/// A connection on which nothing is heard for so long is dead.
const IDLE: Duration = Duration::from_secs(15);
/// Two of these may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Ethernet's, less IPv4 and UDP. Where larger ones pass, the media links gain nothing: RTP is
/// no larger.
const MTU_MAX: u16 = 1472;
/// Before a round trip was measured. Too short means a repeated first flight on far paths, too
/// long a slow start on lossy ones.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// Sent and not yet acknowledged: 100 ms of 80 Mbit/s.
const SEND_WINDOW: u64 = 1 << 20;
/// Handshakes that quinn holds for our decision, which we make at once.
const INCOMING_MAX: usize = 64;

/// An endpoint, and the configuration of its calls.
pub(super) struct Quic {
    pub(super) endpoint: Endpoint,
    pub(super) client: ClientConfig,
    clock: Arc<Clock>,
}

impl Quic {
    pub(super) fn new(keys: &ClusterKeys, address: SocketAddr, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let (client, server) = tls::configs(keys);
        let transport = Arc::new(transport());
        let clock = Arc::new(Clock::default());
        // The same for each run at this address, so that a restarted node can say to whoever
        // still sends to the run before that it knows of nothing.
        let reset = keys.sending().derive(Purpose::Reset);
        let reset = keys::expand(&reset, address.to_string().as_bytes());
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*reset)));
        let cids: [u8; 32] = rng.random();
        config
            .cid_generator(move || Box::new(Cids(StdRng::from_seed(cids))))
            // A greased bit would make control packets look like something else (see `hub`).
            .grease_quic_bit(false)
            .supported_versions(vec![1])
            .rng_seed(Some(rng.random()));
        // Tokens are valid in this run only: nothing is lost, since they live for seconds.
        let tokens: [u8; 32] = rng.random();
        let tokens = hkdf::Salt::new(hkdf::HKDF_SHA256, b"shardcast tokens").extract(&tokens);
        let mut accept = ServerConfig::new(server, Arc::new(tokens));
        accept
            .transport_config(transport.clone())
            .time_source(clock.clone())
            // Nodes stay where they are, and nobody here follows one.
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(4096)
            .incoming_buffer_size_total(4096 * INCOMING_MAX as u64);
        let mut call = ClientConfig::new(client);
        let first_cids = Mutex::new(StdRng::from_seed(rng.random()));
        call.transport_config(transport).token_store(Arc::new(NoneTokenStore));
        call.initial_dst_cid_provider(Arc::new(move || {
            let mut rng = first_cids.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let bytes: [u8; 20] = rng.random();
            ConnectionId::new(&bytes)
        }));
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(accept)), true, None);
        Self { endpoint, client: call, clock }
    }

    /// What tokens are dated with: time since the node started.
    pub(super) fn set_elapsed(&self, elapsed: Duration) {
        // A node does not run for 500 million years.
        self.clock.0.store(elapsed.as_millis() as u64, Ordering::Relaxed);
    }
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let window = 2 * MESSAGE_MAX as u32;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE.try_into().expect("15 s fit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1 + CLASSES as u32))
        .stream_receive_window(VarInt::from_u32(window))
        .receive_window(VarInt::from_u32(window * CLASSES as u32))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    transport
}

/// Random connection ids from the node's seed.
struct Cids(StdRng);

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let bytes: [u8; 8] = self.0.random();
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Milliseconds since the node started, as a wall clock.
#[derive(Default)]
struct Clock(AtomicU64);

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
