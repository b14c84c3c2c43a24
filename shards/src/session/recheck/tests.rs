//! Answers of ours against those of the agent, and what must not be answered here.

use std::time::Instant;

use proptest::prelude::*;
use str0m::ice::{StunMessage, TransId};

use super::super::keys;
use super::super::sdp::RemoteTransport;
use super::super::stun::Check;
use super::super::transport::{Happened, Transport};
use super::super::ufrag::Credentials;
use super::*;
use crate::ids::ShardId;
use crate::testing::start;

/// A session's transport, and its client.
struct Pair {
    transport: Transport,
    username: String,
    password: String,
    now: Instant,
}

/// What a client may say in a check.
#[derive(Clone)]
struct Said {
    username: String,
    password: String,
    controlling: bool,
    tie_breaker: u64,
    priority: u32,
    nominates: bool,
}

impl Pair {
    fn new() -> Self {
        let now = start();
        let cert = keys::provider().dtls_provider.generate_certificate().unwrap();
        let mut n = 0;
        let mut random = || {
            n += 11;
            n
        };
        let ours = Credentials::new(ShardId(0), 5, &mut random);
        let username = format!("{}:them", ours.ufrag);
        let password = ours.pwd.clone();
        let mut transport = Transport::new(&cert, ours, now).unwrap();
        transport.set_remote(&remote("them"), None, now);
        Self { transport, username, password, now }
    }

    fn said(&self) -> Said {
        Said {
            username: self.username.clone(),
            password: self.password.clone(),
            controlling: true,
            tie_breaker: 9,
            priority: 77,
            nominates: true,
        }
    }

    /// By way of the agent.
    fn asked(&mut self, bytes: &[u8], source: SocketAddr) -> Happened {
        let check = Check::parse(bytes).unwrap();
        self.transport.stun(&check, source, ours(source), self.now)
    }

    fn again(&mut self, bytes: &[u8], source: SocketAddr) -> Option<Reply> {
        let request = Request::parse(bytes)?;
        self.transport.recheck(&request, source, ours(source), self.now)
    }
}

fn remote(ufrag: &str) -> RemoteTransport {
    RemoteTransport {
        ufrag: ufrag.to_owned(),
        pwd: "p".repeat(24),
        fingerprint: [7; 32],
        we_are_dtls_client: false,
        ice_restart: false,
    }
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        let id = TransId::new();
        let Self { username, controlling, tie_breaker, priority, nominates, .. } = self;
        let message = StunMessage::binding_request(
            username,
            id,
            *controlling,
            *tie_breaker,
            *priority,
            *nominates,
        );
        let hmac = keys::provider().sha1_hmac_provider;
        let mut bytes = vec![0; 600];
        let sign = |key: &[u8], parts: &[&[u8]]| hmac.sha1_hmac(key, parts);
        let len = message.to_bytes(Some(self.password.as_bytes()), &mut bytes, sign).unwrap();
        bytes.truncate(len);
        bytes
    }
}

fn v4(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], port))
}

fn v6(port: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 7, 0x1234, 0, 0, 9], port))
}

fn ours(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv4() { v4(3478) } else { v6(3478) }
}

#[test]
fn a_repetition_is_answered_as_the_agent_would() {
    for source in [v4(4000), v6(65_535)] {
        let mut pair = Pair::new();
        let check = pair.said().bytes();
        assert!(pair.again(&check, source).is_none(), "the agent knows nothing of it yet");
        assert!(pair.asked(&check, source).checked.is_some());
        for nominates in [true, false] {
            let bytes = Said { nominates, ..pair.said() }.bytes();
            let reply = pair.again(&bytes, source).expect("answered here");
            let agent = pair.asked(&bytes, source);
            let [(to, from, answer)] = &agent.datagrams[..] else { panic!("one answer") };
            assert_eq!((*to, *from), (source, ours(source)));
            assert_eq!(reply.bytes(), answer);
            assert!(reply.bytes().len() <= bytes.len(), "nothing is amplified");
            pair.asked(&check, source);
        }
    }
}

#[test]
fn what_differs_from_the_last_check_is_the_agents() {
    let mut pair = Pair::new();
    let said = pair.said();
    pair.asked(&said.bytes(), v4(4000));
    let others = [
        Said { username: format!("{}x", said.username), ..said.clone() },
        Said { username: "other:them".to_owned(), ..said.clone() },
        Said { password: "wrong".to_owned(), ..said.clone() },
        Said { controlling: false, ..said.clone() },
        Said { tie_breaker: 10, ..said.clone() },
        Said { priority: 78, ..said.clone() },
    ];
    for other in &others {
        assert!(pair.again(&other.bytes(), v4(4000)).is_none());
    }
    assert!(pair.again(&said.bytes(), v4(4001)).is_none(), "another address");
    let request = said.bytes();
    let request = Request::parse(&request).unwrap();
    let elsewhere = pair.transport.recheck(&request, v4(4000), v4(1), pair.now);
    assert!(elsewhere.is_none(), "another address of ours");
    assert!(pair.again(&said.bytes(), v4(4000)).is_some(), "and none of them changed anything");
}

