//! What has been counted so far, second by second, and between the marks of the measurement.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Window;
use super::aside::Aside;
use super::server::{Reading, Watch};
use crate::api::{Cause, Failure};
use crate::probe::Published;
use crate::real::clock;
use crate::real::orders::{Line, Order};
use crate::report::beside::Beside;
use crate::report::make::{Facts, GeneratorUse, ServerUse};
use crate::report::process::Process;
use crate::report::progress::{self, Display, Progress};
use crate::report::series::{Moment, Series, Use};
use crate::report::summary::Report;
use crate::report::tally::Tally;
use crate::scenario::cue::Phase;

/// How long what was under way at the end may take: repairs of repairs, on any path.
const GRACE: Duration = Duration::from_millis(300);

/// How often that time is given again while ends of tracks have not come: some 2 s in all, which
/// no server has in its queues that is not lost.
const DRAINS: u32 = 6;

/// Takes stock of workers, server and this process.
#[derive(Debug)]
pub(super) struct Stock {
    workers: Vec<Line>,
    /// What the conductor's side counted since it was last added.
    own: Rc<RefCell<Tally>>,
    watch: Watch,
    display: Display,
    facts: Facts,
    planned: Duration,
    began: Instant,
    /// Since the run began.
    total: Tally,
    worker_cpu: Vec<Duration>,
    /// Workers that answer no more, whose failure is counted.
    gone: Vec<bool>,
    process: Option<Process>,
    last: Last,
    series: Series,
    rss_before: Option<u64>,
    warm: Option<Mark>,
    done: Option<Mark>,
    aside: Aside,
    beside: Beside,
}

/// The end of the last moment.
#[derive(Debug)]
struct Last {
    at: Instant,
    total: Tally,
    server: Reading,
    own_cpu: Option<Duration>,
}

/// Everything at a moment that matters.
#[derive(Debug)]
struct Mark {
    at: Instant,
    /// The same, nanoseconds since 1970.
    unix: u64,
    total: Tally,
    server: Reading,
    own_cpu: Option<Duration>,
    worker_cpu: Vec<Duration>,
}

impl Mark {
    /// Takes over what is only known when all that was under way has come: what was lost, and how
    /// late the latest were. With them, latency includes what else arrived until then.
    fn settle(&mut self, later: &Tally) {
        (self.total.lost, self.total.lost_early) = (later.lost, later.lost_early);
        self.total.latency.clone_from(&later.latency);
    }
}

impl Stock {
    pub(super) fn new(
        workers: Vec<Line>,
        own: Rc<RefCell<Tally>>,
        watch: Watch,
        display: Display,
        facts: Facts,
        aside: Aside,
    ) -> Self {
        let now = clock::moment().now;
        let worker_cpu = vec![Duration::ZERO; workers.len()];
        let gone = vec![false; workers.len()];
        let (total, server, own_cpu) = (Tally::default(), Reading::default(), None);
        Self {
            workers,
            own,
            watch,
            display,
            facts,
            planned: Duration::ZERO,
            began: now,
            worker_cpu,
            gone,
            process: Process::own().ok(),
            last: Last { at: now, total: total.clone(), server, own_cpu },
            total,
            series: Series::default(),
            rss_before: None,
            warm: None,
            done: None,
            aside,
            beside: Beside::default(),
        }
    }

    /// Before the first peer.
    pub(super) async fn begin(&mut self, planned: Duration) {
        self.planned = planned;
        let reading = self.watch.read().await;
        self.rss_before = reading.rss_bytes;
        self.last.server = reading;
        self.last.own_cpu = self.own_cpu();
    }

