//! Fan-out: the packets of a turn to the histories, to the shards that want them, and to every
//! subscriber, each copy numbered, written and sealed straight into the outbox.
//!
//! Subscribers outside, packets inside: a subscriber's key stays in the cache, and its
//! datagrams leave contiguous, so that they fold into one send. When the outbox is full the
//! engine stops where it is and goes on after the flush.

use std::mem::offset_of;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Engine;
use super::links::Queued;
use crate::command::MediaKind;
use crate::limits::RESENDS_QUEUED;
use crate::mail::Mail;
use crate::media::codec::picture::Patch;
use crate::media::codec::{red, vp8, vp9};
use crate::media::elements::PerPacket;
use crate::media::format::{Codec, Extension};
use crate::media::rtp::{FixedHeader, HeaderWriter};
use crate::media::srtp::Sealer;
use crate::outbox::{Destination, Lane, Outbox};
use crate::session::Session;
use crate::session::egress::Egress;
use crate::switch::feed::{FeedKey, PullKey, Stage};
use crate::switch::packet::{Batch, Packet};
use crate::switch::pull::{Outlet, Pull, RedOutlet, Stamp};
use crate::wake::Unfinished;

/// A batch on its way to the subscribers of its track.
#[derive(Debug)]
pub(super) struct Run {
    feed: FeedKey,
    batch: Arc<Batch>,
    /// Subscribers served already.
    served: usize,
}

/// What [`Engine::unfinished`] counts another shard as that wants the track: nobody tells how
/// many subscribers it has, but waking it costs about as much as that many single datagrams.
const COPIES_ELSEWHERE: usize = 20;

/// How many subscribers ahead memory is asked for: first what is known of the pull, then, when
/// that is there, the session's key.
const AHEAD: usize = 2;

/// Where a session has what its packets need.
const EGRESS: Range<usize> = offset_of!(Session, egress)..offset_of!(Session, egress) + Egress::HOT;

/// A packet that a subscriber asked for again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resend {
    pull: PullKey,
    index: u64,
    source: u32,
    seq: u64,
}

/// Whether there is more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The outbox is full: flush it and call again.
    More,
    Done,
}

