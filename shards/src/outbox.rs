//! What a turn leaves to be sent: finished datagrams, one after the other in one arena.
//!
//! Neighbours for one destination fold, as they are written, into runs that the kernel can
//! cut itself (UDP GSO): one walk through its network stack per run instead of one per
//! datagram, the only large saving there is on the way out.
//!
//! Invariants: unfolding [`Outbox::sends`] gives the committed datagrams in order. All
//! datagrams of a run have the same length, except that the last may be shorter; anything
//! else the kernel would cut in the wrong places. Memory is fixed at construction.
//!
//! Not here: sockets, and what becomes of a send that fails (`io::dispatch`).

use std::fmt;
use std::net::SocketAddr;

/// The largest datagram we write: an Ethernet frame's payload. What we send is smaller
/// (paths across the internet carry about 1,200 bytes safely); anything larger is a bug.
pub const MAX_DATAGRAM: usize = 1500;

/// Bytes that are sealed before they are handed to the kernel. The kernel copies them right
/// afterwards, from the first caches of the core, and the first viewers of many need not wait until
/// the last ones' copies are sealed: 2 MiB cost 5 % more CPU, and a large turn several hundred
/// microseconds. Less would not hold a full batch and would call the kernel more often.
pub const CAPACITY: usize = 128 << 10;

/// Datagrams in one GSO send. Kernels before 6.9 refuse more than 64; the gain is flat
/// beyond 20.
pub const RUN_DATAGRAMS_MAX: usize = 64;

/// Bytes in one GSO send. IP allows 65,507; staying below 60 KiB leaves room for any headers
/// a tunnel device adds while segments are still together.
pub const RUN_BYTES_MAX: usize = 60 * 1024;

/// Arena bytes per run, to bound the table of runs: a turn of nothing but small datagrams for
/// different peers (keep-alives, feedback) fills the table before the arena.
const BYTES_PER_RUN: usize = 256;

/// Where a datagram goes, and from which of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The peer.
    pub remote: SocketAddr,
    /// The address of ours that it must leave from: the candidate the peer knows. Its family
    /// chooses the socket; if it is unspecified, the kernel chooses the address.
    pub local: SocketAddr,
}

/// Datagrams for one destination, contiguous, to be handed to the kernel in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send<'a> {
    /// Where to.
    pub to: Destination,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
    /// Length of every datagram but the last, which may be shorter: the GSO size.
    pub segment: usize,
    /// How many datagrams.
    pub count: usize,
}

impl<'a> Send<'a> {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment)
    }
}

/// The datagrams of one turn.
pub struct Outbox {
    arena: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
    runs_max: usize,
    datagrams: usize,
    refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    to: Destination,
    start: usize,
    len: usize,
    segment: usize,
    count: usize,
}

impl Run {
    /// Whether a datagram of `len` bytes for the same destination may be appended.
    #[inline]
    fn takes(&self, len: usize) -> bool {
        let all_equal = self.len == self.segment * self.count;
        all_equal
            && len <= self.segment
            && self.count < RUN_DATAGRAMS_MAX
            && self.len + len <= RUN_BYTES_MAX
    }
}

/// The outbox as datagrams for one destination see it: which run they may be appended to is
/// found once for all of them.
#[derive(Debug)]
pub struct Lane<'a> {
    outbox: &'a mut Outbox,
    to: Destination,
    /// The last run is for this destination.
    continues: bool,
}

impl Lane<'_> {
    /// As [`Outbox::slot`].
    #[inline]
    pub fn slot(&mut self) -> &mut [u8] {
        self.outbox.slot()
    }

    /// As [`Outbox::commit`].
    #[inline]
    pub fn commit(&mut self, len: usize) {
        let outbox = &mut *self.outbox;
        if len == 0 || len > MAX_DATAGRAM || outbox.used + len > outbox.capacity() {
            outbox.refused += 1;
            return;
        }
        let table_full = outbox.runs.len() == outbox.runs_max;
        match outbox.runs.last_mut() {
            Some(run) if self.continues && run.takes(len) => {
                run.len += len;
                run.count += 1;
            }
            _ if table_full => {
                outbox.refused += 1;
                return;
            }
            _ => {
                let (to, start) = (self.to, outbox.used);
                outbox.runs.push(Run { to, start, len, segment: len, count: 1 });
                self.continues = true;
            }
        }
        outbox.used += len;
        outbox.datagrams += 1;
    }
}

impl Outbox {
    /// An empty outbox for `capacity` bytes of datagrams, usually [`CAPACITY`].
    pub fn new(capacity: usize) -> Self {
        let runs_max = (capacity / BYTES_PER_RUN).max(1);
        Self {
            // One datagram more than promised, so that `slot` always has something to lend.
            arena: vec![0; capacity + MAX_DATAGRAM].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(runs_max),
            runs_max,
            datagrams: 0,
            refused: 0,
        }
    }

    /// Whether one more datagram of any size fits. If not: send, [`clear`](Self::clear), go on.
    pub fn has_room(&self) -> bool {
        self.used + MAX_DATAGRAM <= self.capacity() && self.runs.len() < self.runs_max
    }

    /// How many more datagrams of any size and destination fit for certain.
    pub fn room(&self) -> usize {
        let bytes = self.capacity().saturating_sub(self.used) / MAX_DATAGRAM;
        bytes.min(self.runs_max - self.runs.len())
    }

