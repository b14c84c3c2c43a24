//! A shard's two lanes: sockets for what somebody waits for, and sockets on the same address for
//! what can wait for the next time the shard is awake (`steer` says which that is).
//!
//! A viewer sends some 15 reports and transport feedbacks a second. Woken for each of them, a
//! shard with 500 viewers would wake up 3,000 times a second, for a third of its CPU time.
//!
//! Invariants: no second lane where the kernel could lead anything else to it.
//!
//! Not here: when to look at the second lane (`wake`).

use std::net::SocketAddr;

use super::socket::{BindError, Sockets};
use super::steer::{self, Group, Kind, Steering};

/// A shard's sockets.
#[derive(Debug)]
pub struct Lanes {
    /// For everything, or everything that cannot wait.
    pub urgent: Sockets,
    /// For what can wait, where the kernel can tell it.
    pub patient: Option<Sockets>,
}

/// For shards that have a port each.
pub fn own(shards: Vec<Sockets>) -> Vec<Lanes> {
    let lanes = |urgent: Sockets| {
        let patient = second(&urgent).ok().filter(|patient| {
            groups(&[&urgent], &[patient]).iter().all(|group| steer::part(group).is_ok())
        });
        Lanes { urgent, patient }
    };
    shards.into_iter().map(lanes).collect()
}

/// For shards that share a port, whose sockets were bound in their order; and what steers among
/// them, no better than `best`.
pub fn shared(shards: Vec<Sockets>, best: Kind) -> (Vec<Lanes>, Steering) {
    let can_part = best == Kind::EBpf && steer::ebpf_allowed().is_ok();
    let bound = || shards.iter().map(second).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    let mut patient = if can_part { bound() } else { Vec::new() };
    let steering = {
        let (urgent, patient): (Vec<_>, Vec<_>) =
            (shards.iter().collect(), patient.iter().collect());
        Steering::attach(&groups(&urgent, &patient), best)
    };
    if !steering.parts() {
        // The last first: a socket that is closed gives its place to the last one.
        while patient.pop().is_some() {}
    }
    let mut patient = patient.into_iter();
    let lanes = shards.into_iter().map(|urgent| Lanes { urgent, patient: patient.next() });
    (lanes.collect(), steering)
}

/// More sockets on the same addresses.
fn second(sockets: &Sockets) -> Result<Sockets, BindError> {
    let addresses: Vec<SocketAddr> = sockets.locals().into_iter().flatten().collect();
    Sockets::bind(&addresses)
}

