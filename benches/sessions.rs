//! What a session costs besides its media: joining, staying idle, and the memory it holds.
//!
//! Real negotiations with real ICE and DTLS against one engine in virtual time; only engine
//! calls are on the clock, and of memory only what is left when the clients are gone.
//! A keep-alive is a Binding request as Chromium sends one each 2.5 s, authenticated, of
//! thousands of sessions in random order, so that no session is in a cache when it comes; the
//! sessions' timers are in it. Sockets are not: see the bench `port`.
//!
//! `cargo bench --bench sessions [-- --quick]`

#![expect(clippy::print_stdout, reason = "a bench's output is its table")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::joins::{Costs, Joined, Lobby, Step};
use common::stage::{Track, shard_address};
use common::{median, pin, spent};
use shards::engine::Progress;
use shards::session::keys;
use str0m::ice::{StunMessage, TransId};

/// How often a browser checks a path in use.
const RHYTHM: Duration = Duration::from_millis(2500);
/// Steps that [`RHYTHM`] is cut into: what comes within one is one turn.
const TURNS: u32 = 250;
/// Rhythms that pass before: tracks without media end, silent subscribers leave.
const SETTLING: usize = 20;
/// Idle sessions whose keep-alives may take this share of a core.
const IDLE: f64 = 10_000.0;
const IDLE_SHARE: f64 = 10.0;
const JOIN_US: f64 = 400.0;
const RESIDENT_KB: f64 = 100.0;

/// Counts what passes through it. The C library's own allocations (cryptographic keys) do not;
/// `mallinfo2` sees both.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (sessions, passes) = if quick { (1000, 3) } else { (6000, 7) };
    pin(1);
    let mut lobby = Lobby::new();
    pulls(&mut lobby, if quick { 200 } else { 1000 });
    let joined = pushes(&mut lobby, sessions);
    keep_alives(&mut lobby, &joined, passes);
}

fn pulls(lobby: &mut Lobby, count: usize) {
    let mut costs = Vec::with_capacity(count);
    let before = Memory::now();
    for n in 0..count {
        if n % 100 == 0 {
            lobby.stage.flow(Track::Vp8);
            lobby.stage.flow(Track::Opus);
        }
        costs.push(lobby.pull().1);
    }
    tell_joins("a join that pulls audio and video", &costs);
    Memory::now().tell(&before, count, "subscriber");
}

fn pushes(lobby: &mut Lobby, count: usize) -> Vec<Joined> {
    let mut costs = Vec::with_capacity(count);
    let mut joined = Vec::with_capacity(count);
    // What begins with the first session is no session's.
    lobby.push();
    let before = Memory::now();
    for _ in 0..count {
        let (client, cost) = lobby.push();
        joined.push(client);
        costs.push(cost);
    }
    tell_joins("a join that publishes audio and video", &costs);
    // What the bench itself remembers of each.
    let own = |client: &Joined| client.username.capacity() + client.password.capacity();
    let own: usize = joined.iter().map(own).sum();
    let mut after = Memory::now();
    after.live -= own as i64;
    after.tell(&before, count, "publisher");
    joined
}

fn tell_joins(title: &str, costs: &[Costs]) {
    println!("{title}: µs of CPU, median of {}", costs.len());
    for step in Step::ALL {
        let at = step as usize;
        let mut ns: Vec<f64> = costs.iter().map(|cost| cost.ns[at]).collect();
        let calls = costs[costs.len() / 2].calls[at];
        if calls > 0 {
            println!(
                "  {:<12} {:>7.1}  in {calls} calls",
                format!("{step:?}"),
                median(&mut ns) / 1e3
            );
        }
    }
    let mut totals: Vec<f64> = costs.iter().map(Costs::total).collect();
    let total = median(&mut totals) / 1e3;
    let verdict = if total <= JOIN_US { "PASS" } else { "over" };
    println!("  {:<12} {total:>7.1}  {verdict} (aim {JOIN_US:.0})\n", "together");
}

