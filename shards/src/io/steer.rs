//! Steering: which of the sockets on a shared port gets a datagram.
//!
//! The shards' sockets share one address (SO_REUSEPORT), and the kernel would choose among
//! them by a hash of the addresses, which knows nothing of sessions. Two programs for it know
//! better, by what they find first:
//!
//! 1. a map from the peer's address to the shard that owns its session (eBPF only);
//! 2. in a STUN binding request, the first character of USERNAME. That is our own ufrag's, and
//!    our ufrags begin with the letter of their shard ([`letter`]);
//! 3. the kernel's hash.
//!
//! And what can wait apart ([`PATIENT`]), where each shard has a second socket for it: nobody
//! hurries for what most viewers send most of the time, and a shard need not be woken for each.
//!
//! Invariants: steering is an optimisation; a datagram on the wrong shard is mailed to its
//! owner. Sockets are given in the order they were bound in, which is the order of shards, and
//! live as long as the process: closing one would renumber the others.
//!
//! Not here: what shards do with strays, and who opens the sockets (`lanes`).

mod cbpf;
mod ebpf;
mod ebpf_asm;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::socket::Socket;
use crate::ids::ShardId;
use ebpf::FlowMap;

/// Shards that can share a port: as many as there are letters. A machine with more cores
/// uses a port per shard.
pub const SHARDS_MAX: usize = 64;

/// The letters, by shard: those that ICE allows in a ufrag (RFC 8839, 5.4).
pub const LETTERS: &[u8; SHARDS_MAX] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What the ufrags of `shard` begin with; `None` beyond [`SHARDS_MAX`].
pub fn letter(shard: ShardId) -> Option<char> {
    LETTERS.get(shard.index()).map(|&letter| char::from(letter))
}

/// The shard whose ufrags begin with `letter`.
pub fn shard_of(letter: char) -> Option<ShardId> {
    let index = LETTERS.iter().position(|&known| char::from(known) == letter)?;
    u8::try_from(index).ok().map(ShardId)
}

/// How datagrams are steered, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By a map of peers, then by ufrag. Needs CAP_BPF and CAP_NET_ADMIN, or root.
    EBpf,
    /// STUN by ufrag, everything else by hash. Needs no rights.
    CBpf,
    /// By the kernel's hash.
    Hash,
}

/// Why steering is not better than it is. Displays as one sentence for the operator.
#[derive(Debug)]
pub enum Refusal {
    /// More shards than letters.
    TooManyShards(usize),
    /// The kernel refused.
    Kernel {
        /// What was wanted.
        kind: Kind,
        /// What it said.
        cause: io::Error,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyShards(n) => {
                write!(f, "at most {SHARDS_MAX} shards can share a port, not {n}")
            }
            Self::Kernel { kind: Kind::EBpf, cause } => {
                write!(f, "steering by eBPF is not possible ({cause}); it needs CAP_BPF")
            }
            Self::Kernel { cause, .. } => write!(f, "steering by ufrag is not possible ({cause})"),
        }
    }
}

/// Sockets that share an address. All were bound in this order: first those for everything, in the
/// order of shards; then those for what can wait, of every shard or of none.
#[derive(Debug, Default)]
pub struct Group<'a> {
    /// For what somebody waits for, and where there is no second socket for everything.
    pub urgent: Vec<&'a Socket>,
    /// For what can wait.
    pub patient: Vec<&'a Socket>,
}

/// A shared port's steering. One per node; shards share it by reference.
#[derive(Debug)]
pub struct Steering {
    kind: Kind,
    refusal: Option<Refusal>,
    flows: Option<FlowMap>,
    parts: bool,
}

