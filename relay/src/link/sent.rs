//! What was sent in which datagram, so that what was lost can be fetched and sent again: not the
//! bytes, which are in the tracks' histories, but whose they are.
//!
//! A lost datagram's packets are sent again in new datagrams, under new numbers. The last ones
//! of a burst have nothing after them that would reveal a gap: if nothing is heard of them in
//! time, up to three are sent again (RFC 8985, 7: tail loss probe).
//!
//! Invariants: one entry per number, without gaps; entries are forgotten in order, by age and by
//! count. A datagram's packets are handed out for repair once.
//!
//! Not here: whether a repair is worth it (`repair`).

use std::collections::{VecDeque, vec_deque};

use super::congestion::Class;
use crate::wire::{LaneId, MissingRun};

/// How long is remembered, in µs: nothing older is worth repairing.
pub(super) const AGE_MAX: u64 = 1_000_000;

/// Datagrams remembered: at more than 16,384 a second, less than a second, still many round
/// trips. 384 KiB on a link that needs it.
pub(super) const DATAGRAMS_MAX: usize = 16_384;

/// Packets remembered. Sound packs ten to a datagram, but then datagrams are few. 1 MiB.
pub(super) const PACKETS_MAX: usize = 32_768;

/// Datagrams of the tail that are sent again at once.
const TAIL: usize = 3;

/// One packet that travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SentPacket {
    pub(super) lane: LaneId,
    pub(super) source: u32,
    /// The low 48 bits: the sequence number; above: how often it was sent again.
    seq_and_tries: u64,
    pub(super) class: Class,
    /// When it was first sent.
    pub(super) born: u64,
}

impl SentPacket {
    pub(super) fn new(lane: LaneId, source: u32, seq: u64, class: Class, born: u64) -> Self {
        Self { lane, source, seq_and_tries: seq & SEQ_MASK, class, born }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq_and_tries & SEQ_MASK
    }

    pub(super) fn tries(&self) -> u8 {
        (self.seq_and_tries >> 48) as u8
    }

    pub(super) fn tried_again(self) -> Self {
        Self { seq_and_tries: self.seq_and_tries + (1 << 48), ..self }
    }
}

#[derive(Debug, Clone, Copy)]
struct SentDatagram {
    at: u64,
    /// The serial number of its first packet, wrapping.
    packet: u32,
    bytes: u16,
    /// At most what fits a datagram: 62 empty ones.
    packets: u8,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    /// Reported missing.
    Lost,
    /// Its packets were handed out to be sent again.
    Repaired,
}

/// The datagrams of one direction of a link. Times are µs of link time.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The number of `datagrams[0]`.
    first: u64,
    datagrams: VecDeque<SentDatagram>,
    /// Of all datagrams, in order; behind them those of the one that is being built.
    packets: VecDeque<SentPacket>,
    /// The serial number of `packets[0]`, wrapping.
    first_packet: u32,
    building: usize,
    /// The other side has reported on all below.
    told: u64,
    /// One more than the number of the last datagram with packets, and when it was sent.
    tail: u64,
    tail_at: u64,
    /// Since when something was sent that nothing is known of.
    waiting_since: Option<u64>,
}

/// The packets of one datagram.
pub(super) type Packets<'a> = vec_deque::Iter<'a, SentPacket>;

/// What a report changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Datagrams whose fate was told for the first time.
    pub(super) sent: u64,
    /// Datagrams reported missing for the first time.
    pub(super) lost: u64,
    /// When the largest was sent, if it was not reported before.
    pub(super) sent_at: Option<u64>,
}

impl Sent {
    /// A packet goes into the datagram that is being built.
    #[inline]
    pub(super) fn add(&mut self, packet: SentPacket) {
        self.packets.push_back(packet);
        self.building += 1;
    }

    /// The datagram that is being built will not be sent.
    pub(super) fn abandon(&mut self) {
        self.packets.truncate(self.packets.len() - self.building);
        self.building = 0;
    }

