//! `--ramp`: finds the largest load that still meets the objective.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Plan, run};
use crate::report::objective::Objective;
use crate::report::ramp::Ramp;
use crate::report::summary::Report;
use crate::scenario::{Scenario, Sizes};

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// Of the largest load that held; of the last one, if none did.
    pub report: Report,
    /// The largest that held, in viewers (in a meeting: people; of several: rooms).
    pub held: Option<u64>,
    /// The smallest that did not.
    pub failed: Option<u64>,
    /// The one at which the load generator was the limit: it says nothing of the server.
    pub undecided: Option<u64>,
    /// What is counted: viewers, people, rooms.
    what: &'static str,
}

impl Found {
    /// The answer in a sentence.
    pub fn sentence(&self) -> String {
        let what = self.what;
        if let Some(undecided) = self.undecided {
            let held = match self.held {
                Some(held) => format!("{held} {what} held the objective"),
                None => "No load was decided".to_owned(),
            };
            return format!(
                "{held}; with {undecided} the load generator was the limit, not the server: give \
                 it more cores."
            );
        }
        match (self.held, self.failed) {
            (Some(held), Some(failed)) => {
                format!("{held} {what} held the objective; {failed} did not.")
            }
            (Some(held), None) => format!("{held} {what} held the objective; more was not tried."),
            (None, Some(failed)) => format!("Not even {failed} {what} held the objective."),
            (None, None) => "No load was tried to its end.".to_owned(),
        }
    }
}

/// Runs the plan with one load after the other, beginning with the plan's own. `say` gets a
/// line for each.
pub fn ramp(
    plan: &Plan,
    objective: Objective,
    most: u64,
    stop: &Arc<AtomicBool>,
    say: &mut dyn FnMut(&str),
) -> Found {
    let mut sizes = plan.sizes.clone();
    let (what, load) = raised(plan.scenario, &mut sizes);
    let first = *load;
    let mut ramp = Ramp::new(first as u64, most);
    let (mut best, mut last, mut undecided) = (None, None, None);
    while let Some(load) = ramp.next() {
        let mut report = run(&sized(plan, load), stop);
        report.judge(objective);
        if stop.load(Ordering::Relaxed) || report.stopped.is_some() {
            last = Some(report);
            break;
        }
        // Not retried, as a hiccup would be, nor taken for a failure: more load only makes the
        // generator slower.
        if report.generator_was_the_limit() {
            say(&format!("{load} {what}: undecided, the load generator is the limit"));
            (undecided, last) = (Some(load), Some(report));
            break;
        }
        let missed = objective.missed_by(&report);
        let held = missed.is_empty();
        ramp.tried(held);
        let verdict = if held { "held".to_owned() } else { missed.join("; ") };
        say(&format!("{load} {what}: {verdict}"));
        if held {
            best = Some(report);
        } else {
            last = Some(report);
        }
    }
    let (held, failed) = (ramp.found(), ramp.failed());
    // `next` names a load at first, so that at least one run was made.
    let report = best.or(last).unwrap_or_else(|| run(plan, stop));
    Found { report, held, failed, undecided, what }
}

/// What a ramp raises, and its name: rooms where they were asked for.
fn raised(scenario: Scenario, sizes: &mut Sizes) -> (&'static str, &mut usize) {
    match (scenario, &mut sizes.rooms) {
        (Scenario::Meeting, Some(rooms)) => ("rooms", rooms),
        (Scenario::Meeting, None) => ("people", &mut sizes.publishers),
        _ => ("viewers", &mut sizes.viewers),
    }
}

/// How far a ramp may go when `peers` are the most there can be.
pub fn most(plan: &Plan, peers: usize) -> u64 {
    let each = plan.sizes.rooms.map_or(1, |_| plan.sizes.publishers.max(1));
    (peers / each) as u64
}

/// The plan with another load.
fn sized(plan: &Plan, load: u64) -> Plan {
    let mut plan = plan.clone();
    *raised(plan.scenario, &mut plan.sizes).1 = load as usize;
    // Each of a long row of runs draws its own bar; the lines in between say enough.
    plan.quiet = true;
    plan
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_ramp_raises_what_was_asked_for() {
        let sizes = Sizes {
            publishers: 4,
            viewers: 5,
            rooms: None,
            video: true,
            audio: true,
            join_rate: 1.0,
            event_rate: 1.0,
            api_rate: 0.0,
            duration: Duration::ZERO,
            settle: Duration::ZERO,
            patience: Duration::ZERO,
        };
        let of = |scenario, rooms| {
            let mut sizes = Sizes { rooms, ..sizes.clone() };
            let (what, load) = raised(scenario, &mut sizes);
            *load += 10;
            (what, sizes.publishers, sizes.viewers, sizes.rooms())
        };
        assert_eq!(of(Scenario::Stage, None), ("viewers", 4, 15, 1));
        assert_eq!(of(Scenario::Meeting, None), ("people", 14, 5, 1));
        assert_eq!(of(Scenario::Meeting, Some(3)), ("rooms", 4, 5, 13));
    }

    #[test]
    fn the_answer_names_what_was_not_decided() {
        let found = Found {
            report: Report::default(),
            held: Some(400),
            failed: None,
            undecided: Some(800),
            what: "viewers",
        };
        let sentence = found.sentence();
        assert!(sentence.starts_with("400 viewers held") && sentence.contains("with 800 the load"));
        let found = Found { held: None, ..found };
        assert!(found.sentence().starts_with("No load was decided; with 800"));
        let found = Found { failed: Some(800), undecided: None, ..found };
        assert_eq!(found.sentence(), "Not even 800 viewers held the objective.");
    }
}
