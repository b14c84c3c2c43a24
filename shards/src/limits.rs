//! Every bound of a shard, with its reason. More of any of these costs memory or turn length
//! that somebody else would pay for.

use std::time::Duration;

use crate::outbox::{CAPACITY, MAX_DATAGRAM};

/// Sessions on one shard. The slot field of ids and ufrags has 24 bits; 32,768 sessions at
/// about 50 KB each are 1.6 GB, more than one core can feed.
pub const SESSIONS_PER_SHARD: usize = 1 << 15;

/// Tracks known to a shard, its own and mirrors of others: twice as many as sessions, so that
/// a shard full of audio+video publishers fits.
pub const FEEDS_PER_SHARD: usize = 1 << 16;

/// Pulls served by one shard: at 300 bytes of hot state each, 75 MB.
pub const PULLS_PER_SHARD: usize = 1 << 18;

/// Tracks one session may publish. Browsers slow down long before; the API allows 64 a call.
pub const TRACKS_PER_SESSION: usize = 256;

/// SSRCs received from one session: 256 tracks would be exaggerated, 32 tracks with three
/// layers and their RTX each are 192.
pub const STREAMS_PER_SESSION: usize = 256;

/// Simulcast layers one track may have had in its life, renegotiated ones included. Browsers
/// send three; layer indexes have 8 bits.
pub const LAYERS_PER_TRACK: usize = 16;

/// Tracks of a session that were asked for before they exist. Bounds what strangers' pulls
/// can make grow on a publisher.
pub const SOUGHT_PER_SESSION: usize = 256;

/// Network paths remembered per session: a browser tries each of its addresses with each of
/// ours, and few of them live.
pub const PATHS_PER_SESSION: usize = 16;

/// New addresses a session may be checked from at once. A browser tries each of its addresses
/// with each of ours, all together at the start.
pub const SOURCES_AT_ONCE: u32 = 32;

/// How soon it may be checked from one more.
pub const SOURCES_INTERVAL: Duration = Duration::from_secs(1);

/// Addresses one association may ever be checked from. Its ICE agent forgets none of them, and
/// looks at all of them for every check. Who moves more often has to join again.
pub const SOURCES_PER_ASSOCIATION: usize = 256;

/// API requests of one shard that wait for something, from any session.
pub const PENDING_PER_SHARD: usize = 4096;

/// API requests of one session that wait for something.
pub const PENDING_PER_SESSION: usize = 16;

/// Tracks in one API call, as the contract says.
pub const TRACKS_PER_CALL: usize = 64;

/// Characters of a track name. Names travel in JSON and in mail.
pub const TRACK_NAME_LEN: usize = 256;

/// Resends waiting for room in the outbox. A NACK names at most 17 packets a word; more than
/// this in one turn is an attack or a dead link.
pub const RESENDS_QUEUED: usize = 4096;

/// Datagrams other than media (STUN, DTLS, RTCP) waiting for room in the outbox.
pub const CONTROL_QUEUED: usize = 8192;

/// An address stays with the session that was heard from it, for this long after the last
/// authentic datagram: whoever replays an old check of its own under that address gets nothing.
/// Browsers check the path every 2.5 s, and a NAT that gives a port to somebody else has
/// usually let it rest for longer.
pub const ADDRESS_HELD: Duration = Duration::from_secs(5);

/// Sessions closed before what that caused is sent: each says goodbye in a few datagrams, and
/// none of them may be dropped.
pub const CLOSED_AT_ONCE: usize = CONTROL_QUEUED / 8;

/// Addresses of sessions on other shards that this shard has been told of.
pub const ROUTES_PER_SHARD: usize = 1 << 17;

/// Packets of one track handled as one. A subscriber gets a batch whole or not yet, so an empty
/// outbox must hold one; folding of datagrams gains nothing beyond 20.
pub const BATCH_PACKETS: usize = 32;

/// Batches lent to other shards and not yet home again.
pub const BATCHES_LENT: usize = 8192;

/// Spare batches of one size kept for reuse.
pub const BATCHES_SPARE: usize = 256;

/// The largest RTP datagram taken from or given to the network. Browsers stay below 1,200
/// bytes of payload; 1,500 is the Ethernet frame.
pub const DATAGRAM_LEN: usize = 1500;

/// Bytes of header extensions carried through with one packet. The largest real ones are
/// dependency descriptors with their template structure, below 100; the header of a copy, with
/// these and our own, stays far below a datagram.
pub const CARRIED_LEN: usize = 256;

/// A request that needs a connected transport waits this long for it.
pub const TRANSPORT_WAIT: Duration = Duration::from_secs(5);

/// A pull waits this long for the publisher's session to have the track.
pub const TRACK_WAIT: Duration = Duration::from_secs(5);

/// A pull waits this long, from its start, for the track's first packet.
pub const PACKET_WAIT: Duration = Duration::from_secs(8);

/// A session that never connects is forgotten after this time without any request.
pub const UNCONNECTED_LIFETIME: Duration = Duration::from_secs(60);

/// An offer of ours that is not answered is abandoned after this time: until then it keeps its
/// session from negotiating anything else, and the tracks it was made for alive. Browsers answer
/// within a second; applications may be slow to ask them.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(30);

/// No authenticated datagram for this long: the session counts as disconnected. Browsers check
/// the path every 2.5 s; four checks in a row do not vanish by chance.
pub const SILENCE: Duration = Duration::from_secs(10);

/// A disconnected session is kept this long, so that its client may come back.
pub const DISCONNECTED_LIFETIME: Duration = Duration::from_secs(30);

/// A track without RTP is unpublished after this time.
pub const TRACK_LIFETIME: Duration = Duration::from_secs(30);

const _: () = {
    assert!(SESSIONS_PER_SHARD <= 1 << 24, "the slot must fit its field in ids and ufrags");
    assert!(BATCH_PACKETS * MAX_DATAGRAM <= CAPACITY, "an empty outbox must hold a batch");
    assert!(PACKET_WAIT.as_millis() > TRACK_WAIT.as_millis());
};
