//! Puts together the packets that did not fit one datagram.
//!
//! Invariants: at most [`PARTS_MAX`] at once, each of at most `RECORD_MAX` bytes and
//! [`AGE_MAX`] old; the oldest makes room. A record is whole when each of its pieces came, none
//! twice.

use super::fault::Fault;
use crate::wire::{Fragment, RECORD_MAX};

/// Records put together at once. Their pieces leave back to back, so that only lost or
/// reordered ones wait here. 32 KiB on a link that has any.
const PARTS_MAX: usize = 8;

/// In µs. What was lost of it is sent again as a whole, under another id.
const AGE_MAX: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Fragments {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    id: u16,
    count: u8,
    total: u16,
    since: u64,
    /// One bit per piece; 0 if nothing is being put together here.
    came: u16,
    bytes: Box<[u8]>,
}

impl Fragments {
    /// Takes a piece; the whole record if it was the last one missing.
    pub(super) fn on_piece(
        &mut self,
        fragment: &Fragment<'_>,
        now: u64,
    ) -> Result<Option<&[u8]>, Fault> {
        let Fragment { id, index, count, total, piece } = *fragment;
        let fresh = |part: &Part| part.came != 0 && now.saturating_sub(part.since) <= AGE_MAX;
        let known = self.parts.iter().position(|part| fresh(part) && part.id == id);
        let at = known.unwrap_or_else(|| self.place(now));
        let part = &mut self.parts[at];
        if known.is_none() {
            (part.id, part.count, part.total, part.since, part.came) = (id, count, total, now, 0);
        } else if (part.count, part.total) != (count, total) || part.came & (1 << index) != 0 {
            return Err(Fault::Fragment);
        }
        part.bytes[fragment.offset()..][..piece.len()].copy_from_slice(piece);
        part.came |= 1 << index;
        if part.came.count_ones() < u32::from(count) {
            return Ok(None);
        }
        part.came = 0;
        Ok(Some(&part.bytes[..usize::from(total)]))
    }

    /// A place for another record.
    fn place(&mut self, now: u64) -> usize {
        let over = |part: &Part| part.came == 0 || now.saturating_sub(part.since) > AGE_MAX;
        if let Some(at) = self.parts.iter().position(over) {
            return at;
        }
        if self.parts.len() < PARTS_MAX {
            let bytes = vec![0; RECORD_MAX].into_boxed_slice();
            self.parts.push(Part { id: 0, count: 0, total: 0, since: now, came: 0, bytes });
            return self.parts.len() - 1;
        }
        let ages = self.parts.iter().enumerate();
        ages.min_by_key(|(_, part)| part.since).map_or(0, |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_a_whole_in_any_order() {
        let whole: Vec<u8> = (0..250).map(|n| n as u8).collect();
        let mut fragments = Fragments::default();
        for (id, order) in [(1, [0, 1, 2]), (2, [2, 0, 1]), (u16::MAX, [1, 2, 0])] {
            for (nth, index) in order.into_iter().enumerate() {
                let made = fragments.on_piece(&piece(id, index, &whole), 0).unwrap();
                assert_eq!(made, (nth == 2).then_some(&whole[..]));
            }
        }
        assert_eq!(fragments.parts.len(), 1, "the place is used again");
    }

    #[test]
    fn a_piece_that_contradicts_the_others_or_comes_twice_is_a_fault() {
        let whole = [7; 250];
        let mut fragments = Fragments::default();
        fragments.on_piece(&piece(1, 0, &whole), 0).unwrap();
        assert_eq!(fragments.on_piece(&piece(1, 0, &whole), 0), Err(Fault::Fragment));
        assert_eq!(fragments.on_piece(&piece(1, 1, &whole[..249]), 0), Err(Fault::Fragment));
        assert_eq!(fragments.on_piece(&piece(1, 1, &whole), 0), Ok(None));
    }

    #[test]
    fn pieces_older_than_a_second_are_not_joined() {
        let (old, new) = ([1; 250], [2; 250]);
        let mut fragments = Fragments::default();
        fragments.on_piece(&piece(1, 0, &old), 0).unwrap();
        fragments.on_piece(&piece(1, 1, &old), 0).unwrap();
        let later = AGE_MAX + 1;
        assert_eq!(fragments.on_piece(&piece(1, 2, &new), later), Ok(None));
        fragments.on_piece(&piece(1, 0, &new), later).unwrap();
        let made = fragments.on_piece(&piece(1, 1, &new), later).unwrap();
        assert_eq!(made, Some(&new[..]));
    }

    #[test]
    fn unfinished_records_take_bounded_memory() {
        let whole = [7; 250];
        let mut fragments = Fragments::default();
        for id in 0..1000 {
            assert_eq!(fragments.on_piece(&piece(id, 0, &whole), u64::from(id)), Ok(None));
        }
        assert_eq!(fragments.parts.len(), PARTS_MAX);
        fragments.on_piece(&piece(999, 1, &whole), 1000).unwrap();
        let made = fragments.on_piece(&piece(999, 2, &whole), 1000).unwrap();
        assert_eq!(made, Some(&whole[..]), "the newest are kept");
    }

    fn piece(id: u16, index: u8, whole: &[u8]) -> Fragment<'_> {
        let all = Fragment { id, index, count: 3, total: whole.len() as u16, piece: whole };
        let from = all.offset();
        let to = (from + whole.len().div_ceil(3)).min(whole.len());
        Fragment { piece: &whole[from..to], ..all }
    }
}