impl Steering {
    /// Steers among the sockets of each group as well as the kernel allows and no better than
    /// `best`. Never fails: see [`refusal`](Self::refusal). Sockets for what can wait get it only by
    /// [`Kind::EBpf`], and anything by whatever else: ask [`parts`](Self::parts).
    pub fn attach(groups: &[Group<'_>], best: Kind) -> Self {
        let mut steering = Self { kind: Kind::Hash, refusal: None, flows: None, parts: false };
        let shards = groups.iter().map(|group| group.urgent.len()).max().unwrap_or(0);
        if best == Kind::Hash {
            return steering;
        }
        if shards > SHARDS_MAX {
            steering.refusal = Some(Refusal::TooManyShards(shards));
            return steering;
        }
        if best == Kind::EBpf {
            match ebpf::attach(groups) {
                Ok(flows) => {
                    let parts = groups.iter().any(|group| !group.patient.is_empty());
                    return Self { kind: Kind::EBpf, refusal: None, flows: Some(flows), parts };
                }
                Err(cause) => {
                    steering.refusal = Some(Refusal::Kernel { kind: Kind::EBpf, cause });
                }
            }
        }
        // Any member will do: the program belongs to the group.
        let mut members = groups.iter().filter_map(|group| group.urgent.first());
        match members.try_for_each(|member| cbpf::steer(member)) {
            Ok(()) => steering.kind = Kind::CBpf,
            Err(cause) => steering.refusal = Some(Refusal::Kernel { kind: Kind::CBpf, cause }),
        }
        steering
    }

    /// How datagrams are steered.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether sockets for what can wait get that, and nothing else.
    pub fn parts(&self) -> bool {
        self.parts
    }

    /// Why not better, if better was asked for.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// From now on what comes from `source` belongs to `shard`. Bounded: the peers heard of
    /// least recently are forgotten. False if the kernel keeps no such map. A system call.
    pub fn learn(&self, source: SocketAddr, shard: ShardId) -> bool {
        self.flows.as_ref().is_some_and(|flows| flows.learn(source, shard).is_ok())
    }

    /// `shard` has no more to do with `source`. If another shard has learnt it meanwhile, that
    /// stays. False if there was nothing to forget.
    pub fn forget(&self, source: SocketAddr, shard: ShardId) -> bool {
        self.flows.as_ref().is_some_and(|flows| flows.forget(source, shard).is_ok())
    }
}

/// Leads what can wait to the second of two sockets on one address, bound in this order. Needs no
/// rights.
pub fn part(group: &Group<'_>) -> io::Result<()> {
    group.urgent.first().map_or(Ok(()), |member| cbpf::part(member))
}

/// Leads datagrams of links (`relay::wire`) to the shard that they name, and all others to the hub.
/// The address of `member` is shared by the hub's socket and then one of each shard, bound in this
/// order. Needs no rights.
pub fn links(member: &Socket) -> io::Result<()> {
    cbpf::links(member)
}

/// Whether this process may use bpf(2) for steering, without changing anything.
pub fn ebpf_allowed() -> io::Result<()> {
    ebpf::probe()
}

/// The letters as ranges of character codes: first, last, and the shard of the first. In
/// ascending order of codes, for the programs' chains of comparisons.
const LETTER_RANGES: [(u8, u8, u8); 5] =
    [(b'+', b'+', 62), (b'/', b'/', 63), (b'0', b'9', 52), (b'A', b'Z', 0), (b'a', b'z', 26)];

/// What nobody hurries for, by its first four bytes, which encryption leaves readable (RFC 3711,
/// 3.4). The last two say how long it is: what is longer has something else behind it, a request
/// for repairs in the same compound, or datagrams that the kernel glued to it (GRO).
#[derive(Debug, Clone, Copy)]
struct Patient {
    /// Of the first two bytes, the bits that tell, and their value.
    bits: u16,
    value: u16,
    /// The length it tells is this power of two of bytes, and it has at most so many more.
    unit: u8,
    rest: u8,
}

/// After the only packet of an SRTCP compound, which counts itself in words less one: index and tag
/// (RFC 3711, 3.4; RFC 7714, 9.2).
const RTCP_REST: u8 = 4 + 4 + 16;

/// A receiver report alone; transport-wide feedback, format 15, alone; a STUN binding request, by
/// which clients check their paths every few seconds. (RFC 3550, 6.4.2; RFC 4585, 6.1; RFC 8489, 5.)
const PATIENT: [Patient; 3] = [
    Patient { bits: 0xc0ff, value: 0x8000 | 201, unit: 2, rest: RTCP_REST },
    Patient { bits: 0xdfff, value: 0x8f00 | 205, unit: 2, rest: RTCP_REST },
    Patient { bits: 0xffff, value: STUN_BINDING_REQUEST, unit: 0, rest: STUN_HEADER_BYTES as u8 },
];

/// The first two bytes of a link's datagram (`relay::wire`): those bits that tell, and their value.
/// Eight or nine, by its key phase, and then the shard.
const LINK_BITS: u16 = 0xfe00;
const LINK_VALUE: u16 = 0x0800;

/// Attributes of a STUN message in which USERNAME is looked for. It is among the first five
/// with every browser; unrolled loops cost instructions only when run.
const ATTRIBUTES_MAX: usize = 10;

// RFC 8489, 5 and 14.3; RFC 8445.
const STUN_HEADER_BYTES: i32 = 20;
const STUN_BINDING_REQUEST: u16 = 0x0001;
const STUN_COOKIE: u32 = 0x2112_a442;
const STUN_USERNAME: u16 = 0x0006;
