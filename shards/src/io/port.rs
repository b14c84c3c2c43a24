//! The packet port: how a shard's datagrams come and go.
//!
//! Two implementations pass the same tests: `ring` owns an io_uring (multishot receive into
//! provided buffers, sends submitted together), `mmsg` uses recvmmsg and sendmmsg and runs
//! where a kernel or a container forbids rings. Both use GRO and GSO, which is where the
//! speed is.
//!
//! Invariants: nothing here blocks. Received bytes are lent for one call. A datagram that
//! cannot be sent is dropped and counted, and never keeps a later one from being sent.
//!
//! Not here: what the datagrams mean.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use super::mmsg::MmsgPort;
use super::ring::RingPort;
use super::socket::Sockets;
use crate::outbox::{Outbox, RUN_DATAGRAMS_MAX};

/// One datagram, lent until the callback returns.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The peer.
    pub source: SocketAddr,
    /// The address of ours that the peer sent it to.
    pub local: SocketAddr,
    /// When the kernel had it: wall clock, since 1970. What arrived together may tell the time of
    /// its first.
    pub arrived: Option<Duration>,
    /// The datagram; may be decrypted in place.
    pub bytes: &'a mut [u8],
}

/// What a call of [`Port::receive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Datagrams delivered.
    pub count: usize,
    /// Whether nothing more was there. If not, the budget ran out: call again before waiting.
    pub drained: bool,
}

/// A shard's way to its peers. Belongs to one thread, on which it was opened.
pub trait Port: fmt::Debug {
    /// Delivers up to `budget` datagrams that have arrived, without waiting. Aggregates the
    /// kernel glued together (GRO) come one datagram at a time.
    fn receive(&mut self, budget: usize, each: &mut dyn FnMut(Arrival<'_>)) -> Received;

    /// Hands everything in `outbox` to the kernel. Afterwards the outbox may be cleared: what
    /// the kernel did not take by then is dropped and counted.
    fn send(&mut self, outbox: &Outbox);

    /// Ready when [`receive`](Self::receive) may find something; now and then it finds nothing.
    /// Cheap to give up and take up again: what waits in the kernel stays. Only inside a
    /// glommio executor.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// What was done so far.
    fn counters(&self) -> PortCounters;

    /// The addresses the sockets are bound to, IPv4 first.
    fn locals(&self) -> [Option<SocketAddr>; 2];
}

/// Waits until `port` may have something to receive.
pub async fn readable(port: &mut dyn Port) {
    poll_fn(|cx| port.poll_readable(cx)).await;
}

/// Which implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// An io_uring of its own.
    Ring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Mmsg => "mmsg",
        })
    }
}

/// Opens a port that costs least when what it receives is fetched now and then.
pub fn open_patient(sockets: Sockets) -> Box<dyn Port> {
    Box::new(MmsgPort::new(sockets))
}

/// Opens a port over `sockets`, on the thread that will use it. Hands the sockets back with
/// the refusal, so that the caller may try the other kind.
pub fn open(kind: PortKind, sockets: Sockets) -> Result<Box<dyn Port>, (PortError, Sockets)> {
    match kind {
        PortKind::Ring => Ok(Box::new(RingPort::open(sockets)?)),
        PortKind::Mmsg => Ok(Box::new(MmsgPort::new(sockets))),
    }
}

/// Why a port could not be opened. Displays as one sentence for the operator.
#[derive(Debug)]
pub enum PortError {
    /// The kernel, or a container's policy, allows no io_uring.
    RingForbidden,
    /// The kernel's io_uring lacks what we need; Linux 6.1 has all of it.
    RingTooOld {
        /// What it lacks.
        lacks: &'static str,
    },
    /// Anything else, usually a limit on locked memory or open files.
    Os {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingForbidden => {
                write!(f, "io_uring is forbidden here (seccomp or kernel.io_uring_disabled)")
            }
            Self::RingTooOld { lacks } => {
                write!(f, "this kernel's io_uring has no {lacks}; Linux 6.1 or newer has")
            }
            Self::Os { step, cause } => write!(f, "io_uring: cannot {step}: {cause}"),
        }
    }
}

impl std::error::Error for PortError {}

/// A message counts below the first of these that its datagrams do not exceed.
pub const RUN_BOUNDS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

const _: () = assert!(RUN_BOUNDS[RUN_BOUNDS.len() - 1] == RUN_DATAGRAMS_MAX, "all are counted");

/// What a port did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Datagrams delivered.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Messages they came in: fewer than datagrams where GRO glued some together.
    pub messages_in: u64,
    /// Datagrams the kernel took.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Messages they went out in: fewer than datagrams where GSO carried several.
    pub messages_out: u64,
    /// The messages that went out, by how many datagrams they carried: see [`RUN_BOUNDS`].
    pub runs_out: [u64; RUN_BOUNDS.len()],
    /// Datagrams that went out by GSO, several in a message.
    pub gso_datagrams: u64,
    /// Times a send was tried again because the kernel had no room.
    pub retries: u64,
    /// Times the kernel refused GSO; afterwards that socket does without.
    pub gso_refusals: u64,
    /// Datagrams not delivered, by reason.
    pub drops_in: DropsIn,
    /// Datagrams not sent, by reason.
    pub drops_out: DropsOut,
    /// Whether every socket still sends by GSO.
    pub gso: bool,
    /// Whether every socket receives by GRO.
    pub gro: bool,
}

impl PortCounters {
    /// Both ports' together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.datagrams_in += other.datagrams_in;
        self.bytes_in += other.bytes_in;
        self.messages_in += other.messages_in;
        self.datagrams_out += other.datagrams_out;
        self.bytes_out += other.bytes_out;
        self.messages_out += other.messages_out;
        self.runs_out.iter_mut().zip(other.runs_out).for_each(|(runs, more)| *runs += more);
        self.gso_datagrams += other.gso_datagrams;
        self.retries += other.retries;
        self.gso_refusals += other.gso_refusals;
        self.drops_in.kernel += other.drops_in.kernel;
        self.drops_in.unusable += other.drops_in.unusable;
        self.drops_out.full += other.drops_out.full;
        self.drops_out.no_socket += other.drops_out.no_socket;
        self.drops_out.unreachable += other.drops_out.unreachable;
        self.drops_out.refused += other.drops_out.refused;
        self.gso &= other.gso;
        self.gro &= other.gro;
        self
    }

    /// Each of [`RUN_BOUNDS`], with the messages out that count below it.
    pub fn runs(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        RUN_BOUNDS.into_iter().zip(self.runs_out)
    }
}

/// Datagrams not delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropsIn {
    /// The receive buffer was full: the shard was too slow, or the buffer is too small.
    pub kernel: u64,
    /// Messages without content, without a usable source, or cut short.
    pub unusable: u64,
}

/// Datagrams not sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropsOut {
    /// The kernel's send buffer stayed full.
    pub full: u64,
    /// No socket of the destination's address family.
    pub no_socket: u64,
    /// The kernel knows no way there, or a firewall forbids it.
    pub unreachable: u64,
    /// The kernel refused for any other reason.
    pub refused: u64,
}

impl DropsOut {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.no_socket + self.unreachable + self.refused
    }
}
