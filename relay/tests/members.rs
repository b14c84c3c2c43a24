//! Membership of 3 to 50 nodes in virtual time.

mod sim;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use relay::members::{Load, MemberEvent, MemberFault, Members, MembersConfig, NodeId};
use sim::{Machine, Net, Weather, address, keys};

struct Member {
    members: Members,
    events: Vec<(Instant, MemberEvent)>,
}

impl Machine for Member {
    fn handle(&mut self, now: Instant, _: SocketAddr, datagram: &[u8]) {
        self.members.handle_datagram(now, datagram);
    }

    fn wake(&mut self, now: Instant) {
        self.members.handle_timeout(now);
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.members.timeout()
    }

    fn poll(&mut self, _: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.members.poll_transmit().map(|datagram| (datagram.to, datagram.bytes))
    }

    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.members.poll_event() {
            self.events.push((now, event));
        }
    }
}

impl Member {
    fn node(&self) -> NodeId {
        self.members.identity().node
    }

    fn downs(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, MemberEvent::Down(_))).count()
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// A wall clock of the year 2026.
const CLOCK_MS: u64 = 1_790_000_000_000;

fn config(at: usize) -> MembersConfig {
    MembersConfig {
        keys: keys(&[1]),
        address: address(at),
        seeds: vec![address(0), address(1), address(2)],
        shards: 4,
        link_port: 4701,
        version: 1,
        caps: 0,
        start_ms: CLOCK_MS,
    }
}

/// Starts a node at a place, with another random state each time.
fn launch(net: &mut Net<Member>, at: usize, config: MembersConfig) -> NodeId {
    let seed = net.rng.random();
    let members = Members::new(config, net.now, seed);
    let node = members.identity().node;
    net.run(at, Member { members, events: Vec::new() });
    node
}

/// So many nodes, started within a second.
fn cluster(seed: u64, count: usize) -> Net<Member> {
    let mut net = Net::new(seed);
    for at in 0..count {
        net.place(address(at));
    }
    for at in 0..count {
        launch(&mut net, at, config(at));
        net.run_for(SECOND / count as u32);
    }
    net
}

/// Whether all that run know just each other.
fn is_whole(net: &Net<Member>) -> bool {
    let mut all: Vec<NodeId> = net.each().map(|(_, member)| member.node()).collect();
    all.sort_unstable();
    net.each().all(|(_, member)| {
        let mut known: Vec<NodeId> =
            member.members.nodes().map(|node| node.identity.node).collect();
        known.push(member.node());
        known.sort_unstable();
        known == all
    })
}

fn whole_cluster(seed: u64, count: usize) -> Net<Member> {
    let mut net = cluster(seed, count);
    assert!(net.run_while(SECOND * 30, is_whole), "{count} nodes, seed {seed}");
    net
}

fn knows(net: &Net<Member>, at: usize, node: NodeId) -> bool {
    net.get(at).is_some_and(|member| member.members.node(node).is_some())
}

#[test]
fn nodes_that_start_together_all_know_each_other_within_half_a_minute() {
    for (seed, count) in [(1, 1), (2, 2), (3, 3), (4, 10), (5, 25), (6, 50), (7, 50)] {
        let mut net = whole_cluster(seed, count);
        net.run_for(SECOND * 30);
        assert!(is_whole(&net));
        assert!(net.each().all(|(_, member)| member.downs() == 0), "seed {seed}");
    }
}

#[test]
fn a_dead_node_is_noticed_by_all_within_4_to_9_seconds() {
    for seed in 1..9 {
        let count = [3, 5, 10, 20, 50][seed as usize % 5];
        let mut net = whole_cluster(seed, count);
        net.run_for(SECOND * 5);
        let dead = net.kill(count - 1).unwrap().node();
        let died = net.now;
        assert!(net.run_while(SECOND * 12, is_whole), "seed {seed}");
        for (_, member) in net.each() {
            let down = member.events.iter().find(|(_, e)| *e == MemberEvent::Down(dead)).unwrap();
            let took = down.0 - died;
            assert!(took > SECOND * 3 && took < SECOND * 9, "{took:?}, seed {seed}");
        }
    }
}

