//! Pulls meet transceivers: in the client's offer, in an offer of ours, or on one that is
//! there already.

use std::sync::Arc;
use std::time::Instant;

use super::lines::media_kind;
use super::outlets::{can_carry, mismatch, outgoing, outgoing_anyhow};
use super::pull::Item;
use super::{Engine, SessionKey};
use crate::command::{
    Description, ItemError, MediaKind, Refusal, Simulcast, TrackResult, TracksReply,
};
use crate::session::sdp::{RemoteOffer, Role, SendSpec, Want};
use crate::session::{Pulled, PulledState, Session};
use crate::switch::feed::{FeedKey, PullKey, TrackKey, TrackMeta};
use crate::switch::pull::{Numbering, Pull};

impl Engine {
    /// Case E: the client offers to receive; each track takes one of its m-lines.
    pub(super) fn pull_into_offer(
        &mut self,
        key: SessionKey,
        items: &[Item],
        offer: &Description,
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        let mut results: Vec<TrackResult> = items.iter().map(Item::result).collect();
        let specs: Vec<_> = items.iter().map(|item| self.spec_of(key, item)).collect();
        let answer = self.accept_offer(
            key,
            offer,
            |(session, offer)| {
                let mut roles = Vec::new();
                for ((item, spec), result) in items.iter().zip(&specs).zip(&mut results) {
                    let Some((spec, meta, in_use)) = spec else { continue };
                    match choose_line(session, offer, item, (meta, *in_use), &roles) {
                        Ok((mid, both)) => {
                            result.mid.clone_from(&mid);
                            let spec = spec.clone();
                            roles.push((
                                mid,
                                if both { Role::Both(spec) } else { Role::Send(spec) },
                            ));
                        }
                        Err(error) => result.error = Some(error),
                    }
                }
                Ok(roles)
            },
            now,
        )?;
        for (item, result) in items.iter().zip(&mut results) {
            if result.error.is_none() {
                self.add_pulled(key, item, result.mid.clone());
                result.error = self.start_last(key, now);
            }
        }
        let description = Some(answer);
        Ok(TracksReply { requires_immediate_renegotiation: false, description, tracks: results })
    }

