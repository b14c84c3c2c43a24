//! Control connections with who should not be there, or is not known yet, in virtual time.

mod sim;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relay::control::{Broken, Class, Control, ControlConfig, ControlEvent, ControlFault, Versions};
use relay::members::NodeId;
use sim::{Machine, Net, address, keys};

const SECOND: Duration = Duration::from_secs(1);

/// The control plane alone, so that it can call whom it should not.
struct Caller {
    control: Control,
    events: Vec<ControlEvent>,
    segments: Vec<(SocketAddr, Vec<u8>)>,
}

impl Caller {
    fn new(n: usize, kids: &[u8], now: Instant) -> Self {
        let config = ControlConfig {
            keys: keys(kids),
            address: address(n),
            versions: Versions::of(1),
            caps: 0,
            shards: 1,
            links: Vec::new(),
        };
        let seed = std::array::from_fn(|at| (n >> (at % 2 * 8)) as u8);
        let control = Control::new(NodeId(1000 + n as u32), config, now, seed);
        Self { control, events: Vec::new(), segments: Vec::new() }
    }
}

impl Machine for Caller {
    fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.control.handle_datagram(now, from, None, datagram);
    }

    fn wake(&mut self, now: Instant) {
        self.control.handle_timeout(now);
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.control.timeout()
    }

    fn poll(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if self.segments.is_empty() {
            let transmit = self.control.poll_transmit(now)?;
            let size = transmit.segment.unwrap_or(transmit.bytes.len());
            let pieces = transmit.bytes.chunks(size).rev();
            self.segments.extend(pieces.map(|piece| (transmit.to, piece.to_vec())));
        }
        self.segments.pop()
    }

    fn settle(&mut self, _: Instant) {
        while let Some(event) = self.control.poll_event() {
            self.events.push(event);
        }
    }
}

/// A node at place 0 and callers at the others, who know it; it knows none of them.
fn callers(seed: u64, kids: &[&[u8]]) -> Net<Caller> {
    let mut net = Net::new(seed);
    net.place(address(0));
    let called = Caller::new(0, &[1], net.now);
    net.run(0, called);
    for (n, kids) in (1..).zip(kids) {
        net.place(address(n));
        let mut caller = Caller::new(n, kids, net.now);
        caller.control.set_member(net.now, NodeId(1000), address(0));
        net.run(n, caller);
    }
    net
}

#[test]
fn a_caller_without_the_key_gets_nothing_and_leaves_nothing() {
    let mut net = callers(13, &[&[2]]);
    net.with(1, |c, now| c.control.send(now, NodeId(1000), Class::Wants, b"x")).unwrap();
    net.run_for(SECOND * 15);
    let (called, caller) = (net.get(0).unwrap(), net.get(1).unwrap());
    assert!(called.events.is_empty());
    let node = NodeId(1000);
    assert_eq!(caller.events, [ControlEvent::Broken { node, why: Broken::Unreachable }]);
    assert!(caller.control.faults().of(ControlFault::Handshake) > 1);
    assert!(net.run_while(SECOND * 10, |net| net.get(0).unwrap().control.connections() == 0));
    assert_eq!(net.get(0).unwrap().control.half_open(), 0);
}

#[test]
fn a_node_that_the_called_one_does_not_know_yet_is_served_all_the_same() {
    let mut net = callers(14, &[&[1]]);
    net.with(1, |c, now| c.control.send(now, NodeId(1000), Class::Wants, b"x")).unwrap();
    net.run_for(SECOND * 2);
    let node = NodeId(1001);
    let (class, bytes) = (Class::Wants, b"x".to_vec());
    let expected = [ControlEvent::Connected(node), ControlEvent::Message { node, class, bytes }];
    let mut told = net.get(0).unwrap().events.clone();
    told.retain(|event| !matches!(event, ControlEvent::Mtu { .. }));
    assert_eq!(told, expected);
    net.with(0, |c, now| c.control.send(now, node, Class::Calls, b"y")).unwrap();
    net.run_for(SECOND);
    let (node, class, bytes) = (NodeId(1000), Class::Calls, b"y".to_vec());
    let answer = ControlEvent::Message { node, class, bytes };
    assert!(net.get(1).unwrap().events.contains(&answer));
}

#[test]
fn a_flood_of_calls_is_bounded_and_answered_with_no_more_than_three_times_its_bytes() {
    let stranger: &[u8] = &[2];
    let mut net = callers(15, &[stranger; 400]);
    // Nobody of them hears anything, as if their addresses were forged.
    net.cut = |from, _| from == 0;
    for n in 1..=400 {
        net.with(n, |c, now| c.control.send(now, NodeId(1000), Class::Wants, b"x")).unwrap();
    }
    for _ in 0..60 {
        net.run_for(SECOND / 10);
        let control = &net.get(0).unwrap().control;
        assert_eq!((control.connections(), control.half_open()), (0, 0), "they must prove first");
    }
    let flood: u64 = net.sent_bytes[1..].iter().sum();
    assert!(net.sent_bytes[0] * 3 < flood, "{} B for {flood}", net.sent_bytes[0]);

    // Now they hear, and can prove their addresses, but not that they are nodes.
    let mut net = callers(16, &[stranger; 400]);
    for n in 1..=400 {
        net.with(n, |c, now| c.control.send(now, NodeId(1000), Class::Wants, b"x")).unwrap();
    }
    for _ in 0..100 {
        net.run_for(SECOND / 20);
        assert!(net.get(0).unwrap().control.half_open() <= 256);
    }
    let flood: u64 = net.sent_bytes[1..].iter().sum();
    assert!(net.sent_bytes[0] < 3 * flood);
    assert!(net.get(0).unwrap().events.is_empty());
}

#[test]
fn a_node_that_reaches_itself_refuses() {
    let mut net = callers(17, &[]);
    let own = address(0);
    net.with(0, |c, now| c.control.set_member(now, NodeId(7), own));
    net.with(0, |c, now| c.control.send(now, NodeId(7), Class::Wants, b"x")).unwrap();
    net.run_for(SECOND * 3);
    let called = net.get(0).unwrap();
    assert!(called.control.faults().of(ControlFault::Reflected) >= 1);
    assert!(called.events.is_empty());
}
