//! Links: the ways of this shard to shards of other nodes, and what goes over them.
//!
//! Each is made when a track of that shard is wanted here, or one of ours there, and is unmade with
//! the connection of the two nodes. Tracks that come over it are `wants`' business, those that go
//! over it `exports`'.
//!
//! Invariants: what is queued for a link goes out, or is dropped, in the turn in which it was
//! queued; nothing is kept for a link that is not there. A stranger's datagram costs a look-up.
//!
//! Not here: the protocol (`relay::link`); how links are agreed upon (`cluster`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::link::{Event, Link, Lost, Sink, Stats};
use relay::wire::{Clock, Header, LaneId, LinkId};

use super::deadlines::Due;
use super::{Engine, exports};
use crate::cluster::HUB_SHARD;
use crate::cluster::note::{Note, Notes};
use crate::ids::{AppId, FarShard, NodeId, ShardId};
use crate::mail::{Linked, Mail};
use crate::outbox::{CAPACITY, Destination, Outbox};
use crate::switch::feed::FeedKey;
use crate::switch::packet::Batch;

/// How often tracks that are wanted are asked for again, and those that no one asks for any more are
/// looked for.
pub(super) const WANTS: Duration = Duration::from_secs(1);

/// A link that brought nothing for so long, though the connection of the nodes is up, is made anew.
/// A broken path ends the connection too, within 15 s.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Datagrams that must fit the outbox for a link's turn to go on: a batch, and what is due.
const ROOM_MIN: usize = 40;

/// All links of a shard.
pub(super) struct Links {
    /// Names of applications; an [`AppId`] is an index.
    apps: Arc<[String]>,
    /// Where link datagrams leave from.
    local: SocketAddr,
    pub(super) peers: BTreeMap<FarShard, Peer>,
    /// By what datagrams carry: the link's id, and their shard.
    by_id: HashMap<(LinkId, ShardId), FarShard>,
    outbox: Outbox,
    /// Those that have something to do in this turn.
    touched: VecDeque<FarShard>,
    /// Datagrams of no link of ours.
    pub(super) strays: u64,
}

/// A shard of another node.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) up: Option<Box<Up>>,
    /// Tracks of it that are wanted here.
    pub(super) mirrors: BTreeSet<FeedKey>,
    /// To be told with the next turn.
    notes: Vec<Note>,
    touched: bool,
    /// As queued among the deadlines.
    due: Option<Instant>,
    /// When wants are looked at next.
    pub(super) tick_at: Option<Instant>,
    /// Since when membership does not know the node.
    pub(super) lost_at: Option<Instant>,
}

/// A link that is there.
pub(super) struct Up {
    pub(super) link: Link,
    id: LinkId,
    to: Destination,
    epoch: u64,
    /// Tracks that come.
    pub(super) lanes: HashMap<LaneId, FeedKey>,
    /// Tracks that go.
    pub(super) exports: HashMap<LaneId, FeedKey>,
    queue: VecDeque<Queued>,
}

/// Something to send over a link.
pub(super) enum Queued {
    Media { feed: FeedKey, lane: LaneId, batch: Arc<Batch> },
    Clock(Clock<Instant>),
    Keyframe { lane: LaneId, layer: u8 },
}

