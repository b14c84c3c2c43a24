//! Every refusal, as status, code and words, in one place.
//!
//! Invariants: a problem's body is the Realtime API's error envelope; codes match
//! `^[a-z0-9][a-z0-9_]{0,79}$`; known texts are verbatim, because clients compare them.
//!
//! Not here: the decision to refuse.

use std::fmt;

use serde::Serialize;
use shards::command::{ItemError, Refusal};

use crate::limits;
use crate::response::Response;

/// Why a request as a whole was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Not HTTP/1.1 as we read it; says what is wrong. The connection ends.
    Malformed(&'static str),
    /// HTTP of another major version.
    Version,
    HeadTooLarge,
    PayloadTooLarge,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// The head or body did not arrive in time.
    TimedOut,
    Unauthorized,
    /// The metrics were asked for from elsewhere, and there is no secret for that.
    NoAdminSecret,
    NoSuchApp,
    NoSuchEndpoint,
    /// The path exists, for other methods: the `Allow` header.
    Method(&'static str),
    /// The body is not JSON, or a field has the wrong type; names it.
    Undecodable(String),
    /// A field, value or combination is wrong; names it.
    Invalid(String),
    TooManyRequests,
    /// The node is in no cluster, or the shard that knows did not answer.
    NoCluster,
    /// A feature this node does not have yet.
    Missing(&'static str),
    /// The session's shard did not answer.
    Unanswered,
    /// This shard serves as many connections as it can.
    Crowded,
    Refused(Refusal),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told().description)
    }
}

impl Problem {
    pub fn response(&self) -> Response {
        let told = self.told();
        let body = Envelope {
            error_code: told.code,
            error_subcode: told.subcode,
            error_description: &told.description,
        };
        let response = Response::json(told.status, &body);
        match self {
            Self::Method(allow) => response.with("allow", *allow),
            Self::TooManyRequests
            | Self::Unanswered
            | Self::Crowded
            | Self::Refused(Refusal::Busy(_) | Refusal::Unreachable) => {
                response.with("retry-after", "1")
            }
            Self::Refused(Refusal::Draining) => response.with("retry-after", "5"),
            Self::Unauthorized => response.with("www-authenticate", "Bearer"),
            Self::Malformed(_)
            | Self::Version
            | Self::HeadTooLarge
            | Self::PayloadTooLarge
            | Self::Expectation
            | Self::TimedOut
            | Self::NoAdminSecret
            | Self::NoSuchApp
            | Self::NoSuchEndpoint
            | Self::Undecodable(_)
            | Self::Invalid(_)
            | Self::Missing(_)
            | Self::NoCluster
            | Self::Refused(_) => response,
        }
    }

    fn told(&self) -> Told {
        match self {
            Self::Malformed(what) => told(400, "bad_request", *what),
            Self::Version => told(505, "bad_request", "Only HTTP/1.1 and HTTP/1.0 are spoken here"),
            Self::HeadTooLarge => told(431, "bad_request", "The request's head is too large"),
            Self::PayloadTooLarge => {
                let most = limits::BODY_BYTES >> 10;
                told(413, "payload_too_large", format!("The body is larger than {most} KiB"))
            }
            Self::Expectation => {
                told(417, "bad_request", "Only the expectation 100-continue can be met")
            }
            Self::TimedOut => told(408, "request_timeout", "The request did not arrive in time"),
            Self::Unauthorized => told(
                401,
                "unauthorized",
                "Invalid bearer token, please ensure the token is current and not expired",
            ),
            Self::NoAdminSecret => told(403, "forbidden", NO_ADMIN_SECRET),
            Self::NoSuchApp => told(404, "not_found", "App not found"),
            Self::NoSuchEndpoint => told(404, "not_found", "No such endpoint"),
            Self::Method(allow) => {
                told(405, "method_not_allowed", format!("This endpoint takes {allow}"))
            }
            Self::Undecodable(what) => told(400, "decoding_error", what.clone()),
            Self::Invalid(what) => told(406, "invalid_params", what.clone()),
            Self::TooManyRequests => {
                let most = limits::REQUESTS_PER_SECOND;
                let said = format!("More than {most} requests per second for this session");
                told(429, "too_many_requests", said)
            }
            Self::NoCluster => told(404, "not_found", "This node is in no cluster: see --cluster"),
            Self::Missing(feature) => told(501, "not_implemented", missing(feature)),
            Self::Unanswered => {
                told(503, "retryable_transient_error", "The session's shard did not answer in time")
            }
            Self::Crowded => {
                told(503, "temporarily_unavailable_error", "Too many connections, try again")
            }
            Self::Refused(refusal) => refused(refusal),
        }
    }
}

/// The code and words of one failed item.
pub(crate) fn item(error: &ItemError) -> (&'static str, String) {
    match error {
        ItemError::NotFoundTrack => ("not_found_track_error", NOT_FOUND_TRACK.into()),
        ItemError::PublisherGone(session) => {
            ("session_error", format!("{DISCONNECTED} (publisher session {session})"))
        }
        ItemError::EmptyTrack => ("empty_track_error", EMPTY_TRACK.into()),
        ItemError::CodecMismatch(codec) => (
            "track_error",
            format!("The track is sent as {codec}, which this session did not negotiate"),
        ),
        ItemError::NotSimulcast => ("update_track_error", NOT_SIMULCAST.into()),
        ItemError::AlreadyClosed => ("close_track_error", ALREADY_CLOSED.into()),
        ItemError::BadTransceiver(what) => ("invalid_params", what.clone()),
        ItemError::RepeatedTrack(name) => (
            "repeated_local_track_error",
            format!("This session already publishes a track named {name}"),
        ),
        ItemError::Limit(what) => ("invalid_params", format!("Limit reached: {what}")),
    }
}

