//! A track as one shard knows it: published by a session here, or mirrored from another shard.
//!
//! A feed may exist before its track does (somebody asked for it) and outlive it (pulls still
//! name it). Its stage only moves forward until the track is published anew.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::wire::LaneId;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::packet::Batch;
use super::pull::Pull;
use crate::cluster::note::Layers;
use crate::command::{ItemError, MediaKind};
use crate::ids::{AppId, FarShard, SessionId, ShardId};
use crate::media::format::CodecSpec;
use crate::media::receive::clock::SenderClock;
use crate::slots::Key;

pub type FeedKey = Key<Feed>;
pub type PullKey = Key<Pull>;

/// A waiting request, by its serial number.
pub type Waiter = u64;

/// A track's name in the world: its session, and its name within. The application is part of
/// it, so that nobody finds the tracks of another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrackKey {
    pub app: AppId,
    pub session: SessionId,
    pub name: Arc<str>,
}

/// Names are the application's; they stay out of logs.
impl fmt::Debug for TrackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "track of {:?}", self.session)
    }
}

/// What a subscriber must know of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackMeta {
    pub kind: MediaKind,
    /// What the publisher may send, in its order of preference.
    pub codecs: Vec<CodecSpec>,
    /// One per simulcast layer; a single empty one without simulcast.
    pub rids: Vec<String>,
    /// RTCP canonical name of the publisher: equal for all tracks of its session (lip sync).
    pub cname: String,
    /// Media stream id of the publisher, equal for all tracks of its session.
    pub stream_id: String,
}

impl TrackMeta {
    pub fn is_simulcast(&self) -> bool {
        self.rids.len() > 1
    }
}

/// How far a track has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asked for; its publisher has no such track yet.
    Sought,
    /// Published; no packet yet.
    Known,
    /// Packets came.
    Flowing,
    /// Closed by its publisher, or silent too long.
    Ended,
    /// The publisher's session does not exist.
    Gone,
}

impl Stage {
    /// The track is published.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Known | Self::Flowing)
    }
}

/// Where a feed's packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A session of this shard.
    Here,
    /// Another shard; its feed is known once it answered.
    Shard { shard: ShardId, feed: Option<FeedKey> },
    /// A shard of another node; the packets come on this lane of the link with it, once there is
    /// one.
    Node { far: FarShard, lane: Option<LaneId> },
}

impl Origin {
    /// The batches are of this shard's making.
    pub fn makes_batches(self) -> bool {
        !matches!(self, Self::Shard { .. })
    }
}

/// A shard that wants this feed, and what it calls its mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watcher {
    pub shard: ShardId,
    pub mirror: FeedKey,
    /// The layers it wants, of a track of another node. Shards of one node share all there are.
    pub layers: Layers,
}

/// A shard of another node that wants this feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    pub to: FarShard,
    /// What it calls the track.
    pub lane: LaneId,
    /// What it wants of it.
    pub layers: Layers,
    /// Of those, what the path has no room for.
    pub shed: Layers,
    /// When it last said that it wants the track.
    pub heard_at: Instant,
}

#[derive(Debug)]
pub struct Feed {
    pub key: TrackKey,
    pub origin: Origin,
    pub stage: Stage,
    pub meta: Option<Arc<TrackMeta>>,
    pub layers: Vec<Layer>,
    pub history: History,
    pub pulls: Vec<PullKey>,
    pub watchers: Vec<Watcher>,
    pub exports: Vec<Export>,
    /// API requests that wait for this feed.
    pub waiters: Vec<Waiter>,
    /// The packets of this turn, while it lasts.
    pub open: Option<Arc<Batch>>,
    /// The codec of the last packet, by its index in the track's codecs.
    pub codec: Option<u8>,
    /// Pulls whose m-line is being negotiated.
    pub promised: usize,
    /// Why the track's shard would not have it sought.
    pub refused: Option<ItemError>,
    pub published_at: Instant,
    /// A review of the layers of its pulls is queued.
    pub reviewed: bool,
    /// How large its batches are.
    pub batch_bytes: BatchBytes,
    /// Changes with all that other nodes are told of the track; never 0. Of a track of another
    /// node: the version that we know, 0 for none.
    pub version: u32,
    /// Of a track of another node: the layers that were asked for, and those that were wanted when
    /// it was last looked.
    pub asked: Layers,
    pub wanted: Layers,
}

/// The size of a track's batches, lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchBytes(usize);

impl BatchBytes {
    pub fn note(&mut self, bytes: usize) {
        self.0 = (7 * self.0 + bytes) / 8;
    }

