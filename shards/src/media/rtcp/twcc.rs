//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which
//! packets of a session arrived, and when.
//!
//! A message is a run of packet statuses, in chunks, followed by one delta for every packet
//! that arrived. A chunk is either a run of one status or a vector: 14 statuses of 1 bit or 7
//! of 2 bits.
//!
//! Invariants: a parsed message has a status for each of its packets and a delta for each
//! that arrived, so iterating over it cannot fail.
//!
//! Not here: which packet a number was given to, what the delays say about the path.

use super::{
    FORMAT_TWCC, HEADER_LEN, TYPE_TRANSPORT_FEEDBACK, put_u32, read_u16, read_u32, write_packet,
};

/// A feedback message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twcc<'a> {
    pub sender: u32,
    pub media: u32,
    /// The transport-wide sequence number of the first packet reported on.
    pub base: u16,
    /// How many packets are reported on.
    pub count: u16,
    /// 24 bits, in units of 64 ms, of an unknown epoch.
    pub reference: u32,
    /// Counts feedback messages, modulo 256.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// What a feedback message says of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwccStatus {
    pub seq: u16,
    /// Ticks of 250 µs since the packet before it that arrived, or since the reference time;
    /// `None` if the packet has not arrived.
    pub delta: Option<i16>,
}

impl<'a> Twcc<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let word = read_u32(body, 12)?;
        let count = read_u16(body, 10)?;
        if count > COUNT_MAX {
            return None;
        }
        let rest = &body[16..];
        let (chunks_len, deltas_len) = measure(rest, count)?;
        let (chunks, rest) = rest.split_at(chunks_len);
        Some(Self {
            sender: read_u32(body, 0)?,
            media: read_u32(body, 4)?,
            base: read_u16(body, 8)?,
            count,
            reference: word >> 8,
            feedback_count: word as u8,
            chunks,
            deltas: rest.get(..deltas_len)?,
        })
    }

    /// One status for each of `count` packets.
    pub fn statuses(self) -> impl Iterator<Item = TwccStatus> + Clone + 'a {
        let (base, mut deltas) = (self.base, self.deltas);
        symbols(self.chunks).zip(0..self.count).map(move |(symbol, n)| {
            let delta = match symbol {
                Symbol::Missing => None,
                Symbol::Small => deltas.split_off_first().map(|&ticks| i16::from(ticks)),
                Symbol::Large => deltas.split_first_chunk().map(|(&ticks, rest)| {
                    deltas = rest;
                    i16::from_be_bytes(ticks)
                }),
            };
            TwccStatus { seq: base.wrapping_add(n), delta }
        })
    }

    /// As [`statuses`](Self::statuses), with the deltas added up: ticks of 250 µs since the
    /// epoch of the reference time, which wraps after 2^32 ticks, about 12 days.
    pub fn arrivals(self) -> impl Iterator<Item = (u16, Option<i64>)> + Clone + 'a {
        let mut ticks = i64::from(self.reference) * REFERENCE_TICKS;
        self.statuses().map(move |status| {
            let arrival = status.delta.map(|delta| {
                ticks += i64::from(delta);
                ticks
            });
            (status.seq, arrival)
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Symbol {
    Missing = 0,
    /// A delta of 0 to 255 ticks.
    Small = 1,
    /// A delta of 16 bits, signed.
    Large = 2,
}

impl Symbol {
    fn of_bits(bits: u16) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::Missing),
            1 => Some(Self::Small),
            2 => Some(Self::Large),
            // Reserved (§3.1.1).
            _ => None,
        }
    }

    fn of_delta(delta: Option<i16>) -> Self {
        match delta {
            None => Self::Missing,
            Some(0..=255) => Self::Small,
            Some(_) => Self::Large,
        }
    }

    fn delta_len(self) -> usize {
        self as usize
    }
}

/// The lengths of the chunks and of the deltas of `count` packets, or `None` if the chunks do
/// not reach that far or hold a reserved symbol.
fn measure(bytes: &[u8], count: u16) -> Option<(usize, usize)> {
    let (mut chunks_len, mut deltas_len) = (0, 0);
    let mut missing = usize::from(count);
    while missing > 0 {
        let chunk = Chunk(read_u16(bytes, chunks_len)?);
        chunks_len += 2;
        let len = chunk.len().min(missing);
        if chunk.is_run() {
            deltas_len += len * chunk.symbol(0)?.delta_len();
        } else {
            for at in 0..len {
                deltas_len += chunk.symbol(at)?.delta_len();
            }
        }
        missing -= len;
    }
    Some((chunks_len, deltas_len))
}

