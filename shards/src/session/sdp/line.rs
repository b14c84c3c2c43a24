//! An m-line of the session: what was agreed on it, and how it is told again.
//!
//! Invariants: a stopped line receives and sends nothing; [`Line::sending`] and
//! [`Line::receiving`] are what the last answer allowed; [`Line::section`] is the only place
//! where our descriptions of media come from, so an answer and a later offer agree.
//!
//! Not here: how the terms come about (`read`, `offer`, `accept`).

use super::MAX_MESSAGE_SIZE;
use super::codecs::{self, CodecSpec, NegotiatedCodec};
use super::description::{Direction, ExtMap, Rid, RtpMap, Section, Simulcast, Ssrc, SsrcGroup};
use crate::media::format::{Extension, ExtensionIds};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    Audio,
    Video,
    /// Data channels.
    Application,
    /// A media type we do not know. Such a line is always stopped.
    Unknown,
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub mid: String,
    pub index: usize,
    pub kind: LineKind,
    /// Port 0: its index is free for a new line.
    pub stopped: bool,
    /// Client to us, while the negotiated direction includes it.
    pub receiving: Option<Receiving>,
    /// Us to client, while the negotiated direction includes it.
    pub sending: Option<Sending>,
    /// The client's end of SCTP, on a live application line.
    pub data: Option<DataLine>,
    pub(super) terms: Terms,
}

/// What the client may send on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiving {
    pub codecs: Vec<NegotiatedCodec>,
    pub extensions: ExtensionIds,
    /// Simulcast layers, in the client's order; empty without simulcast.
    pub rids: Vec<String>,
    /// The SSRCs the client told, each with the one that repairs it. May be empty.
    pub ssrcs: Vec<(u32, Option<u32>)>,
}

/// What we may send on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    pub codecs: Vec<NegotiatedCodec>,
    pub extensions: ExtensionIds,
    /// One- and two-byte header extensions may be mixed in the stream.
    pub allow_mixed: bool,
    pub ssrc: u32,
    /// Only when a codec can be repaired.
    pub rtx_ssrc: Option<u32>,
    /// As the SDP tells it; RTCP must say the same.
    pub cname: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataLine {
    pub sctp_port: u16,
    /// The longest message the client takes; 0 means any (RFC 8841, 6.1).
    pub max_message_size: u64,
}

/// What we send on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSpec {
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    /// One per publisher session: what shares it is played in sync.
    pub cname: String,
    pub stream_id: String,
    pub track_id: String,
    /// The track's codec, offered first. `None` reserves the line for whatever comes.
    pub preferred: Option<CodecSpec>,
}

/// What both sides said of a line, kept while its direction changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Terms {
    pub(super) media: String,
    pub(super) protocol: String,
    /// One format of a line we have no codec of, to name it by.
    pub(super) format: String,
    pub(super) codecs: Vec<NegotiatedCodec>,
    pub(super) extensions: Vec<NegotiatedExtension>,
    pub(super) rsize: bool,
    /// Said on the m-line rather than for the session.
    pub(super) allow_mixed: bool,
    /// Said anywhere.
    pub(super) mixing: bool,
    pub(super) rids: Vec<String>,
    pub(super) ssrcs: Vec<(u32, Option<u32>)>,
    /// What we would send if the client received; cleaned.
    pub(super) spec: Option<SendSpec>,
    /// What the client last said it would do, if we let it.
    pub(super) client: Direction,
    /// We closed the line; it stays so until a role is asked for it.
    pub(super) closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NegotiatedExtension {
    pub(super) extension: Extension,
    pub(super) id: u8,
    /// Which way it may be used, seen from us.
    pub(super) direction: Direction,
}

impl Line {
    /// A line that carries nothing and whose index may be reused.
    pub(super) fn stopped(mid: String, index: usize, kind: LineKind, terms: Terms) -> Self {
        let terms = Terms { spec: None, closed: false, client: Direction::Inactive, ..terms };
        let (receiving, sending, data) = (None, None, None);
        Self { mid, index, kind, stopped: true, receiving, sending, data, terms }
    }