    /// Once a second.
    pub(super) async fn take(&mut self, phase: Phase) {
        self.count().await;
        let now = clock::moment().now;
        let span = now.saturating_duration_since(self.last.at);
        if span.is_zero() {
            return;
        }
        let server = self.watch.glance().await;
        let own_cpu = self.own_cpu();
        let spent = |now: Option<Duration>, before: Option<Duration>| {
            let spent = now?.checked_sub(before?)?;
            u64::try_from(spent.as_nanos()).ok()
        };
        let used = Use {
            server_cpu_ns: spent(server.cpu, self.last.server.cpu),
            generator_cpu_ns: spent(own_cpu, self.last.own_cpu),
            server_rss_bytes: server.rss_bytes,
        };
        let at = self.last.at.saturating_duration_since(self.began).as_secs_f64();
        let moment = Moment::between(at, span.as_secs_f64(), &self.last.total, &self.total, used);
        self.series.push(moment);
        self.show(phase, &moment, now);
        self.last = Last { at: now, total: self.total.clone(), server, own_cpu };
    }

    fn show(&mut self, phase: Phase, moment: &Moment, now: Instant) {
        let phase = match phase {
            Phase::Joining { done, of } => {
                progress::Phase::Joining { connected: done as u64, wanted: of as u64 }
            }
            Phase::Settling => progress::Phase::WarmingUp,
            Phase::Steady => progress::Phase::Steady,
            Phase::Leaving => progress::Phase::Leaving,
        };
        let elapsed = now.saturating_duration_since(self.began);
        let joined = self.warm.as_ref().map_or(elapsed, |warm| warm.at - self.began);
        self.display.show(&Progress {
            elapsed,
            planned: joined + self.planned,
            phase,
            moment,
            lost: self.total.lost,
            failed: self.total.failed(),
        });
    }

    /// When the measurement begins, and when it ends.
    pub(super) async fn mark(&mut self, phase: Phase) {
        let at_end = phase != Phase::Settling;
        let published = self.published().await;
        self.give(|| match at_end {
            false => Order::Begin { published: Arc::clone(&published) },
            true => Order::DrawLine { published: Arc::clone(&published) },
        });
        let aside = at_end.then(|| self.aside.end());
        let server = self.watch.read().await;
        self.count().await;
        let moment = clock::moment();
        let mut mark = Mark {
            at: moment.now,
            unix: moment.unix,
            total: self.total.clone(),
            server,
            own_cpu: self.own_cpu(),
            worker_cpu: self.worker_cpu.clone(),
        };
        if !at_end {
            self.warm = Some(mark);
            self.aside.begin();
            return;
        }
        tokio::time::sleep(GRACE).await;
        self.give(|| Order::CountStopped);
        self.drain().await;
        self.give(|| Order::CloseBooks);
        self.count().await;
        if let Some(aside) = aside {
            self.beside = aside.settle().await;
        }
        mark.settle(&self.total);
        self.done = Some(mark);
    }

    /// The last number of each track that is published, by all workers.
    async fn published(&self) -> Arc<Published> {
        let mut all = Published::new();
        for line in &self.workers {
            all.extend(line.ask(|reply| Order::Published { reply }).await.unwrap_or_default());
        }
        Arc::new(all)
    }

    /// A server that is late has lost nothing yet.
    async fn drain(&self) {
        for _ in 0..DRAINS {
            let mut lacking = 0;
            for line in &self.workers {
                lacking += line.ask(|reply| Order::Lacking { reply }).await.unwrap_or_default();
            }
            if lacking == 0 {
                return;
            }
            tokio::time::sleep(GRACE).await;
        }
    }

    fn give(&self, order: impl Fn() -> Order) {
        self.workers.iter().for_each(|line| line.give(order()));
    }

    /// When the measurement was, once it is over.
    pub(super) fn measured(&self) -> Option<Window> {
        let (warm, done) = (self.warm.as_ref()?, self.done.as_ref()?);
        Some(Window { from: warm.unix, to: done.unix })
    }

    /// Nobody publishes any more.
    pub(super) fn hush(&self) {
        self.give(|| Order::Hush);
    }

