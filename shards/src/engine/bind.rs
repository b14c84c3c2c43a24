//! Pulls meet transceivers: in the client's offer, in an offer of ours, or on one that is
//! there already.

use std::time::Instant;

use super::lines::media_kind;
use super::pull::Item;
use super::{Engine, SessionKey};
use crate::command::{
    Description, ItemError, MediaKind, Refusal, Simulcast, TrackResult, TracksReply,
};
use crate::limits::PULLS_PER_SHARD;
use crate::media::format::{Codec, CodecSpec};
use crate::session::sdp::{RemoteOffer, Role, SendSpec, Want, find};
use crate::session::{Pulled, PulledState, Session};
use crate::switch::feed::{FeedKey, PullKey, TrackKey, TrackMeta};
use crate::switch::pull::{CODECS_PER_TRACK, Numbering, Outgoing, Outlet, Pull, RedOutlet};

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
                    let Some((spec, meta)) = spec else { continue };
                    match choose_line(session, offer, item, meta, &roles) {
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
        let mut wants = Vec::new();
        let mut offered = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let Some((spec, meta)) = self.spec_of(key, item) else { continue };
            match &item.object.mid {
                Some(mid) => match self.pull_into_transceiver(key, item, mid, now) {
                    Ok(mid) => results[at].mid = mid,
                    Err(error) => results[at].error = Some(error),
                },
                None => {
                    wants.push(Want::Send { spec, kind: meta.kind });
                    offered.push(at);
                }
            }
        }
        if wants.is_empty() {
            return Ok(TracksReply { tracks: results, ..TracksReply::default() });
        }
        let (description, mids) = self.make_offer(key, &wants, now)?;
        for (at, mid) in offered.into_iter().zip(mids) {
            results[at].mid.clone_from(&mid);
            self.add_pulled(key, &items[at], mid);
        }
        Ok(TracksReply {
            requires_immediate_renegotiation: true,
            description: Some(description),
            tracks: results,
        })
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
        let session = self.sessions.get(key)?;
        let pulled = session.pulled.get(at)?;
        let (feed_key, simulcast) = (pulled.feed, pulled.simulcast.clone());
        let meta = self.feeds.get(feed_key).and_then(|feed| feed.meta.clone());
        let outgoing = meta.as_ref().and_then(|meta| outgoing(session, &pulled.mid, meta));
        let state = match (&meta, outgoing) {
            (Some(meta), Some(out)) => {
                let numbering = session.egress.numbering(out.ssrc);
                let numbering = numbering.unwrap_or_else(|| Numbering::fresh((self.random)()));
                let mut pull = Pull::new(key, feed_key, meta.kind, out, numbering);
                pull.simulcast = simulcast;
                match self.pulls.insert_with(|_| pull) {
                    Some(pull) => PulledState::Active(pull),
                    None => PulledState::Refused(format!(
                        "the node serves {PULLS_PER_SHARD} pulls a core already"
                    )),
                }
            }
            (Some(meta), None) => {
                let codec = meta.codecs.first().map_or("any", |codec| codec.codec.name());
                PulledState::Refused(format!("the client accepted no codec of the track ({codec})"))
            }
            (None, _) => PulledState::Refused("the publisher ended the track".into()),
        };
        if let Some(feed) = self.feeds.get_mut(feed_key) {
            feed.promised -= 1;
            if let PulledState::Active(pull) = state {
                feed.pulls.push(pull);
            }
        }
        let error = match (&state, meta) {
            (PulledState::Active(pull), _) => {
                self.pull_started(*pull, now);
                None
            }
            (_, Some(meta)) => Some(mismatch(&meta)),
            (_, None) => Some(ItemError::NotFoundTrack),
        };
        if let Some(pulled) = self.sessions.get_mut(key).and_then(|s| s.pulled.get_mut(at)) {
            pulled.state = state;
        }
        self.release_feed(feed_key);
        error
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
        let meta = self.feeds.get(feed).and_then(|feed| feed.meta.clone());
        let meta = meta.ok_or(ItemError::NotFoundTrack)?;
        let out = outgoing(session, mid, &meta).ok_or_else(|| mismatch(&meta))?;
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
    ) -> Option<(SendSpec, std::sync::Arc<TrackMeta>)> {
        let (_, feed) = item.target.as_ref().ok()?;
        let meta = self.feeds.get(*feed)?.meta.clone()?;
        Some((self.track_spec(key, &meta), meta))
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
    meta: &TrackMeta,
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
    if !meta.codecs.iter().any(|codec| find(&line.codecs, codec).is_some()) {
        return Err(mismatch(meta));
    }
    Ok((line.mid.clone(), line.direction.sends()))
}

fn mismatch(meta: &TrackMeta) -> ItemError {
    ItemError::CodecMismatch(meta.codecs.first().map_or("none", |c| c.codec.name()).into())
}

/// How a track leaves by an m-line; `None` when the client has none of its codecs.
fn outgoing(session: &Session, mid: &str, meta: &TrackMeta) -> Option<Outgoing> {
    let sending = session.negotiator.line(mid)?.sending.as_ref()?;
    let mut out = Outgoing {
        ssrc: sending.ssrc,
        rtx_ssrc: sending.rtx_ssrc,
        mid: mid.to_owned(),
        extensions: sending.extensions,
        allow_mixed: sending.allow_mixed,
        outlets: [Outlet::default(); CODECS_PER_TRACK],
        codecs: [None; CODECS_PER_TRACK],
    };
    let opus = |codecs: &[CodecSpec]| codecs.iter().position(|codec| codec.codec == Codec::Opus);
    let publisher_opus = opus(&meta.codecs).map(|at| at as u8);
    let subscriber_opus = sending.codecs.iter().find(|codec| codec.codec == Codec::Opus);
    for (at, codec) in meta.codecs.iter().take(CODECS_PER_TRACK).enumerate() {
        out.codecs[at] = Some(codec.codec);
        let matched = find(&sending.codecs, codec);
        out.outlets[at] = match (codec.codec, matched, subscriber_opus, publisher_opus) {
            (Codec::Red, Some(red), Some(opus), Some(_)) => Outlet {
                pt: red.pt,
                rtx_pt: None,
                present: true,
                red: RedOutlet::Rewrite { to: opus.pt },
            },
            (Codec::Red, _, Some(opus), _) => {
                Outlet { pt: opus.pt, rtx_pt: None, present: true, red: RedOutlet::Unwrap }
            }
            (_, Some(codec), _, _) => {
                Outlet { pt: codec.pt, rtx_pt: codec.rtx_pt, present: true, red: RedOutlet::Plain }
            }
            (_, None, _, _) => Outlet::default(),
        };
    }
    out.outlets.iter().any(|outlet| outlet.present).then_some(out)
}
