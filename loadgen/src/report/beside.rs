//! What is measured beside the media, and what the report tells of it: how late an idle thread
//! woke, and how long the API took while media flowed.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::summary::{FailureCount, Micros, Millis, Report};
use crate::api::Failure;

/// What was found between the end of the warm-up and the end.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    pub stalls: Option<Stalls>,
    /// Looks at sessions by the API, each from when it was due until it was answered,
    /// microseconds; `None` if nobody asked.
    pub looks: Option<Histogram<u64>>,
    /// Those that failed, by cause.
    pub looks_failed: BTreeMap<Failure, u64>,
}

/// What the idle probe saw.
#[derive(Debug, Clone)]
pub struct Stalls {
    /// By how much it woke late, microseconds.
    pub lateness: Histogram<u64>,
    /// It went before all ordinary programs.
    pub is_realtime: bool,
    /// Where it was, if it was pinned.
    pub cpu: Option<usize>,
}

impl Report {
    #[must_use]
    pub fn with(mut self, beside: &Beside) -> Self {
        if let Some(stalls) = &beside.stalls {
            let class = if stalls.is_realtime { "realtime" } else { "ordinary" };
            self.stalls_us = Micros::of(&stalls.lateness);
            self.stalls_probe = Some(class.to_owned());
            self.stalls_cpu = stalls.cpu.map(|cpu| cpu as u64);
        }
        if let Some(looks) = &beside.looks {
            self.api_look_ms = Millis::of(looks);
        }
        let failed = beside.looks_failed.iter();
        self.api_looks_failed =
            failed.map(|(failure, count)| FailureCount::new(failure, *count)).collect();
        self
    }
}
