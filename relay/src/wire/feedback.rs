//! Which datagrams of the other side did not come: runs of missing numbers, counted back from
//! the largest that did.
//!
//! ```text
//!  largest u48 | received at u48 | held u24 | runs u8 | runs × (gap, len)
//! ```
//!
//! A gap is the distance from the run's last number up to the first of the run before it (to
//! the largest, for the first one), so 1 at least. Gaps and lengths are one byte below 128, else
//! two with the upper bit set.
//!
//! Invariants: runs descend and do not overlap; one record has at most [`RUNS_MAX`] of them.

use super::Malformed;
use super::bytes::{Reader, Writer};

/// Runs in one record. Losses come in bursts: 64 bursts within one round trip are an outage,
/// and the rest is told by the next feedback.
pub const RUNS_MAX: usize = 64;

/// The largest gap or length that can be told. What is farther back than this is not worth
/// repairing any more.
pub const SPAN_MAX: u64 = 0x7fff;

/// Bytes that so many runs may take in a record, without its type and length.
pub const fn len_max(runs: usize) -> usize {
    HEAD_LEN + 4 * runs
}

/// Consecutive numbers that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingRun {
    pub first: u64,
    pub len: u64,
}

/// What the other side received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feedback<'a> {
    /// The largest number received.
    pub largest: u64,
    /// When it was, in µs of the reporter's link time.
    pub received_at: u64,
    /// How long before this report that was, in µs; 24 bits, saturating.
    pub held: u32,
    runs: u8,
    bytes: &'a [u8],
}

impl<'a> Feedback<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let feedback = Self {
            largest: reader.u48()?,
            received_at: reader.u48()?,
            held: reader.u24()?,
            runs: reader.u8()?,
            bytes: reader.0,
        };
        // Checked as a whole, so that nobody acts upon one half.
        let mut runs = feedback.runs();
        if usize::from(feedback.runs) > RUNS_MAX || runs.by_ref().any(|run| run.is_err()) {
            return Err(Malformed);
        }
        Ok(feedback)
    }

    /// The missing runs, from the largest numbers down.
    pub fn missing(&self) -> impl Iterator<Item = MissingRun> + use<'a> {
        self.runs().flatten()
    }

    fn runs(&self) -> Runs<'a> {
        Runs { reader: Reader(self.bytes), left: self.runs, below: self.largest }
    }
}

/// Writes a report: `runs` from the largest numbers down. Returns the length, at most
/// [`len_max`]`(RUNS_MAX)`; what cannot be told is left out.
pub fn write(
    out: &mut [u8],
    largest: u64,
    received_at: u64,
    held: u32,
    runs: impl Iterator<Item = MissingRun>,
) -> usize {
    let mut writer = Writer::new(out);
    writer.u48(largest);
    writer.u48(received_at);
    writer.u24(held);
    writer.u8(0);
    let (mut below, mut count) = (largest, 0);
    for MissingRun { first, len } in runs.take(RUNS_MAX) {
        let gap = below.wrapping_sub(first + len - 1);
        if gap == 0 || gap > SPAN_MAX || len == 0 || len > SPAN_MAX {
            break;
        }
        span(&mut writer, gap);
        span(&mut writer, len);
        (below, count) = (first, count + 1);
    }
    let len = writer.len();
    out[HEAD_LEN - 1] = count;
    len
}

struct Runs<'a> {
    reader: Reader<'a>,
    left: u8,
    below: u64,
}

impl Runs<'_> {
    fn read(&mut self) -> Result<MissingRun, Malformed> {
        let (gap, len) = (self.span()?, self.span()?);
        if gap == 0 || len == 0 {
            return Err(Malformed);
        }
        let first = self.below.checked_sub(gap + len - 1).ok_or(Malformed)?;
        self.below = first;
        Ok(MissingRun { first, len })
    }

    fn span(&mut self) -> Result<u64, Malformed> {
        let first = self.reader.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        Ok(u64::from(first & 0x7f) << 8 | u64::from(self.reader.u8()?))
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<MissingRun, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.read())
    }
}

fn span(writer: &mut Writer<'_>, value: u64) {
    if value < 0x80 {
        writer.u8(value as u8);
    } else {
        writer.u16(0x8000 | value as u16);
    }
}

/// Without the runs.
const HEAD_LEN: usize = 6 + 6 + 3 + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_report_that_counts_below_zero_is_refused() {
        let mut bytes = [0; len_max(1)];
        let run = MissingRun { first: 0, len: 3 };
        let len = write(&mut bytes, 5, 0, 0, [run].into_iter());
        assert!(Feedback::parse(&bytes[..len]).is_ok());
        bytes[len - 1] = 4;
        assert_eq!(Feedback::parse(&bytes[..len]), Err(Malformed));
    }

    #[test]
    fn a_report_cut_short_is_refused() {
        let mut bytes = [0; len_max(2)];
        let runs = [MissingRun { first: 900, len: 1 }, MissingRun { first: 100, len: 300 }];
        let len = write(&mut bytes, 1000, 7, 9, runs.into_iter());
        assert_eq!(Feedback::parse(&bytes[..len]).unwrap().missing().collect::<Vec<_>>(), runs);
        for short in 0..len {
            assert_eq!(Feedback::parse(&bytes[..short]), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            largest in 1u64 << 32..1 << 48, at in 0u64..1 << 48, held in 0u32..1 << 24,
            spans in prop::collection::vec((1u64..SPAN_MAX + 1, 1u64..SPAN_MAX + 1), 0..RUNS_MAX),
        ) {
            let mut below = largest;
            let runs: Vec<_> = spans.iter().map(|&(gap, len)| {
                below -= gap + len - 1;
                MissingRun { first: below, len }
            }).collect();
            let mut bytes = [0; len_max(RUNS_MAX)];
            let len = write(&mut bytes, largest, at, held, runs.iter().copied());
            let read = Feedback::parse(&bytes[..len]).unwrap();
            prop_assert_eq!((read.largest, read.received_at, read.held), (largest, at, held));
            prop_assert_eq!(read.missing().collect::<Vec<_>>(), runs);
        }
    }
}
