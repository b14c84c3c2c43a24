//! Why a description or a request for one was refused.
//!
//! Invariants: a refusal leaves the negotiation exactly as it was; every message says what is
//! wrong, which value it is, and what would help; values of others are cut, so that it stays
//! short.

use std::fmt;

use super::description::Direction;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SdpError {
    Text(BadText),
    Transport(BadTransport),
    Request(BadRequest),
}

/// What can be wrong with the text and its m-lines. Indexes count m-lines from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadText {
    /// The text has this many bytes.
    TooLong(usize),
    TooMany {
        what: &'static str,
        limit: usize,
    },
    /// A line that does not parse; they count from 1.
    Line {
        number: usize,
        expected: &'static str,
        text: String,
    },
    NoMediaLines,
    PayloadType {
        index: usize,
        value: String,
    },
    MissingMid {
        index: usize,
    },
    Mid {
        index: usize,
        mid: String,
    },
    DuplicateMid(String),
    ChangedMid {
        index: usize,
        expected: String,
        found: String,
    },
    ChangedKind {
        mid: String,
    },
    FewerLines {
        expected: usize,
        found: usize,
    },
    /// An answer with another number of m-lines than its offer.
    LineCount {
        expected: usize,
        found: usize,
    },
}

/// What can be wrong with BUNDLE, ICE and DTLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadTransport {
    MissingBundle,
    NotBundled(String),
    BundledTwice(String),
    UnknownBundled(String),
    MissingRtcpMux(String),
    MissingIce,
    Ice(&'static str),
    MissingFingerprint,
    Fingerprint,
    FingerprintChanged,
    /// The client wants to be the DTLS server.
    DtlsRole(&'static str),
    /// Neither the description nor any before it has a line we can carry.
    NothingUsable,
}

/// What can be wrong with the request rather than with the SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRequest {
    /// Our own offer waits for its answer.
    HaveLocalOffer,
    NoLocalOffer,
    /// The offer was read before another negotiation changed the session.
    Stale,
    UnknownMid(String),
    PlannedTwice(String),
    NotMedia(String),
    CannotReceive {
        mid: String,
        direction: Direction,
    },
    CannotSend {
        mid: String,
        direction: Direction,
    },
    NoCodec(String),
    NoPayloadTypes,
    NoMids,
    HasDataLine(String),
}

impl SdpError {
    /// Cuts a value of the other side to what fits a message.
    pub(super) fn shown(text: &str) -> String {
        const SHOWN: usize = 60;
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }
}

impl From<BadText> for SdpError {
    fn from(error: BadText) -> Self {
        Self::Text(error)
    }
}

impl From<BadTransport> for SdpError {
    fn from(error: BadTransport) -> Self {
        Self::Transport(error)
    }
}

impl From<BadRequest> for SdpError {
    fn from(error: BadRequest) -> Self {
        Self::Request(error)
    }
}

impl fmt::Display for SdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SdpError {}

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes) => write!(
                f,
                "The SDP has {bytes} bytes; at most {} are read. Send a smaller one",
                super::MAX_BYTES
            ),
            Self::TooMany { what, limit } => {
                write!(f, "The SDP has too many {what}; at most {limit} are allowed")
            }
            Self::Line { number, expected, text } => {
                write!(f, "Unable to parse SDP line {number} ({text:?}): expected {expected}")
            }
            Self::NoMediaLines => write!(f, "The SDP has no m= line. Offer at least one"),
            Self::PayloadType { index, value } => write!(
                f,
                "m-line {index} has payload type {value:?}; payload types are numbers below 128"
            ),
            Self::MissingMid { index } => write!(f, "m-line {index} has no a=mid. Add one"),
            Self::Mid { index, mid } => write!(
                f,
                "m-line {index} has mid {mid:?}; a mid is a token of 1 to {} characters",
                super::MAX_NAME
            ),
            Self::DuplicateMid(mid) => {
                write!(f, "mid {mid:?} names two m-lines. Give each m-line its own mid")
            }
            Self::ChangedMid { index, expected, found } => write!(
                f,
                "m-line {index} has mid {found:?} but was negotiated as {expected:?}. \
                 Keep the order of m-lines; only a stopped one (port 0) may be replaced"
            ),
            Self::ChangedKind { mid } => write!(
                f,
                "m-line {mid:?} changed its media type. Stop it (port 0) before replacing it"
            ),
            Self::FewerLines { expected, found } => write!(
                f,
                "The SDP has {found} m-lines but {expected} were negotiated. \
                 Keep all m-lines; set the port of unused ones to 0"
            ),
            Self::LineCount { expected, found } => write!(
                f,
                "The answer has {found} m-lines but the offer had {expected}. \
                 Answer the session's latest offer"
            ),
        }
    }
}