    /// It was sent, with the next number.
    #[inline]
    pub(super) fn on_sent(&mut self, bytes: usize, now: u64) {
        self.prune(now);
        let packets = std::mem::take(&mut self.building);
        let before = (self.packets.len() - packets) as u32;
        let entry = SentDatagram {
            at: now,
            packet: self.first_packet.wrapping_add(before),
            bytes: bytes as u16,
            packets: packets as u8,
            fate: Fate::Unknown,
        };
        self.datagrams.push_back(entry);
        if packets > 0 {
            self.tail = self.next();
            self.tail_at = now;
            self.waiting_since = self.waiting_since.or(Some(now));
        }
    }

    /// The number of the next datagram.
    pub(super) fn next(&self) -> u64 {
        self.first + self.datagrams.len() as u64
    }

    /// The other side has received up to `largest`.
    pub(super) fn on_report(&mut self, largest: u64, now: u64) -> Told {
        debug_assert!(largest < self.next());
        let mut told = Told::default();
        if largest >= self.told {
            told.sent = largest + 1 - self.told;
            told.sent_at = self.entry(largest).map(|entry| entry.at);
            self.told = largest + 1;
            self.waiting_since = (self.tail > self.told).then_some(now);
        }
        told
    }

    /// Goes through the datagrams reported missing that were not repaired yet. `repair` gets the
    /// size of each and its packets, and says whether it took them. Returns how many had not
    /// been reported before.
    pub(super) fn on_missing(
        &mut self,
        run: MissingRun,
        mut repair: impl FnMut(u16, Packets<'_>) -> bool,
    ) -> u64 {
        let (first, end) = (run.first.max(self.first), (run.first + run.len).min(self.next()));
        let mut lost = 0;
        for number in first..end {
            let at = (number - self.first) as usize;
            lost += u64::from(self.datagrams[at].fate == Fate::Unknown);
            self.hand_out(at, Fate::Lost, &mut repair);
        }
        lost
    }

    /// When the tail was last sent, if nothing is known of it.
    pub(super) fn tail_at(&self) -> Option<u64> {
        (self.tail > self.told).then_some(self.tail_at)
    }

    /// Since when the other side has told nothing about what was sent.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        self.waiting_since
    }

