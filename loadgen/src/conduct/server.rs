//! The server's own figures: of its process, if it runs here, and of its metrics.

use std::time::Duration;

use super::ServerWatch;
use crate::api::{Caller, Cause, Failure, Method, Request};
use crate::real::http::Http;
use crate::report::metrics::Scrape;
use crate::report::process::Process;

/// How long a server may take to tell its metrics while it is measured.
const GLANCE: Duration = Duration::from_millis(500);

/// Reads them.
#[derive(Debug)]
pub(super) struct Watch {
    process: Option<Process>,
    metrics: Option<(String, Option<String>)>,
    caller: Http,
}

/// At one moment, since the server began.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) cpu: Option<Duration>,
    pub(super) rss_bytes: Option<u64>,
    pub(super) scrape: Option<Scrape>,
}

impl Watch {
    /// A process that is not there is an error: somebody meant one. Metrics that are not there
    /// are not: most servers have none.
    pub(super) async fn new(watch: &ServerWatch, caller: &Http) -> Result<Self, Failure> {
        let process = match watch.pid {
            Some(pid) => Some(Process::watch(pid).map_err(|error| {
                Failure::new(Cause::Local, format!("--server-pid {pid} cannot be read: {error}"))
            })?),
            None => None,
        };
        let metrics = watch.metrics.clone().map(|url| (url, watch.metrics_token.clone()));
        let mut this = Self { process, metrics, caller: caller.clone() };
        if this.scrape().await.is_none() {
            this.metrics = None;
        }
        Ok(this)
    }

    /// CPU time and memory, each second: of its process, or else from its metrics, which costs the
    /// server a millisecond or so.
    pub(super) async fn glance(&mut self) -> Reading {
        if self.process.is_some() {
            return self.look();
        }
        // A server that is slow to tell leaves a gap, instead of holding up who counts.
        let scrape = tokio::time::timeout(GLANCE, self.scrape()).await.ok().flatten();
        let scrape = scrape.unwrap_or_default();
        Reading { cpu: scrape.cpu, rss_bytes: scrape.rss_bytes, scrape: None }
    }

    /// What can be read without asking the server.
    fn look(&mut self) -> Reading {
        let Some(process) = &mut self.process else { return Reading::default() };
        Reading { cpu: process.cpu(), rss_bytes: process.rss_bytes(), scrape: None }
    }

    /// All of it: when measuring begins and ends.
    pub(super) async fn read(&mut self) -> Reading {
        let scrape = self.scrape().await;
        let mut reading = self.look();
        if let Some(scrape) = &scrape {
            reading.cpu = reading.cpu.or(scrape.cpu);
            reading.rss_bytes = reading.rss_bytes.or(scrape.rss_bytes);
        }
        reading.scrape = scrape;
        reading
    }

    async fn scrape(&self) -> Option<Scrape> {
        let (url, token) = self.metrics.clone()?;
        let request = Request {
            method: Method::Get,
            url,
            bearer: token,
            content_type: None,
            body: String::new(),
        };
        // Not by `call`: a scrape is no call of the API and counts in no latency.
        let response = self.caller.wait_for_news(request).await.ok()?;
        (response.status == 200).then(|| Scrape::read(&response.body))
    }
}
