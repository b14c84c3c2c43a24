//! Whole hubs, membership and control connections, in virtual time.

mod sim;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use relay::control::{
    Broken, Class, ControlFault, MESSAGE_MAX, QUEUE_BYTES_MAX, SendError, Versions,
};
use relay::hub::{Event, Hub, HubConfig};
use relay::link::{Link, Sink};
use relay::members::NodeId;
use relay::seal::LinkSecret;
use relay::wire::{DATAGRAM_MAX, HEADER_LEN};
use sim::{Machine, Net, Weather, address, keys};

struct Node {
    hub: Hub,
    events: Vec<(Instant, Event)>,
    /// What is left of a send of several datagrams.
    segments: Vec<(SocketAddr, Vec<u8>)>,
}

impl Machine for Node {
    fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.hub.handle_datagram(now, from, None, datagram);
    }

    fn wake(&mut self, now: Instant) {
        self.hub.handle_timeout(now);
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.hub.timeout()
    }

    fn poll(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if self.segments.is_empty() {
            let transmit = self.hub.poll_transmit(now)?;
            let size = transmit.segment.unwrap_or(transmit.bytes.len());
            let pieces = transmit.bytes.chunks(size).rev();
            self.segments.extend(pieces.map(|piece| (transmit.to, piece.to_vec())));
        }
        self.segments.pop()
    }

    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.hub.poll_event() {
            self.events.push((now, event));
        }
    }
}

impl Node {
    fn messages(&self, of: Class) -> Vec<&[u8]> {
        let of_class =
            |event: &'_ Event| matches!(event, Event::Message { class, .. } if *class == of);
        let events = self.events.iter().map(|(_, event)| event).filter(|event| of_class(event));
        events
            .filter_map(|event| match event {
                Event::Message { bytes, .. } => Some(&bytes[..]),
                _ => None,
            })
            .collect()
    }

    fn broken(&self) -> Vec<Broken> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Broken { why, .. } => Some(*why),
                _ => None,
            })
            .collect()
    }

    fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| is(event)).count()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn config(at: usize) -> HubConfig {
    HubConfig {
        keys: keys(&[1]),
        address: address(at),
        seeds: vec![address(0), address(1)],
        shards: 2,
        links: vec![
            SocketAddr::new(address(at).ip(), 4701),
            SocketAddr::new(address(at).ip(), 4702),
        ],
        versions: Versions::of(3),
        caps: 5,
        start_ms: 1_790_000_000_000,
    }
}

fn launch(net: &mut Net<Node>, at: usize, config: HubConfig) -> NodeId {
    let hub = Hub::new(config, net.now, net.rng.random());
    let node = hub.node();
    net.run(at, Node { hub, events: Vec::new(), segments: Vec::new() });
    node
}

/// So many nodes that know each other.
fn cluster(seed: u64, count: usize) -> Net<Node> {
    cluster_of(seed, (0..count).map(config).collect())
}

fn cluster_of(seed: u64, configs: Vec<HubConfig>) -> Net<Node> {
    let mut net = Net::new(seed);
    let count = configs.len();
    for (at, config) in configs.into_iter().enumerate() {
        net.place(address(at));
        launch(&mut net, at, config);
    }
    assert!(net.run_while(SECOND * 30, |net| is_whole(net, count)));
    net
}

fn is_whole(net: &Net<Node>, count: usize) -> bool {
    net.each().all(|(_, node)| node.hub.nodes().count() == count - 1)
}

fn id(net: &Net<Node>, at: usize) -> NodeId {
    net.get(at).expect("it runs").hub.node()
}

fn send(net: &mut Net<Node>, from: usize, to: usize, class: Class, message: &[u8]) {
    let to = id(net, to);
    let sent = net.with(from, |node, now| node.hub.send(now, to, class, message));
    sent.expect("there is room");
}

fn events(net: &mut Net<Node>, at: usize) -> Vec<Event> {
    net.with(at, |node, _| std::mem::take(&mut node.events).into_iter().map(|(_, e)| e).collect())
}