#[test]
fn a_restart_at_an_address_ends_the_old_number_at_once_whatever_the_clock_says() {
    for (seed, clock) in [(1, CLOCK_MS + 5000), (2, CLOCK_MS), (3, CLOCK_MS - 9 * 3_600_000)] {
        let mut net = whole_cluster(seed, 20);
        net.run_for(SECOND * 5);
        let old = net.kill(7).unwrap().node();
        net.run_for(SECOND / 2);
        let new = launch(&mut net, 7, MembersConfig { start_ms: clock, ..config(7) });
        let began = net.now;
        assert_ne!(old, new);
        assert!(net.run_while(SECOND * 15, is_whole), "seed {seed}");
        for (at, _) in net.each().filter(|(at, _)| *at != 7) {
            assert!(knows(&net, at, new) && !knows(&net, at, old));
        }
        assert!(net.now - began < SECOND * 4, "{:?}, seed {seed}", net.now - began);
    }
}

#[test]
fn clocks_hours_apart_change_nothing() {
    let mut net = Net::new(3);
    for at in 0..20 {
        net.place(address(at));
    }
    for at in 0..20 {
        let hours = (at as u64 * 7) % 20;
        launch(&mut net, at, MembersConfig { start_ms: hours * 3_600_000, ..config(at) });
    }
    assert!(net.run_while(SECOND * 20, is_whole));
    net.run_for(SECOND * 60);
    assert!(is_whole(&net) && net.each().all(|(_, member)| member.downs() == 0));
}

#[test]
fn two_halves_of_a_partition_find_each_other_again() {
    for seed in 1..4 {
        let mut net = whole_cluster(seed, 16);
        net.cut = |a, b| a % 2 != b % 2;
        net.run_for(SECOND * 60);
        assert!(net.each().all(|(_, member)| member.members.nodes().count() == 7));
        net.cut = |_, _| false;
        let healed = net.now;
        assert!(net.run_while(SECOND * 90, is_whole), "seed {seed}");
        assert!(net.now - healed < SECOND * 75, "{:?}", net.now - healed);
        net.run_for(SECOND * 30);
        assert!(is_whole(&net), "seed {seed}");
    }
}

#[test]
fn a_path_that_is_dead_in_one_direction_makes_nobody_down() {
    let mut net = whole_cluster(5, 12);
    net.cut = |from, to| from == 3 && to == 8;
    let before: usize = net.each().map(|(_, member)| member.downs()).sum();
    net.run_for(SECOND * 120);
    let after: usize = net.each().map(|(_, member)| member.downs()).sum();
    assert_eq!((before, after), (0, 0));
    assert!(is_whole(&net));
}

#[test]
fn a_node_that_is_only_heard_goes_down_and_comes_back() {
    let mut net = whole_cluster(6, 12);
    // It sends, but hears nothing: it cannot answer, so it is no use to anybody.
    net.cut = |_, to| to == 4;
    let deaf = net.get(4).unwrap().node();
    assert!(net.run_while(SECOND * 20, |net| !knows(net, 1, deaf)));
    net.run_for(SECOND * 30);
    net.cut = |_, _| false;
    assert!(net.run_while(SECOND * 90, is_whole));
}

#[test]
fn two_percent_of_loss_makes_nobody_down_and_ten_leave_the_cluster_whole() {
    for (seed, loss, most) in [(1, 0.02, 0), (2, 0.02, 0), (3, 0.1, 40)] {
        let mut net = Net::new(seed);
        for at in 0..30 {
            net.place(address(at));
        }
        net.weather.loss = loss;
        for at in 0..30 {
            launch(&mut net, at, config(at));
        }
        assert!(net.run_while(SECOND * 40, is_whole), "seed {seed}");
        net.run_for(SECOND * 120);
        let downs: usize = net.each().map(|(_, member)| member.downs()).sum();
        assert!(downs <= most, "{downs} false downs, seed {seed}");
        assert!(net.run_while(SECOND * 60, is_whole), "seed {seed}");
    }
}

