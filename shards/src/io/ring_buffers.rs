//! Memory that an io_uring fills by itself: buffers provided through a shared ring of entries.
//!
//! Invariants: a buffer is either the kernel's (its entry is published) or ours (the kernel
//! named it in a completion and it was not given back), never both. The kernel touches its
//! buffers only while the owning thread is inside `io_uring_enter`, because the port's ring
//! defers all work to that call (DEFER_TASKRUN); so a `&mut` to one of ours cannot be raced.
//!
//! Not here: who unmaps last (`ring` cancels everything before it drops this).

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Buffers of one port. The kernel goes round them in order, so all of them are touched sooner
/// or later, and with aggregates in all their length: 64 are 4 MiB, which stays in a core's
/// cache (256 made aggregates five times as expensive). If more messages arrive at once the
/// receive ends, the rest waits in the sockets' own 8 MiB, and it is begun again: one system
/// call per 64 messages. A power of two, as the kernel demands.
pub(super) const BUFFERS: u16 = 64;

/// Header, name and control (about 200 bytes) and the largest GRO aggregate, as far as the
/// kernel's 64 KiB go. Only pages that were written cost memory, which is one per buffer
/// unless aggregates come.
pub(super) const BUFFER_BYTES: usize = 68 * 1024;

/// The group our receives name. A ring of our own has no others.
pub(super) const GROUP: u16 = 0;

pub(super) struct ProvidedBuffers {
    entries: Pages,
    buffers: Pages,
    tail: u16,
}

impl ProvidedBuffers {
    pub(super) fn new() -> io::Result<Self> {
        let entries = Pages::map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let buffers = Pages::map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        let mut this = Self { entries, buffers, tail: 0 };
        (0..BUFFERS).for_each(|id| this.give_back(id));
        Ok(this)
    }

    /// Where the kernel finds the entries.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.start.as_ptr() as u64
    }

    /// The buffer the kernel handed over as `id`, until it is given back.
    pub(super) fn get(&mut self, id: u16) -> &mut [u8] {
        let at = usize::from(id % BUFFERS) * BUFFER_BYTES;
        // SAFETY: `at` is within the mapping, which lives as long as `self` and is never
        // handed out otherwise. The kernel does not write meanwhile: it named this buffer in a
        // completion, or at worst (a wrong `id`) writes only inside io_uring_enter, which
        // needs the port that lends us out. Zeroed pages are initialised memory.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.start.as_ptr().add(at), BUFFER_BYTES) }
    }

    /// Lets the kernel fill buffer `id` again, once [`publish`](Self::publish)ed.
    pub(super) fn give_back(&mut self, id: u16) {
        let address = self.buffers.start.as_ptr() as u64 + u64::from(id) * BUFFER_BYTES as u64;
        let slot = usize::from(self.tail % BUFFERS);
        // SAFETY: `slot` is within the mapping of entries, which are plain integers and are
        // read by the kernel only below the published tail, within io_uring_enter. Only the
        // fields are written: in slot 0 the tail shares the entry.
        let entry = unsafe { &mut *self.entries.start.as_ptr().cast::<BufRingEntry>().add(slot) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel everything given back so far.
    pub(super) fn publish(&mut self) {
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `entries` is the start of the mapped ring, where the kernel expects the
        // tail; it is two bytes, aligned, and both sides access it atomically.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// Never unmaps the memory, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.entries.leaked = true;
        self.buffers.leaked = true;
    }
}

impl fmt::Debug for ProvidedBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BUFFERS} provided buffers")
    }
}

/// Anonymous memory of whole pages, zeroed.
struct Pages {
    start: NonNull<u8>,
    len: usize,
    leaked: bool,
}

impl Pages {
    fn map(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(at) if start != libc::MAP_FAILED => Ok(Self { start: at, len, leaked: false }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: exactly what `map` mapped; whoever borrowed from it borrowed from `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