#[test]
fn a_message_makes_a_connection_with_the_paths_mtu() {
    for mtu in [1472, 1300, 1200] {
        let mut net = cluster(1, 2);
        net.mtu = mtu;
        let (a, b) = (id(&net, 0), id(&net, 1));
        send(&mut net, 0, 1, Class::Wants, b"hello");
        assert!(
            net.run_while(SECOND, |net| {
                net.get(1).unwrap().messages(Class::Wants) == [b"hello"]
            })
        );
        send(&mut net, 1, 0, Class::Calls, b"and back");
        net.run_for(SECOND * 20);
        let (one, two) = (net.get(0).unwrap(), net.get(1).unwrap());
        assert_eq!(one.messages(Class::Calls), [b"and back"]);
        let (info, back) = (one.hub.peer(b).unwrap(), two.hub.peer(a).unwrap());
        assert_eq!((info.node, info.version, info.caps, info.shards), (b, 3, 5, 2));
        assert_eq!(info.links, config(1).links);
        assert_eq!(info.link_id_there, back.link_id_here);
        assert_eq!(info.epoch, back.epoch);
        let found = one.hub.mtu(b).unwrap();
        assert!(usize::from(found) <= mtu && usize::from(found) + 40 > mtu, "{found} of {mtu}");
        let told = one.events.iter().rev().find_map(|(_, event)| match event {
            Event::Mtu { mtu, .. } => Some(*mtu),
            _ => None,
        });
        assert_eq!(told.unwrap_or(1200), found);
        let rtt = one.hub.rtt(b).unwrap();
        assert!(rtt > Duration::from_millis(2) && rtt < Duration::from_millis(300), "{rtt:?}");
        assert_eq!(one.count(|event| matches!(event, Event::Connected(_))), 1);
    }
}

#[test]
fn a_link_is_made_once_of_each_connection_so_no_nonce_is_used_twice() {
    let mut net = cluster(1, 2);
    let (a, b) = (id(&net, 0), id(&net, 1));
    net.with(0, |node, now| node.hub.hold(now, b, true)).unwrap();
    net.run_for(SECOND);
    let mut sealed = Vec::new();
    for _ in 0..2 {
        let one = take_link(&mut net, 0, b, 0, 1).expect("the first time");
        let two = take_link(&mut net, 1, a, 1, 0).expect("the first time");
        assert!(take_link(&mut net, 0, b, 0, 1).is_none(), "the second time");
        assert!(take_link(&mut net, 0, b, 1, 0).is_some(), "another pair of shards");
        assert!(take_link(&mut net, 0, b, 2, 0).is_none(), "we have no such shard");
        assert!(take_link(&mut net, 0, b, 0, 2).is_none(), "nor have they");
        let (mut one, mut two) = (Link::new(one, net.now), Link::new(two, net.now));
        let mut out = Sent::default();
        one.flush(net.now, &mut out);
        sealed.push(out.0.clone());
        assert_eq!(two.handle_datagram(net.now, &mut out.0, |_| ()), Ok(()));
        // The link is silent though the connection is not.
        net.with(0, |node, now| node.hub.renew(now, b));
        net.with(0, |node, now| node.hub.renew(now, b));
        assert!(take_link(&mut net, 0, b, 0, 1).is_none(), "not connected");
        net.run_for(SECOND * 2);
        let node = net.get(1).unwrap();
        assert_eq!(node.broken(), vec![Broken::Replaced; sealed.len()]);
        assert!(node.hub.peer(a).is_some(), "it is held, so there is another");
    }
    assert_eq!(sealed[0][..HEADER_LEN], sealed[1][..HEADER_LEN], "the same number");
    assert_ne!(sealed[0], sealed[1], "under another key");
}

fn take_link(
    net: &mut Net<Node>,
    at: usize,
    to: NodeId,
    here: u8,
    there: u8,
) -> Option<LinkSecret> {
    net.with(at, |node, _| node.hub.take_link(to, here, there))
}

