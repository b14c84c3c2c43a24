//! Negotiation: descriptions in and out, and what each m-line then means for media.

use std::time::Instant;

use super::{Engine, SessionKey};
use crate::command::{Description, MediaKind, Refusal, SdpKind};
use crate::limits::OFFER_LIFETIME;
use crate::media::format::Codec;
use crate::session::inlet::Inlet;
use crate::session::sdp::{
    LineKind, LocalTransport, RejectedBecause, RemoteOffer, RemoteTransport, Role, SdpError,
    SendSpec, Signaling, Want,
};
use crate::session::ufrag::Credentials;
use crate::session::{Pulled, PulledState, Session};
use crate::switch::feed::{FeedKey, TrackMeta};

impl Engine {
    /// Answers a client's offer. `roles` decides, with the offer read, what its m-lines are
    /// for. Nothing changes unless all of it can be done.
    pub(super) fn accept_offer(
        &mut self,
        key: SessionKey,
        offer: &Description,
        roles: impl FnOnce((&Session, &RemoteOffer)) -> Result<Vec<(String, Role)>, Refusal>,
        now: Instant,
    ) -> Result<Description, Refusal> {
        if offer.kind != SdpKind::Offer {
            let text = "sessionDescription.type=offer is expected";
            return Err(Refusal::InvalidParams(text.into()));
        }
        let session = self.sessions.get(key).ok_or(Refusal::Internal)?;
        if session.negotiator.signaling() == Signaling::HaveLocalOffer {
            return Err(Refusal::HaveLocalOffer);
        }
        let read = session.negotiator.read_offer(&offer.sdp).map_err(refusal)?;
        let roles = roles((session, &read))?;
        let restart = read.transport().ice_restart.then(|| self.fresh_credentials(key));
        self.ensure_transport(key, now)?;
        let candidates = self.config.candidates.clone();
        let session = self.sessions.get_mut(key).ok_or(Refusal::Internal)?;
        let transport = session.transport.as_mut().ok_or(Refusal::Internal)?;
        let fingerprint = transport.fingerprint();
        let credentials = restart.as_ref().unwrap_or_else(|| transport.credentials()).clone();
        let local = local_transport(&credentials, &fingerprint, &candidates);
        let (sdp, remote) = session.negotiator.answer(read, &roles, &local).map_err(refusal)?;
        self.apply_remote(key, &remote, restart, now);
        self.apply_lines(key, now);
        Ok(Description { kind: SdpKind::Answer, sdp })
    }

    /// Makes an offer of ours.
    pub(super) fn make_offer(
        &mut self,
        key: SessionKey,
        wants: &[Want],
        now: Instant,
    ) -> Result<(Description, Vec<String>), Refusal> {
        self.ensure_transport(key, now)?;
        let candidates = self.config.candidates.clone();
        let session = self.sessions.get_mut(key).ok_or(Refusal::Internal)?;
        if session.negotiator.signaling() == Signaling::HaveLocalOffer {
            return Err(Refusal::HaveLocalOffer);
        }
        let transport = session.transport.as_mut().ok_or(Refusal::Internal)?;
        let fingerprint = transport.fingerprint();
        let credentials = transport.credentials().clone();
        let local = local_transport(&credentials, &fingerprint, &candidates);
        let (sdp, mids) = session.negotiator.offer(wants, &local).map_err(refusal)?;
        // What these m-lines were in an abandoned offer is history.
        session.pulled.retain(|p| p.pull().is_some() || !mids.contains(&p.mid));
        session.offered_at = Some(now);
        self.schedule(key, now + OFFER_LIFETIME);
        Ok((Description { kind: SdpKind::Offer, sdp }, mids))
    }

    /// Takes the client's answer to an offer of ours: its pulls begin, its tracks appear.
    pub(super) fn accept_answer(
        &mut self,
        key: SessionKey,
        sdp: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let session = self.sessions.get_mut(key).ok_or(Refusal::Internal)?;
        if session.negotiator.signaling() != Signaling::HaveLocalOffer {
            return Err(Refusal::NoLocalOffer);
        }
        let (remote, mut rejected) = session.negotiator.accept_answer(sdp).map_err(refusal)?;
        // Who has no RED (Firefox) gets what is inside.
        rejected.retain(|line| line.because != RejectedBecause::Codec(Codec::Red));
        let mut broken = Vec::new();
        for pulled in session.pulled.iter_mut().filter(|p| p.state == PulledState::Offered) {
            if let Some(line) = rejected.iter().find(|line| line.mid == pulled.mid) {
                pulled.state = PulledState::Refused(reason(line.because));
                broken.push(pulled.feed);
            }
        }
        let offered = std::mem::take(&mut session.offered);
        session.offered_at = None;
        self.apply_remote(key, &remote, None, now);
        self.apply_lines(key, now);
        for feed in broken {
            self.break_promise(feed);
        }
        for track in &offered {
            // A track the client would not send shows as such in GET; nothing else to tell.
            let _ = self.publish(key, 0, track, now);
        }
        Ok(())
    }

    /// Gives our open offer up if it was not answered in time: something else can be negotiated
    /// then, and an answer to it is refused.
    pub(super) fn abandon_late_offer(&mut self, key: SessionKey, now: Instant) {
        let offered_at = self.sessions.get(key).and_then(|session| session.offered_at);
        if offered_at.is_some_and(|at| now.saturating_duration_since(at) >= OFFER_LIFETIME) {
            self.abandon_offer(key);
        }
    }

