//! One track leaving through one session: chooses the source, keeps sequence numbers and
//! timestamps continuous whatever happens to the source, and remembers how it numbered, so
//! that a NACK finds its packet.
//!
//! Invariants: an outgoing index is given to at most one packet, ever (a repeated SRTP nonce
//! would give the key away); numbering has no holes that the publisher did not make; a video
//! subscriber sees a new source only from a keyframe on.

use std::mem::offset_of;
use std::time::Instant;

use super::feed::FeedKey;
use super::packet::Packet;
use super::resend::Resends;
use crate::command::{MediaKind, Simulcast};
use crate::media::codec::vp8::Vp8Rewriter;
use crate::media::codec::vp9::Vp9Rewriter;
use crate::media::elements::ElementBlock;
use crate::media::format::{Codec, Extension, ExtensionIds};
use crate::session::Session;
use crate::slots::Key;

/// Codecs one track may have. Browsers negotiate at most nine video codecs of ours.
pub const CODECS_PER_TRACK: usize = 16;

/// How one codec of the track reaches the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlet {
    /// The subscriber's payload type; 0 when it lacks the codec, which no dynamic one has and
    /// which PCMU marks by `present`.
    pub pt: u8,
    pub rtx_pt: Option<u8>,
    pub present: bool,
    pub red: RedOutlet,
}

/// What happens to redundant audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedOutlet {
    /// The codec is not RED.
    #[default]
    Plain,
    /// Every block's payload type becomes the subscriber's Opus; the publisher's blocks hold
    /// nothing else.
    Rewrite { to: u8 },
    /// The subscriber has no RED: it gets the primary block.
    Unwrap,
}

/// What was negotiated for this pull.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Outgoing {
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub extensions: ExtensionIds,
    pub allow_mixed: bool,
    /// By the track's codec index; timestamps count in its clock.
    pub codecs: [Option<Codec>; CODECS_PER_TRACK],
    /// By the track's codec index.
    pub outlets: [Outlet; CODECS_PER_TRACK],
    pub mid: String,
}

/// A stretch of outgoing packets that came from one source.
#[derive(Debug, Clone, Copy)]
struct Segment {
    source: u32,
    layer: u8,
    /// The first sequence number of the source that is forwarded, and what it became.
    first_in: u64,
    first_out: u64,
    timestamp_offset: u32,
}

/// How one packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Rollover counter and sequence number: the SRTP index.
    pub index: u64,
    pub timestamp: u32,
    /// The packet is the first of a new source.
    pub switched: bool,
}

/// The next SRTP indexes of an SSRC and of its RTX stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbering {
    pub media: u64,
    pub rtx: u64,
}

impl Numbering {
    /// Random, below 2^15, so that the receiver's guess of the rollover counter is right even
    /// if the first packets are lost (RFC 3711 §3.3.1).
    pub fn fresh(random: u64) -> Self {
        Self { media: random & 0x7fff, rtx: random >> 16 & 0x7fff }
    }

    /// The same sequence numbers with a rollover counter of 0, for a new key.
    pub fn without_rollover(self) -> Self {
        Self { media: self.media & 0xffff, rtx: self.rtx & 0xffff }
    }
}

/// What every packet needs comes first: see [`HOT`](Self::HOT).
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Pull {
    pub session: Key<Session>,
    pub feed: FeedKey,
    pub kind: MediaKind,
    /// The layer to forward.
    pub layer: u8,
    /// The layer's packets come from a new source, which has not begun with a keyframe.
    starved: bool,
    /// The subscriber has acknowledged the SSRC, so the MID may be left out.
    acknowledged: bool,
    pub packets: u32,
    pub octets: u32,
    /// One past the highest index given.
    next_out: u64,
    last: Option<(Instant, u32)>,
    current: Option<Segment>,
    /// The header extension elements of every packet; `None` if they need the two-byte form.
    elements: Option<ElementBlock>,
    pub out: Outgoing,
    pub vp8: Vp8Rewriter,
    pub vp9: Vp9Rewriter,
    pub resends: Resends,
    pub simulcast: Option<Simulcast>,
}

impl Pull {
    /// How many bytes from the start most packets touch: of picture numbers, the first line.
    pub const HOT: usize = offset_of!(Self, vp8) + 64;

    /// `numbering` goes on where a former pull with the same SSRC stopped, or is
    /// [`Numbering::fresh`].
    pub fn new(
        session: Key<Session>,
        feed: FeedKey,
        kind: MediaKind,
        out: Outgoing,
        numbering: Numbering,
    ) -> Self {
        Self {
            session,
            feed,
            kind,
            elements: elements(&out, false),
            out,
            layer: 0,
            simulcast: None,
            acknowledged: false,
            packets: 0,
            octets: 0,
            resends: Resends::new(numbering.rtx),
            vp8: Vp8Rewriter::default(),
            vp9: Vp9Rewriter::default(),
            current: None,
            starved: false,
            next_out: numbering.media,
            last: None,
        }
    }

