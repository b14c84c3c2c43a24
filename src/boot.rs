//! The order of waking, and of going to sleep. The only place that spawns threads.

use std::process::ExitCode;

use crate::banner;
use crate::drain::Drain;
use crate::plan::Plan;
use crate::start_error::StartError;

/// Runs the node until it ends.
pub fn run(plan: Plan) -> Result<ExitCode, StartError> {
    // Before any thread, so that a signal during the waking is not lost.
    let drain = Drain::install(plan.drain)?;
    banner::show(&plan, None);
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(drain.wait(|| {}).exit_code())
}
