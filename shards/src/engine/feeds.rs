//! Tracks: who publishes them, who wants them, here and on other shards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deadlines::Due;
use super::wants::entry_shard;
use super::{Engine, SessionKey};
use crate::command::ItemError;
use crate::limits::SOUGHT_PER_SESSION;
use crate::mail::Mail;
use crate::session::Session;
use crate::slots::Slots;
use crate::switch::feed::{
    Feed, FeedKey, KEYFRAME_INTERVAL, Origin, PullKey, Stage, TrackKey, TrackMeta, Waiter, Watcher,
};
use crate::switch::pull::Pull;

/// How often pulls of a simulcast track look whether their layer still flows.
const REVIEW: Duration = Duration::from_secs(1);

impl Engine {
    /// The feed of a track somebody here wants, made if there is none yet.
    pub(super) fn seek(&mut self, key: &TrackKey, now: Instant) -> Result<FeedKey, ItemError> {
        let owner = key.session.shard();
        let here = owner == self.config.shard;
        let far = key.session.node() != self.config.node;
        let known = match far {
            true => self.nodes.has_other(key.session.node()),
            false => owner.index() < self.config.shards,
        };
        // What is pulled of a node that is not heard of may come back; nothing begins with it.
        if !known {
            return Err(ItemError::PublisherGone(key.session.to_string()));
        }
        if let Some(&feed) = self.registry.get(key) {
            return Ok(feed);
        }
        if far {
            return self.seek_far(key, now);
        }
        let mut feed = Feed::new(key.clone(), Origin::Here, now);
        if here {
            if self.find_session(key.app, key.session).is_none() {
                return Err(ItemError::PublisherGone(key.session.to_string()));
            }
            if self.sought(key) >= SOUGHT_PER_SESSION {
                return Err(ItemError::Limit("tracks sought from one session".into()));
            }
        } else {
            feed.origin = Origin::Shard { shard: owner, feed: None };
        }
        let made = self
            .feeds
            .insert_with(|_| feed)
            .ok_or_else(|| ItemError::Limit("tracks on this node".into()))?;
        self.registry.insert(key.clone(), made);
        if here {
            if let Some(session) = self.find_session(key.app, key.session)
                && let Some(session) = self.sessions.get_mut(session)
            {
                session.sought.push(made);
            }
        } else {
            self.post(owner, Mail::Want { key: key.clone(), mirror: made });
        }
        Ok(made)
    }

    /// The feed of a track of another node, got over this shard's link or another's.
    fn seek_far(&mut self, key: &TrackKey, now: Instant) -> Result<FeedKey, ItemError> {
        let entry = entry_shard(key, self.config.shards);
        let far = key.session.far_shard();
        let origin = match entry == self.config.shard {
            true => Origin::Node { far, lane: None },
            false => Origin::Shard { shard: entry, feed: None },
        };
        let made = self
            .feeds
            .insert_with(|_| Feed::new(key.clone(), origin, now))
            .ok_or_else(|| ItemError::Limit("tracks on this node".into()))?;
        self.registry.insert(key.clone(), made);
        match origin {
            Origin::Node { far, .. } => self.begin_mirror(made, far, now),
            _ => self.post(entry, Mail::Want { key: key.clone(), mirror: made }),
        }
        Ok(made)
    }

    fn sought(&self, key: &TrackKey) -> usize {
        let session = self.find_session(key.app, key.session);
        session.and_then(|key| self.sessions.get(key)).map_or(0, |session| session.sought.len())
    }

