//! The first message on a connection: who speaks, and how.
//!
//! ```text
//! newest version (16) | oldest version (16) | fields
//! ```
//!
//! Both sides speak the newest version that both know. A node of version N speaks N-1 too, so
//! that a cluster can be updated one node at a time. Later versions may add fields at the end;
//! the versions themselves stay where they are.
//!
//! Invariants: what [`Hello::parse`] accepts has a number, and at most as many links as shards.
//!
//! Not here: what becomes of a connection whose hello is refused (`duel`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ControlFault;
use crate::members::{NodeId, can_be_sent_to};

/// The protocol's version that this program speaks.
pub const VERSION: u16 = 1;

/// A hello is longest with 255 links on IPv6.
pub(super) const HELLO_MAX: usize = 8 * 1024;

/// From the oldest to the newest version that a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub oldest: u16,
    pub newest: u16,
}

impl Versions {
    /// Those of a program of this version: it and the one before.
    pub fn of(version: u16) -> Self {
        Self { oldest: version.saturating_sub(1).max(1), newest: version }
    }

    /// The newest that both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.newest.to_be_bytes(), self.oldest.to_be_bytes());
        [a, b, c, d]
    }

    /// Reads them from the front of a hello, or from the reason of a close.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let (newest, oldest) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (oldest <= newest).then_some(Self { oldest, newest })
    }
}

/// What a node says of itself on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) node: NodeId,
    /// Whom the speaker thinks it speaks to.
    pub(super) to: NodeId,
    /// Of the caller: names the connection, and counts its calls. The answer repeats both.
    pub(super) epoch: u64,
    pub(super) call: u64,
    /// The connection to the other that the speaker had last, 0 if none.
    pub(super) known: u64,
    pub(super) caps: u16,
    pub(super) shards: u8,
    /// Where each shard's media links are reached; none if the node has none.
    pub(super) links: Vec<SocketAddr>,
    /// What the other is to write on the media datagrams it sends here.
    pub(super) link_id: u32,
    pub(super) draining: bool,
}

impl Hello {
    pub(super) fn write(&self, versions: Versions) -> Vec<u8> {
        let head = versions.to_bytes().to_vec();
        postcard::to_extend(self, head).expect("none of the types cannot be written")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<(Versions, Self), ControlFault> {
        let versions = Versions::parse(bytes).ok_or(ControlFault::Malformed)?;
        let (hello, _): (Self, _) =
            postcard::take_from_bytes(&bytes[4..]).map_err(|_| ControlFault::Malformed)?;
        if hello.node.0 == 0 || hello.shards == 0 || hello.epoch == 0 {
            return Err(ControlFault::Malformed);
        }
        if hello.links.len() > usize::from(hello.shards) || hello.link_id > LINK_ID_MAX {
            return Err(ControlFault::Malformed);
        }
        // Media would go there.
        if !hello.links.iter().copied().all(can_be_sent_to) {
            return Err(ControlFault::Malformed);
        }
        Ok((versions, hello))
    }
}

/// A link id is three bytes on media datagrams.
pub(super) const LINK_ID_MAX: u32 = (1 << 24) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            node: NodeId(7),
            to: NodeId(8),
            epoch: 9,
            call: 1,
            known: 0,
            caps: 3,
            shards: 255,
            links: vec!["[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); 255],
            link_id: LINK_ID_MAX,
            draining: false,
        }
    }

    #[test]
    fn the_longest_hello_comes_back_and_a_later_one_is_read_too() {
        let mut bytes = hello().write(Versions::of(4));
        assert!(bytes.len() <= HELLO_MAX);
        bytes.extend_from_slice(b"a field of a later version");
        assert_eq!(Hello::parse(&bytes), Ok((Versions { oldest: 3, newest: 4 }, hello())));
    }

    #[test]
    fn a_node_speaks_with_its_version_and_its_neighbours() {
        let common = |a, b| Versions::of(a).common(Versions::of(b));
        assert_eq!(common(5, 5), Some(5));
        assert_eq!((common(5, 4), common(4, 5)), (Some(4), Some(4)));
        assert_eq!((common(5, 3), common(3, 5)), (None, None));
        assert_eq!(Versions::of(1), Versions { oldest: 1, newest: 1 });
    }

    #[test]
    fn a_hello_that_cannot_be_is_malformed() {
        let wrong = [
            Hello { node: NodeId(0), ..hello() },
            Hello { shards: 254, ..hello() },
            Hello { epoch: 0, ..hello() },
            Hello { link_id: LINK_ID_MAX + 1, ..hello() },
            Hello { links: vec!["0.0.0.0:1".parse().unwrap()], ..hello() },
        ];
        for hello in wrong {
            let bytes = hello.write(Versions::of(1));
            assert_eq!(Hello::parse(&bytes), Err(ControlFault::Malformed));
        }
        assert_eq!(Versions::parse(&[0, 1, 0, 2]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_a_fault(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Hello::parse(&bytes);
        }
    }
}