    /// What most of them will do with.
    pub fn usual(self) -> usize {
        self.0 + self.0 / 2
    }
}

impl Feed {
    pub fn new(key: TrackKey, origin: Origin, now: Instant) -> Self {
        Self {
            key,
            origin,
            stage: Stage::Sought,
            meta: None,
            layers: Vec::new(),
            history: History::default(),
            pulls: Vec::new(),
            watchers: Vec::new(),
            exports: Vec::new(),
            waiters: Vec::new(),
            open: None,
            codec: None,
            promised: 0,
            refused: None,
            published_at: now,
            reviewed: false,
            batch_bytes: BatchBytes::default(),
            version: u32::from(origin == Origin::Here),
            asked: 0,
            wanted: 0,
        }
    }

    /// The track is published: a new life, whatever came before.
    pub fn publish(&mut self, meta: Arc<TrackMeta>, now: Instant) {
        self.codec = None;
        self.published_at = now;
        self.layers = meta.rids.iter().map(|_| Layer::default()).collect();
        self.meta = Some(meta);
        self.stage = Stage::Known;
    }

    /// The track goes on, on other terms: indexes mean what they meant, and there may be more.
    pub fn change(&mut self, meta: Arc<TrackMeta>) {
        self.layers.resize_with(meta.rids.len(), Layer::default);
        self.meta = Some(meta);
    }

    /// Since when no packet came.
    pub fn silent_from(&self) -> Instant {
        let last = self.layers.iter().filter_map(|layer| layer.seen_at).max();
        last.unwrap_or(self.published_at)
    }

    /// What to tell who seeks a track that cannot be had.
    pub fn gone(&self) -> ItemError {
        let gone = || ItemError::PublisherGone(self.key.session.to_string());
        self.refused.clone().unwrap_or_else(gone)
    }

    /// Nobody here or elsewhere has a use for it.
    pub fn is_unused(&self) -> bool {
        self.pulls.is_empty()
            && self.watchers.is_empty()
            && self.exports.is_empty()
            && self.waiters.is_empty()
            && self.promised == 0
            && !(self.origin == Origin::Here && self.stage.is_alive())
    }

    /// The layer a pull that prefers `rid` is served from: that one while it flows, else the
    /// one that flows with the most bits. `current` is kept while it is not clearly worse:
    /// layers of a still picture have nearly the same rate, and each change costs a keyframe.
    pub fn choose_layer(&self, rid: Option<&str>, current: Option<u8>, now: Instant) -> u8 {
        let rids = self.meta.as_ref().map_or(&[][..], |meta| &meta.rids);
        let flows = |at: usize| self.layers.get(at).is_some_and(|layer| layer.flows(now));
        let preferred = rid.and_then(|rid| rids.iter().position(|r| r == rid));
        if let Some(at) = preferred.filter(|&at| flows(at)) {
            return at as u8;
        }
        let flowing = (0..self.layers.len()).filter(|&at| flows(at));
        let best = flowing.max_by_key(|&at| self.layers[at].rate);
        let current = current.map(usize::from).filter(|&at| flows(at));
        if let (Some(current), Some(best)) = (current, best)
            && self.layers[best].rate * 2 < self.layers[current].rate * 3
        {
            return current as u8;
        }
        best.or(preferred).unwrap_or(0) as u8
    }
}

/// One simulcast layer as it arrives.
#[derive(Debug, Default)]
pub struct Layer {
    pub seen_at: Option<Instant>,
    /// Bytes a second, over the last full window.
    pub rate: u64,
    window: Option<(Instant, u64)>,
    /// The publisher's clock, from its last sender report, and the source it is the clock of.
    pub clock: Option<(u32, SenderClock)>,
    pub keyframe: KeyframeAsk,
    /// Of a track of another node: when that told of the layer, and the bytes a second, if it flows.
    pub told: Option<(Instant, Option<u64>)>,
    /// Source and timestamp of the last keyframe.
    pub picture: Option<(u32, u32)>,
}

/// A layer without a packet for this long does not flow: three frames of a 2 fps screen share.
const FLOWS: Duration = Duration::from_millis(1500);
/// What another node told is believed for so long: it tells each second.
const TOLD: Duration = Duration::from_secs(3);
/// Long enough to average over a group of pictures, short enough to notice a layer that ramps.
const RATE_WINDOW: Duration = Duration::from_secs(1);