fn symbols(chunks: &[u8]) -> impl Iterator<Item = Symbol> + Clone + '_ {
    chunks.chunks_exact(2).flat_map(|pair| {
        let chunk = Chunk(u16::from_be_bytes([pair[0], pair[1]]));
        // Only what lies behind the last packet can be reserved still.
        (0..chunk.len()).map(move |at| chunk.symbol(at).unwrap_or(Symbol::Missing))
    })
}

/// A packet status chunk (§3.1.2 to §3.1.4).
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn run(symbol: Symbol, len: usize) -> Self {
        Self((symbol as u16) << 13 | len as u16)
    }

    fn is_run(self) -> bool {
        self.0 & 0x8000 == 0
    }

    /// How many statuses it holds.
    fn len(self) -> usize {
        match self.0 >> 14 {
            0b10 => SMALL_VECTOR_LEN,
            0b11 => LARGE_VECTOR_LEN,
            _ => usize::from(self.0 & RUN_LEN_MAX as u16),
        }
    }

    fn symbol(self, at: usize) -> Option<Symbol> {
        match self.0 >> 14 {
            0b10 => Symbol::of_bits(self.0 >> (SMALL_VECTOR_LEN - 1 - at) & 1),
            0b11 => Symbol::of_bits(self.0 >> (2 * (LARGE_VECTOR_LEN - 1 - at))),
            _ => Symbol::of_bits(self.0 >> 13),
        }
    }
}

/// Appends a feedback message on the packets from `base` on: `arrivals[n]` is when packet
/// `base + n` arrived, in ticks of 250 µs of any epoch, or `None` if it has not. At most
/// `room` bytes are appended.
///
/// Returns how many packets it reports on. It may be fewer than given, when the room or the
/// range of a delta (±8 s) is exceeded; the rest belongs into the next message. It is 0, and
/// nothing is appended, if none of the packets arrived or there is no room for any.
pub fn write_twcc(
    out: &mut Vec<u8>,
    sender: u32,
    media: u32,
    feedback_count: u8,
    base: u16,
    arrivals: &[Option<u64>],
    room: usize,
) -> usize {
    let Some(first) = arrivals.iter().flatten().next() else {
        return 0;
    };
    let reference = first / REFERENCE_TICKS as u64;
    let deltas = Deltas { arrivals, last: reference * REFERENCE_TICKS as u64 };
    let count = fit(deltas.clone(), room);
    // A message that is all losses would need a reference time out of nothing.
    if arrivals[..count].iter().flatten().next().is_none() {
        return 0;
    }
    write_packet(out, TYPE_TRANSPORT_FEEDBACK, FORMAT_TWCC, |out| {
        put_u32(out, sender);
        put_u32(out, media);
        put_u32(out, u32::from(base) << 16 | count as u32);
        put_u32(out, (reference as u32) << 8 | u32::from(feedback_count));
        let start = out.len();
        write_chunks(out, deltas.clone().take(count).map(Symbol::of_delta));
        for delta in deltas.take(count).flatten() {
            match u8::try_from(delta) {
                Ok(small) => out.push(small),
                Err(_) => out.extend_from_slice(&delta.to_be_bytes()),
            }
        }
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
    });
    count
}

/// The deltas of arrivals; ends at the first that has no encoding.
#[derive(Clone)]
struct Deltas<'a> {
    arrivals: &'a [Option<u64>],
    last: u64,
}

impl Iterator for Deltas<'_> {
    type Item = Option<i16>;

    fn next(&mut self) -> Option<Option<i16>> {
        let Some(arrival) = *self.arrivals.split_off_first()? else {
            return Some(None);
        };
        let delta = i16::try_from(arrival.wrapping_sub(self.last).cast_signed()).ok()?;
        self.last = arrival;
        Some(Some(delta))
    }
}

/// How many of the packets fit into a message of `room` bytes.
fn fit(deltas: Deltas<'_>, room: usize) -> usize {
    let mut deltas_len = 0;
    let mut count = 0;
    for delta in deltas.take(usize::from(COUNT_MAX)) {
        deltas_len += Symbol::of_delta(delta).delta_len();
        count += 1;
        // No chunk but the last holds fewer than a vector of large symbols.
        let chunks_len = 2 * usize::div_ceil(count, LARGE_VECTOR_LEN);
        let len = HEADER_LEN + FIXED_LEN + (chunks_len + deltas_len).next_multiple_of(4);
        if len > room {
            return count - 1;
        }
    }
    count
}

