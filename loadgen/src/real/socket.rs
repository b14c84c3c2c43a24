//! A peer's socket: received datagrams with the kernel's time of arrival, glued together (GRO)
//! where the sender sent them so.
//!
//! The time is the kernel's so that it does not matter when this process looks: latencies are
//! the server's, not the generator's.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;

/// As much as one message can be.
const MESSAGE: usize = 64 * 1024;

/// What may wait in a socket while the generator is elsewhere: a second of 8 Mbit/s.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Memory that all sockets of a thread receive into, in turn.
#[derive(Debug)]
pub struct Basin {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Default for Basin {
    fn default() -> Self {
        Self { bytes: vec![0; MESSAGE], control: cmsg_space!(TimeSpec, i32, u32) }
    }
}

/// What one message was.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub source: SocketAddr,
    bytes: &'a [u8],
    /// Of each datagram but the last, which may be shorter.
    segment: usize,
    /// When it reached the socket, nanoseconds since the epoch; 0 if the kernel did not say.
    pub arrived: u64,
    /// Datagrams the socket had no room for, since it was opened.
    pub overrun: u32,
}

impl<'a> Message<'a> {
    pub fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(self.segment)
    }
}

/// One UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
}

impl Socket {
    /// On any port of `local`.
    pub fn open(local: IpAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((local, 0))?;
        socket.set_nonblocking(true)?;
        // Beyond what is allowed, where we may; as much as is allowed, where not.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        Ok(Self { socket })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes one message, if there is one.
    pub fn receive<'a>(&self, basin: &'a mut Basin) -> io::Result<Option<Message<'a>>> {
        let Basin { bytes, control } = basin;
        let (source, len, segment, arrived, overrun) = {
            let mut parts = [IoSliceMut::new(bytes)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = self.socket.as_raw_fd();
            let received = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(control), flags) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let len = received.bytes;
            let (mut segment, mut arrived, mut overrun) = (len, 0, 0);
            for control in received.cmsgs()? {
                match control {
                    ControlMessageOwned::UdpGroSegments(size) => segment = size as usize,
                    ControlMessageOwned::ScmTimestampns(time) => {
                        arrived = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
                    }
                    ControlMessageOwned::RxqOvfl(count) => overrun = count,
                    _ => {}
                }
            }
            (received.address.as_ref().and_then(socket_address), len, segment, arrived, overrun)
        };
        let Some(source) = source else { return Ok(None) };
        let bytes = &bytes[..len];
        Ok(Some(Message { source, bytes, segment: segment.max(1), arrived, overrun }))
    }

    /// Sends one datagram; false if the kernel did not take it.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) -> bool {
        self.socket.send_to(bytes, to).is_ok()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || Some(SocketAddr::V4((*address.as_sockaddr_in()?).into()));
    let v6 = || Some(SocketAddr::V6((*address.as_sockaddr_in6()?).into()));
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn datagrams_come_with_source_and_time() {
        let socket = Socket::open(Ipv4Addr::LOCALHOST.into()).unwrap();
        let other = Socket::open(Ipv4Addr::LOCALHOST.into()).unwrap();
        let mut basin = Basin::default();
        assert!(socket.receive(&mut basin).unwrap().is_none());
        let before = super::super::clock::moment().unix;
        other.send(socket.address().unwrap(), b"abc");
        let message = socket.receive(&mut basin).unwrap().expect("loopback delivers at once");
        assert_eq!(message.source, other.address().unwrap());
        assert_eq!(message.datagrams().collect::<Vec<_>>(), [b"abc"]);
        let after = super::super::clock::moment().unix;
        assert!((before..=after).contains(&message.arrived), "the kernel's clock is the same");
    }
}
