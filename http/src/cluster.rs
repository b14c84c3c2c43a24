//! `GET /v1/cluster`: what a node knows of its cluster, as JSON.
//!
//! Invariants: what is not known is left out.
//!
//! Not here: who may ask (`api`), gathering.

use serde::Serialize;
use shards::snapshot::{ClusterView, LinkView, Load, NodeView, Snapshot};

use crate::problem::Problem;
use crate::response::Response;

/// The answer, from what the shards said of themselves.
pub(crate) fn response(shards: &[Option<Snapshot>]) -> Response {
    let view = shards.iter().flatten().find_map(|shard| shard.cluster.as_deref());
    let Some(view) = view else { return Problem::NoCluster.response() };
    Response::json(200, &Cluster::new(view, links(shards), shards.len()))
        .with("cache-control", "no-store")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    /// This one.
    node: Node,
    /// The others.
    nodes: Vec<Node>,
    connections: usize,
    /// Between shards of this node and of others, over which tracks go.
    links: Vec<Link>,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    shard: usize,
    node: String,
    peer_shard: u8,
    /// Tracks that come, and tracks that go.
    tracks_in: usize,
    tracks_out: usize,
    packets_in: u64,
    packets_out: u64,
    /// Datagrams that did not come, and packets that came when they were sent again.
    lost_in: u64,
    repaired: u64,
    rtt_us: u64,
    /// `ok`, `warm`, `hot` or `break`, by what is sent.
    state: &'static str,
}

fn links(shards: &[Option<Snapshot>]) -> Vec<Link> {
    let of_shard = |(shard, snapshot): (usize, &Option<Snapshot>)| {
        let links = snapshot.iter().flat_map(|snapshot| &snapshot.links);
        links.map(|link| Link::new(shard, link)).collect::<Vec<_>>()
    };
    shards.iter().enumerate().flat_map(of_shard).collect()
}

impl Link {
    fn new(shard: usize, link: &LinkView) -> Self {
        let stats = &link.stats;
        let states = ["ok", "warm", "hot", "break"];
        Self {
            shard,
            node: link.far.node.to_string(),
            peer_shard: link.far.shard.0,
            tracks_in: link.lanes_in,
            tracks_out: link.lanes_out,
            packets_in: stats.packets_in,
            packets_out: stats.packets_out,
            lost_in: stats.lost_in,
            repaired: stats.repaired,
            rtt_us: stats.rtt_us,
            state: states[(stats.state as usize).min(states.len() - 1)],
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    id: String,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u16>,
    shards: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<LoadJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draining: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected: Option<bool>,
    /// Round trip in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
    /// UDP payload in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadJson {
    sessions: u32,
    pulls: u32,
    /// Of the busiest shard's core, in thousandths.
    cpu_permille: u16,
}

#[derive(Serialize)]
struct Fault {
    plane: &'static str,
    kind: &'static str,
    count: u64,
}

impl Cluster {
    fn new(view: &ClusterView, links: Vec<Link>, shards: usize) -> Self {
        let happened = view.faults.iter().filter(|(_, _, count)| *count > 0);
        Self {
            node: Node {
                id: view.node.to_string(),
                address: view.address.to_string(),
                version: None,
                shards,
                load: Some(LoadJson::from(&view.load)),
                draining: Some(view.load.draining),
                connected: None,
                rtt_us: None,
                mtu: None,
            },
            nodes: view.nodes.iter().map(Node::from).collect(),
            connections: view.connections,
            links,
            faults: happened.map(|&(plane, kind, count)| Fault { plane, kind, count }).collect(),
        }
    }
}

impl From<&NodeView> for Node {
    fn from(node: &NodeView) -> Self {
        Self {
            id: node.node.to_string(),
            address: node.address.to_string(),
            version: Some(node.version),
            shards: usize::from(node.shards),
            load: node.load.as_ref().map(LoadJson::from),
            draining: node.load.map(|load| load.draining),
            connected: Some(node.rtt.is_some()),
            rtt_us: node.rtt.map(|rtt| rtt.as_micros() as u64),
            mtu: node.mtu,
        }
    }
}

impl From<&Load> for LoadJson {
    fn from(load: &Load) -> Self {
        let Load { sessions, pulls, cpu_permille, .. } = *load;
        Self { sessions, pulls, cpu_permille }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shards::ids::NodeId;
    use shards::snapshot::ClusterCounts;

    use super::*;

    fn shown(cluster: Option<Box<ClusterView>>) -> (u16, serde_json::Value) {
        let shards = [None, Some(Snapshot { cluster, ..Snapshot::default() })];
        let response = response(&shards);
        (response.status, serde_json::from_slice(&response.body).unwrap())
    }

    #[test]
    fn a_node_by_itself_says_so() {
        assert_eq!(shown(None).0, 404);
    }

    #[test]
    fn a_node_tells_of_itself_and_the_others() {
        let load = Load { sessions: 3, pulls: 4, cpu_permille: 50, draining: true };
        let other = NodeView {
            node: NodeId(7),
            address: "10.0.0.7:7000".parse().unwrap(),
            version: 1,
            shards: 4,
            load: Some(load),
            rtt: Some(Duration::from_micros(250)),
            mtu: Some(1452),
        };
        let view = ClusterView {
            node: NodeId(0xab),
            address: "10.0.0.1:7000".parse().unwrap(),
            load: Load::default(),
            nodes: vec![other.clone(), NodeView { load: None, rtt: None, mtu: None, ..other }],
            connections: 1,
            counts: ClusterCounts::default(),
            faults: vec![("members", "forged", 2), ("members", "full", 0)],
        };
        let (status, said) = shown(Some(Box::new(view)));
        assert_eq!(status, 200);
        let load = serde_json::json!({"sessions": 3, "pulls": 4, "cpuPermille": 50});
        let node = serde_json::json!({
            "id": "00000007", "address": "10.0.0.7:7000", "version": 1, "shards": 4,
            "load": load, "draining": true, "connected": true, "rttUs": 250, "mtu": 1452,
        });
        assert_eq!(said["nodes"][0], node);
        assert_eq!(said["nodes"][1]["connected"], false);
        assert_eq!((&said["node"]["id"], &said["node"]["shards"]), (&"000000ab".into(), &2.into()));
        let fault = serde_json::json!([{"plane": "members", "kind": "forged", "count": 2}]);
        assert_eq!(said["faults"], fault);
    }
}