/// Appends chunks for these symbols: whichever of a run and a vector holds more of them.
fn write_chunks(out: &mut Vec<u8>, mut symbols: impl Iterator<Item = Symbol> + Clone) {
    while let Some(first) = symbols.clone().next() {
        let run_len =
            symbols.clone().take(RUN_LEN_MAX).take_while(|&symbol| symbol == first).count();
        let left = symbols.clone().take(SMALL_VECTOR_LEN).count();
        let has_large =
            symbols.clone().take(SMALL_VECTOR_LEN).any(|symbol| symbol == Symbol::Large);
        let vector_len = if has_large { LARGE_VECTOR_LEN } else { SMALL_VECTOR_LEN };
        let (chunk, len) = if run_len >= vector_len.min(left) {
            (Chunk::run(first, run_len), run_len)
        } else {
            (vector(symbols.clone(), has_large), vector_len)
        };
        out.extend_from_slice(&chunk.0.to_be_bytes());
        // Skips past the end where the last vector has room to spare.
        symbols.by_ref().take(len).for_each(drop);
    }
}

fn vector(symbols: impl Iterator<Item = Symbol>, has_large: bool) -> Chunk {
    let (head, len, width) =
        if has_large { (0b11, LARGE_VECTOR_LEN, 2) } else { (0b10, SMALL_VECTOR_LEN, 1) };
    let padded = symbols.chain(std::iter::repeat(Symbol::Missing)).take(len);
    Chunk(padded.fold(head, |bits, symbol| bits << width | symbol as u16))
}

/// Far more than any receiver reports on at once (a second of 300 Mbit/s), and a bound on the
/// work that a message of a few bytes can cause.
const COUNT_MAX: u16 = 1 << 15;

/// Everything in front of the chunks, without the header.
const FIXED_LEN: usize = 16;
/// The reference time counts 64 ms, a delta 250 µs.
const REFERENCE_TICKS: i64 = 256;
const RUN_LEN_MAX: usize = 0x1FFF;
const SMALL_VECTOR_LEN: usize = 14;
const LARGE_VECTOR_LEN: usize = 7;

#[cfg(test)]
mod tests {
    use super::super::{Compound, Packet};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_read_as_the_draft_says() {
        // Base 5, 7 packets, reference 4, feedback 1: a run of 2 small, then a vector of 7
        // with large, missing, small, missing, missing.
        let bytes = [
            &[0x8F, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 5, 0, 7, 0, 0, 4, 1][..],
            &[0x20, 2, 0b1110_0001, 0b0000_0000, 10, 20, 0xFF, 0xFE, 30, 0, 0, 0],
        ]
        .concat();
        let twcc = read(&bytes);
        assert_eq!((twcc.sender, twcc.media, twcc.base, twcc.count), (1, 2, 5, 7));
        assert_eq!((twcc.reference, twcc.feedback_count), (4, 1));
        let deltas: Vec<_> = twcc.statuses().map(|status| status.delta).collect();
        assert_eq!(deltas, [Some(10), Some(20), Some(-2), None, Some(30), None, None]);
        let arrivals: Vec<_> = twcc.arrivals().collect();
        assert_eq!(arrivals[0], (5, Some(1034)));
        assert_eq!(arrivals[4], (9, Some(1034 + 20 - 2 + 30)));
    }

    #[test]
    fn messages_that_promise_more_than_they_hold_are_malformed() {
        let mut good = Vec::new();
        write_twcc(&mut good, 1, 2, 0, 0, &[Some(0); 20], 1200);
        let refused = |at: usize, bad: u8| {
            let mut bytes = good.clone();
            bytes[at] = bad;
            let mut compound = Compound::new(&bytes);
            compound.next().is_none() && compound.is_malformed()
        };
        assert!(!refused(0, 0x8F));
        assert!(refused(14, 0xFF), "more packets than any report has");
        assert!(refused(15, 21), "more packets than statuses");
        assert!(refused(20, 0x40), "more deltas than bytes");
        assert!(refused(20, 0x60), "a reserved symbol");
        assert!(refused(3, 4), "no room for chunks");
    }

    #[test]
    fn the_shorter_chunk_is_chosen() {
        let sizes = |arrivals: &[Option<u64>]| {
            let mut out = Vec::new();
            assert_eq!(write_twcc(&mut out, 1, 2, 0, 0, arrivals, 4000), arrivals.len());
            read(&out).chunks.len()
        };
        assert_eq!(sizes(&[Some(3); 1000]), 2);
        let alternating: Vec<_> = (0..28).map(|n| (n % 2 == 0).then_some(3)).collect();
        assert_eq!(sizes(&alternating), 4);
        let large: Vec<_> = (0..7).map(|n| (n % 2 == 0).then_some(n * 1000)).collect();
        assert_eq!(sizes(&large), 2);
        assert_eq!(sizes(&[Some(0), None, None, None]), 2);
        let mut holes = vec![Some(3); 300];
        holes[100..200].fill(None);
        assert_eq!(sizes(&holes), 6);
    }

