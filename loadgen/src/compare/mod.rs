//! `compare`: the same scenario against several servers in turn, A B A B, each started and
//! stopped for its turn.

mod server;
mod targets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::server::Running;
pub use self::targets::{Entry, read};
use crate::conduct::{Plan, run};
use crate::report::summary::Report;

/// Runs `plan` `rounds` times against each target. Gives the reports by round, as far as it
/// came, or the sentence about the server that could not be started.
pub fn compare(
    plan: &Plan,
    entries: &[Entry],
    rounds: usize,
    stop: &Arc<AtomicBool>,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Vec<Report>>, String> {
    // Said before the first of them has had its turn.
    for entry in entries {
        entry
            .dtls
            .provider()
            .and_then(|_| plan.check(entry.api))
            .map_err(|what| format!("{}: {what}", entry.name))?;
    }
    let mut all = Vec::new();
    for round in 1..=rounds {
        let mut reports = Vec::new();
        for entry in entries {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            say(&format!("round {round} of {rounds}: {}", entry.name));
            let server = Running::start(entry)?;
            let mut plan = plan.clone();
            plan.api = entry.api;
            plan.target = entry.target();
            plan.set_dtls(entry.dtls)?;
            plan.server.pid = Some(server.pid());
            plan.server.metrics = entry.metrics.clone();
            plan.server.metrics_token = None;
            reports.push(run(&plan, stop));
            server.stop();
        }
        all.push(reports);
    }
    Ok(all)
}
