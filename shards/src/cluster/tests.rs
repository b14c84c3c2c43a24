//! Nodes in virtual time: calls, their answers, and what becomes of them when a node goes.

use std::collections::BTreeMap;

use relay::control::{VERSION, Versions};
use relay::keys::ClusterKeys;

use super::*;
use crate::command::{Reply, SessionInfo};
use crate::ids::SessionId;

const KEY: &str =
    "shardcast-key-1:01:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Some nodes, the datagrams between them, and what each was told to do.
struct World {
    now: Instant,
    nodes: BTreeMap<SocketAddr, (Cluster, Vec<Output>)>,
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 7000))
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "the origin of virtual time is any instant")]
    fn new(apps: &[&[&str]]) -> Self {
        let now = Instant::now();
        let nodes = apps.iter().zip(1..).map(|(apps, at)| {
            let config = HubConfig {
                keys: ClusterKeys::parse(KEY).unwrap(),
                address: address(at),
                seeds: vec![address(1)],
                shards: 2,
                links: Vec::new(),
                versions: Versions::of(VERSION),
                caps: 0,
                start_ms: 1,
            };
            let apps = apps.iter().map(|&app| app.to_owned()).collect();
            (address(at), (Cluster::new(config, apps, now, [at; 32]), Vec::new()))
        });
        Self { now, nodes: nodes.collect() }
    }

    fn node(&mut self, at: u8) -> &mut Cluster {
        &mut self.nodes.get_mut(&address(at)).unwrap().0
    }

    fn outputs(&mut self, at: u8) -> Vec<Output> {
        std::mem::take(&mut self.nodes.get_mut(&address(at)).unwrap().1)
    }

    /// Lets datagrams fly and time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(5);
            let now = self.now;
            let mut flying = Vec::new();
            for (&from, (node, outputs)) in &mut self.nodes {
                if node.timeout().is_some_and(|at| at <= now) {
                    node.handle_timeout(now);
                }
                while let Some(sent) = node.poll_transmit(now) {
                    let each = sent.segment.unwrap_or(sent.bytes.len());
                    flying.extend(sent.bytes.chunks(each).map(|d| (from, sent.to, d.to_vec())));
                }
                outputs.extend(std::iter::from_fn(|| node.poll_output()));
            }
            for (from, to, datagram) in flying {
                if let Some((node, _)) = self.nodes.get_mut(&to) {
                    node.handle_datagram(now, from, &datagram);
                }
            }
        }
    }

    fn session(&mut self, at: u8) -> SessionId {
        SessionId::new(self.node(at).node(), ShardId(1), 0, 5)
    }

    /// Node 1 asks for a session of node 2, under that number.
    fn ask(&mut self, session: SessionId, number: u64) {
        let ticket = Ticket { shard: ShardId(1), number };
        let command = Command { app: AppId(1), ask: Ask::Describe { session } };
        let now = self.now;
        self.node(1).handle_call(now, ticket, command);
    }
}

fn answers(outputs: Vec<Output>) -> Vec<(u64, Answer)> {
    let answer = |output| match output {
        Output::Answer { ticket, answer } => Some((ticket.number, answer)),
        _ => None,
    };
    outputs.into_iter().filter_map(answer).collect()
}

fn serves(outputs: Vec<Output>) -> Vec<(NodeId, u64, Command)> {
    let serve = |output| match output {
        Output::Serve { node, number, command } => Some((node, number, command)),
        _ => None,
    };
    outputs.into_iter().filter_map(serve).collect()
}

fn joined(apps: &[&[&str]]) -> World {
    let mut world = World::new(apps);
    world.run(Duration::from_secs(3));
    for at in 1..=apps.len() as u8 {
        let nodes = world.node(at).view().nodes.len();
        assert_eq!(nodes, apps.len() - 1, "node {at} knows all others");
    }
    world
}