impl Engine {
    /// Fills the outbox with what this turn leaves to be sent.
    pub fn spread(&mut self, outbox: &mut Outbox, now: Instant) -> Progress {
        self.close_batches(now);
        while let Some((to, reply)) = self.rechecks.front() {
            if !outbox.has_room() {
                return Progress::More;
            }
            outbox.push(*to, reply.bytes());
            self.rechecks.pop_front();
        }
        while let Some((remote, local, bytes)) = self.control.front() {
            if !outbox.has_room() {
                return Progress::More;
            }
            outbox.push(Destination { remote: *remote, local: *local }, bytes);
            self.control.pop_front();
        }
        while let Some(&resend) = self.resends.front() {
            if !outbox.has_room() {
                return Progress::More;
            }
            self.resends.pop_front();
            self.resend(resend, outbox, now);
        }
        // Other nodes first: their viewers have a longer way.
        if !self.spread_links(now) {
            return Progress::More;
        }
        while let Some(mut run) = self.runs.pop_front() {
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(&mut run, outbox, now)));
            match served {
                Ok(true) => {}
                Ok(false) => {
                    self.runs.push_front(run);
                    return Progress::More;
                }
                Err(_) => {
                    self.subscriber_failed(&run, now);
                    self.runs.push_front(run);
                }
            }
        }
        Progress::Done
    }

    /// The frames that [`Self::spread`] would send a part of now, and what became of those that
    /// were unfinished when this was asked before in this turn.
    pub fn unfinished(&mut self) -> Unfinished {
        let mut told = Unfinished::default();
        for (key, awaited) in &mut self.touched {
            let Some(feed) = self.feeds.get(*key) else { continue };
            let elsewhere = feed.watchers.len() + feed.exports.len();
            let copies = feed.pulls.len() + COPIES_ELSEWHERE * elsewhere;
            let packets = feed.open.as_ref().map_or(&[][..], |batch| batch.packets());
            if awaited.take().is_some_and(|before| before != packets.len()) {
                told.went_on += copies;
            }
            let is_video = feed.meta.as_ref().is_some_and(|meta| meta.kind == MediaKind::Video);
            if is_video && packets.last().is_some_and(|packet| !packet.marker) {
                told.copies += copies;
                *awaited = Some(packets.len());
            }
        }
        told
    }

    /// Ends the batches of this turn: nothing is appended to them any more.
    fn close_batches(&mut self, now: Instant) {
        let mut touched = std::mem::take(&mut self.touched);
        for (key, _) in touched.drain(..) {
            let Some(batch) = self.feeds.get_mut(key).and_then(|feed| feed.open.take()) else {
                continue;
            };
            self.share(key, batch, now);
        }
        self.touched = touched;
    }

    /// Packets of a mirrored track came by mail.
    pub(super) fn batch_arrived(&mut self, key: FeedKey, batch: Arc<Batch>, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        for packet in batch.packets() {
            feed.codec = Some(packet.codec);
            if let Some(layer) = feed.layers.get_mut(usize::from(packet.layer)) {
                layer.seen(now, batch.payload(packet).len(), packet.keyframe);
            }
        }
        if feed.stage == Stage::Known {
            feed.stage = Stage::Flowing;
            self.stage_changed(key);
        }
        self.share(key, batch, now);
    }

    /// Hands a finished batch to everybody who wants the track.
    pub(super) fn share(&mut self, key: FeedKey, mut batch: Arc<Batch>, now: Instant) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let here = feed.origin.makes_batches();
        let video = feed.meta.as_ref().is_some_and(|meta| meta.kind == MediaKind::Video);
        if here {
            feed.batch_bytes.note(batch.bytes());
        }
        // A mirrored batch was evened out where it came from.
        if let Some(open) = Arc::get_mut(&mut batch).filter(|_| here && video) {
            open.even();
        }
        let pool = &mut self.pool;
        feed.history.push(now, Arc::clone(&batch), |old| {
            if here {
                pool.give(old);
            }
        });
        for watcher in &feed.watchers {
            let mail = Mail::Media { mirror: watcher.mirror, batch: Arc::clone(&batch) };
            self.mail.push((watcher.shard, mail));
        }
        for export in feed.exports.iter().filter(|export| export.layers != 0) {
            let (lane, batch) = (export.lane, Arc::clone(&batch));
            self.links.queue(export.to, Queued::Media { feed: key, lane, batch });
        }
        if !feed.pulls.is_empty() {
            self.runs.push_back(Run { feed: key, batch, served: 0 });
        }
    }

    /// Serves the subscribers of a run; false if the outbox became full.
    fn serve(&mut self, run: &mut Run, outbox: &mut Outbox, now: Instant) -> bool {
        let Some(feed) = self.feeds.get(run.feed) else { return true };
        let mut needy = None;
        let moment = Moment::new(self.epoch, now);
        while let Some(&key) = feed.pulls.get(run.served) {
            if let Some(later) = feed.pulls.get(run.served + 2 * AHEAD) {
                self.pulls.prefetch(*later, 0..Pull::HOT);
            }
            if let Some(next) = feed.pulls.get(run.served + AHEAD)
                && let Some(pull) = self.pulls.get(*next)
            {
                self.sessions.prefetch(pull.session, EGRESS);
            }
            let Some(pull) = self.pulls.get_mut(key) else {
                run.served += 1;
                continue;
            };
            let Some(session) = self.sessions.get_mut(pull.session) else {
                run.served += 1;
                continue;
            };
            // A subscriber gets all of a run or none of it, so that a full outbox cannot make
            // it lose its place within.
            if outbox.room() < run.batch.packets().len() {
                return false;
            }
            run.served += 1;
            let Some(mut copies) = Copies::new(&mut session.egress, outbox, moment) else {
                continue;
            };
            self.meters.packets_out += copies.forward_all(pull, &run.batch);
            self.meters.copies_dropped += copies.unfit;
            if pull.needs_keyframe() {
                needy = Some(pull.layer);
            }
        }
        if let Some(layer) = needy {
            self.want_keyframe(run.feed, layer, now);
        }
        true
    }

    /// Serving the last of a run's subscribers panicked: its session ends, nobody else's.
    fn subscriber_failed(&mut self, run: &Run, now: Instant) {
        let feed = self.feeds.get(run.feed);
        let pull = feed.and_then(|feed| feed.pulls.get(run.served.checked_sub(1)?));
        let session = pull.and_then(|pull| self.pulls.get(*pull)).map(|pull| pull.session);
        self.session_failed(session, now);
    }

    /// Notes that a subscriber misses a packet.
    pub(super) fn queue_resend(&mut self, key: PullKey, seq: u16, now: Instant) {
        let Some(pull) = self.pulls.get_mut(key) else { return };
        if pull.out.rtx_ssrc.is_none() {
            return;
        }
        let Some((index, source, seq)) = pull.find(seq) else { return };
        if self.resends.len() >= RESENDS_QUEUED || !pull.resends.admit(index, now) {
            self.meters.resends_dropped += 1;
            return;
        }
        self.resends.push_back(Resend { pull: key, index, source, seq });
    }

    fn resend(&mut self, resend: Resend, outbox: &mut Outbox, now: Instant) {
        let Some(pull) = self.pulls.get_mut(resend.pull) else { return };
        let Some(feed) = self.feeds.get(pull.feed) else { return };
        let Some(session) = self.sessions.get_mut(pull.session) else { return };
        let Some((batch, packet)) = feed.history.get(resend.source, resend.seq) else {
            self.meters.nacks_answered_late += 1;
            return;
        };
        let moment = Moment::new(self.epoch, now);
        let Some(mut copies) = Copies::new(&mut session.egress, outbox, moment) else {
            return;
        };
        if copies.resend(pull, batch, packet, resend.index) {
            self.meters.resends += 1;
        }
        self.meters.copies_dropped += copies.unfit;
    }
}

