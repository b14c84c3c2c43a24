//! What a report comes down to: one line, the reasons, and the code the process ends with.
//!
//! Codes: 0 all is well; 1 something was lost, corrupted, foreign or duplicated, nothing came, an
//! objective was missed, or the load generator received too slowly to tell; 3 the target was unreachable or refused the login before the run;
//! 4 some sessions failed, or looks at them by the API. (2 is for wrong usage, which has no report.) The highest that applies:
//! a run whose sessions failed did not put on the load it was to put on, so its other figures
//! answer another question.

use super::number::{GAP, digits, grouped};
use super::summary::Report;

/// The verdict. `reasons` is empty exactly if the code is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub code: u8,
    /// What was done, for a run that went well.
    pub done: String,
    /// What went wrong, the gravest first.
    pub reasons: Vec<String>,
}

impl Verdict {
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// In one line.
    pub fn line(&self) -> String {
        match self.reasons.first() {
            None => format!("ok: {}", self.done),
            Some(reason) => format!("FAILED: {reason}"),
        }
    }
}

impl Report {
    pub fn exit_code(&self) -> u8 {
        self.verdict().code
    }

    pub fn verdict(&self) -> Verdict {
        if let Some(stopped) = &self.stopped {
            let reasons = vec![stopped.what.clone()];
            return Verdict { code: 3, done: self.done(), reasons };
        }
        let mut reasons = self.failed_sessions();
        reasons.extend(self.failed_looks());
        let code = if reasons.is_empty() { 1 } else { 4 };
        reasons.extend(self.wrong_packets());
        reasons.extend(self.objective.iter().flat_map(|judged| judged.missed.clone()));
        let code = if reasons.is_empty() { 0 } else { code };
        Verdict { code, done: self.done(), reasons }
    }

    fn failed_sessions(&self) -> Vec<String> {
        let sessions = self.sessions;
        let unconnected = sessions.begun.saturating_sub(sessions.connected).min(sessions.failed);
        let of =
            |count| format!("{} of {} sessions", grouped(count, GAP), grouped(sessions.begun, GAP));
        let mut reasons = Vec::new();
        if unconnected > 0 {
            reasons.push(format!("{} did not connect", of(unconnected)));
        }
        if sessions.failed > unconnected {
            let later = sessions.failed - unconnected;
            reasons.push(format!(
                "{} after sessions had connected",
                counted(later, "failure", "failures")
            ));
        }
        reasons
    }

    /// Looks at sessions by the API that failed.
    pub fn looks_failed(&self) -> u64 {
        self.api_looks_failed.iter().map(|failure| failure.count).sum()
    }

    fn failed_looks(&self) -> Option<String> {
        let first = &self.api_looks_failed.first()?.what;
        let looks = counted(self.looks_failed(), "look", "looks");
        Some(format!("{looks} at sessions by the API failed: {first}"))
    }

    fn wrong_packets(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let packets = |count| counted(count, "packet", "packets");
        if self.corrupted > 0 {
            reasons.push(format!("{} corrupted", packets(self.corrupted)));
        }
        if self.foreign > 0 {
            reasons
                .push(format!("{} of tracks that nobody there had pulled", packets(self.foreign)));
        }
        // A stated limit is what decides about losses.
        let is_limited =
            self.objective.as_ref().is_some_and(|judged| judged.objective.lost_ppm.is_some());
        if self.lost > 0 && !is_limited {
            let mut reason = packets(self.lost) + " lost";
            if let Some(ppm) = self.lost_ppm {
                reason += &format!(" ({} ppm)", digits(ppm));
            }
            reasons.push(reason);
        }
        if self.overrun > 0 {
            reasons.push(format!("the run is invalid: {}", overran(self.overrun)));
        }
        if self.duplicated > 0 {
            reasons.push(format!("{} came twice", packets(self.duplicated)));
        }
        let (sent, received) = (self.packets_in, self.packets_out + self.lost);
        if self.viewers > 0 && sent > 0 && received == 0 && !self.interrupted {
            reasons.push(format!("{} sent and none received", packets(sent)));
        }
        reasons
    }

