//! The programs for the kernel, with real sockets and datagrams.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

use super::*;

const STUN_LAYOUTS: [&[(u16, usize)]; 3] = [
    &[],
    &[(0xc057, 4), (0x802a, 8)],
    &[(0x24, 4), (0x25, 0), (0x802a, 8), (0xc001, 3), (0xc002, 17)],
];

#[test]
fn letters_name_shards_and_back() {
    for shard in 0..SHARDS_MAX as u8 {
        let letter = letter(ShardId(shard)).unwrap();
        assert_eq!(shard_of(letter), Some(ShardId(shard)));
        let (first, _, base) = LETTER_RANGES
            .into_iter()
            .find(|&(first, last, _)| (first..=last).contains(&(letter as u8)))
            .unwrap();
        assert_eq!(letter as u8 - first + base, shard);
    }
    assert_eq!((letter(ShardId(64)), shard_of(':')), (None, None));
}

#[test]
fn what_comes_from_a_known_peer_reaches_its_shard() {
    let (v4, v6) = (Bound::bind("127.0.0.1:0", 4), Bound::bind("[::1]:0", 4));
    let steering = Steering::attach(&[v4.group(), v6.group()], Kind::EBpf);
    if let Err(refused) = ebpf_allowed() {
        // Not skipped: where eBPF is forbidden, that has to be found out and said.
        assert_eq!(steering.kind(), Kind::CBpf, "{refused}");
        assert!(steering.refusal().is_some());
        assert!(!steering.learn("127.0.0.1:1".parse().unwrap(), ShardId(0)));
        return;
    }
    assert_eq!(steering.kind(), Kind::EBpf, "{:?}", steering.refusal());
    for (group, own) in [(&v4, "127.0.0.1:0"), (&v6, "[::1]:0")] {
        let mut moved = 0;
        for n in 0..300u16 {
            let client = UdpSocket::bind(own).unwrap();
            let source = client.local_addr().unwrap();
            let by_hash = group.shard_reached(&client, &[0x80; 100]);
            let shard = ShardId((n * 7 % 4) as u8);
            assert!(steering.learn(source, shard));
            for _ in 0..3 {
                assert_eq!(group.shard_reached(&client, &[0x80; 200]), shard.index());
            }
            moved += usize::from(by_hash != shard.index());
            // Somebody else's farewell is ignored, its own is not.
            assert!(!steering.forget(source, ShardId(shard.0 + 1)));
            assert_eq!(group.shard_reached(&client, &[0x80; 200]), shard.index());
            assert!(steering.forget(source, shard) && !steering.forget(source, shard));
            assert_eq!(group.shard_reached(&client, &[0x80; 200]), by_hash);
        }
        assert!(moved > 100, "the hash alone would not have done");
    }
}

#[test]
fn stun_from_a_stranger_reaches_the_shard_of_its_ufrag() {
    for kind in [Kind::EBpf, Kind::CBpf] {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let group = Bound::bind(address, SHARDS_MAX);
            let steering = group.steer(kind);
            let expected = if ebpf_allowed().is_ok() { kind } else { Kind::CBpf };
            assert_eq!(steering.kind(), expected);
            let client = UdpSocket::bind(address).unwrap();
            for (shard, &letter) in LETTERS.iter().enumerate() {
                for layout in STUN_LAYOUTS {
                    let username = format!("{}xyz:abcd", char::from(letter));
                    let message = stun(&username, layout);
                    assert_eq!(group.shard_reached(&client, &message), shard, "{kind:?}");
                }
            }
        }
    }
}

