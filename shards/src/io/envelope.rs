//! Messages for the kernel: a batch of `mmsghdr` over sends of an outbox.
//!
//! Invariants: the pointers in a batch point into this struct's own boxed arrays, which
//! never move or grow, and into the outbox the batch was filled from. They are dereferenced
//! only by the kernel, only in calls made while that outbox is still borrowed
//! (`dispatch` fills, delivers and settles a batch within one borrow).
//!
//! Not here: what becomes of a failed message (`dispatch`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::cmsg::{ControlOut, Name};
use super::socket::Socket;
use crate::outbox::Destination;

/// Messages in a batch. Beyond 64 a bigger batch gains nothing measurable; 256 lets nearly
/// every turn leave with a single system call.
pub(super) const BATCH: usize = 256;

pub(super) struct Envelopes {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[ControlOut]>,
    /// Per message: what the kernel answered, bytes taken or a negative errno.
    results: Box<[i32]>,
    len: usize,
}

impl Envelopes {
    pub(super) fn new() -> Self {
        // SAFETY: mmsghdr is plain integers and pointers, for which all zeroes are valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            headers: vec![header; BATCH].into_boxed_slice(),
            iovecs: vec![iovec; BATCH].into_boxed_slice(),
            names: vec![Name::EMPTY; BATCH].into_boxed_slice(),
            controls: vec![ControlOut::EMPTY; BATCH].into_boxed_slice(),
            results: vec![0; BATCH].into_boxed_slice(),
            len: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == BATCH
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends a message; with `segment`, the kernel cuts it into datagrams of that length.
    pub(super) fn push(
        &mut self,
        socket: &Socket,
        to: &Destination,
        bytes: &[u8],
        segment: Option<u16>,
    ) {
        let at = self.len;
        self.names[at] = Name::encode(&to.remote);
        let control = &mut self.controls[at];
        *control = ControlOut::EMPTY;
        if let Some(size) = segment {
            control.segment(size);
        }
        // A socket bound to one address needs no telling, which saves the kernel a lookup.
        let told = socket.local().ip().is_unspecified() && !to.local.ip().is_unspecified();
        if told && to.local.is_ipv4() == to.remote.is_ipv4() {
            control.source(&to.local);
        }
        self.iovecs[at] =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.names[at].bytes).cast();
        header.msg_namelen = self.names[at].len as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[at];
        header.msg_iovlen = 1;
        header.msg_control = match control.len {
            0 => std::ptr::null_mut(),
            _ => (&raw mut control.bytes).cast(),
        };
        header.msg_controllen = control.len;
        self.len += 1;
    }

    /// The messages pushed, for `sendmmsg`.
    pub(super) fn headers(&mut self) -> &mut [libc::mmsghdr] {
        &mut self.headers[..self.len]
    }

    /// Message `at`, if it is only bytes and an address, without control messages.
    pub(super) fn plain(&self, at: usize) -> Option<(&libc::iovec, &Name)> {
        let plain = self.controls[..self.len][at].len == 0;
        plain.then(|| (&self.iovecs[at], &self.names[at]))
    }

    pub(super) fn result(&self, at: usize) -> i32 {
        self.results[at]
    }

    pub(super) fn set_result(&mut self, at: usize, result: i32) {
        self.results[at] = result;
    }

    /// Sends message `at` by itself: bytes taken or a negative errno. For what a batch left over.
    pub(super) fn send_one(&mut self, socket: &Socket, at: usize) -> i32 {
        let header = &raw const self.headers[..self.len][at].msg_hdr;
        // SAFETY: the header was filled by `push`, whose pointers are valid by this module's
        // invariant: into our own arrays, and into an outbox our caller still borrows.
        let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), header, SEND_FLAGS) };
        if sent < 0 { -last_errno() } else { sent as i32 }
    }
}

/// Pointers would say nothing.
impl fmt::Debug for Envelopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} envelopes", self.len)
    }
}

/// Never wait: sockets are blocking (see `socket`), our calls are not.
pub(super) const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
