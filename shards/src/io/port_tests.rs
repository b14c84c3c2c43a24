//! One suite for both ports, over loopback.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::{LocalExecutorBuilder, Placement};

use super::clock::{now, wall};
use super::port::{Port, PortError, PortKind, Received, open, readable};
use super::socket::{Socket, Sockets};
use crate::outbox::{Destination, MAX_DATAGRAM, Outbox, RUN_DATAGRAMS_MAX};

/// More than a shard leaves at a time.
const ROOM: usize = 2 << 20;

macro_rules! suite {
    ($($test:ident)*) => {
        mod ring { $( #[test] fn $test() { super::$test(super::PortKind::Ring); } )* }
        mod mmsg { $( #[test] fn $test() { super::$test(super::PortKind::Mmsg); } )* }
    };
}

suite! {
    datagrams_of_every_size_arrive_as_sent
    runs_leave_by_gso_and_arrive_cut_and_in_order
    one_aggregate_may_be_nearly_64_kib
    the_address_they_were_sent_to_is_reported_and_can_be_sent_from
    the_time_in_the_socket_is_told
    a_budget_is_kept_exactly_and_nothing_is_lost_by_it
    more_datagrams_than_buffers_all_arrive
    a_closed_port_disturbs_nothing
    an_impossible_address_costs_only_its_own_datagrams
    a_family_without_a_socket_is_counted
    where_gso_is_refused_datagrams_go_one_by_one
    bytes_may_be_changed_in_place
    an_empty_datagram_is_not_delivered
    waiting_ends_when_a_datagram_comes
    waiting_may_be_given_up_and_taken_up_again
}

fn datagrams_of_every_size_arrive_as_sent(kind: PortKind) {
    for mut pair in Pair::each_family(kind) {
        let sizes = (1..=MAX_DATAGRAM).step_by(7).chain([1, 2, 1199, 1200, 1472, MAX_DATAGRAM]);
        let sent: Vec<Vec<u8>> = sizes.enumerate().map(|(n, len)| vec![n as u8; len]).collect();
        pair.send(&sent);
        assert_eq!(pair.receive_all(sent.len()), sent);
        let (out, into) = (pair.a.counters(), pair.b.counters());
        assert_eq!((out.datagrams_out, out.drops_out.total()), (sent.len() as u64, 0));
        assert_eq!((into.datagrams_in, into.bytes_in), (out.datagrams_out, out.bytes_out));
    }
}

fn runs_leave_by_gso_and_arrive_cut_and_in_order(kind: PortKind) {
    for mut pair in Pair::each_family(kind) {
        let lens = [1200, 1200, 1200, 700, 700, 1201, 1200, 1200, 5, 5, 5, 5, 4, 9];
        let mut sent: Vec<Vec<u8>> =
            lens.iter().enumerate().map(|(n, &len)| vec![n as u8; len]).collect();
        sent.extend((0..200u8).map(|n| vec![n; 300]));
        pair.send(&sent);
        assert_eq!(pair.receive_all(sent.len()), sent);
        let (out, into) = (pair.a.counters(), pair.b.counters());
        assert!(out.gso && out.gso_refusals == 0 && into.gro);
        assert!(out.gso_datagrams > 200 && out.messages_out < 15, "{out:?}");
        assert!(into.messages_in < 15, "GRO kept the runs together: {into:?}");
    }
}

fn one_aggregate_may_be_nearly_64_kib(kind: PortKind) {
    for mut pair in Pair::each_family(kind) {
        let sent: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 1500]).collect();
        pair.send(&sent);
        assert_eq!(pair.receive_all(sent.len()), sent);
        // 60,000 bytes each; the largest a kernel would send us:
        let raw = std::net::UdpSocket::bind(pair.client_address()).unwrap();
        let whole: Vec<u8> = (0..65_000u32).map(|n| n as u8).collect();
        raw.send_to(&whole, pair.b_address).unwrap();
        assert_eq!(pair.receive_all(1), [whole]);
    }
}

fn the_address_they_were_sent_to_is_reported_and_can_be_sent_from(kind: PortKind) {
    let wildcards = ["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let mut port = opened(kind, Sockets::bind(&wildcards).unwrap());
    let [Some(v4), Some(v6)] = port.locals() else { panic!("both are bound") };
    let targets: [SocketAddr; 3] = [
        SocketAddr::from(([127, 0, 0, 2], v4.port())),
        SocketAddr::from(([127, 0, 0, 3], v4.port())),
        format!("[::1]:{}", v6.port()).parse().unwrap(),
    ];
    for target in targets {
        let own = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let client = std::net::UdpSocket::bind(own).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(b"hello", target).unwrap();
        let mut seen = Vec::new();
        receive_until(&mut *port, 1, &mut |source, local, _| seen.push((source, local)));
        assert_eq!(seen, [(client.local_addr().unwrap(), target)]);

        let mut outbox = Outbox::new(ROOM);
        let to = Destination { remote: seen[0].0, local: seen[0].1 };
        outbox.push(to, b"good");
        outbox.push(to, b"bye!");
        port.send(&outbox);
        for expected in [b"good", b"bye!"] {
            let mut answer = [0; 10];
            let (len, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], from), (&expected[..], target));
        }
    }
}

fn the_time_in_the_socket_is_told(kind: PortKind) {
    for mut pair in Pair::each_family(kind) {
        let before = wall();
        pair.send(&[vec![1; 1000], vec![2; 1000]]);
        let sent = wall();
        std::thread::sleep(Duration::from_millis(30));
        let mut times = Vec::new();
        for _ in 0..1000 {
            pair.b.receive(10, &mut |arrival| times.push(arrival.arrived.expect("a time")));
            if times.len() == 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(times.len(), 2);
        assert!(
            times.iter().all(|at| (before..=sent).contains(at)),
            "{before:?} {times:?} {sent:?}"
        );
    }
}

fn a_budget_is_kept_exactly_and_nothing_is_lost_by_it(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    let sent: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 1000]).collect();
    pair.send(&sent);
    let (mut seen, mut calls) = (Vec::new(), 0);
    loop {
        let received = pair.b.receive(7, &mut |arrival| seen.push(arrival.bytes.to_vec()));
        calls += 1;
        assert!(received.count <= 7);
        if received.drained {
            break;
        }
        assert_eq!(received.count, 7);
    }
    assert_eq!((seen, calls), (sent, 15));
    assert_eq!(pair.b.receive(7, &mut |_| {}), Received { count: 0, drained: true });
    assert_eq!(pair.b.receive(0, &mut |_| {}).count, 0);
}

