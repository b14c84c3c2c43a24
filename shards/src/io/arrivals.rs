//! From a received message to datagrams: who sent it, to which address of ours, and where the
//! kernel glued several together (GRO), where to cut.
//!
//! Invariants: every byte of a message is delivered once, in order, or the message is counted
//! as unusable. A message may be delivered in several calls, when a budget ends inside it.
//! Safe code only.

use std::net::SocketAddr;
use std::time::Duration;

use super::cmsg::{ControlIn, Name};
use super::port::{Arrival, PortCounters};

/// A message the kernel wrote somewhere, not yet fully delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    source: SocketAddr,
    local: SocketAddr,
    arrived: Option<Duration>,
    /// Length of each datagram but the last.
    stride: usize,
    /// Bytes delivered.
    done: usize,
    /// Bytes of payload.
    len: usize,
}

impl Message {
    /// Reads what the kernel told of a message of `len` bytes that came by a socket bound to
    /// `bound`. Counts it, one way or the other.
    pub(super) fn read(
        name: &[u8],
        control: &[u8],
        flags: libc::c_int,
        len: usize,
        bound: SocketAddr,
        counters: &mut PortCounters,
    ) -> Option<Self> {
        let cut_short = flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        let source = Name::decode(name).filter(|source| source.port() != 0);
        match source {
            Some(source) if len > 0 && !cut_short => {
                let control = ControlIn::decode(control);
                counters.messages_in += 1;
                let local = control.local_address(bound);
                let stride = control.stride.unwrap_or(len);
                Some(Self { source, local, arrived: control.arrived, stride, done: 0, len })
            }
            _ => {
                counters.drops_in.unusable += 1;
                None
            }
        }
    }

    /// Delivers up to `budget` datagrams of `payload`, which is the whole message's. How many.
    pub(super) fn deliver(
        &mut self,
        payload: &mut [u8],
        budget: usize,
        counters: &mut PortCounters,
        each: &mut dyn FnMut(Arrival<'_>),
    ) -> usize {
        let mut count = 0;
        for bytes in payload[self.done..self.len].chunks_mut(self.stride).take(budget) {
            self.done += bytes.len();
            count += 1;
            each(Arrival { source: self.source, local: self.local, arrived: self.arrived, bytes });
            counters.datagrams_in += 1;
        }
        if self.is_done() {
            counters.bytes_in += self.len as u64;
        }
        count
    }

    pub(super) fn is_done(&self) -> bool {
        self.done == self.len
    }
}