impl Layer {
    pub fn flows(&self, now: Instant) -> bool {
        match self.told {
            Some((at, rate)) if now.saturating_duration_since(at) < TOLD => rate.is_some(),
            _ => self.seen_at.is_some_and(|at| now.saturating_duration_since(at) < FLOWS),
        }
    }

    /// Its owner's node says how it flows, which is not seen here unless it is wanted here.
    pub fn told(&mut self, now: Instant, rate: Option<u64>) {
        self.told = Some((now, rate));
        if let Some(rate) = rate {
            self.rate = rate;
        }
    }

    /// Notes `bytes` of payload.
    pub fn seen(&mut self, now: Instant, bytes: usize, keyframe: bool) {
        self.seen_at = Some(now);
        if keyframe {
            self.keyframe.wanted = false;
        }
        let (since, sum) = self.window.get_or_insert((now, 0));
        *sum += bytes as u64;
        let elapsed = now.saturating_duration_since(*since);
        if elapsed >= RATE_WINDOW {
            self.rate = *sum * 1000 / elapsed.as_millis().max(1) as u64;
            self.window = Some((now, 0));
        }
    }
}

/// Requests for a keyframe of one layer: coalesced, throttled, repeated until one comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyframeAsk {
    pub wanted: bool,
    asked_at: Option<Instant>,
}

/// Asking faster than this makes an encoder spend its bitrate on keyframes.
pub const KEYFRAME_INTERVAL: Duration = Duration::from_millis(400);

impl KeyframeAsk {
    /// Somebody needs a keyframe.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether to ask the publisher now; notes that it was asked.
    pub fn ask(&mut self, now: Instant) -> bool {
        let throttled = self.asked_at.is_some_and(|at| now < at + KEYFRAME_INTERVAL);
        if !self.wanted || throttled {
            return false;
        }
        *self = Self { wanted: false, asked_at: Some(now) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn what_is_usual_follows_the_size_of_batches_and_one_keyframe_is_not() {
        let mut bytes = BatchBytes::default();
        (0..50).for_each(|_| bytes.note(10_000));
        assert!((10_000..16_000).contains(&bytes.usual()), "{}", bytes.usual());
        (0..50).for_each(|_| bytes.note(150));
        assert!((150..512).contains(&bytes.usual()), "{}", bytes.usual());
        bytes.note(8_000);
        assert!(bytes.usual() < 2_048, "{}", bytes.usual());
    }

    #[test]
    fn keyframe_requests_are_coalesced_and_repeated() {
        let start = start();
        let mut ask = KeyframeAsk::default();
        assert!(!ask.ask(start), "nobody wants one");
        ask.want();
        assert!(ask.ask(start));
        assert!(!ask.ask(start + KEYFRAME_INTERVAL * 2), "asked once for one wish");
        ask.want();
        assert!(ask.ask(start + KEYFRAME_INTERVAL * 3));
        ask.want();
        assert!(!ask.ask(start + KEYFRAME_INTERVAL * 7 / 2), "throttled");
        assert!(ask.ask(start + KEYFRAME_INTERVAL * 4), "and not forgotten");
    }

    #[test]
    fn the_preferred_layer_is_taken_while_it_flows() {
        let now = start();
        let session = "0".repeat(32).parse().unwrap();
        let key = TrackKey { app: AppId(0), session, name: "cam".into() };
        let mut feed = Feed::new(key, Origin::Here, now);
        feed.publish(
            Arc::new(TrackMeta {
                kind: MediaKind::Video,
                codecs: vec![],
                rids: vec!["f".into(), "h".into(), "q".into()],
                cname: String::new(),
                stream_id: String::new(),
            }),
            now,
        );
        assert_eq!(feed.choose_layer(Some("h"), None, now), 1, "nothing flows yet: hope");
        for (at, bytes) in [(0, 100), (2, 10)] {
            feed.layers[at].seen(now, bytes, false);
            feed.layers[at].seen(now + RATE_WINDOW, bytes, false);
        }
        let later = now + RATE_WINDOW;
        assert_eq!(feed.choose_layer(Some("q"), None, later), 2);
        assert_eq!(feed.choose_layer(Some("h"), None, later), 0, "h does not flow: f does");
        assert_eq!(feed.choose_layer(None, Some(2), later), 0, "ten times better");
        assert_eq!(feed.choose_layer(None, Some(1), later), 0, "h does not flow");
        feed.layers[2].rate = feed.layers[0].rate * 3 / 4;
        assert_eq!(feed.choose_layer(None, Some(2), later), 2, "not worth a keyframe");
    }
}
