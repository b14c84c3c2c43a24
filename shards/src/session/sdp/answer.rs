//! Answers to the client's offers.
//!
//! Invariants: sections stand in the offer's order, with its mids, payload types and extension
//! ids; a line nobody asks about keeps the purpose it had.
//!
//! Not here: checking the offer (`read`); what a line looks like in text (`line`).

use super::description::Direction;
use super::error::{BadRequest, BadTransport, SdpError};
use super::line::{Line, LineKind, SendSpec};
use super::negotiator::{self, Negotiator};
use super::read::{OfferedLine, RemoteOffer};
use super::transport::{self, LocalTransport, RemoteTransport};
use super::write::write;

/// What an m-line of an offer is for.
///
/// A line without a role goes on as before: media is received if the client sends it and the
/// line was not closed, and sent if it was before and the client still receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Nothing in either direction, whatever the client offers, until a role is asked for.
    Close,
    /// The client publishes. What is sent on the line stays as it was.
    Receive,
    /// The client subscribes. What is received on the line stays as it was; on a new line,
    /// nothing is.
    Send(SendSpec),
    Both(SendSpec),
}

impl Negotiator {
    /// Answers an offer just read; each mid of `plan` gets its role.
    pub fn answer(
        &mut self,
        offer: RemoteOffer,
        plan: &[(String, Role)],
        local: &LocalTransport<'_>,
    ) -> Result<(String, RemoteTransport), SdpError> {
        if self.pending.is_some() {
            return Err(BadRequest::HaveLocalOffer.into());
        }
        if offer.revision != self.revision {
            return Err(BadRequest::Stale.into());
        }
        check_plan(&offer, plan)?;
        let mut lines = Vec::with_capacity(offer.lines.len());
        for offered in &offer.lines {
            let role = plan.iter().find(|(mid, _)| *mid == offered.mid).map(|(_, role)| role);
            let known = self.lines.get(offered.index).filter(|_| !offered.is_new);
            lines.push(agreed(offered, known, role)?);
        }
        if self.remote.is_none() && lines.iter().all(|line| line.stopped) {
            return Err(BadTransport::NothingUsable.into());
        }
        let mut description = self.describe(offer.mixed);
        description.sections = lines.iter().map(Line::section).collect();
        transport::tell(&mut description, &offer.bundle, offer.grouped, offer.setup, local);
        // Nothing below can fail.
        self.heard.hear(&offer.lines);
        self.numbers.extend(lines.iter().filter_map(|line| negotiator::number(&line.mid)));
        self.agree(lines, offer.bundle, offer.transport.clone());
        self.count_description();
        Ok((write(&description), offer.transport))
    }
}

fn check_plan(offer: &RemoteOffer, plan: &[(String, Role)]) -> Result<(), SdpError> {
    for (index, (mid, role)) in plan.iter().enumerate() {
        if plan[..index].iter().any(|(earlier, _)| earlier == mid) {
            return Err(BadRequest::PlannedTwice(SdpError::shown(mid)).into());
        }
        let unknown = || BadRequest::UnknownMid(SdpError::shown(mid));
        let line = offer.line(mid).ok_or_else(unknown)?;
        check_role(line, role)?;
    }
    Ok(())
}

fn check_role(line: &OfferedLine, role: &Role) -> Result<(), SdpError> {
    let (receives, sends) = match role {
        Role::Close => (false, false),
        Role::Receive => (true, false),
        Role::Send(_) => (false, true),
        Role::Both(_) => (true, true),
    };
    let mid = || line.mid.clone();
    match line.kind {
        LineKind::Audio | LineKind::Video => {}
        LineKind::Application | LineKind::Unknown => {
            return Err(BadRequest::NotMedia(mid()).into());
        }
    }
    let direction = if line.stopped { Direction::Inactive } else { line.direction };
    if receives && !direction.sends() {
        return Err(BadRequest::CannotReceive { mid: mid(), direction }.into());
    }
    if sends && !direction.receives() {
        return Err(BadRequest::CannotSend { mid: mid(), direction }.into());
    }
    if (receives || sends) && !line.usable {
        return Err(BadRequest::NoCodec(mid()).into());
    }
    Ok(())
}

/// What becomes of a line that was offered; `known` is what it was, if it was.
fn agreed(
    offered: &OfferedLine,
    known: Option<&Line>,
    role: Option<&Role>,
) -> Result<Line, SdpError> {
    let (mid, index, kind) = (offered.mid.clone(), offered.index, offered.kind);
    let mut terms = offered.terms.clone();
    if !offered.usable {
        return Ok(Line::stopped(mid, index, kind, terms));
    }
    if let Some(data) = offered.data {
        return Ok(Line::application(mid, index, terms, data));
    }
    let was_closed = known.is_some_and(|line| line.terms.closed);
    let was_receiving = known.is_some_and(|line| line.receiving.is_some());
    // The client's word that a line is inactive ends what it was for.
    let kept = known.and_then(|line| line.terms.spec.clone());
    let kept = kept.filter(|_| offered.direction != Direction::Inactive);
    let (receives, spec, closed) = match role {
        Some(Role::Close) => (false, None, true),
        Some(Role::Receive) => (true, kept, false),
        Some(Role::Send(spec)) => (was_receiving, Some(spec.cleaned()), false),
        Some(Role::Both(spec)) => (true, Some(spec.cleaned()), false),
        None => (!was_closed, kept, was_closed),
    };
    let direction = offered.direction.reversed().and(Direction::new(spec.is_some(), receives));
    (terms.spec, terms.closed) = (spec, closed);
    Ok(Line::media(mid, index, kind, terms, direction))
}
