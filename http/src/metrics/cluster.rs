//! The numbers of the cluster: told by the one shard that has the hub, and only in a cluster.
//!
//! Not here: what they mean to the hub (`shards::cluster`).

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use shards::snapshot::ClusterView;

use super::Page;

/// Writes them; nothing for a node by itself.
pub(super) fn write(page: &mut Page<'_, '_>) -> fmt::Result {
    let view = page.shards.iter().find_map(|(_, snapshot)| snapshot.cluster.as_deref());
    let Some(view) = view else { return Ok(()) };
    let (nodes, connections) = (view.nodes.len() as f64, view.connections as f64);
    page.gauge("shardcast_cluster_nodes", "Other nodes that are up", None, Some(nodes))?;
    let help = "Control connections, those of strangers and those closing too";
    page.gauge("shardcast_cluster_connections", help, None, Some(connections))?;
    let directions = [("in", view.counts.datagrams_in), ("out", view.counts.datagrams_out)];
    let series: Vec<_> = directions.map(|(way, count)| (vec![("direction", way)], count)).into();
    let help = "Datagrams of the cluster socket, of any content";
    counters(page, "shardcast_cluster_datagrams", help, &series)?;
    let help = "Requests that went to the node of their session";
    counters(page, "shardcast_cluster_calls", help, &calls(view))?;
    let labels = |&(plane, kind, count)| (vec![("plane", plane), ("kind", kind)], count);
    let faults: Vec<_> = view.faults.iter().map(labels).collect();
    let help = "What was dropped between nodes, where and why";
    counters(page, "shardcast_cluster_faults", help, &faults)
}

type Series = (Vec<(&'static str, &'static str)>, u64);

fn calls(view: &ClusterView) -> Vec<Series> {
    let counts = &view.counts;
    [
        ("out", "answered", counts.asked),
        ("out", "busy", counts.asked_busy),
        ("out", "broken", counts.asked_broken),
        ("out", "late", counts.asked_late),
        ("in", "answered", counts.served),
        ("in", "busy", counts.served_busy),
        ("in", "broken", counts.served_broken),
    ]
    .map(|(way, outcome, count)| (vec![("direction", way), ("outcome", outcome)], count))
    .into()
}

fn counters(page: &mut Page<'_, '_>, name: &str, help: &str, series: &[Series]) -> fmt::Result {
    let mut metric = page.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in series {
        let mut metric = metric.encode_family(labels)?;
        metric.encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    Ok(())
}
