//! The cluster socket: one UDP socket of the executor, whose datagrams are never cut up.
//!
//! Not here: what goes over it (`relay::hub`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};

use glommio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// Opens the socket for the executor of this thread.
///
/// # Errors
///
/// As the kernel says: taken, no address of ours, no right to the port.
pub fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_unfragmented(&socket, address.is_ipv6())?;
    socket.bind(&address.into())?;
    // SAFETY: the descriptor is a UDP socket that nobody else owns any more.
    Ok(unsafe { UdpSocket::from_raw_fd(socket.into_raw_fd()) })
}

/// What does not pass is dropped, as the search for the path's MTU needs (RFC 8899 §3).
fn set_unfragmented(socket: &Socket, v6: bool) -> io::Result<()> {
    let (level, option, how) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
    };
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: reads one int, which lives through the call.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const how).cast(), size)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
