//! The heap on the way of a packet between nodes: once the tables have grown, nothing is
//! allocated, whether packets pass, are lost and repaired, or are cut into fragments.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use relay::link::{Class, Link, Sink};
use relay::seal::{End, LinkSecret, PairSecret};
use relay::wire::{DATAGRAM_MAX, LaneId, LinkId, Media};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged; counting touches only a
// thread-local without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Datagrams back to back.
struct Arena {
    bytes: Vec<u8>,
    used: usize,
    lens: Vec<usize>,
}

impl Sink for Arena {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..][..DATAGRAM_MAX]
    }

    fn commit(&mut self, len: usize) {
        self.used += len;
        self.lens.push(len);
    }
}

/// A turn of one end: what is lost is fetched from a history that has everything.
fn turn(link: &mut Link, out: &mut Arena, packets: &[Media<'_>], payload: &[u8], now: Instant) {
    link.handle_timeout(now);
    while let Some(lost) = link.poll_resend(now) {
        let media = Media { seq: lost.seq, payload, ..packet(lost.lane) };
        link.resend(now, lost, &media, out);
    }
    for media in packets {
        link.push(now, media, Class::Video, out);
    }
    link.flush(now, out);
}

/// Allocations in three seconds after three, and packets delivered and repaired in all.
fn measure(len: usize, lost_each: u64) -> (u64, u64, u64) {
    let link = |id| LinkId::new(id).unwrap();
    let here = End { node: 1, shard: 2, link: link(3) };
    let there = End { node: 4, shard: 5, link: link(6) };
    let secret = |here, there| LinkSecret::new(PairSecret::new(&[7; 32]), here, there);
    #[expect(clippy::disallowed_methods, reason = "tests need some beginning of time")]
    let begin = Instant::now();
    let mut ends =
        [secret(here, there), secret(there, here)].map(|secret| Link::new(secret, begin));
    let lane = ends[1].open_lane().unwrap();
    let new = || Arena { bytes: vec![0; 1 << 20], used: 0, lens: Vec::with_capacity(1024) };
    let mut arenas = [new(), new()];
    let payload = vec![7; len];
    let (mut seq, mut carried, mut delivered, mut before) = (0, 0u64, 0, 0);
    for tick in 0..600 {
        if tick == 300 {
            before = COUNT.with(Cell::get);
        }
        let now = begin + Duration::from_millis(10) * tick;
        let packets: [_; 8] = std::array::from_fn(|n| Media {
            seq: seq + n as u64,
            payload: &payload,
            ..packet(lane)
        });
        seq += packets.len() as u64;
        turn(&mut ends[0], &mut arenas[0], &packets, &payload, now);
        turn(&mut ends[1], &mut arenas[1], &[], &payload, now);
        for (from, to) in [(0, 1), (1, 0)] {
            let Arena { bytes, used, lens } = &mut arenas[from];
            let mut at = 0;
            for len in lens.drain(..) {
                carried += 1;
                let datagram = &mut bytes[at..at + len];
                at += len;
                if !carried.is_multiple_of(lost_each) {
                    ends[to].handle_datagram(now, datagram, |_| delivered += 1).unwrap();
                }
            }
            *used = 0;
        }
    }
    let count = COUNT.with(Cell::get) - before;
    (count, delivered, ends[1].stats().repaired)
}

fn packet(lane: LaneId) -> Media<'static> {
    Media {
        lane,
        layer: 0,
        codec: 0,
        marker: false,
        keyframe: false,
        padding: 0,
        source: 1,
        seq: 0,
        timestamp: 1,
        extensions: &[1, 2, 3],
        payload: &[],
    }
}

#[test]
fn packets_pass_without_an_allocation() {
    for (len, lost_each) in [(100, u64::MAX), (1200, u64::MAX), (1200, 37), (3000, 101)] {
        let (count, delivered, repaired) = measure(len, lost_each);
        println!("{len} bytes, 1/{lost_each} lost: {count} allocations, {repaired} repaired");
        assert!(delivered > 4_700, "{delivered} delivered");
        assert_eq!(repaired > 30, lost_each != u64::MAX, "{repaired} repaired");
        assert_eq!(count, 0);
    }
}

#[test]
fn a_new_lane_and_source_allocate_and_that_is_counted() {
    let before = COUNT.with(Cell::get);
    measure(100, u64::MAX);
    assert!(COUNT.with(Cell::get) - before > 10);
}
