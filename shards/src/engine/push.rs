//! Pushes: a session publishes what its client sends.

use std::sync::Arc;
use std::time::Instant;

use super::lines::media_kind;
use super::{Engine, SessionKey};
use crate::command::{
    Description, ItemError, MediaKind, Refusal, TrackObject, TrackResult, TracksReply,
    TracksRequest,
};
use crate::limits::{TRACK_NAME_LEN, TRACKS_PER_SESSION};
use crate::session::sdp::{RemoteOffer, Role, SendSpec, Want};
use crate::session::{Published, Session};
use crate::switch::feed::{TrackKey, TrackMeta};

impl Engine {
    pub(super) fn push(
        &mut self,
        key: SessionKey,
        request: &TracksRequest,
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        match &request.offer {
            Some(offer) => self.push_offered(key, request, offer, now),
            None if request.auto_discover => {
                let text = "sessionDescription: autoDiscover needs an offer to discover tracks in";
                Err(Refusal::InvalidParams(text.into()))
            }
            None if request.tracks.iter().all(|track| track.mid.is_some()) => {
                let tracks = self.publish_negotiated(key, &request.tracks, now)?;
                Ok(TracksReply { tracks, ..TracksReply::default() })
            }
            None => self.push_by_offering(key, &request.tracks, now),
        }
    }

    /// Cases A and B: the client offers what it sends.
    fn push_offered(
        &mut self,
        key: SessionKey,
        request: &TracksRequest,
        offer: &Description,
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        let mut tracks = request.tracks.clone();
        let mut discovered = Vec::new();
        let names: Vec<String> = (0..64).map(|_| format!("{:016x}", (self.random)())).collect();
        let specs: Vec<_> = tracks.iter().map(|_| self.reserved_spec(key)).collect();
        let answer = self.accept_offer(
            key,
            offer,
            |(session, offer)| {
                if request.auto_discover {
                    discovered = discover(session, offer, names);
                    tracks.clone_from(&discovered);
                }
                tracks.iter().enumerate().map(|(at, t)| role(at, t, offer, specs.get(at))).collect()
            },
            now,
        )?;
        let results = tracks
            .iter()
            .enumerate()
            .map(|(at, track)| self.publish(key, at, track, now))
            .collect::<Result<Vec<_>, _>>()?;
        let kinds = |result: TrackResult, track: &TrackObject| TrackResult {
            kind: if request.auto_discover { track.kind } else { None },
            ..result
        };
        let tracks = results.into_iter().zip(&tracks).map(|(r, t)| kinds(r, t)).collect();
        Ok(TracksReply {
            requires_immediate_renegotiation: false,
            description: Some(answer),
            tracks,
        })
    }

    /// No SDP: the m-lines were negotiated before the tracks were named.
    fn publish_negotiated(
        &mut self,
        key: SessionKey,
        tracks: &[TrackObject],
        now: Instant,
    ) -> Result<Vec<TrackResult>, Refusal> {
        tracks.iter().enumerate().map(|(at, track)| self.publish(key, at, track, now)).collect()
    }

    /// Case C: we offer to receive.
    fn push_by_offering(
        &mut self,
        key: SessionKey,
        tracks: &[TrackObject],
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        let mut wants = Vec::with_capacity(tracks.len());
        let mut results = Vec::with_capacity(tracks.len());
        for (at, track) in tracks.iter().enumerate() {
            let kind = track.kind.ok_or_else(|| missing(at, "kind"))?;
            let name = track.track_name.as_deref().ok_or_else(|| missing(at, "trackName"))?;
            let session = self.sessions.get(key).ok_or(Refusal::Internal)?;
            let told = |earlier: &TrackObject| earlier.track_name.as_deref() == Some(name);
            let error = if name.is_empty() || name.len() > TRACK_NAME_LEN {
                Some(ItemError::Limit("characters of a track name".into()))
            } else if session.published_by_name(name).is_some() || tracks[..at].iter().any(told) {
                Some(ItemError::RepeatedTrack(name.into()))
            } else {
                None
            };
            if error.is_none() {
                let both = track.bidirectional.then(|| self.reserved_spec(key));
                wants.push(Want::Receive { kind, both });
            }
            let track_name = track.track_name.clone();
            results.push(TrackResult { track_name, error, ..TrackResult::default() });
        }
        if wants.is_empty() {
            return Ok(TracksReply { tracks: results, ..TracksReply::default() });
        }
        let (description, mids) = self.make_offer(key, &wants, now)?;
        // The tracks exist once the client's answer says that it sends them.
        let offered = tracks.iter().zip(&mut results).filter(|(_, r)| r.error.is_none());
        for ((track, result), mid) in offered.zip(mids) {
            result.mid.clone_from(&mid);
            if let Some(session) = self.sessions.get_mut(key) {
                session.offered.push(TrackObject { mid: Some(mid), ..track.clone() });
            }
        }
        Ok(TracksReply {
            requires_immediate_renegotiation: true,
            description: Some(description),
            tracks: results,
        })
    }

    /// Publishes one track on a transceiver that receives.
    pub(super) fn publish(
        &mut self,
        key: SessionKey,
        at: usize,
        track: &TrackObject,
        now: Instant,
    ) -> Result<TrackResult, Refusal> {
        let mid = track.mid.as_deref().ok_or_else(|| missing(at, "mid"))?;
        let name = track.track_name.as_deref().ok_or_else(|| missing(at, "trackName"))?;
        let error = self.try_publish(key, mid, name, now).err();
        Ok(TrackResult {
            mid: mid.into(),
            track_name: Some(name.into()),
            error,
            ..TrackResult::default()
        })
    }

