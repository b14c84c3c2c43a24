//! HTTP over real sockets: how the dialects' calls leave this machine.
//!
//! One client for all peers of a thread: connections are kept and shared, and calls wait for
//! their turn, because a thousand peers that join at once must not need a thousand sockets.
//! Futures of this client run inside [`run`].
//!
//! Invariants: the time of a call is measured from when it was wanted: a slow server makes others
//! wait for their turn, and what they waited is its doing too; a call counts with all the time it
//! took, however it ended (answered, refused, broken off, given up), unless this machine could not
//! make it; a body that never ends is cut off; no proxy stands between.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Url};
use tokio::sync::Semaphore;

use super::clock;
use crate::api::{Caller, Cause, Failure, Method, Request, Response};

/// An answer's body. Ten times the largest offer with a hundred m-lines; more is no API.
const BODY_BYTES: usize = 2 << 20;

/// Less than the time after which servers close what is idle, so that calls rarely meet a
/// connection that is being closed.
const IDLE: Duration = Duration::from_secs(20);

/// Servers hold a request for news for half a minute.
const NEWS: Duration = Duration::from_secs(45);

/// How calls are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Takes certificates without looking.
    pub insecure: bool,
    /// What one call may take. The Realtime API holds a pull for up to 13 s until its track
    /// flows; giving up earlier would leave half a negotiation behind.
    pub timeout: Duration,
    /// Calls under way at the same time.
    pub at_once: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { insecure: false, timeout: Duration::from_secs(15), at_once: 64 }
    }
}

/// A [`Caller`] over sockets. Clones share connections and limits.
#[derive(Clone)]
pub struct Http {
    client: Client,
    turns: Arc<Semaphore>,
    timeout: Duration,
    measured: Measured,
}

/// Gets when a call was wanted, and what it took from then on until it was answered, refused, broke
/// or was given up. Only what this machine could not make ([`Cause::Local`]) says nothing of the
/// server.
pub type Measured = Rc<dyn Fn(Instant, Duration)>;

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Http {
    pub fn new(settings: &Settings, measured: Measured) -> Result<Self, Failure> {
        // The whole process has one; a second time is no news.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(settings.timeout)
            .pool_idle_timeout(IDLE)
            .danger_accept_invalid_certs(settings.insecure)
            .user_agent(concat!("shardcast-loadgen/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| {
            Failure::new(Cause::Local, format!("no HTTP client on this machine: {}", root(&error)))
        })?;
        let turns = Arc::new(Semaphore::new(settings.at_once.max(1)));
        Ok(Self { client, turns, timeout: settings.timeout, measured })
    }

    async fn exchange(&self, request: Request, time: Duration) -> Result<Response, Failure> {
        let place = place(&request.url);
        let told = |error: reqwest::Error| failure(&place, time, &error);
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut call = self.client.request(method, &request.url).timeout(time).body(request.body);
        if let Some(token) = &request.bearer {
            call = call.bearer_auth(token);
        }
        if let Some(kind) = request.content_type {
            call = call.header(CONTENT_TYPE, kind);
        }
        let mut response = call.send().await.map_err(told)?;
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let location = location.and_then(|place| response.url().join(place).ok());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(told)? {
            if body.len() + piece.len() > BODY_BYTES {
                let what = format!("{place} answers with more than {BODY_BYTES} bytes");
                return Err(Failure::new(Cause::Incomprehensible, what));
            }
            body.extend_from_slice(&piece);
        }
        let body = String::from_utf8(body).map_err(|_| {
            let what = format!("{place} answers with what is no text");
            Failure::new(Cause::Incomprehensible, what)
        })?;
        Ok(Response { status, location: location.map(String::from), body })
    }
}

impl Caller for Http {
    async fn call(&self, request: Request) -> Result<Response, Failure> {
        let wanted = clock::moment().now;
        let _turn = self.turns.acquire().await;
        let result = self.exchange(request, self.timeout).await;
        if result.as_ref().map_or_else(|failure| failure.cause != Cause::Local, |_| true) {
            (self.measured)(wanted, clock::moment().now.saturating_duration_since(wanted));
        }
        result
    }

    /// Takes no turn: as many may wait as there are peers.
    async fn wait_for_news(&self, request: Request) -> Result<Response, Failure> {
        self.exchange(request, NEWS).await
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn random(&self) -> u64 {
        getrandom::u64().expect("the kernel has randomness")
    }
}

/// Runs a future, with all it spawns on this thread, to its end.
pub fn run<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Cause::Local, format!("no event loop on this machine: {error}"))
    })?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}

/// Who is meant by a URL: what a person would check.
fn place(url: &str) -> String {
    let named = || {
        let url = Url::parse(url).ok()?;
        Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
    };
    named().unwrap_or_else(|| "the target".into())
}

fn failure(place: &str, time: Duration, error: &reqwest::Error) -> Failure {
    let why = root(error);
    if is_local(error) {
        let what = format!("no connection to {place} from this machine: {why}");
        return Failure::new(Cause::Local, what);
    }
    if error.is_connect() {
        let why = if error.is_timeout() { "no answer in time".into() } else { why };
        let hint = if why.contains("certificate") { " (--insecure takes any)" } else { "" };
        return Failure::new(Cause::Unreachable, format!("no connection to {place}: {why}{hint}"));
    }
    if error.is_timeout() {
        let seconds = time.as_secs_f32();
        return Failure::new(Cause::Slow, format!("{place} did not answer within {seconds} s"));
    }
    if error.is_redirect() {
        return Failure::new(Cause::Incomprehensible, format!("{place} redirects without end"));
    }
    Failure::new(Cause::Unreachable, format!("the connection to {place} broke: {why}"))
}

/// This machine has no more files, ports or memory.
fn is_local(error: &reqwest::Error) -> bool {
    let mut inner: &dyn Error = error;
    loop {
        let code = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            use Errno::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
            let ours = [EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM];
            return ours.contains(&Errno::from_raw(code));
        }
        let Some(source) = inner.source() else { return false };
        inner = source;
    }
}

/// The innermost reason; those around it only say that there was one.
fn root(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
