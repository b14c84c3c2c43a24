//! `--ramp`: finds the largest load that still meets the objective.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Plan, peers, run};
use crate::real::limits;
use crate::report::objective::Objective;
use crate::report::ramp::Ramp;
use crate::report::summary::{Report, Trial};
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
    /// What is counted: viewers, people, rooms, sessions.
    what: &'static str,
}

/// How far a ramp may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    most: u64,
    /// Open files that this process may have, if they are what sets the end.
    files: Option<u64>,
}

/// More is not tried, whatever the machine has.
const LOAD_MAX: u64 = 20_000;

/// How far this plan's ramp may go. `allow` gets how many peers the largest load has, and says
/// for how many of them there are files. Where there are too few for the first load, a sentence.
pub fn reach(plan: &Plan, allow: impl Fn(usize) -> Result<usize, String>) -> Result<Reach, String> {
    let all = largest(plan, LOAD_MAX, limits::PEERS_MAX);
    let wanted = peers(&sized(plan, all));
    let allowed = allow(wanted)?;
    let most = largest(plan, all, allowed);
    let first = peers(&sized(plan, load(plan).clamp(1, all.max(1))));
    if first > allowed {
        let (needed, allowed) = (limits::files(first), limits::files(allowed));
        return Err(format!(
            "{first} peers, with which the ramp begins, need {needed} open files, but {allowed} \
             are allowed: ulimit -n {needed}"
        ));
    }
    Ok(Reach { most, files: (most < all).then(|| limits::files(allowed)) })
}

/// The largest load up to `most` that has no more than so many peers.
fn largest(plan: &Plan, most: u64, allowed: usize) -> u64 {
    let (mut fits, mut beyond) = (0, most + 1);
    while beyond - fits > 1 {
        let load = u64::midpoint(fits, beyond);
        if peers(&sized(plan, load)) <= allowed {
            fits = load;
        } else {
            beyond = load;
        }
    }
    fits
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
    reach: Reach,
    stop: &Arc<AtomicBool>,
    say: &mut dyn FnMut(&str),
) -> Found {
    let what = raised(plan.scenario, &mut plan.sizes.clone()).0;
    let mut ramp = Ramp::new(load(plan), reach.most);
    let (mut best, mut last, mut undecided) = (None, None, None);
    let mut trials = Vec::new();
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
        trials.push(Trial { load, missed });
        if held {
            best = Some(report);
        } else {
            last = Some(report);
        }
    }
    let (held, failed) = (ramp.found(), ramp.failed());
    // `next` names a load at first, so that at least one run was made.
    let mut report = best.or(last).unwrap_or_else(|| run(plan, stop));
    report.generator_warnings.extend(reach.end(held, what));
    report.ramp = trials;
    Found { report, held, failed, undecided, what }
}

impl Reach {
    /// Says so if the ramp ended where it did for want of files.
    fn end(self, held: Option<u64>, what: &str) -> Option<String> {
        let files = self.files.filter(|_| held == Some(self.most))?;
        Some(format!(
            "The ramp ended at {} {what} because this process may have no more than {files} open \
             files (ulimit -n): the server may hold more.",
            self.most
        ))
    }
}

/// What a ramp raises, and its name: rooms where they were asked for.
fn raised(scenario: Scenario, sizes: &mut Sizes) -> (&'static str, &mut usize) {
    match (scenario, &mut sizes.rooms) {
        (Scenario::Meeting, Some(rooms)) => ("rooms", rooms),
        (Scenario::Meeting, None) => ("people", &mut sizes.publishers),
        (Scenario::Idle, _) => ("sessions", &mut sizes.publishers),
        _ => ("viewers", &mut sizes.viewers),
    }
}

/// The load the plan begins with.
fn load(plan: &Plan) -> u64 {
    *raised(plan.scenario, &mut plan.sizes.clone()).1 as u64
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
    use super::*;

    #[test]
    fn a_ramp_raises_what_was_asked_for() {
        for (scenario, rooms, expected) in [
            ("stage", &[][..], ("viewers", 4, 15, 1)),
            ("meeting", &[], ("people", 14, 5, 1)),
            ("meeting", &["--rooms", "3"], ("rooms", 4, 5, 13)),
        ] {
            let people = ["--publishers", "4", "--viewers", "5"];
            let mut plan = plan(scenario, &[&people, rooms].concat());
            let (what, load) = raised(plan.scenario, &mut plan.sizes);
            *load += 10;
            let Sizes { publishers, viewers, .. } = plan.sizes;
            assert_eq!((what, publishers, viewers, plan.sizes.rooms()), expected, "{scenario}");
        }
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

    /// As the flags make it.
    fn plan(scenario: &str, flags: &[&str]) -> Plan {
        use crate::flags::Flags;
        use clap::Parser;

        let target = ["--target", "http://127.0.0.1:1/v1/apps/x", "--secret", "0123456789abcdef"];
        let line = ["loadgen", scenario].into_iter().chain(target).chain(flags.iter().copied());
        let flags = Flags::try_parse_from(line).unwrap();
        let (scenario, run) = flags.command.run().unwrap();
        run.plan(scenario).unwrap()
    }

    #[test]
    fn a_ramp_asks_for_the_files_of_its_largest_load_and_ends_where_they_do() {
        let stage = plan("stage", &["--publishers", "4", "--viewers", "50"]);
        let asked = std::cell::Cell::new(0);
        let whole = reach(&stage, |wanted| {
            asked.set(wanted);
            Ok(wanted)
        });
        assert_eq!((whole, asked.get()), (Ok(Reach { most: 20_000, files: None }), 20_004));
        let short = reach(&stage, |_| Ok(404)).unwrap();
        assert_eq!(short, Reach { most: 400, files: Some(916) });
        assert_eq!((short.end(Some(300), "viewers"), short.end(None, "viewers")), (None, None));
        let said = short.end(Some(400), "viewers").unwrap();
        assert!(said.contains("400 viewers") && said.contains("916 open files"), "{said}");
        let error = reach(&stage, |_| Ok(53)).unwrap_err();
        assert!(error.contains("54 peers") && error.contains("ulimit -n 566"), "{error}");
    }

    #[test]
    fn an_idle_ramp_varies_its_sessions() {
        let idle = plan("idle", &["--publishers", "30"]);
        assert_eq!((load(&idle), sized(&idle, 70).sizes.publishers), (30, 70));
        assert_eq!(reach(&idle, |_| Ok(60)).unwrap().most, 60);
    }

    #[test]
    fn a_ramp_of_rooms_counts_the_people_in_each() {
        let rooms = plan("meeting", &["--publishers", "8", "--rooms", "2"]);
        assert_eq!(load(&rooms), 2);
        assert_eq!(reach(&rooms, |_| Ok(60)).unwrap().most, 7);
        assert!(reach(&rooms, |_| Ok(15)).is_err());
    }
}
