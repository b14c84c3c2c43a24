//! What a client's description says of its m-lines, checked against what was negotiated.
//!
//! Invariants: reading changes nothing; a [`RemoteOffer`] can be answered unless a role asked
//! for does not fit its line, or the session moved on meanwhile.
//!
//! Not here: which role each line gets (`answer`).

use super::codecs::{self, NegotiatedCodec};
use super::description::{Description, Direction, Section, Setup};
use super::error::{BadRequest, BadText, BadTransport, SdpError};
use super::line::{self, DataLine, Line, LineKind, NegotiatedExtension, Terms};
use super::negotiator::Negotiator;
use super::parse::parse;
use super::transport::{self, RemoteTransport};
use super::{MAX_NAME, MAX_RIDS, MAX_SSRCS};
use crate::media::format::Extension;

/// A client's offer that can be answered.
#[derive(Debug, Clone)]
pub struct RemoteOffer {
    pub(super) lines: Vec<OfferedLine>,
    /// In BUNDLE order; the client's own order when it said none.
    pub(super) bundle: Vec<String>,
    pub(super) grouped: bool,
    pub(super) mixed: bool,
    pub(super) transport: RemoteTransport,
    pub(super) setup: Setup,
    pub(super) revision: u64,
}

/// An m-line of an offer, for the caller to decide about.
#[derive(Debug, Clone)]
pub struct OfferedLine {
    pub mid: String,
    pub index: usize,
    pub kind: LineKind,
    /// What the client would do.
    pub direction: Direction,
    /// The client stopped the line (port 0).
    pub stopped: bool,
    /// The line was not negotiated before under this mid.
    pub is_new: bool,
    /// Stream and track.
    pub msid: Option<(String, String)>,
    /// What the client offers of what we forward, in its order. Audio and video lines without
    /// any are refused.
    pub codecs: Vec<NegotiatedCodec>,
    pub rids: Vec<String>,
    pub(super) terms: Terms,
    pub(super) data: Option<DataLine>,
    pub(super) usable: bool,
    /// All payload types of the line, ours or not.
    pub(super) payload_types: u128,
    /// Extension ids of the line that mean nothing to us.
    pub(super) foreign_ids: Vec<u8>,
}

impl RemoteOffer {
    /// In the order of the m-lines.
    pub fn lines(&self) -> &[OfferedLine] {
        &self.lines
    }

    pub fn line(&self, mid: &str) -> Option<&OfferedLine> {
        self.lines.iter().find(|line| line.mid == mid)
    }

    /// The client's end of the transport, should the offer be answered.
    pub fn transport(&self) -> &RemoteTransport {
        &self.transport
    }
}

impl Negotiator {
    /// Reads a client's offer and checks all of it; answering it is [`Negotiator::answer`].
    pub fn read_offer(&self, sdp: &str) -> Result<RemoteOffer, SdpError> {
        if self.pending.is_some() {
            return Err(BadRequest::HaveLocalOffer.into());
        }
        let description = parse(sdp)?;
        let mids = mids(&description, &self.lines)?;
        self.check_order(&description, &mids)?;
        let live: Vec<bool> = description.sections.iter().map(|s| !s.is_stopped()).collect();
        transport::check_bundle(&description, &mids, &live)?;
        let mut lines = Vec::with_capacity(mids.len());
        for (index, (section, mid)) in description.sections.iter().zip(&mids).enumerate() {
            let mut line = offered_line(section, mid, index, description.allow_mixed)?;
            line.is_new = !self.lines.get(index).is_some_and(|k| k.mid == *mid && !k.stopped);
            lines.push(line);
        }
        refuse_second_data_line(&mut lines);
        let usable = |mid: &String| lines.iter().any(|line| line.mid == *mid && line.usable);
        let bundle: Vec<String> = description
            .bundle
            .as_ref()
            .unwrap_or(&mids)
            .iter()
            .filter(|m| usable(m))
            .cloned()
            .collect();
        let tagged = bundle.first().and_then(|mid| mids.iter().position(|known| known == mid));
        let (transport, setup) = match (tagged, &self.remote) {
            (Some(index), previous) => {
                transport::read(&description.sections[index], previous.as_ref())?
            }
            (None, Some(previous)) => {
                (RemoteTransport { ice_restart: false, ..previous.clone() }, Setup::Passive)
            }
            (None, None) => return Err(BadTransport::NothingUsable.into()),
        };
        Ok(RemoteOffer {
            lines,
            bundle,
            grouped: description.bundle.is_some(),
            mixed: description.allow_mixed,
            transport,
            setup,
            revision: self.revision,
        })
    }

