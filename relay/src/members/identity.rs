//! Who a node is: what it tells the others about itself.
//!
//! Invariants: an identity that [`Identity::is_sane`] refuses reaches no table; of two
//! identities at one address exactly one wins, and both nodes say which.
//!
//! Not here: what changes while a node runs (`loads`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The number of one run of a node: random, so that a restart gets another.
///
/// 32 bits, because session ids carry it: of their 128 bits 8 name a shard, 24 a slot and 64
/// must be random. Among 1,000 nodes the chance that any two have the same is one in 8,600, so
/// it is detected, and the later one takes another (`Members`). Zero is nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl NodeId {
    /// How many bits of a session id name the node.
    pub const BITS: u32 = 32;
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node({self})")
    }
}

/// What all nodes know of a node. About 40 bytes on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub node: NodeId,
    /// What datagrams for this run of the node are bound to (see `envelope`).
    pub cookie: [u8; 8],
    /// Where its cluster socket is reached.
    pub address: SocketAddr,
    /// Decides between identities of one address: the higher one is the present one. Starts as
    /// the wall clock in milliseconds, and is raised above whatever the others knew before, so
    /// that no clock needs to be right.
    pub rank: u64,
    /// How many shards it has, 1 to 255.
    pub shards: u8,
    /// The UDP port of its first shard's media links; 0 if it has none.
    pub link_port: u16,
    /// The newest protocol version it speaks.
    pub version: u16,
    /// What it can do, a bit each; unknown bits are ignored.
    pub caps: u16,
}

impl Identity {
    /// Whether a node can be like this. Only a node with a fault sends anything else.
    pub fn is_sane(&self) -> bool {
        self.node.0 != 0 && self.shards != 0 && can_be_sent_to(self.address)
    }

    /// Of two nodes with one number, the one that is to keep it: both agree on which.
    pub(super) fn keeps_number_against(&self, other: &Self) -> bool {
        (self.rank, self.address) < (other.rank, other.address)
    }
}

impl foca::Identity for Identity {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        // At the end of the range there is nothing higher; the node must be started anew.
        Some(Self { rank: self.rank.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.rank, self.node, self.cookie) > (other.rank, other.node, other.cookie)
    }
}

/// Addresses are of no use in logs, and cookies less so.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "identity({}/{})", self.node, self.rank)
    }
}

/// Whether datagrams may go to this address at all.
pub(crate) fn can_be_sent_to(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity as _;

    fn identity() -> Identity {
        Identity {
            node: NodeId(7),
            cookie: [1; 8],
            address: "192.0.2.1:4700".parse().unwrap(),
            rank: 1_790_000_000_000,
            shards: 16,
            link_port: 4701,
            version: 1,
            caps: 0,
        }
    }

    #[test]
    fn a_renewed_identity_wins_over_the_old_one_and_never_both() {
        let old = identity();
        let new = old.renew().unwrap();
        assert!(new.win_addr_conflict(&old) && !old.win_addr_conflict(&new));
        let twin = Identity { node: NodeId(8), ..identity() };
        assert_ne!(twin.win_addr_conflict(&old), old.win_addr_conflict(&twin));
        assert_eq!(Identity { rank: u64::MAX, ..old }.renew(), None);
    }

    #[test]
    fn an_identity_that_cannot_be_is_not_sane() {
        assert!(identity().is_sane());
        for address in ["0.0.0.0:1", "192.0.2.1:0", "224.0.0.1:9", "[ff02::1]:9", "[::]:9"] {
            assert!(!Identity { address: address.parse().unwrap(), ..identity() }.is_sane());
        }
        let broadcast = "255.255.255.255:9".parse().unwrap();
        assert!(!Identity { address: broadcast, ..identity() }.is_sane());
        assert!(!Identity { node: NodeId(0), ..identity() }.is_sane());
        assert!(!Identity { shards: 0, ..identity() }.is_sane());
    }

    #[test]
    fn an_identity_is_about_40_bytes_on_the_wire_and_shows_no_address() {
        assert!(postcard::to_allocvec(&identity()).unwrap().len() <= 40);
        assert!(!format!("{:?}", identity()).contains("192.0.2.1"));
    }
}
