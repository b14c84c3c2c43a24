//! What a link has counted, and how it stands.
//!
//! Invariants: the order of [`Stats::iter`] is fixed.

use super::fault::Faults;

/// Counters since the link was made, then gauges. Faults are named by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub datagrams_out: u64,
    /// UDP payload.
    pub bytes_out: u64,
    pub packets_out: u64,
    /// Zeros that made datagrams equal.
    pub padding_out: u64,
    /// Packets sent again.
    pub resent: u64,
    /// Lost packets that were not sent again: too old, tried too often, or the path is full.
    pub given_up: u64,
    /// Datagrams that the other side reported missing.
    pub lost_out: u64,
    /// Datagrams that the sink had no room for.
    pub no_room: u64,
    /// Packets that no datagrams could carry.
    pub too_large: u64,
    pub datagrams_in: u64,
    /// UDP payload.
    pub bytes_in: u64,
    /// Packets delivered.
    pub packets_in: u64,
    /// Packets delivered that had been sent again.
    pub repaired: u64,
    /// Packets not delivered, because they had been, or may have been.
    pub duplicates: u64,
    /// Datagrams that never came.
    pub lost_in: u64,
    /// Records of a later version.
    pub unknown: u64,
    /// Lanes open here.
    pub lanes: u64,
    /// 0 to 3, as [`State`](super::State).
    pub state: u64,
    /// The smoothed round trip, 0 before the first.
    pub rtt_us: u64,
    /// The last one-way delay over the least, in the direction of what we send.
    pub queue_us: u64,
    /// How late a datagram may be before it is reported missing.
    pub reorder_us: u64,
    /// What the other side's link time is ahead.
    pub offset_us: i64,
    pub faults: Faults,
}

impl Stats {
    /// Names and values, always in this order, without the faults.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, i64)> {
        [
            ("datagrams_out", self.datagrams_out),
            ("bytes_out", self.bytes_out),
            ("packets_out", self.packets_out),
            ("padding_out", self.padding_out),
            ("resent", self.resent),
            ("given_up", self.given_up),
            ("lost_out", self.lost_out),
            ("no_room", self.no_room),
            ("too_large", self.too_large),
            ("datagrams_in", self.datagrams_in),
            ("bytes_in", self.bytes_in),
            ("packets_in", self.packets_in),
            ("repaired", self.repaired),
            ("duplicates", self.duplicates),
            ("lost_in", self.lost_in),
            ("unknown", self.unknown),
            ("lanes", self.lanes),
            ("state", self.state),
            ("rtt_us", self.rtt_us),
            ("queue_us", self.queue_us),
            ("reorder_us", self.reorder_us),
        ]
        .into_iter()
        .map(|(name, value)| (name, value as i64))
        .chain([("offset_us", self.offset_us)])
    }
}
