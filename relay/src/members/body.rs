//! The messages inside the envelope: SWIM's own, and those that it lacks.
//!
//! ```text
//!  A (knows an address)                     B
//!  ---- Hello: who I am, a nonce --------->       changes nothing at B
//!  <--- Welcome: who I am, your nonce, ----       bound to A's cookie, sent to A's address
//!       who I thought you were
//!  ---- Swim: Announce ------------------->       bound to B's cookie: the join proper
//!
//!  ---- Digest: how many I know, a hash -->       every 10 s, to one at random
//!  <--- State: all I know (if it differs) -       in as many datagrams as it takes
//!  ---- State: all I know ---------------->
//! ```
//!
//! Invariants: what [`Body::parse`] accepts fits the tables; a Hello is never shorter than the
//! Welcome that answers it.
//!
//! Not here: what they mean (`Members`); the bytes of SWIM itself (foca's, checked by
//! [`Inside::parse`] before foca sees them).

use foca::{Header, Member, Message};
use serde::{Deserialize, Serialize};

use super::envelope::{DATAGRAM_MAX, OVERHEAD};
use super::identity::Identity;
use super::loads::LoadItem;
use super::{MemberFault, loads};

/// What a body may take.
pub(super) const BODY_MAX: usize = DATAGRAM_MAX - OVERHEAD;

/// What foca may fill: the rest is for loads, 20 bytes each at most, and lengths.
pub(super) const SWIM_MAX: usize = BODY_MAX - loads::PER_DATAGRAM * 20 - 8;

/// A Hello is padded to this. A Welcome has two identities of at most 54 bytes.
const HELLO_LEN: usize = 160;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body<'a> {
    Hello(Hello),
    Welcome(Welcome),
    Swim {
        #[serde(borrow)]
        swim: &'a [u8],
        loads: Vec<LoadItem>,
    },
    Digest {
        from: Identity,
        digest: Digest,
    },
    State {
        from: Identity,
        /// The sender wants ours in return.
        ask: bool,
        members: Vec<Member<Identity>>,
        loads: Vec<LoadItem>,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) identity: Identity,
    pub(super) nonce: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) identity: Identity,
    pub(super) nonce: u64,
    /// Whom the sender knew at the greeter's address, if it was not just the greeter.
    pub(super) known: Option<Identity>,
    /// Another node has the greeter's number.
    pub(super) taken: bool,
}

/// What two nodes compare to see whether they know the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    pub(super) count: u16,
    pub(super) hash: u64,
}

impl<'a> Body<'a> {
    pub(super) fn parse(plain: &'a [u8]) -> Result<Self, MemberFault> {
        // What follows is padding, or of a later version.
        let (body, _) =
            postcard::take_from_bytes::<Self>(plain).map_err(|_| MemberFault::Malformed)?;
        let sane = match &body {
            Self::Hello(hello) => hello.identity.is_sane() && plain.len() >= HELLO_LEN,
            Self::Welcome(welcome) => welcome.identity.is_sane(),
            Self::Swim { loads, .. } => loads.len() <= loads::PER_DATAGRAM,
            Self::Digest { from, .. } => from.is_sane(),
            Self::State { from, members, .. } => {
                from.is_sane() && members.iter().all(|member| member.id().is_sane())
            }
        };
        if sane { Ok(body) } else { Err(MemberFault::Malformed) }
    }

    /// Writes it to `out`, which is cleared.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let written = postcard::to_extend(self, std::mem::take(out));
        *out = written.expect("none of the types has a part that cannot be written");
        if matches!(self, Self::Hello(_)) && out.len() < HELLO_LEN {
            out.resize(HELLO_LEN, 0);
        }
    }
}

/// What of a SWIM message is looked at before foca sees it.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) header: Header<Identity>,
    pub(super) members: Vec<Member<Identity>>,
}

