//! Ids are addresses: a session id and an ICE ufrag say which shard and slot own the session,
//! so that nobody needs a directory.
//!
//! Invariants: an id round-trips through its text; two sessions never share an id, because
//! 64 of its 128 bits are random, and a node that starts anew is another node.

use std::fmt;
use std::str::FromStr;

pub use relay::members::NodeId;
use serde::{Deserialize, Serialize};

/// A shard of this node, counted from 0. At most [`ShardId::MAX_SHARDS`] per node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u8);

impl ShardId {
    /// More cores than this in one box would need a second byte in ids and ufrags.
    pub const MAX_SHARDS: usize = 255;

    /// The shard as an index into per-shard tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A shard of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FarShard {
    pub node: NodeId,
    pub shard: ShardId,
}

/// An application, as an index into the node's configured applications. Authentication turns
/// the text in a request's path into one of these; sessions see only sessions of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppId(pub u16);

/// A session's address and name. On the wire: 32 lower-hex characters.
///
/// Layout, most significant first: node (32 bits), shard (8), slot (24), random (64).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(u128);

impl SessionId {
    /// Builds the id of the session in `slot` of `shard`; `random` makes it unguessable.
    pub fn new(node: NodeId, shard: ShardId, slot: u32, random: u64) -> Self {
        debug_assert!(slot < 1 << 24, "slots are bounded by limits::SESSIONS_PER_SHARD");
        Self(
            u128::from(node.0) << 96
                | u128::from(shard.0) << 88
                | u128::from(slot & 0xff_ffff) << 64
                | u128::from(random),
        )
    }

    /// The node that owns the session.
    pub fn node(self) -> NodeId {
        NodeId((self.0 >> 96) as u32)
    }

    /// The shard that owns the session.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 88) as u8)
    }

    /// Its shard, where it is that of another node.
    pub fn far_shard(self) -> FarShard {
        FarShard { node: self.node(), shard: self.shard() }
    }

    /// The slot in its shard's session arena.
    pub fn slot(self) -> u32 {
        (self.0 >> 64) as u32 & 0xff_ffff
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Shows only the address half: whole ids are as good as names of people in a log.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session({}/{}/{})", self.node(), self.shard(), self.slot())
    }
}

/// The text is not a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotASessionId;

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, NotASessionId> {
        let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !plain {
            return Err(NotASessionId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotASessionId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_says_where_its_session_lives() {
        let id = SessionId::new(NodeId(0xfedc_ba98), ShardId(3), 0x12_3456, 0xdead_beef);
        assert_eq!(
            (id.node(), id.shard(), id.slot()),
            (NodeId(0xfedc_ba98), ShardId(3), 0x12_3456)
        );
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 32);
    }

    #[test]
    fn text_that_is_no_session_id_is_refused() {
        for text in
            ["", "xyz", "+0000000000000000000000000000000", &"A".repeat(32), &"0".repeat(33)]
        {
            assert_eq!(text.parse::<SessionId>(), Err(NotASessionId), "{text}");
        }
    }
}
