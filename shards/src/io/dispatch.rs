//! From an outbox to the kernel, and what becomes of a message the kernel does not take.
//!
//! Invariants: every datagram of an outbox is either taken or counted as a drop, exactly
//! once. No failure stops the rest. GSO is given up for a socket, for good, only when the
//! kernel refused a run *and* took its first datagram alone: a peer that names an impossible
//! address must not be able to switch it off for everybody. Datagrams for one destination
//! stay in order, except that one the kernel had no room for may come after its successors.
//!
//! Not here: how a batch reaches the kernel (the [`Courier`]: `mmsg` or `ring`).

use super::envelope::Envelopes;
use super::port::PortCounters;
use super::socket::{Socket, Sockets};
use crate::outbox::{Outbox, Send};

/// Rounds of trying again what the kernel had no room for. The send buffer empties at the
/// device's pace, so a round or two after giving way may help; if not, the path is congested
/// beyond what waiting can mend, and late media is worthless anyway.
const RETRY_ROUNDS: usize = 3;

/// Hands a batch to the kernel.
pub(super) trait Courier {
    /// Offers every envelope once, without waiting, and sets every result. When it returns,
    /// the kernel no longer uses any of the memory the envelopes point to.
    fn deliver(&mut self, family: usize, socket: &Socket, envelopes: &mut Envelopes);
}

/// The sending half of a port, whatever its courier.
#[derive(Debug)]
pub(super) struct Dispatch {
    envelopes: Envelopes,
    /// Per family: whether GSO is still tried.
    gso: [bool; 2],
}

impl Dispatch {
    pub(super) fn new() -> Self {
        Self { envelopes: Envelopes::new(), gso: [true; 2] }
    }

    pub(super) fn gso(&self) -> bool {
        self.gso == [true; 2]
    }

    /// Sends everything: first what goes by IPv4, then what goes by IPv6.
    pub(super) fn send_all(
        &mut self,
        outbox: &Outbox,
        sockets: &Sockets,
        courier: &mut dyn Courier,
        counters: &mut PortCounters,
    ) {
        for (family, socket) in [&sockets.v4, &sockets.v6].into_iter().enumerate() {
            let ours = |send: &Send<'_>| usize::from(send.to.remote.is_ipv6()) == family;
            let sends = outbox.sends().filter(ours);
            let Some(socket) = socket else {
                counters.drops_out.no_socket += sends.map(|send| send.count as u64).sum::<u64>();
                continue;
            };
            let (envelopes, gso) = (&mut self.envelopes, &mut self.gso[family]);
            let mut pieces = Pieces { sends, rest: None, whole: *gso };
            loop {
                pieces.whole = *gso;
                let mut batch = Batch { family, envelopes, gso, socket, counters };
                if !batch.send(&mut pieces, courier) {
                    break;
                }
            }
        }
    }
}

/// Sends as they come, or unfolded where GSO is given up.
#[derive(Clone)]
struct Pieces<'a, I> {
    sends: I,
    rest: Option<Send<'a>>,
    whole: bool,
}

impl<'a, I: Iterator<Item = Send<'a>>> Iterator for Pieces<'a, I> {
    type Item = Send<'a>;

    fn next(&mut self) -> Option<Send<'a>> {
        let send = self.rest.take().or_else(|| self.sends.next())?;
        if self.whole || send.count == 1 {
            return Some(send);
        }
        let (bytes, rest) = send.bytes.split_at(send.segment);
        self.rest = Some(Send { bytes: rest, count: send.count - 1, ..send });
        Some(Send { bytes, count: 1, ..send })
    }
}

struct Batch<'a> {
    family: usize,
    envelopes: &'a mut Envelopes,
    gso: &'a mut bool,
    socket: &'a Socket,
    counters: &'a mut PortCounters,
}