    /// Room for the next datagram, [`MAX_DATAGRAM`] bytes: write it, then [`commit`](Self::commit).
    /// What is not committed is overwritten by the next.
    #[inline]
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.arena[self.used..][..MAX_DATAGRAM]
    }

    /// Makes the first `len` bytes of the [`slot`](Self::slot) a datagram for `to`. Refused,
    /// and counted, if it is empty, too long, or there was no [room](Self::has_room).
    pub fn commit(&mut self, to: Destination, len: usize) {
        self.lane(to).commit(len);
    }

    /// For several datagrams to one destination.
    #[inline]
    pub fn lane(&mut self, to: Destination) -> Lane<'_> {
        let continues = self.runs.last().is_some_and(|run| run.to == to);
        Lane { outbox: self, to, continues }
    }

    /// Copies a finished datagram in. False, and counted, if it does not fit.
    pub fn push(&mut self, to: Destination, bytes: &[u8]) -> bool {
        let refused = self.refused;
        if bytes.len() <= MAX_DATAGRAM {
            self.slot()[..bytes.len()].copy_from_slice(bytes);
        }
        self.commit(to, bytes.len());
        self.refused == refused
    }

    /// What to hand to the kernel, in order.
    pub fn sends(&self) -> impl Iterator<Item = Send<'_>> + Clone {
        self.runs.iter().map(|run| Send {
            to: run.to,
            bytes: &self.arena[run.start..][..run.len],
            segment: run.segment,
            count: run.count,
        })
    }

    /// Datagrams committed since the last [`clear`](Self::clear).
    pub fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Datagrams refused since construction. Anything but 0 is a caller that does not ask
    /// [`has_room`](Self::has_room).
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.used = 0;
        self.datagrams = 0;
    }

    fn capacity(&self) -> usize {
        self.arena.len() - MAX_DATAGRAM
    }
}

/// Numbers only: datagrams and addresses do not belong in a log.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outbox({} datagrams, {} runs)", self.datagrams, self.runs.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_neighbours_fold_and_a_shorter_one_ends_the_run() {
        let mut outbox = Outbox::new(CAPACITY);
        for len in [1000, 1000, 700, 700, 1000] {
            assert!(outbox.push(to(1), &vec![7; len]));
        }
        assert_eq!(shape(&outbox), [(1000, 3), (700, 1), (1000, 1)]);
    }

    #[test]
    fn runs_end_at_another_destination_and_at_the_kernels_limits() {
        let mut outbox = Outbox::new(CAPACITY);
        for peer in [1, 2, 2, 1] {
            outbox.push(to(peer), &[0; 10]);
        }
        assert_eq!(shape(&outbox), [(10, 1), (10, 2), (10, 1)]);
        outbox.clear();
        for _ in 0..RUN_DATAGRAMS_MAX + 1 {
            outbox.push(to(1), &[0; 10]);
        }
        assert_eq!(shape(&outbox), [(10, RUN_DATAGRAMS_MAX), (10, 1)]);
        outbox.clear();
        for _ in 0..45 {
            outbox.push(to(1), &[0; 1400]);
        }
        assert_eq!(shape(&outbox), [(1400, RUN_BYTES_MAX / 1400), (1400, 2)]);
    }

    #[test]
    fn a_full_outbox_refuses_and_says_so_but_always_lends_a_slot() {
        let mut outbox = Outbox::new(4000);
        let mut taken = 0;
        while outbox.has_room() {
            assert!(outbox.push(to(1), &[1; 1200]));
            taken += 1;
        }
        assert_eq!((taken, outbox.slot().len()), (3, MAX_DATAGRAM));
        assert!(!outbox.push(to(1), &[1; 1200]));
        assert!(!outbox.push(to(1), &[1; MAX_DATAGRAM + 1]));
        assert!(!outbox.push(to(1), &[]));
        assert_eq!((outbox.refused(), outbox.datagrams()), (3, 3));
        outbox.clear();
        assert!(outbox.has_room() && outbox.is_empty());
    }

    #[test]
    fn the_table_of_runs_is_bounded_too() {
        let mut outbox = Outbox::new(BYTES_PER_RUN * 8);
        for peer in 0..8 {
            assert!(outbox.push(to(peer), &[1]));
        }
        assert!(!outbox.has_room());
        assert!(!outbox.push(to(9), &[1]));
    }

    proptest! {
        #[test]
        fn unfolding_gives_back_the_datagrams_in_order(
            wanted in prop::collection::vec((0u8..3, prop_oneof![
                Just(1200usize), Just(1199), 1..MAX_DATAGRAM + 1,
            ]), 0..300),
        ) {
            let mut outbox = Outbox::new(300 * MAX_DATAGRAM);
            for (n, &(peer, len)) in wanted.iter().enumerate() {
                outbox.slot()[..len].fill(n as u8);
                outbox.commit(to(peer), len);
            }
            let mut unfolded = Vec::new();
            for send in outbox.sends() {
                let datagrams: Vec<&[u8]> = send.datagrams().collect();
                prop_assert_eq!(datagrams.len(), send.count);
                prop_assert!(send.count <= RUN_DATAGRAMS_MAX && send.bytes.len() <= RUN_BYTES_MAX);
                let (last, rest) = datagrams.split_last().expect("no send is empty");
                prop_assert!(rest.iter().all(|d| d.len() == send.segment));
                prop_assert!(last.len() <= send.segment);
                unfolded.extend(datagrams.iter().map(|d| (send.to, d.to_vec())));
            }
            let expected: Vec<_> = wanted.iter().enumerate()
                .map(|(n, &(peer, len))| (to(peer), vec![n as u8; len])).collect();
            prop_assert_eq!(unfolded, expected);
        }
    }

    fn to(peer: u8) -> Destination {
        Destination {
            remote: SocketAddr::from(([192, 0, 2, peer], 5000)),
            local: SocketAddr::from(([198, 51, 100, 1], 3478)),
        }
    }

    fn shape(outbox: &Outbox) -> Vec<(usize, usize)> {
        outbox.sends().map(|send| (send.segment, send.count)).collect()
    }
}