    /// A live line of audio or video on which media goes in `direction`, seen from us.
    pub(super) fn media(
        mid: String,
        index: usize,
        kind: LineKind,
        terms: Terms,
        direction: Direction,
    ) -> Self {
        let receiving = direction.receives().then(|| terms.receiving());
        let spec = terms.spec.as_ref().filter(|_| direction.sends());
        let sending = spec.map(|spec| terms.sending(spec));
        Self { mid, index, kind, stopped: false, receiving, sending, data: None, terms }
    }

    pub(super) fn application(mid: String, index: usize, terms: Terms, data: DataLine) -> Self {
        let (receiving, sending, kind) = (None, None, LineKind::Application);
        Self { mid, index, kind, stopped: false, receiving, sending, data: Some(data), terms }
    }

    /// The negotiated direction, seen from us.
    pub fn direction(&self) -> Direction {
        Direction::new(self.sending.is_some(), self.receiving.is_some())
    }

    /// The SSRC we send with, whenever the direction lets us: while it does not, it is kept.
    pub fn reserved_ssrc(&self) -> Option<u32> {
        self.terms.spec.as_ref().map(|spec| spec.ssrc)
    }

    /// The SSRC that repairs it, likewise.
    pub fn reserved_rtx_ssrc(&self) -> Option<u32> {
        self.terms.spec.as_ref().and_then(|spec| spec.rtx_ssrc)
    }

    /// How our descriptions tell the line, without its transport.
    pub(super) fn section(&self) -> Section {
        let mut section = Section {
            media: self.terms.media.clone(),
            port: if self.stopped { 0 } else { DISCARD_PORT },
            protocol: self.terms.protocol.clone(),
            formats: vec![self.terms.format.clone()],
            mid: Some(self.mid.clone()),
            direction: self.direction(),
            ..Section::default()
        };
        match self.kind {
            _ if self.stopped => {}
            LineKind::Application => {
                section.direction = Direction::SendRecv;
                section.sctp_port = Some(SCTP_PORT);
                section.max_message_size = Some(MAX_MESSAGE_SIZE);
            }
            LineKind::Audio | LineKind::Video => {
                section.rtcp_mux = true;
                section.rtcp_rsize = self.terms.rsize;
                section.allow_mixed = self.terms.allow_mixed;
                self.tell_codecs(&mut section);
                self.tell_extensions(&mut section);
                self.tell_streams(&mut section);
            }
            LineKind::Unknown => {}
        }
        section
    }

    fn tell_codecs(&self, section: &mut Section) {
        section.formats.clear();
        for codec in &self.terms.codecs {
            let channels = Some(codecs::channels(codec.codec)).filter(|&channels| channels > 1);
            section.formats.push(codec.pt.to_string());
            section.maps.push(RtpMap {
                pt: codec.pt,
                name: codec.codec.name().to_owned(),
                clock_rate: codec.codec.clock_rate(),
                channels,
            });
            let fmtp = codecs::without_stream_properties(&codec.fmtp);
            if !fmtp.is_empty() {
                section.fmtps.push((codec.pt, fmtp));
            }
            for line in codec.feedback.lines() {
                section.feedback.push((Some(codec.pt), line.to_owned()));
            }
            if let Some(pt) = codec.rtx_pt {
                let clock_rate = codec.codec.clock_rate();
                section.formats.push(pt.to_string());
                section.maps.push(RtpMap { pt, name: "rtx".to_owned(), clock_rate, channels });
                section.fmtps.push((pt, format!("apt={}", codec.pt)));
            }
        }
    }

    fn tell_extensions(&self, section: &mut Section) {
        let way = self.direction();
        for negotiated in &self.terms.extensions {
            let useful =
                way == Direction::Inactive || negotiated.direction.and(way) != Direction::Inactive;
            if useful && (way.receives() || !is_for_receiving(negotiated.extension)) {
                section.extensions.push(ExtMap {
                    id: u16::from(negotiated.id),
                    direction: negotiated.direction,
                    uri: negotiated.extension.uri().to_owned(),
                });
            }
        }
    }

