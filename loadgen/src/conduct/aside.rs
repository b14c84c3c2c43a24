//! What goes on beside the media while it is measured: the idle probe, and looks by the API.

use tokio::sync::oneshot::Receiver;

use super::Plan;
use crate::api::{Cause, Failure, Live};
use crate::real::asker::{self, Asker, Looks};
use crate::real::stalls::Probe;
use crate::report::beside::{Beside, Stalls};

/// Both, as far as they were asked for.
#[derive(Debug)]
pub(super) struct Aside {
    probe: Probe,
    asker: Option<Asker>,
}

impl Aside {
    pub(super) fn start(plan: &Plan, live: &Live) -> Result<Self, Failure> {
        let settings = asker::Settings {
            target: plan.target.clone(),
            api: plan.api,
            http: plan.http.clone(),
            rate: plan.sizes.api_rate,
            live: live.clone(),
            cpus: plan.cpus.clone(),
        };
        let is_wanted = plan.sizes.api_rate > 0.0;
        let asker = is_wanted.then(|| Asker::start(settings)).transpose()?;
        // Not on the server's CPUs, unless that is what was asked.
        let cpus = plan.probe_cpu.map_or_else(|| plan.cpus.clone(), |cpu| vec![cpu]);
        Ok(Self { probe: Probe::start(cpus)?, asker })
    }

    /// The measurement begins.
    pub(super) fn begin(&mut self) {
        self.probe.begin();
        if let Some(asker) = &mut self.asker {
            asker.begin();
        }
    }

    /// The measurement ends now.
    pub(super) fn end(&mut self) -> Ending {
        Ending { stalls: self.probe.end(), looks: self.asker.as_mut().and_then(Asker::end) }
    }
}

/// What was under way when the measurement ended.
#[derive(Debug)]
pub(super) struct Ending {
    stalls: Receiver<Stalls>,
    looks: Option<Receiver<Result<Looks, Failure>>>,
}

impl Ending {
    /// Waits for it: for as long as the API may take to answer. A look that failed is no session
    /// that did, and is counted for itself.
    pub(super) async fn settle(self) -> Beside {
        // A thread that panicked has said so; the report goes on without it.
        let stalls = self.stalls.await.ok();
        let mut beside = Beside { stalls, ..Beside::default() };
        let Some(looks) = self.looks else { return beside };
        let panicked = |_| Err(Failure::new(Cause::Local, "the thread that asks the API panicked"));
        match looks.await.unwrap_or_else(panicked) {
            Ok(looks) => {
                beside.looks = Some(looks.times);
                beside.looks_failed = looks.failures;
            }
            Err(failure) => {
                beside.looks_failed.insert(failure, 1);
            }
        }
        beside
    }
}
