//! What the benches of whole runs judge by: they are programs of their own, without tests.

#![allow(dead_code, reason = "the benches use the rest")]
#![expect(clippy::print_stdout, reason = "the judge of the benches prints")]

#[path = "../../benches/live/level.rs"]
mod level;
#[path = "../../benches/live/soak.rs"]
mod soak;

use level::Level;
use loadgen::report::summary::Report;

/// Tries until it is over; what each load takes is said by `took`.
fn search(level: &mut Level, took: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut tried = Vec::new();
    while let Some(load) = level.next() {
        tried.push(load);
        level.tried(load, took(load));
    }
    tried
}

#[test]
fn a_level_is_found_below_what_the_server_could_not_bear() {
    for limit in [12, 20, 37, 60] {
        // It takes too little up to a load, and fails beyond.
        let mut level = Level::new(10, 70.0, 4.0);
        let tried =
            search(&mut level, |load| if load > limit { f64::INFINITY } else { load as f64 });
        let (nearest, percent) = level.nearest().unwrap();
        assert!(nearest <= limit && percent.is_finite(), "{limit}: {tried:?}");
        let failed = tried.iter().filter(|load| **load > limit).min().unwrap();
        assert!(tried.len() == 8 || failed - nearest == 1, "{limit}: {tried:?}");
        assert!(failed - nearest <= 1 + limit / 8, "{limit}: {tried:?}");
    }
    let mut never = Level::new(10, 70.0, 4.0);
    assert_eq!(search(&mut never, |_| f64::INFINITY), [10, 5, 3, 2, 1]);
    assert_eq!(never.nearest(), None);
}

#[test]
fn a_level_on_a_bent_curve_does_not_creep() {
    // Nearly nothing for long, then steep: each line leads just beyond the lower end.
    let took = |load: usize| if load < 900 { 1.0 } else { 1.0 + (load - 900) as f64 * 2.0 };
    let mut level = Level::new(800, 70.0, 4.0);
    let tried = search(&mut level, took);
    let below = tried.iter().filter(|load| took(**load) < 70.0).max().unwrap();
    let above = tried.iter().filter(|load| took(**load) >= 70.0).min().unwrap();
    // From 1,600 after two tries, halved by every two of the six others.
    assert!(above - below <= 200, "{tried:?}");
}

#[test]
fn a_long_run_that_missed_is_followed_by_the_load_that_hit() {
    let mut level = Level::new(10, 70.0, 4.0);
    level.tried(10, 67.0);
    level.tried(11, 71.0);
    level.corrected(11, 75.0);
    assert_eq!(level.next_or_nearest(11), Some(10));
    level.corrected(10, 65.0);
    assert_eq!(level.next_or_nearest(10), None, "nothing is left between");
    level.corrected(10, 68.0);
    assert_eq!(level.next_or_nearest(10), None, "it hit");
}

#[test]
fn a_soak_is_not_excused_by_the_generator() {
    let sound = Report { server_drops: Some([].into()), ..Report::default() };
    let short = "the run is too short to tell whether memory grows";
    assert_eq!(soak::faults(&sound), [short]);
    let overrun = Report { lost: 3, overrun: 3, ..sound.clone() };
    let told = "the run is invalid: sockets of the load generator overran 3 times";
    assert_eq!(soak::faults(&overrun), [told, "3 packets lost", short]);
    let busy = Report { generator_busiest_percent: Some(97.0), ..sound };
    assert!(soak::faults(&busy)[0].starts_with("the load generator was the limit"));
}