    fn try_publish(
        &mut self,
        key: SessionKey,
        mid: &str,
        name: &str,
        now: Instant,
    ) -> Result<(), ItemError> {
        if name.is_empty() || name.len() > TRACK_NAME_LEN {
            return Err(ItemError::Limit("characters of a track name".into()));
        }
        let session = self.sessions.get(key).ok_or(ItemError::NotFoundTrack)?;
        let kind = match session.receiving_kind(mid) {
            Some(kind) => kind,
            None => return Err(ItemError::BadTransceiver(mid.into())),
        };
        if let Some(same) = session.published_by_name(name) {
            return if same.mid == mid {
                Ok(())
            } else {
                Err(ItemError::RepeatedTrack(name.into()))
            };
        }
        if session.published.iter().filter(|p| p.is_active()).count() >= TRACKS_PER_SESSION {
            return Err(ItemError::Limit("tracks of one session".into()));
        }
        let meta = track_meta(session, mid, kind);
        let track = TrackKey { app: session.app, session: session.id, name: name.into() };
        // A transceiver carries one track: a new name on it replaces the old one.
        let replaced = session.published.iter().find(|p| p.mid == mid && p.is_active());
        if let Some(feed) = replaced.and_then(|p| p.feed) {
            self.unpublish(key, feed, now);
        }
        let feed = self.publish_feed(&track, meta, now);
        let feed = feed.ok_or_else(|| ItemError::Limit("tracks on this node".into()))?;
        if let Some(session) = self.sessions.get_mut(key) {
            session.published.retain(|p| p.is_active() || p.mid != mid);
            let (name, mid) = (Arc::clone(&track.name), mid.to_owned());
            session.ingress.bind(&mid, feed);
            session.published.push(Published { name, mid, kind, feed: Some(feed) });
        }
        if let Some(at) = self.next_deadline(key) {
            self.schedule(key, at);
        }
        Ok(())
    }
}

impl Engine {
    /// The m-line of a live track was negotiated again, perhaps with other codecs or layers.
    /// `goes_on`: indexes still mean what they meant.
    pub(super) fn republish(&mut self, key: SessionKey, mid: &str, goes_on: bool, now: Instant) {
        let Some(session) = self.sessions.get(key) else { return };
        let live = session.published.iter().find(|p| p.mid == mid && p.is_active());
        let Some((published, feed)) = live.and_then(|p| Some((p, p.feed?))) else { return };
        let name = Arc::clone(&published.name);
        if !goes_on {
            // Pulls of it see it end; the name goes on.
            self.unpublish(key, feed, now);
            let _ = self.try_publish(key, mid, &name, now);
            return;
        }
        let meta = track_meta(session, mid, published.kind);
        if self.feeds.get(feed).is_some_and(|feed| feed.meta.as_deref() != Some(&meta)) {
            self.change_feed(feed, Arc::new(meta), now);
        }
    }
}

impl Session {
    /// The kind of media a transceiver may receive, now or once our offer is answered.
    fn receiving_kind(&self, mid: &str) -> Option<MediaKind> {
        let line = self.negotiator.line(mid)?;
        line.receiving.as_ref()?;
        media_kind(line.kind)
    }
}

/// What subscribers must know of the track on an m-line; indexes are the inlet's.
fn track_meta(session: &Session, mid: &str, kind: MediaKind) -> TrackMeta {
    let inlet = session.ingress.inlet(mid);
    TrackMeta {
        kind,
        codecs: inlet.map(|inlet| inlet.codecs.clone()).unwrap_or_default(),
        rids: inlet.map_or_else(|| vec![String::new()], |inlet| inlet.rids.clone()),
        cname: session.cname.clone(),
        stream_id: session.stream_id.clone(),
    }
}

/// The role of the m-line that a pushed track names.
fn role(
    at: usize,
    track: &TrackObject,
    offer: &RemoteOffer,
    spec: Option<&SendSpec>,
) -> Result<(String, Role), Refusal> {
    let mid = track.mid.as_ref().ok_or_else(|| missing(at, "mid"))?;
    track.track_name.as_ref().ok_or_else(|| missing(at, "trackName"))?;
    let Some(line) = offer.line(mid) else {
        let text = format!("tracks[{at}]: the offer has no m-line with mid \"{mid}\"");
        return Err(Refusal::InvalidParams(text));
    };
    let role = match spec {
        Some(spec) if track.bidirectional && line.direction.receives() => Role::Both(spec.clone()),
        _ => Role::Receive,
    };
    Ok((mid.clone(), role))
}

/// Every m-line on which the client starts to send, under a name of its own.
fn discover(session: &Session, offer: &RemoteOffer, names: Vec<String>) -> Vec<TrackObject> {
    let published = |mid: &str| session.published.iter().any(|p| p.is_active() && p.mid == mid);
    let lines = offer.lines().iter().filter(|line| line.direction.sends() && !published(&line.mid));
    lines
        .zip(names)
        .map(|(line, name)| TrackObject {
            mid: Some(line.mid.clone()),
            track_name: Some(name),
            kind: media_kind(line.kind),
            ..TrackObject::default()
        })
        .collect()
}

fn missing(at: usize, field: &str) -> Refusal {
    Refusal::InvalidParams(format!("tracks[{at}]: Missing {field} in track"))
}
