//! Pulls: wait for their tracks, bind them to transceivers, tell the client.

use std::time::Instant;

use super::pending::{Pending, Wait};
use super::{Engine, SessionKey};
use crate::command::{
    Description, ItemError, Refusal, Reply, TrackObject, TrackResult, TracksReply, TracksRequest,
};
use crate::ids::{AppId, SessionId};
use crate::limits::{PACKET_WAIT, TRACK_NAME_LEN, TRACK_WAIT};
use crate::mail::Ticket;
use crate::session::sdp::Signaling;
use crate::slots::Slots;
use crate::switch::feed::{Feed, FeedKey, Stage, TrackKey};

/// A request whose tracks are being sought.
#[derive(Debug)]
pub(super) struct Seeking {
    pub(super) subscriber: SessionId,
    pub(super) started: Instant,
    pub(super) items: Vec<Item>,
    pub(super) purpose: Purpose,
    /// What is being waited for, whatever becomes of the items.
    sought: Vec<FeedKey>,
}

/// What is done once the tracks are there.
#[derive(Debug)]
pub(super) enum Purpose {
    /// `tracks/new`, with the client's offer if it made one.
    Pull { offer: Option<Description> },
    /// `tracks/update`.
    Update,
}

/// One track of a request.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) object: TrackObject,
    pub(super) target: Result<(TrackKey, FeedKey), ItemError>,
    pub(super) settled: bool,
}

impl Item {
    /// The result the client is told, before anything is known.
    pub(super) fn result(&self) -> TrackResult {
        TrackResult {
            mid: String::new(),
            session_id: self.object.session_id.clone(),
            track_name: self.object.track_name.clone(),
            kind: None,
            simulcast: self.object.simulcast.clone(),
            error: self.target.as_ref().err().cloned(),
        }
    }
}

impl Seeking {
    pub(super) fn new(
        subscriber: SessionId,
        started: Instant,
        items: Vec<Item>,
        purpose: Purpose,
    ) -> Self {
        let feed = |item: &Item| item.target.as_ref().ok().map(|(_, feed)| *feed);
        let sought = items.iter().filter_map(feed).collect();
        Self { subscriber, started, items, purpose, sought }
    }

    pub(super) fn feeds(&self) -> impl Iterator<Item = FeedKey> + '_ {
        self.sought.iter().copied()
    }

    /// Looks at the tracks: `None` when all are decided, else when to look again.
    pub(super) fn settle(&mut self, feeds: &Slots<Feed>, now: Instant) -> Option<Instant> {
        let mut next = None;
        for item in self.items.iter_mut().filter(|item| !item.settled) {
            let Ok((key, feed)) = &item.target else {
                item.settled = true;
                continue;
            };
            let feed = feeds.get(*feed);
            let stage = feed.map_or(Stage::Gone, |feed| feed.stage);
            let (deadline, verdict) = match stage {
                Stage::Flowing => {
                    item.settled = true;
                    continue;
                }
                Stage::Gone => (now, gone(feed, key)),
                Stage::Ended => (now, ItemError::NotFoundTrack),
                Stage::Sought => (self.started + TRACK_WAIT, ItemError::NotFoundTrack),
                Stage::Known => (self.started + PACKET_WAIT, ItemError::EmptyTrack),
            };
            if deadline <= now {
                item.target = Err(verdict);
                item.settled = true;
            } else {
                next = Some(next.map_or(deadline, |next: Instant| next.min(deadline)));
            }
        }
        if next.is_none() {
            self.look_once_more(feeds);
        }
        next
    }

    /// A track that was there early may have ended while the others were awaited.
    fn look_once_more(&mut self, feeds: &Slots<Feed>) {
        for item in &mut self.items {
            let Ok((key, feed)) = &item.target else { continue };
            let feed = feeds.get(*feed);
            match feed.map_or(Stage::Gone, |feed| feed.stage) {
                Stage::Known | Stage::Flowing => {}
                Stage::Sought | Stage::Ended => item.target = Err(ItemError::NotFoundTrack),
                Stage::Gone => item.target = Err(gone(feed, key)),
            }
        }
    }
}

