//! Mail from other shards.

use std::time::Instant;

use super::Engine;
use crate::ids::ShardId;
use crate::mail::Mail;
use crate::switch::feed::{FeedKey, Origin, Stage, TrackKey, Watcher};

impl Engine {
    /// Takes one message from another shard. Strays are handed to [`Engine::handle_datagram`]
    /// by the caller's choice of buffers; here they are copied once.
    pub fn handle_mail(&mut self, from: ShardId, mail: Mail, now: Instant) {
        match mail {
            Mail::Command { ticket, command } => self.handle_command(ticket, *command, now),
            Mail::Answer { ticket, answer } => self.answers.push((ticket, *answer)),
            Mail::Want { key, mirror } => self.wanted(from, &key, mirror, now),
            Mail::Unwant { feed, mirror } => self.unwanted(from, feed, mirror),
            Mail::Found { mirror, feed } => self.found(from, mirror, feed, now),
            Mail::Published { mirror, meta, flowing } => {
                if let Some(feed) = self.feeds.get_mut(mirror) {
                    feed.publish(meta, now);
                    feed.codec = flowing;
                    if flowing.is_some() {
                        feed.stage = Stage::Flowing;
                    }
                    self.stage_changed(mirror);
                }
            }
            Mail::Changed { mirror, meta } => self.change_feed(mirror, meta, now),
            Mail::Flows { mirror, codec, rates } => self.flows_told(mirror, codec, &rates, now),
            Mail::Layers { feed, mirror, layers } => self.layers_wanted(from, feed, mirror, layers),
            Mail::Linked(linked) => self.linked(*linked, now),
            Mail::Unlinked { node } => self.unlinked(node),
            Mail::Mtu { node, mtu } => self.mtu_found(node, mtu),
            Mail::FromNode { node, letter } => self.letter_arrived(node, &letter, now),
            Mail::LinkStray { mut bytes } => self.take_link_stray(&mut bytes, now),
            Mail::Refused { mirror, error } => {
                if let Some(feed) = self.feeds.get_mut(mirror) {
                    feed.refused = Some(error);
                }
                self.end_feed(mirror, true, now);
            }
            Mail::Ended { mirror, gone } => self.end_feed(mirror, gone, now),
            Mail::Media { mirror, batch } => self.batch_arrived(mirror, batch, now),
            Mail::Clock { mirror, layer, source, clock } => {
                let feed = self.feeds.get_mut(mirror);
                if let Some(layer) = feed.and_then(|f| f.layers.get_mut(usize::from(layer))) {
                    layer.clock = Some((source, clock));
                }
            }
            Mail::Keyframe { feed, layer } => self.want_keyframe(feed, layer, now),
            Mail::Stray { source, local, mut bytes } => {
                self.meters.strays_received += 1;
                self.take_datagram(source, local, &mut bytes, true, now);
            }
            Mail::Route { source } => self.route(source, from, now),
            Mail::Claim { source } => self.claimed(source, from, now),
            Mail::Nodes(nodes) => {
                self.config.node = nodes.own;
                self.nodes = nodes;
            }
            // The loop's own.
            Mail::Survey { .. }
            | Mail::Surveyed { .. }
            | Mail::Call { .. }
            | Mail::LinkWanted { .. }
            | Mail::ToNode { .. }
            | Mail::LinkSilent { .. }
            | Mail::ForHub { .. } => {}
            Mail::Unroute { source } => {
                if self.routes.get(&source) == Some(&from) {
                    self.routes.remove(&source);
                }
            }
        }
        self.resume_woken(now);
    }

    fn wanted(&mut self, from: ShardId, key: &TrackKey, mirror: FeedKey, now: Instant) {
        match self.seek(key, now) {
            Ok(feed) => self.watch(feed, Watcher { shard: from, mirror, layers: 0 }, now),
            Err(error) => self.post(from, Mail::Refused { mirror, error }),
        }
    }

    fn unwanted(&mut self, from: ShardId, feed: FeedKey, mirror: FeedKey) {
        if let Some(feed) = self.feeds.get_mut(feed) {
            feed.watchers.retain(|watcher| (watcher.shard, watcher.mirror) != (from, mirror));
        }
        self.release_feed(feed);
    }

    fn found(&mut self, from: ShardId, mirror: FeedKey, theirs: FeedKey, now: Instant) {
        let Some(feed) = self.feeds.get_mut(mirror) else {
            // Given up before the answer came.
            self.post(from, Mail::Unwant { feed: theirs, mirror });
            return;
        };
        feed.origin = Origin::Shard { shard: from, feed: Some(theirs) };
        let flowing = feed.stage == Stage::Flowing;
        self.review_asked(mirror);
        if flowing {
            self.keyframes_due(mirror, now);
        }
    }
}
