//! Several servers under the same load in turn (A B A B ...), and what each costs beside the
//! first: ratios are made within a round, where the machine was the same, and their median is
//! what counts.
//!
//! A run whose sessions failed put on another load than it should have: it is told of, and its
//! figures are left out. Lost packets leave a run in; what was lost is a figure of its own.
//!
//! Invariants: a ratio needs both of its terms in the same round; medians are of the rounds in
//! which something is known; the first target has no ratios.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::number::{bytes, digits, micros, millis, nanos};
use super::summary::Report;

/// The comparison, as `--json` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Of the load generator.
    pub version: String,
    pub scenario: String,
    /// When the first run began: RFC 3339, UTC.
    pub started: String,
    pub publishers: u64,
    pub viewers: u64,
    /// Of each run, seconds.
    pub duration_s: f64,
    /// Rounds that every target had its turn in.
    pub rounds: u64,
    pub targets: Vec<Compared>,
}

/// One target. What it is compared by is named as in [`Report`], with the median over the rounds
/// and the ratios to the first target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub name: String,
    pub api: String,
    pub target: String,
    /// Runs that ended well.
    pub runs_ok: u64,
    /// What the others came to, each line once.
    pub troubles: Vec<String>,
    /// Sessions by SRTP profile, in the last run.
    pub srtp_profiles: BTreeMap<String, u64>,
    /// Median over the rounds.
    pub server_gso_run: Option<f64>,
    /// The field of the report, by its name; `latency_us.p99` where it is inside of another.
    pub figures: BTreeMap<String, Figure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Over the rounds, in the unit of the field.
    pub median: Option<f64>,
    /// To the first target; `null` for itself, and where nothing can be paired.
    pub ratio: Option<Ratio>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Of each round that has both terms, in their order.
    pub rounds: Vec<f64>,
}

/// What targets are compared by.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) field: &'static str,
    pub(super) title: &'static str,
    pub(super) text: fn(f64) -> String,
    of: fn(&Report) -> Option<f64>,
}

pub(super) static MEASURES: [Measure; 7] = [
    Measure {
        field: "server_cpu_ns_per_packet",
        title: "server CPU for each forwarded packet",
        text: nanos,
        of: |report| report.server_cpu_ns_per_packet,
    },
    Measure {
        field: "server_rss_bytes",
        title: "server memory",
        text: bytes,
        of: |report| report.server_rss_bytes.map(|rss| rss as f64),
    },
    Measure {
        field: "latency_us.p50",
        title: "latency p50",
        text: micros,
        of: |report| report.latency_us.p50.map(|us| us as f64),
    },
    Measure {
        field: "latency_us.p99",
        title: "latency p99",
        text: micros,
        of: |report| report.latency_us.p99.map(|us| us as f64),
    },
    Measure {
        field: "join_ms.p50",
        title: "join p50",
        text: millis,
        of: |report| report.join_ms.p50,
    },
    Measure {
        field: "join_ms.p99",
        title: "join p99",
        text: millis,
        of: |report| report.join_ms.p99,
    },
    Measure { field: "lost_ppm", title: "lost, ppm", text: digits, of: |report| report.lost_ppm },
];

impl Comparison {
    /// Of the reports of each round, in the order of `names`. A last round that was interrupted
    /// may lack some.
    pub fn new(names: &[String], rounds: &[Vec<Report>]) -> Self {
        let first = rounds.first().and_then(|round| round.first());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: first.map_or_else(String::new, |report| report.scenario.clone()),
            started: first.map_or_else(String::new, |report| report.started.clone()),
            publishers: first.map_or(0, |report| report.publishers),
            viewers: first.map_or(0, |report| report.viewers),
            duration_s: first.map_or(0.0, |report| report.duration_s),
            rounds: rounds.iter().filter(|round| round.len() >= names.len()).count() as u64,
            targets: names
                .iter()
                .enumerate()
                .map(|(at, name)| compared(name, at, rounds))
                .collect(),
        }
    }

    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with text keys");
        text.push('\n');
        text
    }

    /// 0 if every run ended well, otherwise as [`Report::exit_code`] of a run with sessions
    /// that failed: some figures are not what they seem.
    pub fn exit_code(&self) -> u8 {
        if self.targets.iter().all(|target| target.troubles.is_empty()) { 0 } else { 4 }
    }
}

fn compared(name: &str, at: usize, rounds: &[Vec<Report>]) -> Compared {
    let mine: Vec<&Report> = rounds.iter().filter_map(|round| round.get(at)).collect();
    let last = mine.last();
    let mut troubles: Vec<String> = Vec::new();
    for verdict in mine.iter().map(|report| report.verdict()).filter(|verdict| !verdict.is_ok()) {
        if !troubles.contains(&verdict.line()) {
            troubles.push(verdict.line());
        }
    }
    let figure = |measure: &Measure| {
        let known = mine.iter().filter_map(|report| of_full_load(report, measure.of)).collect();
        let ratio = if at == 0 { None } else { ratio(at, rounds, measure.of) };
        (measure.field.to_owned(), Figure { median: median(known), ratio })
    };
    Compared {
        name: name.to_owned(),
        api: last.map_or_else(String::new, |report| report.api.clone()),
        target: last.map_or_else(String::new, |report| report.target.clone()),
        runs_ok: mine.iter().filter(|report| report.verdict().is_ok()).count() as u64,
        troubles,
        srtp_profiles: last.map(|report| report.srtp_profiles.clone()).unwrap_or_default(),
        server_gso_run: median(mine.iter().filter_map(|report| report.server_gso_run).collect()),
        figures: MEASURES.iter().map(figure).collect(),
    }
}