    fn tell_streams(&self, section: &mut Section) {
        if let Some(receiving) = &self.receiving
            && !receiving.rids.is_empty()
        {
            let rids = receiving.rids.iter();
            section.rids = rids.map(|id| Rid { id: id.clone(), sends: false }).collect();
            section.simulcast = Some(Simulcast { send: Vec::new(), recv: receiving.rids.clone() });
        }
        let (Some(sending), Some(spec)) = (&self.sending, &self.terms.spec) else { return };
        section.msid = Some((spec.stream_id.clone(), spec.track_id.clone()));
        let cname = || sending.cname.clone();
        section.ssrcs.push(Ssrc { ssrc: sending.ssrc, cname: cname() });
        if let Some(rtx) = sending.rtx_ssrc {
            section.ssrcs.push(Ssrc { ssrc: rtx, cname: cname() });
            let ssrcs = vec![sending.ssrc, rtx];
            section.groups.push(SsrcGroup { semantics: "FID".to_owned(), ssrcs });
        }
    }
}

impl Terms {
    fn receiving(&self) -> Receiving {
        Receiving {
            codecs: self.codecs.clone(),
            extensions: self.extension_ids(|e| e.direction.receives()),
            rids: self.rids.clone(),
            ssrcs: self.ssrcs.clone(),
        }
    }

    fn sending(&self, spec: &SendSpec) -> Sending {
        let repairs = self.codecs.iter().any(|codec| codec.rtx_pt.is_some());
        Sending {
            codecs: self.codecs.clone(),
            extensions: self
                .extension_ids(|e| e.direction.sends() && !is_for_receiving(e.extension)),
            allow_mixed: self.mixing,
            ssrc: spec.ssrc,
            rtx_ssrc: spec.rtx_ssrc.filter(|_| repairs),
            cname: spec.cname.clone(),
        }
    }

    fn extension_ids(&self, wanted: impl Fn(&NegotiatedExtension) -> bool) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for negotiated in self.extensions.iter().filter(|e| wanted(e)) {
            ids.set(negotiated.extension, negotiated.id);
        }
        ids
    }
}

impl SendSpec {
    /// The same with names that are tokens (RFC 8830, 2), so that none can end a line early.
    pub(super) fn cleaned(&self) -> Self {
        Self {
            cname: token(&self.cname),
            stream_id: token(&self.stream_id),
            track_id: token(&self.track_id),
            ..self.clone()
        }
    }
}

impl LineKind {
    pub(super) fn of(media: &str) -> Self {
        match media {
            "audio" => Self::Audio,
            "video" => Self::Video,
            "application" => Self::Application,
            _ => Self::Unknown,
        }
    }

    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Application => "application",
            // Never asked for: lines of other types are made from what the client wrote.
            Self::Unknown => "text",
        }
    }
}

/// Whether a header extension makes sense on a line of this kind.
pub(super) fn is_for(extension: Extension, kind: LineKind) -> bool {
    match extension {
        Extension::Mid
        | Extension::AbsSendTime
        | Extension::TransportCc
        | Extension::AbsCaptureTime => true,
        Extension::AudioLevel => kind == LineKind::Audio,
        Extension::Rid
        | Extension::RepairedRid
        | Extension::VideoOrientation
        | Extension::PlayoutDelay
        | Extension::DependencyDescriptor
        | Extension::VideoLayersAllocation => kind == LineKind::Video,
    }
}

/// Names of layers mean something only from client to us: subscribers get one stream.
pub(super) fn is_for_receiving(extension: Extension) -> bool {
    matches!(extension, Extension::Rid | Extension::RepairedRid)
}

/// RFC 8866, 9: what may stand in a mid, a rid or a msid.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_char)
}

fn token(text: &str) -> String {
    // RFC 8830, 2: identifiers have at most 64 characters.
    let clean = |c: char| if u8::try_from(c).is_ok_and(is_token_char) { c } else { '_' };
    let token: String = text.chars().take(64).map(clean).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}

fn is_token_char(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'~')
}

/// What stands where a port would, when candidates tell it (RFC 8840, 4.1.1).
const DISCARD_PORT: u16 = 9;
const SCTP_PORT: u16 = 5000;
