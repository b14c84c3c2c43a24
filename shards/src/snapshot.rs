//! What a shard has counted, measured and holds at one moment: plain data, to be shown.
//!
//! Invariants: everything named `_total` where it is shown only ever grows; a new reason to
//! drop something does not compile until [`Snapshot::drops`] tells it.
//!
//! Not here: names and formats of the outside.

use std::time::Duration;

pub use crate::cluster::view::{ClusterCounts, ClusterView, Load, NodeView};
pub use crate::engine::LinkView;
use crate::histogram::{Histogram, micros};
use crate::io::port::{DropsIn, DropsOut, PortCounters};
use crate::meters::{Faults, Holdings, Meters};

/// One shard at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub meters: Meters,
    pub holdings: Holdings,
    pub port: PortCounters,
    pub pulse: Pulse,
    pub mail: MailCounters,
    /// Datagrams the outbox had no room for.
    pub outbox_refused: u64,
    /// CPU time of the shard's thread.
    pub cpu: Duration,
    pub api: ApiMeters,
    /// Only of the shard that has the hub, and only in a cluster.
    pub cluster: Option<Box<ClusterView>>,
    /// Links with shards of other nodes.
    pub links: Vec<LinkView>,
    /// Where they come and go, in a cluster.
    pub link_port: Option<Box<PortCounters>>,
}

/// How the loop runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Turns in which there was something to do, in nanoseconds.
    pub turns: Histogram<{ TURN_BOUNDS.len() }>,
    /// Of turns in which something arrived and something was sent: from when the kernel had the
    /// first datagram until it had the last one that was sent; of mail from the turn's begin.
    pub arrival_to_send: Histogram<{ TURN_BOUNDS.len() }>,
    /// Times the loop slept and woke.
    pub wakeups: u64,
}

/// From what a turn costs that finds one datagram to what nobody should ever see; finest
/// around the millisecond that forwarding may take.
const TURN_BOUNDS: [u64; 18] = micros([
    5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 50_000,
    100_000,
]);

impl Default for Pulse {
    fn default() -> Self {
        let times = Histogram::new(&TURN_BOUNDS);
        Self { turns: times.clone(), arrival_to_send: times, wakeups: 0 }
    }
}

impl Pulse {
    /// Counts a turn that took so long. `forwarded`: from the first arrival until the last datagram
    /// was with the kernel, if something arrived in it and something was sent.
    pub fn turned(&mut self, took: Duration, forwarded: Option<Duration>) {
        self.turns.record_time(took);
        if let Some(forwarded) = forwarded {
            self.arrival_to_send.record_time(forwarded);
        }
    }
}

/// What a shard's place in the mesh has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailCounters {
    /// Messages of others not yet taken.
    pub waiting_in: u64,
    /// Messages for others that found their ring full.
    pub waiting_out: u64,
    /// Messages dropped because a ring was full.
    pub dropped: u64,
}

/// Routes the API may tell apart. Which is which is its own business.
pub const API_ROUTES: usize = 16;

/// What the API on a shard's thread counts; the shard only carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiMeters {
    /// Requests answered, by route and by the first digit of their status, from 1 to 5.
    pub requests: [[u64; 5]; API_ROUTES],
    /// From the last byte of a request until its answer was made, by route, in nanoseconds.
    pub latency: [Histogram<{ API_BOUNDS.len() }>; API_ROUTES],
    /// Requests refused because their session asks too often.
    pub limited: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections refused because there were too many.
    pub connections_refused: u64,
}

/// A call that waits for nobody takes a tenth of a millisecond, a pull waits up to 8 s.
const API_BOUNDS: [u64; 14] = micros([
    100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000, 10_000_000,
]);

impl Default for ApiMeters {
    fn default() -> Self {
        Self {
            requests: [[0; 5]; API_ROUTES],
            latency: [const { Histogram::new(&API_BOUNDS) }; API_ROUTES],
            limited: 0,
            connections: 0,
            connections_refused: 0,
        }
    }
}

/// Where on its way something was dropped, why, and how often.
pub type Drop = (&'static str, &'static str, u64);

impl Snapshot {
    /// Everything that was dropped.
    pub fn drops(&self) -> impl Iterator<Item = Drop> + use<> {
        let at = |stage: &'static str| move |(reason, count)| (stage, reason, count);
        let DropsIn { kernel, unusable } = self.port.drops_in;
        let DropsOut { full, no_socket, unreachable, refused } = self.port.drops_out;
        let received = [("kernel_buffer_full", kernel), ("unusable", unusable)];
        let forwarded = [
            ("copy_unfit", self.meters.copies_dropped),
            ("control_queue_full", self.meters.control_dropped),
            ("resend_refused", self.meters.resends_dropped),
            ("resend_too_late", self.meters.nacks_answered_late),
            ("outbox_full", self.outbox_refused),
        ];
        let sent = [
            ("kernel_buffer_full", full),
            ("no_socket", no_socket),
            ("unreachable", unreachable),
            ("refused", refused),
        ];
        received
            .map(at("receive"))
            .into_iter()
            .chain(faults(&self.meters.faults).map(at("intake")))
            .chain(forwarded.map(at("forward")))
            .chain([("mail", "ring_full", self.mail.dropped)])
            .chain(sent.map(at("send")))
    }
}

fn faults(faults: &Faults) -> [(&'static str, u64); 13] {
    let Faults {
        unknown_protocol,
        unknown_source,
        unknown_ufrag,
        malformed,
        replayed,
        unauthentic,
        early,
        unwanted,
        too_many_streams,
        too_long,
        too_many_sources,
        taken_address,
        malformed_letters,
    } = *faults;
    [
        ("unknown_protocol", unknown_protocol),
        ("unknown_source", unknown_source),
        ("unknown_ufrag", unknown_ufrag),
        ("malformed", malformed),
        ("replayed", replayed),
        ("unauthentic", unauthentic),
        ("early", early),
        ("unwanted", unwanted),
        ("too_many_streams", too_many_streams),
        ("too_long", too_long),
        ("too_many_sources", too_many_sources),
        ("taken_address", taken_address),
        ("malformed_letter", malformed_letters),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_has_a_name_of_its_own() {
        let names: Vec<_> =
            Snapshot::default().drops().map(|(stage, why, _)| (stage, why)).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }

    #[test]
    fn only_turns_that_forward_count_as_arrival_to_send() {
        let mut pulse = Pulse::default();
        pulse.turned(Duration::from_micros(30), None);
        pulse.turned(Duration::from_micros(950), Some(Duration::from_micros(900)));
        assert_eq!((pulse.turns.count(), pulse.turns.sum()), (2, 980_000));
        assert_eq!((pulse.arrival_to_send.count(), pulse.arrival_to_send.sum()), (1, 900_000));
    }
}
