//! What a shard counts. Plain fields; the rim reads them.

/// Counters since start. Those named `*_dropped` and `faults` are data-plane faults: counted,
/// and otherwise without consequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meters {
    pub sessions_opened: u64,
    pub sessions_closed: u64,
    pub tracks_published: u64,
    pub pulls_started: u64,
    /// Packets of media received, authentic and new.
    pub packets_in: u64,
    /// Of tracks of other nodes, over links.
    pub packets_relayed_in: u64,
    /// Copies of packets sent to subscribers, resends apart.
    pub packets_out: u64,
    /// Copies not sent: too long for a datagram with the subscriber's header extensions, of a
    /// picture from before its switch to this source, or of a RED payload that makes no sense.
    pub copies_dropped: u64,
    pub resends: u64,
    /// Keyframes asked of publishers.
    pub keyframes_asked: u64,
    /// Keyframes subscribers asked for.
    pub keyframes_wanted: u64,
    /// Packets asked of publishers again.
    pub nacks_sent: u64,
    /// Packets subscribers asked for again.
    pub nacks_received: u64,
    pub nacks_answered_late: u64,
    pub strays_sent: u64,
    pub strays_received: u64,
    pub control_dropped: u64,
    pub resends_dropped: u64,
    /// Panics contained; each ended a session.
    pub panics: u64,
    pub faults: Faults,
}

/// What a shard holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    pub sessions: usize,
    /// Tracks published here, mirrored from other shards, or asked for.
    pub tracks: usize,
    pub pulls: usize,
}

/// Datagrams dropped, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    pub unknown_protocol: u64,
    pub unknown_source: u64,
    pub unknown_ufrag: u64,
    pub malformed: u64,
    pub replayed: u64,
    pub unauthentic: u64,
    pub early: u64,
    pub unwanted: u64,
    pub too_many_streams: u64,
    pub too_long: u64,
    /// Letters of other nodes about tracks that make no sense.
    pub malformed_letters: u64,
    /// STUN checks from more addresses than a session may have.
    pub too_many_sources: u64,
    /// STUN checks from an address that another session is heard from.
    pub taken_address: u64,
}