    pub(super) fn abandon_offer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.negotiator.abandon_offer();
        session.offered_at = None;
        session.offered.clear();
        let mut broken = Vec::new();
        for pulled in session.pulled.iter_mut().filter(|p| p.state == PulledState::Offered) {
            pulled.state = PulledState::Refused("the client did not answer the offer".into());
            broken.push(pulled.feed);
        }
        for feed in broken {
            self.break_promise(feed);
        }
    }

    fn apply_remote(
        &mut self,
        key: SessionKey,
        remote: &RemoteTransport,
        restart: Option<Credentials>,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let application = session
            .negotiator
            .lines()
            .iter()
            .any(|line| line.kind == LineKind::Application && !line.stopped);
        let Some(transport) = &mut session.transport else { return };
        let mut happened = vec![transport.set_remote(remote, restart, now)];
        if application {
            happened.push(transport.start_sctp(now));
        }
        for happened in happened {
            self.transport_happened(key, happened, now);
        }
    }

    /// Brings media in line with what is negotiated now.
    fn apply_lines(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut silent: Vec<FeedKey> = Vec::new();
        let mut received = Vec::new();
        for line in session.negotiator.lines() {
            match &line.receiving {
                Some(receiving) => {
                    let goes_on = session.ingress.set_inlet(Inlet::new(&line.mid, receiving));
                    received.push((line.mid.clone(), goes_on));
                }
                None => {
                    session.ingress.remove_inlet(&line.mid);
                    let on_line = |p: &&crate::session::Published| p.mid == line.mid;
                    silent.extend(session.published.iter().filter(on_line).filter_map(|p| p.feed));
                }
            }
        }
        let negotiator = &session.negotiator;
        let mut stopped = Vec::new();
        let mut starting = Vec::new();
        let mut renewed = Vec::new();
        for (at, pulled) in session.pulled.iter_mut().enumerate() {
            let sends = negotiator.line(&pulled.mid).is_some_and(|line| line.sending.is_some());
            match pulled.state {
                PulledState::Offered => starting.push(at),
                PulledState::Active(pull) if !sends => {
                    pulled.state = PulledState::Closed;
                    stopped.push(pull);
                }
                PulledState::Active(pull) => renewed.push(pull),
                PulledState::Closed | PulledState::Refused(_) => {}
            }
        }
        session.egress.keep_numbering_of(negotiator.lines());
        // What is over is listed as long as its m-line is: clients may toggle for days.
        session.published.retain(|p| p.is_active() || negotiator.line(&p.mid).is_some());
        for feed in silent {
            self.unpublish(key, feed, now);
        }
        for (mid, goes_on) in received {
            self.republish(key, &mid, goes_on, now);
        }
        for pull in stopped {
            self.remove_pull(pull);
        }
        for pull in renewed {
            self.renegotiated(pull);
        }
        for at in starting {
            self.activate(key, at, now);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            let negotiator = &session.negotiator;
            let listed = |p: &Pulled| p.pull().is_some() || negotiator.line(&p.mid).is_some();
            session.pulled.retain(listed);
        }
    }

    /// What an m-line that sends a certain track is made of.
    pub(super) fn track_spec(
        &mut self,
        key: SessionKey,
        meta: &TrackMeta,
        in_use: Option<u8>,
    ) -> SendSpec {
        let preferred = meta.codecs.get(usize::from(in_use.unwrap_or(0)));
        SendSpec {
            preferred: preferred.cloned(),
            cname: meta.cname.clone(),
            stream_id: meta.stream_id.clone(),
            ..self.reserved_spec(key)
        }
    }

    /// What an m-line is made of that may send any track later.
    pub(super) fn reserved_spec(&mut self, key: SessionKey) -> SendSpec {
        let random = &mut self.random;
        let ssrcs = self.sessions.get_mut(key).map(|s| (s.draw_ssrc(random), s.draw_ssrc(random)));
        let (ssrc, rtx_ssrc) = ssrcs.unwrap_or_default();
        let session = self.sessions.get(key);
        SendSpec {
            ssrc,
            rtx_ssrc: Some(rtx_ssrc),
            cname: session.map(|s| s.cname.clone()).unwrap_or_default(),
            stream_id: session.map(|s| s.stream_id.clone()).unwrap_or_default(),
            track_id: format!("{:016x}", (self.random)()),
            preferred: None,
        }
    }
}

fn local_transport<'a>(
    credentials: &'a Credentials,
    fingerprint: &'a str,
    candidates: &'a [std::net::SocketAddr],
) -> LocalTransport<'a> {
    LocalTransport { ufrag: &credentials.ufrag, pwd: &credentials.pwd, fingerprint, candidates }
}

fn refusal(error: SdpError) -> Refusal {
    Refusal::InvalidDescription(error.to_string())
}

/// Why the client's answer keeps a track from being pulled.
fn reason(because: RejectedBecause) -> String {
    match because {
        RejectedBecause::Stopped => "the client refused the m-line".into(),
        RejectedBecause::Direction(_) => "the client does not receive on the m-line".into(),
        RejectedBecause::NoCodec => "the client accepted no codec at all".into(),
        RejectedBecause::Codec(codec) => {
            format!("the client accepted no codec of the track ({codec})")
        }
    }
}

pub(super) fn media_kind(kind: LineKind) -> Option<MediaKind> {
    match kind {
        LineKind::Audio => Some(MediaKind::Audio),
        LineKind::Video => Some(MediaKind::Video),
        LineKind::Application | LineKind::Unknown => None,
    }
}