#[test]
fn repeated_late_and_damaged_datagrams_are_counted_and_do_no_harm() {
    let mut net = cluster(8, 20);
    net.weather = Weather { loss: 0.01, repeat: 0.2, delay: 0.1, damage: 0.02 };
    assert!(net.run_while(SECOND * 40, is_whole));
    net.run_for(SECOND * 60);
    assert!(net.run_while(SECOND * 30, is_whole));
    let count = |fault| net.each().map(|(_, member)| member.members.faults().of(fault)).sum();
    let (replayed, forged): (u64, u64) = (count(MemberFault::Replayed), count(MemberFault::Forged));
    assert!(replayed > 500 && forged > 50, "{replayed} replayed, {forged} forged");
}

#[test]
fn a_node_with_another_key_never_joins_and_is_never_answered() {
    let mut net = whole_cluster(9, 10);
    let stranger = net.place(address(10));
    launch(&mut net, stranger, MembersConfig { keys: keys(&[2]), ..config(10) });
    net.record = Some(Vec::new());
    net.run_for(SECOND * 30);
    let record = net.record.take().unwrap();
    assert!(record.iter().any(|(from, _, _)| *from == address(10)));
    assert!(record.iter().all(|(_, to, _)| *to != address(10)));
    assert!(net.get(10).unwrap().members.nodes().next().is_none());
    let unknown = net.get(0).unwrap().members.faults().of(MemberFault::UnknownKey);
    assert!(unknown > 5, "{unknown}");
    assert!(net.get(3).unwrap().members.nodes().count() == 9);
}

#[test]
fn a_key_is_changed_in_three_rounds_of_restarts_and_the_cluster_stays_whole() {
    let mut net = whole_cluster(10, 8);
    for kids in [&[1, 2][..], &[2, 1], &[2]] {
        for at in 0..8 {
            net.kill(at);
            launch(&mut net, at, MembersConfig { keys: keys(kids), ..config(at) });
            assert!(net.run_while(SECOND * 20, is_whole), "keys {kids:?} at {at}");
        }
    }
    let unknown =
        net.each().map(|(_, m)| m.members.faults().of(MemberFault::UnknownKey)).sum::<u64>();
    assert_eq!(unknown, 0, "no step was too early");
}

#[test]
fn what_was_recorded_of_a_dead_node_does_not_bring_it_back() {
    let mut net = whole_cluster(11, 8);
    net.record = Some(Vec::new());
    net.run_for(SECOND * 20);
    let dead = net.kill(5).unwrap().node();
    assert!(net.run_while(SECOND * 12, is_whole));
    let record = net.record.take().unwrap();
    // One receiver has restarted since and remembers nothing.
    net.kill(2);
    launch(&mut net, 2, config(2));
    assert!(net.run_while(SECOND * 20, is_whole));
    net.run_for(SECOND * 5);
    let sent = net.sent_datagrams;
    let replayed: Vec<_> = record.into_iter().filter(|(from, _, _)| *from == address(5)).collect();
    assert!(replayed.len() > 30);
    for (_, to, datagram) in &replayed {
        net.inject("198.51.100.9:9".parse().unwrap(), *to, datagram.clone());
        // And to one it was not meant for.
        net.inject("198.51.100.9:9".parse().unwrap(), address(2), datagram.clone());
    }
    net.run_for(SECOND / 100);
    let answers = net.sent_datagrams - sent;
    assert!(answers <= 8, "{answers} answers to {} replays", replayed.len());
    net.run_for(SECOND * 20);
    assert!(is_whole(&net) && (0..8).all(|at| !knows(&net, at, dead)));
    let events = net.get(2).unwrap().events.iter();
    assert!(events.clone().all(|(_, event)| *event != MemberEvent::Up(dead)));
    let (stale, again) = (MemberFault::Stale, MemberFault::Replayed);
    let faults = |at: usize| *net.get(at).unwrap().members.faults();
    assert!(faults(2).of(stale) > 30 && faults(1).of(again) > 0);
}

