//! Every bound of the HTTP side, with its reason.
//!
//! Invariants: sizes are bytes on the wire unless said; times are what a peer may take, never
//! what we hope to need.
//!
//! Not here: bounds of sessions and tracks, which are the shards' own.

use std::time::Duration;

/// A request's head. Browsers and proxies send 1-2 KiB, and cookies of a shared host may add a
/// few; more is an attack or a mistake, and each waiting connection may hold this much.
pub const HEAD_BYTES: usize = 16 << 10;

/// Header lines in a head. Proxies add a dozen to a browser's twenty.
pub const HEADERS: usize = 64;

/// A request's body. The largest real one is an offer with a hundred m-lines, about 200 KiB
/// once escaped as JSON; memory for 512 KiB is held only while the body arrives.
pub const BODY_BYTES: usize = 512 << 10;

/// A chunk's size line with its extensions, which nobody uses. Less framing than this per
/// chunk would refuse legal clients; more lets a body cost much more to receive than to hold.
pub const CHUNK_LINE_BYTES: usize = 64;

/// Trailer lines after a chunked body, read and thrown away.
pub const TRAILER_BYTES: usize = 4 << 10;

/// Empty lines tolerated before a request line (RFC 9112 section 2.2 asks for one).
pub const LEADING_EMPTY_LINES: usize = 2;

/// One read from a socket: a TLS record, or any ordinary request whole. The buffer is shared
/// by all connections of a shard.
pub const READ_BYTES: usize = 17 << 10;

/// Connections per shard. Each costs a descriptor, and with TLS about 20 KiB: 40 MiB in all.
pub const CONNECTIONS_PER_SHARD: usize = 2048;

/// TLS handshakes under way per shard. One costs about 0.5 ms of this core's time; a burst of
/// this many takes 30 ms, during which media still runs between them. The rest waits in line.
pub const HANDSHAKES_PER_SHARD: usize = 64;

/// Sets of the table of request rates; see [`RATE_WAYS`].
pub const RATE_SETS: usize = 1024;

/// Sessions per set. Sets times ways sessions can be limited exactly at one time, per shard;
/// that is more than the sessions a shard serves, and 160 KiB.
pub const RATE_WAYS: usize = 4;

/// Requests per second and session, and how many may come at once: the Realtime API's limit.
pub const REQUESTS_PER_SECOND: u32 = 50;

/// Tracks one request may name: the Realtime API's limit.
pub const TRACKS_PER_REQUEST: usize = 64;

/// A track's name, a mid or a session's id, in a request. Names are UUIDs or short labels;
/// every subscriber's request and every listing repeats them.
pub const NAME_BYTES: usize = 256;

/// Bytes read and dropped after our last, so that the peer sees our answer before a reset.
pub const LINGER_BYTES: usize = 256 << 10;

/// How often deadlines are checked. Finer wakes an idle shard more often (50 us each); coarser
/// makes every deadline that much later.
pub const TICK: Duration = Duration::from_millis(250);

/// After a failed accept (no descriptors left), how long until the next.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a peer may take. A value, so that tests can be quick.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From the connection, or the first byte of a later request, to the end of the head. The
    /// TLS handshake counts into the first.
    pub head: Duration,
    /// From the end of the head to the end of the body: 35 KB/s for the largest.
    pub body: Duration,
    /// Between requests. Longer than the 30 s clients poll at, shorter than most NATs forget.
    pub idle: Duration,
    /// From a response's first byte to its last.
    pub write: Duration,
    /// For the desk's answer. A pull waits 5 s for its publisher and 8 s for a packet.
    pub answer: Duration,
    /// For what every shard has counted. A shard that is up answers within a turn; Prometheus
    /// waits 10 s.
    pub survey: Duration,
    /// After our last byte, for the peer to close.
    pub linger: Duration,
    /// From the beginning of the drain to the end of the last connection.
    pub drain: Duration,
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            survey: Duration::from_secs(2),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(20),
            tick: TICK,
        }
    }
}

const _: () = assert!(READ_BYTES >= 16384 + 256, "a whole TLS record fits one read");
const _: () = assert!(BODY_BYTES > HEAD_BYTES && LINGER_BYTES > READ_BYTES);
const _: () = assert!(RATE_SETS.is_power_of_two());
const _: () = assert!(HANDSHAKES_PER_SHARD <= CONNECTIONS_PER_SHARD);
