//! Tracks of other nodes that are wanted here: one shard of the node, the same for all that want the
//! track, gets it over its link, and hands it on to the others as if it were its own.
//!
//! Wants are soft state: said again each second, and after a connection was lost said anew, so that
//! what was wanted before a fault flows after it.
//!
//! Invariants: a track comes over one link of the node at most. A layer is asked for as soon as
//! somebody wants it, and let go one to two seconds after nobody does.
//!
//! Not here: links and letters (`links`), and what the other side does (`exports`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::wire::{Clock, LaneId, Media};

use super::Engine;
use super::links::Queued;
use crate::cluster::HUB_SHARD;
use crate::cluster::note::{Layers, Note, Notes, TrackState, Want};
use crate::ids::{FarShard, NodeId, ShardId};
use crate::limits::{BATCH_PACKETS, CARRIED_LEN, DATAGRAM_LEN, TRACK_LIFETIME};
use crate::mail::Mail;
use crate::media::format::Extension;
use crate::media::receive::clock::SenderClock;
use crate::switch::feed::{Feed, FeedKey, Origin, Stage, TrackKey};
use crate::switch::packet::{PacketHead, elements};

/// A node that membership does not know any more for so long has gone, and its tracks with it: as
/// long as a track may be silent. A node that left says before that its tracks have ended.
const LOST_MAX: Duration = TRACK_LIFETIME;

/// Bytes of header extensions of one packet, with their heads.
const EXTENSIONS_LEN: usize = CARRIED_LEN + 2 * Extension::COUNT;

/// The shard of a node of `shards` that gets a track of another node.
pub(super) fn entry_shard(key: &TrackKey, shards: usize) -> ShardId {
    let mut hasher = DefaultHasher::new();
    (key.session, &key.name).hash(&mut hasher);
    ShardId((hasher.finish() % shards.max(1) as u64) as u8)
}

impl Engine {
    /// A track of another node is wanted here from now on.
    pub(super) fn begin_mirror(&mut self, key: FeedKey, far: FarShard, now: Instant) {
        let peer = self.links.peers.entry(far).or_default();
        if peer.mirrors.is_empty() {
            self.post(HUB_SHARD, Mail::LinkWanted { far, wanted: true });
        }
        if let Some(peer) = self.links.peers.get_mut(&far) {
            peer.mirrors.insert(key);
        }
        self.open_lane(key, far);
        self.begin_ticks(far, now);
    }

    /// And no longer. With `tell`, its node learns that at once.
    pub(super) fn end_mirror(
        &mut self,
        key: FeedKey,
        far: FarShard,
        lane: Option<LaneId>,
        tell: bool,
    ) {
        if let Some(lane) = lane {
            if tell {
                self.links.tell(far, Note::Unwant { lane: lane.get() });
            }
            if let Some(up) = self.links.up(far) {
                up.link.close_lane(lane);
                up.lanes.remove(&lane);
            }
        }
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        let had = peer.mirrors.remove(&key);
        let none = peer.mirrors.is_empty();
        if none && peer.up.is_none() {
            self.links.peers.remove(&far);
        }
        if had && none {
            self.post(HUB_SHARD, Mail::LinkWanted { far, wanted: false });
        }
    }

    /// Asks for a track on a lane of the link, if there is one.
    fn open_lane(&mut self, key: FeedKey, far: FarShard) {
        let Some(up) = self.links.up(far) else { return };
        let Some(feed) = self.feeds.get_mut(key) else { return };
        // Without a lane it is tried again with the next tick.
        let Some(lane) = up.link.open_lane() else { return };
        up.lanes.insert(lane, key);
        feed.origin = Origin::Node { far, lane: Some(lane) };
        feed.version = 0;
        self.tell_want(key);
    }

    /// There is a link: asks for all that is wanted.
    pub(super) fn want_all(&mut self, far: FarShard, now: Instant) {
        let Some(peer) = self.links.peers.get(&far) else { return };
        for key in peer.mirrors.clone() {
            self.open_lane(key, far);
            self.keyframes_due(key, now);
        }
        self.begin_ticks(far, now);
    }

    /// The lanes of these tracks are no more, with their link.
    pub(super) fn lanes_lost(&mut self, feeds: impl Iterator<Item = FeedKey>) {
        for key in feeds {
            if let Some(feed) = self.feeds.get_mut(key)
                && let Origin::Node { lane, .. } = &mut feed.origin
            {
                *lane = None;
            }
        }
    }

    fn tell_want(&mut self, key: FeedKey) {
        let Some(feed) = self.feeds.get(key) else { return };
        let Origin::Node { far, lane: Some(lane) } = feed.origin else { return };
        let TrackKey { app, session, ref name } = feed.key;
        let Some(app) = self.links.app_name(app).map(str::to_owned) else { return };
        let (lane, known, layers) = (lane.get(), feed.version, feed.asked);
        let want = Want { lane, known, layers, app, session, name: name.as_ref().into() };
        self.links.tell(far, Note::Want(want));
    }

