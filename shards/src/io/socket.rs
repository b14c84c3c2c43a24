//! UDP sockets as the ports want them.
//!
//! Invariants: an IPv6 socket carries no IPv4 (one address, one socket, one reuseport group);
//! every socket reports the local address of what it receives and can be told which one to
//! send from, so that a wildcard bind still answers from the candidate the peer knows.
//! Sockets are *blocking*: io_uring waits for data only on those (with `O_NONBLOCK` it
//! answers EAGAIN at once, glommio's wait included). Nothing here ever blocks all the same,
//! because every call of ours carries `MSG_DONTWAIT`.
//!
//! Not here: TCP, and which shard a datagram is steered to (`steer`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, Protocol, Type};

use super::port::PortCounters;

/// Kernel buffer per direction. In: 30 ms of 2 Gbit/s, the time a shard may be busy
/// elsewhere without losing a datagram. Out: several full outboxes, so that a slow device
/// queue is felt as EAGAIN only when it is really stuck. What it costs is only what is queued.
const KERNEL_BUFFER_BYTES: usize = 8 << 20;

/// A bound UDP socket.
#[derive(Debug)]
pub struct Socket {
    inner: socket2::Socket,
    local: SocketAddr,
    gro: bool,
}

/// The sockets of one shard: one per address family, because a datagram's family chooses.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For IPv4 peers.
    pub v4: Option<Socket>,
    /// For IPv6 peers.
    pub v6: Option<Socket>,
}

impl Socket {
    /// Opens a socket on `address`. Others may be opened on the same address (that is how
    /// shards share a port), in this process and in any other of the same user: ask
    /// [`ensure_free`] once before.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let fail = |step| move |cause| BindError::new(address, step, cause);
        let inner = open(address).map_err(fail("open"))?;
        inner.set_reuse_port(true).map_err(fail("share the port of"))?;
        describe_arrivals(&inner, address).map_err(fail("set up"))?;
        inner.bind(&address.into()).map_err(fail("bind"))?;
        grow_buffers(&inner);
        // Since Linux 5.0; without it every datagram arrives by itself.
        let gro = set_option(&inner, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let local = inner.local_addr().map_err(fail("ask for the port of"))?;
        Ok(Self { inner, local: local.as_socket().unwrap_or(address), gro })
    }

    /// The address it is bound to, with the port the kernel chose if it was asked for port 0.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the kernel glues the datagrams of one sender together on receipt.
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// The receive buffer the kernel granted, in bytes. Less than 8 MiB means that
    /// `net.core.rmem_max` is low and we may not exceed it: worth a line at start-up.
    pub fn receive_buffer(&self) -> usize {
        // Linux reports twice what one may use, to account for its own overhead.
        self.inner.recv_buffer_size().unwrap_or(0) / 2
    }

