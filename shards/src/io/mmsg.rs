//! The port by recvmmsg and sendmmsg.
//!
//! Invariants: the pointers in the receive batch are set anew before every call and point into
//! boxed arrays of this struct, which the kernel writes only during the call. A message is
//! delivered before its buffer is offered again.
//!
//! Not here: retries and drops (`dispatch`), how to wait (`watch`).

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};

use super::arrivals::Message;
use super::cmsg::{CONTROL_IN_BYTES, NAME_BYTES};
use super::dispatch::{Courier, Dispatch};
use super::envelope::{Envelopes, SEND_FLAGS, last_errno};
use super::port::{Arrival, Port, PortCounters, Received};
use super::socket::{Socket, Sockets};
use super::watch::Watch;
use crate::outbox::Outbox;

/// Messages per recvmmsg. Past 16 there is nothing more to gain; 32 leaves room for bursts.
const MESSAGES: usize = 32;

/// A GRO aggregate is at most one IP datagram long; a shorter buffer would cut it.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The port by recvmmsg and sendmmsg.
#[derive(Debug)]
pub(super) struct MmsgPort {
    sockets: Sockets,
    inbox: Inbox,
    /// The family to receive from first next time, so that neither starves the other.
    first: usize,
    dispatch: Dispatch,
    watches: [Option<Watch>; 2],
    counters: PortCounters,
}

impl MmsgPort {
    pub(super) fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            inbox: Inbox::new(),
            first: 0,
            dispatch: Dispatch::new(),
            watches: [None, None],
            counters: PortCounters::default(),
        }
    }

    /// Delivers what is left of the last batch, then fetches more of `family` until `budget`
    /// or the socket is exhausted. How many, and whether the socket is.
    fn receive_from(
        &mut self,
        family: usize,
        budget: usize,
        each: &mut dyn FnMut(Arrival<'_>),
    ) -> Received {
        let socket = if family == 0 { &self.sockets.v4 } else { &self.sockets.v6 };
        let Some(socket) = socket else { return Received { count: 0, drained: true } };
        let mut count = 0;
        while count < budget {
            let asked = (budget - count).min(MESSAGES);
            let got = self.inbox.fetch(socket, asked);
            count += self.inbox.deliver(budget - count, &mut self.counters, each);
            // Fewer than asked for: the queue was empty a moment ago.
            if got < asked && self.inbox.is_empty() {
                return Received { count, drained: true };
            }
        }
        Received { count, drained: false }
    }
}

impl Port for MmsgPort {
    fn receive(&mut self, budget: usize, each: &mut dyn FnMut(Arrival<'_>)) -> Received {
        let mut count = self.inbox.deliver(budget, &mut self.counters, each);
        let mut drained = self.inbox.is_empty();
        self.first ^= 1;
        for family in [self.first, self.first ^ 1] {
            let received = self.receive_from(family, budget - count, each);
            count += received.count;
            drained &= received.drained;
        }
        Received { count, drained }
    }

    fn send(&mut self, outbox: &Outbox) {
        self.dispatch.send_all(outbox, &self.sockets, &mut Sendmmsg, &mut self.counters);
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.inbox.is_empty() {
            return Poll::Ready(());
        }
        let mut ready = Poll::Pending;
        let sockets = [&self.sockets.v4, &self.sockets.v6];
        for (socket, watch) in sockets.into_iter().zip(&mut self.watches) {
            let Some(socket) = socket else { continue };
            if watch.is_none() {
                *watch = Watch::datagrams(socket).ok();
            }
            // Without a watch (out of descriptors): busy, but not deaf.
            if watch.as_mut().is_none_or(|watch| watch.poll(cx).is_ready()) {
                ready = Poll::Ready(());
            }
        }
        ready
    }

    fn counters(&self) -> PortCounters {
        self.sockets.complete(self.counters, self.dispatch.gso())
    }

    fn locals(&self) -> [Option<SocketAddr>; 2] {
        self.sockets.locals()
    }
}

struct Sendmmsg;

impl Courier for Sendmmsg {
    fn deliver(&mut self, _family: usize, socket: &Socket, envelopes: &mut Envelopes) {
        let mut done = 0;
        while done < envelopes.len() {
            let rest = &mut envelopes.headers()[done..];
            // SAFETY: the headers were filled by `Envelopes::push`, whose pointers are valid by
            // that module's invariant, and the kernel is told exactly how many there are.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    SEND_FLAGS,
                )
            };
            let (count, result) = match taken {
                1.. => (taken as usize, 0),
                // The error is of the first message. If there is no room for it there is none
                // for the others, and overtaking it would only shuffle the stream.
                _ => match last_errno() {
                    full @ (libc::EAGAIN | libc::ENOBUFS) => (rest.len(), -full),
                    errno => (1, -errno),
                },
            };
            (done..done + count).for_each(|at| envelopes.set_result(at, result));
            done += count;
        }
    }
}

