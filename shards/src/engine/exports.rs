//! Tracks of this shard that shards of other nodes want: who wants which layers, what they are told,
//! and what goes over their links.
//!
//! Invariants: a shard of another node gets a track once, whatever the number of its viewers; a want
//! that is not repeated ends after [`UNREPEATED`]; what is told is the whole state of the track.
//!
//! Not here: links and letters (`links`).

use std::time::{Duration, Instant};

use relay::link::{Class, Standing};
use relay::wire::{Clock, LaneId, Media};

use super::Engine;
use super::links::Queued;
use crate::cluster::note::{Layers, Note, TrackState, Want};
use crate::command::{ItemError, MediaKind};
use crate::ids::FarShard;
use crate::media::receive::clock::SenderClock;
use crate::switch::feed::{Export, Feed, FeedKey, Origin, Stage, TrackKey};
use crate::switch::packet::{Batch, Packet};

/// A want that was not repeated for so long has ended: five repetitions.
const UNREPEATED: Duration = Duration::from_secs(5);

impl Engine {
    /// A shard of another node wants a track of ours, perhaps again.
    pub(super) fn far_wants(&mut self, far: FarShard, want: Want, now: Instant) {
        let Some(lane) = LaneId::new(want.lane) else { return };
        let Want { known, layers, app, session, name, .. } = want;
        let Some(up) = self.links.up(far) else { return };
        let held = up.exports.get(&lane).copied();
        let app = self.links.app_named(&app);
        let key = app.map(|app| TrackKey { app, session, name: name.into() });
        let same = held.filter(|feed| self.feeds.get(*feed).map(|feed| &feed.key) == key.as_ref());
        let feed = match (same, key) {
            (Some(feed), _) => feed,
            (None, key) => {
                // The lane carried another track before: the letter that ended it was lost.
                if let Some(other) = held {
                    self.end_export(other, far, lane);
                }
                match self.begin_export(key.as_ref(), session, far, lane, now) {
                    Ok(feed) => feed,
                    Err(error) => {
                        let state = TrackState::Refused(error);
                        let note = Note::Track { lane: want.lane, version: 1, state };
                        return self.links.tell(far, note);
                    }
                }
            }
        };
        self.update_export(feed, far, lane, (known, layers), now);
    }

    fn begin_export(
        &mut self,
        key: Option<&TrackKey>,
        session: crate::ids::SessionId,
        far: FarShard,
        lane: LaneId,
        now: Instant,
    ) -> Result<FeedKey, ItemError> {
        let gone = || ItemError::PublisherGone(session.to_string());
        // Only what is published here: a node that was renumbered is not asked to pass it on.
        let ours = session.node() == self.config.node && session.shard() == self.config.shard;
        let key = key.filter(|_| ours).ok_or_else(gone)?;
        let feed = self.seek(key, now)?;
        let exports = &mut self.feeds.get_mut(feed).ok_or_else(gone)?.exports;
        exports.push(Export { to: far, lane, layers: 0, shed: 0, heard_at: now });
        if let Some(up) = self.links.up(far) {
            up.exports.insert(lane, feed);
        }
        self.begin_ticks(far, now);
        Ok(feed)
    }