impl Engine {
    /// Starts a pull: every track is sought at the same time.
    pub(super) fn begin_pull(
        &mut self,
        ticket: Ticket,
        key: SessionKey,
        request: TracksRequest,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.negotiator.signaling() == Signaling::HaveLocalOffer {
            return self.answer(ticket, Err(Refusal::HaveLocalOffer));
        }
        let subscriber = session.id;
        let app = session.app;
        let mut items = Vec::with_capacity(request.tracks.len());
        for (at, object) in request.tracks.into_iter().enumerate() {
            let target = match track_key(app, &object) {
                Ok(Ok(key)) => self.seek(&key, now).map(|feed| (key, feed)),
                Ok(Err(error)) => Err(error),
                Err(field) => {
                    self.stop_seeking(&items);
                    let text = format!("tracks[{at}]: Missing {field} in track");
                    return self.answer(ticket, Err(Refusal::InvalidParams(text)));
                }
            };
            items.push(Item { object, target, settled: false });
        }
        let purpose = Purpose::Pull { offer: request.offer };
        self.begin_seeking(ticket, key, Seeking::new(subscriber, now, items, purpose));
    }

    pub(super) fn begin_seeking(&mut self, ticket: Ticket, key: SessionKey, seeking: Seeking) {
        let deadline = seeking.started + TRACK_WAIT;
        let wait = Wait::Tracks(Box::new(seeking));
        self.park(Pending { ticket, session: key, deadline, wait });
    }

    /// Forgets what was begun for a request that turns out to be invalid.
    pub(super) fn stop_seeking(&mut self, items: &[Item]) {
        for (_, feed) in items.iter().filter_map(|item| item.target.as_ref().ok()) {
            self.release_feed(*feed);
        }
    }

    /// All tracks are decided: binds those that are there.
    pub(super) fn finish_seeking(
        &mut self,
        ticket: Ticket,
        key: SessionKey,
        seeking: Seeking,
        now: Instant,
    ) {
        let answer = match &seeking.purpose {
            Purpose::Update => Ok(self.finish_update(key, &seeking.items, now)),
            Purpose::Pull { offer } => self.finish_pull(key, &seeking, offer.as_ref(), now),
        };
        self.answer(ticket, answer.map(Reply::Tracks));
    }

    fn finish_pull(
        &mut self,
        key: SessionKey,
        seeking: &Seeking,
        offer: Option<&Description>,
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        if seeking.items.iter().all(|item| item.target.is_err()) {
            return all_failed(&seeking.items);
        }
        let session = self.sessions.get(key).ok_or(Refusal::Internal)?;
        if session.negotiator.signaling() == Signaling::HaveLocalOffer {
            return Err(Refusal::HaveLocalOffer);
        }
        match offer {
            Some(offer) => self.pull_into_offer(key, &seeking.items, offer, now),
            None => self.pull_by_offering(key, &seeking.items, now),
        }
    }
}

/// What became of a track that is no more.
fn gone(feed: Option<&Feed>, key: &TrackKey) -> ItemError {
    feed.map_or_else(|| ItemError::PublisherGone(key.session.to_string()), Feed::gone)
}

/// No track of a request could be had. The publishers' sessions being gone is a refusal of
/// the whole request that names one of them; anything else is told per item.
fn all_failed(items: &[Item]) -> Result<TracksReply, Refusal> {
    let gone = |item: &Item| match &item.target {
        Err(ItemError::PublisherGone(session)) => Some(session.clone()),
        _ => None,
    };
    if let Some(session) = items.first().and_then(gone)
        && items.iter().all(|item| gone(item).is_some())
    {
        return Err(Refusal::Gone { session, publisher: true });
    }
    let tracks = items.iter().map(Item::result).collect();
    Ok(TracksReply { requires_immediate_renegotiation: false, description: None, tracks })
}

/// The track an object names. The outer error is a missing field, the inner one a track that
/// cannot exist.
pub(super) fn track_key(
    app: AppId,
    object: &TrackObject,
) -> Result<Result<TrackKey, ItemError>, &'static str> {
    let session = object.session_id.as_deref().ok_or("sessionId")?;
    let name = object.track_name.as_deref().ok_or("trackName")?;
    let Ok(id) = session.parse() else {
        return Ok(Err(ItemError::NotFoundTrack));
    };
    if name.is_empty() || name.len() > TRACK_NAME_LEN {
        return Ok(Err(ItemError::NotFoundTrack));
    }
    Ok(Ok(TrackKey { app, session: id, name: name.into() }))
}