fn more_datagrams_than_buffers_all_arrive(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    // Unequal sizes, each longer than the one before, so that nothing folds.
    let sent: Vec<Vec<u8>> = (0..1000usize).map(|n| vec![n as u8; n + 1]).collect();
    pair.send(&sent);
    let mut seen = Vec::new();
    let mut each = |arrival: super::port::Arrival<'_>| seen.push(arrival.bytes.to_vec());
    let received = pair.b.receive(usize::MAX, &mut each);
    assert_eq!(received, Received { count: 1000, drained: true });
    assert_eq!(seen, sent);
    assert_eq!(pair.b.counters().drops_in, Default::default());
}

fn a_closed_port_disturbs_nothing(kind: PortKind) {
    for mut pair in Pair::each_family(kind) {
        let closed = std::net::UdpSocket::bind(pair.client_address()).unwrap();
        let nobody = Destination { remote: closed.local_addr().unwrap(), local: pair.a_address };
        drop(closed);
        for _ in 0..3 {
            let mut outbox = Outbox::new(ROOM);
            outbox.push(nobody, b"anybody there?");
            outbox.push(pair.to_b(), b"hello");
            outbox.push(nobody, b"anybody?");
            outbox.push(pair.to_b(), b"hello");
            pair.a.send(&outbox);
            assert_eq!(pair.receive_all(2), [b"hello", b"hello"]);
            assert_eq!(pair.a.receive(10, &mut |_| {}), Received { count: 0, drained: true });
        }
        assert_eq!(pair.a.counters().drops_out.total(), 0);
    }
}