/// What this process holds.
struct Memory {
    /// Bytes in use, of Rust's allocator.
    live: i64,
    /// Bytes in use, of all of malloc, with what malloc needs for itself.
    malloc: usize,
    resident: usize,
}

impl Memory {
    fn now() -> Self {
        // SAFETY: reads counters.
        let info = unsafe { libc::mallinfo2() };
        let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        Self {
            live: LIVE.load(Ordering::Relaxed),
            malloc: info.uordblks + info.hblkhd,
            resident: pages.expect("a number") * 4096,
        }
    }

    fn tell(&self, before: &Self, count: usize, what: &str) {
        let each = |bytes: usize| bytes as f64 / count as f64 / 1e3;
        let resident = each(self.resident.saturating_sub(before.resident));
        let verdict = if resident <= RESIDENT_KB { "PASS" } else { "over" };
        println!("memory of a connected {what}, of {count}: KB");
        println!("  heap, Rust's {:>6.1}", each((self.live - before.live) as usize));
        println!("  heap, all    {:>6.1}", each(self.malloc - before.malloc));
        println!("  resident     {resident:>6.1}  {verdict} (aim {RESIDENT_KB:.0})\n");
    }
}

/// A Binding request as Chromium's on the path in use, without its attributes of its own.
fn request(client: &Joined) -> Vec<u8> {
    let id = TransId::new();
    let message = StunMessage::binding_request(&client.username, id, true, 7, 0x6e7f_1eff, true);
    let hmac = keys::provider().sha1_hmac_provider;
    let mut bytes = vec![0; 200];
    let sign = |key: &[u8], parts: &[&[u8]]| hmac.sha1_hmac(key, parts);
    let len = message.to_bytes(Some(client.password.as_bytes()), &mut bytes, sign);
    bytes.truncate(len.expect("it fits"));
    bytes
}

fn keep_alives(lobby: &mut Lobby, joined: &[Joined], passes: usize) {
    let mut order: Vec<&Joined> = joined.iter().collect();
    let mut state = 7u64;
    let mut shares = Vec::with_capacity(passes);
    for pass in 0..passes + SETTLING {
        for at in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, (state >> 33) as usize % (at + 1));
        }
        let ns = rhythm(lobby, &order);
        if pass >= SETTLING {
            shares.push(ns / order.len() as f64);
        }
    }
    let each = median(&mut shares);
    let share = each * IDLE / RHYTHM.as_nanos() as f64 * 100.0;
    // The aim is for sockets and wake-ups too: this alone can only miss it.
    let verdict = if share <= IDLE_SHARE { "within" } else { "over" };
    println!("{} idle sessions, each checked every 2.5 s in random order", order.len());
    println!("  a keep-alive, with its share of timers   {each:>6.0} ns");
    println!(
        "  {IDLE:.0} sessions: {share:.2} % of a core in the engine, {verdict} {IDLE_SHARE:.0} %"
    );
}

/// One keep-alive of everybody; ns in the engine.
fn rhythm(lobby: &mut Lobby, order: &[&Joined]) -> f64 {
    let mut ns = 0.0;
    for turn in order.chunks(order.len().div_ceil(TURNS as usize)) {
        lobby.stage.now += RHYTHM / TURNS;
        let mut requests: Vec<_> =
            turn.iter().map(|client| (client.address, request(client))).collect();
        let (engine, now) = (&mut lobby.stage.engines[0], lobby.stage.now);
        let outbox = &mut lobby.outbox;
        ns += spent(|| {
            if engine.timeout().is_some_and(|at| at <= now) {
                engine.handle_timeout(now);
            }
            for (from, bytes) in &mut requests {
                engine.handle_datagram(*from, shard_address(0), bytes, now);
            }
            assert_eq!(engine.spread(outbox, now), Progress::Done);
        });
        let answers = outbox.sends().flat_map(|send| send.datagrams());
        let answers = answers.filter(|bytes| bytes.starts_with(&[1, 1])).count();
        assert_eq!(answers, turn.len(), "everybody is answered");
        outbox.clear();
    }
    ns
}