impl fmt::Display for BadTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingBundle => {
                write!(f, "The SDP has several m-lines but no a=group:BUNDLE. Bundle all of them")
            }
            Self::NotBundled(mid) => {
                write!(f, "m-line {mid:?} is not in a=group:BUNDLE. Bundle all m-lines")
            }
            Self::BundledTwice(mid) => {
                write!(f, "a=group:BUNDLE names mid {mid:?} twice. Name it once, in one group")
            }
            Self::UnknownBundled(mid) => {
                write!(f, "a=group:BUNDLE names mid {mid:?}, which no m-line has. Remove it")
            }
            Self::MissingRtcpMux(mid) => {
                write!(f, "m-line {mid:?} has no a=rtcp-mux. RTP and RTCP must share a port")
            }
            Self::MissingIce => write!(f, "The SDP has no a=ice-ufrag and a=ice-pwd. Add both"),
            Self::Ice(what) => write!(
                f,
                "{what} is malformed: a ufrag has 4 to 256 and a password 22 to 256 characters"
            ),
            Self::MissingFingerprint => {
                write!(f, "The SDP has no a=fingerprint:sha-256. Add the one of your certificate")
            }
            Self::Fingerprint => {
                write!(f, "a=fingerprint:sha-256 is not 32 hexadecimal bytes joined by colons")
            }
            Self::FingerprintChanged => write!(
                f,
                "The DTLS fingerprint differs from the session's. A new certificate needs a \
                 new session"
            ),
            Self::DtlsRole(setup) => write!(
                f,
                "a=setup:{setup} leaves no DTLS role to either side. \
                 Use a=setup:actpass in offers and a=setup:active in answers"
            ),
            Self::NothingUsable => write!(
                f,
                "No m-line of the SDP can be used. Offer audio or video over \
                 UDP/TLS/RTP/SAVPF with a known codec, or data channels over UDP/DTLS/SCTP"
            ),
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HaveLocalOffer => {
                write!(f, "The session's own offer waits for its answer. Send the answer first")
            }
            Self::NoLocalOffer => {
                write!(f, "The session has no open offer. There is nothing to answer")
            }
            Self::Stale => {
                write!(f, "The session was negotiated anew meanwhile. Make a new offer")
            }
            Self::UnknownMid(mid) => {
                write!(f, "mid {mid:?} is not in the SDP. Name the mid of one of its m-lines")
            }
            Self::PlannedTwice(mid) => {
                write!(f, "mid {mid:?} was given two purposes. Give each m-line one")
            }
            Self::NotMedia(mid) => {
                write!(f, "m-line {mid:?} carries no audio or video. Name one that does")
            }
            Self::CannotReceive { mid, direction } => write!(
                f,
                "m-line {mid:?} is {direction}: nothing can be published on it. \
                 Offer sendonly or sendrecv"
            ),
            Self::CannotSend { mid, direction } => write!(
                f,
                "m-line {mid:?} is {direction}: no remote track can be sent on it. \
                 Offer recvonly or sendrecv"
            ),
            Self::NoCodec(mid) => write!(
                f,
                "m-line {mid:?} offers no codec that is forwarded. Offer one of opus, PCMU, \
                 PCMA, VP8, VP9, H264, H265, AV1"
            ),
            Self::NoPayloadTypes => {
                write!(f, "All payload types of the session are in use. Open a new session")
            }
            Self::NoMids => write!(f, "All mids of the session are in use. Open a new session"),
            Self::HasDataLine(mid) => write!(
                f,
                "The session already has an m-line for data channels, mid {mid:?}. Use that one"
            ),
        }
    }
}
