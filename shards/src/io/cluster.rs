//! The sockets of a node's cluster address: the hub's, and one of each shard for its links. All share
//! one port, and the kernel tells them apart by the first bytes.
//!
//! Invariants: datagrams are never cut up on their way; nobody else has the address.
//!
//! Not here: what goes over them (`relay`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::net::UdpSocket;
use socket2::{Domain, Protocol, Type};

use super::socket::{Socket, Sockets};
use super::steer;

/// See the head of the file.
#[derive(Debug)]
pub struct ClusterSockets {
    pub hub: HubSocket,
    /// By shard.
    pub links: Vec<Sockets>,
}

/// The hub's socket, until its executor has it.
#[derive(Debug)]
pub struct HubSocket(OwnedFd);

impl HubSocket {
    /// For the executor of this thread.
    pub fn into_socket(self) -> UdpSocket {
        // SAFETY: the descriptor is a UDP socket that nobody else owns any more.
        unsafe { UdpSocket::from_raw_fd(self.0.into_raw_fd()) }
    }
}

/// Opens all sockets of `address`.
///
/// # Errors
///
/// As the kernel says: taken, no address of ours, no right to the port.
pub fn open(address: SocketAddr, shards: usize) -> io::Result<ClusterSockets> {
    // Sockets that share a port let others of the same user share it, too.
    plain(address)?.bind(&address.into())?;
    let hub = plain(address)?;
    hub.set_reuse_port(true)?;
    set_unfragmented(&hub, address)?;
    hub.bind(&address.into())?;
    let links = (0..shards).map(|_| link(address)).collect::<io::Result<Vec<_>>>()?;
    if let Some(first) = links.first() {
        steer::links(first)?;
    }
    let sockets = |socket: Socket| match address {
        SocketAddr::V4(_) => Sockets { v4: Some(socket), v6: None },
        SocketAddr::V6(_) => Sockets { v4: None, v6: Some(socket) },
    };
    let links = links.into_iter().map(sockets).collect();
    Ok(ClusterSockets { hub: HubSocket(hub.into()), links })
}

fn plain(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn link(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::bind(address).map_err(|error| io::Error::other(error.to_string()))?;
    set_unfragmented(&socket, address)?;
    Ok(socket)
}

/// What does not pass is dropped, as the search for the path's MTU needs (RFC 8899 §3).
fn set_unfragmented(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    let (level, option, how) = match address {
        SocketAddr::V6(_) => {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
    };
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: reads one int, which lives through the call.
    let failed = unsafe { libc::setsockopt(fd, level, option, (&raw const how).cast(), size) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    /// How many bytes came to a socket.
    fn came(fd: &impl AsRawFd) -> Option<usize> {
        let mut bytes = [0u8; 64];
        // SAFETY: as many writable bytes as it says.
        let got = unsafe {
            libc::recv(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
        };
        usize::try_from(got).ok()
    }

    #[test]
    fn a_links_datagram_reaches_the_shard_it_names_and_all_else_the_hub() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let free = UdpSocket::bind(address).unwrap().local_addr().unwrap();
            let sockets = open(free, 3).unwrap();
            let shards = sockets.links.iter().map(|l| l.v4.as_ref().or(l.v6.as_ref()).unwrap());
            let shards: Vec<_> = shards.map(|socket| socket.as_fd()).collect();
            for n in 0..30u8 {
                let client = UdpSocket::bind(address).unwrap();
                let heads: [&[u8]; 7] = [
                    &[8, n % 3, 7],
                    &[9, n % 3],
                    &[8],
                    &[0x0a, 1],
                    &[0xc0, 2, 2],
                    &[0x48, 1],
                    &[7, 1],
                ];
                for (at, head) in heads.into_iter().enumerate() {
                    client.send_to(head, free).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    let reached: Vec<_> = (0..3).filter(|s| came(&shards[*s]).is_some()).collect();
                    match at {
                        0 | 1 => assert_eq!(reached, [usize::from(n % 3)]),
                        _ => assert!(reached.is_empty() && came(&sockets.hub.0).is_some(), "{at}"),
                    }
                }
            }
        }
    }

    #[test]
    fn an_address_that_another_node_has_is_refused() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let first = open(free, 2).unwrap();
        assert_eq!(open(free, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        open(free, 2).unwrap();
    }
}
