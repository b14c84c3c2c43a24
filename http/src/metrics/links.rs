//! The numbers of the links between shards of different nodes, one series for each.
//!
//! Not here: what they mean to a link (`relay::link`).

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use shards::snapshot::LinkView;

use super::Page;

/// Counts of a link, by the way or the kind that tells them apart.
type Counts = [(&'static str, u64)];

/// Writes them; nothing where there are none.
pub(super) fn write(page: &mut Page<'_, '_>) -> fmt::Result {
    let links: Vec<(String, LinkView)> = page
        .shards
        .iter()
        .flat_map(|(shard, snapshot)| {
            snapshot.links.iter().map(|link| (shard.clone(), link.clone()))
        })
        .collect();
    if links.is_empty() {
        return Ok(());
    }
    let of = |read: fn(&LinkView) -> Vec<(&'static str, u64)>| {
        links.iter().map(|(shard, link)| (shard.as_str(), link, read(link))).collect::<Vec<_>>()
    };
    let packets = of(|link| vec![("in", link.stats.packets_in), ("out", link.stats.packets_out)]);
    let help = "Packets of tracks that went over a link";
    family(page, "shardcast_link_packets", help, "direction", MetricType::Counter, &packets)?;
    let bytes = of(|link| vec![("in", link.stats.bytes_in), ("out", link.stats.bytes_out)]);
    let help = "UDP payload that went over a link";
    family(page, "shardcast_link_bytes", help, "direction", MetricType::Counter, &bytes)?;
    let events = of(|link| {
        let stats = &link.stats;
        vec![
            ("lost_in", stats.lost_in),
            ("lost_out", stats.lost_out),
            ("resent", stats.resent),
            ("repaired", stats.repaired),
            ("given_up", stats.given_up),
            ("duplicate", stats.duplicates),
            ("no_room", stats.no_room),
            ("too_large", stats.too_large),
            ("fault", stats.faults.total()),
        ]
    });
    let help = "What happened to datagrams and packets of a link";
    family(page, "shardcast_link_events", help, "kind", MetricType::Counter, &events)?;
    let lanes = of(|link| vec![("in", link.lanes_in as u64), ("out", link.lanes_out as u64)]);
    let help = "Tracks that go over a link";
    family(page, "shardcast_link_lanes", help, "direction", MetricType::Gauge, &lanes)?;
    let state = of(|link| {
        let stats = &link.stats;
        vec![("state", stats.state), ("rtt_us", stats.rtt_us), ("queue_us", stats.queue_us)]
    });
    let help = "How a link stands: 0 free to 3 broken, and microseconds";
    family(page, "shardcast_link_condition", help, "of", MetricType::Gauge, &state)
}

fn family<C: AsRef<Counts>>(
    page: &mut Page<'_, '_>,
    name: &str,
    help: &str,
    label: &str,
    kind: MetricType,
    series: &[(&str, &LinkView, C)],
) -> fmt::Result {
    let mut metric = page.encoder.encode_descriptor(name, help, None, kind)?;
    for (shard, link, counts) in series {
        let (node, peer) = (link.far.node.to_string(), link.far.shard.to_string());
        for (value, count) in counts.as_ref() {
            let labels =
                [("shard", *shard), ("node", &node), ("peer_shard", &peer), (label, value)];
            let mut metric = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => metric.encode_counter::<NoLabelSet, _, u64>(count, None)?,
                _ => metric.encode_gauge(&(*count as f64))?,
            }
        }
    }
    Ok(())
}