    /// Hands out the last datagrams with packets that nothing is known of, as
    /// [`on_missing`](Self::on_missing) does.
    pub(super) fn on_tail(&mut self, mut repair: impl FnMut(u16, Packets<'_>) -> bool) {
        let from = (self.told.max(self.first) - self.first) as usize;
        let mut left = TAIL;
        for at in (from..self.datagrams.len()).rev() {
            let entry = &self.datagrams[at];
            if entry.packets > 0 && entry.fate == Fate::Unknown {
                self.hand_out(at, Fate::Unknown, &mut repair);
                left -= 1;
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Offers the packets of one datagram; it is `otherwise` if they are not taken.
    fn hand_out(
        &mut self,
        at: usize,
        otherwise: Fate,
        mut repair: impl FnMut(u16, Packets<'_>) -> bool,
    ) {
        let entry = &mut self.datagrams[at];
        if entry.fate == Fate::Repaired {
            return;
        }
        entry.fate = otherwise;
        let begin = entry.packet.wrapping_sub(self.first_packet) as usize;
        let packets = self.packets.range(begin..begin + usize::from(entry.packets));
        if entry.packets > 0 && repair(entry.bytes, packets) {
            entry.fate = Fate::Repaired;
        }
    }

    fn entry(&self, number: u64) -> Option<&SentDatagram> {
        self.datagrams.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    #[inline]
    fn prune(&mut self, now: u64) {
        while let Some(&oldest) = self.datagrams.front() {
            let old = now.saturating_sub(oldest.at) > AGE_MAX;
            let many = self.datagrams.len() >= DATAGRAMS_MAX || self.packets.len() >= PACKETS_MAX;
            if !old && !many {
                return;
            }
            for _ in 0..oldest.packets {
                self.packets.pop_front();
            }
            self.first_packet = self.first_packet.wrapping_add(u32::from(oldest.packets));
            self.datagrams.pop_front();
            self.first += 1;
        }
    }
}

const SEQ_MASK: u64 = 0xffff_ffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_of_a_missing_datagram_are_handed_out_once() {
        let mut sent = Sent::default();
        for n in 0..10u64 {
            (0..n % 3).for_each(|part| sent.add(packet(n * 10 + part)));
            sent.on_sent(100 + n as usize, n);
        }
        assert_eq!(sent.on_report(9, 20), Told { sent: 10, lost: 0, sent_at: Some(9) });
        assert_eq!(missing(&mut sent, 4, 3), (3, vec![(104, vec![40]), (105, vec![50, 51])]));
        assert_eq!(missing(&mut sent, 4, 4), (1, vec![(107, vec![70])]));
        assert_eq!(sent.on_report(8, 20), Told::default());
    }

    #[test]
    fn what_was_not_taken_is_offered_with_the_next_report() {
        let mut sent = Sent::default();
        sent.add(packet(1));
        sent.on_sent(100, 0);
        let run = MissingRun { first: 0, len: 1 };
        assert_eq!(sent.on_missing(run, |_, _| false), 1);
        assert_eq!(missing(&mut sent, 0, 1), (0, vec![(100, vec![1])]));
    }

    #[test]
    fn the_tail_is_the_last_three_that_nothing_is_known_of() {
        let mut sent = Sent::default();
        for n in 0..6 {
            sent.add(packet(n));
            sent.on_sent(100, n);
            sent.on_sent(40, n);
        }
        assert_eq!(sent.tail_at(), Some(5));
        sent.on_report(1, 9);
        let mut tail = Vec::new();
        let take = |tail: &mut Vec<u64>, packets: Packets<'_>| {
            tail.extend(packets.map(|packet| packet.seq()));
            true
        };
        sent.on_tail(|_, packets| take(&mut tail, packets));
        assert_eq!(tail, [5, 4, 3]);
        sent.on_tail(|_, packets| take(&mut tail, packets));
        assert_eq!(tail, [5, 4, 3, 2, 1]);
        sent.on_report(11, 9);
        assert_eq!((sent.tail_at(), sent.waiting_since()), (None, None));
    }

    #[test]
    fn an_abandoned_datagram_leaves_no_trace() {
        let mut sent = Sent::default();
        sent.add(packet(1));
        sent.on_sent(100, 0);
        sent.add(packet(2));
        sent.add(packet(3));
        sent.abandon();
        sent.add(packet(4));
        sent.on_sent(100, 0);
        assert_eq!(missing(&mut sent, 0, 2).1, [(100, vec![1]), (100, vec![4])]);
    }

    #[test]
    fn memory_is_bounded_in_age_datagrams_and_packets() {
        let mut sent = Sent::default();
        for n in 0..3 * DATAGRAMS_MAX as u64 {
            (0..4).for_each(|part| sent.add(packet(n * 4 + part)));
            sent.on_sent(100, 0);
            assert!(sent.datagrams.len() <= DATAGRAMS_MAX);
            assert!(sent.packets.len() <= PACKETS_MAX + 4);
        }
        let next = sent.next();
        let (lost, handed) = missing(&mut sent, 0, next);
        assert!(lost < DATAGRAMS_MAX as u64);
        assert_eq!(handed.last().unwrap().1.last(), Some(&(4 * next - 1)));
        sent.on_sent(100, 2 * AGE_MAX);
        assert_eq!((sent.datagrams.len(), sent.packets.len()), (1, 0));
        assert_eq!(missing(&mut sent, 0, next).0, 0, "forgotten");
    }

    #[test]
    fn a_packet_remembers_how_often_it_was_tried() {
        let packet = packet(SEQ_MASK).tried_again().tried_again();
        assert_eq!((packet.seq(), packet.tries()), (SEQ_MASK, 2));
    }

    fn packet(seq: u64) -> SentPacket {
        SentPacket::new(LaneId::new(1).unwrap(), 1, seq, Class::Video, 0)
    }

    fn missing(sent: &mut Sent, first: u64, len: u64) -> (u64, Vec<(u16, Vec<u64>)>) {
        let mut handed = Vec::new();
        let lost = sent.on_missing(MissingRun { first, len }, |bytes, packets| {
            handed.push((bytes, packets.map(|packet| packet.seq()).collect()));
            true
        });
        (lost, handed)
    }
}