    /// RFC 8829, 5.10: m-lines stay where they are and what they are until they are stopped.
    fn check_order(&self, description: &Description, mids: &[String]) -> Result<(), SdpError> {
        if mids.len() < self.lines.len() {
            let (expected, found) = (self.lines.len(), mids.len());
            return Err(BadText::FewerLines { expected, found }.into());
        }
        let lines = self.lines.iter().zip(&description.sections).zip(mids);
        for ((known, section), mid) in lines.filter(|((known, _), _)| !known.stopped) {
            if known.mid != *mid {
                let (index, expected) = (known.index, known.mid.clone());
                return Err(BadText::ChangedMid { index, expected, found: mid.clone() }.into());
            }
            if known.kind != LineKind::of(&section.media) {
                return Err(BadText::ChangedKind { mid: mid.clone() }.into());
            }
        }
        Ok(())
    }
}

/// The mids of all sections: present, well-formed and unique. A stopped section may leave its
/// own out, since nothing uses it any more.
pub(super) fn mids(description: &Description, known: &[Line]) -> Result<Vec<String>, SdpError> {
    if description.sections.is_empty() {
        return Err(BadText::NoMediaLines.into());
    }
    let mut mids: Vec<String> = Vec::with_capacity(description.sections.len());
    for (index, section) in description.sections.iter().enumerate() {
        let mid = match (&section.mid, known.get(index)) {
            (Some(mid), _) => mid,
            (None, Some(line)) if section.is_stopped() => &line.mid,
            (None, _) => return Err(BadText::MissingMid { index }.into()),
        };
        if mid.len() > MAX_NAME || !line::is_token(mid) {
            return Err(BadText::Mid { index, mid: SdpError::shown(mid) }.into());
        }
        if mids.contains(mid) {
            return Err(BadText::DuplicateMid(mid.clone()).into());
        }
        mids.push(mid.clone());
    }
    Ok(mids)
}

fn offered_line(
    section: &Section,
    mid: &str,
    index: usize,
    session_mixed: bool,
) -> Result<OfferedLine, SdpError> {
    let kind = LineKind::of(&section.media);
    let stopped = section.is_stopped();
    let mut terms = terms(section, session_mixed)?;
    let (mut data, mut usable) = (None, false);
    match kind {
        _ if stopped => terms.codecs.clear(),
        LineKind::Audio | LineKind::Video => {
            usable = is_rtp(&section.protocol) && !terms.codecs.is_empty();
            if usable && !section.rtcp_mux {
                return Err(BadTransport::MissingRtcpMux(mid.to_owned()).into());
            }
        }
        LineKind::Application => {
            data = data_line(section);
            usable = data.is_some();
        }
        LineKind::Unknown => {}
    }
    let payload_types = match kind {
        LineKind::Audio | LineKind::Video => {
            let pts = section.formats.iter().filter_map(|f| f.parse::<u8>().ok());
            pts.filter(|&pt| pt < 128).fold(0, |set, pt| set | 1 << pt)
        }
        LineKind::Application | LineKind::Unknown => 0,
    };
    let foreign = section.extensions.iter().filter(|map| known_extension(&map.uri).is_none());
    Ok(OfferedLine {
        mid: mid.to_owned(),
        index,
        kind,
        direction: section.direction,
        stopped,
        is_new: false,
        msid: section.msid.clone(),
        codecs: terms.codecs.clone(),
        rids: terms.rids.clone(),
        foreign_ids: foreign.filter_map(|map| u8::try_from(map.id).ok()).collect(),
        terms,
        data,
        usable,
        payload_types,
    })
}

/// What a section says of its media, from our side.
pub(super) fn terms(section: &Section, session_mixed: bool) -> Result<Terms, SdpError> {
    let kind = LineKind::of(&section.media);
    let is_media = matches!(kind, LineKind::Audio | LineKind::Video);
    Ok(Terms {
        media: section.media.clone(),
        protocol: section.protocol.clone(),
        format: section.formats.first().cloned().unwrap_or_default(),
        codecs: if is_media { codecs::forwarded(section) } else { Vec::new() },
        extensions: if is_media { extensions(section, kind) } else { Vec::new() },
        rsize: section.rtcp_rsize,
        allow_mixed: section.allow_mixed,
        mixing: section.allow_mixed || session_mixed,
        rids: rids(section)?,
        ssrcs: ssrcs(section)?,
        spec: None,
        client: section.direction,
        closed: false,
    })
}

