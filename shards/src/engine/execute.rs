//! Commands: found their session, done or made to wait, answered.

use std::time::Instant;

use super::bind::why;
use super::outlets::{carries, mismatch};
use super::pending::{Pending, Wait};
use super::{Engine, SessionKey};
use crate::command::{
    Ask, Command, Description, ItemError, Location, Refusal, Reply, SdpKind, SessionInfo,
    TrackInfo, TracksRequest,
};
use crate::ids::{AppId, SessionId};
use crate::limits::{TRACKS_PER_CALL, TRANSPORT_WAIT};
use crate::mail::Ticket;
use crate::session::sdp::Signaling;
use crate::session::{Pulled, PulledState, Session};
use crate::switch::feed::Feed;

impl Engine {
    /// Takes a command of this shard's API, or one that came by mail.
    pub fn handle_command(&mut self, ticket: Ticket, command: Command, now: Instant) {
        let session = command.ask.session().and_then(|id| self.find_session(command.app, id));
        let mut done = false;
        self.guarded(
            now,
            |_| session,
            |this| {
                this.execute(ticket, command, false, now);
                done = true;
                this.resume_woken(now);
            },
        );
        if !done {
            self.answer(ticket, Err(Refusal::Internal));
        }
    }

    /// Does a command, or parks it until its session's transport is up. `waited`: it was
    /// parked before and need not be again.
    pub(super) fn execute(&mut self, ticket: Ticket, command: Command, waited: bool, now: Instant) {
        let app = command.app;
        let key = match command.ask.session() {
            None => None,
            Some(id) => match self.find_session(app, id) {
                Some(key) => Some(key),
                None => return self.answer(ticket, Err(gone(id))),
            },
        };
        if let Some(key) = key {
            if let Some(session) = self.sessions.get_mut(key) {
                session.asked_at = now;
            }
            if !waited && self.must_wait(key, &command.ask) {
                let wait = Wait::Transport { command };
                let deadline = now + TRANSPORT_WAIT;
                return self.park(Pending { ticket, session: key, deadline, wait });
            }
        }
        match command.ask {
            Ask::Create { offer } => {
                let answer = self.create(app, offer, now);
                self.answer(ticket, answer);
            }
            Ask::NewTracks { request, .. } => self.new_tracks(ticket, key, request, now),
            Ask::Renegotiate { description, .. } => {
                let answer = self.with(key, |this, key| this.renegotiate(key, &description, now));
                self.answer(ticket, answer);
            }
            Ask::CloseTracks { request, .. } => {
                let answer = self.with(key, |this, key| this.close_tracks(key, &request, now));
                self.answer(ticket, answer.map(Reply::Tracks));
            }
            Ask::UpdateTracks { tracks, .. } => self.update_tracks(ticket, key, tracks, now),
            Ask::Describe { .. } => {
                let answer = self.with(key, |this, key| Ok(this.describe(key)));
                self.answer(ticket, answer.map(Reply::Described));
            }
            Ask::Delete { .. } => {
                if let Some(key) = key {
                    self.end_session(key, now);
                }
                self.answer(ticket, Ok(Reply::Deleted));
            }
        }
    }

    fn with<T>(
        &mut self,
        key: Option<SessionKey>,
        run: impl FnOnce(&mut Self, SessionKey) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        run(self, key.ok_or(Refusal::Internal)?)
    }

    /// Whether a command needs a transport that is still coming up. The first negotiation of a
    /// session needs none, and what an open offer of ours forbids is refused at once instead.
    fn must_wait(&self, key: SessionKey, ask: &Ask) -> bool {
        let needs = match ask {
            Ask::NewTracks { .. } => true,
            Ask::CloseTracks { request, .. } => !request.force,
            Ask::Create { .. }
            | Ask::Renegotiate { .. }
            | Ask::UpdateTracks { .. }
            | Ask::Describe { .. }
            | Ask::Delete { .. } => false,
        };
        let session = self.sessions.get(key);
        needs
            && session.is_some_and(|session| {
                session.negotiator.signaling() == Signaling::Stable && !session.connected
            })
    }

    fn create(
        &mut self,
        app: AppId,
        offer: Option<Description>,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        let key = self.open_session(app, now)?;
        let answer = match offer {
            None => Ok(None),
            Some(offer) => self.accept_offer(key, &offer, |_| Ok(Vec::new()), now).map(Some),
        };
        let session = self.sessions.get(key).ok_or(Refusal::Internal)?.id;
        match answer {
            Ok(answer) => Ok(Reply::Created { session, answer }),
            Err(refusal) => {
                self.end_session(key, now);
                Err(refusal)
            }
        }
    }