fn of_full_load(report: &Report, of: fn(&Report) -> Option<f64>) -> Option<f64> {
    // What a generator that received too slowly found is none of the server's.
    if report.exit_code() <= 1 && report.overrun == 0 { of(report) } else { None }
}

fn ratio(at: usize, rounds: &[Vec<Report>], of: fn(&Report) -> Option<f64>) -> Option<Ratio> {
    let paired = |round: &Vec<Report>| {
        let (first, mine) = (of_full_load(round.first()?, of)?, of_full_load(round.get(at)?, of)?);
        (first > 0.0).then(|| mine / first)
    };
    let rounds: Vec<f64> = rounds.iter().filter_map(paired).collect();
    let median = median(rounds.clone())?;
    let min = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let max = rounds.iter().copied().fold(0.0, f64::max);
    Some(Ratio { median, min, max, rounds })
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(values[middle - 1], upper)) }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    fn costing(ns: f64) -> Report {
        static STAGE: LazyLock<Report> = LazyLock::new(samples::stage);
        Report { server_cpu_ns_per_packet: Some(ns), ..STAGE.clone() }
    }

    fn names() -> Vec<String> {
        vec!["ours".to_owned(), "theirs".to_owned()]
    }

    proptest! {
        #[test]
        fn a_machine_that_slows_both_down_changes_no_ratio(
            slow in prop::collection::vec(0.1f64..10.0, 1..12),
            times in 0.1f64..50.0,
        ) {
            let round = |slow: &f64| vec![costing(1000.0 * slow), costing(1000.0 * slow * times)];
            let rounds: Vec<_> = slow.iter().map(round).collect();
            let comparison = Comparison::new(&names(), &rounds);
            let ratio = comparison.targets[1].figures["server_cpu_ns_per_packet"].ratio.clone().unwrap();
            prop_assert_eq!(ratio.rounds.len(), slow.len());
            for found in [ratio.median, ratio.min, ratio.max] {
                prop_assert!((found - times).abs() < 1e-9 * times);
            }
        }

        #[test]
        fn the_median_has_as_many_above_as_below(values in prop::collection::vec(0.0f64..1e6, 1..30)) {
            let middle = median(values.clone()).unwrap();
            let below = values.iter().filter(|v| **v < middle).count();
            let above = values.iter().filter(|v| **v > middle).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }
    }

    #[test]
    fn pairs_are_within_rounds_and_need_both() {
        let unknown = Report { server_cpu_ns_per_packet: None, ..samples::stage() };
        let rounds = [
            vec![costing(1000.0), costing(6000.0)],
            vec![costing(2000.0), costing(10_000.0)],
            vec![costing(1000.0), unknown],
            vec![costing(4000.0)],
        ];
        let comparison = Comparison::new(&names(), &rounds);
        assert_eq!(comparison.rounds, 3);
        let [ours, theirs] = &comparison.targets[..] else { panic!("two targets") };
        let figure = &ours.figures["server_cpu_ns_per_packet"];
        assert_eq!((figure.median, &figure.ratio), (Some(1500.0), &None));
        let figure = &theirs.figures["server_cpu_ns_per_packet"];
        assert_eq!(figure.median, Some(8000.0));
        let ratio = figure.ratio.as_ref().unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (5.5, 5.0, 6.0));
        assert_eq!(ratio.rounds, [6.0, 5.0]);
    }

    #[test]
    fn nothing_to_divide_by_is_no_ratio() {
        let comparison = Comparison::new(&names(), &[vec![samples::stage(), samples::trouble()]]);
        let theirs = &comparison.targets[1];
        assert_eq!(theirs.figures["lost_ppm"], Figure::default(), "another load");
        assert_eq!((theirs.runs_ok, comparison.exit_code()), (0, 4));
        assert_eq!(theirs.troubles, ["FAILED: 9 of 500 sessions did not connect"]);
        let lossy = Report { lost: 3, lost_ppm: Some(1.0), ..samples::stage() };
        let comparison = Comparison::new(&names(), &[vec![samples::stage(), lossy]]);
        let lost = Figure { median: Some(1.0), ratio: None };
        assert_eq!(comparison.targets[1].figures["lost_ppm"], lost);
        let nobody = Comparison::new(&names(), &[]);
        assert_eq!(nobody.targets[0].figures["latency_us.p50"], Figure::default());
    }

    #[test]
    fn the_json_has_medians_and_ratios() {
        let comparison = Comparison::new(&names(), &[vec![costing(1000.0), costing(6500.0)]]);
        let json: Value = serde_json::from_str(&comparison.to_json()).unwrap();
        let figures = &json["targets"][1]["figures"];
        assert_eq!(figures["server_cpu_ns_per_packet"]["ratio"]["median"], 6.5);
        assert_eq!(figures["latency_us.p99"]["median"], 498.0);
        assert_eq!(json["targets"][0]["figures"]["latency_us.p99"]["ratio"], Value::Null);
        assert_eq!(serde_json::from_str::<Comparison>(&comparison.to_json()).unwrap(), comparison);
    }
}