/// The time of a turn, also as RTP's 6.18 fixed point seconds (abs-send-time), of any origin.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Instant,
    abs_send_time: [u8; 3],
}

impl Moment {
    fn new(epoch: Instant, now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(epoch).as_micros() as u64;
        let [_, a, b, c] = (((elapsed << 18) / 1_000_000) as u32).to_be_bytes();
        Self { now, abs_send_time: [a, b, c] }
    }
}

/// Writes copies of packets for one subscriber. All that is the same for each of them is
/// looked up and compared once.
struct Copies<'a> {
    sealer: &'a Sealer,
    transport_seq: &'a mut u16,
    lane: Lane<'a>,
    moment: Moment,
    /// Copies that could not be made.
    unfit: u64,
}

/// What one copy is made of, besides the packet.
struct Shape {
    ssrc: u32,
    payload_type: u8,
    /// The index on `ssrc`, and the packet's own when it is a resend.
    index: u64,
    original: Option<u16>,
}

impl<'a> Copies<'a> {
    /// `None` while the subscriber has no key or no address.
    fn new(egress: &'a mut Egress, outbox: &'a mut Outbox, moment: Moment) -> Option<Self> {
        let (sealer, to, transport_seq) = egress.lend()?;
        Some(Self { sealer, transport_seq, lane: outbox.lane(to), moment, unfit: 0 })
    }

    /// Forwards what the subscriber gets of a batch; returns how many packets.
    fn forward_all(&mut self, pull: &mut Pull, batch: &Batch) -> u64 {
        let mut count = 0;
        for packet in batch.packets() {
            let Some(outlet) = pull.outlet(packet).copied() else { continue };
            let Some(stamp) = pull.stamp(packet, self.moment.now) else { continue };
            let shape = Shape {
                ssrc: pull.out.ssrc,
                payload_type: outlet.pt,
                index: stamp.index,
                original: None,
            };
            if self.copy(pull, batch, packet, &stamp, &outlet, &shape) {
                count += 1;
            }
        }
        count
    }