    /// Asks for a layer that nobody here has wanted yet, of a track of another node.
    pub(super) fn ask_for_layer(&mut self, key: FeedKey, layer: u8) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let bit: Layers = 1 << (layer & 0xf);
        if feed.asked & bit != 0 {
            return;
        }
        self.ask_for(key, bit);
    }

    fn ask_for(&mut self, key: FeedKey, layers: Layers) {
        let is_far = self.is_far(key);
        let Some(feed) = self.feeds.get_mut(key) else { return };
        match feed.origin {
            Origin::Node { .. } => {
                feed.asked |= layers;
                feed.wanted |= layers;
                self.tell_want(key);
            }
            Origin::Shard { shard, feed: Some(theirs) } if is_far => {
                self.tell_layers(key, shard, theirs, layers);
            }
            // It is told once the entry shard has answered.
            Origin::Shard { .. } | Origin::Here => {}
        }
    }

    fn tell_layers(&mut self, mirror: FeedKey, shard: ShardId, theirs: FeedKey, more: Layers) {
        let Some(feed) = self.feeds.get_mut(mirror) else { return };
        feed.asked |= more;
        let layers = feed.asked;
        self.post(shard, Mail::Layers { feed: theirs, mirror, layers });
    }

    pub(super) fn is_far(&self, key: FeedKey) -> bool {
        self.feeds.get(key).is_some_and(|feed| feed.key.session.node() != self.config.node)
    }

    /// Another shard of this node wants these layers.
    pub(super) fn layers_wanted(
        &mut self,
        from: ShardId,
        key: FeedKey,
        mirror: FeedKey,
        layers: Layers,
    ) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let watcher = |w: &&mut crate::switch::feed::Watcher| (w.shard, w.mirror) == (from, mirror);
        let Some(watcher) = feed.watchers.iter_mut().find(watcher) else { return };
        watcher.layers = layers;
        if layers & !feed.asked != 0 {
            self.ask_for(key, layers);
        }
    }

    /// The entry shard answered: tells it what is wanted. Later, what is not any more.
    pub(super) fn review_asked(&mut self, key: FeedKey) {
        let Some(feed) = self.feeds.get(key) else { return };
        let Origin::Shard { shard, feed: Some(theirs) } = feed.origin else { return };
        if !self.is_far(key) {
            return;
        }
        let wanted = self.layers_of(feed);
        if wanted != feed.asked
            && let Some(feed) = self.feeds.get_mut(key)
        {
            feed.asked = wanted;
            self.tell_layers(key, shard, theirs, 0);
        }
    }

    /// The layers that somebody here wants.
    fn layers_of(&self, feed: &Feed) -> Layers {
        let pulls = feed.pulls.iter().filter_map(|pull| self.pulls.get(*pull));
        let of_pulls = pulls.flat_map(|pull| [Some(pull.layer), pull.forwarded_layer()]);
        let of_pulls = of_pulls.flatten().fold(0, |all, layer| all | 1 << (layer & 0xf));
        feed.watchers.iter().fold(of_pulls, |all, watcher| all | watcher.layers)
    }

    /// Says again what is wanted of a peer; gives it up if its node has gone.
    pub(super) fn refresh_wants(&mut self, far: FarShard, now: Instant) {
        let known = self.nodes.has_other(far.node);
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        if known {
            peer.lost_at = None;
        }
        let lost_at = (!known).then(|| *peer.lost_at.get_or_insert(now));
        let gone = lost_at.is_some_and(|at| now.saturating_duration_since(at) >= LOST_MAX);
        for key in peer.mirrors.clone() {
            if gone {
                self.end_feed(key, true, now);
                continue;
            }
            let Some(feed) = self.feeds.get(key) else { continue };
            let wanted = self.layers_of(feed);
            let Some(feed) = self.feeds.get_mut(key) else { continue };
            feed.asked = wanted | feed.wanted;
            feed.wanted = wanted;
            match feed.origin {
                Origin::Node { lane: None, .. } => self.open_lane(key, far),
                _ => self.tell_want(key),
            }
        }
    }

    /// A letter of a shard of another node.
    pub(super) fn letter_arrived(&mut self, node: NodeId, letter: &[u8], now: Instant) {
        let Ok(Notes { from, notes, .. }) = Notes::read(letter) else {
            self.meters.faults.malformed_letters += 1;
            return;
        };
        let far = FarShard { node, shard: from };
        for note in notes {
            match note {
                Note::Want(want) => self.far_wants(far, want, now),
                Note::Unwant { lane } => self.far_unwants(far, lane),
                Note::Track { lane, version, state } => {
                    let lane = LaneId::new(lane);
                    let up = self.links.up(far);
                    let feed = lane.and_then(|lane| up?.lanes.get(&lane).copied());
                    if let Some(feed) = feed {
                        self.track_told(feed, version, state, now);
                    }
                }
            }
        }
    }

    /// The owner of a track told how things stand with it.
    fn track_told(&mut self, key: FeedKey, version: u32, state: TrackState, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        feed.version = version;
        match state {
            TrackState::Sought => {}
            TrackState::Live { meta, codec, rates } => {
                let alive = feed.stage.is_alive();
                let same = feed.meta.as_deref() == Some(&meta);
                match (alive, same) {
                    (true, true) => {}
                    (true, false) => self.change_feed(key, Arc::new(meta), now),
                    (false, _) => self.publish_mirror(key, Arc::new(meta), now),
                }
                self.flows_told(key, codec, &rates.into(), now);
            }
            TrackState::Ended { gone } => self.end_feed(key, gone, now),
            TrackState::Refused(error) => {
                feed.refused = Some(error);
                self.end_feed(key, true, now);
            }
        }
    }

    /// How a track of another node flows.
    pub(super) fn flows_told(
        &mut self,
        key: FeedKey,
        codec: Option<u8>,
        rates: &Arc<[Option<u64>]>,
        now: Instant,
    ) {
        let Some(feed) = self.feeds.get_mut(key).filter(|feed| feed.stage.is_alive()) else {
            return;
        };
        if feed.meta.as_ref().is_some_and(|meta| meta.is_simulcast()) {
            for (layer, rate) in feed.layers.iter_mut().zip(rates.iter()) {
                layer.told(now, *rate);
            }
        }
        let begins = feed.stage == Stage::Known && codec.is_some();
        if begins {
            (feed.stage, feed.codec) = (Stage::Flowing, codec);
        }
        for watcher in feed.watchers.clone() {
            let (mirror, rates) = (watcher.mirror, Arc::clone(rates));
            self.post(watcher.shard, Mail::Flows { mirror, codec, rates });
        }
        if begins {
            self.stage_changed(key);
        }
    }

    /// Appends a packet that came over a link to its track's batch of this turn.
    pub(super) fn append_far(&mut self, key: FeedKey, media: &Media<'_>, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let codecs = feed.meta.as_ref().map_or(0, |meta| meta.codecs.len());
        let fits = media.payload.len() <= DATAGRAM_LEN && media.extensions.len() <= EXTENSIONS_LEN;
        let known = usize::from(media.codec) < codecs && feed.stage.is_alive();
        let layer = feed.layers.get_mut(usize::from(media.layer)).filter(|_| known && fits);
        let Some(layer) = layer else {
            // It overtook the letter that tells of its layer, or is none that was sent.
            self.meters.faults.early += 1;
            return;
        };
        self.meters.packets_relayed_in += 1;
        layer.seen(now, media.payload.len(), media.keyframe);
        feed.codec = Some(media.codec);
        if let Some(full) = feed.open.take_if(|open| open.packets().len() >= BATCH_PACKETS) {
            self.share(key, full, now);
        }
        let Some(feed) = self.feeds.get_mut(key) else { return };
        if feed.open.is_none() {
            self.touched.push((key, None));
        }
        let usual = feed.batch_bytes.usual();
        let batch = feed.open.get_or_insert_with(|| self.pool.take(usual));
        let Media { layer, codec, marker, keyframe, source, seq, timestamp, .. } = *media;
        let head = PacketHead { layer, codec, marker, keyframe, source, seq, timestamp };
        if let Some(batch) = Arc::get_mut(batch) {
            let carried = elements(media.extensions).filter(|(e, _)| e.is_carried());
            batch.push(head, media.payload, carried);
        }
        if feed.stage == Stage::Known {
            feed.stage = Stage::Flowing;
            self.stage_changed(key);
        }
    }

    /// The publisher's clock of one layer came over a link.
    pub(super) fn clock_told(&mut self, key: FeedKey, clock: &Clock<Instant>) {
        let Clock { layer, source, ntp, rtp, clock_rate, arrival, .. } = *clock;
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let Some(known) = feed.layers.get_mut(usize::from(layer)) else { return };
        let clock = SenderClock::at(clock_rate, ntp, rtp, arrival);
        known.clock = Some((source, clock.clone()));
        for watcher in feed.watchers.clone() {
            let (mirror, clock) = (watcher.mirror, clock.clone());
            self.post(watcher.shard, Mail::Clock { mirror, layer, source, clock });
        }
    }

    /// Asks for a keyframe of a track of another node.
    pub(super) fn ask_far_for_keyframe(&mut self, far: FarShard, lane: LaneId, layer: u8) {
        self.links.queue(far, Queued::Keyframe { lane, layer });
    }
}