impl Batch<'_> {
    /// Takes as many pieces as fit, delivers them and settles every one. False if none was left.
    fn send<'s, I>(&mut self, pieces: &mut Pieces<'s, I>, courier: &mut dyn Courier) -> bool
    where
        I: Iterator<Item = Send<'s>> + Clone,
    {
        let start = pieces.clone();
        self.envelopes.clear();
        while !self.envelopes.is_full()
            && let Some(piece) = pieces.next()
        {
            let segment = (piece.count > 1).then_some(piece.segment as u16);
            self.envelopes.push(self.socket, &piece.to, piece.bytes, segment);
        }
        let taken = self.envelopes.len();
        if taken == 0 {
            return false;
        }
        courier.deliver(self.family, self.socket, self.envelopes);
        self.retry();
        for (at, piece) in start.take(taken).enumerate() {
            let result = self.envelopes.result(at);
            if result >= 0 {
                self.count_taken(piece.count, piece.bytes.len());
            } else if piece.count > 1 && may_be_about_gso(-result) {
                self.resend_one_by_one(&piece);
            } else {
                self.count_drop(-result, piece.count);
            }
        }
        true
    }

    /// Tries again, a few times, what the kernel had no room for.
    fn retry(&mut self) {
        for _ in 0..RETRY_ROUNDS {
            let mut left = false;
            for at in 0..self.envelopes.len() {
                if is_full(self.envelopes.result(at)) {
                    self.counters.retries += 1;
                    let result = self.envelopes.send_one(self.socket, at);
                    self.envelopes.set_result(at, result);
                    left |= is_full(result);
                    if left {
                        break;
                    }
                }
            }
            if !left {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// For a run the kernel refused. If it takes the datagrams alone, GSO was the reason.
    fn resend_one_by_one(&mut self, run: &Send<'_>) {
        for (n, datagram) in run.datagrams().enumerate() {
            self.envelopes.clear();
            self.envelopes.push(self.socket, &run.to, datagram, None);
            let result = self.envelopes.send_one(self.socket, 0);
            if result < 0 {
                self.count_drop(-result, 1);
                continue;
            }
            self.count_taken(1, datagram.len());
            if n == 0 && *self.gso {
                *self.gso = false;
                self.counters.gso_refusals += 1;
            }
        }
    }

    fn count_taken(&mut self, datagrams: usize, bytes: usize) {
        self.counters.messages_out += 1;
        self.counters.runs_out[run_class(datagrams)] += 1;
        self.counters.datagrams_out += datagrams as u64;
        self.counters.bytes_out += bytes as u64;
        if datagrams > 1 {
            self.counters.gso_datagrams += datagrams as u64;
        }
    }

    fn count_drop(&mut self, errno: i32, datagrams: usize) {
        let drops = &mut self.counters.drops_out;
        let counter = match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR => &mut drops.full,
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EADDRNOTAVAIL
            | libc::EACCES
            | libc::EPERM => &mut drops.unreachable,
            _ => &mut drops.refused,
        };
        *counter += datagrams as u64;
    }
}

/// The place in [`RUN_BOUNDS`](super::port::RUN_BOUNDS), powers of two, of so many datagrams.
fn run_class(datagrams: usize) -> usize {
    let class = datagrams.next_power_of_two().trailing_zeros() as usize;
    class.min(super::port::RUN_BOUNDS.len() - 1)
}

/// What a device without checksum offload (EIO), a route with a small MTU (EINVAL, EMSGSIZE)
/// or an old kernel answers to GSO.
fn may_be_about_gso(errno: i32) -> bool {
    matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
}

fn is_full(result: i32) -> bool {
    matches!(-result, libc::EAGAIN | libc::ENOBUFS | libc::EINTR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::port::RUN_BOUNDS;

    #[test]
    fn a_run_counts_below_the_first_bound_it_does_not_exceed() {
        for datagrams in 1..=64 {
            let class = run_class(datagrams);
            assert!(datagrams <= RUN_BOUNDS[class], "{datagrams}");
            assert!(class == 0 || datagrams > RUN_BOUNDS[class - 1], "{datagrams}");
        }
    }
}