    /// Sends a packet again, on the RTX stream (RFC 4588).
    fn resend(&mut self, pull: &mut Pull, batch: &Batch, packet: &Packet, index: u64) -> bool {
        let Some(outlet) = pull.outlet(packet).copied() else { return false };
        let (Some(ssrc), Some(pt)) = (pull.out.rtx_ssrc, outlet.rtx_pt) else { return false };
        let Some(stamp) = pull.stamp_again(packet, index) else { return false };
        let shape = Shape {
            ssrc,
            payload_type: pt,
            index: pull.resends.next_index(),
            original: Some(index as u16),
        };
        self.copy(pull, batch, packet, &stamp, &outlet, &shape)
    }

    #[inline]
    fn copy(
        &mut self,
        pull: &mut Pull,
        batch: &Batch,
        packet: &Packet,
        stamp: &Stamp,
        outlet: &Outlet,
        shape: &Shape,
    ) -> bool {
        // A resend travels alone: padding would not make a run.
        let payload = match shape.original {
            None => batch.padded(packet),
            Some(_) => batch.payload(packet),
        };
        let has_padding = shape.original.is_none() && packet.padding() > 0;
        let fixed = FixedHeader {
            marker: packet.marker,
            payload_type: shape.payload_type,
            seq: shape.index as u16,
            timestamp: stamp.timestamp,
            ssrc: shape.ssrc,
            has_padding,
        };
        let seq = *self.transport_seq;
        let slot = self.lane.slot();
        let own = PerPacket { transport_seq: seq, abs_send_time: self.moment.abs_send_time };
        let header_len = write_header(slot, &fixed, pull, batch, packet, own);
        let sealer = self.sealer;
        if header_len + payload.len() + 2 + sealer.rtp_overhead() > slot.len() {
            self.unfit += 1;
            return false;
        }
        let plain = Plain { pull, packet, stamp, outlet };
        let len = match plain.write(payload, &mut slot[header_len..], shape.original) {
            Written::AsIs => sealer.seal_rtp(slot, header_len, payload, shape.ssrc, shape.index),
            Written::InPlace(len) => {
                sealer.seal_rtp_in_place(slot, header_len, len, shape.ssrc, shape.index)
            }
            Written::Unfit => {
                self.unfit += 1;
                return false;
            }
        };
        if pull.out.extensions.get(Extension::TransportCc).is_some() {
            *self.transport_seq = seq.wrapping_add(1);
        }
        // Sender reports are about the media's SSRC: a resend is not on it.
        if shape.original.is_none() {
            pull.packets = pull.packets.wrapping_add(1);
            // RFC 3550 §6.4.1: octets of payload, without padding.
            pull.octets = pull.octets.wrapping_add(batch.payload(packet).len() as u32);
        }
        self.lane.commit(len);
        true
    }
}

/// Writes a header and returns its length.
#[inline]
fn write_header(
    slot: &mut [u8],
    fixed: &FixedHeader,
    pull: &Pull,
    batch: &Batch,
    packet: &Packet,
    own: PerPacket,
) -> usize {
    if let Some(elements) = pull.elements() {
        let ids = &pull.out.extensions;
        let mut header = elements.begin(slot, own);
        let fits = !packet.has_extensions()
            || batch
                .extensions(packet)
                .all(|(extension, data)| ids.get(extension).is_none_or(|id| header.push(id, data)));
        if fits {
            return header.finish(fixed);
        }
    }
    write_any_header(slot, fixed, pull, batch, packet, own)
}

/// Header extension elements of one packet: MID, both times, and those carried.
const ELEMENTS: usize = 12;