fn an_impossible_address_costs_only_its_own_datagrams(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    // Port 0 is EINVAL, which GSO may answer too; a broadcast is EACCES.
    for remote in ["127.0.0.1:0", "255.255.255.255:9"] {
        let impossible = Destination { remote: remote.parse().unwrap(), local: pair.a_address };
        let mut outbox = Outbox::new(ROOM);
        for to in [pair.to_b(), impossible, impossible, impossible, pair.to_b()] {
            outbox.push(to, b"same length");
        }
        pair.a.send(&outbox);
        assert_eq!(pair.receive_all(2).len(), 2);
    }
    let counters = pair.a.counters();
    assert!(counters.gso, "a peer cannot switch GSO off");
    assert_eq!((counters.drops_out.refused, counters.drops_out.unreachable), (3, 3));
    assert_eq!(counters.datagrams_out, 4);
}

fn a_family_without_a_socket_is_counted(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    let mut outbox = Outbox::new(ROOM);
    let remote = "[::1]:9".parse().unwrap();
    for _ in 0..5 {
        outbox.push(Destination { remote, local: remote }, b"lost");
    }
    outbox.push(pair.to_b(), b"kept");
    pair.a.send(&outbox);
    assert_eq!(pair.receive_all(1), [b"kept"]);
    assert_eq!(pair.a.counters().drops_out.no_socket, 5);
}

fn where_gso_is_refused_datagrams_go_one_by_one(kind: PortKind) {
    for mut pair in Pair::each_family_prepared(kind, &|socket| socket.refuse_gso()) {
        let sent: Vec<Vec<u8>> = (0..150u8).map(|n| vec![n; 1200]).collect();
        for round in 0..3 {
            pair.send(&sent);
            assert_eq!(pair.receive_all(sent.len()), sent, "round {round}");
        }
        let counters = pair.a.counters();
        assert!(!counters.gso);
        assert_eq!((counters.gso_refusals, counters.gso_datagrams), (1, 0));
        assert_eq!((counters.datagrams_out, counters.drops_out.total()), (450, 0));
    }
}

fn bytes_may_be_changed_in_place(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    for _ in 0..2 {
        pair.send(&vec![vec![1; 500]; RUN_DATAGRAMS_MAX]);
        let received = pair.b.receive(RUN_DATAGRAMS_MAX, &mut |arrival| {
            assert!(arrival.bytes.iter().all(|&b| b == 1));
            arrival.bytes.fill(2);
        });
        assert_eq!(received.count, RUN_DATAGRAMS_MAX);
    }
}

fn an_empty_datagram_is_not_delivered(kind: PortKind) {
    let mut pair = Pair::v4(kind);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"", pair.b_address).unwrap();
    client.send_to(b"x", pair.b_address).unwrap();
    assert_eq!(pair.receive_all(1), [b"x"]);
    assert_eq!(pair.b.counters().drops_in.unusable, 1);
}

fn waiting_ends_when_a_datagram_comes(kind: PortKind) {
    let wildcards = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let sockets = Sockets::bind(&wildcards).unwrap();
    let targets = sockets.locals();
    let shard = executor(move || async move {
        let mut port = opened(kind, sockets);
        let mut count = 0;
        while count < 200 {
            let received = port.receive(64, &mut |_| {});
            count += received.count;
            if received.drained && count < 200 {
                readable(&mut *port).await;
            }
        }
        assert_eq!(count, 200);
    });
    for n in 0..200u64 {
        let target = targets[n as usize % 2].unwrap();
        let own = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        std::net::UdpSocket::bind(own).unwrap().send_to(b"wake up", target).unwrap();
        // Lost wakes would show as a hang; different gaps meet it awake, dozing and asleep.
        std::thread::sleep(Duration::from_micros(n * 7 % 400));
    }
    shard.join().unwrap();
}

fn waiting_may_be_given_up_and_taken_up_again(kind: PortKind) {
    let sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let target = sockets.locals()[0].unwrap();
    let shard = executor(move || async move {
        let mut port = opened(kind, sockets);
        assert!(port.receive(1, &mut |_| {}).drained);
        // More than the 32,767 wakers of one task that glommio can count.
        for _ in 0..40_000 {
            readable(&mut *port).or(std::future::ready(())).await;
        }
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..50u8 {
            // Given up once after the operation is in the kernel.
            let pause = glommio::timer::sleep(Duration::from_micros(300));
            readable(&mut *port).or(pause).await;
            client.send_to(&[n], target).unwrap();
            let mut seen = None;
            while seen.is_none() {
                readable(&mut *port).await;
                port.receive(1, &mut |arrival| seen = Some(arrival.bytes[0]));
            }
            assert_eq!(seen, Some(n));
        }
    });
    shard.join().unwrap();
}