/// RFC 8829, 5.1.2 lists what must be accepted; they all mean the same by now.
fn is_rtp(protocol: &str) -> bool {
    matches!(
        protocol,
        "UDP/TLS/RTP/SAVPF" | "TCP/DTLS/RTP/SAVPF" | "RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVP"
    )
}

pub(super) fn data_line(section: &Section) -> Option<DataLine> {
    let known = matches!(section.protocol.as_str(), "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP")
        && section.formats.iter().any(|format| format == "webrtc-datachannel");
    known.then(|| DataLine {
        sctp_port: section.sctp_port.unwrap_or(5000),
        // RFC 8841, 6.1.
        max_message_size: section.max_message_size.unwrap_or(65_536),
    })
}

/// One SCTP association is all a session has (RFC 8841, 3).
fn refuse_second_data_line(lines: &mut [OfferedLine]) {
    let data = lines.iter_mut().filter(|line| line.data.is_some());
    for line in data.skip(1) {
        (line.data, line.usable) = (None, false);
    }
}

fn known_extension(uri: &str) -> Option<Extension> {
    Extension::ALL.into_iter().find(|extension| extension.uri() == uri)
}

/// The extensions we share, with the client's ids and, turned around, its directions.
fn extensions(section: &Section, kind: LineKind) -> Vec<NegotiatedExtension> {
    let mut shared: Vec<NegotiatedExtension> = Vec::new();
    for map in &section.extensions {
        let Some(extension) = known_extension(&map.uri) else { continue };
        // 0 is padding, 15 ends a one-byte header; above 255 are placeholders (RFC 8285, 5).
        let Some(id) = u8::try_from(map.id).ok().filter(|&id| id != 0 && id != 15) else {
            continue;
        };
        let taken = shared.iter().any(|known| known.id == id || known.extension == extension);
        if !taken && line::is_for(extension, kind) {
            let direction = map.direction.reversed();
            shared.push(NegotiatedExtension { extension, id, direction });
        }
    }
    shared
}

/// The layers the client would send, in the order of `a=simulcast`.
fn rids(section: &Section) -> Result<Vec<String>, SdpError> {
    let sent: Vec<&str> =
        section.rids.iter().filter(|rid| rid.sends).map(|rid| rid.id.as_str()).collect();
    let ordered: Vec<&str> = match &section.simulcast {
        Some(simulcast) if !simulcast.send.is_empty() => {
            let listed = simulcast.send.iter().map(String::as_str);
            listed.filter(|rid| sent.contains(rid)).collect()
        }
        Some(_) | None => sent,
    };
    let mut rids: Vec<String> = Vec::new();
    for rid in ordered {
        // A rid nobody could send in a packet is no layer.
        let fits = rid.len() <= MAX_NAME && line::is_token(rid);
        if fits && !rids.iter().any(|known| known == rid) {
            rids.push(rid.to_owned());
        }
    }
    if rids.len() > MAX_RIDS {
        return Err(BadText::TooMany { what: "rids in one m-line", limit: MAX_RIDS }.into());
    }
    Ok(rids)
}

/// The SSRCs of media, each with the one that repairs it.
fn ssrcs(section: &Section) -> Result<Vec<(u32, Option<u32>)>, SdpError> {
    if section.ssrcs.len() > MAX_SSRCS {
        return Err(BadText::TooMany { what: "SSRCs in one m-line", limit: MAX_SSRCS }.into());
    }
    let pairs = |semantics: &'static str| {
        let groups = section.groups.iter().filter(move |group| group.semantics == semantics);
        groups.filter_map(|group| match group.ssrcs[..] {
            [media, other] => Some((media, other)),
            _ => None,
        })
    };
    let is_other = |ssrc: u32| {
        pairs("FID").chain(pairs("FEC-FR")).any(|(media, other)| other == ssrc && media != ssrc)
    };
    let media = section.ssrcs.iter().map(|line| line.ssrc).filter(|&ssrc| !is_other(ssrc));
    let repair = |ssrc| pairs("FID").find(|(media, _)| *media == ssrc).map(|(_, other)| other);
    Ok(media.map(|ssrc| (ssrc, repair(ssrc))).collect())
}
