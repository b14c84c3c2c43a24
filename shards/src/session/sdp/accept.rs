//! Answers of the client to our offers.
//!
//! Invariants: what was agreed is never more than what was offered; an answer that is refused
//! leaves the offer open, for a better one.
//!
//! Not here: the offer itself (`offer`).

use std::fmt;

use super::codecs::{self, NegotiatedCodec};
use super::description::{Description, Direction, Section};
use super::error::{BadRequest, BadText, BadTransport, SdpError};
use super::line::{Line, LineKind, NegotiatedExtension, Terms};
use super::negotiator::{Negotiator, Pending};
use super::parse::parse;
use super::read;
use super::transport::{self, RemoteTransport};
use crate::media::format::Codec;

/// A line that is not what our offer wanted it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub mid: String,
    pub because: RejectedBecause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedBecause {
    /// Answered with port 0; the line is gone.
    Stopped,
    /// Answered with a direction, the client's, that excludes what was offered.
    Direction(Direction),
    /// The client lacks the track's codec. The line carries others.
    Codec(Codec),
    /// The client took none of the codecs.
    NoCodec,
}

impl fmt::Display for RejectedBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => write!(f, "The client rejected the m-line"),
            Self::Direction(direction) => write!(f, "The client answered {direction}"),
            Self::Codec(codec) => write!(f, "The client did not accept the codec {codec}"),
            Self::NoCodec => write!(f, "The client accepted none of the codecs"),
        }
    }
}

impl Negotiator {
    /// Completes our open offer; tells which lines the client would not have as offered.
    pub fn accept_answer(
        &mut self,
        sdp: &str,
    ) -> Result<(RemoteTransport, Vec<Rejected>), SdpError> {
        let pending = self.pending.as_ref().ok_or(BadRequest::NoLocalOffer)?;
        let description = parse(sdp)?;
        let mids = check_order(&description, pending)?;
        let sections = description.sections.iter().zip(&pending.lines);
        let live: Vec<bool> =
            sections.map(|(section, line)| !line.stopped && !section.is_stopped()).collect();
        transport::check_bundle(&description, &mids, &live)?;
        let is_live = |mid: &&String| mids.iter().zip(&live).any(|(m, live)| m == *mid && *live);
        let group = description.bundle.as_ref().unwrap_or(&mids);
        let bundle: Vec<String> = group.iter().filter(is_live).cloned().collect();
        let tagged = bundle.first().and_then(|mid| mids.iter().position(|known| known == mid));
        let remote = match (tagged, &self.remote) {
            (Some(index), previous) => {
                transport::read(&description.sections[index], previous.as_ref())?.0
            }
            (None, Some(previous)) => RemoteTransport { ice_restart: false, ..previous.clone() },
            (None, None) => return Err(BadTransport::NothingUsable.into()),
        };
        let (mut lines, mut rejected) = (Vec::with_capacity(mids.len()), Vec::new());
        for (section, draft) in description.sections.iter().zip(&pending.lines) {
            let (line, because) = agreed(draft, section, description.allow_mixed)?;
            let wanted = pending.wanted.contains(&draft.index);
            let because = because.or_else(|| lost(draft, &line, section, wanted));
            let mid = draft.mid.clone();
            rejected.extend(because.map(|because| Rejected { mid, because }));
            lines.push(line);
        }
        // Nothing below can fail.
        let numbers = self.pending.take().map(|pending| pending.numbers).unwrap_or_default();
        self.numbers = numbers;
        self.agree(lines, bundle, remote.clone());
        Ok((remote, rejected))
    }
}

/// An answer has the offer's m-lines (RFC 3264, 6); returns their mids.
fn check_order(description: &Description, pending: &Pending) -> Result<Vec<String>, SdpError> {
    let mids = read::mids(description, &pending.lines)?;
    if mids.len() != pending.lines.len() {
        let (expected, found) = (pending.lines.len(), mids.len());
        return Err(BadText::LineCount { expected, found }.into());
    }
    for ((line, mid), section) in pending.lines.iter().zip(&mids).zip(&description.sections) {
        if line.mid != *mid {
            let (index, expected, found) = (line.index, line.mid.clone(), mid.clone());
            return Err(BadText::ChangedMid { index, expected, found }.into());
        }
        if line.kind != LineKind::of(&section.media) {
            return Err(BadText::ChangedKind { mid: mid.clone() }.into());
        }
    }
    Ok(mids)
}

