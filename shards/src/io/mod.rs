//! The rim: everything that touches the kernel.
//!
//! `port` is what the shard's loop sees: datagrams in, an outbox out, one thing to wait for.
//! Two implementations stand behind it: `ring` (an io_uring of its own) and `mmsg`
//! (recvmmsg and sendmmsg), which share `dispatch` (what becomes of a failed send),
//! `envelope`, `arrivals` and `cmsg` (the kernel's message layouts). `socket` opens what they use,
//! `steer` tells the kernel which shard's socket a datagram belongs to, `lanes` keeps apart what
//! can wait, `bell` wakes a shard from another thread, `watch` is how both wait inside glommio,
//! `executor` keeps glommio from oversleeping, `pause` stops the thread, `clock` reads the time, `record` writes down what is sent where
//! somebody wants to know, `priority` is for threads that measure.
//!
//! Invariants: the only unsafe code of this crate besides the sealing call and a hint to the CPU
//! (`prefetch`) is here.
//!
//! Not here: TCP, which glommio serves well enough.

pub mod bell;
pub mod clock;
pub mod cluster;
pub mod executor;
pub mod lanes;
pub mod listener;
pub mod pause;
pub mod port;
pub mod priority;
pub mod record;
pub mod socket;
pub mod steer;

mod arrivals;
mod cmsg;
mod dispatch;
mod envelope;
mod mmsg;
mod ring;
mod ring_buffers;
mod watch;

#[cfg(test)]
mod port_tests;
