//! The numbers of a shard that are shown as they are: name, meaning, where to read them.
//!
//! Invariants: a counter is named without its `_total`, which the encoder appends, and without
//! its unit, which stands apart; README's table names every one.
//!
//! Not here: histograms, drops and requests, whose series are computed.

use prometheus_client::registry::Unit;
use shards::snapshot::Snapshot;

/// A metric of every shard.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    /// What tells its series apart, besides the shard.
    pub(super) label: Option<&'static str>,
    pub(super) series: &'static [Series],
}

/// The label's value, and the number.
pub(super) type Series = (&'static str, fn(&Snapshot) -> u64);

const fn family(name: &'static str, help: &'static str, series: &'static [Series]) -> Family {
    Family { name, help, unit: None, label: None, series }
}

/// Of what comes and what goes.
const fn both_ways(name: &'static str, help: &'static str, series: &'static [Series]) -> Family {
    Family { name, help, unit: None, label: Some("direction"), series }
}

pub(super) static COUNTERS: [Family; 17] = [
    both_ways(
        "shardcast_media_packets",
        "RTP packets received, authentic and new, and copies of them sent to subscribers",
        &[("in", |s| s.meters.packets_in), ("out", |s| s.meters.packets_out)],
    ),
    both_ways(
        "shardcast_datagrams",
        "UDP datagrams the kernel delivered or took, of any content",
        &[("in", |s| s.port.datagrams_in), ("out", |s| s.port.datagrams_out)],
    ),
    Family {
        name: "shardcast_datagram",
        help: "Content of those datagrams, without UDP and IP headers",
        unit: Some(Unit::Bytes),
        label: Some("direction"),
        series: &[("in", |s| s.port.bytes_in), ("out", |s| s.port.bytes_out)],
    },
    both_ways(
        "shardcast_messages",
        "Messages the datagrams went in; datagrams by messages is the mean GRO or GSO run",
        &[("in", |s| s.port.messages_in), ("out", |s| s.port.messages_out)],
    ),
    family(
        "shardcast_gso_datagrams",
        "Datagrams that went out by GSO, several in a message",
        &[("", |s| s.port.gso_datagrams)],
    ),
    family(
        "shardcast_gso_refusals",
        "Times the kernel refused GSO; afterwards that socket does without",
        &[("", |s| s.port.gso_refusals)],
    ),
    family(
        "shardcast_send_retries",
        "Sends tried again because the kernel had no room",
        &[("", |s| s.port.retries)],
    ),
    family("shardcast_resends", "Packets sent to subscribers again", &[("", |s| s.meters.resends)]),
    both_ways(
        "shardcast_nacked_packets",
        "Packets subscribers asked for again (in), or we of publishers (out)",
        &[("in", |s| s.meters.nacks_received), ("out", |s| s.meters.nacks_sent)],
    ),
    both_ways(
        "shardcast_keyframe_requests",
        "Keyframes subscribers asked for (in), or we of publishers (out)",
        &[("in", |s| s.meters.keyframes_wanted), ("out", |s| s.meters.keyframes_asked)],
    ),
    both_ways(
        "shardcast_strays",
        "Datagrams of another shard's sessions, mailed to it (out) or got by mail (in)",
        &[("in", |s| s.meters.strays_received), ("out", |s| s.meters.strays_sent)],
    ),
    family("shardcast_sessions_opened", "Sessions opened", &[("", |s| s.meters.sessions_opened)]),
    family(
        "shardcast_sessions_closed",
        "Sessions closed, for whatever reason",
        &[("", |s| s.meters.sessions_closed)],
    ),
    family(
        "shardcast_tracks_published",
        "Tracks published",
        &[("", |s| s.meters.tracks_published)],
    ),
    family("shardcast_pulls_started", "Pulls started", &[("", |s| s.meters.pulls_started)]),
    family(
        "shardcast_panics",
        "Failures inside that ended a session; each is a bug",
        &[("", |s| s.meters.panics)],
    ),
    family("shardcast_wakeups", "Times the shard slept and woke", &[("", |s| s.pulse.wakeups)]),
];

pub(super) static API_COUNTERS: [Family; 2] = [
    family(
        "shardcast_http_rate_limited",
        "Requests refused because their session asks too often",
        &[("", |s| s.api.limited)],
    ),
    family(
        "shardcast_http_connections_refused",
        "Connections refused because there were too many",
        &[("", |s| s.api.connections_refused)],
    ),
];

pub(super) static GAUGES: [Family; 6] = [
    family("shardcast_sessions", "Sessions there are", &[("", |s| s.holdings.sessions as u64)]),
    family(
        "shardcast_tracks",
        "Tracks known: published here, mirrored from other shards, or asked for",
        &[("", |s| s.holdings.tracks as u64)],
    ),
    family(
        "shardcast_pulls",
        "Tracks leaving through sessions of this shard",
        &[("", |s| s.holdings.pulls as u64)],
    ),
    both_ways(
        "shardcast_mail_waiting",
        "Messages of other shards not yet taken (in), or for them and without room (out)",
        &[("in", |s| s.mail.waiting_in), ("out", |s| s.mail.waiting_out)],
    ),
    family("shardcast_http_connections", "Connections to the API", &[("", |s| s.api.connections)]),
    Family {
        name: "shardcast_offload",
        help: "Whether every socket sends by GSO and receives by GRO",
        unit: None,
        label: Some("kind"),
        series: &[("gso", |s| u64::from(s.port.gso)), ("gro", |s| u64::from(s.port.gro))],
    },
];
