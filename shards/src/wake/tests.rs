//! A shard in virtual time: turns take no time, waits take what was asked for.

use proptest::prelude::*;

use super::*;
use crate::testing::start;

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// What became of a list of arrivals.
#[derive(Debug, Default)]
struct Served {
    /// From arrival to being sent, for each.
    delays: Vec<Duration>,
    /// Times the shard was woken, and times it stopped itself.
    wakes: usize,
    stops: usize,
    /// Turns that sent something.
    turns: usize,
    /// The longest that others on the thread were not let in.
    alone: Duration,
}

/// A packet arrives `gap` after the one before; `copies` are made of it; `last` of its frame.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    gap: Duration,
    copies: usize,
    last: bool,
}

fn one(gap: u64) -> Arrival {
    Arrival { gap: us(gap), copies: 1, last: true }
}

/// A turn with arrivals and nothing else.
const FOUND: Turn = Turn { busy: true, found: true, urgent: false, answered: false };

/// Moves as `shard` does.
fn serve(moderator: &mut Moderator, arrivals: &[Arrival]) -> Served {
    let mut now = start();
    let mut at = now;
    let arrivals: Vec<(Instant, Arrival)> = arrivals
        .iter()
        .map(|arrival| {
            at += arrival.gap;
            (at, *arrival)
        })
        .collect();
    let (mut served, mut taken, mut shared_at) = (Served::default(), 0, now);
    while served.delays.len() < arrivals.len() {
        let first = taken;
        let mut awaited = None;
        loop {
            let before = taken;
            while arrivals.get(taken).is_some_and(|(at, _)| *at <= now) {
                taken += 1;
            }
            let open = arrivals[first..taken].last();
            let copies = open.map_or(0, |(_, a)| if a.last { 0 } else { a.copies });
            // One publisher: whatever comes is of the frame waited for.
            let unfinished = Unfinished { copies, went_on: awaited.unwrap_or(0) };
            let Some(wait) = moderator.gather(now, taken > before, || unfinished) else { break };
            awaited = Some(copies);
            served.stops += 1;
            now += wait;
        }
        served.delays.extend(arrivals[first..taken].iter().map(|(at, _)| now - *at));
        let found = taken > first;
        served.turns += usize::from(found);
        if !found {
            served.wakes += 1;
            now = now.max(arrivals[taken].0);
            shared_at = now;
            moderator.shared(now);
        } else if let Some(rest) = moderator.rest(now, FOUND) {
            served.stops += 1;
            now += rest.time;
            shared_at = if rest.alone { shared_at } else { now };
        }
        served.alone = served.alone.max(now - shared_at);
    }
    served
}

fn auto(arrivals: &[Arrival]) -> Served {
    serve(&mut Moderator::new(WakeDelay::Auto), arrivals)
}

#[test]
fn an_idle_or_lightly_loaded_shard_answers_at_once() {
    for gap in [500, 2_000, 20_000, 1_000_000] {
        let served = auto(&vec![one(gap); 1000]);
        assert!(served.delays.iter().all(Duration::is_zero), "every {gap} µs");
        assert_eq!(served.stops, 0);
    }
}

#[test]
fn frequent_arrivals_are_taken_together() {
    let served = auto(&vec![one(60); 10_000]);
    assert!(served.turns <= 3100, "{} turns", served.turns);
    assert!(served.wakes < 30, "{} wake-ups", served.wakes);
    let unmoderated = serve(&mut Moderator::new(WakeDelay::Off), &vec![one(60); 10_000]);
    assert_eq!((unmoderated.turns, unmoderated.stops), (10_000, 0));
}

#[test]
fn a_long_turn_is_followed_by_a_short_rest_or_none() {
    // 0: others are let in, as they were not for a millisecond.
    for (turn, rest) in [(0, Some(200)), (120, Some(80)), (121, None), (5000, Some(0))] {
        let mut moderator = Moderator::new(WakeDelay::Auto);
        serve(&mut moderator, &vec![one(60); 1000]);
        let now = start() + us(1_000_000);
        (moderator.rested, moderator.shared_at) = (true, Some(now));
        assert_eq!(moderator.gather(now, true, Unfinished::default), None);
        let found = moderator.rest(now + us(turn), FOUND).map(|rest| rest.time);
        assert_eq!(found, rest.map(us), "after {turn} µs");
        // That there was none says nothing against the next.
        assert_eq!(moderator.gather(now + us(turn + 10), true, Unfinished::default), None);
        assert_eq!(moderator.rest(now + us(turn + 10), FOUND).map(|rest| rest.time), Some(REST));
    }
}

#[test]
fn resting_ends_soon_after_a_busy_time() {
    let mut moderator = Moderator::new(WakeDelay::Auto);
    serve(&mut moderator, &vec![one(60); 10_000]);
    let served = serve(&mut moderator, &vec![one(5_000); 1000]);
    assert!(served.stops <= 16, "{} vain rests", served.stops);
    assert!(served.delays[20..].iter().all(Duration::is_zero));
}