    /// Cases D, F, G, H: tracks with a transceiver named go there, the others into an offer.
    pub(super) fn pull_by_offering(
        &mut self,
        key: SessionKey,
        items: &[Item],
        now: Instant,
    ) -> Result<TracksReply, Refusal> {
        let mut results: Vec<TrackResult> = items.iter().map(Item::result).collect();
        let (mut wants, mut offered) = (Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate().filter(|(_, item)| item.object.mid.is_none()) {
            let Some((spec, meta, _)) = self.spec_of(key, item) else { continue };
            wants.push(Want::Send { spec, kind: meta.kind });
            offered.push(at);
        }
        // First, for it may fail: then nothing of the request is done.
        let mut description = None;
        if !wants.is_empty() {
            let (offer, mids) = self.make_offer(key, &wants, now)?;
            description = Some(offer);
            for (at, mid) in offered.into_iter().zip(mids) {
                results[at].mid.clone_from(&mid);
                self.add_pulled(key, &items[at], mid);
            }
        }
        for (item, result) in items.iter().zip(&mut results).filter(|(item, _)| item.target.is_ok())
        {
            let Some(mid) = &item.object.mid else { continue };
            match self.pull_into_transceiver(key, item, mid, now) {
                Ok(mid) => result.mid = mid,
                Err(error) => result.error = Some(error),
            }
        }
        let requires_immediate_renegotiation = description.is_some();
        Ok(TracksReply { requires_immediate_renegotiation, description, tracks: results })
    }

    /// Case F: a transceiver that sends already gets this track, instead of what it had.
    fn pull_into_transceiver(
        &mut self,
        key: SessionKey,
        item: &Item,
        mid: &str,
        now: Instant,
    ) -> Result<String, ItemError> {
        let session = self.sessions.get(key).ok_or(ItemError::NotFoundTrack)?;
        let mid = match mid.strip_prefix('#') {
            None => mid.to_owned(),
            Some(name) => {
                session.mid_of(name).ok_or_else(|| ItemError::BadTransceiver(mid.into()))?
            }
        };
        let line = session.negotiator.line(&mid);
        if line.is_none_or(|line| line.sending.is_none()) {
            return Err(ItemError::BadTransceiver(mid));
        }
        let Ok((track, feed)) = &item.target else { return Err(ItemError::NotFoundTrack) };
        if session.pulled.iter().any(|p| p.mid == mid && p.pull().is_some()) {
            let simulcast = item.object.simulcast.clone();
            self.repoint(key, &mid, track, *feed, simulcast, now)?;
            return Ok(mid);
        }
        self.add_pulled(key, item, mid.clone());
        self.start_last(key, now).map_or(Ok(mid), Err)
    }

    /// Notes a pull whose transceiver is known.
    fn add_pulled(&mut self, key: SessionKey, item: &Item, mid: String) {
        let Ok((track, feed)) = &item.target else { return };
        let kind = self.feeds.get(*feed).and_then(|f| f.meta.as_ref()).map(|meta| meta.kind);
        let Some(session) = self.sessions.get_mut(key) else { return };
        // What the transceiver carried before is history.
        session.pulled.retain(|p| p.mid != mid || p.pull().is_some());
        session.pulled.push(Pulled {
            mid,
            kind: kind.unwrap_or(MediaKind::Audio),
            key: track.clone(),
            feed: *feed,
            simulcast: item.object.simulcast.clone(),
            state: PulledState::Offered,
        });
        if let Some(feed) = self.feeds.get_mut(*feed) {
            feed.promised += 1;
        }
    }

    fn start_last(&mut self, key: SessionKey, now: Instant) -> Option<ItemError> {
        let at = self.sessions.get(key)?.pulled.len().checked_sub(1)?;
        self.activate(key, at, now)
    }

    /// Begins to forward: the m-line of the pull is negotiated.
    pub(super) fn activate(
        &mut self,
        key: SessionKey,
        at: usize,
        now: Instant,
    ) -> Option<ItemError> {
        let feed_key = self.sessions.get(key)?.pulled.get(at)?.feed;
        let made = self.make_pull(key, at);
        if let Some(feed) = self.feeds.get_mut(feed_key) {
            feed.promised -= 1;
            feed.pulls.extend(made.as_ref().ok());
        }
        let (state, error) = match made {
            Ok(pull) => {
                self.pull_started(pull, now);
                (PulledState::Active(pull), None)
            }
            Err(error) => (PulledState::Refused(why(&error)), Some(error)),
        };
        if let Some(pulled) = self.sessions.get_mut(key).and_then(|s| s.pulled.get_mut(at)) {
            pulled.state = state;
        }
        self.release_feed(feed_key);
        error
    }

    fn make_pull(&mut self, key: SessionKey, at: usize) -> Result<PullKey, ItemError> {
        let session = self.sessions.get(key).ok_or(ItemError::NotFoundTrack)?;
        let pulled = session.pulled.get(at).ok_or(ItemError::NotFoundTrack)?;
        let feed = self.feeds.get(pulled.feed).ok_or(ItemError::NotFoundTrack)?;
        let meta = feed.meta.as_ref().ok_or(ItemError::NotFoundTrack)?;
        let out = outgoing(session, &pulled.mid, meta, feed.codec);
        let out = out.ok_or_else(|| mismatch(meta, feed.codec))?;
        let numbering = session.egress.numbering(out.ssrc);
        let numbering = numbering.unwrap_or_else(|| Numbering::fresh((self.random)()));
        let mut pull = Pull::new(key, pulled.feed, meta.kind, out, numbering);
        pull.simulcast.clone_from(&pulled.simulcast);
        self.pulls
            .insert_with(|_| pull)
            .ok_or_else(|| ItemError::Limit("pulls on this core".into()))
    }

    /// The m-line of a live pull, or of its track, was negotiated again, perhaps with other
    /// numbers.
    pub(super) fn renegotiated(&mut self, key: PullKey) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(session) = self.sessions.get(pull.session) else { return };
        let Some(feed) = self.feeds.get(pull.feed) else { return };
        let meta = feed.meta.as_ref();
        // What the client lacks now it may get once the publisher changes its codec.
        let out = meta.and_then(|meta| outgoing_anyhow(session, &pull.out.mid, meta));
        // A live line keeps its SSRC: new ones are drawn only for lines that did not send.
        if let Some(out) = out.filter(|out| out.ssrc == pull.out.ssrc) {
            pull.out = out;
        }
    }

