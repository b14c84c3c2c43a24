//! The port by an io_uring of its own, beside glommio's.
//!
//! One multishot receive per socket stays armed and fills provided buffers; a turn's sends are
//! submitted together; the same `io_uring_enter` collects what has arrived meanwhile. While
//! the shard is awake nothing signals it; about to sleep, it lets the kernel signal an
//! eventfd, on which glommio waits.
//!
//! Invariants: all work is deferred to our own `io_uring_enter` (DEFER_TASKRUN), so the kernel
//! writes to our memory only inside it. A send is over when `deliver` returns, so the outbox
//! may be reused. The completion queue has room for every buffer and every send at once, so
//! it cannot overflow.
//!
//! Not here: retries and drops (`dispatch`), buffer ownership (`ring_buffers`).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll};

use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{IoUring, cqueue, opcode};

use super::arrivals::Message;
use super::bell::new_eventfd;
use super::cmsg::{CONTROL_IN_BYTES, NAME_BYTES};
use super::dispatch::{Courier, Dispatch};
use super::envelope::{BATCH, Envelopes, SEND_FLAGS};
use super::port::{Arrival, Port, PortCounters, PortError, Received};
use super::ring_buffers::{BUFFERS, GROUP, ProvidedBuffers};
use super::socket::{Socket, Sockets};
use super::watch::Watch;
use crate::outbox::Outbox;

/// Submissions at once: a batch of sends and both receives, rounded up as the kernel would.
const SUBMISSIONS: u32 = 2 * BATCH as u32;

/// Completions at once: every buffer, every send, the ends of both receives, with slack.
const COMPLETIONS: u32 = 1024;
const _: () = assert!(COMPLETIONS as usize >= BUFFERS as usize + BATCH + 16);

/// Marks a completion as a receive's; the low bit is the family. Sends carry their index.
const RECEIVE: u64 = 1 << 32;

/// `struct io_uring_recvmsg_out`: lengths of name, control and payload, and flags.
const HEADER_BYTES: usize = 16;

/// The port by an io_uring of its own.
#[derive(Debug)]
pub(super) struct RingPort {
    ring: Ring,
    sockets: Sockets,
    bound: [SocketAddr; 2],
    dispatch: Dispatch,
    partial: Option<(u16, Message)>,
    watch: Option<Watch>,
    counters: PortCounters,
}

impl RingPort {
    pub(super) fn open(sockets: Sockets) -> Result<Self, (PortError, Sockets)> {
        match Ring::open(&sockets) {
            Ok(ring) => Ok(Self {
                ring,
                // A missing socket receives nothing, so its address does not matter.
                bound: sockets.locals().map(|local| local.unwrap_or(NOWHERE)),
                sockets,
                dispatch: Dispatch::new(),
                partial: None,
                watch: None,
                counters: PortCounters::default(),
            }),
            Err(refused) => Err((refused, sockets)),
        }
    }

    /// The next message to deliver, begun or new. `None`: nothing more has arrived.
    fn next_message(&mut self) -> Option<(u16, Message)> {
        if self.partial.is_some() {
            return self.partial.take();
        }
        while let Some(filled) = self.ring.next_filled() {
            let bound = self.bound[filled.family];
            let buffer = &self.ring.buffers.get(filled.buffer)[..filled.len];
            if let Some(message) = read(buffer, bound, &mut self.counters) {
                return Some((filled.buffer, message));
            }
            self.ring.buffers.give_back(filled.buffer);
        }
        None
    }
}