#[test]
fn a_replayed_greeting_is_hardly_answered_to_the_greeter_only_and_others_are() {
    let mut net = Net::new(12);
    for at in 0..4 {
        net.place(address(at));
    }
    net.record = Some(Vec::new());
    for at in 0..4 {
        launch(&mut net, at, config(at));
    }
    assert!(net.run_while(SECOND * 20, is_whole));
    let record = net.record.take().unwrap();
    // A greeting is the only kind whose fourth byte is 0.
    let greeting_of = |at| {
        record
            .iter()
            .find(|(from, to, bytes)| *from == address(at) && *to == address(0) && bytes[3] == 0)
    };
    let (_, to, greeting) = greeting_of(3).unwrap();
    let (_, _, other) = greeting_of(2).unwrap();
    net.run_for(SECOND * 10);
    net.cut = |_, _| true;
    net.record = Some(Vec::new());
    let victim = "198.51.100.9:9".parse().unwrap();
    for _ in 0..2000 {
        net.inject(victim, *to, greeting.clone());
    }
    net.inject(victim, *to, other.clone());
    net.run_for(SECOND / 200);
    let answers: Vec<_> =
        net.record.take().unwrap().into_iter().filter(|(from, _, _)| from == to).collect();
    let welcomes: Vec<_> = answers.iter().filter(|(_, at, _)| *at == address(3)).collect();
    assert!(answers.iter().all(|(_, at, _)| *at != victim));
    assert!((1..=2).contains(&welcomes.len()), "{}", welcomes.len());
    assert!(answers.iter().any(|(_, at, _)| *at == address(2)), "others are still welcome");
    assert!(welcomes.iter().all(|(_, _, bytes)| bytes.len() <= greeting.len()));
    let at = (0..4).find(|&at| address(at) == *to).unwrap();
    assert!(net.get(at).unwrap().members.faults().of(MemberFault::Overrun) >= 1990);
}

#[test]
fn a_node_that_claims_an_address_where_it_is_not_never_joins() {
    let mut net = whole_cluster(13, 8);
    // It runs at place 8 but says that it is where node 4 is.
    let liar = net.place(address(8));
    launch(&mut net, liar, config(4));
    net.run_for(SECOND * 60);
    assert!(net.get(8).unwrap().members.nodes().next().is_none());
    for at in 0..8 {
        let member = net.get(at).unwrap();
        assert_eq!((member.members.nodes().count(), member.downs()), (7, 0), "node {at}");
    }
    assert!(net.get(4).unwrap().members.faults().total() > 0, "node 4 got what was for the liar");
}

#[test]
fn of_two_nodes_at_one_address_the_one_that_is_reached_is_in_the_cluster() {
    let mut net = whole_cluster(14, 8);
    // The same address at another place: from here on the network delivers there.
    let twin = net.place(address(4));
    launch(&mut net, twin, MembersConfig { start_ms: CLOCK_MS - 1000, ..config(4) });
    net.run_for(SECOND * 40);
    let new = net.get(twin).unwrap().node();
    for at in (0..8).filter(|at| *at != 4) {
        assert!(knows(&net, at, new), "node {at}");
        assert_eq!(net.get(at).unwrap().members.nodes().count(), 7);
    }
    let faults = net.get(twin).unwrap().members.faults();
    assert!(faults.total() > 0, "the other one is noticed");
    net.kill(4);
    net.run_for(SECOND * 20);
    assert!(knows(&net, 1, new));
}

