//! From a session's reply to JSON.
//!
//! Invariants: results keep their order; what is absent is omitted, never an empty string or
//! null, because a string `errorCode` means failure to clients; `mid` is always there, empty for
//! a failed pull.
//!
//! Not here: refusals of whole requests; see `problem`.

use serde::Serialize;
use shards::command::{
    Answer, Description, Location, MediaKind, Reply, SdpKind, SessionInfo, Simulcast, TrackInfo,
    TrackResult, TracksReply,
};

use crate::problem::{self, Problem};
use crate::response::Response;

/// The response for an answer of the desk.
pub(crate) fn answer(answer: Answer) -> Response {
    match answer {
        Ok(reply) => reply_json(&reply),
        Err(refusal) => Problem::from(refusal).response(),
    }
}

fn reply_json(reply: &Reply) -> Response {
    match reply {
        Reply::Created { session, answer } => {
            let body = Created {
                session_id: session.to_string(),
                session_description: answer.as_ref().map(Sdp::from),
            };
            Response::json(201, &body)
        }
        Reply::Tracks(tracks) => Response::json(200, &Tracks::from(tracks)),
        Reply::Renegotiated { answer } => {
            let session_description = answer.as_ref().map(Sdp::from);
            Response::json(200, &Renegotiated { session_description })
        }
        Reply::Described(info) => Response::json(200, &Described::from(info)),
        Reply::Deleted => Response::json(200, &Empty {}),
    }
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_description: Option<Sdp<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Renegotiated<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session_description: Option<Sdp<'a>>,
}

#[derive(Serialize)]
struct Sdp<'a> {
    r#type: &'static str,
    sdp: &'a str,
}

impl<'a> From<&'a Description> for Sdp<'a> {
    fn from(description: &'a Description) -> Self {
        let r#type = match description.kind {
            SdpKind::Offer => "offer",
            SdpKind::Answer => "answer",
        };
        Self { r#type, sdp: &description.sdp }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tracks<'a> {
    requires_immediate_renegotiation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_description: Option<Sdp<'a>>,
    tracks: Vec<Track<'a>>,
}

impl<'a> From<&'a TracksReply> for Tracks<'a> {
    fn from(reply: &'a TracksReply) -> Self {
        Self {
            requires_immediate_renegotiation: reply.requires_immediate_renegotiation,
            session_description: reply.description.as_ref().map(Sdp::from),
            tracks: reply.tracks.iter().map(Track::from).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Track<'a> {
    mid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulcast: Option<SimulcastJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<String>,
}

impl<'a> From<&'a TrackResult> for Track<'a> {
    fn from(result: &'a TrackResult) -> Self {
        let (error_code, error_description) = result.error.as_ref().map(problem::item).unzip();
        Self {
            mid: &result.mid,
            session_id: result.session_id.as_deref(),
            track_name: result.track_name.as_deref(),
            kind: result.kind.map(kind),
            simulcast: result.simulcast.as_ref().map(SimulcastJson::from),
            error_code,
            error_description,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SimulcastJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_rid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority_ordering: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rid_not_available: Option<&'a str>,
}

impl<'a> From<&'a Simulcast> for SimulcastJson<'a> {
    fn from(simulcast: &'a Simulcast) -> Self {
        Self {
            preferred_rid: simulcast.preferred_rid.as_deref(),
            priority_ordering: simulcast.priority_ordering.as_deref(),
            rid_not_available: simulcast.rid_not_available.as_deref(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    tracks: Vec<Listed<'a>>,
    data_channels: [Empty; 0],
    shardcast: Place,
}

impl<'a> From<&'a SessionInfo> for Described<'a> {
    fn from(info: &'a SessionInfo) -> Self {
        Self {
            tracks: info.tracks.iter().map(Listed::from).collect(),
            data_channels: [],
            shardcast: Place { shard: info.shard.map(|shard| shard.0), connected: info.connected },
        }
    }
}

/// Ours, not the Realtime API's: where the session lives.
#[derive(Serialize)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u8>,
    connected: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    location: &'static str,
    mid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    track_name: &'a str,
    kind: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> From<&'a TrackInfo> for Listed<'a> {
    fn from(track: &'a TrackInfo) -> Self {
        Self {
            location: match track.location {
                Location::Local => "local",
                Location::Remote => "remote",
            },
            mid: &track.mid,
            session_id: track.session_id.as_deref(),
            track_name: &track.track_name,
            kind: kind(track.kind),
            status: if track.active { "active" } else { "inactive" },
            reason: track.reason.as_deref(),
        }
    }
}

fn kind(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    }
}