#[test]
fn dropping_a_ring_leaves_its_socket_to_others() {
    let sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let local = sockets.locals()[0].unwrap();
    for _ in 0..20 {
        let kept = sockets.v4.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        let copy = Sockets { v4: Some(Socket::bind(local).unwrap()), v6: None };
        let port = opened(PortKind::Ring, copy);
        assert!(port.locals()[0].is_some());
        drop(port);
        assert!(kept.as_raw_fd() > 0);
    }
}

#[test]
fn where_rings_are_forbidden_the_sockets_come_back_for_the_other_port() {
    // A seccomp filter is a thread's own, as a container's is its processes'.
    std::thread::spawn(|| {
        forbid_rings();
        let sockets = Sockets::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let bound = sockets.locals();
        let (refused, sockets) = open(PortKind::Ring, sockets).unwrap_err();
        assert!(matches!(refused, PortError::RingForbidden), "{refused}");
        assert_eq!(opened(PortKind::Mmsg, sockets).locals(), bound);
    })
    .join()
    .unwrap();
}

/// Makes io_uring_setup fail with EPERM on this thread.
fn forbid_rings() {
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        op(0x20, 0, 0, 0), // the system call's number
        op(0x15, 0, 1, libc::SYS_io_uring_setup as u32),
        op(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies a live program of the length given; the first call passes
    // only integers.
    let status = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// Two ports that talk to each other.
struct Pair {
    a: Box<dyn Port>,
    b: Box<dyn Port>,
    a_address: SocketAddr,
    b_address: SocketAddr,
}

impl Pair {
    fn v4(kind: PortKind) -> Self {
        Self::bound(kind, "127.0.0.1:0", &|_| {})
    }

    fn each_family(kind: PortKind) -> [Self; 2] {
        Self::each_family_prepared(kind, &|_| {})
    }

    fn each_family_prepared(kind: PortKind, prepare: &dyn Fn(&Socket)) -> [Self; 2] {
        ["127.0.0.1:0", "[::1]:0"].map(|address| Self::bound(kind, address, prepare))
    }

    fn bound(kind: PortKind, address: &str, prepare: &dyn Fn(&Socket)) -> Self {
        let [(a, a_address), (b, b_address)] = [(); 2].map(|()| {
            let sockets = Sockets::bind(&[address.parse().unwrap()]).unwrap();
            let socket = sockets.v4.as_ref().or(sockets.v6.as_ref()).unwrap();
            prepare(socket);
            let local = socket.local();
            (opened(kind, sockets), local)
        });
        Self { a, b, a_address, b_address }
    }

    fn to_b(&self) -> Destination {
        Destination { remote: self.b_address, local: self.a_address }
    }

    fn client_address(&self) -> SocketAddr {
        SocketAddr::new(self.a_address.ip(), 0)
    }

    fn send(&mut self, datagrams: &[Vec<u8>]) {
        let mut outbox = Outbox::new(ROOM);
        for datagram in datagrams {
            assert!(outbox.push(self.to_b(), datagram));
        }
        self.a.send(&outbox);
    }

    fn receive_all(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        receive_until(&mut *self.b, count, &mut |_, _, bytes| seen.push(bytes.to_vec()));
        seen
    }
}

fn opened(kind: PortKind, sockets: Sockets) -> Box<dyn Port> {
    open(kind, sockets).map_err(|(refused, _)| refused.to_string()).unwrap()
}

/// Receives until `count` came, then makes sure that nothing else did.
fn receive_until(
    port: &mut dyn Port,
    count: usize,
    each: &mut dyn FnMut(SocketAddr, SocketAddr, &[u8]),
) {
    let deadline: Instant = now() + Duration::from_secs(5);
    let mut seen = 0;
    loop {
        let received = port.receive(1000, &mut |arrival| {
            each(arrival.source, arrival.local, arrival.bytes);
        });
        seen += received.count;
        if received.drained && seen >= count {
            break;
        }
        assert!(now() < deadline, "{seen} of {count} came");
    }
    assert_eq!(seen, count);
}

fn executor<F>(task: impl FnOnce() -> F + Send + 'static) -> glommio::ExecutorJoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    LocalExecutorBuilder::new(Placement::Unbound).spawn(task).unwrap()
}
