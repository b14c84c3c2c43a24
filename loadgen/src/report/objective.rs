//! What a run shall hold: limits on latency, loss and failures.
//!
//! Invariant: what was not measured holds no limit.

use serde::{Deserialize, Serialize};

use super::number::{digits, micros};
use super::summary::Report;

/// Limits; a run may reach each, and pass none. Those that are `None` are not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// 99 of 100 packets take no longer than this, microseconds.
    pub latency_p99_us: Option<u64>,
    /// Lost packets in a million.
    pub lost_ppm: Option<f64>,
    /// Failures over sessions begun, 0 to 1.
    pub failed_share: Option<f64>,
}

impl Objective {
    pub fn met_by(&self, report: &Report) -> bool {
        self.missed_by(report).is_empty()
    }

    /// A sentence for each limit that the run passed.
    pub fn missed_by(&self, report: &Report) -> Vec<String> {
        let mut missed = Vec::new();
        if let Some(limit) = self.latency_p99_us {
            match report.latency_us.p99 {
                Some(p99) if p99 <= limit => {}
                Some(p99) => missed.push(format!(
                    "latency p99 is {}, over the limit of {}",
                    micros(p99 as f64),
                    micros(limit as f64)
                )),
                None => missed.push("no latency was measured".to_owned()),
            }
        }
        if let Some(limit) = self.lost_ppm {
            match report.lost_ppm {
                Some(ppm) if ppm <= limit => {}
                Some(ppm) => missed.push(format!(
                    "{} ppm of the packets were lost, over the limit of {} ppm",
                    digits(ppm),
                    digits(limit)
                )),
                None => {
                    missed.push("no packet was received or missed, so loss is unknown".to_owned())
                }
            }
        }
        if let Some(limit) = self.failed_share {
            match report.failed_share() {
                Some(share) if share <= limit => {}
                Some(share) => missed.push(format!(
                    "{} % of the sessions failed, over the limit of {} %",
                    digits(share * 100.0),
                    digits(limit * 100.0)
                )),
                None => missed.push("no session was begun".to_owned()),
            }
        }
        missed
    }
}

impl Report {
    /// Failures over sessions begun. More than 1 where sessions failed more than once.
    pub fn failed_share(&self) -> Option<f64> {
        let begun = self.sessions.begun;
        (begun > 0).then(|| self.sessions.failed as f64 / begun as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    const ALL: Objective =
        Objective { latency_p99_us: Some(10_000), lost_ppm: Some(10.0), failed_share: Some(0.01) };

    #[test]
    fn a_limit_may_be_reached_and_not_passed() {
        let good = samples::stage();
        assert!(ALL.met_by(&good));
        let p99 = good.latency_us.p99.unwrap();
        let exact =
            Objective { latency_p99_us: Some(p99), lost_ppm: Some(0.0), failed_share: Some(0.0) };
        assert!(exact.met_by(&good));
        let tight = Objective { latency_p99_us: Some(p99 - 1), ..exact };
        assert_eq!(tight.missed_by(&good).len(), 1);
    }

    #[test]
    fn each_missed_limit_is_told() {
        let missed = ALL.missed_by(&samples::trouble());
        assert_eq!(
            missed,
            [
                "latency p99 is 40.0 ms, over the limit of 10.0 ms",
                "1 500 ppm of the packets were lost, over the limit of 10.0 ppm",
                "2.40 % of the sessions failed, over the limit of 1.00 %",
            ]
        );
        assert!(Objective::default().met_by(&samples::trouble()));
    }

    #[test]
    fn what_was_not_measured_holds_no_limit() {
        assert_eq!(ALL.missed_by(&samples::nothing()).len(), 3);
    }
}