    fn done(&self) -> String {
        let mut done = if self.packets_out > 0 {
            let lost = match self.lost {
                0 => "none lost".to_owned(),
                lost => format!("{} lost, within the objective", grouped(lost, GAP)),
            };
            format!("{}, {lost}", counted(self.packets_out, "packet", "packets"))
        } else {
            format!("{} and no media", counted(self.sessions.connected, "session", "sessions"))
        };
        if self.interrupted {
            done += " (interrupted)";
        }
        done
    }
}

/// Says whose fault it was.
pub(super) fn overran(times: u64) -> String {
    format!("sockets of the load generator overran {}", counted(times, "time", "times"))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count, GAP), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::super::objective::Objective;
    use super::super::samples;
    use super::super::summary::FailureCount;
    use super::*;

    #[test]
    fn a_good_run_is_ok() {
        let verdict = samples::stage().verdict();
        assert_eq!(verdict.line(), "ok: 3 000 000 packets, none lost");
        assert_eq!(verdict.code, 0);
        let idle = samples::nothing().verdict();
        assert_eq!((idle.line().as_str(), idle.code), ("ok: 0 sessions and no media", 0));
    }

    #[test]
    fn anything_wrong_with_packets_is_1() {
        type Spoil = fn(&mut Report);
        let wrong: [(Spoil, &str); 5] = [
            (|r| r.lost = 1, "FAILED: 1 packet lost (0 ppm)"),
            (|r| r.corrupted = 2, "FAILED: 2 packets corrupted"),
            (|r| r.foreign = 1, "FAILED: 1 packet of tracks that nobody there had pulled"),
            (|r| r.duplicated = 3, "FAILED: 3 packets came twice"),
            (|r| r.packets_out = 0, "FAILED: 6 000 packets sent and none received"),
        ];
        for (spoil, line) in wrong {
            let mut report = samples::stage();
            spoil(&mut report);
            assert_eq!((report.verdict().line().as_str(), report.exit_code()), (line, 1));
        }
    }

    #[test]
    fn an_objective_decides_about_latency_and_losses() {
        let mut report = samples::stage();
        report.judge(Objective { latency_p99_us: Some(1), ..Objective::default() });
        assert_eq!(report.exit_code(), 1);
        assert!(report.verdict().line().contains("over the limit of 1.00 µs"));
        report.lost = 6;
        report.lost_ppm = Some(2.0);
        report.judge(Objective { lost_ppm: Some(3.0), ..Objective::default() });
        assert_eq!(report.verdict().line(), "ok: 3 000 000 packets, 6 lost, within the objective");
        report.judge(Objective { lost_ppm: Some(1.0), ..Objective::default() });
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn failed_sessions_are_4_whatever_else_there_is() {
        let report = samples::trouble();
        let verdict = report.verdict();
        assert_eq!(verdict.code, 4);
        assert_eq!(verdict.line(), "FAILED: 9 of 500 sessions did not connect");
        assert_eq!(
            verdict.reasons[1..],
            [
                "3 failures after sessions had connected",
                "4 500 packets lost (1 500 ppm)",
                "the run is invalid: sockets of the load generator overran 7 times"
            ]
        );
    }

    #[test]
    fn failed_looks_are_4_and_no_failed_sessions() {
        let mut report = samples::stage();
        let failed = |what: &str, count| {
            let (cause, what) = ("refused".to_owned(), what.to_owned());
            FailureCount { cause, what, count }
        };
        report.api_looks_failed = vec![failed("GET session: 503", 2), failed("slow", 1)];
        report.judge(Objective { failed_share: Some(0.0), ..Objective::default() });
        let verdict = report.verdict();
        assert_eq!((verdict.code, report.sessions.failed), (4, 0));
        let told = "3 looks at sessions by the API failed: GET session: 503";
        assert_eq!(verdict.reasons, [told]);
    }

    #[test]
    fn a_run_that_did_not_come_about_is_3() {
        let what = "The API at http://127.0.0.1:1 cannot be reached.".to_owned();
        let stopped = FailureCount { cause: "unreachable".to_owned(), what, count: 1 };
        let report = Report { stopped: Some(stopped), ..samples::nothing() };
        assert_eq!(report.exit_code(), 3);
        assert_eq!(
            report.verdict().line(),
            "FAILED: The API at http://127.0.0.1:1 cannot be reached."
        );
    }
}