/// By address family.
fn groups<'a>(urgent: &[&'a Sockets], patient: &[&'a Sockets]) -> [Group<'a>; 2] {
    let v4 = |all: &[&'a Sockets]| all.iter().filter_map(|sockets| sockets.v4.as_ref()).collect();
    let v6 = |all: &[&'a Sockets]| all.iter().filter_map(|sockets| sockets.v6.as_ref()).collect();
    [
        Group { urgent: v4(urgent), patient: v4(patient) },
        Group { urgent: v6(urgent), patient: v6(patient) },
    ]
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, AsRawFd};

    use super::super::socket::Socket;
    use super::*;
    use crate::ids::ShardId;

    /// A receiver report, transport-wide feedback, the latter padded, a check; and how long they are
    /// at most, sealed with the longest tag.
    const PATIENT: [([u8; 4], usize); 4] = [
        ([0x81, 201, 0, 7], 52),
        ([0x8f, 205, 0, 9], 60),
        ([0xaf, 205, 1, 0], 1048),
        ([0, 1, 0, 80], 100),
    ];

    /// A sender report, a NACK, a request for a keyframe, REMB, an RTP packet, one whose second byte
    /// is a report's with another version, the answer to a check, DTLS.
    const URGENT: [[u8; 4]; 8] = [
        [0x80, 200, 0, 6],
        [0x81, 205, 0, 3],
        [0x81, 206, 0, 2],
        [0x8f, 206, 0, 5],
        [0x80, 96, 1, 2],
        [0x41, 201, 0, 7],
        [1, 1, 0, 80],
        [22, 0xfe, 0xfd, 0],
    ];

    /// Datagrams, and whether they can wait.
    fn datagrams() -> Vec<(Vec<u8>, bool)> {
        let message = |head: [u8; 4], len| head.into_iter().chain([7; 1500]).take(len).collect();
        let mut all = vec![(vec![0x81], false), (vec![0x81, 201, 0], false)];
        all.extend(URGENT.map(|head| (message(head, 40), false)));
        for (head, len) in PATIENT {
            all.extend([(message(head, len), true), (message(head, len - 6), true)]);
            // Something else is behind it.
            all.extend([(message(head, len + 1), false), (message(head, len + 16), false)]);
        }
        all
    }

    fn bind(address: &str, count: usize) -> Vec<Sockets> {
        let first = Sockets::bind(&[address.parse().unwrap()]).unwrap();
        let shared: Vec<SocketAddr> = first.locals().into_iter().flatten().collect();
        let others = (1..count).map(|_| Sockets::bind(&shared).unwrap());
        std::iter::once(first).chain(others).collect()
    }

    fn the_one(sockets: &Sockets) -> &Socket {
        sockets.v4.as_ref().or(sockets.v6.as_ref()).unwrap()
    }

    /// Sends from `client`: by which shard's which lane it came.
    fn reached(lanes: &[Lanes], client: &UdpSocket, message: &[u8]) -> (usize, bool) {
        client.send_to(message, the_one(&lanes[0].urgent).local()).unwrap();
        // Usually it is there before `send_to` returns.
        for _ in 0..1000 {
            if let [one] = take_all(lanes)[..] {
                return one;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{message:x?} did not come");
    }

    /// By which lanes something came.
    fn take_all(lanes: &[Lanes]) -> Vec<(usize, bool)> {
        let came = |sockets: &Sockets| {
            let fd = the_one(sockets).as_fd().as_raw_fd();
            let mut byte = [0u8];
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            // SAFETY: one writable byte.
            unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, flags) > 0 }
        };
        let mut all = Vec::new();
        for (shard, lanes) in lanes.iter().enumerate() {
            all.extend(came(&lanes.urgent).then_some((shard, false)));
            all.extend(lanes.patient.iter().any(came).then_some((shard, true)));
        }
        all
    }

    #[test]
    fn a_port_of_its_own_parts_what_can_wait_without_any_rights() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let lanes = own(bind(address, 1));
            assert!(lanes[0].patient.is_some());
            for _ in 0..20 {
                let client = UdpSocket::bind(address).unwrap();
                for (message, can_wait) in datagrams() {
                    assert_eq!(reached(&lanes, &client, &message), (0, can_wait), "{message:x?}");
                }
            }
        }
    }

    #[test]
    fn on_a_shared_port_what_can_wait_reaches_the_shard_of_its_peer() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (lanes, steering) = shared(bind(address, 3), Kind::EBpf);
            assert_eq!(steering.parts(), steer::ebpf_allowed().is_ok());
            assert!(lanes.iter().all(|lanes| lanes.patient.is_some() == steering.parts()));
            for n in 0..60 {
                let client = UdpSocket::bind(address).unwrap();
                // A stranger's all reach one shard, whichever it is.
                let (by_hash, _) = reached(&lanes, &client, &URGENT[0]);
                let known = steering.learn(client.local_addr().unwrap(), ShardId(n % 3));
                let shard = if known { usize::from(n % 3) } else { by_hash };
                for (message, can_wait) in datagrams() {
                    let lane = (shard, can_wait && steering.parts());
                    assert_eq!(reached(&lanes, &client, &message), lane, "{message:x?}");
                }
            }
        }
    }

    #[test]
    fn what_came_for_a_shard_that_has_left_reaches_nobody() {
        let (mut lanes, steering) = shared(bind("127.0.0.1:0", 3), Kind::EBpf);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        if !steering.learn(client.local_addr().unwrap(), ShardId(2)) {
            return assert!(steer::ebpf_allowed().is_err());
        }
        let at = the_one(&lanes[0].urgent).local();
        lanes.pop();
        for (message, _) in datagrams() {
            client.send_to(&message, at).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert_eq!(take_all(&lanes), []);
        }
    }

    #[test]
    fn where_the_kernel_cannot_tell_there_is_no_second_lane() {
        for best in [Kind::CBpf, Kind::Hash] {
            let (lanes, steering) = shared(bind("127.0.0.1:0", 3), best);
            assert!(!steering.parts() && lanes.iter().all(|lanes| lanes.patient.is_none()));
            let mut shards = [0; 3];
            for _ in 0..60 {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                shards[reached(&lanes, &client, &PATIENT[0].0).0] += 1;
            }
            assert!(shards.iter().all(|&n| n > 0), "{shards:?}");
        }
    }
}
