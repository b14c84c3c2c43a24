//! Waiting inside glommio for something glommio does not know: data on a UDP socket of ours,
//! or a count in an eventfd.
//!
//! glommio offers no readiness of foreign descriptors, but two of its operations amount to
//! it: peeking at a datagram, and reading an eventfd as if it were a file.
//!
//! Invariants: an operation, once begun, outlives the caller's patience. A caller may stop
//! polling (something else woke it) and come back later to the same operation. Cancelling it
//! instead could lose a wake: a cancelled read that is still in the kernel may swallow the
//! count that the next read waits for. And glommio's operation is polled only when it has
//! news: every poll of an unfinished one leaves one more waker with it, and the 32,768th
//! waker of a task aborts the process.
//!
//! Not here: when it is safe to wait (`bell`, `ring`, `mmsg`).

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use glommio::io::BufferedFile;
use glommio::net::UdpSocket;

type Operation = Pin<Box<dyn Future<Output = ()>>>;

/// A thing to wait for, again and again. Belongs to the executor it was made in.
pub(super) struct Watch {
    begin: Box<dyn Fn() -> Operation>,
    underway: Option<Operation>,
    relay: Arc<Relay>,
}

impl Watch {
    /// Ready when a datagram waits in `socket`, or an error does. The socket must be blocking.
    pub(super) fn datagrams(socket: &impl AsFd) -> io::Result<Self> {
        let fd = duplicate(socket)?;
        // SAFETY: `fd` is a UDP socket's and nobody else's; glommio closes it on drop.
        let socket = Rc::new(unsafe { UdpSocket::from_raw_fd(fd) });
        Ok(Self::new(move || {
            let socket = Rc::clone(&socket);
            Box::pin(async move {
                // Whatever it says, the caller's own receive call will learn it too.
                let _ = socket.peek_from(&mut [0]).await;
            })
        }))
    }

    /// Ready when `eventfd` was written to since the last time; resets it. It must be blocking.
    pub(super) fn eventfd(eventfd: &impl AsFd) -> io::Result<Self> {
        let fd = duplicate(eventfd)?;
        // SAFETY: `fd` is open and nobody else's; glommio closes it on drop.
        let file = Rc::new(unsafe { BufferedFile::from_raw_fd(fd) });
        Ok(Self::new(move || {
            let file = Rc::clone(&file);
            Box::pin(async move {
                let _ = file.read_at(0, size_of::<u64>()).await;
            })
        }))
    }

    fn new(begin: impl Fn() -> Operation + 'static) -> Self {
        Self { begin: Box::new(begin), underway: None, relay: Arc::new(Relay::default()) }
    }

    /// Begins to wait, or goes on waiting.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.relay.forward_to(cx.waker());
        let operation = match &mut self.underway {
            Some(_) if !self.relay.rang.swap(false, Ordering::SeqCst) => return Poll::Pending,
            Some(operation) => operation,
            none => none.insert((self.begin)()),
        };
        let waker = Waker::from(Arc::clone(&self.relay));
        let polled = operation.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.underway = None;
            self.relay.rang.store(false, Ordering::SeqCst);
        }
        polled
    }

    /// Takes note of an operation that has ended, without beginning another. For a caller that
    /// looks for itself what the news is, and would otherwise be told twice.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        if self.underway.is_some() && self.relay.rang.load(Ordering::SeqCst) {
            let _ = self.poll(cx);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch(underway: {})", self.underway.is_some())
    }
}

/// Stands between glommio's operation and whoever polls the watch.
#[derive(Default)]
struct Relay {
    rang: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Relay {
    fn forward_to(&self, waker: &Waker) {
        let mut waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waiter {
            Some(known) if known.will_wake(waker) => {}
            other => *other = Some(waker.clone()),
        }
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::SeqCst);
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A second descriptor, close-on-exec, for glommio to own.
fn duplicate(fd: &impl AsFd) -> io::Result<i32> {
    let copy: OwnedFd = fd.as_fd().try_clone_to_owned()?;
    Ok(copy.into_raw_fd())
}
