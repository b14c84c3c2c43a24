//! The bare system call that sending is measured against: `sendmmsg` with GSO, over headers
//! that were built beforehand.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use shards::outbox::Send;

/// Messages in one call, as the ports have it.
const BATCH: usize = 256;

/// `mmsghdr`s over sends, built once.
pub(crate) struct Headers {
    headers: Vec<libc::mmsghdr>,
    /// Datagrams of each message.
    counts: Vec<usize>,
    _names: Box<[libc::sockaddr_in]>,
    _iovecs: Box<[libc::iovec]>,
    _controls: Box<[Control]>,
}

/// A control message UDP_SEGMENT.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    size: u16,
}

impl Headers {
    /// The bytes of the sends must outlive what is built, and stay where they are.
    pub(crate) fn new<'a>(sends: impl Iterator<Item = Send<'a>>) -> Self {
        let sends: Vec<Send<'_>> = sends.collect();
        let mut names: Box<[_]> = sends.iter().map(|send| name(send.to.remote)).collect();
        let mut iovecs: Box<[_]> = sends
            .iter()
            .map(|send| libc::iovec {
                iov_base: send.bytes.as_ptr().cast_mut().cast(),
                iov_len: send.bytes.len(),
            })
            .collect();
        let header =
            libc::cmsghdr { cmsg_len: 18, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        let mut controls: Box<[_]> =
            sends.iter().map(|send| Control { header, size: send.segment as u16 }).collect();
        let headers = (0..sends.len())
            .map(|n| {
                // SAFETY: mmsghdr is plain integers and pointers; all zeroes are valid.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                let message = &mut header.msg_hdr;
                message.msg_name = (&raw mut names[n]).cast();
                message.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
                message.msg_iov = &raw mut iovecs[n];
                message.msg_iovlen = 1;
                if sends[n].count > 1 {
                    message.msg_control = (&raw mut controls[n]).cast();
                    message.msg_controllen = size_of::<Control>();
                }
                header
            })
            .collect();
        let counts = sends.iter().map(|send| send.count).collect();
        Self { headers, counts, _names: names, _iovecs: iovecs, _controls: controls }
    }

    /// Sends all of it, without waiting. Returns how many datagrams the kernel did not take.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> usize {
        let (mut at, mut refused) = (0, 0);
        while at < self.headers.len() {
            let end = self.headers.len().min(at + BATCH);
            let batch = &mut self.headers[at..end];
            // SAFETY: built by `new` over boxes kept here and bytes that the caller keeps.
            let sent = unsafe {
                let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
                libc::sendmmsg(fd, batch.as_mut_ptr(), batch.len() as u32, flags)
            };
            match usize::try_from(sent) {
                Ok(sent) => at += sent,
                Err(_) => {
                    refused += self.counts[at];
                    at += 1;
                }
            }
        }
        refused
    }
}

pub(crate) fn name(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = address else { panic!("IPv4 only here") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    }
}