    fn update_export(
        &mut self,
        key: FeedKey,
        far: FarShard,
        lane: LaneId,
        (known, layers): (u32, Layers),
        now: Instant,
    ) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let simulcast = feed.meta.as_ref().is_some_and(|meta| meta.is_simulcast());
        let version = feed.version;
        let clocks: Vec<_> = feed.layers.iter().map(|layer| layer.clock.clone()).collect();
        let is_video = feed.meta.as_ref().is_some_and(|meta| meta.kind == MediaKind::Video);
        let Some(export) = find(feed, far, lane) else { return };
        export.heard_at = now;
        let new = layers & !export.layers;
        export.layers = layers;
        // How layers flow changes all the time.
        if known != version || simulcast {
            let note =
                Note::Track { lane: lane.get(), version, state: state(feed, far, lane, now) };
            self.links.tell(far, note);
        }
        let news = (0..clocks.len()).filter(|layer| new >> layer & 1 == 1);
        for layer in news {
            if let Some((source, clock)) = &clocks[layer] {
                self.tell_clock(far, lane, layer as u8, *source, clock);
            }
            if is_video {
                // Who begins to watch needs one.
                self.want_keyframe(key, layer as u8, now);
            }
        }
    }

    fn tell_clock(
        &mut self,
        far: FarShard,
        lane: LaneId,
        layer: u8,
        source: u32,
        clock: &SenderClock,
    ) {
        let Some((clock_rate, ntp, rtp, arrival)) = clock.last_report() else { return };
        let clock = Clock { lane, layer, source, ntp, rtp, clock_rate, arrival };
        self.links.queue(far, Queued::Clock(clock));
    }

    /// A shard of another node does not want the track on this lane any more.
    pub(super) fn far_unwants(&mut self, far: FarShard, lane: u32) {
        let Some(lane) = LaneId::new(lane) else { return };
        if let Some(feed) = self.links.up(far).and_then(|up| up.exports.get(&lane).copied()) {
            self.end_export(feed, far, lane);
        }
    }

    fn end_export(&mut self, feed: FeedKey, far: FarShard, lane: LaneId) {
        if let Some(up) = self.links.up(far) {
            up.exports.remove(&lane);
        }
        self.drop_export(feed, far, lane);
    }

    /// Forgets that a track goes over a link that has forgotten it already.
    pub(super) fn drop_export(&mut self, feed: FeedKey, far: FarShard, lane: LaneId) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.exports.retain(|export| (export.to, export.lane) != (far, lane));
        }
        self.release_feed(feed);
    }

    /// Ends wants that were not repeated.
    pub(super) fn expire_exports(&mut self, far: FarShard, now: Instant) {
        let Some(up) = self.links.up(far) else { return };
        let mut held: Vec<_> = up.exports.iter().map(|(lane, feed)| (*lane, *feed)).collect();
        held.sort_unstable();
        for (lane, key) in held {
            let Some(feed) = self.feeds.get_mut(key) else { continue };
            let heard_at = find(feed, far, lane).map(|export| export.heard_at);
            if heard_at.is_none_or(|at| now.saturating_duration_since(at) >= UNREPEATED) {
                self.end_export(key, far, lane);
            }
        }
    }

    /// The track of a feed changed: tells the nodes that want it.
    pub(super) fn tell_exports(&mut self, key: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key).filter(|feed| feed.origin == Origin::Here) else {
            return;
        };
        feed.version = feed.version.wrapping_add(1).max(1);
        let version = feed.version;
        for Export { to, lane, .. } in feed.exports.clone() {
            let Some(feed) = self.feeds.get(key) else { return };
            let note = Note::Track { lane: lane.get(), version, state: state(feed, to, lane, now) };
            self.links.tell(to, note);
        }
    }

    /// The track of a feed ended: nobody wants it any more.
    pub(super) fn end_exports(&mut self, key: FeedKey, now: Instant) {
        self.tell_exports(key, now);
        let Some(feed) = self.feeds.get_mut(key) else { return };
        for Export { to, lane, .. } in std::mem::take(&mut feed.exports) {
            if let Some(up) = self.links.up(to) {
                up.exports.remove(&lane);
            }
        }
    }

    /// The publisher told the time of one layer.
    pub(super) fn export_clock(
        &mut self,
        key: FeedKey,
        layer: u8,
        source: u32,
        clock: &SenderClock,
    ) {
        let Some(feed) = self.feeds.get(key) else { return };
        for Export { to, lane, .. } in feed.exports.clone() {
            self.tell_clock(to, lane, layer, source, clock);
        }
    }
}

fn find(feed: &mut Feed, far: FarShard, lane: LaneId) -> Option<&mut Export> {
    feed.exports.iter_mut().find(|export| (export.to, export.lane) == (far, lane))
}

