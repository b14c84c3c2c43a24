//! Shard to shard: one lock-free ring for each ordered pair, a doorbell for each shard, a load
//! gauge for each shard. All that threads share, besides the immutable configuration.
//!
//! Invariants: media never waits (a full ring drops it, counted), everything else always
//! arrives, in order; a shard is rung once per turn at most, and only when it sleeps.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::ids::ShardId;
use crate::io::bell::{Bell, Ear};
use crate::mail::Mail;
use crate::snapshot::MailCounters;

/// Messages one shard can leave for another while that one is busy. A busy turn lasts about a
/// millisecond and posts one message per track; 4,096 tracks pulled across one pair of shards
/// is more than a core can feed.
const RING: usize = 4096;

/// Every shard's place in the mesh, in the order of shards.
pub fn seats(shards: usize) -> io::Result<Vec<Seat>> {
    let bells = (0..shards).map(|_| Bell::new()).collect::<io::Result<Vec<_>>>()?;
    let loads: Arc<[AtomicU32]> = (0..shards).map(|_| AtomicU32::new(0)).collect();
    let mut seats: Vec<Seat> = (0..shards)
        .map(|shard| Seat {
            me: ShardId(shard as u8),
            lanes: Vec::with_capacity(shards),
            mailboxes: Vec::with_capacity(shards),
            bells: bells.clone(),
            loads: Arc::clone(&loads),
            dropped: 0,
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (producer, consumer) = RingBuffer::new(if from == to { 1 } else { RING });
            seats[from].lanes.push(Lane { ring: producer, waiting: VecDeque::new(), used: false });
            seats[to].mailboxes.push(consumer);
        }
    }
    Ok(seats)
}

/// One shard's place: its ways to the others, and theirs to it.
#[derive(Debug)]
pub struct Seat {
    me: ShardId,
    /// By receiver.
    lanes: Vec<Lane>,
    /// By sender.
    mailboxes: Vec<Consumer<Mail>>,
    bells: Vec<Bell>,
    loads: Arc<[AtomicU32]>,
    dropped: u64,
}

#[derive(Debug)]
struct Lane {
    ring: Producer<Mail>,
    /// What must arrive and found the ring full. Bounded by what its kinds are bounded by:
    /// requests by tickets, wants by tracks, routes by paths.
    waiting: VecDeque<Mail>,
    /// Something was left since the last bell.
    used: bool,
}

impl Seat {
    pub fn me(&self) -> ShardId {
        self.me
    }

    pub fn shards(&self) -> usize {
        self.lanes.len()
    }

    /// The bell that wakes this shard.
    pub fn bell(&self) -> Bell {
        self.bells[self.me.index()].clone()
    }

    /// The listening side of that bell. One per shard.
    pub fn ear(&self) -> Ear {
        self.bells[self.me.index()].ear()
    }

    /// Leaves a message for another shard.
    pub fn post(&mut self, to: ShardId, mail: Mail) {
        let Some(lane) = self.lanes.get_mut(to.index()) else { return };
        lane.used = true;
        if lane.waiting.is_empty() {
            match lane.ring.push(mail) {
                Ok(()) => {}
                Err(rtrb::PushError::Full(mail)) => lane.keep(mail, &mut self.dropped),
            }
        } else {
            lane.keep(mail, &mut self.dropped);
        }
    }

    /// Rings the shards that got something since the last call.
    pub fn ring(&mut self) {
        for (lane, bell) in self.lanes.iter_mut().zip(&self.bells) {
            lane.catch_up();
            if std::mem::take(&mut lane.used) {
                bell.ring();
            }
        }
    }

    /// The next message from any shard.
    pub fn take(&mut self) -> Option<(ShardId, Mail)> {
        for (from, mailbox) in self.mailboxes.iter_mut().enumerate() {
            if let Ok(mail) = mailbox.pop() {
                return Some((ShardId(from as u8), mail));
            }
        }
        None
    }

    /// Whether [`Self::take`] would find something, or something still waits to be posted.
    pub fn has_work(&self) -> bool {
        self.mailboxes.iter().any(|mailbox| !mailbox.is_empty())
            || self.lanes.iter().any(|lane| !lane.waiting.is_empty() && !lane.ring.is_full())
    }