fn refused(refusal: &Refusal) -> Told {
    match refusal {
        Refusal::Gone { session, publisher } => {
            let whose = if *publisher { "publisher session" } else { "session" };
            told(410, "session_error", format!("{DISCONNECTED} ({whose} {session})"))
        }
        Refusal::NotReady => told(425, "session_error", NOT_READY),
        Refusal::InvalidParams(what) => told(406, "invalid_params", what.clone()),
        Refusal::InvalidDescription(what) => told(406, "invalid_session_description", what.clone()),
        Refusal::HaveLocalOffer => Told {
            subcode: Some("invalid_modification_have_local_offer"),
            ..told(
                406,
                "invalid_session_description",
                "An offer of this session is unanswered, answer it with renegotiate first",
            )
        },
        Refusal::NoLocalOffer => Told {
            subcode: Some("invalid_modification_stable"),
            ..told(
                406,
                "invalid_session_description",
                "There is no offer of this session to be answered",
            )
        },
        Refusal::NotImplemented(feature) => told(501, "not_implemented", missing(feature)),
        Refusal::Busy(what) => {
            told(503, "temporarily_unavailable_error", format!("Limit reached: {what}"))
        }
        Refusal::Draining => told(
            503,
            "temporarily_unavailable_error",
            "This node is shutting down and takes no new sessions",
        ),
        Refusal::Unreachable => told(503, "retryable_transient_error", UNREACHABLE),
        Refusal::Internal => told(500, "internal_error", "Backend error"),
    }
}

fn missing(feature: &str) -> String {
    format!("This node does not implement {feature}")
}

/// A problem in words.
struct Told {
    status: u16,
    code: &'static str,
    subcode: Option<&'static str>,
    description: String,
}

fn told(status: u16, code: &'static str, description: impl Into<String>) -> Told {
    Told { status, code, subcode: None, description: description.into() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    error_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_subcode: Option<&'static str>,
    error_description: &'a str,
}

const DISCONNECTED: &str = "Session appears to be disconnected. \
    Please check if the PeerConnection is connected.";
const NO_ADMIN_SECRET: &str = "Without --admin-secret the metrics are told only to who asks \
    this machine by a loopback address: set it, and send it as a bearer token";
const NOT_READY: &str = "Session is not ready yet. \
    Please ensure the PeerConnection is connected before making this request";
const NOT_FOUND_TRACK: &str = "Track not found on remote peer. \
    Make sure the publisher peer is connected and sending packets for this track";
const EMPTY_TRACK: &str = "No track data from remote peer. \
    Make sure the publisher peer is connected and sending packets for this track";
const UNREACHABLE: &str = "The session's node went away or did not answer in time; \
    look at the session before you repeat what may not happen twice";
const NOT_SIMULCAST: &str = "The track is not configured for simulcast, no updates applicable.";
const ALREADY_CLOSED: &str = "Track doesn't exist or was already closed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_one_clients_accept() {
        for problem in problems() {
            let told = problem.told();
            let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
            assert!(told.code.bytes().all(plain) && !told.code.is_empty(), "{problem:?}");
            assert!(!told.description.is_empty(), "{problem:?}");
            assert!((400..=599).contains(&told.status), "{problem:?}");
        }
    }

    #[test]
    fn a_410_says_whose_session_died() {
        let gone = |publisher| {
            let refusal = Refusal::Gone { session: "ab".into(), publisher };
            String::from_utf8(Problem::from(refusal).response().body.into_owned()).unwrap()
        };
        assert!(gone(false).contains("connected. (session ab)"), "{}", gone(false));
        assert!(gone(true).contains("connected. (publisher session ab)"), "{}", gone(true));
    }

    #[test]
    fn an_offer_in_the_way_has_its_subcode() {
        let response = Problem::from(Refusal::HaveLocalOffer).response();
        assert_eq!(response.status, 406);
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["errorSubcode"], "invalid_modification_have_local_offer");
    }

    fn problems() -> Vec<Problem> {
        vec![
            Problem::Malformed("x"),
            Problem::Version,
            Problem::HeadTooLarge,
            Problem::PayloadTooLarge,
            Problem::Expectation,
            Problem::TimedOut,
            Problem::Unauthorized,
            Problem::NoAdminSecret,
            Problem::NoSuchApp,
            Problem::NoSuchEndpoint,
            Problem::Method("GET"),
            Problem::Undecodable("x".into()),
            Problem::Invalid("x".into()),
            Problem::TooManyRequests,
            Problem::Missing("x"),
            Problem::NoCluster,
            Problem::Unanswered,
            Problem::Crowded,
            Refusal::NotReady.into(),
            Refusal::InvalidParams("x".into()).into(),
            Refusal::InvalidDescription("x".into()).into(),
            Refusal::HaveLocalOffer.into(),
            Refusal::NoLocalOffer.into(),
            Refusal::NotImplemented("x".into()).into(),
            Refusal::Busy("x".into()).into(),
            Refusal::Draining.into(),
            Refusal::Internal.into(),
            Refusal::Unreachable.into(),
        ]
    }
}
