//! The kernel's socket addresses and control messages, as bytes.
//!
//! The kernel copies these structures in and out byte by byte, so no alignment is asked of
//! us and no pointer cast is needed: encoding and decoding are plain slice work.
//!
//! Invariants: decoding never reads past what the kernel said it wrote, and unknown control
//! messages are skipped. Safe code only.
//!
//! Not here: `msghdr` and its pointers (`envelope`, `mmsg`, `ring`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use libc::c_int;

/// Bytes of the largest socket address we meet (`sockaddr_in6`).
pub(super) const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// Room for what we ask the kernel to tell of a datagram: `IPV6_PKTINFO` (40 bytes),
/// `SO_TIMESTAMPNS` (32) and `UDP_GRO` (24); the rest is slack for options an administrator
/// forces on.
pub(super) const CONTROL_IN_BYTES: usize = 128;

/// Room for what we tell the kernel: `UDP_SEGMENT` (24 bytes) and `IPV6_PKTINFO` (40).
pub(super) const CONTROL_OUT_BYTES: usize = 64;

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) bytes: [u8; NAME_BYTES],
    pub(super) len: usize,
}

impl Name {
    pub(super) const EMPTY: Self = Self { bytes: [0; NAME_BYTES], len: 0 };

    pub(super) fn encode(address: &SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        let b = &mut name.bytes;
        b[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                b[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v4.ip().octets());
                name.len = size_of::<libc::sockaddr_in>();
            }
            SocketAddr::V6(v6) => {
                b[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                b[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                b[8..24].copy_from_slice(&v6.ip().octets());
                b[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                name.len = size_of::<libc::sockaddr_in6>();
            }
        }
        name
    }

    /// The address in `bytes`, or `None` if it is neither IPv4 nor IPv6.
    pub(super) fn decode(bytes: &[u8]) -> Option<SocketAddr> {
        let family = c_int::from(u16::from_ne_bytes(array(bytes, 0)?));
        let port = u16::from_be_bytes(array(bytes, 2)?);
        match family {
            libc::AF_INET => Some((Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(array(bytes, 24)?);
                // The flow label is the sender's business; kept, it would make one peer look
                // like many.
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }
}

/// Control messages of one send.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlOut {
    pub(super) bytes: [u8; CONTROL_OUT_BYTES],
    pub(super) len: usize,
}

impl ControlOut {
    pub(super) const EMPTY: Self = Self { bytes: [0; CONTROL_OUT_BYTES], len: 0 };

    /// Asks the kernel to cut the send into datagrams of `size` bytes.
    pub(super) fn segment(&mut self, size: u16) {
        self.append(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    /// Asks for `local` as the source address.
    pub(super) fn source(&mut self, local: &SocketAddr) {
        match local {
            SocketAddr::V4(v4) => {
                // struct in_pktinfo { int ifindex; in_addr spec_dst; in_addr addr; }
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&v4.ip().octets());
                self.append(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            SocketAddr::V6(v6) => {
                // struct in6_pktinfo { in6_addr addr; unsigned ifindex; }
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&v6.ip().octets());
                info[16..20].copy_from_slice(&v6.scope_id().to_ne_bytes());
                self.append(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    fn append(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let end = self.len + HEADER + data.len();
        let b = &mut self.bytes[self.len..end];
        b[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        b[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        b[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        b[HEADER..].copy_from_slice(data);
        self.len = end.next_multiple_of(WORD);
    }
}

/// What the kernel told of a received datagram, or of a GRO aggregate of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ControlIn {
    /// The address of ours it was sent to, and the interface it came by.
    pub(super) local: Option<(IpAddr, u32)>,
    /// If several datagrams were glued together: the length of each but the last.
    pub(super) stride: Option<usize>,
    /// When it arrived, of several the first: wall clock, since 1970.
    pub(super) arrived: Option<Duration>,
}

impl ControlIn {
    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some((level, kind, data, rest)) = next_message(bytes) {
            found.note(level, kind, data);
            bytes = rest;
        }
        found
    }

    fn note(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ipi_spec_dst, not ipi_addr: the same for unicast, and for anything else the
                // address of ours that may be used as a source.
                if let (Some(index), Some(ip)) = (array(data, 0), array::<4>(data, 4)) {
                    self.local = Some((Ipv4Addr::from(ip).into(), u32::from_ne_bytes(index)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let (Some(ip), Some(index)) = (array::<16>(data, 0), array(data, 16)) {
                    self.local = Some((Ipv6Addr::from(ip).into(), u32::from_ne_bytes(index)));
                }
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let stride = array(data, 0).map(c_int::from_ne_bytes);
                self.stride = stride.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // struct timespec { time_t tv_sec; long tv_nsec; }
                let word = |at| array(data, at).map(libc::c_long::from_ne_bytes);
                if let (Some(seconds), Some(nanos)) = (word(0), word(WORD)) {
                    let whole = u64::try_from(seconds).ok().map(Duration::from_secs);
                    let rest = u64::try_from(nanos).ok().map(Duration::from_nanos);
                    self.arrived = whole.zip(rest).and_then(|(a, b)| a.checked_add(b));
                }
            }
            _ => {}
        }
    }

    /// The local address of a datagram that came in by a socket bound to `bound`. The
    /// interface counts only where an address means nothing without it.
    pub(super) fn local_address(&self, bound: SocketAddr) -> SocketAddr {
        match self.local {
            None => bound,
            Some((IpAddr::V6(ip), index)) if ip.is_unicast_link_local() => {
                SocketAddrV6::new(ip, bound.port(), 0, index).into()
            }
            Some((ip, _)) => SocketAddr::new(ip, bound.port()),
        }
    }
}

/// Level, type and data of the first message in `bytes`, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(c_int, c_int, &[u8], &[u8])> {
    let len = usize::from_ne_bytes(array(bytes, 0)?);
    let level = c_int::from_ne_bytes(array(bytes, WORD)?);
    let kind = c_int::from_ne_bytes(array(bytes, WORD + 4)?);
    let data = bytes.get(HEADER..len)?;
    let rest = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    Some((level, kind, data, rest))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const WORD: usize = size_of::<usize>();
const HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(HEADER == WORD + 8, "cmsghdr is a length, a level and a type");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["192.0.2.1:5000", "[2001:db8::1]:443", "[fe80::1%7]:9", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::encode(&address);
            assert_eq!(Name::decode(&name.bytes[..name.len]), Some(address), "{text}");
            assert_eq!(Name::decode(&name.bytes[..5]), None);
        }
    }

    #[test]
    fn what_we_tell_the_kernel_reads_back() {
        for text in ["192.0.2.1:5000", "[2001:db8::1]:5000"] {
            let local: SocketAddr = text.parse().unwrap();
            let mut control = ControlOut::EMPTY;
            control.segment(1200);
            control.source(&local);
            let read = ControlIn::decode(&control.bytes[..control.len]);
            let unspecified = SocketAddr::from(([0, 0, 0, 0], 5000));
            assert_eq!(read.local_address(unspecified), local);
        }
    }

    #[test]
    fn broken_control_messages_are_survived() {
        let mut control = ControlOut::EMPTY;
        control.source(&"192.0.2.1:1".parse().unwrap());
        for cut in 0..control.len {
            ControlIn::decode(&control.bytes[..cut]);
        }
        for len in [0, 1, HEADER - 1, HEADER + 1, usize::MAX] {
            control.bytes[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(ControlIn::decode(&control.bytes), ControlIn::default());
        }
    }
}