/// Writes a header whose elements may need the two-byte form.
#[cold]
fn write_any_header(
    slot: &mut [u8],
    fixed: &FixedHeader,
    pull: &Pull,
    batch: &Batch,
    packet: &Packet,
    own: PerPacket,
) -> usize {
    let ids = &pull.out.extensions;
    let transport_seq = own.transport_seq.to_be_bytes();
    let mut elements: [(u8, &[u8]); ELEMENTS] = [(0, &[]); ELEMENTS];
    let mut count = 0;
    let mut add = |id: Option<u8>, data| {
        let Some(id) = id else { return };
        // RFC 8285 §4.1.2: both forms in one stream only where it was agreed.
        let data: &[u8] = data;
        let two_byte = data.len() > 16 || data.is_empty() || id > 14;
        if count < ELEMENTS && (!two_byte || pull.out.allow_mixed) {
            elements[count] = (id, data);
            count += 1;
        }
    };
    add(ids.get(Extension::TransportCc), &transport_seq[..]);
    add(ids.get(Extension::AbsSendTime), &own.abs_send_time[..]);
    if !pull.is_acknowledged() {
        add(ids.get(Extension::Mid), pull.out.mid.as_bytes());
    }
    for (extension, data) in batch.extensions(packet) {
        add(ids.get(extension), data);
    }
    HeaderWriter::new(slot).write(fixed, &elements[..count])
}

/// How a payload was written.
enum Written {
    /// It leaves unchanged: seal it from where it is.
    AsIs,
    /// It was changed, and is in its place with this length.
    InPlace(usize),
    /// It cannot be made to fit this subscriber.
    Unfit,
}

/// A payload about to leave.
struct Plain<'a> {
    pull: &'a mut Pull,
    packet: &'a Packet,
    stamp: &'a Stamp,
    outlet: &'a Outlet,
}

impl Plain<'_> {
    /// Makes the changes this subscriber needs, if any.
    fn write(mut self, payload: &[u8], out: &mut [u8], original: Option<u16>) -> Written {
        let prefix = if original.is_some() { 2 } else { 0 };
        let Ok(patch) = self.renumbered(payload) else { return Written::Unfit };
        let payload = match self.outlet.red {
            RedOutlet::Unwrap => match red::primary(payload) {
                Some((_, primary)) => primary,
                None => return Written::Unfit,
            },
            RedOutlet::Plain | RedOutlet::Rewrite { .. } => payload,
        };
        let changes = prefix > 0 || patch.is_some() || self.outlet.red != RedOutlet::Plain;
        if !changes {
            return Written::AsIs;
        }
        if let Some(original) = original {
            out[..2].copy_from_slice(&original.to_be_bytes());
        }
        let body = &mut out[prefix..prefix + payload.len()];
        body.copy_from_slice(payload);
        if let Some(patch) = patch {
            patch.apply(body);
        }
        if let RedOutlet::Rewrite { to } = self.outlet.red
            && !red::rewrite_block_pts(body, |_| Some(to))
        {
            return Written::Unfit;
        }
        Written::InPlace(prefix + payload.len())
    }

    /// The picture numbers this subscriber needs, if they differ from the source's. A
    /// subscriber that never saw another source keeps its numbers, so its packets are sealed
    /// from where they are, like those of codecs without any.
    fn renumbered(&mut self, payload: &[u8]) -> Result<Option<Patch>, OutOfPlace> {
        let patch = match self.pull.codec(self.packet) {
            Some(Codec::Vp8) => vp8::Descriptor::parse(payload).map(|descriptor| {
                if self.stamp.switched {
                    self.pull.vp8.switch(&descriptor);
                }
                self.pull.vp8.patch(&descriptor, payload)
            }),
            Some(Codec::Vp9) => vp9::Descriptor::parse(payload).map(|descriptor| {
                if self.stamp.switched {
                    self.pull.vp9.switch(&descriptor);
                }
                self.pull.vp9.patch(&descriptor, payload)
            }),
            _ => return Ok(None),
        };
        match patch {
            Some(Some(patch)) => Ok(patch.changes.then_some(patch)),
            Some(None) => Err(OutOfPlace),
            // No descriptor to read: the decoder's to judge.
            None => Ok(None),
        }
    }
}

/// A picture from before the switch to this source.
struct OutOfPlace;