    /// Publishes a track of a session of this shard.
    pub(super) fn publish_feed(
        &mut self,
        key: &TrackKey,
        meta: TrackMeta,
        now: Instant,
    ) -> Option<FeedKey> {
        let feed_key = match self.registry.get(key) {
            Some(&feed) => feed,
            None => {
                let feed = Feed::new(key.clone(), Origin::Here, now);
                let made = self.feeds.insert_with(|_| feed)?;
                self.registry.insert(key.clone(), made);
                made
            }
        };
        let meta = Arc::new(meta);
        self.publish_mirror(feed_key, meta, now);
        if let Some(session) = self.find_session(key.app, key.session)
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.sought.retain(|&sought| sought != feed_key);
        }
        self.meters.tracks_published += 1;
        Some(feed_key)
    }

    /// The track of a feed is there, and all that watch it learn that.
    pub(super) fn publish_mirror(&mut self, key: FeedKey, meta: Arc<TrackMeta>, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        feed.publish(meta.clone(), now);
        for watcher in feed.watchers.clone() {
            let mirror = watcher.mirror;
            self.post(watcher.shard, Mail::Published { mirror, meta: meta.clone(), flowing: None });
        }
        self.stage_changed(key);
        self.tell_exports(key, now);
    }

    /// A live track may be sent in other codecs or layers from now on; those it had keep their
    /// indexes.
    pub(super) fn change_feed(&mut self, key: FeedKey, meta: Arc<TrackMeta>, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        feed.change(meta.clone());
        let (pulls, watchers) = (feed.pulls.clone(), feed.watchers.clone());
        for Watcher { shard, mirror, .. } in watchers {
            self.post(shard, Mail::Changed { mirror, meta: meta.clone() });
        }
        self.tell_exports(key, now);
        for pull in pulls {
            self.renegotiated(pull);
            self.choose_layer(pull, now);
        }
        self.schedule_review(key, now);
    }

    /// The track of a feed ended; with `gone`, its session too.
    pub(super) fn end_feed(&mut self, key: FeedKey, gone: bool, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        feed.stage = if gone { Stage::Gone } else { Stage::Ended };
        feed.open = None;
        if let Origin::Node { far, lane } = feed.origin {
            feed.origin = Origin::Node { far, lane: None };
            self.end_mirror(key, far, lane, false);
        }
        self.end_exports(key, now);
        let Some(feed) = self.feeds.get_mut(key) else { return };
        for watcher in std::mem::take(&mut feed.watchers) {
            self.post(watcher.shard, Mail::Ended { mirror: watcher.mirror, gone });
        }
        if let Some(feed) = self.feeds.get_mut(key) {
            // The name is free for another track; pulls of this one keep what is left of it.
            self.registry.remove(&feed.key.clone());
            let pool = &mut self.pool;
            let ours = feed.origin.makes_batches();
            feed.history.clear(|batch| {
                if ours {
                    pool.give(batch);
                }
            });
        }
        self.stage_changed(key);
        self.release_feed(key);
    }

    /// Closes a track that a session of this shard publishes.
    pub(super) fn unpublish(&mut self, session: SessionKey, feed: FeedKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(session) {
            for published in session.published.iter_mut().filter(|p| p.feed == Some(feed)) {
                published.feed = None;
                session.ingress.unbind(&published.mid);
            }
        }
        self.end_feed(feed, false, now);
    }

    /// The session that others sought tracks from is no more.
    pub(super) fn abandon_sought(&mut self, sought: Vec<FeedKey>, now: Instant) {
        for feed in sought {
            self.end_feed(feed, true, now);
        }
    }

    /// Wakes the requests that wait for this feed.
    pub(super) fn stage_changed(&mut self, key: FeedKey) {
        if let Some(feed) = self.feeds.get(key) {
            self.woken.extend_from_slice(&feed.waiters);
        }
    }

    pub(super) fn stop_waiting(&mut self, key: FeedKey, waiter: Waiter) {
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.waiters.retain(|&other| other != waiter);
        }
        self.release_feed(key);
    }

    /// Forgets a feed that nobody has a use for.
    pub(super) fn release_feed(&mut self, key: FeedKey) {
        if !self.feeds.get(key).is_some_and(Feed::is_unused) {
            return;
        }
        let Some(mut feed) = self.feeds.remove(key) else { return };
        if self.registry.get(&feed.key) == Some(&key) {
            self.registry.remove(&feed.key);
        }
        match feed.origin {
            Origin::Here => {
                let pool = &mut self.pool;
                feed.history.clear(|batch| pool.give(batch));
                if let Some(session) = self.find_session(feed.key.app, feed.key.session)
                    && let Some(session) = self.sessions.get_mut(session)
                {
                    session.sought.retain(|&sought| sought != key);
                }
            }
            Origin::Node { far, lane } => {
                let pool = &mut self.pool;
                feed.history.clear(|batch| pool.give(batch));
                self.end_mirror(key, far, lane, true);
            }
            // An ended track has forgotten who watched it.
            Origin::Shard { .. } if matches!(feed.stage, Stage::Ended | Stage::Gone) => {}
            Origin::Shard { shard, feed: Some(theirs) } => {
                self.post(shard, Mail::Unwant { feed: theirs, mirror: key });
            }
            // Its owner answers our Want with Found, finds no mirror, and is told then.
            Origin::Shard { feed: None, .. } => {}
        }
    }

    /// A pull whose m-line was being negotiated will not come.
    pub(super) fn break_promise(&mut self, key: FeedKey) {
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.promised -= 1;
        }
        self.release_feed(key);
    }

    pub(super) fn remove_pull(&mut self, key: PullKey) {
        let Some(pull) = self.pulls.remove(key) else { return };
        if let Some(feed) = self.feeds.get_mut(pull.feed) {
            feed.pulls.retain(|&other| other != key);
        }
        if let Some(session) = self.sessions.get_mut(pull.session) {
            session.egress.retire(pull.out.ssrc, pull.numbering());
        }
        self.release_feed(pull.feed);
    }

    /// A shard wants this feed too.
    pub(super) fn watch(&mut self, key: FeedKey, watcher: Watcher, now: Instant) {
        let is_far = self.is_far(key);
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let rates = is_far.then(|| {
            let rates = feed.layers.iter().map(|layer| layer.flows(now).then_some(layer.rate));
            rates.collect::<Arc<[_]>>()
        });
        feed.watchers.push(watcher);
        let published = feed.stage.is_alive().then(|| feed.meta.clone()).flatten();
        let flowing = feed.codec.filter(|_| feed.stage == Stage::Flowing);
        let clocks: Vec<_> = feed.layers.iter().map(|layer| layer.clock.clone()).collect();
        let mirror = watcher.mirror;
        self.post(watcher.shard, Mail::Found { mirror, feed: key });
        if let Some(meta) = published {
            self.post(watcher.shard, Mail::Published { mirror, meta, flowing });
        }
        if let Some(rates) = rates {
            self.post(watcher.shard, Mail::Flows { mirror, codec: flowing, rates });
        }
        for (layer, clock) in clocks.into_iter().enumerate() {
            if let Some((source, clock)) = clock {
                let layer = layer as u8;
                self.post(watcher.shard, Mail::Clock { mirror, layer, source, clock });
            }
        }
    }

    /// A subscriber needs a keyframe of this layer.
    pub(super) fn want_keyframe(&mut self, key: FeedKey, layer: u8, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        if let Some(layer) = feed.layers.get_mut(usize::from(layer)) {
            layer.keyframe.want();
            self.ask_for_keyframes(key, now);
        }
    }

    /// The throttle of a feed's keyframe requests is over: asks again for what is still
    /// missing. Other shards ask for theirs by themselves.
    pub(super) fn keyframes_due(&mut self, key: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        for pull in feed.pulls.iter().filter_map(|pull| self.pulls.get(*pull)) {
            if is_starving(&self.sessions, pull)
                && let Some(layer) = feed.layers.get_mut(usize::from(pull.layer))
            {
                layer.keyframe.want();
            }
        }
        self.ask_for_keyframes(key, now);
    }

    /// Asks the publisher for the keyframes that are wanted and may be asked for now.
    fn ask_for_keyframes(&mut self, key: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        if !feed.stage.is_alive() {
            return;
        }
        let layers = feed.layers.iter_mut().enumerate();
        let asks: Vec<u8> =
            layers.filter_map(|(at, l)| l.keyframe.ask(now).then_some(at as u8)).collect();
        if asks.is_empty() {
            return;
        }
        let (origin, track) = (feed.origin, feed.key.clone());
        self.deadlines.push(now + KEYFRAME_INTERVAL, Due::Keyframe(key));
        for layer in asks {
            match origin {
                Origin::Here => {
                    if let Some(session) = self.find_session(track.app, track.session) {
                        self.send_keyframe_request(session, key, layer);
                    }
                }
                Origin::Shard { shard, feed: Some(feed) } => {
                    self.post(shard, Mail::Keyframe { feed, layer });
                }
                Origin::Node { far, lane: Some(lane) } => {
                    self.ask_far_for_keyframe(far, lane, layer);
                }
                Origin::Shard { feed: None, .. } | Origin::Node { lane: None, .. } => {}
            }
        }
    }

    /// Chooses the layer of every pull of a simulcast track anew.
    pub(super) fn review_layers(&mut self, key: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        feed.reviewed = false;
        for pull in feed.pulls.clone() {
            self.choose_layer(pull, now);
        }
        self.review_asked(key);
        self.schedule_review(key, now);
    }

    pub(super) fn schedule_review(&mut self, key: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let simulcast = feed.meta.as_ref().is_some_and(|meta| meta.is_simulcast());
        if simulcast && !feed.pulls.is_empty() && !std::mem::replace(&mut feed.reviewed, true) {
            self.deadlines.push(now + REVIEW, Due::Layers(key));
        }
    }

    /// Points a pull at the layer it should have now, and asks for the keyframe to begin with.
    pub(super) fn choose_layer(&mut self, key: PullKey, now: Instant) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        let Some(feed) = self.feeds.get(pull.feed) else { return };
        let rid = pull.simulcast.as_ref().and_then(|s| s.preferred_rid.as_deref());
        let rid = rid.filter(|rid| !rid.is_empty());
        pull.layer = feed.choose_layer(rid, pull.forwarded_layer(), now);
        let (feed, layer) = (pull.feed, pull.layer);
        self.ask_for_layer(feed, layer);
        let Some(pull) = self.pulls.get(key) else { return };
        if is_starving(&self.sessions, pull) {
            self.want_keyframe(feed, layer, now);
        }
    }
}

/// A subscriber that could be sent to waits for a keyframe. What the others wait for is their
/// own connection; a publisher must not be made to spend its bitrate on them.
fn is_starving(sessions: &Slots<Session>, pull: &Pull) -> bool {
    pull.needs_keyframe() && sessions.get(pull.session).is_some_and(|s| s.egress.open().is_some())
}