    /// The report of the run.
    pub(super) async fn end(mut self, interrupted: bool) -> Report {
        self.take(Phase::Leaving).await;
        self.display.end();
        let now = clock::moment().now;
        let total = self.total;
        let warm = self.warm;
        let done = self.done.unwrap_or_else(|| Mark {
            at: now,
            unix: 0,
            total: total.clone(),
            server: Reading::default(),
            own_cpu: None,
            worker_cpu: self.worker_cpu.clone(),
        });
        // What flowed or was lost while everybody left belongs to no measurement; what was wrong
        // then is told as ever.
        let ended = &done.total;
        let total = Tally {
            begun: total.begun,
            connected: total.connected,
            left: total.left,
            failures: total.failures,
            profiles: total.profiles,
            duplicated: total.duplicated,
            corrupted: total.corrupted,
            foreign: total.foreign,
            // Calls of the measurement only, those that ended after it too.
            api: total.api,
            join: total.join,
            first_media: total.first_media,
            ..ended.clone()
        };
        let begin = warm.as_ref().map_or(self.began, |warm| warm.at);
        let facts = Facts {
            duration: done.at.saturating_duration_since(begin),
            warm_up: begin.saturating_duration_since(self.began),
            interrupted,
            ..self.facts
        };
        let before = |read: fn(&Mark) -> Option<Duration>| {
            read(&done)?.checked_sub(warm.as_ref().and_then(read)?)
        };
        let scrapes = done.server.scrape.as_ref().zip(warm.as_ref());
        let metrics = scrapes.and_then(|(now, warm)| Some(now.since(warm.server.scrape.as_ref()?)));
        let server = ServerUse {
            cpu: before(|mark| mark.server.cpu),
            rss_bytes: done.server.rss_bytes,
            sessions: Some(ended.connected.saturating_sub(ended.left)),
            rss_before_bytes: self.rss_before,
            metrics,
        };
        let worker = |(at, cpu): (usize, &Duration)| {
            let before = warm.as_ref().and_then(|warm| warm.worker_cpu.get(at).copied());
            cpu.saturating_sub(before.unwrap_or_default())
        };
        let generator = GeneratorUse {
            cpu: before(|mark| mark.own_cpu),
            workers: done.worker_cpu.iter().enumerate().map(worker).collect(),
        };
        let warm_total = warm.as_ref().map(|warm| &warm.total);
        let report = Report::new(facts, &total, warm_total, &self.series, server, &generator);
        report.with(&self.beside)
    }

    /// Adds up what everybody counted.
    async fn count(&mut self) {
        let known = self.worker_cpu.iter_mut().zip(&mut self.gone);
        for (line, (cpu, gone)) in self.workers.iter().zip(known) {
            if let Ok(counted) = line.ask(|reply| Order::Count { reply }).await {
                self.total.add(&counted.tally);
                *cpu += counted.cpu;
            } else if !*gone {
                // Its peers are silent from here on, and what they had counted since is lost.
                *gone = true;
                let what = "a worker of the load generator ended, with all its peers";
                self.total.fail(Failure::new(Cause::Local, what));
            }
        }
        let own = std::mem::take(&mut *self.own.borrow_mut());
        self.total.add(&own);
    }

    fn own_cpu(&mut self) -> Option<Duration> {
        self.process.as_mut().and_then(Process::cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_packets_of_the_window_are_in_its_latency() {
        let now = clock::moment().now;
        let mut total = Tally { packets_out: 1, ..Tally::default() };
        Tally::record(&mut total.latency, Duration::from_millis(1));
        let mut mark = Mark {
            at: now,
            unix: 0,
            total: total.clone(),
            server: Reading::default(),
            own_cpu: None,
            worker_cpu: Vec::new(),
        };
        // Stalled at the end of the window, it came while the run drained.
        Tally::record(&mut total.latency, Duration::from_millis(900));
        (total.packets_out, total.lost, total.lost_early) = (2, 5, 1);
        mark.settle(&total);
        let Tally { packets_out, lost, lost_early, latency, .. } = &mark.total;
        assert_eq!((*packets_out, *lost, *lost_early), (1, 5, 1));
        assert!(latency.len() == 2 && latency.max() >= 900_000, "{}", latency.max());
    }
}