#[test]
fn a_call_is_executed_by_the_sessions_node_and_its_answer_comes_back_once() {
    let mut world = joined(&[&["a", "b"], &["b"], &[]]);
    let mut told = world.outputs(1).into_iter().filter_map(|output| match output {
        Output::Nodes(nodes) => Some(nodes),
        _ => None,
    });
    let mut expected = vec![world.node(2).node(), world.node(3).node()];
    expected.sort();
    assert_eq!(told.next_back().unwrap().others, expected);
    let session = world.session(2);
    world.ask(session, 9);
    world.run(Duration::from_secs(1));
    let mut served = serves(world.outputs(2));
    assert_eq!(served.len(), 1);
    let (node, number, command) = served.remove(0);
    assert_eq!(node, world.node(1).node());
    // `b` is the second application there and the first here.
    assert_eq!(command, Command { app: AppId(0), ask: Ask::Describe { session } });
    let (now, answer) = (world.now, Ok(Reply::Described(SessionInfo::default())));
    for _ in 0..2 {
        world.node(2).handle_served(now, node, number, answer.clone());
    }
    world.run(CALL_WAIT * 2);
    assert_eq!(answers(world.outputs(1)), [(9, answer)]);
    assert_eq!(world.node(1).view().counts.asked, 1);
    assert_eq!(world.node(2).view().counts.served, 1);
}

#[test]
fn a_session_is_gone_where_its_app_its_shard_or_its_node_is_not() {
    let mut world = joined(&[&["a", "b"], &["a"]]);
    let session = world.session(2);
    let elsewhere = SessionId::new(world.node(2).node(), ShardId(2), 0, 5);
    let nobodys = SessionId::new(NodeId(1), ShardId(0), 0, 5);
    for (number, session) in [(1, session), (2, elsewhere), (3, nobodys)] {
        world.ask(session, number);
    }
    world.run(Duration::from_secs(1));
    let mut got = answers(world.outputs(1));
    got.sort_by_key(|(number, _)| *number);
    let gone =
        |session: SessionId| Err(Refusal::Gone { session: session.to_string(), publisher: false });
    assert_eq!(got, [(1, gone(session)), (2, gone(elsewhere)), (3, gone(nobodys))]);
    assert!(serves(world.outputs(2)).is_empty());
}

#[test]
fn a_call_to_a_node_that_dies_is_refused_within_seconds_and_then_its_sessions_are_gone() {
    let mut world = joined(&[&["a", "b"], &["b"], &["b"]]);
    let session = world.session(2);
    world.ask(session, 1);
    world.run(Duration::from_secs(1));
    world.nodes.remove(&address(2));
    world.ask(session, 2);
    world.run(Duration::from_secs(10));
    let unreachable = Err(Refusal::Unreachable);
    assert_eq!(answers(world.outputs(1)), [(1, unreachable.clone()), (2, unreachable)]);
    assert_eq!(world.node(1).view().nodes.len(), 1);
}

#[test]
fn a_call_that_is_never_answered_ends_at_its_deadline() {
    let mut world = joined(&[&["a", "b"], &["b"]]);
    let session = world.session(2);
    world.ask(session, 1);
    world.run(CALL_WAIT.saturating_sub(Duration::from_secs(1)));
    assert!(answers(world.outputs(1)).is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(answers(world.outputs(1)), [(1, Err(Refusal::Unreachable))]);
    assert_eq!(world.node(1).view().counts.asked_late, 1);
}

#[test]
fn no_more_calls_are_under_way_to_a_node_than_may_be() {
    let mut world = joined(&[&["a", "b"], &["b"]]);
    let session = world.session(2);
    for number in 0..=ASKED_PER_NODE as u64 {
        world.ask(session, number);
    }
    let busy = |(_, answer): &(u64, Answer)| matches!(answer, Err(Refusal::Busy(_)));
    world.run(Duration::from_millis(10));
    let got = answers(world.outputs(1));
    assert!(got.len() == 1 && got.iter().all(busy), "{got:?}");
}

#[test]
fn a_node_that_leaves_answers_what_is_under_way() {
    let mut world = joined(&[&["a", "b"], &["b"]]);
    let session = world.session(2);
    world.ask(session, 1);
    world.run(Duration::from_secs(1));
    let now = world.now;
    world.node(2).begin_leave(now);
    world.ask(session, 2);
    world.run(Duration::from_secs(1));
    let gone = Err(Refusal::Gone { session: session.to_string(), publisher: false });
    assert_eq!(answers(world.outputs(1)), [(2, gone)]);
    assert_eq!(world.node(1).view().nodes[0].load.map(|load| load.draining), Some(true));
    let now = world.now;
    world.node(2).give_up(now);
    world.run(Duration::from_millis(100));
    let now = world.now;
    world.node(2).leave(now);
    world.run(Duration::from_secs(1));
    assert_eq!(answers(world.outputs(1)), [(1, Err(Refusal::Unreachable))]);
    assert!(world.node(1).view().nodes.is_empty());
}