impl Port for RingPort {
    fn receive(&mut self, budget: usize, each: &mut dyn FnMut(Arrival<'_>)) -> Received {
        self.ring.stay_silent();
        let mut count = 0;
        while count < budget {
            let Some((buffer, mut message)) = self.next_message() else {
                self.ring.buffers.publish();
                return Received { count, drained: true };
            };
            let payload = &mut self.ring.buffers.get(buffer)[PAYLOAD_AT..];
            count += message.deliver(payload, budget - count, &mut self.counters, each);
            if message.is_done() {
                self.ring.buffers.give_back(buffer);
            } else {
                self.partial = Some((buffer, message));
            }
        }
        self.ring.buffers.publish();
        Received { count, drained: false }
    }

    fn send(&mut self, outbox: &Outbox) {
        self.dispatch.send_all(outbox, &self.sockets, &mut self.ring, &mut self.counters);
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(watch) = &mut self.watch {
            watch.settle(cx);
        }
        if self.partial.is_some() || !self.ring.may_sleep() {
            return Poll::Ready(());
        }
        if self.watch.is_none() {
            self.watch = Watch::eventfd(&self.ring.eventfd).ok();
        }
        // Without a watch (out of descriptors): busy, but not deaf.
        self.watch.as_mut().map_or(Poll::Ready(()), |watch| watch.poll(cx))
    }

    fn counters(&self) -> PortCounters {
        self.sockets.complete(self.counters, self.dispatch.gso())
    }

    fn locals(&self) -> [Option<SocketAddr>; 2] {
        self.sockets.locals()
    }
}

/// A buffer that the kernel filled.
#[derive(Debug, Clone, Copy)]
struct Filled {
    family: usize,
    buffer: u16,
    len: usize,
}

/// The io_uring, and what it is doing for us.
struct Ring {
    uring: IoUring,
    buffers: ProvidedBuffers,
    /// What receives ask for: room for a name and control messages. The kernel reads it when a
    /// receive is submitted; boxed so that it stays where it is.
    template: Box<libc::msghdr>,
    /// Per family: the receive's socket is there, and the receive is armed.
    present: [bool; 2],
    armed: [bool; 2],
    arrived: VecDeque<Filled>,
    eventfd: OwnedFd,
    signalling: bool,
}

impl Ring {
    fn open(sockets: &Sockets) -> Result<Self, PortError> {
        let os = |step| move |cause| PortError::Os { step, cause };
        let uring = build()?;
        let submitter = uring.submitter();
        let fd = |socket: &Option<Socket>| socket.as_ref().map_or(-1, |s| s.as_fd().as_raw_fd());
        let files = [fd(&sockets.v4), fd(&sockets.v6)];
        submitter.register_files(&files).map_err(os("register the sockets"))?;
        let eventfd = new_eventfd().map_err(os("open an eventfd"))?;
        submitter.register_eventfd(eventfd.as_raw_fd()).map_err(os("register an eventfd"))?;
        let buffers = ProvidedBuffers::new().map_err(os("map receive buffers"))?;
        // SAFETY: the address is that of a page-aligned mapping of exactly `BUFFERS` entries,
        // and the ring is torn down (see Drop) before it is unmapped.
        unsafe {
            submitter.register_buf_ring_with_flags(buffers.entries_address(), BUFFERS, GROUP, 0)
        }
        .map_err(|_| PortError::RingTooOld { lacks: "provided buffer rings" })?;
        // SAFETY: msghdr is plain integers and pointers, for which all zeroes are valid.
        let mut template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        template.msg_namelen = NAME_BYTES as libc::socklen_t;
        template.msg_controllen = CONTROL_IN_BYTES;
        let mut ring = Self {
            uring,
            buffers,
            template,
            present: [sockets.v4.is_some(), sockets.v6.is_some()],
            armed: [false; 2],
            arrived: VecDeque::with_capacity(usize::from(BUFFERS)),
            eventfd,
            signalling: true,
        };
        ring.buffers.publish();
        ring.stay_silent();
        ring.arm();
        ring.enter(0).map_err(os("begin to receive"))?;
        ring.collect(None);
        // A kernel without multishot receive says so at once.
        if ring.armed != ring.present {
            return Err(PortError::RingTooOld { lacks: "multishot receive" });
        }
        Ok(ring)
    }

    /// The next buffer with a message in it. Enters the kernel only if it has news.
    fn next_filled(&mut self) -> Option<Filled> {
        if self.arrived.is_empty() {
            self.collect(None);
        }
        if self.arrived.is_empty() && (self.arm() || self.uring.submission().taskrun()) {
            // Give back first: a receive that ended for want of buffers needs some.
            self.buffers.publish();
            let _ = self.enter(0);
            self.collect(None);
        }
        self.arrived.pop_front()
    }

    /// Queues a receive where none is armed. Whether anything waits to be submitted.
    fn arm(&mut self) -> bool {
        for family in 0..self.present.len() {
            if !self.present[family] || self.armed[family] {
                continue;
            }
            let receive =
                opcode::RecvMsgMulti::new(Fixed(family as u32), &raw const *self.template, GROUP)
                    .build()
                    .user_data(RECEIVE | family as u64);
            // SAFETY: it points to `template` and, by its group, to the provided buffers. Both
            // live until the ring is torn down, which ends every receive.
            self.armed[family] = unsafe { self.uring.submission().push(&receive) }.is_ok();
        }
        !self.uring.submission().is_empty()
    }

    /// Submits what is queued, does the work that was deferred, and waits for `wanted`
    /// completions to be there.
    fn enter(&mut self, wanted: u32) -> io::Result<()> {
        let queued = self.uring.submission().len() as u32;
        // SAFETY: no signal mask or other argument is passed; for what entries point to, see where
        // they are queued.
        let entered = unsafe {
            self.uring.submitter().enter::<libc::sigset_t>(queued, wanted, GETEVENTS, None)
        };
        entered.map(drop)
    }

    /// Takes all completions: filled buffers into `arrived`, sends' results into `envelopes`.
    /// How many sends.
    fn collect(&mut self, mut envelopes: Option<&mut Envelopes>) -> usize {
        let mut sends = 0;
        for completion in self.uring.completion() {
            let (tag, result) = (completion.user_data(), completion.result());
            if tag & RECEIVE == 0 {
                sends += 1;
                if let Some(envelopes) = &mut envelopes {
                    envelopes.set_result(tag as usize, result);
                }
                continue;
            }
            let family = (tag & 1) as usize;
            self.armed[family] = cqueue::more(completion.flags());
            // Without a buffer: out of buffers, or an earlier send's error. Begin again.
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                let len = usize::try_from(result).unwrap_or(0);
                self.arrived.push_back(Filled { family, buffer, len });
            }
        }
        sends
    }

