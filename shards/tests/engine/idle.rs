//! Sessions on which nothing happens: alive by their clients' checks, and no burden.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use str0m::media::MediaKind;

use crate::world::{World, ms, secs};

#[test]
fn an_idle_session_lives_by_its_clients_checks_and_has_no_other_timers() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    world.flows[0].paused = true;
    // Until the silent track has ended.
    world.run(secs(40));
    let mut moments = BTreeSet::new();
    for _ in 0..1200 {
        moments.extend(world.engines[0].timeout());
        world.run(ms(100));
    }
    assert!(world.describe(session).connected, "after two minutes of nothing but checks");
    // One look at its liveness in 10 s, each queued one anew.
    assert!(moments.len() <= 13, "{} timers in 120 s", moments.len());
}

#[test]
fn a_path_that_the_agent_has_forgotten_is_learned_again() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    world.flows[0].paused = true;
    world.run(secs(3));
    world.network = Box::new(|_, _, _, _| vec![]);
    // The agent forgets after 15 s, the session lives for 40.
    world.run(secs(20));
    assert!(!world.describe(session).connected);
    world.network = Box::new(|_, _, _, _| vec![Duration::ZERO]);
    world.run(secs(10));
    assert!(world.describe(session).connected);
}

#[test]
fn reports_of_many_sessions_go_out_together() {
    let mut world = World::new(1);
    let (_, session, _) = world.publisher(0, &[("mic", MediaKind::Audio)]);
    for _ in 0..30 {
        world.viewer(0, &[(session, "mic")]);
        // Nobody comes at the same moment as others.
        world.run(ms(17));
    }
    world.flows[0].paused = true;
    world.run(secs(2));
    let mut moments = BTreeSet::new();
    for _ in 0..1000 {
        moments.extend(world.engines[0].timeout());
        world.run(ms(1));
    }
    // A report to each of 30 viewers, 20 ms or more apart; the publisher's session has timers of
    // its own, ten times a second.
    let first = *moments.first().expect("reports go out");
    let mut beats: BTreeMap<u128, usize> = BTreeMap::new();
    for at in &moments {
        *beats.entry((*at - first).as_millis() % 20).or_default() += 1;
    }
    let together = beats.values().max().copied().unwrap_or(0);
    assert!(together >= 20 && moments.len() - together <= 12, "{beats:?}");
}
