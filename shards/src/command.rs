//! What the API may ask of a shard, what it answers, and how it refuses.
//!
//! Plain data: a command travels to the owner of its session (this shard, or another by mail)
//! and its [`Answer`] travels back. HTTP and JSON are not known here; the words follow the
//! Realtime API so that the translation is one to one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, SessionId, ShardId};

/// One request to the owner of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who asks. A session of another application answers as if it did not exist.
    pub app: AppId,
    pub ask: Ask,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Opens a session; with `offer`, also negotiates it.
    Create { offer: Option<Description> },
    /// Pushes local tracks or pulls remote ones.
    NewTracks { session: SessionId, request: TracksRequest },
    /// Completes (answer) or starts (offer: ICE restart and other changes) a negotiation.
    Renegotiate { session: SessionId, description: Description },
    /// Closes transceivers by mid.
    CloseTracks { session: SessionId, request: CloseRequest },
    /// Re-points pulls, or chooses another simulcast layer for them. Never touches SDP.
    UpdateTracks { session: SessionId, tracks: Vec<TrackObject> },
    /// Tells the session's tracks.
    Describe { session: SessionId },
    /// Closes the session now.
    Delete { session: SessionId },
}

impl Ask {
    /// The session the command is for; `None` when it may run on any shard.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Create { .. } => None,
            Self::NewTracks { session, .. }
            | Self::Renegotiate { session, .. }
            | Self::CloseTracks { session, .. }
            | Self::UpdateTracks { session, .. }
            | Self::Describe { session }
            | Self::Delete { session } => Some(*session),
        }
    }
}

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub kind: SdpKind,
    /// CRLF-terminated lines; leniently read, strictly written.
    pub sdp: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SdpKind {
    Offer,
    Answer,
}

/// Where a track's media comes from, seen from the session in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// This session publishes.
    Local,
    /// This session subscribes.
    Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MediaKind {
    Audio,
    Video,
}

/// A track as requests name it and results echo it. Absent fields are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrackObject {
    pub location: Option<Location>,
    /// A transceiver's mid on the session in the URL, or `#name` for the transceiver of this
    /// session's track `name`.
    pub mid: Option<String>,
    /// The publisher's session, remote tracks only. Kept as text: what is no id of ours is
    /// answered per item, as a track not found.
    pub session_id: Option<String>,
    pub track_name: Option<String>,
    pub bidirectional: bool,
    pub kind: Option<MediaKind>,
    pub simulcast: Option<Simulcast>,
}

/// A subscriber's choice among the layers of a simulcast track.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Simulcast {
    /// The rid to forward. Absent or empty: no preference.
    pub preferred_rid: Option<String>,
    /// `none` or `asciibetical`, echoed as given; adaptation reads it.
    pub priority_ordering: Option<String>,
    pub rid_not_available: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TracksRequest {
    pub offer: Option<Description>,
    /// All local or all remote, at most 64.
    pub tracks: Vec<TrackObject>,
    /// Publish every new sending m-line of `offer` under a generated name.
    pub auto_discover: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CloseRequest {
    pub mids: Vec<String>,
    /// Stop media without any SDP.
    pub force: bool,
    pub offer: Option<Description>,
}

/// What a command comes back with.
pub type Answer = Result<Reply, Refusal>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Created {
        session: SessionId,
        answer: Option<Description>,
    },
    /// Result of `NewTracks`, `CloseTracks` and `UpdateTracks`.
    Tracks(TracksReply),
    /// `answer` only when the client sent an offer.
    Renegotiated {
        answer: Option<Description>,
    },
    Described(SessionInfo),
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TracksReply {
    pub requires_immediate_renegotiation: bool,
    pub description: Option<Description>,
    /// One per requested track, in request order.
    pub tracks: Vec<TrackResult>,
}

/// One item of a [`TracksReply`]. Only what is `Some` is told to the client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrackResult {
    /// Empty for a failed pull.
    pub mid: String,
    pub session_id: Option<String>,
    pub track_name: Option<String>,
    /// Only for discovered tracks: clients compare push results field by field.
    pub kind: Option<MediaKind>,
    pub simulcast: Option<Simulcast>,
    pub error: Option<ItemError>,
}

/// Why one item of an otherwise good request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemError {
    /// The publisher's session is unknown or has no such track.
    NotFoundTrack,
    /// The publisher's session is gone for good; carries its id.
    PublisherGone(String),
    /// The track exists but no packet came in time.
    EmptyTrack,
    /// The subscriber negotiated no codec of the track; carries its name, as `VP9`.
    CodecMismatch(String),
    /// `tracks/update` of the layer of a track without layers.
    NotSimulcast,
    /// The mid is unknown or its track was closed before.
    AlreadyClosed,
    /// The mid names no transceiver of this session, or one that cannot carry the track.
    BadTransceiver(String),
    /// The session already publishes a track of this name; carries it.
    RepeatedTrack(String),
    /// A bound was reached; says which.
    Limit(Cow<'static, str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionInfo {
    pub tracks: Vec<TrackInfo>,
    /// Where the session lives and how it fares; told by the demo page.
    pub shard: Option<ShardId>,
    pub connected: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    pub location: Location,
    pub mid: String,
    /// Remote tracks only.
    pub session_id: Option<String>,
    pub track_name: String,
    pub kind: MediaKind,
    pub active: bool,
    /// Why it is not active, when there is more to say than that it was closed.
    pub reason: Option<String>,
}

/// Why a whole request was refused. `http::problem` turns each into status, code and words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such session, or not any more: closed, expired, or of another application. Carries
    /// the id as asked, which may be the publisher's rather than the caller's.
    Gone { session: String, publisher: bool },
    /// The transport did not connect within the wait.
    NotReady,
    /// A field, value, combination or limit is wrong; says which, as `tracks[0]: Missing mid`.
    InvalidParams(String),
    /// The SDP cannot be used; says why.
    InvalidDescription(String),
    /// An offer of ours waits for its answer; carries what was attempted.
    HaveLocalOffer,
    /// An answer came although no offer of ours is open.
    NoLocalOffer,
    /// Belongs to a feature this node does not have; carries its name.
    NotImplemented(Cow<'static, str>),
    /// A bound of the node or session was reached; says which. Worth a retry.
    Busy(Cow<'static, str>),
    /// The node is leaving and takes no new sessions.
    Draining,
    /// The session failed inside and was ended.
    Internal,
    /// The session's node went away, or did not answer in time; whether it did what was asked is
    /// not known.
    Unreachable,
}