    fn stay_silent(&mut self) {
        if self.signalling {
            self.uring.completion().disable_eventfd();
            self.signalling = false;
        }
    }

    /// Has the eventfd signal from now on, and looks once more. False if there is something.
    fn may_sleep(&mut self) -> bool {
        if !self.arrived.is_empty() || self.arm() {
            return false;
        }
        if !self.signalling {
            self.uring.completion().enable_eventfd();
            self.signalling = true;
        }
        // The kernel marks deferred work first and then looks whether to signal; we do it the
        // other way round, so one of us sees the other.
        fence(Ordering::SeqCst);
        let news = self.uring.submission().taskrun() || !self.uring.completion().is_empty();
        if news {
            self.stay_silent();
        }
        !news
    }
}

impl Courier for Ring {
    fn deliver(&mut self, family: usize, _socket: &Socket, envelopes: &mut Envelopes) {
        let count = envelopes.len();
        let mut queue = self.uring.submission();
        for at in 0..count {
            let socket = Fixed(family as u32);
            let send = match envelopes.plain(at) {
                // Spares the kernel a copy of the header: 5 % of a single datagram.
                Some((bytes, name)) => {
                    opcode::Send::new(socket, bytes.iov_base.cast(), bytes.iov_len as u32)
                        .dest_addr((&raw const name.bytes).cast())
                        .dest_addr_len(name.len as libc::socklen_t)
                        .flags(SEND_FLAGS)
                        .build()
                }
                None => opcode::SendMsg::new(socket, &raw const envelopes.headers()[at].msg_hdr)
                    .flags(SEND_FLAGS as u32)
                    .build(),
            };
            let send = send.user_data(at as u64);
            // SAFETY: the message was made by `Envelopes::push`, whose pointers are valid by that
            // module's invariant, and everything stays borrowed until all sends are complete.
            let queued = unsafe { queue.push(&send) };
            queued.expect("the queue holds two batches, and every batch empties it");
        }
        drop(queue);
        // With MSG_DONTWAIT a send is over when it is submitted. The loop is there all the
        // same: until every send has completed, the kernel may read what they point to.
        let mut complete = 0;
        let mut wanted = 0;
        while complete < count {
            match self.enter(wanted) {
                Ok(()) => {}
                Err(refused) if is_passing(&refused) => {}
                // Any other error means that the ring is broken. It may hold entries that point
                // into memory which our caller is about to reuse, so there is no way on.
                Err(broken) => {
                    tracing::error!(%broken, "io_uring_enter");
                    std::process::abort();
                }
            }
            complete += self.collect(Some(envelopes));
            wanted = 1;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let cancelled = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let none_left = cancelled.err().is_none_or(|e| e.raw_os_error() == Some(libc::ENOENT));
        if !none_left {
            // Not seen yet; better to lose 4 MiB than to have somebody else's written to.
            self.buffers.leak();
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ring(armed: {:?}, {} arrived)", self.armed, self.arrived.len())
    }
}

/// Builds the io_uring, without the indirection of a submission array where the kernel can (6.6).
fn build() -> Result<IoUring, PortError> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS);
    let built = builder.clone().setup_no_sqarray().build(SUBMISSIONS);
    let built = match built {
        Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => builder.build(SUBMISSIONS),
        other => other,
    };
    built.map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => PortError::RingForbidden,
        Some(libc::EINVAL) => PortError::RingTooOld { lacks: "deferred task work" },
        _ => PortError::Os { step: "open a ring", cause },
    })
}

/// Reads a message as io_uring lays it out in a provided buffer: a header, a name and control
/// messages in the room the template asked for, the payload.
fn read(buffer: &[u8], bound: SocketAddr, counters: &mut PortCounters) -> Option<Message> {
    let mut fields = buffer.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let [Some(name_len), Some(control_len), Some(_), Some(flags)] =
        [fields.next(), fields.next(), fields.next(), fields.next()]
    else {
        return None;
    };
    let name = buffer.get(HEADER_BYTES..)?;
    let control = name.get(NAME_BYTES..)?;
    let payload = control.get(CONTROL_IN_BYTES..)?;
    let name = &name[..NAME_BYTES.min(name_len as usize)];
    let control = &control[..CONTROL_IN_BYTES.min(control_len as usize)];
    Message::read(name, control, flags as libc::c_int, payload.len(), bound, counters)
}

/// Where a message's payload begins in its buffer.
const PAYLOAD_AT: usize = HEADER_BYTES + NAME_BYTES + CONTROL_IN_BYTES;

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// `IORING_ENTER_GETEVENTS`, which the crate keeps to itself.
const GETEVENTS: u32 = 1;