/// Buffers for one recvmmsg, and how far the messages in them are delivered.
struct Inbox {
    buffers: Box<[u8]>,
    names: Box<[[u8; NAME_BYTES]]>,
    controls: Box<[[u8; CONTROL_IN_BYTES]]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    bound: SocketAddr,
    filled: usize,
    next: usize,
    partial: Option<Message>,
}

impl Inbox {
    fn new() -> Self {
        // SAFETY: mmsghdr is plain integers and pointers, for which all zeroes are valid.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            buffers: vec![0; MESSAGES * MESSAGE_BYTES].into_boxed_slice(),
            names: vec![[0; NAME_BYTES]; MESSAGES].into_boxed_slice(),
            controls: vec![[0; CONTROL_IN_BYTES]; MESSAGES].into_boxed_slice(),
            iovecs: vec![iovec; MESSAGES].into_boxed_slice(),
            headers: vec![header; MESSAGES].into_boxed_slice(),
            bound: SocketAddr::from(([0, 0, 0, 0], 0)),
            filled: 0,
            next: 0,
            partial: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.next == self.filled
    }

    /// Receives up to `asked` messages into the buffers, all of which must be delivered. How
    /// many came; an error counts as none, as it is an earlier send's and nothing to act on.
    fn fetch(&mut self, socket: &Socket, asked: usize) -> usize {
        assert!(self.is_empty(), "undelivered messages would be overwritten");
        let asked = asked.min(MESSAGES);
        for (at, buffer) in self.buffers.chunks_exact_mut(MESSAGE_BYTES).take(asked).enumerate() {
            self.iovecs[at] =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: MESSAGE_BYTES };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = self.names[at].as_mut_ptr().cast();
            header.msg_namelen = NAME_BYTES as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[at];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[at].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_IN_BYTES;
            header.msg_flags = 0;
        }
        // SAFETY: the first `asked` headers were just set to distinct, live buffers of the
        // lengths given, which nothing else borrows during the call.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                asked as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        self.bound = socket.local();
        self.filled = usize::try_from(got).unwrap_or(0);
        self.next = 0;
        self.filled
    }

    /// Delivers up to `budget` datagrams. How many.
    fn deliver(
        &mut self,
        budget: usize,
        counters: &mut PortCounters,
        each: &mut dyn FnMut(Arrival<'_>),
    ) -> usize {
        let mut count = 0;
        while !self.is_empty() && count < budget {
            let at = self.next;
            let message = self.partial.take().or_else(|| self.read(at, counters));
            if let Some(mut message) = message {
                let payload = &mut self.buffers[at * MESSAGE_BYTES..][..MESSAGE_BYTES];
                count += message.deliver(payload, budget - count, counters, each);
                if !message.is_done() {
                    self.partial = Some(message);
                    return count;
                }
            }
            self.next += 1;
        }
        count
    }

    fn read(&self, at: usize, counters: &mut PortCounters) -> Option<Message> {
        let header = &self.headers[at];
        // What the kernel says it wrote never exceeds what it was offered; `min` spares a proof.
        let name = &self.names[at][..NAME_BYTES.min(header.msg_hdr.msg_namelen as usize)];
        let control = &self.controls[at][..CONTROL_IN_BYTES.min(header.msg_hdr.msg_controllen)];
        let len = MESSAGE_BYTES.min(header.msg_len as usize);
        Message::read(name, control, header.msg_hdr.msg_flags, len, self.bound, counters)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inbox({} of {} delivered)", self.next, self.filled)
    }
}