/// A link, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    pub far: FarShard,
    pub remote: SocketAddr,
    /// Tracks that come, and tracks that go.
    pub lanes_in: usize,
    pub lanes_out: usize,
    pub stats: Stats,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            apps: Arc::new([]),
            local: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            peers: BTreeMap::new(),
            by_id: HashMap::new(),
            outbox: Outbox::new(0),
            touched: VecDeque::new(),
            strays: 0,
        }
    }
}

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        let unused = |peer: &Peer| {
            let up = peer.up.as_ref();
            peer.mirrors.is_empty()
                && up.is_none_or(|up| up.lanes.is_empty() && up.exports.is_empty())
        };
        self.peers.values().all(unused)
    }

    pub(super) fn app_name(&self, app: AppId) -> Option<&str> {
        self.apps.get(usize::from(app.0)).map(String::as_str)
    }

    pub(super) fn app_named(&self, name: &str) -> Option<AppId> {
        self.apps.iter().position(|app| app == name).map(|at| AppId(at as u16))
    }

    pub(super) fn up(&mut self, far: FarShard) -> Option<&mut Up> {
        self.peers.get_mut(&far)?.up.as_deref_mut()
    }

    /// Queues something for a link; false if there is none.
    pub(super) fn queue(&mut self, far: FarShard, queued: Queued) -> bool {
        let Some(peer) = self.peers.get_mut(&far) else { return false };
        let Some(up) = &mut peer.up else { return false };
        up.queue.push_back(queued);
        if !std::mem::replace(&mut peer.touched, true) {
            self.touched.push_back(far);
        }
        true
    }

    /// Tells a shard something over the connection of the nodes, if there is one.
    pub(super) fn tell(&mut self, far: FarShard, note: Note) {
        if let Some(peer) = self.peers.get_mut(&far).filter(|peer| peer.up.is_some()) {
            peer.notes.push(note);
            self.touch(far);
        }
    }

    fn touch(&mut self, far: FarShard) {
        if let Some(peer) = self.peers.get_mut(&far)
            && !std::mem::replace(&mut peer.touched, true)
        {
            self.touched.push_back(far);
        }
    }
}

/// The outbox as a link sees it.
struct Tail<'a> {
    outbox: &'a mut Outbox,
    to: Destination,
}

impl Sink for Tail<'_> {
    fn slot(&mut self) -> &mut [u8] {
        if self.outbox.has_room() { self.outbox.slot() } else { &mut [] }
    }

    fn commit(&mut self, len: usize) {
        self.outbox.commit(self.to, len);
    }
}

impl Engine {
    /// Makes links with shards of other nodes possible. `apps` are the names of all applications, in
    /// the order of their ids; `local` is the address that link datagrams leave from.
    pub fn join(&mut self, apps: Arc<[String]>, local: SocketAddr) {
        self.links = Links { apps, local, outbox: Outbox::new(CAPACITY), ..Links::default() };
    }

    /// Takes a datagram that came to the cluster address.
    pub fn handle_link(&mut self, source: SocketAddr, bytes: &mut [u8], now: Instant) {
        let Ok(header) = Header::parse(bytes) else {
            // The kernel gives aggregates of one sender to one socket, whatever is in them.
            return self.post(HUB_SHARD, Mail::ForHub { source, bytes: (&*bytes).into() });
        };
        let to = ShardId(header.dst_shard);
        if to != self.config.shard {
            if to.index() < self.config.shards {
                self.post(to, Mail::LinkStray { bytes: (&*bytes).into() });
            } else {
                self.links.strays += 1;
            }
            return;
        }
        self.take_link(&header, bytes, now);
    }

    pub(super) fn take_link_stray(&mut self, bytes: &mut [u8], now: Instant) {
        match Header::parse(bytes) {
            Ok(header) if header.dst_shard == self.config.shard.0 => {
                self.take_link(&header, bytes, now);
            }
            Ok(_) | Err(_) => self.links.strays += 1,
        }
    }

    fn take_link(&mut self, header: &Header, bytes: &mut [u8], now: Instant) {
        let id = (header.link, ShardId(header.src_shard));
        let found = self.links.by_id.get(&id).copied();
        let peer = found.and_then(|far| Some((far, self.links.peers.get_mut(&far)?.up.take()?)));
        let Some((far, mut up)) = peer else {
            self.links.strays += 1;
            return;
        };
        // A fault is counted by the link.
        let taken = up.link.handle_datagram(now, bytes, |event| match event {
            Event::Media { media, .. } => match up.lanes.get(&media.lane) {
                Some(&feed) => self.append_far(feed, &media, now),
                None => self.links.strays += 1,
            },
            Event::Clock(clock) => {
                if let Some(&feed) = up.lanes.get(&clock.lane) {
                    self.clock_told(feed, &clock);
                }
            }
            Event::KeyframeRequest { lane, layer } => {
                if let Some(&feed) = up.exports.get(&lane) {
                    self.want_keyframe(feed, layer, now);
                }
            }
        });
        if let Some(peer) = self.links.peers.get_mut(&far) {
            peer.up = Some(up);
        }
        if taken.is_ok() {
            self.links.touch(far);
        }
    }