    pub(super) fn pull_started(&mut self, pull: PullKey, now: Instant) {
        self.meters.pulls_started += 1;
        self.choose_layer(pull, now);
        let Some((feed, session)) = self.pulls.get(pull).map(|p| (p.feed, p.session)) else {
            return;
        };
        self.schedule_review(feed, now);
        if let Some(at) = self.next_deadline(session) {
            self.schedule(session, at);
        }
    }

    /// Points a live pull at another track, on the same transceiver.
    pub(super) fn repoint(
        &mut self,
        key: SessionKey,
        mid: &str,
        track: &TrackKey,
        feed: FeedKey,
        simulcast: Option<Simulcast>,
        now: Instant,
    ) -> Result<(), ItemError> {
        let session = self.sessions.get_mut(key).ok_or(ItemError::NotFoundTrack)?;
        let target = self.feeds.get(feed).ok_or(ItemError::NotFoundTrack)?;
        let meta = target.meta.clone().ok_or(ItemError::NotFoundTrack)?;
        let in_use = target.codec;
        let out = outgoing(session, mid, &meta, in_use).ok_or_else(|| mismatch(&meta, in_use))?;
        let pulled =
            session.pulled_by_mid(mid).ok_or_else(|| ItemError::BadTransceiver(mid.into()))?;
        let pull_key = pulled.pull().ok_or(ItemError::AlreadyClosed)?;
        let before = std::mem::replace(&mut pulled.feed, feed);
        pulled.key = track.clone();
        pulled.simulcast.clone_from(&simulcast);
        let pull = self.pulls.get_mut(pull_key).ok_or(ItemError::AlreadyClosed)?;
        pull.repoint(feed, out);
        pull.simulcast = simulcast;
        if let Some(before) = self.feeds.get_mut(before) {
            before.pulls.retain(|&other| other != pull_key);
        }
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.pulls.push(pull_key);
        }
        self.release_feed(before);
        self.pull_started(pull_key, now);
        Ok(())
    }

    fn spec_of(
        &mut self,
        key: SessionKey,
        item: &Item,
    ) -> Option<(SendSpec, Arc<TrackMeta>, Option<u8>)> {
        let (_, feed) = item.target.as_ref().ok()?;
        let feed = self.feeds.get(*feed)?;
        let (meta, in_use) = (feed.meta.clone()?, feed.codec);
        Some((self.track_spec(key, &meta, in_use), meta, in_use))
    }
}

impl Session {
    /// The transceiver of this session's own track.
    pub(super) fn mid_of(&self, name: &str) -> Option<String> {
        let published = self.published_by_name(name).map(|p| p.mid.clone());
        let pulled = || self.pulled.iter().find(|p| &*p.key.name == name && p.pull().is_some());
        published.or_else(|| pulled().map(|p| p.mid.clone()))
    }
}

/// The m-line of the client's offer that a track takes, and whether it also receives on it.
fn choose_line(
    session: &Session,
    offer: &RemoteOffer,
    item: &Item,
    (meta, in_use): (&TrackMeta, Option<u8>),
    taken: &[(String, Role)],
) -> Result<(String, bool), ItemError> {
    let free = |mid: &str| {
        !taken.iter().any(|(other, _)| other == mid)
            && !session.pulled.iter().any(|p| p.mid == mid && p.pull().is_some())
    };
    let line = match item.object.mid.as_deref() {
        Some(mid) => offer.line(mid).filter(|line| free(&line.mid)),
        None => offer.lines().iter().find(|line| {
            media_kind(line.kind) == Some(meta.kind) && line.direction.receives() && free(&line.mid)
        }),
    };
    let named = || item.object.mid.clone().unwrap_or_else(|| "any".into());
    let line = line.ok_or_else(|| ItemError::BadTransceiver(named()))?;
    if !can_carry(&line.codecs, meta, in_use) {
        return Err(mismatch(meta, in_use));
    }
    Ok((line.mid.clone(), line.direction.sends()))
}

/// What GET tells of a pull that did not come about.
pub(super) fn why(error: &ItemError) -> String {
    match error {
        ItemError::CodecMismatch(codec) => {
            format!("the client accepted no codec that the track is sent in ({codec})")
        }
        ItemError::Limit(what) => format!("the node's limit of {what} is reached"),
        ItemError::NotFoundTrack
        | ItemError::PublisherGone(_)
        | ItemError::EmptyTrack
        | ItemError::NotSimulcast
        | ItemError::AlreadyClosed
        | ItemError::BadTransceiver(_)
        | ItemError::RepeatedTrack(_) => "the publisher ended the track".to_owned(),
    }
}