/// What a node is told of a track that it gets on this lane.
fn state(feed: &Feed, far: FarShard, lane: LaneId, now: Instant) -> TrackState {
    let shed = feed.exports.iter().find(|export| (export.to, export.lane) == (far, lane));
    let shed = shed.map_or(0, |export| export.shed);
    let rate = |at: usize| {
        let layer = feed.layers.get(at).filter(|layer| layer.flows(now) && shed >> at & 1 == 0);
        layer.map(|layer| layer.rate)
    };
    match (feed.stage, &feed.meta) {
        (Stage::Known | Stage::Flowing, Some(meta)) => TrackState::Live {
            meta: (**meta).clone(),
            codec: feed.codec.filter(|_| feed.stage == Stage::Flowing),
            rates: (0..feed.layers.len()).map(rate).collect(),
        },
        (Stage::Ended, _) => TrackState::Ended { gone: false },
        (Stage::Gone, _) => TrackState::Ended { gone: true },
        (Stage::Sought | Stage::Known | Stage::Flowing, _) => TrackState::Sought,
    }
}

/// A packet as it goes over a link.
pub(super) fn media<'a>(lane: LaneId, batch: &'a Batch, packet: &Packet) -> Media<'a> {
    Media {
        lane,
        layer: packet.layer,
        codec: packet.codec,
        marker: packet.marker,
        keyframe: packet.keyframe,
        padding: packet.padding() as u8,
        source: packet.source,
        seq: packet.seq,
        timestamp: packet.timestamp,
        extensions: batch.extension_bytes(packet),
        payload: batch.payload(packet),
    }
}

/// The layers that a lane carries now. Those that the path has no room for are as if the track had
/// fewer.
pub(super) fn admitted(
    feed: &mut Feed,
    far: FarShard,
    lane: LaneId,
    admits: impl Fn(Class, Standing) -> bool,
) -> Layers {
    let class = if is_video(feed) { Class::Video } else { Class::Audio };
    let Some(at) = feed.exports.iter().position(|e| (e.to, e.lane) == (far, lane)) else {
        return 0;
    };
    let wanted = feed.exports[at].layers;
    let refused = (0..feed.layers.len())
        .filter(|layer| wanted >> layer & 1 == 1 && !admits(class, standing(feed, wanted, *layer)));
    let shed = refused.fold(0, |shed: Layers, layer| shed | 1 << layer);
    feed.exports[at].shed = shed;
    wanted & !shed
}

/// The packets of a batch that are of these layers, as they go on a lane.
pub(super) fn packets<'a>(
    feed: &'a Feed,
    lane: LaneId,
    batch: &'a Batch,
    layers: Layers,
) -> impl Iterator<Item = (Media<'a>, Class)> {
    let is_video = is_video(feed);
    let carried = batch.packets().iter().filter(move |p| layers >> p.layer & 1 == 1);
    carried.map(move |packet| {
        let picture = feed.layers.get(usize::from(packet.layer)).and_then(|layer| layer.picture);
        let class = match is_video {
            false => Class::Audio,
            true if picture == Some((packet.source, packet.timestamp)) => Class::Keyframe,
            true => Class::Video,
        };
        (media(lane, batch, packet), class)
    })
}

fn is_video(feed: &Feed) -> bool {
    feed.meta.as_ref().is_some_and(|meta| meta.kind == MediaKind::Video)
}

/// Where a layer stands among those wanted, by what they carry.
fn standing(feed: &Feed, layers: Layers, layer: usize) -> Standing {
    let wanted = |at: &usize| layers >> at & 1 == 1;
    let rate = |at: usize| (feed.layers.get(at).map_or(0, |layer| layer.rate), at);
    let others = (0..feed.layers.len()).filter(wanted).map(rate);
    let (above, below): (Vec<_>, Vec<_>) =
        others.filter(|(_, at)| *at != layer).partition(|other| *other > rate(layer));
    Standing { above: above.len() as u8, below: below.len() as u8 }
}