    /// What goes to other nodes, from the cluster address. To be sent, and cleared, after each call
    /// of [`Engine::spread`].
    pub fn links_outbox(&mut self) -> &mut Outbox {
        &mut self.links.outbox
    }

    /// The links there are.
    pub fn links(&self) -> impl Iterator<Item = LinkView> + '_ {
        self.links.peers.iter().filter_map(|(&far, peer)| {
            let up = peer.up.as_ref()?;
            let (lanes_in, lanes_out) = (up.lanes.len(), up.exports.len());
            Some(LinkView {
                far,
                remote: up.to.remote,
                lanes_in,
                lanes_out,
                stats: up.link.stats(),
            })
        })
    }

    /// Fills the links' outbox; false if it is full before all was done.
    pub(super) fn spread_links(&mut self, now: Instant) -> bool {
        while let Some(&far) = self.links.touched.front() {
            if !self.turn_link(far, now) {
                return false;
            }
            self.links.touched.pop_front();
            if let Some(peer) = self.links.peers.get_mut(&far) {
                peer.touched = false;
            }
            self.schedule_link(far);
        }
        true
    }

    /// A link's turn, as `relay::link` wants it; false if the outbox became full.
    fn turn_link(&mut self, far: FarShard, now: Instant) -> bool {
        self.post_notes(far);
        let Some(mut up) = self.links.peers.get_mut(&far).and_then(|peer| peer.up.take()) else {
            return true;
        };
        let done = self.fill(far, &mut up, now);
        if let Some(peer) = self.links.peers.get_mut(&far) {
            peer.up = Some(up);
        }
        done
    }

    fn fill(&mut self, far: FarShard, up: &mut Up, now: Instant) -> bool {
        up.link.handle_timeout(now);
        while self.links.outbox.room() >= ROOM_MIN {
            if let Some(lost) = up.link.poll_resend(now) {
                self.resend_far(up, lost, now);
                continue;
            }
            match up.queue.pop_front() {
                Some(Queued::Media { feed, lane, batch }) => {
                    self.export(up, far, (feed, lane, &batch), now);
                }
                Some(Queued::Clock(clock)) => {
                    let Links { outbox, .. } = &mut self.links;
                    up.link.clock(now, &clock, &mut Tail { outbox, to: up.to });
                }
                Some(Queued::Keyframe { lane, layer }) => {
                    let Links { outbox, .. } = &mut self.links;
                    up.link.keyframe(now, lane, layer, &mut Tail { outbox, to: up.to });
                }
                None => {
                    let Links { outbox, .. } = &mut self.links;
                    up.link.flush(now, &mut Tail { outbox, to: up.to });
                    return true;
                }
            }
        }
        false
    }

    fn resend_far(&mut self, up: &mut Up, lost: Lost, now: Instant) {
        let feed = up.exports.get(&lost.lane).and_then(|feed| self.feeds.get(*feed));
        let found = feed.and_then(|feed| feed.history.get(lost.source, lost.seq));
        let Some((batch, packet)) = found else { return };
        let media = exports::media(lost.lane, batch, packet);
        let Links { outbox, .. } = &mut self.links;
        up.link.resend(now, lost, &media, &mut Tail { outbox, to: up.to });
    }

    /// Sends what a lane carries of a batch.
    fn export(
        &mut self,
        up: &mut Up,
        far: FarShard,
        (feed, lane, batch): (FeedKey, LaneId, &Batch),
        now: Instant,
    ) {
        let Some(feed) = self.feeds.get_mut(feed) else { return };
        let admits = |class, standing| up.link.admits(class, standing);
        let layers = exports::admitted(feed, far, lane, admits);
        let Links { outbox, .. } = &mut self.links;
        let mut tail = Tail { outbox, to: up.to };
        for (media, class) in exports::packets(feed, lane, batch, layers) {
            up.link.push(now, &media, class, &mut tail);
        }
    }

    fn post_notes(&mut self, far: FarShard) {
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        let notes = std::mem::take(&mut peer.notes);
        let Some(up) = peer.up.as_ref().filter(|_| !notes.is_empty()) else { return };
        let (epoch, node) = (up.epoch, far.node);
        let notes = Notes { from: self.config.shard, to: far.shard, notes };
        for letter in notes.to_letters() {
            self.post(HUB_SHARD, Mail::ToNode { node, epoch, letter });
        }
    }

    /// There is a link with a shard of another node.
    pub(super) fn linked(&mut self, linked: Linked, now: Instant) {
        let Linked { far, secret, to, mtu, epoch } = linked;
        let to = Destination { remote: to, local: self.links.local };
        let id = secret.link();
        let mut link = Link::new(secret, now);
        link.set_mtu(usize::from(mtu));
        let (lanes, exports, queue) = (HashMap::new(), HashMap::new(), VecDeque::new());
        let up = Up { link, id, to, epoch, lanes, exports, queue };
        self.unlink(far);
        self.links.by_id.insert((id, far.shard), far);
        self.links.peers.entry(far).or_default().up = Some(Box::new(up));
        self.links.touch(far);
        self.want_all(far, now);
    }

    /// The connection with a node is no more, and with it its links.
    pub(super) fn unlinked(&mut self, node: NodeId) {
        for far in self.peers_of(node) {
            self.unlink(far);
            let peer = self.links.peers.get(&far);
            if peer.is_some_and(|peer| peer.mirrors.is_empty()) {
                self.links.peers.remove(&far);
            }
        }
    }

    fn unlink(&mut self, far: FarShard) {
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        peer.notes.clear();
        let Some(up) = peer.up.take() else { return };
        self.links.by_id.remove(&(up.id, far.shard));
        self.lanes_lost(up.lanes.into_values());
        let mut exports: Vec<_> = up.exports.into_iter().collect();
        exports.sort_unstable();
        for (lane, feed) in exports {
            self.drop_export(feed, far, lane);
        }
    }

    pub(super) fn peers_of(&self, node: NodeId) -> Vec<FarShard> {
        let end = |shard| FarShard { node, shard: ShardId(shard) };
        let of_node = self.links.peers.range(end(0)..=end(u8::MAX));
        of_node.map(|(far, _)| *far).collect()
    }

    pub(super) fn mtu_found(&mut self, node: NodeId, mtu: u16) {
        for far in self.peers_of(node) {
            if let Some(up) = self.links.up(far) {
                up.link.set_mtu(usize::from(mtu));
            }
        }
    }

    /// A link, or the wants of its peer, may have something to do.
    pub(super) fn link_due(&mut self, far: FarShard, at: Instant, now: Instant) {
        let Some(peer) = self.links.peers.get_mut(&far).filter(|peer| peer.due == Some(at)) else {
            return;
        };
        peer.due = None;
        if peer.tick_at.is_some_and(|at| at <= now) {
            self.tick(far, now);
        }
        // Its turn, at the end of this one, sets the next deadline.
        self.links.touch(far);
    }

    /// Looks after what is wanted on both sides of a link.
    fn tick(&mut self, far: FarShard, now: Instant) {
        self.expire_exports(far, now);
        self.refresh_wants(far, now);
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        let exports = peer.up.as_ref().is_some_and(|up| !up.exports.is_empty());
        let mirrors = !peer.mirrors.is_empty();
        peer.tick_at = (mirrors || exports).then(|| now + WANTS);
        if let Some(up) = peer.up.as_mut() {
            up.link.set_active(mirrors || exports);
            if mirrors && up.link.silence(now) >= SILENT_MAX {
                let (node, epoch) = (far.node, up.epoch);
                self.post(HUB_SHARD, Mail::LinkSilent { node, epoch });
            }
        }
    }

    /// From now on the wants of this peer are looked after.
    pub(super) fn begin_ticks(&mut self, far: FarShard, now: Instant) {
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        if peer.tick_at.is_none() {
            peer.tick_at = Some(now + WANTS);
        }
        if let Some(up) = peer.up.as_mut() {
            up.link.set_active(true);
        }
        self.links.touch(far);
    }

    fn schedule_link(&mut self, far: FarShard) {
        let Some(peer) = self.links.peers.get_mut(&far) else { return };
        let link = peer.up.as_ref().and_then(|up| up.link.timeout());
        let Some(at) = link.into_iter().chain(peer.tick_at).min() else { return };
        if peer.due.is_none_or(|due| due > at) {
            peer.due = Some(at);
            self.deadlines.push(at, Due::Link(far));
        }
    }
}
