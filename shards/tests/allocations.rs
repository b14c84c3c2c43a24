//! The heap on the way of a packet: what one received packet allocates does not depend on how
//! many subscribers get it, and their copies allocate nothing. Nor do the checks of an idle
//! session.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

#[path = "engine/client.rs"]
#[expect(dead_code, reason = "shared with the engine's tests, which use all of it")]
mod client;
#[path = "engine/hub.rs"]
#[expect(dead_code, reason = "shared with the engine's tests, which use all of it")]
mod hub;
#[path = "engine/world.rs"]
#[expect(dead_code, reason = "shared with the engine's tests, which use all of it")]
mod world;

use shards::engine::Progress;
use shards::outbox::{CAPACITY, Outbox};
use str0m::media::MediaKind;
use world::{World, secs};

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

/// Packets measured, after as many to warm up.
const PACKETS: usize = 2000;

/// Allocations of the shard that receives, and of another with `elsewhere` subscribers, while
/// packets of one track go to all subscribers.
fn measure(kind: MediaKind, here: usize, elsewhere: usize) -> (u64, u64, u64) {
    let mut world = World::new(2);
    let (publisher, session, _) = world.publisher(0, &[("track", kind)]);
    for shard in std::iter::repeat_n(0, here).chain(std::iter::repeat_n(1, elsewhere)) {
        world.viewer(shard, &[(session, "track")]);
    }
    // Until the subscribers have a keyframe and the reports have acknowledged their streams.
    world.run(secs(5));
    world.flows[0].paused = true;
    world.run(secs(1));
    let source = world.flows[0].source.clone();
    let mut received = Vec::new();
    for _ in 0..PACKETS * 2 {
        world.now += Duration::from_micros(10);
        let now = world.now;
        world.clients[publisher].send(&source, 1, 1000, false, now);
        received.append(&mut world.clients[publisher].outgoing);
    }
    assert!(COUNT.with(Cell::get) > 10_000, "the clients allocate, and that is counted");
    let from = world.clients[publisher].external;
    let mut outbox = Outbox::new(CAPACITY);
    let mut total = (0, 0, 0);
    for (n, (to, mut bytes)) in received.into_iter().enumerate() {
        let (allocations, mailed, copies) = turn(&mut world, from, to, &mut bytes, &mut outbox);
        if n >= PACKETS {
            total = (total.0 + allocations, total.1 + mailed, total.2 + copies);
        }
    }
    total
}

/// One packet through both shards: allocations of each, and how many copies left.
fn turn(
    world: &mut World,
    from: SocketAddr,
    to: SocketAddr,
    bytes: &mut [u8],
    outbox: &mut Outbox,
) -> (u64, u64, u64) {
    let now = world.now;
    let count = || COUNT.with(Cell::get);
    let [here, there] = &mut world.engines[..] else { panic!("two shards") };
    let started = count();
    here.handle_datagram(from, to, bytes, now);
    while here.spread(outbox, now) == Progress::More {}
    let received = count() - started;
    let mut copies = outbox.datagrams() as u64;
    outbox.clear();
    let started = count();
    for (_, mail) in here.poll_mail() {
        there.handle_mail(shards::ids::ShardId(0), mail, now);
    }
    while there.spread(outbox, now) == Progress::More {}
    let mailed = count() - started;
    copies += outbox.datagrams() as u64;
    outbox.clear();
    (received, mailed, copies)
}

#[test]
fn forwarding_allocates_nothing_however_many_subscribe() {
    for kind in [MediaKind::Audio, MediaKind::Video] {
        for (here, elsewhere) in [(1, 0), (50, 0), (1, 1), (1, 50)] {
            let (received, mailed, copies) = measure(kind, here, elsewhere);
            println!(
                "{kind}, {here}+{elsewhere} subscribers: {received} allocations to receive \
                 {PACKETS} packets, {mailed} elsewhere, {copies} copies"
            );
            assert!(copies as usize >= PACKETS * (here + elsewhere), "{copies} copies");
            // A queue may grow once more; nothing may grow with packets or copies.
            assert!(received + mailed <= 8, "{received} here, {mailed} elsewhere");
        }
    }
}

#[test]
fn a_check_that_keeps_a_path_alive_allocates_nothing() {
    let mut world = World::new(1);
    let (client, _, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    world.flows[0].paused = true;
    world.run(secs(40));
    let mut outbox = Outbox::new(CAPACITY);
    let (mut allocations, mut answers) = (0, 0);
    for n in 0..200 {
        world.now += Duration::from_millis(100);
        let now = world.now;
        world.clients[client].drive(now);
        let from = world.clients[client].external;
        let sent = std::mem::take(&mut world.clients[client].outgoing);
        // Its reports are another matter.
        for (to, mut bytes) in sent.into_iter().filter(|(_, bytes)| bytes.starts_with(&[0, 1])) {
            let engine = &mut world.engines[0];
            let started = COUNT.with(Cell::get);
            engine.handle_datagram(from, to, &mut bytes, now);
            assert_eq!(engine.spread(&mut outbox, now), Progress::Done);
            if n >= 100 {
                allocations += COUNT.with(Cell::get) - started;
                answers += outbox.datagrams();
            }
            outbox.clear();
        }
    }
    assert!(answers >= 3, "the client checks its path: {answers} answers");
    assert_eq!(allocations, 0);
}