#[test]
fn whatever_else_comes_goes_by_the_hash_and_stays_there() {
    let mut overrun = stun("Babc:def", &[]);
    (overrun[20], overrun[22]) = (0x80, 0xff);
    let many: Vec<(u16, usize)> = (0..ATTRIBUTES_MAX).map(|n| (0xc000 + n as u16, 1)).collect();
    let mut response = stun("Babc:def", &[]);
    response[0] = 1;
    let strange = [
        vec![0, 1],
        vec![0x80; 100],
        stun("Zabc:def", &[]),
        stun("-abc:def", &[]),
        stun("Babc:def", &many),
        stun("Babc:def", &[])[..24].to_vec(),
        overrun,
        response,
    ];
    for kind in [Kind::EBpf, Kind::CBpf, Kind::Hash] {
        let group = Bound::bind("127.0.0.1:0", 4);
        let _steering = group.steer(kind);
        let mut reached = [0; 4];
        for _ in 0..50 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let by_hash = group.shard_reached(&client, &[0xff; 50]);
            for message in &strange {
                assert_eq!(group.shard_reached(&client, message), by_hash, "{kind:?} {message:x?}");
            }
            reached[by_hash] += 1;
        }
        assert!(reached.iter().all(|&n| n > 0), "{reached:?}");
    }
}

#[test]
fn without_rights_steering_is_by_ufrag_and_says_why() {
    // Capabilities are a thread's own.
    std::thread::spawn(|| {
        drop_capabilities();
        assert!(ebpf_allowed().is_err());
        let group = Bound::bind("127.0.0.1:0", 4);
        let steering = group.steer(Kind::EBpf);
        assert_eq!(steering.kind(), Kind::CBpf);
        let why = steering.refusal().unwrap().to_string();
        assert!(why.starts_with("steering by eBPF is not possible"), "{why}");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(group.shard_reached(&client, &stun("Cabc:def", &[])), 2);
    })
    .join()
    .unwrap();
}

#[test]
fn more_shards_than_letters_go_by_the_hash() {
    let group = Bound::bind("127.0.0.1:0", SHARDS_MAX + 1);
    let steering = group.steer(Kind::EBpf);
    assert_eq!(steering.kind(), Kind::Hash);
    assert!(matches!(steering.refusal(), Some(Refusal::TooManyShards(65))));
}

struct Bound(Vec<Socket>);

impl Bound {
    fn bind(address: &str, count: usize) -> Self {
        let first = Socket::bind(address.parse().unwrap()).unwrap();
        let shared = first.local();
        let others = (1..count).map(|_| Socket::bind(shared).unwrap());
        Self(std::iter::once(first).chain(others).collect())
    }

    /// Without sockets for what can wait.
    fn group(&self) -> Group<'_> {
        Group { urgent: self.0.iter().collect(), patient: Vec::new() }
    }

    fn steer(&self, best: Kind) -> Steering {
        Steering::attach(&[self.group()], best)
    }

    /// Sends `message` from `client`: which one of the sockets got it.
    fn shard_reached(&self, client: &UdpSocket, message: &[u8]) -> usize {
        client.send_to(message, self.0[0].local()).unwrap();
        let reached: Vec<usize> = (0..self.0.len()).filter(|&n| take(&self.0[n])).collect();
        assert_eq!(reached.len(), 1);
        reached[0]
    }
}

fn take(socket: &Socket) -> bool {
    let mut byte = [0u8];
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: one writable byte.
    unsafe { libc::recv(socket.as_fd().as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) > 0 }
}

/// A binding request with attributes of the given types and lengths before USERNAME.
fn stun(username: &str, before: &[(u16, usize)]) -> Vec<u8> {
    let mut attributes = Vec::new();
    let mut append = |kind: u16, value: &[u8]| {
        attributes.extend(kind.to_be_bytes());
        attributes.extend((value.len() as u16).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    };
    before.iter().for_each(|&(kind, len)| append(kind, &vec![0; len]));
    append(STUN_USERNAME, username.as_bytes());
    append(0x8028, &[0; 4]);
    let mut message = Vec::from(STUN_BINDING_REQUEST.to_be_bytes());
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(STUN_COOKIE.to_be_bytes());
    message.extend([9; 12]);
    message.extend(attributes);
    message
}

fn drop_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: capset reads a header and two sets of three words; `none` is both.
    let status = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(status, 0);
}