#[test]
fn a_nomination_is_the_agents_until_it_knows_of_it() {
    let mut pair = Pair::new();
    pair.asked(&pair.said().bytes(), v4(4000));
    // Another path is looked at, and media stays where it is.
    let quiet = Said { nominates: false, priority: 1, ..pair.said() };
    pair.asked(&quiet.bytes(), v4(4001));
    assert!(pair.again(&quiet.bytes(), v4(4001)).is_none(), "not the path in use");
    assert!(pair.again(&pair.said().bytes(), v4(4000)).is_none(), "not the last check");
    pair.asked(&Said { nominates: false, ..pair.said() }.bytes(), v4(4000));
    assert!(pair.again(&pair.said().bytes(), v4(4000)).is_none());
    pair.asked(&pair.said().bytes(), v4(4000));
    assert!(pair.again(&pair.said().bytes(), v4(4000)).is_some());
}

#[test]
fn credentials_before_an_ice_restart_get_no_answer() {
    let mut pair = Pair::new();
    let old = pair.said().bytes();
    pair.asked(&old, v4(4000));
    let mut random = || 3;
    let fresh = Credentials::new(ShardId(0), 5, &mut random);
    pair.transport.set_remote(&remote("anew"), Some(fresh.clone()), pair.now);
    assert!(pair.again(&old, v4(4000)).is_none());
    let username = format!("{}:anew", fresh.ufrag);
    let said = Said { username, password: fresh.pwd, ..pair.said() };
    assert!(pair.again(&said.bytes(), v4(4000)).is_none(), "the agent comes first");
    assert!(pair.asked(&said.bytes(), v4(4000)).checked.is_some());
    assert!(pair.again(&said.bytes(), v4(4000)).is_some());
}

#[test]
fn browsers_own_attributes_do_not_make_a_check_unusual() {
    let usual = Pair::new().said().bytes();
    // GOOG_NETWORK_INFO; signatures are not looked at by the parser.
    let with = |kind: [u8; 2]| {
        let mut bytes = usual.clone();
        let at = usual.len() - INTEGRITY - FINGERPRINTED;
        bytes.splice(at..at, [kind[0], kind[1], 0, 4, 0, 1, 0, 10]);
        bytes[3] += 8;
        let end = bytes.len() - FINGERPRINTED;
        let right = fingerprint(&bytes[..end]);
        bytes[end + 4..].copy_from_slice(&right);
        Request::parse(&bytes).is_some()
    };
    assert!(with([0xc0, 0x57]));
    assert!(!with([0x7f, 0xff]), "one that must be understood");
    assert!(!with([0x80, 0x22]), "one with rules of its own");
}

proptest! {
    #[test]
    fn forged_and_truncated_requests_get_nothing(
        at in any::<prop::sample::Index>(), bit in 0..8, cut in any::<prop::sample::Index>(),
    ) {
        let mut pair = Pair::new();
        pair.asked(&pair.said().bytes(), v4(4000));
        let bytes = pair.said().bytes();
        let mut forged = bytes.clone();
        forged[at.index(bytes.len())] ^= 1u8 << bit;
        prop_assert!(pair.again(&forged, v4(4000)).is_none());
        // Even with the fingerprint of what it says now, which needs no key.
        let end = bytes.len() - FINGERPRINTED;
        let right = fingerprint(&forged[..end]);
        forged[end + 4..].copy_from_slice(&right);
        prop_assert!(forged == bytes || pair.again(&forged, v4(4000)).is_none());
        prop_assert!(pair.again(&bytes[..cut.index(bytes.len())], v4(4000)).is_none());
        prop_assert!(pair.again(&bytes, v4(4000)).is_some());
    }

    #[test]
    fn any_bytes_are_borne(
        mut bytes in prop::collection::vec(any::<u8>(), 20..200),
        kinds in prop::collection::vec((0usize..8, 0u8..30), 0..8),
    ) {
        let _ = Request::parse(&bytes);
        bytes.truncate(20);
        let names = [USERNAME, MESSAGE_INTEGRITY, PRIORITY, USE_CANDIDATE, ICE_CONTROLLING];
        for (kind, len) in kinds {
            let kind = names.get(kind).copied().unwrap_or_else(|| 0xc000 | u16::from(len));
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, len]);
            bytes.extend(std::iter::repeat_n(1, usize::from(len).next_multiple_of(4)));
        }
        bytes.splice(..8, [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        let len = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let right = fingerprint(&bytes);
        bytes.extend([&FINGERPRINT_HEAD[..], &right].concat());
        bytes[2..4].copy_from_slice(&(len + 8).to_be_bytes());
        if let Some(request) = Request::parse(&bytes) {
            // What is taken here, the agent would take too.
            let check = Check::parse(&bytes);
            if request.username().contains(&b':') && let Ok(check) = check {
                prop_assert!(request.username().starts_with(check.ufrag().as_bytes()));
            }
        }
    }
}
