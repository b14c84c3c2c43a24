//! The records of a datagram, back to back.
//!
//! A record is `type << 4 | flags`, a length of two bytes and so many bytes; one zero byte is
//! padding. A type that we do not know is skipped, and so is what follows the fields that we
//! know: a node of the next version may say more.
//!
//! ```text
//!  1 media     lane u24, layer u8, codec u8, padding u8, source u32, seq u48, timestamp u32,
//!              with flag 8 the length u16 of the extensions and they, payload
//!              flags: 1 marker, 2 keyframe, 4 repair, 8 extensions
//!  2 clock     lane u24, layer u8, source u32, ntp u64, rtp u32, clock rate u32, arrival u48
//!  3 keyframe  lane u24, layer u8
//!  4 feedback  see `feedback`
//!  5 ping      sent at u48
//!  6 pong      ping sent at u48, ping received at u48, sent at u48
//!  7 fragment  id u16, index u8, count u8, total u16, piece of a media record
//! ```
//!
//! Times are µs of the sender's link time, which only it knows the beginning of.
//!
//! Invariants: parsing what was written gives it back; a record's slices lie within it.

use super::bytes::{Reader, Writer, u24, u48};
use super::{Feedback, LaneId, Malformed, RECORD_MAX, U48_MAX};

/// Bytes before a record's fields.
pub const PREFIX_LEN: usize = 3;

/// Bytes of a media record without extensions before its payload.
pub const MEDIA_HEAD_LEN: usize = PREFIX_LEN + 20;

/// Bytes of a fragment before its piece.
pub const FRAGMENT_HEAD_LEN: usize = PREFIX_LEN + 6;

/// Pieces of one record: as many as the longest needs on the narrowest path.
pub const FRAGMENTS_MAX: usize = 16;

/// One packet of a track, as its publisher sent it: nothing is renumbered between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media<'a> {
    pub lane: LaneId,
    /// Which simulcast layer, as an index into the track's layers.
    pub layer: u8,
    /// Which codec, as an index into the track's codecs.
    pub codec: u8,
    pub marker: bool,
    /// The packet begins a keyframe.
    pub keyframe: bool,
    /// Bytes of RTP padding that the origin found useful behind the payload, to even out
    /// lengths. Only the number travels.
    pub padding: u8,
    /// Numbers the SSRCs a layer came from; sequence numbers continue only within one.
    pub source: u32,
    /// The publisher's sequence number, extended: 48 bits.
    pub seq: u64,
    pub timestamp: u32,
    /// Header extensions, opaque here.
    pub extensions: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Media<'a> {
    /// Bytes of its record.
    #[inline]
    pub fn record_len(&self) -> usize {
        self.head_len() + self.payload.len()
    }

    /// Bytes of its record before the payload.
    #[inline]
    pub fn head_len(&self) -> usize {
        let extensions = self.extensions.len();
        MEDIA_HEAD_LEN + if extensions == 0 { 0 } else { 2 + extensions }
    }

    /// Whether it can be sent at all: in whole or in fragments.
    #[inline]
    pub fn is_sendable(&self) -> bool {
        self.record_len() <= RECORD_MAX && self.seq <= U48_MAX
    }

    /// Writes what comes before the payload, for a packet that [`is_sendable`](Self::is_sendable).
    /// `repair`: it was sent before.
    #[inline]
    pub fn write_head(&self, repair: bool, out: &mut [u8]) {
        let set = |given: bool, flag: u8| if given { flag } else { 0 };
        let flags = set(self.marker, MARKER)
            | set(self.keyframe, KEYFRAME)
            | set(repair, REPAIR)
            | set(!self.extensions.is_empty(), EXTENSIONS);
        let [_, _, len0, len1] = ((self.record_len() - PREFIX_LEN) as u32).to_be_bytes();
        let [_, l0, l1, l2] = self.lane.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.source.to_be_bytes();
        let [_, _, q0, q1, q2, q3, q4, q5] = self.seq.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let kind = (TYPE_MEDIA << 4) | flags;
        let head: [u8; MEDIA_HEAD_LEN] = [
            kind,
            len0,
            len1,
            l0,
            l1,
            l2,
            self.layer,
            self.codec,
            self.padding,
            s0,
            s1,
            s2,
            s3,
            q0,
            q1,
            q2,
            q3,
            q4,
            q5,
            t0,
            t1,
            t2,
            t3,
        ];
        out[..MEDIA_HEAD_LEN].copy_from_slice(&head);
        if !self.extensions.is_empty() {
            let mut writer = Writer::new(&mut out[MEDIA_HEAD_LEN..]);
            writer.u16(self.extensions.len() as u16);
            writer.put(self.extensions);
        }
    }

    /// Writes the whole record; returns its length.
    #[inline]
    pub fn write(&self, repair: bool, out: &mut [u8]) -> usize {
        let (head, len) = (self.head_len(), self.record_len());
        self.write_head(repair, out);
        out[head..len].copy_from_slice(self.payload);
        len
    }

    #[inline]
    fn parse(flags: u8, fields: &'a [u8]) -> Result<Self, Malformed> {
        let (&head, rest) = fields.split_first_chunk().ok_or(Malformed)?;
        let head: [u8; MEDIA_HEAD_LEN - PREFIX_LEN] = head;
        let [l0, l1, l2, layer, codec, padding, s0, s1, s2, s3, seq_and_time @ ..] = head;
        let [q0, q1, q2, q3, q4, q5, t0, t1, t2, t3] = seq_and_time;
        let (extensions, payload) = if flags & EXTENSIONS == 0 {
            (&[][..], rest)
        } else {
            let mut reader = Reader(rest);
            let len = usize::from(reader.u16()?);
            (reader.take(len)?, reader.0)
        };
        Ok(Self {
            lane: LaneId(u24([l0, l1, l2])),
            layer,
            codec,
            marker: flags & MARKER != 0,
            keyframe: flags & KEYFRAME != 0,
            padding,
            source: u32::from_be_bytes([s0, s1, s2, s3]),
            seq: u48([q0, q1, q2, q3, q4, q5]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            extensions,
            payload,
        })
    }
}