#[test]
fn of_two_nodes_with_one_number_the_later_takes_another() {
    for joined in [false, true] {
        let mut net = Net::new(15);
        for at in 0..6 {
            net.place(address(at));
        }
        for at in 0..4 {
            launch(&mut net, at, config(at));
        }
        // The same random state gives the same number.
        let seed = [77; 32];
        for (at, start_ms) in [(4, CLOCK_MS + 1000), (5, CLOCK_MS + 2000)] {
            let config = MembersConfig { start_ms, ..config(at) };
            let members = Members::new(config, net.now, seed);
            net.run(at, Member { members, events: Vec::new() });
            if joined {
                assert!(net.run_while(SECOND * 20, is_whole));
            }
        }
        net.run_for(SECOND * 30);
        assert!(is_whole(&net), "joined one by one: {joined}");
        assert_ne!(net.get(4).unwrap().node(), net.get(5).unwrap().node());
        let renumbered = |at: usize| {
            let events = &net.get(at).unwrap().events;
            events.iter().filter(|(_, e)| matches!(e, MemberEvent::Renumbered { .. })).count()
        };
        assert_eq!((renumbered(4), renumbered(5)), (0, 1));
    }
}

#[test]
fn loads_reach_everybody_and_draining_does_so_soon() {
    let mut net = whole_cluster(16, 30);
    for at in 0..30 {
        let load = Load { sessions: 100 * at as u32, cpu_permille: 300, ..Load::default() };
        net.with(at, |member, now| member.members.set_load(now, load));
    }
    let sessions = |net: &Net<Member>, at: usize, of: NodeId| {
        net.get(at).and_then(|member| member.members.node(of)?.load).map(|load| load.sessions)
    };
    let last = net.get(29).unwrap().node();
    assert!(
        net.run_while(SECOND * 30, |net| {
            (0..29).all(|at| sessions(net, at, last) == Some(2900))
        })
    );
    let drains = Load { sessions: 2900, cpu_permille: 300, draining: true, ..Load::default() };
    net.with(29, |member, now| member.members.set_load(now, drains));
    let told = net.now;
    assert!(net.run_while(SECOND * 20, |net| {
        (0..29).all(|at| {
            let load = net.get(at).unwrap().members.node(last).unwrap().load;
            load.is_some_and(|load| load.draining)
        })
    }));
    assert!(net.now - told < SECOND * 6, "{:?}", net.now - told);
}

#[test]
fn a_node_that_leaves_is_gone_within_seconds() {
    let mut net = whole_cluster(17, 20);
    let node = net.get(9).unwrap().node();
    net.with(9, |member, now| member.members.leave(now));
    let left = net.now;
    let is_gone = |net: &Net<Member>| (0..20).all(|at| at == 9 || !knows(net, at, node));
    assert!(net.run_while(SECOND * 10, is_gone));
    assert!(net.now - left < SECOND * 3, "{:?}", net.now - left);
    assert_eq!(net.get(9).unwrap().members.timeout(), None);
}

#[test]
fn ten_thousand_datagrams_of_garbage_change_nothing_and_are_not_answered() {
    let mut net = whole_cluster(18, 3);
    net.cut = |_, _| true;
    let sent = net.sent_datagrams;
    let before = net.get(0).unwrap().members.faults().total();
    for _ in 0..10_000 {
        let len = net.rng.random_range(1..1500);
        let mut garbage: Vec<u8> = (0..len).map(|_| net.rng.random()).collect();
        garbage[0] = 0x0A;
        if net.rng.random() && len > 4 {
            garbage[1..4].copy_from_slice(&[1, 1, 0]);
        }
        net.inject(address(200), address(0), garbage);
    }
    net.run_for(Duration::from_millis(2));
    assert!(net.sent_datagrams - sent < 10, "only its own timers");
    assert_eq!(net.get(0).unwrap().members.faults().total() - before, 10_000);
}