impl Inside {
    pub(super) fn parse(swim: &[u8]) -> Result<Self, MemberFault> {
        if swim.len() > SWIM_MAX {
            return Err(MemberFault::Malformed);
        }
        let (header, mut rest): (Header<Identity>, _) =
            postcard::take_from_bytes(swim).map_err(|_| MemberFault::Malformed)?;
        let mut members = Vec::new();
        let count = match (&header.message, rest) {
            (Message::Broadcast, _) | (_, [] | [_]) => 0,
            (_, &[high, low, ref after @ ..]) => {
                rest = after;
                usize::from(u16::from_be_bytes([high, low]))
            }
        };
        for _ in 0..count {
            let (member, after) =
                postcard::take_from_bytes(rest).map_err(|_| MemberFault::Malformed)?;
            members.push(member);
            rest = after;
        }
        let inside = Self { header, members };
        if inside.identities().all(Identity::is_sane) {
            Ok(inside)
        } else {
            Err(MemberFault::Malformed)
        }
    }

    /// All that are named in it.
    fn identities(&self) -> impl Iterator<Item = &Identity> {
        let named = match &self.header.message {
            Message::PingReq { target, .. } | Message::IndirectAck { target, .. } => Some(target),
            Message::IndirectPing { origin, .. } | Message::ForwardedAck { origin, .. } => {
                Some(origin)
            }
            Message::Ping(_)
            | Message::Ack(_)
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => None,
        };
        let ends = [&self.header.src, &self.header.dst];
        ends.into_iter().chain(named).chain(self.members.iter().map(Member::id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::identity;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_welcome_is_never_longer_than_the_hello() {
        let mut longest = identity(1);
        longest.address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        longest.node.0 = u32::MAX;
        longest.rank = u64::MAX;
        (longest.link_port, longest.version, longest.caps) = (u16::MAX, u16::MAX, u16::MAX);
        let mut hello = Vec::new();
        Body::Hello(Hello { identity: identity(1), nonce: 0 }).write(&mut hello);
        let mut welcome = Vec::new();
        let known = Some(longest.clone());
        Body::Welcome(Welcome { identity: longest, nonce: u64::MAX, known, taken: true })
            .write(&mut welcome);
        assert!(welcome.len() <= hello.len(), "{} > {}", welcome.len(), hello.len());
    }

    #[test]
    fn bodies_come_back_as_they_were_and_a_short_hello_does_not() {
        let hello = || Hello { identity: identity(1), nonce: 7 };
        let mut bytes = vec![1, 2, 3];
        Body::Hello(hello()).write(&mut bytes);
        assert_eq!(Body::parse(&bytes), Ok(Body::Hello(hello())));
        assert_eq!(Body::parse(&bytes[..bytes.len() - 1]), Err(MemberFault::Malformed));
        let swim = || Body::Swim { swim: &[1, 2, 3], loads: Vec::new() };
        swim().write(&mut bytes);
        assert_eq!(Body::parse(&bytes), Ok(swim()));
    }

    #[test]
    fn an_identity_that_cannot_be_is_refused_wherever_it_is() {
        let mut wrong = identity(2);
        wrong.shards = 0;
        let mut bytes = Vec::new();
        let members = vec![Member::alive(identity(1)), Member::alive(wrong.clone())];
        Body::State { from: identity(3), ask: true, members, loads: Vec::new() }.write(&mut bytes);
        assert_eq!(Body::parse(&bytes), Err(MemberFault::Malformed));
        for message in [Message::Ping(1), Message::PingReq { target: wrong, probe_number: 1 }] {
            let refused = matches!(message, Message::PingReq { .. });
            let header = Header { src: identity(1), src_incarnation: 0, dst: identity(3), message };
            let bytes = postcard::to_allocvec(&header).unwrap();
            assert_eq!(Inside::parse(&bytes).is_err(), refused);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_body_or_a_fault(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(Body::Swim { swim, .. }) = Body::parse(&bytes) {
                let _ = Inside::parse(swim);
            }
            let _ = Inside::parse(&bytes);
        }
    }
}
