//! The state of a session's negotiation.
//!
//! Invariants: [`Negotiator::lines`] are what both sides agreed on; an open offer of ours is
//! kept beside them until it is answered, so that abandoning it is forgetting it; the version
//! in `o=` grows with every description we make, abandoned ones too, for the client may have
//! seen them.
//!
//! Not here: the operations (`read`, `answer`, `offer`, `accept`).

use std::collections::BTreeSet;

use super::codecs::{Configuration, NegotiatedCodec};
use super::description::Description;
use super::line::{Line, LineKind};
use super::palette::Told;
use super::read::OfferedLine;
use super::transport::RemoteTransport;
use crate::media::format::ExtensionIds;

/// One per session.
#[derive(Debug, Clone)]
pub struct Negotiator {
    pub(super) lines: Vec<Line>,
    /// The mids of live lines in BUNDLE order.
    pub(super) bundle: Vec<String>,
    pub(super) remote: Option<RemoteTransport>,
    pub(super) heard: Heard,
    pub(super) told: Told,
    /// Decimal mids in use or used before.
    pub(super) numbers: BTreeSet<u16>,
    pub(super) pending: Option<Pending>,
    /// Counts agreements: an offer read before one is stale after it.
    pub(super) revision: u64,
    origin_id: u64,
    version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signaling {
    /// Nothing was negotiated yet.
    New,
    Stable,
    /// Our offer waits for its answer.
    HaveLocalOffer,
}

/// Our open offer.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    /// What the lines become if the client agrees to everything.
    pub(super) lines: Vec<Line>,
    /// The indexes of those the offer was made for.
    pub(super) wanted: Vec<usize>,
    pub(super) numbers: BTreeSet<u16>,
}

/// What the client has said of itself in its offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    pub(super) audio: Vec<NegotiatedCodec>,
    pub(super) video: Vec<NegotiatedCodec>,
    /// Payload types it uses, for whatever.
    pub(super) payload_types: u128,
    pub(super) extensions: ExtensionIds,
    /// Extension ids it uses for what we do not know.
    pub(super) foreign_ids: BTreeSet<u8>,
}

impl Negotiator {
    /// `origin_id` is constant for the session and distinct from others'.
    pub fn new(origin_id: u64) -> Self {
        Self {
            lines: Vec::new(),
            bundle: Vec::new(),
            remote: None,
            heard: Heard::default(),
            told: Told::default(),
            numbers: BTreeSet::new(),
            pending: None,
            revision: 0,
            // RFC 8829, 5.2.1: it should fit a signed 64-bit number.
            origin_id: origin_id >> 1,
            version: 0,
        }
    }

    pub fn signaling(&self) -> Signaling {
        match (&self.pending, self.revision) {
            (Some(_), _) => Signaling::HaveLocalOffer,
            (None, 0) => Signaling::New,
            (None, _) => Signaling::Stable,
        }
    }

    /// All m-lines both sides know, in order. Lines of an open offer of ours are not among
    /// them yet.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    pub fn line(&self, mid: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.mid == mid)
    }

    /// Whether an m-line sends with this SSRC, would if it could, or will if our open offer is
    /// accepted.
    pub fn owns_ssrc(&self, ssrc: u32) -> bool {
        let offered = self.pending.iter().flat_map(|pending| &pending.lines);
        let mut lines = self.lines.iter().chain(offered);
        lines.any(|line| {
            line.reserved_ssrc() == Some(ssrc) || line.reserved_rtx_ssrc() == Some(ssrc)
        })
    }

    /// The client's end of the transport, once known.
    pub fn remote(&self) -> Option<&RemoteTransport> {
        self.remote.as_ref()
    }

    /// The codecs the client has offered for lines of this kind; `None` when it offered no
    /// such line. A hint: a client that only ever sends may receive more than it said.
    pub fn offered_codecs(&self, kind: LineKind) -> Option<&[NegotiatedCodec]> {
        Some(self.heard.codecs(kind)).filter(|codecs| !codecs.is_empty())
    }

    /// An empty description of ours, with the next version. Its number is taken by
    /// [`Negotiator::count_description`], once nothing can fail any more.
    pub(super) fn describe(&self, allow_mixed: bool) -> Description {
        let (id, version) = (self.origin_id, self.version + 1);
        let origin = format!("- {id} {version} IN IP4 0.0.0.0");
        Description { origin, allow_mixed, ..Description::default() }
    }

    pub(super) fn count_description(&mut self) {
        self.version += 1;
    }

    /// Both sides agreed on `lines`.
    pub(super) fn agree(&mut self, lines: Vec<Line>, bundle: Vec<String>, remote: RemoteTransport) {
        self.lines = lines;
        self.bundle = bundle;
        self.remote = Some(remote);
        self.revision += 1;
    }
}

impl Heard {
    pub(super) fn codecs(&self, kind: LineKind) -> &[NegotiatedCodec] {
        match kind {
            LineKind::Audio => &self.audio,
            LineKind::Video => &self.video,
            LineKind::Application | LineKind::Unknown => &[],
        }
    }

    /// Takes in what an offer says: the newest meaning of a payload type holds, and each
    /// configuration has one.
    pub(super) fn hear(&mut self, lines: &[OfferedLine]) {
        for kind in [LineKind::Audio, LineKind::Video] {
            let of_kind = || lines.iter().filter(move |line| line.kind == kind && line.usable);
            let new = of_kind().flat_map(|line| &line.codecs);
            let mut merged: Vec<NegotiatedCodec> = Vec::new();
            let mut configs = Vec::new();
            for codec in new.chain(self.codecs(kind)) {
                let config = Configuration::of(codec.codec, &codec.fmtp);
                let repeats = merged.iter().any(|known| known.pt == codec.pt);
                if !repeats && !configs.contains(&config) {
                    merged.push(codec.clone());
                    configs.push(config);
                }
            }
            merged.shrink_to_fit();
            match kind {
                LineKind::Audio => self.audio = merged,
                LineKind::Video => self.video = merged,
                LineKind::Application | LineKind::Unknown => {}
            }
        }
        // A stopped line repeats what was agreed once, and binds the client to nothing.
        for line in lines.iter().filter(|line| !line.stopped) {
            self.payload_types |= line.payload_types;
            self.foreign_ids.extend(&line.foreign_ids);
            for negotiated in &line.terms.extensions {
                self.extensions.set(negotiated.extension, negotiated.id);
            }
        }
    }
}

/// The number a mid is, if it is one we might choose.
pub(super) fn number(mid: &str) -> Option<u16> {
    mid.parse::<u16>().ok().filter(|number| number.to_string() == mid)
}
