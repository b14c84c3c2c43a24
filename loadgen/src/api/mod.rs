//! How each kind of server is asked: what to call, in which order, and what the answers mean.
//!
//! A dialect is a sequence of calls written as an async function over two traits: [`Caller`]
//! (HTTP, and time to wait) and [`Endpoint`] (the peer's descriptions). So the same functions
//! run over real sockets and in a simulator.
//!
//! Invariants: nothing here opens a socket or reads a clock; whatever a server answers is an
//! answer or a [`Failure`] with its cause, never a panic.

use std::fmt;
use std::future::Future;
use std::time::Duration;

pub use dialect::Api;
pub use live::Live;
pub use target::{ApiKind, Target};

mod answer;
mod backoff;
mod dialect;
pub mod janus;
mod live;
pub mod realtime;
mod target;
#[cfg(test)]
mod testing;
pub mod whip;

/// One HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<String>,
    pub content_type: Option<&'static str>,
    pub body: String,
}

impl Request {
    pub(crate) fn new(method: Method, url: String) -> Self {
        Self { method, url, bearer: None, content_type: None, body: String::new() }
    }

    pub(crate) fn bearer(self, token: Option<&str>) -> Self {
        Self { bearer: token.map(str::to_owned), ..self }
    }

    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        Self { content_type: Some("application/json"), body: body.to_string(), ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The `Location` header, made absolute.
    pub location: Option<String>,
    pub body: String,
}

/// HTTP, and waiting.
pub trait Caller {
    /// Makes one request. Its time counts into the API latency, from this moment on.
    fn call(&self, request: Request) -> impl Future<Output = Result<Response, Failure>>;

    /// As [`Self::call`] for a request that the server holds open until there is news.
    fn wait_for_news(&self, request: Request) -> impl Future<Output = Result<Response, Failure>>;

    fn pause(&self, time: Duration) -> impl Future<Output = ()>;

    /// Unpredictable bits: transaction names.
    fn random(&self) -> u64;
}

/// The peer whose descriptions are exchanged.
pub trait Endpoint {
    /// Offers these new m-lines.
    fn offer(&self, lines: Vec<LineWish>) -> impl Future<Output = Result<Offer, Failure>>;

    /// Offers an ICE restart.
    fn offer_restart(&self) -> impl Future<Output = Result<Offer, Failure>>;

    /// Takes the answer to the last offer.
    fn accept(&self, answer: String) -> impl Future<Output = Result<(), Failure>>;

    /// Answers a server's offer: receives all it is offered.
    fn answer(&self, offer: String) -> impl Future<Output = Result<String, Failure>>;
}

/// An m-line to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineWish {
    pub kind: Kind,
    pub sends: bool,
}

/// An offer, and the mids of the lines that were wished for, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub sdp: String,
    pub mids: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Audio,
    Video,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }
}

/// A track to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub kind: Kind,
    /// Unique within the run.
    pub name: String,
}

/// A track to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub kind: Kind,
    pub name: String,
    /// What [`Joined::source`] said when the track was published.
    pub source: Source,
}

/// How others address what a session publishes: a session id, a feed id, a URL; only the
/// dialect knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub String);

/// A session that stands: its m-lines are negotiated, its transport may still be coming up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Names the session towards the server in later calls; only the dialect knows how.
    pub session: String,
    /// How others pull what it publishes.
    pub source: Source,
    /// The mids of what is pushed, in the order of the wishes.
    pub pushed: Vec<String>,
    /// The mids of what is pulled, in the order of the wishes.
    pub pulled: Vec<Result<String, Failure>>,
}

/// Why something was not done, for the report: failures are counted by `cause` and `what`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Failure {
    pub cause: Cause,
    /// One sentence for the person who reads the report: which call, which answer. Without ids,
    /// so that equal failures count as one.
    pub what: String,
}

/// The kinds of failures, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// No TCP or TLS connection to the API.
    Unreachable,
    /// The API did not answer in time.
    Slow,
    /// 401 or 403, or the dialect's own words for it.
    Unauthorized,
    /// Any other refusal by the API.
    Refused,
    /// An answer that makes no sense.
    Incomprehensible,
    /// A description was not accepted by the peer.
    Negotiation,
    /// ICE did not connect: no UDP path.
    NoPath,
    /// DTLS did not complete.
    Handshake,
    /// Connected, but nothing came.
    NoMedia,
    /// The server closed the session.
    Closed,
    /// This machine's limits: files, memory, sockets.
    Local,
}

impl Failure {
    pub fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self { cause, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}