fn left(copies: usize, went_on: usize) -> Unfinished {
    Unfinished { copies, went_on }
}

/// How often in a row a frame for 200 is waited for while others' packets keep coming.
fn waits(went_on: usize) -> usize {
    let mut moderator = Moderator::new(WakeDelay::Auto);
    (0..100)
        .take_while(|turn| {
            let now = start() + us(turn * 20_000);
            let waits = moderator.gather(now, true, || left(200, 0)).is_some();
            // All that was waited for has come, or is given up.
            assert_eq!(moderator.gather(now + GATHER, true, || left(0, went_on)), None);
            waits
        })
        .count()
}

#[test]
fn gathering_pays_only_if_the_frames_waited_for_go_on() {
    assert_eq!(waits(200), 100);
    assert_eq!(waits(100), 100, "half of the copies");
    assert!(waits(99) < 10, "{}", waits(99));
    assert!(waits(0) < 10);
}

/// Nine packets of a frame, one by one.
fn frames(copies: usize, apart: u64) -> Vec<Arrival> {
    let packet =
        |n: usize| Arrival { gap: us(if n == 0 { 33_000 } else { apart }), copies, last: n == 8 };
    (0..900).map(|n| packet(n % 9)).collect()
}

#[test]
fn a_frame_for_many_leaves_in_one_turn_and_one_for_few_at_once() {
    let served = auto(&frames(500, 8));
    assert_eq!(served.turns, 100);
    assert!(served.delays.iter().all(|delay| *delay <= us(100)), "the marker ends the waiting");
    // Frames for few may be rested over, but are never waited for.
    let mut moderator = Moderator::new(WakeDelay::Auto);
    assert_eq!(moderator.gather(start(), true, || left(4, 0)), None);
}

#[test]
fn gathering_that_never_completes_a_frame_stops_and_is_tried_again() {
    let mut moderator = Moderator::new(WakeDelay::Auto);
    let vain = serve(&mut moderator, &frames(200, 3_000)).stops;
    assert!((40..800).contains(&vain), "{vain} looks for 800 packets that came too late");
    let vain = serve(&mut moderator, &frames(200, 3_000)).stops;
    assert!(vain <= 6 * 900 / TRY_AGAIN as usize, "{vain} looks");
    // Every sixteenth frame shows that it pays again.
    for _ in 0..5 {
        serve(&mut moderator, &frames(200, 8));
    }
    assert_eq!(serve(&mut moderator, &frames(200, 8)).turns, 100);
}

#[test]
fn a_shard_with_an_answer_to_give_does_not_rest() {
    let now = start();
    let mut moderator = Moderator::new(WakeDelay::Fixed(us(100)));
    assert_eq!(moderator.rest(now, Turn { urgent: true, ..FOUND }), None);
    assert_eq!(moderator.rest(now, Turn { answered: true, ..FOUND }), None);
    let rest = Rest { time: us(100), alone: false };
    assert_eq!(moderator.rest(now, FOUND), Some(rest));
    let mut off = Moderator::new(WakeDelay::Off);
    assert_eq!(off.rest(now, FOUND), None);
    assert_eq!(off.gather(now, true, || left(1000, 0)), None);
}

#[test]
fn a_turn_that_only_served_timers_lets_nobody_in() {
    let mut moderator = Moderator::new(WakeDelay::Fixed(us(100)));
    let (mut now, mut shared_at) = (start(), start());
    for _ in 0..200 {
        let rest = moderator.rest(now, FOUND).unwrap();
        now += rest.time;
        shared_at = if rest.alone { shared_at } else { now };
        // Something arrives while the timers are served: the shard does not sleep.
        assert_eq!(moderator.rest(now, Turn { found: false, ..FOUND }), None);
        now += us(50);
        assert!(now - shared_at <= ALONE + us(250), "{:?}", now - shared_at);
    }
    moderator.shared(now);
    assert!(moderator.rest(now, FOUND).unwrap().alone, "after a sleep the thread is the media's");
}

proptest! {
    #[test]
    fn nothing_waits_longer_than_the_bound(
        arrivals in prop::collection::vec((
            prop_oneof![0u64..50, 50u64..400, 400u64..50_000], 0usize..600, any::<bool>(),
        ), 1..400),
        fixed in prop::option::of(0u64..1000),
    ) {
        let arrivals: Vec<Arrival> = arrivals
            .into_iter()
            .map(|(gap, copies, last)| Arrival { gap: us(gap), copies, last })
            .collect();
        let delay = fixed.map_or(WakeDelay::Auto, |micros| WakeDelay::Fixed(us(micros)));
        let served = serve(&mut Moderator::new(delay), &arrivals);
        let bound = fixed.map_or(LONGEST, us);
        // At least once in `ALONE`, and the wait that was begun within it.
        prop_assert!(served.alone <= ALONE + 2 * bound, "{:?}", served.alone);
        prop_assert!(served.delays.iter().all(|delay| *delay <= bound), "{:?}", served.delays);
    }
}
