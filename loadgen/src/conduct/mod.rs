//! One run from beginning to end: workers, scenario, the stock taken once a second, the report.

mod aside;
mod interlude;
mod peers;
pub mod ramp;
mod server;
mod stock;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use self::aside::Aside;
pub use self::interlude::{Interlude, Window};
pub use self::peers::peers;
use self::server::Watch;
use self::stock::Stock;
use crate::api::{ApiKind, Cause, Failure, Target};
use crate::peer::{Common, Dtls};
use crate::real::http::{self, Http};
use crate::real::orders::Line;
use crate::real::worker::{self, Worker};
use crate::report::make::Facts;
use crate::report::progress::Display;
use crate::report::summary::Report;
use crate::report::tally::Tally;
use crate::scenario::{self, Cast, Cue, Scenario, Sizes};

/// Everything a run is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub scenario: Scenario,
    pub sizes: Sizes,
    pub api: ApiKind,
    pub target: Target,
    pub http: http::Settings,
    pub common: Common,
    /// Where peers have their sockets.
    pub local: IpAddr,
    /// CPUs of the generator: one for each worker, any for the threads that measure beside them;
    /// empty: not pinned.
    pub cpus: Vec<usize>,
    pub workers: usize,
    /// Where the idle probe is pinned instead.
    pub probe_cpu: Option<usize>,
    pub server: ServerWatch,
    /// What was set on the command line, for the report.
    pub settings: BTreeMap<String, String>,
    pub quiet: bool,
    /// What comes after the measurement, before everybody leaves.
    pub interlude: Option<Interlude>,
}

/// How the server's own figures are got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerWatch {
    /// The server's process on this machine.
    pub pid: Option<u32>,
    /// Its metrics in Prometheus text.
    pub metrics: Option<String>,
    pub metrics_token: Option<String>,
}

impl Plan {
    /// A sentence if what is asked for cannot be played with that API.
    pub fn check(&self, api: ApiKind) -> Result<(), String> {
        if self.sizes.api_rate > 0.0 && !api.tells_of_sessions() {
            let api = api.name();
            return Err(format!("--api-rate: only the Realtime API tells of sessions, not {api}"));
        }
        Ok(())
    }

    /// Chooses the peers' DTLS; a sentence if this binary has it not.
    pub fn set_dtls(&mut self, dtls: Dtls) -> Result<(), String> {
        self.common.crypto = dtls.provider()?;
        self.settings.insert("dtls".to_owned(), dtls.name().to_owned());
        Ok(())
    }
}

/// A second, in which stock is taken.
const BEAT: Duration = Duration::from_secs(1);

/// How often is looked whether somebody wants it to end.
const EAR: Duration = Duration::from_millis(50);

/// How long the API may take to clear up.
const LEAVE: Duration = Duration::from_secs(30);

/// Runs the plan. Always gives a report: of what was done, or why nothing was.
pub fn run(plan: &Plan, stop: &Arc<AtomicBool>) -> Report {
    let facts = facts(plan, SystemTime::now());
    match http::run(conduct(plan, stop, facts.clone())) {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) | Err(failure) => Report::stopped(facts, &failure),
    }
}

fn facts(plan: &Plan, started: SystemTime) -> Facts {
    let (publishers, viewers) = match plan.scenario {
        Scenario::Meeting => {
            let people = plan.sizes.publishers * plan.sizes.rooms();
            (people, people)
        }
        _ => (plan.sizes.publishers, plan.sizes.viewers),
    };
    Facts {
        scenario: plan.scenario.name().to_owned(),
        api: plan.api.name().to_owned(),
        target: plan.target.url.clone(),
        settings: plan.settings.clone(),
        publishers: publishers as u64,
        viewers: viewers as u64,
        threads: plan.workers as u64,
        started,
        duration: Duration::ZERO,
        warm_up: Duration::ZERO,
        interrupted: false,
    }
}

async fn conduct(plan: &Plan, stop: &Arc<AtomicBool>, facts: Facts) -> Result<Report, Failure> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let cue = Rc::new(Cue::default());
    let (measured, clerk) = (Rc::clone(&tally), Rc::clone(&cue));
    let time = move |wanted, took| {
        if clerk.counts(wanted) {
            Tally::record(&mut measured.borrow_mut().api, took);
        }
    };
    let caller = Http::new(&plan.http, Rc::new(time))?;
    let refused = |what| Failure::new(Cause::Refused, what);
    let mut api = plan.target.api(plan.api).map_err(refused)?;
    api.prepare(&caller).await?;
    let workers = start_workers(plan)?;
    let lines: Vec<Line> = workers.iter().map(|worker| worker.line.clone()).collect();
    let watch = Watch::new(&plan.server, &caller).await?;
    let patience = plan.sizes.patience;
    let cast = Cast::new(api, caller.clone(), lines.clone(), Rc::clone(&tally), patience);
    let cast = Rc::new(cast);
    let aside = Aside::start(plan, &cast.live)?;
    let mut stock = Stock::new(lines, tally, watch, Display::new(plan.quiet), facts, aside);
    stock.begin(plan.sizes.settle + plan.sizes.duration).await;
    let play = scenario::play(plan.scenario, Rc::clone(&cast), Rc::clone(&cue), &plan.sizes);
    let after = plan.interlude.as_ref();
    let played = follow(&cue, &mut stock, stop, after, play).await;
    // A server that does not clear up keeps nobody waiting.
    let _ = tokio::time::timeout(LEAVE, cast.api.finish(&caller)).await;
    let report = stock.end(stop.load(Ordering::Relaxed)).await;
    drop(workers);
    played.map(|()| report)
}

/// Takes stock each second, and when the scenario asks, until it has been played.
async fn follow(
    cue: &Cue,
    stock: &mut Stock,
    stop: &AtomicBool,
    interlude: Option<&Interlude>,
    play: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut play = std::pin::pin!(play);
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ear = tokio::time::interval(EAR);
    let mut under_way: Option<oneshot::Receiver<()>> = None;
    loop {
        tokio::select! {
            played = &mut play => return played,
            _ = beat.tick() => stock.take(cue.phase()).await,
            () = cue.marking() => {
                stock.mark(cue.phase()).await;
                let measured = stock.measured().filter(|_| !cue.is_stopped());
                under_way = interlude.zip(measured).map(|(interlude, window)| {
                    stock.hush();
                    interlude.begin(window)
                });
                if under_way.is_none() {
                    cue.mark_done();
                }
            }
            // However it ended.
            _ = async { under_way.as_mut()?.await.ok() }, if under_way.is_some() => {
                under_way = None;
                cue.mark_done();
            }
            _ = ear.tick() => {
                if stop.load(Ordering::Relaxed) && !cue.is_stopped() {
                    cue.stop();
                }
            }
        }
    }
}

fn start_workers(plan: &Plan) -> Result<Vec<Worker>, Failure> {
    let start = |number: usize| {
        let cpu = plan.cpus.get(number % plan.cpus.len().max(1)).copied();
        let common = plan.common.clone();
        Worker::start(number, worker::Settings { common, local: plan.local, cpu })
    };
    (0..plan.workers).map(start).collect()
}
