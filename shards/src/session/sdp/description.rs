//! A session description as data: what `parse` makes of text and `write` turns into text.
//!
//! Invariants: a section says everything that holds for it, session-level attributes are
//! already inherited; nothing here has been judged yet, except that numbers are numbers.
//!
//! Not here: what any of it means for a session (`read`, `answer`, `offer`, `accept`).

use std::fmt;

/// Who sends, seen from whoever wrote the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// What a section without a direction means (RFC 8866, 6.7).
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same, seen from the other side.
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow.
    pub(super) fn and(self, other: Self) -> Self {
        Self::new(self.sends() && other.sends(), self.receives() && other.receives())
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|d| d.name() == name)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `a=setup` (RFC 4145): who opens the DTLS association.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    ActPass,
    Active,
    Passive,
    HoldConn,
}

impl Setup {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
            Self::HoldConn => "holdconn",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::ActPass, Self::Active, Self::Passive, Self::HoldConn]
            .into_iter()
            .find(|s| s.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Description {
    /// The value of `o=`.
    pub(super) origin: String,
    pub(super) ice_lite: bool,
    pub(super) allow_mixed: bool,
    /// The mids of `a=group:BUNDLE`, in order.
    pub(super) bundle: Option<Vec<String>>,
    pub(super) sections: Vec<Section>,
}

/// One m-line and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Section {
    pub(super) media: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) formats: Vec<String>,
    pub(super) mid: Option<String>,
    pub(super) bundle_only: bool,
    pub(super) direction: Direction,
    pub(super) rtcp_mux: bool,
    pub(super) rtcp_rsize: bool,
    pub(super) allow_mixed: bool,
    pub(super) transport: Transport,
    /// Values of `a=candidate`. Only written: a lite agent learns its peer by its checks.
    pub(super) candidates: Vec<String>,
    pub(super) maps: Vec<RtpMap>,
    pub(super) fmtps: Vec<(u8, String)>,
    /// `a=rtcp-fb`; without a payload type it is for all (`*`).
    pub(super) feedback: Vec<(Option<u8>, String)>,
    pub(super) extensions: Vec<ExtMap>,
    pub(super) rids: Vec<Rid>,
    pub(super) simulcast: Option<Simulcast>,
    /// Stream and track. `a=msid`, or the older form inside `a=ssrc`.
    pub(super) msid: Option<(String, String)>,
    pub(super) ssrcs: Vec<Ssrc>,
    pub(super) groups: Vec<SsrcGroup>,
    pub(super) sctp_port: Option<u16>,
    pub(super) max_message_size: Option<u64>,
}

impl Section {
    /// Port 0 without `a=bundle-only`: the line carries nothing and its index is free.
    pub(super) fn is_stopped(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    pub(super) fn fmtp(&self, pt: u8) -> &str {
        self.fmtps.iter().find(|(of, _)| *of == pt).map_or("", |(_, text)| text)
    }
}

/// What ICE and DTLS need, as far as it was said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Transport {
    pub(super) ufrag: Option<String>,
    pub(super) pwd: Option<String>,
    /// Algorithm and digest as written: `sha-256 AA:BB…`.
    pub(super) fingerprints: Vec<String>,
    pub(super) setup: Option<Setup>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RtpMap {
    pub(super) pt: u8,
    pub(super) name: String,
    pub(super) clock_rate: u32,
    pub(super) channels: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtMap {
    pub(super) id: u16,
    pub(super) direction: Direction,
    pub(super) uri: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rid {
    pub(super) id: String,
    /// `send`, seen from the writer; otherwise `recv`.
    pub(super) sends: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Simulcast {
    pub(super) send: Vec<String>,
    pub(super) recv: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ssrc {
    pub(super) ssrc: u32,
    pub(super) cname: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SsrcGroup {
    pub(super) semantics: String,
    pub(super) ssrcs: Vec<u32>,
}
