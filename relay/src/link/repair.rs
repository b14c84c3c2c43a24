//! Which lost packets are sent again, and which are let go.
//!
//! Invariants: the queue is bounded; what is taken from it fits the budget, is young enough for
//! its class and was not tried too often.

use std::collections::VecDeque;

use super::congestion::{Class, Congestion, REPAIR_PERCENT};
use super::sent::SentPacket;
use crate::wire::LaneId;

/// Packets waiting to be fetched and sent again. They are fetched in the same turn, so this is
/// what one report and one silence can cause: 64 runs, most of them short.
pub(super) const QUEUE_MAX: usize = 1024;

/// How often one packet is sent again. On a path that loses 10 %, a ten-thousandth is left.
const TRIES_MAX: u8 = 4;

/// A jitter buffer waits so long, in µs. A keyframe is waited for longer: without it there is
/// no picture at all.
const AUDIO_AGE_MAX: u64 = 200_000;
const VIDEO_AGE_MAX: u64 = 600_000;
const KEYFRAME_AGE_MAX: u64 = 1_000_000;

/// Bytes that may be sent again in any second, so that little traffic can be repaired: a dozen
/// packets. Beyond, it is a share of what is sent.
const BUDGET_MIN: u64 = 16 << 10;

/// A packet that was lost: to be fetched from its track's history and given to
/// [`Link::resend`](super::Link::resend).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub lane: LaneId,
    pub source: u32,
    pub seq: u64,
    pub(super) packet: SentPacket,
}

/// What waits to be sent again, and the means for it. Times are µs of link time.
#[derive(Debug)]
pub(super) struct Repair {
    queue: VecDeque<SentPacket>,
    /// Bytes that may be sent again.
    tokens: u64,
    /// In hundredths of a byte, below 100.
    rest: u64,
    /// Bytes sent in this second and in the last.
    sent: u64,
    sent_before: u64,
    second: u64,
    given_up: u64,
}