/// The publisher's clock of one layer: which NTP time belongs to which RTP timestamp (RFC 3550,
/// 6.4.1), and when it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock<T> {
    pub lane: LaneId,
    pub layer: u8,
    pub source: u32,
    /// Seconds since 1900 in the upper half, fractions in the lower.
    pub ntp: u64,
    pub rtp: u32,
    /// Timestamp units per second.
    pub clock_rate: u32,
    /// When it arrived from the publisher: on the wire, µs of the sender's link time.
    pub arrival: T,
}

/// One piece of a media record that did not fit a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Numbers the sender's records in fragments, wrapping.
    pub id: u16,
    pub index: u8,
    /// How many there are, at most [`FRAGMENTS_MAX`].
    pub count: u8,
    /// Bytes of the whole record, at most [`RECORD_MAX`].
    pub total: u16,
    /// As long as all others but the last.
    pub piece: &'a [u8],
}

impl Fragment<'_> {
    /// Bytes of the record before this piece.
    pub fn offset(&self) -> usize {
        usize::from(self.index) * usize::from(self.total).div_ceil(usize::from(self.count))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// With whether it was sent before.
    Media {
        media: Media<'a>,
        repair: bool,
    },
    Clock(Clock<u64>),
    /// Somebody needs a keyframe of this layer.
    Keyframe {
        lane: LaneId,
        layer: u8,
    },
    Feedback(Feedback<'a>),
    Ping {
        sent_at: u64,
    },
    Pong {
        ping_sent_at: u64,
        ping_received_at: u64,
        sent_at: u64,
    },
    Fragment(Fragment<'a>),
    /// Of a later version.
    Unknown,
}

impl<'a> Record<'a> {
    /// Writes a record of the kinds that fit anywhere; media and feedback are written where
    /// their bytes are. Returns the length, at most [`CONTROL_LEN_MAX`].
    pub fn write_control(&self, out: &mut [u8]) -> usize {
        let mut writer = Writer::new(&mut out[PREFIX_LEN..]);
        let kind = match *self {
            Self::Clock(Clock { lane, layer, source, ntp, rtp, clock_rate, arrival }) => {
                writer.u24(lane.0);
                writer.u8(layer);
                writer.u32(source);
                writer.u64(ntp);
                writer.u32(rtp);
                writer.u32(clock_rate);
                writer.u48(arrival);
                TYPE_CLOCK
            }
            Self::Keyframe { lane, layer } => {
                writer.u24(lane.0);
                writer.u8(layer);
                TYPE_KEYFRAME
            }
            Self::Ping { sent_at } => {
                writer.u48(sent_at);
                TYPE_PING
            }
            Self::Pong { ping_sent_at, ping_received_at, sent_at } => {
                writer.u48(ping_sent_at);
                writer.u48(ping_received_at);
                writer.u48(sent_at);
                TYPE_PONG
            }
            Self::Media { .. } | Self::Feedback(_) | Self::Fragment(_) | Self::Unknown => return 0,
        };
        let len = writer.len();
        write_prefix(kind, len, out);
        PREFIX_LEN + len
    }

    fn parse(kind: u8, flags: u8, fields: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(fields);
        Ok(match kind {
            TYPE_MEDIA => {
                let media = Media::parse(flags, fields)?;
                Self::Media { media, repair: flags & REPAIR != 0 }
            }
            TYPE_CLOCK => Self::Clock(Clock {
                lane: reader.lane()?,
                layer: reader.u8()?,
                source: reader.u32()?,
                ntp: reader.u64()?,
                rtp: reader.u32()?,
                clock_rate: reader.u32()?,
                arrival: reader.u48()?,
            }),
            TYPE_KEYFRAME => Self::Keyframe { lane: reader.lane()?, layer: reader.u8()? },
            TYPE_FEEDBACK => Self::Feedback(Feedback::parse(fields)?),
            TYPE_PING => Self::Ping { sent_at: reader.u48()? },
            TYPE_PONG => Self::Pong {
                ping_sent_at: reader.u48()?,
                ping_received_at: reader.u48()?,
                sent_at: reader.u48()?,
            },
            TYPE_FRAGMENT => {
                let (id, index, count) = (reader.u16()?, reader.u8()?, reader.u8()?);
                let (total, piece) = (reader.u16()?, reader.0);
                parse_fragment(Fragment { id, index, count, total, piece })?
            }
            _ => Self::Unknown,
        })
    }
}

/// A piece must be exactly where and as long as its numbers say.
fn parse_fragment(fragment: Fragment<'_>) -> Result<Record<'_>, Malformed> {
    let Fragment { index, count, total, piece, .. } = fragment;
    if index >= count || usize::from(count) > FRAGMENTS_MAX || usize::from(total) > RECORD_MAX {
        return Err(Malformed);
    }
    let usual = usize::from(total).div_ceil(usize::from(count));
    let rest = usize::from(total).checked_sub(fragment.offset()).ok_or(Malformed)?;
    if piece.is_empty() || piece.len() != usual.min(rest) {
        return Err(Malformed);
    }
    Ok(Record::Fragment(fragment))
}

/// Writes the head of a fragment whose piece follows.
pub fn write_fragment_head(fragment: &Fragment<'_>, out: &mut [u8]) {
    write_prefix(TYPE_FRAGMENT, FRAGMENT_HEAD_LEN - PREFIX_LEN + fragment.piece.len(), out);
    let mut writer = Writer::new(&mut out[PREFIX_LEN..]);
    writer.u16(fragment.id);
    writer.u8(fragment.index);
    writer.u8(fragment.count);
    writer.u16(fragment.total);
}

/// Writes the type and length of a feedback record whose fields, of `len` bytes, follow.
pub fn write_feedback_prefix(len: usize, out: &mut [u8]) {
    write_prefix(TYPE_FEEDBACK, len, out);
}

fn write_prefix(kind: u8, len: usize, out: &mut [u8]) {
    let [len0, len1] = (len as u16).to_be_bytes();
    out[..PREFIX_LEN].copy_from_slice(&[kind << 4, len0, len1]);
}

/// The records of an opened datagram. After an error the rest is still read, unless the error
/// was a length.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let padding = self.rest.iter().take_while(|byte| **byte == 0).count();
        self.rest = &self.rest[padding..];
        if self.rest.is_empty() {
            return None;
        }
        let Some((&[kind, len0, len1], rest)) = self.rest.split_first_chunk() else {
            self.rest = &[];
            return Some(Err(Malformed));
        };
        let len = usize::from(u16::from_be_bytes([len0, len1]));
        let Some((fields, rest)) = rest.split_at_checked(len) else {
            self.rest = &[];
            return Some(Err(Malformed));
        };
        self.rest = rest;
        Some(Record::parse(kind >> 4, kind & 0xf, fields))
    }
}

/// The longest record of [`Record::write_control`]: a clock.
pub const CONTROL_LEN_MAX: usize = PREFIX_LEN + 30;

const TYPE_MEDIA: u8 = 1;
const TYPE_CLOCK: u8 = 2;
const TYPE_KEYFRAME: u8 = 3;
const TYPE_FEEDBACK: u8 = 4;
const TYPE_PING: u8 = 5;
const TYPE_PONG: u8 = 6;
const TYPE_FRAGMENT: u8 = 7;

const MARKER: u8 = 1;
const KEYFRAME: u8 = 2;
const REPAIR: u8 = 4;
const EXTENSIONS: u8 = 8;

const _: () = assert!(
    RECORD_MAX.div_ceil(super::DATAGRAM_MIN - super::OVERHEAD - FRAGMENT_HEAD_LEN) <= FRAGMENTS_MAX
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_a_later_version_are_skipped() {
        let mut text = vec![0xF0, 0, 2, 9, 9];
        let ping = Record::Ping { sent_at: 5 };
        let mut out = [0; CONTROL_LEN_MAX];
        let len = ping.write_control(&mut out);
        // A ping that says more than we understand.
        out[2] += 1;
        text.extend_from_slice(&out[..len]);
        text.push(0xEE);
        text.extend_from_slice(&[0, 0]);
        let read: Vec<_> = Records::new(&text).collect();
        assert_eq!(read, [Ok(Record::Unknown), Ok(ping)]);
    }

    #[test]
    fn a_bad_record_does_not_hide_the_next_but_a_bad_length_does() {
        let mut out = [0; CONTROL_LEN_MAX];
        let len = Record::Ping { sent_at: 5 }.write_control(&mut out);
        let good = &out[..len];
        let short_ping = [TYPE_PING << 4, 0, 1, 7];
        let text = [&short_ping, good].concat();
        let read: Vec<_> = Records::new(&text).collect();
        assert_eq!(read, [Err(Malformed), Ok(Record::Ping { sent_at: 5 })]);
        let text = [good, &[TYPE_PING << 4, 0, 200], good].concat();
        assert_eq!(Records::new(&text).count(), 2);
        assert_eq!(Records::new(&text).last(), Some(Err(Malformed)));
    }

    #[test]
    fn a_fragment_that_is_not_where_it_says_is_refused() {
        let piece = [7; 100];
        let good = Fragment { id: 1, index: 2, count: 3, total: 250, piece: &piece[..82] };
        assert_eq!(read(&good), Ok(Record::Fragment(good)));
        assert_eq!(good.offset(), 168);
        for bad in [
            Fragment { index: 3, ..good },
            Fragment { count: 0, ..good },
            Fragment { count: 17, ..good },
            Fragment { total: RECORD_MAX as u16 + 1, ..good },
            Fragment { total: 100, ..good },
            Fragment { piece: &piece[..81], ..good },
            Fragment { piece: &[], ..good },
        ] {
            assert_eq!(read(&bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_packet_that_cannot_be_numbered_or_is_too_long_is_not_sendable() {
        let payload = [0; RECORD_MAX];
        let media = Media { payload: &payload[..RECORD_MAX - MEDIA_HEAD_LEN], ..example() };
        assert!(media.is_sendable());
        assert!(!Media { payload: &payload, ..media }.is_sendable());
        assert!(!Media { extensions: &[1], ..media }.is_sendable());
        assert!(!Media { seq: U48_MAX + 1, ..media }.is_sendable());
    }

    proptest! {
        #[test]
        fn media_is_read_as_written(
            (lane, layer, codec) in (0u32..1 << 24, any::<u8>(), any::<u8>()),
            (marker, keyframe, repair) in any::<(bool, bool, bool)>(),
            (padding, source, seq) in (any::<u8>(), any::<u32>(), 0..U48_MAX + 1),
            timestamp: u32,
            extensions in prop::collection::vec(any::<u8>(), 0..300),
            payload in prop::collection::vec(any::<u8>(), 0..1300),
            pads in (0usize..70, 0usize..70),
        ) {
            let media = Media {
                lane: LaneId(lane), layer, codec, marker, keyframe, padding, source, seq,
                timestamp, extensions: &extensions, payload: &payload,
            };
            let mut text = vec![0; pads.0 + media.record_len() + pads.1];
            let len = media.write(repair, &mut text[pads.0..]);
            prop_assert_eq!(len, media.record_len());
            let read: Vec<_> = Records::new(&text).collect();
            prop_assert_eq!(read, [Ok(Record::Media { media, repair })]);
        }

        #[test]
        fn control_records_are_read_as_written(
            lane in 0u32..1 << 24, layer: u8, source: u32, ntp: u64, rtp: u32, clock_rate: u32,
            times in prop::array::uniform3(0..U48_MAX + 1),
        ) {
            let lane = LaneId(lane);
            let [a, b, c] = times;
            let mut text = Vec::new();
            let records = [
                Record::Clock(Clock { lane, layer, source, ntp, rtp, clock_rate, arrival: a }),
                Record::Keyframe { lane, layer },
                Record::Ping { sent_at: b },
                Record::Pong { ping_sent_at: c, ping_received_at: a, sent_at: b },
            ];
            for record in &records {
                let mut out = [0; CONTROL_LEN_MAX];
                let len = record.write_control(&mut out);
                text.extend_from_slice(&out[..len]);
            }
            let read: Vec<_> = Records::new(&text).flatten().collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn any_bytes_are_read_to_their_end(text in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Records::new(&text).count() <= text.len());
        }
    }

    fn read<'a>(fragment: &Fragment<'_>) -> Result<Record<'a>, Malformed> {
        let mut out = vec![0; FRAGMENT_HEAD_LEN];
        write_fragment_head(fragment, &mut out);
        out.extend_from_slice(fragment.piece);
        Records::new(out.leak()).next().expect("one record")
    }

    fn example() -> Media<'static> {
        Media {
            lane: LaneId(1),
            layer: 0,
            codec: 0,
            marker: false,
            keyframe: false,
            padding: 0,
            source: 1,
            seq: 1,
            timestamp: 1,
            extensions: &[],
            payload: &[],
        }
    }
}
