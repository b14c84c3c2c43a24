//! TCP listeners of the API: one socket per shard on the same address, so that the kernel
//! spreads connections over the shards.
//!
//! Not here: what is spoken on the connections (`http`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel keeps until the shard accepts them. A shard accepts within a
/// millisecond; this much covers a burst of reconnecting clients.
const BACKLOG: i32 = 1024;

/// Listens on `address`, sharing it with the node's other shards.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Gives a listener to the executor of this thread.
pub fn adopt(listener: std::net::TcpListener) -> glommio::net::TcpListener {
    // SAFETY: the descriptor is a listening TCP socket that nobody else owns any more.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}