    #[test]
    fn what_cannot_be_said_in_one_message_is_left_for_the_next() {
        let mut out = Vec::new();
        let arrivals = [Some(1_000_000), Some(1_000_001), Some(1_040_000), None];
        assert_eq!(write_twcc(&mut out, 1, 2, 0, 10, &arrivals, 1200), 2);
        assert_eq!(write_twcc(&mut out, 1, 2, 1, 12, &arrivals[2..], 1200), 2);
        let read: Vec<_> = Compound::new(&out)
            .flat_map(|packet| match packet {
                Packet::Twcc(twcc) => twcc.arrivals(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [1_000_000, 1_000_001, 1_040_000].map(Some);
        assert_eq!(read[..3], [10, 11, 12].map(|n| (n, expected[usize::from(n) - 10])));
        assert_eq!(read[3], (13, None));
    }

    #[test]
    fn nothing_is_said_about_nothing() {
        let mut out = Vec::new();
        assert_eq!(write_twcc(&mut out, 1, 2, 0, 0, &[], 1200), 0);
        assert_eq!(write_twcc(&mut out, 1, 2, 0, 0, &[None; 9], 1200), 0);
        assert_eq!(write_twcc(&mut out, 1, 2, 0, 0, &[Some(1)], 23), 0);
        assert!(out.is_empty());
        assert_eq!(write_twcc(&mut out, 1, 2, 0, 0, &[Some(1)], 24), 1);
        assert_eq!(out.len(), 24);
    }

    fn any_arrivals() -> impl Strategy<Value = Vec<Option<u64>>> {
        let step = prop_oneof![
            6 => 0i64..40,
            2 => -300i64..600,
            1 => -32_768i64..32_768,
        ];
        let packet =
            (prop::bool::weighted(0.8), step, prop_oneof![8 => Just(1usize), 1 => 1..40usize]);
        (100_000u64..1 << 31, prop::collection::vec(packet, 1..200)).prop_map(|(start, packets)| {
            let mut arrivals = Vec::new();
            let mut now = start;
            for (arrived, step, times) in packets {
                for _ in 0..times {
                    if arrived {
                        now = now.saturating_add_signed(step);
                    }
                    arrivals.push(arrived.then_some(now));
                }
            }
            arrivals
        })
    }

    proptest! {
        #[test]
        fn arrivals_come_back_as_they_were(
            sender: u32,
            media: u32,
            base: u16,
            feedback_count: u8,
            arrivals in any_arrivals(),
            room in 24usize..1200,
        ) {
            let mut rest = &arrivals[..];
            let mut base = base;
            while rest.iter().any(Option::is_some) {
                let mut out = Vec::new();
                let count =
                    write_twcc(&mut out, sender, media, feedback_count, base, rest, room);
                prop_assert!(out.len() <= room);
                if count == 0 {
                    // Losses in front of the first arrival took all the room.
                    prop_assert!(rest.iter().take_while(|arrival| arrival.is_none()).count() >= LARGE_VECTOR_LEN);
                    break;
                }
                let twcc = read(&out);
                prop_assert_eq!((twcc.sender, twcc.media), (sender, media));
                prop_assert_eq!((twcc.base, twcc.feedback_count), (base, feedback_count));
                let seqs = (0..count).map(|n| base.wrapping_add(n as u16));
                let expected: Vec<_> =
                    seqs.zip(rest).map(|(seq, arrival)| (seq, arrival.map(u64::cast_signed))).collect();
                prop_assert_eq!(twcc.arrivals().collect::<Vec<_>>(), expected);
                base = base.wrapping_add(count as u16);
                rest = &rest[count..];
            }
        }

        #[test]
        fn the_estimate_of_chunks_is_an_upper_bound(arrivals in any_arrivals()) {
            let mut out = Vec::new();
            let count = write_twcc(&mut out, 1, 2, 3, 4, &arrivals, usize::MAX);
            if count > 0 {
                prop_assert!(read(&out).chunks.len() <= 2 * count.div_ceil(LARGE_VECTOR_LEN));
            }
        }
    }

    fn read(bytes: &[u8]) -> Twcc<'_> {
        match Compound::new(bytes).next() {
            Some(Packet::Twcc(twcc)) => twcc,
            other => panic!("no feedback but {other:?}"),
        }
    }
}