    fn new_tracks(
        &mut self,
        ticket: Ticket,
        key: Option<SessionKey>,
        request: TracksRequest,
        now: Instant,
    ) {
        let Some(key) = key else { return };
        match direction(&request) {
            Ok(Location::Local) => {
                let answer = self.push(key, &request, now);
                self.answer(ticket, answer.map(Reply::Tracks));
            }
            Ok(Location::Remote) => self.begin_pull(ticket, key, request, now),
            Err(refusal) => self.answer(ticket, Err(refusal)),
        }
    }

    fn renegotiate(
        &mut self,
        key: SessionKey,
        description: &Description,
        now: Instant,
    ) -> Result<Reply, Refusal> {
        match description.kind {
            SdpKind::Answer => {
                self.accept_answer(key, &description.sdp, now)?;
                Ok(Reply::Renegotiated { answer: None })
            }
            SdpKind::Offer => {
                let answer = self.accept_offer(key, description, |_| Ok(Vec::new()), now)?;
                Ok(Reply::Renegotiated { answer: Some(answer) })
            }
        }
    }

    fn describe(&self, key: SessionKey) -> SessionInfo {
        let Some(session) = self.sessions.get(key) else { return SessionInfo::default() };
        SessionInfo {
            tracks: published_info(session).chain(self.pulled_info(session)).collect(),
            shard: Some(self.config.shard),
            connected: session.connected,
        }
    }

    /// What keeps a live pull from getting its track as it is sent now.
    fn lacking(&self, pulled: &Pulled, feed: &Feed) -> Option<ItemError> {
        let pull = self.pulls.get(pulled.pull()?)?;
        let gets_through = carries(&pull.out.outlets, feed.codec);
        feed.meta.as_ref().filter(|_| !gets_through).map(|meta| mismatch(meta, feed.codec))
    }

    fn pulled_info<'a>(&'a self, session: &'a Session) -> impl Iterator<Item = TrackInfo> + 'a {
        session.pulled.iter().map(|pulled| {
            let feed = self.feeds.get(pulled.feed).filter(|feed| feed.stage.is_alive());
            let alive = feed.is_some();
            let lacking = feed.and_then(|feed| self.lacking(pulled, feed));
            let carried = lacking.is_none();
            let reason = match &pulled.state {
                PulledState::Refused(reason) => Some(reason.clone()),
                PulledState::Active(_) if !alive => Some("the publisher ended the track".into()),
                PulledState::Active(_) => lacking.as_ref().map(why),
                PulledState::Offered | PulledState::Closed => None,
            };
            TrackInfo {
                location: Location::Remote,
                mid: pulled.mid.clone(),
                session_id: Some(pulled.key.session.to_string()),
                track_name: pulled.key.name.to_string(),
                kind: pulled.kind,
                active: alive && carried && pulled.pull().is_some(),
                reason,
            }
        })
    }
}

fn published_info(session: &Session) -> impl Iterator<Item = TrackInfo> + '_ {
    session.published.iter().map(|published| TrackInfo {
        location: Location::Local,
        mid: published.mid.clone(),
        session_id: None,
        track_name: published.name.to_string(),
        kind: published.kind,
        active: published.is_active(),
        reason: None,
    })
}

/// Whether a request pushes or pulls; one request does one of them.
fn direction(request: &TracksRequest) -> Result<Location, Refusal> {
    if request.auto_discover {
        return Ok(Location::Local);
    }
    if request.tracks.len() > TRACKS_PER_CALL {
        let text = format!("Expecting at most {TRACKS_PER_CALL} tracks in the request");
        return Err(Refusal::InvalidParams(text));
    }
    let mut locations = request.tracks.iter().enumerate().map(|(at, track)| {
        let missing = || Refusal::InvalidParams(format!("tracks[{at}]: Missing location in track"));
        track.location.ok_or_else(missing)
    });
    let missing = || Refusal::InvalidParams("tracks: Missing tracks in the request".into());
    let first = locations.next().ok_or_else(missing)??;
    for other in locations {
        if other? != first {
            let text = "tracks: Pushing and pulling in one request is unsupported";
            return Err(Refusal::InvalidParams(text.into()));
        }
    }
    Ok(first)
}

pub(super) fn gone(id: SessionId) -> Refusal {
    Refusal::Gone { session: id.to_string(), publisher: false }
}