/// What becomes of a line of our offer, and why it carries nothing if that is not for its
/// direction.
fn agreed(
    draft: &Line,
    section: &Section,
    session_mixed: bool,
) -> Result<(Line, Option<RejectedBecause>), SdpError> {
    let (mid, index, kind) = (draft.mid.clone(), draft.index, draft.kind);
    if draft.stopped || section.is_stopped() {
        let because = (!draft.stopped).then_some(RejectedBecause::Stopped);
        return Ok((Line::stopped(mid, index, kind, draft.terms.clone()), because));
    }
    if let Some(data) = draft.data {
        let data = read::data_line(section).unwrap_or(data);
        return Ok((Line::application(mid, index, draft.terms.clone(), data), None));
    }
    if !section.rtcp_mux {
        return Err(BadTransport::MissingRtcpMux(mid).into());
    }
    let said = read::terms(section, session_mixed)?;
    let (mut direction, client) = directions(draft, section.direction);
    let codecs = common_codecs(&draft.terms.codecs, &said.codecs);
    let mut because = None;
    let mut terms = Terms {
        extensions: common_extensions(&draft.terms.extensions, &said.extensions),
        rsize: draft.terms.rsize && said.rsize,
        mixing: said.mixing,
        ssrcs: said.ssrcs,
        client,
        ..draft.terms.clone()
    };
    if !said.rids.is_empty() {
        terms.rids.retain(|rid| said.rids.contains(rid));
    }
    if codecs.is_empty() {
        if direction != Direction::Inactive {
            (direction, because) = (Direction::Inactive, Some(RejectedBecause::NoCodec));
        }
    } else {
        terms.codecs = codecs;
    }
    if draft.sending.is_some() && !direction.sends() {
        terms.spec = None;
    }
    Ok((Line::media(mid, index, kind, terms, direction), because))
}

/// Our direction by the answer, and what the client has by now said it would do: an answer
/// tells that only of directions that were offered.
fn directions(draft: &Line, answered: Direction) -> (Direction, Direction) {
    let offered = draft.direction();
    let before = draft.terms.client;
    let sends = if offered.receives() { answered.sends() } else { before.sends() };
    let receives = if offered.sends() { answered.receives() } else { before.receives() };
    (offered.and(answered.reversed()), Direction::new(sends, receives))
}

/// In the answer's order, under the payload types of the offer.
fn common_codecs(offered: &[NegotiatedCodec], said: &[NegotiatedCodec]) -> Vec<NegotiatedCodec> {
    let common = |said: &NegotiatedCodec| {
        let same = |codec: &&NegotiatedCodec| codec.pt == said.pt && codec.codec == said.codec;
        let offered = offered.iter().find(same)?;
        Some(NegotiatedCodec {
            rtx_pt: offered.rtx_pt.filter(|pt| said.rtx_pt == Some(*pt)),
            feedback: offered.feedback.and(said.feedback),
            ..offered.clone()
        })
    };
    let mut codecs: Vec<NegotiatedCodec> = said.iter().filter_map(common).collect();
    codecs::drop_unwrappable_red(&mut codecs);
    codecs
}

fn common_extensions(
    offered: &[NegotiatedExtension],
    said: &[NegotiatedExtension],
) -> Vec<NegotiatedExtension> {
    let common = |said: &NegotiatedExtension| {
        let same = |e: &&NegotiatedExtension| (e.extension, e.id) == (said.extension, said.id);
        let direction = offered.iter().find(same)?.direction.and(said.direction);
        (direction != Direction::Inactive).then_some(NegotiatedExtension { direction, ..*said })
    };
    said.iter().filter_map(common).collect()
}

/// What a line that is alive lost against the offer.
fn lost(draft: &Line, line: &Line, section: &Section, wanted: bool) -> Option<RejectedBecause> {
    if line.stopped || draft.data.is_some() {
        return None;
    }
    if draft.direction() != line.direction() {
        return Some(RejectedBecause::Direction(section.direction));
    }
    let spec = draft.terms.spec.as_ref().filter(|_| wanted)?;
    let (sending, preferred) = (line.sending.as_ref()?, spec.preferred.as_ref()?);
    let missing = codecs::find(&sending.codecs, preferred).is_none();
    missing.then_some(RejectedBecause::Codec(preferred.codec))
}
