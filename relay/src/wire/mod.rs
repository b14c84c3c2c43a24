//! The bytes of the media plane: datagrams between one shard of a node and one of another.
//!
//! A datagram is a [`header`] in the clear, then [`record`]s, sealed. Everything is big-endian.
//!
//! ```text
//!  0     1          2          3        6           12                        12+n     28+n
//!  ┌─────┬──────────┬──────────┬────────┬───────────┬──────────────────────────┬────────┐
//!  │type │dst shard │src shard │link id │ number    │ records, then zeros (n)  │ tag    │
//!  └─────┴──────────┴──────────┴────────┴───────────┴──────────────────────────┴────────┘
//! ```
//!
//! Invariants: parsing never panics and never allocates, whatever the bytes; what it lends lies
//! within them.
//!
//! Not here: keys (`seal`), what records do (`link`).

mod bytes;
pub mod feedback;
pub mod header;
pub mod record;

use std::fmt;

pub use feedback::{Feedback, MissingRun};
pub use header::{HEADER_LEN, Header};
pub use record::{Clock, Fragment, Media, Record, Records};

/// Bytes that sealing adds behind the records.
pub const TAG_LEN: usize = 16;

/// What a datagram has besides its records.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The largest datagram we write, in bytes of UDP payload: an Ethernet frame of 1,500 bytes
/// less the headers of IPv4 and UDP.
pub const DATAGRAM_MAX: usize = 1472;

/// What a path carries until told otherwise: an Ethernet frame less 100 bytes for tunnels, and
/// the headers of IPv6 and UDP.
pub const DATAGRAM_USUAL: usize = 1352;

/// The smallest a path may claim to carry. RFC 791, 3.1, has every host accept 576 bytes with all
/// headers, and networks carry but 68 unfragmented; those that carry media carry more. Less
/// would cut a packet into more fragments than are put together again.
pub const DATAGRAM_MIN: usize = 512;

/// The longest media record. Publishers send packets of up to a datagram of 1,500 bytes; what is
/// longer than this no publisher can have sent.
pub const RECORD_MAX: usize = 4096;

/// A link, as its receiver names it: 24 bits, chosen by the receiver, unique at its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u32);

/// One track on a link, as the receiver of its packets names it: 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u32);

impl LinkId {
    /// `None` above 24 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id <= U24_MAX { Some(Self(id)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl LaneId {
    /// `None` above 24 bits.
    pub const fn new(id: u32) -> Option<Self> {
        if id <= U24_MAX { Some(Self(id)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}", self.0)
    }
}

/// The bytes are not what their type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed relay datagram")
    }
}

impl std::error::Error for Malformed {}

const U24_MAX: u32 = 0xff_ffff;
/// 48 bits: sequence numbers, numbers of datagrams, and times in µs.
pub(crate) const U48_MAX: u64 = 0xffff_ffff_ffff;
