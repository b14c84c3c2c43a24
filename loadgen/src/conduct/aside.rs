//! What goes on beside the media while it is measured: the idle probe, and looks by the API.

use tokio::sync::oneshot::Receiver;

use super::Plan;
use crate::api::{Failure, Live};
use crate::real::asker::{self, Asker, Looks};
use crate::real::stalls::Probe;
use crate::report::beside::{Beside, Stalls};
use crate::report::tally::Tally;

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
        };
        let is_wanted = plan.sizes.api_rate > 0.0;
        let asker = is_wanted.then(|| Asker::start(settings)).transpose()?;
        Ok(Self { probe: Probe::start(plan.probe_cpu)?, asker })
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
    /// Waits for it: for as long as the API may take to answer. Failures are counted.
    pub(super) async fn settle(self, tally: &mut Tally) -> Beside {
        // A thread that panicked has said so; the report goes on without it.
        let stalls = self.stalls.await.ok();
        let mut beside = Beside { stalls, looks: None };
        let Some(looks) = self.looks else { return beside };
        match looks.await {
            Ok(Ok(looks)) => {
                looks.failures.into_iter().for_each(|(failure, count)| tally.fails(failure, count));
                beside.looks = Some(looks.times);
            }
            Ok(Err(failure)) => tally.fail(failure),
            Err(_) => {}
        }
        beside
    }
}