    /// Datagrams the kernel dropped because our receive buffer was full, since the bind.
    pub(super) fn kernel_drops(&self) -> u64 {
        let mut info = [0u32; SK_MEMINFO_VARS];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: `info` is valid for writes of `len` bytes and outlives the call, and any
        // bit pattern is a valid u32.
        let status = unsafe {
            libc::getsockopt(
                self.inner.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if status == 0 { u64::from(info[SK_MEMINFO_DROPS]) } else { 0 }
    }

    /// Makes the kernel refuse GSO on this socket, the way a device without checksum offload
    /// does.
    #[cfg(test)]
    pub(super) fn refuse_gso(&self) {
        let options: &[_] = match self.local {
            SocketAddr::V4(_) => &[(libc::SOL_SOCKET, 11)], // SO_NO_CHECK
            // UDP_NO_CHECK6_TX, and _RX to receive such datagrams.
            SocketAddr::V6(_) => &[(libc::SOL_UDP, 101), (libc::SOL_UDP, 102)],
        };
        for &(level, option) in options {
            set_option(&self.inner, level, option, 1).expect("a plain option");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Sockets {
    /// Binds each of `addresses`; at most one per family is used.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut sockets = Self::default();
        for &address in addresses {
            let socket = Some(Socket::bind(address)?);
            match address {
                SocketAddr::V4(_) => sockets.v4 = socket,
                SocketAddr::V6(_) => sockets.v6 = socket,
            }
        }
        Ok(sockets)
    }

    /// What the sockets are bound to, IPv4 first.
    pub fn locals(&self) -> [Option<SocketAddr>; 2] {
        [&self.v4, &self.v6].map(|socket| socket.as_ref().map(Socket::local))
    }

    /// Adds to a port's own counters what only the kernel knows.
    pub(super) fn complete(&self, mut counters: PortCounters, gso: bool) -> PortCounters {
        let all = || self.v4.iter().chain(&self.v6);
        counters.drops_in.kernel = all().map(Socket::kernel_drops).sum();
        counters.gro = all().all(Socket::gro);
        counters.gso = gso;
        counters
    }
}

/// Whether nobody is bound to `address`. Because shards share ports, a second node started by
/// mistake would bind without an error and take half of the first one's datagrams.
pub fn ensure_free(address: SocketAddr) -> Result<(), BindError> {
    let socket = open(address).map_err(|cause| BindError::new(address, "open", cause))?;
    socket.bind(&address.into()).map_err(|cause| BindError::new(address, "bind", cause))
}

/// Why a socket could not be had. Displays as one sentence for the operator.
#[derive(Debug)]
pub enum BindError {
    /// Somebody else has the port.
    InUse(SocketAddr),
    /// We may not bind it, usually a port below 1024.
    NoRights(SocketAddr),
    /// No interface of this machine has the address.
    NotOurs(SocketAddr),
    /// The kernel has no such address family, usually IPv6 switched off.
    NoFamily(SocketAddr),
    /// Anything else.
    Os {
        /// The address wanted.
        address: SocketAddr,
        /// What was being done, as a verb before the address.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, step: &'static str, cause: io::Error) -> Self {
        match cause.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse(address),
            Some(libc::EACCES | libc::EPERM) => Self::NoRights(address),
            Some(libc::EADDRNOTAVAIL) => Self::NotOurs(address),
            Some(libc::EAFNOSUPPORT) => Self::NoFamily(address),
            _ => Self::Os { address, step, cause },
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(at) => write!(f, "UDP address {at} is in use by another program"),
            Self::NoRights(at) => write!(
                f,
                "no rights to bind UDP address {at}; ports below 1024 need CAP_NET_BIND_SERVICE"
            ),
            Self::NotOurs(at) => write!(f, "no interface of this machine has the address {at}"),
            Self::NoFamily(at) => write!(f, "this kernel cannot bind {at}: no such family"),
            Self::Os { address, step, cause } => {
                write!(f, "cannot {step} UDP address {address}: {cause}")
            }
        }
    }
}

impl std::error::Error for BindError {}

fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The destination and the time of each datagram on arrival, and no path MTU discovery.
///
/// Nobody probes paths here: what we send is about 1,200 bytes and fits nearly everywhere;
/// where it does not, fragments beat silence, so the don't-fragment bit stays off. `OMIT`
/// also makes the kernel ignore "fragmentation needed" messages. Anybody can forge those, and
/// a path MTU below our segment size would make it refuse GSO (EINVAL).
fn describe_arrivals(socket: &socket2::Socket, address: SocketAddr) -> io::Result<()> {
    use libc::{IPPROTO_IP, IPPROTO_IPV6};
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    match address {
        SocketAddr::V4(_) => {
            set_option(socket, IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_option(socket, IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
        }
        SocketAddr::V6(_) => {
            set_option(socket, IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_option(socket, IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)
        }
    }
}

/// As large as we may: over the system's limit with CAP_NET_ADMIN, up to it without.
fn grow_buffers(socket: &socket2::Socket) {
    let bytes = KERNEL_BUFFER_BYTES as c_int;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
    }
    if set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
    }
}

fn set_option(fd: &impl AsRawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: `value` is a live c_int and its size is what we say; the kernel only reads it.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// include/uapi/linux/sock_diag.h and asm-generic/socket.h; libc lacks them.
const SO_MEMINFO: c_int = 55;
const SK_MEMINFO_DROPS: usize = 8;
const SK_MEMINFO_VARS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_port_and_a_stranger_is_noticed() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = Socket::bind(any).unwrap();
        assert!(first.gro(), "Linux 5.0 or newer");
        let second = Socket::bind(first.local()).unwrap();
        assert_eq!(first.local(), second.local());
        assert!(matches!(ensure_free(first.local()), Err(BindError::InUse(_))));
        assert!(ensure_free(any).is_ok());
    }

    #[test]
    fn an_exclusive_owner_keeps_us_out_in_one_sentence() {
        let owner = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let refused = Socket::bind(owner.local_addr().unwrap()).unwrap_err();
        assert!(matches!(refused, BindError::InUse(_)));
        assert!(refused.to_string().ends_with("is in use by another program"));
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let refused = Socket::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(refused, BindError::NotOurs(_)), "{refused}");
    }

    #[test]
    fn v6_leaves_v4_alone() {
        let v6 = Socket::bind("[::]:0".parse().unwrap()).unwrap();
        assert!(v6.inner.only_v6().unwrap());
        assert!(v6.receive_buffer() > 100_000);
    }
}