    /// The subscriber reports on the SSRC.
    pub fn acknowledge(&mut self) {
        self.acknowledged = true;
        self.elements = elements(&self.out, true);
    }

    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged
    }

    pub fn elements(&self) -> Option<&ElementBlock> {
        self.elements.as_ref()
    }

    #[inline]
    pub fn outlet(&self, packet: &Packet) -> Option<&Outlet> {
        self.out.outlets.get(usize::from(packet.codec)).filter(|outlet| outlet.present)
    }

    /// What the track's codec of `packet` is.
    #[inline]
    pub fn codec(&self, packet: &Packet) -> Option<Codec> {
        self.out.codecs.get(usize::from(packet.codec)).copied().flatten()
    }

    /// Decides whether and as what `packet` is forwarded. `None`: not for this subscriber.
    #[inline]
    pub fn stamp(&mut self, packet: &Packet, now: Instant) -> Option<Stamp> {
        let mut switched = false;
        let segment = match self.current {
            Some(segment) if segment.source == packet.source => {
                // Older than the switch to this source: its index belongs to another packet.
                if packet.seq < segment.first_in {
                    return None;
                }
                segment
            }
            _ if packet.layer == self.layer && packet.keyframe => {
                switched = true;
                self.switch(packet, self.rate(packet)?, now)
            }
            _ => {
                self.starved |= packet.layer == self.layer;
                return None;
            }
        };
        if packet.keyframe {
            self.starved = false;
        }
        let index = segment.first_out + (packet.seq - segment.first_in);
        let timestamp = packet.timestamp.wrapping_add(segment.timestamp_offset);
        if index >= self.next_out {
            self.next_out = index + 1;
            self.last = Some((now, timestamp));
        }
        Some(Stamp { index, timestamp, switched })
    }

    /// The stamp a packet got when it was forwarded first, for a resend.
    pub fn stamp_again(&self, packet: &Packet, index: u64) -> Option<Stamp> {
        let segment = self.segment_of(index)?;
        let timestamp = packet.timestamp.wrapping_add(segment.timestamp_offset);
        Some(Stamp { index, timestamp, switched: false })
    }

    /// What the subscriber calls `seq` is this index here, and (source, sequence number) at
    /// the publisher. Only of the source forwarded now: the numbers inside a former source's
    /// payloads (VP8) can no longer be told, and nobody needs what came before a keyframe.
    pub fn find(&self, seq: u16) -> Option<(u64, u32, u64)> {
        let newest = self.next_out.checked_sub(1)?;
        let behind = (newest as u16).wrapping_sub(seq);
        let index = newest.checked_sub(u64::from(behind))?;
        let segment = self.segment_of(index)?;
        Some((index, segment.source, segment.first_in + (index - segment.first_out)))
    }

    /// Where a later pull with the same SSRC must go on.
    pub fn numbering(&self) -> Numbering {
        Numbering { media: self.next_out, rtx: self.resends.next() }
    }

    /// The session has a new key: the receiver's rollover counters begin at 0, so ours do, and
    /// what was sent under the old key cannot be asked for again.
    pub fn rekey(&mut self) {
        let Numbering { media, rtx } = self.numbering().without_rollover();
        self.next_out = media;
        self.resends.renumber(rtx);
        self.current = None;
        self.acknowledged = false;
    }

    /// Waits for a keyframe of its layer.
    pub fn needs_keyframe(&self) -> bool {
        let behind = self.current.is_none_or(|segment| segment.layer != self.layer);
        self.kind == MediaKind::Video && (behind || self.starved)
    }

    /// The layer being forwarded now.
    pub fn forwarded_layer(&self) -> Option<u8> {
        self.current.map(|segment| segment.layer)
    }

    /// The source being forwarded now, and what to add to its timestamps to get the
    /// subscriber's.
    pub fn time_line(&self) -> Option<(u32, u32)> {
        self.current.map(|segment| (segment.source, segment.timestamp_offset))
    }

    /// The clock rate of what was forwarded last.
    pub fn clock_rate(&self) -> u32 {
        let first = self.out.codecs.iter().flatten().next();
        first.map_or(90_000, |codec| codec.clock_rate())
    }

    /// Points the pull at another track. Numbering goes on; the next keyframe begins it.
    pub fn repoint(&mut self, feed: FeedKey, out: Outgoing) {
        self.feed = feed;
        self.elements = elements(&out, self.acknowledged);
        self.out = out;
        self.layer = 0;
        self.current = None;
    }

    fn switch(&mut self, packet: &Packet, rate: u32, now: Instant) -> Segment {
        let timestamp = match self.last {
            // The first timestamp is the publisher's own: nothing to be continuous with.
            None => packet.timestamp,
            Some((at, last)) => {
                let elapsed = now.saturating_duration_since(at).as_micros();
                let ticks = elapsed * u128::from(rate) / 1_000_000;
                last.wrapping_add((ticks as u32).max(1))
            }
        };
        let segment = Segment {
            source: packet.source,
            layer: packet.layer,
            first_in: packet.seq,
            first_out: self.next_out,
            timestamp_offset: timestamp.wrapping_sub(packet.timestamp),
        };
        self.current = Some(segment);
        segment
    }

    fn segment_of(&self, index: u64) -> Option<Segment> {
        self.current.filter(|segment| index >= segment.first_out)
    }

    fn rate(&self, packet: &Packet) -> Option<u32> {
        self.codec(packet).map(Codec::clock_rate)
    }
}

/// What the header of every packet carries, if the one-byte form can hold it.
fn elements(out: &Outgoing, acknowledged: bool) -> Option<ElementBlock> {
    let id = |extension| out.extensions.get(extension);
    let mut all = ElementBlock::default();
    let fits = id(Extension::TransportCc).is_none_or(|id| all.push_transport_seq(id))
        && id(Extension::AbsSendTime).is_none_or(|id| all.push_abs_send_time(id))
        && (acknowledged || id(Extension::Mid).is_none_or(|id| all.push(id, out.mid.as_bytes())));
    fits.then_some(all)
}