impl Repair {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            tokens: BUDGET_MIN,
            rest: 0,
            sent: 0,
            sent_before: 0,
            second: 0,
            given_up: 0,
        }
    }

    /// A datagram was sent.
    #[inline]
    pub(super) fn on_sent(&mut self, bytes: usize, percent: u64, now: u64) {
        let earned = self.rest + bytes as u64 * percent;
        self.rest = earned % 100;
        self.earn(earned / 100);
        self.sent += bytes as u64;
        self.turn(now);
    }

    /// Takes a lost datagram's packets, unless they are not worth it or there is no budget:
    /// then false. Those of a datagram that are not worth it are let go.
    pub(super) fn offer<'a>(
        &mut self,
        bytes: u16,
        packets: impl Iterator<Item = &'a SentPacket> + Clone,
        congestion: &Congestion,
        now: u64,
    ) -> bool {
        self.turn(now);
        let worth = |packet: &&SentPacket| {
            packet.tries() < TRIES_MAX
                && now.saturating_sub(packet.born) < age_max(packet.class)
                && congestion.repairs(packet.class)
        };
        let (all, some) = (packets.clone().count(), packets.clone().filter(worth).count());
        if some == 0 {
            self.given_up += all as u64;
            return true;
        }
        let full = self.queue.len() + some > QUEUE_MAX;
        if full || self.tokens < u64::from(bytes) {
            return false;
        }
        self.tokens -= u64::from(bytes);
        self.given_up += (all - some) as u64;
        for packet in packets.filter(worth) {
            // Fragments of one packet, which were lost one by one.
            let same = |other: &SentPacket| {
                (other.lane, other.source, other.seq())
                    == (packet.lane, packet.source, packet.seq())
            };
            if !self.queue.back().is_some_and(same) {
                self.queue.push_back(*packet);
            }
        }
        true
    }

    pub(super) fn poll(&mut self, now: u64) -> Option<Lost> {
        loop {
            let packet = self.queue.pop_front()?;
            if now.saturating_sub(packet.born) < age_max(packet.class) {
                let SentPacket { lane, source, .. } = packet;
                return Some(Lost { lane, source, seq: packet.seq(), packet });
            }
            self.given_up += 1;
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Packets that were let go.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    fn earn(&mut self, bytes: u64) {
        let most = (self.sent_before.max(self.sent) * REPAIR_PERCENT / 100).max(BUDGET_MIN);
        self.tokens = (self.tokens + bytes).min(most);
    }

    #[inline]
    fn turn(&mut self, now: u64) {
        let second = now / 1_000_000;
        if second != self.second {
            let next = second == self.second + 1;
            self.sent_before = if next { self.sent } else { 0 };
            (self.sent, self.second) = (0, second);
            self.tokens = self.tokens.max(BUDGET_MIN);
        }
    }
}

fn age_max(class: Class) -> u64 {
    match class {
        Class::Audio => AUDIO_AGE_MAX,
        Class::Video => VIDEO_AGE_MAX,
        Class::Keyframe => KEYFRAME_AGE_MAX,
    }
}

/// When the tail of what was sent is taken to be lost, given the round trip (the probe timeout of
/// RFC 9002, 6.2.1): a round trip with its variation, and the time a report may wait.
pub(super) fn tail_timeout(rtt: Option<u64>, var: u64) -> u64 {
    rtt.unwrap_or(RTT_UNKNOWN) + (4 * var).max(5_000) + super::gaps::REPORT_INTERVAL
}

/// Across the world, and a little.
const RTT_UNKNOWN: u64 = 250_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1 << 40;

    #[test]
    fn each_class_is_repaired_as_long_as_it_is_of_use() {
        for (class, age_max) in
            [(Class::Audio, 200_000), (Class::Video, 600_000), (Class::Keyframe, 1_000_000)]
        {
            let mut repair = Repair::new();
            assert!(offer(&mut repair, &[packet(1, class)], NOW + age_max - 1));
            assert!(offer(&mut repair, &[packet(2, class)], NOW + age_max));
            let lost = repair.poll(NOW + age_max - 1).unwrap();
            assert_eq!((lost.seq, repair.poll(NOW)), (1, None));
            assert_eq!(repair.given_up(), 1);
            offer(&mut repair, &[packet(3, class)], NOW);
            assert_eq!(repair.poll(NOW + age_max), None, "too late when it is fetched");
        }
    }

    #[test]
    fn a_packet_is_tried_four_times() {
        let mut repair = Repair::new();
        let mut packet = packet(1, Class::Video);
        for _ in 0..4 {
            assert!(offer(&mut repair, &[packet], NOW));
            packet = repair.poll(NOW).unwrap().packet.tried_again();
        }
        assert!(offer(&mut repair, &[packet], NOW));
        assert_eq!(repair.poll(NOW), None);
    }

    #[test]
    fn repairs_take_their_share_of_what_is_sent() {
        for percent in [20, 5] {
            let mut repair = Repair::new();
            let mut repaired = 0;
            for n in 0..100_000u64 {
                let now = NOW + n * 100;
                repair.on_sent(1_000, percent, now);
                let packet = born(n, Class::Video, now);
                if offer(&mut repair, &[packet], now) {
                    repaired += 1;
                    repair.poll(now);
                }
            }
            let most = 1_000 * percent;
            assert!((most..most + most / 10 + 20).contains(&repaired), "{percent} %: {repaired}");
        }
    }

    #[test]
    fn little_traffic_can_be_repaired_too() {
        let mut repair = Repair::new();
        for now in [NOW, NOW + 1_000_000] {
            let packets = (0..20).map(|n| born(n, Class::Audio, now));
            let taken = packets.filter(|packet| offer(&mut repair, &[*packet], now)).count();
            assert_eq!(taken, 16);
        }
    }

    #[test]
    fn the_queue_is_bounded_and_fragments_are_fetched_once() {
        let mut repair = Repair::new();
        repair.tokens = u64::MAX / 2;
        let (one, two) = (packet(1, Class::Video), packet(2, Class::Video));
        offer(&mut repair, &[one], NOW);
        offer(&mut repair, &[one, two], NOW);
        assert_eq!(repair.queue.len(), 2);
        for n in 0..2 * QUEUE_MAX as u64 {
            repair.tokens = 2_000;
            offer(&mut repair, &[packet(n + 10, Class::Video)], NOW);
        }
        assert_eq!(repair.queue.len(), QUEUE_MAX);
    }

    fn offer(repair: &mut Repair, packets: &[SentPacket], now: u64) -> bool {
        repair.offer(1_000, packets.iter(), &Congestion::new(NOW), now)
    }

    fn packet(seq: u64, class: Class) -> SentPacket {
        born(seq, class, NOW)
    }

    fn born(seq: u64, class: Class, now: u64) -> SentPacket {
        SentPacket::new(LaneId::new(1).unwrap(), 1, seq, class, now)
    }
}