    /// Whether something waits for room with another shard. Nobody rings when there is room: who
    /// sleeps now has to look again soon.
    pub fn has_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.waiting.is_empty())
    }

    /// Messages dropped because a ring was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn counters(&self) -> MailCounters {
        MailCounters {
            waiting_in: self.mailboxes.iter().map(|mailbox| mailbox.slots() as u64).sum(),
            waiting_out: self.lanes.iter().map(|lane| lane.waiting.len() as u64).sum(),
            dropped: self.dropped,
        }
    }

    /// Tells the others how much this shard carries.
    pub fn set_load(&self, load: u32) {
        // A gauge: a stale value misplaces one session.
        self.loads[self.me.index()].store(load, Ordering::Relaxed);
    }

    /// Everybody's load, for [`place`] and health.
    pub fn loads(&self) -> Arc<[AtomicU32]> {
        Arc::clone(&self.loads)
    }
}

impl Lane {
    fn keep(&mut self, mail: Mail, dropped: &mut u64) {
        if mail.may_be_dropped() {
            *dropped += 1;
        } else {
            self.waiting.push_back(mail);
        }
    }

    fn catch_up(&mut self) {
        while let Some(mail) = self.waiting.pop_front() {
            if let Err(rtrb::PushError::Full(mail)) = self.ring.push(mail) {
                self.waiting.push_front(mail);
                return;
            }
            self.used = true;
        }
    }
}

/// Which shard a new session goes to: the less loaded of two random ones. Two choices keep the
/// fullest shard close to the average; one would not, and all would herd.
pub fn place(loads: &[AtomicU32], random: u64) -> ShardId {
    let shards = loads.len().max(1) as u64;
    let first = (random % shards) as usize;
    // The second choice is another shard, if there is one.
    let step = if shards > 1 { 1 + (random >> 32) % (shards - 1) } else { 0 };
    let second = ((first as u64 + step) % shards) as usize;
    let load = |shard: usize| loads.get(shard).map_or(0, |load| load.load(Ordering::Relaxed));
    ShardId(if load(second) < load(first) { second } else { first } as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Key;

    fn unroute(port: u16) -> Mail {
        Mail::Unroute { source: ([127, 0, 0, 1], port).into() }
    }

    fn stray() -> Mail {
        let address = ([127, 0, 0, 1], 1).into();
        Mail::Stray { source: address, local: address, bytes: Box::default() }
    }

    fn port(mail: &Mail) -> u16 {
        match mail {
            Mail::Unroute { source } => source.port(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_must_arrive_arrives_in_order_even_through_a_full_ring() {
        let mut seats = seats(2).unwrap();
        let (mut receiver, mut sender) = (seats.pop().unwrap(), seats.pop().unwrap());
        for n in 0..10_000u16 {
            sender.post(ShardId(1), unroute(n));
        }
        let mut next = 0;
        while next < 10_000 {
            sender.ring();
            while let Some((from, mail)) = receiver.take() {
                assert_eq!((from, port(&mail)), (ShardId(0), next));
                next += 1;
            }
        }
        assert_eq!(sender.dropped(), 0);
    }

    #[test]
    fn a_shard_that_falls_asleep_knows_that_mail_waits_for_a_full_ring() {
        let mut seats = seats(2).unwrap();
        let (mut receiver, mut sender) = (seats.pop().unwrap(), seats.pop().unwrap());
        for n in 0..=RING as u16 {
            assert!(!sender.has_waiting());
            sender.post(ShardId(1), unroute(n));
        }
        sender.ring();
        assert!(sender.has_waiting() && !sender.has_work(), "there is no room yet");
        receiver.take().unwrap();
        assert!(sender.has_waiting() && sender.has_work());
        sender.ring();
        assert!(!sender.has_waiting() && !sender.has_work());
    }

    #[test]
    fn media_is_dropped_and_counted_when_the_ring_is_full() {
        let mut seats = seats(2).unwrap();
        for _ in 0..RING + 5 {
            seats[0].post(ShardId(1), stray());
        }
        assert_eq!(seats[0].dropped(), 5);
    }

    #[test]
    fn what_a_peer_repeats_at_will_does_not_pile_up_behind_a_full_ring() {
        let mut seats = seats(2).unwrap();
        let feed = Key::dangling();
        for _ in 0..RING + 5 {
            seats[0].post(ShardId(1), Mail::Keyframe { feed, layer: 0 });
        }
        assert!(!seats[0].has_waiting());
        assert_eq!(seats[0].dropped(), 5);
    }

    #[test]
    fn new_sessions_go_to_the_less_loaded_of_two_shards() {
        let loads: Vec<AtomicU32> = [9, 1, 9, 9].into_iter().map(AtomicU32::new).collect();
        let mut state = 1u64;
        let mut counts = [0; 4];
        for _ in 0..4000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            counts[place(&loads, state ^ state >> 29).index()] += 1;
        }
        assert!(counts[1] > 1700, "{counts:?}");
        assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
        assert_eq!(place(&loads[..1], 12345), ShardId(0));
    }
}