/// The only datagram that was sent.
#[derive(Default)]
struct Sent(Vec<u8>);

impl Sink for Sent {
    fn slot(&mut self) -> &mut [u8] {
        self.0.resize(DATAGRAM_MAX, 0);
        &mut self.0
    }

    fn commit(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

#[test]
fn of_two_calls_at_once_one_survives_and_no_message_is_lost_or_repeated() {
    for seed in 0..30 {
        let mut net = cluster(seed, 2);
        net.weather = Weather { loss: 0.05, delay: 0.1, ..Weather::default() };
        // Both begin within a few milliseconds, in either order.
        for n in 0..20u8 {
            send(&mut net, usize::from(n % 2), usize::from(1 - n % 2), Class::Wants, &[n]);
            let wait = net.rng.random_range(0..20);
            net.run_for(Duration::from_millis(wait));
        }
        net.run_for(SECOND * 20);
        for (at, from) in [(0, 1u8), (1, 0)] {
            let node = net.get(at).unwrap();
            let expected: Vec<[u8; 1]> = (0..10).map(|n| [n * 2 + from]).collect();
            assert_eq!(node.messages(Class::Wants), expected, "seed {seed} at {at}");
            assert_eq!(node.broken(), [], "seed {seed}");
            assert_eq!(node.hub.connections(), 1, "seed {seed}");
            assert_eq!(node.count(|event| matches!(event, Event::Connected(_))), 1);
        }
        let epoch =
            |at: usize, of: usize| net.get(at).unwrap().hub.peer(id(&net, of)).unwrap().epoch;
        assert_eq!(epoch(0, 1), epoch(1, 0), "seed {seed}");
    }
}

#[test]
fn large_and_small_messages_arrive_whole_and_in_order_on_a_bad_path() {
    for seed in 0..4 {
        let mut net = cluster(seed, 2);
        net.weather = Weather { loss: 0.03, repeat: 0.02, delay: 0.1, damage: 0.01 };
        let mut large = Vec::new();
        for n in 0..6usize {
            let len = [0, 1, 70_000, MESSAGE_MAX, 5000, 100_000][n];
            large.push((0..len).map(|at| (at * 7 + n) as u8).collect::<Vec<u8>>());
            send(&mut net, 0, 1, Class::Calls, &large[n]);
            for small in 0..50u8 {
                send(&mut net, 0, 1, Class::Wants, &[n as u8, small]);
            }
        }
        let done = |net: &Net<Node>| {
            let node = net.get(1).unwrap();
            node.messages(Class::Wants).len() == 300 && node.messages(Class::Calls).len() == 6
        };
        assert!(net.run_while(SECOND * 120, done), "seed {seed}");
        net.run_for(SECOND * 5);
        let node = net.get(1).unwrap();
        assert_eq!(node.messages(Class::Calls), large);
        let small: Vec<_> = (0..6).flat_map(|n| (0..50).map(move |small| [n, small])).collect();
        assert_eq!(node.messages(Class::Wants), small);
        assert!(net.each().all(|(_, node)| node.broken().is_empty()));
    }
}

#[test]
fn a_small_want_does_not_wait_for_a_large_answer() {
    let mut net = cluster(3, 2);
    send(&mut net, 0, 1, Class::Wants, b"first");
    net.run_for(SECOND);
    for _ in 0..8 {
        send(&mut net, 0, 1, Class::Calls, &vec![1; MESSAGE_MAX]);
    }
    send(&mut net, 0, 1, Class::Wants, b"second");
    let wants = |net: &Net<Node>| net.get(1).unwrap().messages(Class::Wants).len();
    assert!(net.run_while(SECOND * 20, |net| wants(net) == 2));
    let calls = net.get(1).unwrap().messages(Class::Calls).len();
    assert!(calls < 3, "{calls} large ones came first");
    assert!(
        net.run_while(SECOND * 60, |net| { net.get(1).unwrap().messages(Class::Calls).len() == 8 })
    );
}

#[test]
fn a_cut_is_told_once_and_later_messages_make_another_connection() {
    let mut net = cluster(4, 3);
    send(&mut net, 0, 1, Class::Wants, b"before");
    net.run_for(SECOND);
    let old = net.get(0).unwrap().hub.peer(id(&net, 1)).unwrap().epoch;
    net.cut = |a, b| a + b == 1;
    send(&mut net, 0, 1, Class::Wants, b"lost");
    net.run_for(SECOND * 25);
    let node = net.get(0).unwrap();
    assert_eq!(node.broken(), [Broken::Lost]);
    assert_eq!(net.get(1).unwrap().broken(), [Broken::Lost]);
    assert!(node.hub.peer(id(&net, 1)).is_none());
    assert!(node.hub.is_up(id(&net, 1)), "the third node still reaches both");
    // Waits for the path, in vain; it is told so.
    send(&mut net, 0, 1, Class::Wants, b"lost too");
    net.run_for(SECOND * 12);
    assert_eq!(net.get(0).unwrap().broken(), [Broken::Lost, Broken::Unreachable]);
    send(&mut net, 0, 1, Class::Wants, b"waits");
    net.run_for(SECOND * 2);
    net.cut = |_, _| false;
    assert!(net.run_while(SECOND * 8, |net| {
        net.get(1).unwrap().messages(Class::Wants) == [&b"before"[..], b"waits"]
    }));
    assert_ne!(net.get(0).unwrap().hub.peer(id(&net, 1)).unwrap().epoch, old);
}

#[test]
fn a_restarted_node_is_noticed_soon_and_spoken_to_again() {
    for seed in 0..5 {
        let mut net = cluster(seed, 3);
        let old = id(&net, 2);
        send(&mut net, 0, 2, Class::Wants, b"to the first");
        net.run_for(SECOND * 3);
        net.kill(2);
        net.run_for(SECOND / 5);
        let new = launch(&mut net, 2, config(2));
        let restarted = net.now;
        let is_told = |net: &Net<Node>| !net.get(0).unwrap().broken().is_empty();
        assert!(net.run_while(SECOND * 10, is_told), "seed {seed}");
        assert!(net.now - restarted < SECOND * 5, "{:?}", net.now - restarted);
        assert_eq!(net.get(0).unwrap().broken(), [Broken::Restarted]);
        assert!(net.run_while(SECOND * 10, |net| net.get(0).unwrap().hub.is_up(new)));
        let result = net.with(0, |node, now| node.hub.send(now, old, Class::Wants, b"x"));
        assert_eq!(result, Err(SendError::Unknown));
        send(&mut net, 0, 2, Class::Wants, b"to the second");
        net.run_for(SECOND * 2);
        assert_eq!(net.get(2).unwrap().messages(Class::Wants), [b"to the second"]);
    }
}

#[test]
fn the_version_before_is_spoken_with_and_the_one_before_that_is_not() {
    let versions = |newest| Versions { oldest: newest - 1, newest };
    let with = |at, newest| HubConfig { versions: versions(newest), ..config(at) };
    for swapped in [false, true] {
        let (caller, called) = if swapped { (1, 0) } else { (0, 1) };
        let mut net = cluster_of(5, vec![with(0, 5), with(1, 4)]);
        send(&mut net, caller, called, Class::Wants, b"x");
        net.run_for(SECOND * 2);
        assert_eq!(net.get(called).unwrap().messages(Class::Wants), [b"x"]);
        assert_eq!(net.get(0).unwrap().hub.peer(id(&net, 1)).unwrap().version, 4);

        let mut net = cluster_of(6, vec![with(0, 5), with(1, 3)]);
        send(&mut net, caller, called, Class::Wants, b"x");
        net.run_for(SECOND * 30);
        for (at, ours, theirs) in [(0, 5, 3), (1, 3, 5)] {
            let node = id(&net, 1 - at);
            let skew = Event::VersionSkew { node, ours: versions(ours), theirs: versions(theirs) };
            let told = net.get(at).unwrap().count(|event| *event == skew);
            assert_eq!(told, 1, "at {at}: once, not with each call");
        }
        assert_eq!(net.get(caller).unwrap().broken(), [Broken::Skewed]);
        assert!(net.get(called).unwrap().messages(Class::Wants).is_empty());
        assert!(net.each().all(|(_, node)| node.hub.connections() == 0));
    }
}

#[test]
fn an_unused_connection_is_closed_after_a_minute_unless_it_is_held() {
    let mut net = cluster(7, 3);
    send(&mut net, 0, 1, Class::Wants, b"x");
    let third = id(&net, 2);
    net.with(0, |node, now| node.hub.hold(now, third, true)).unwrap();
    net.run_for(SECOND * 55);
    assert_eq!(net.get(0).unwrap().hub.connections(), 2);
    net.run_for(SECOND * 20);
    let node = net.get(0).unwrap();
    assert_eq!(node.hub.connections(), 1);
    assert!(node.hub.peer(third).is_some());
    let broken = (node.broken(), net.get(1).unwrap().broken());
    assert!(broken.0.len() == 1 && broken.1.len() == 1, "{broken:?}");
    assert!([Broken::Unused, Broken::Closed].contains(&broken.0[0]));
    assert!(net.get(2).unwrap().broken().is_empty(), "the other end knows that it is held");
    net.with(0, |node, now| node.hub.hold(now, third, false)).unwrap();
    net.run_for(SECOND * 65);
    assert_eq!(net.get(0).unwrap().hub.connections(), 0);
    send(&mut net, 1, 0, Class::Wants, b"again");
    net.run_for(SECOND * 2);
    assert_eq!(net.get(0).unwrap().messages(Class::Wants), [b"again"]);
}

#[test]
fn a_node_that_leaves_says_so_on_its_connections() {
    let mut net = cluster(8, 4);
    send(&mut net, 0, 3, Class::Wants, b"x");
    net.run_for(SECOND);
    let gone = id(&net, 3);
    net.with(3, |node, now| node.hub.leave(now));
    net.run_for(SECOND / 2);
    assert_eq!(net.get(0).unwrap().broken(), [Broken::Closed]);
    net.run_for(SECOND * 2);
    assert_eq!(net.get(3).unwrap().hub.timeout(), None);
    let is_gone = |net: &Net<Node>| (0..3).all(|at| !net.get(at).unwrap().hub.is_up(gone));
    assert!(net.run_while(SECOND * 5, is_gone));
    let result = net.with(3, |node, now| node.hub.send(now, gone, Class::Wants, b"x"));
    assert_eq!(result, Err(SendError::Left));
}

#[test]
fn a_node_that_left_has_nothing_more_to_do_for_whom_it_held_or_wrote_to() {
    let mut net = cluster(7, 3);
    let (one, two) = (id(&net, 1), id(&net, 2));
    net.with(0, |node, now| {
        node.hub.hold(now, one, true).unwrap();
        node.hub.hold(now, two, true).unwrap();
        node.hub.send(now, two, Class::Calls, b"unanswered").unwrap();
        node.hub.leave(now);
    });
    net.run_for(SECOND * 20);
    let hub = &net.get(0).unwrap().hub;
    assert_eq!((hub.connections(), hub.timeout()), (0, None));
}

#[test]
fn queues_are_bounded_and_say_so() {
    let mut net = cluster(9, 2);
    net.cut = |_, _| true;
    let to = id(&net, 1);
    let long = vec![0; MESSAGE_MAX + 1];
    let result = net.with(0, |node, now| node.hub.send(now, to, Class::Calls, &long));
    assert_eq!(result, Err(SendError::TooLong));
    let unknown = NodeId(12);
    let result = net.with(0, |node, now| node.hub.send(now, unknown, Class::Calls, b"x"));
    assert_eq!(result, Err(SendError::Unknown));
    let mut queued = 0;
    let result = loop {
        let long = &long[..MESSAGE_MAX];
        match net.with(0, |node, now| node.hub.send(now, to, Class::Calls, long)) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((result, queued), (SendError::Full, QUEUE_BYTES_MAX / MESSAGE_MAX - 1));
    assert_eq!(net.get(0).unwrap().hub.control_faults().of(ControlFault::QueueFull), 1);
    net.run_for(SECOND * 11);
    assert_eq!(net.get(0).unwrap().broken(), [Broken::Unreachable]);
}

#[test]
fn ten_nodes_that_all_call_each_other_have_one_connection_each() {
    let mut net = cluster(10, 10);
    net.weather = Weather { loss: 0.02, delay: 0.05, ..Weather::default() };
    for from in 0..10 {
        for to in (0..10).filter(|&to| to != from) {
            for n in 0..5 {
                send(&mut net, from, to, Class::Wants, &[from as u8, n]);
            }
        }
    }
    net.run_for(SECOND * 30);
    for (at, node) in net.each() {
        let mut seen = node.messages(Class::Wants);
        seen.sort_unstable();
        let all: Vec<_> = (0..10u8)
            .filter(|&from| usize::from(from) != at)
            .flat_map(|from| (0..5).map(move |n| [from, n]))
            .collect();
        assert_eq!(seen, all);
        assert_eq!((node.hub.connections(), node.broken()), (9, vec![]));
    }
}

#[test]
fn nodes_in_the_midst_of_a_key_change_connect() {
    let with = |at, kids: &[u8]| HubConfig { keys: keys(kids), ..config(at) };
    let kids = [&[1, 2][..], &[2, 1]];
    for (caller, called) in [(0, 1), (1, 0)] {
        let mut net = cluster_of(11, vec![with(0, kids[0]), with(1, kids[1])]);
        send(&mut net, caller, called, Class::Wants, b"x");
        net.run_for(SECOND * 2);
        assert_eq!(net.get(called).unwrap().messages(Class::Wants), [b"x"]);
    }
}

#[test]
fn ten_thousand_datagrams_of_garbage_leave_no_state() {
    let mut net = cluster(12, 2);
    net.cut = |_, _| true;
    net.run_for(SECOND);
    let sent = net.sent_bytes[0];
    let mut received = 0;
    let forged: SocketAddr = "198.51.100.7:5".parse().unwrap();
    for n in 0..10_000 {
        let len = net.rng.random_range(1..1400);
        let mut garbage: Vec<u8> = (0..len).map(|_| net.rng.random()).collect();
        match n % 4 {
            // Looks like the first packet of QUIC version 1.
            0 if len >= 1200 => {
                garbage[..6].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8]);
                garbage[14] = 8;
                garbage[23] = 0;
            }
            // Like one of an unknown version, and like one of a connection.
            1 => garbage[0] = 0xC0,
            2 => garbage[0] = 0x41,
            _ => {}
        }
        received += len as u64 + 28;
        net.inject(forged, address(0), garbage);
    }
    net.run_for(Duration::from_millis(2));
    let answered = net.sent_bytes[0] - sent;
    assert!(answered < received, "{answered} B for {received}");
    net.run_for(SECOND * 5);
    let node = net.get(0).unwrap();
    assert_eq!(node.hub.connections(), 0);
    let faults = node.hub.faults().unknown + node.hub.control_faults().total();
    let faults = faults + node.hub.member_faults().total() + node.hub.faults().reserved;
    assert!(faults > 7000, "{faults}");
    assert!(!events(&mut net, 0).iter().any(|e| matches!(e, Event::Message { .. })));
}

#[test]
fn one_seed_is_one_run() {
    let run = |seed| {
        let mut net = cluster(seed, 5);
        net.weather = Weather { loss: 0.05, delay: 0.1, repeat: 0.05, damage: 0.0 };
        for n in 0..20 {
            send(&mut net, n % 5, (n + 1) % 5, Class::Calls, &vec![n as u8; 3000]);
        }
        net.run_for(SECOND * 10);
        (net.sent_datagrams, net.sent_bytes.clone())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
