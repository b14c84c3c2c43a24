//! What became of each sequence number of one stream: arrived, late, twice, never.
//!
//! Invariants: every number from the first to the highest is counted exactly once as received or
//! lost, a lost one when it is [`WINDOW`] behind the highest, when the books are closed over it,
//! or at the end.

/// How far behind a packet may come and still be told from a duplicate.
pub(super) const WINDOW: u64 = 1024;

/// Where an arriving packet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The next, or the first.
    Next,
    /// Later than the next: those between are missing so far.
    Ahead,
    /// One that was missing.
    Late,
    /// Came before.
    Duplicate,
    /// Too old to tell: counted lost already.
    Ancient,
}

/// The sequence numbers of one SSRC, extended to 64 bits.
#[derive(Debug, Clone)]
pub struct Order {
    first: u64,
    highest: Option<u64>,
    /// A bit per number in (highest - WINDOW, highest], at its place modulo `WINDOW`.
    seen: [u64; (WINDOW / 64) as usize],
    lost: u64,
    /// Up to where [`Self::close`] counts.
    line: Option<u64>,
    /// The next gap is nobody's fault.
    forgives: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            first: 0,
            highest: None,
            seen: [0; (WINDOW / 64) as usize],
            lost: 0,
            line: None,
            forgives: false,
        }
    }
}

impl Order {
    /// The number closest to the highest that ends in `seq` (RFC 3711 appendix A). `None`: from
    /// before the first cycle, which only something older than the first packet can be.
    #[inline]
    pub fn extend(&self, seq: u16) -> Option<u64> {
        let Some(highest) = self.highest else { return Some(u64::from(seq)) };
        let distance = i64::from(seq.wrapping_sub(highest as u16) as i16);
        highest.checked_add_signed(distance)
    }

    /// Notes an arrival.
    #[inline]
    pub fn note(&mut self, number: u64) -> Place {
        let Some(highest) = self.highest else {
            self.first = number;
            self.highest = Some(number);
            self.mark(number);
            return Place::Next;
        };
        if number == highest + 1 {
            self.forgives = false;
            self.advance(number);
            self.mark(number);
            return Place::Next;
        }
        if number > highest && self.forgives {
            self.lost += self.missing();
            (self.first, self.highest, self.forgives) = (number, Some(number), false);
            self.mark(number);
            return Place::Ahead;
        }
        if number > highest {
            // A jump beyond the window empties it: no need to walk further than that.
            for passed in highest + 1..=number.min(highest + WINDOW) {
                self.advance(passed);
            }
            self.lost += (number - highest).saturating_sub(WINDOW);
            self.highest = Some(number);
            self.mark(number);
            return Place::Ahead;
        }
        if number < self.first || highest - number >= WINDOW {
            return Place::Ancient;
        }
        if self.seen[word(number)] & bit(number) != 0 {
            return Place::Duplicate;
        }
        self.mark(number);
        Place::Late
    }

    /// Moves the window: what falls out of it unseen is lost.
    #[inline]
    fn advance(&mut self, to: u64) {
        if to >= self.first + WINDOW && self.seen[word(to)] & bit(to) == 0 {
            self.lost += 1;
        }
        self.seen[word(to)] &= !bit(to);
        self.highest = Some(to);
    }

    #[inline]
    fn mark(&mut self, number: u64) {
        self.seen[word(number)] |= bit(number);
    }

    /// Numbers found lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Draws a line behind what has come: [`Self::close`] counts up to here.
    pub fn draw_line(&mut self) {
        self.line = self.highest;
    }

    /// Closes the books up to the line: what is still missing there is lost now, and what comes
    /// of it later is too old.
    pub fn close(&mut self) {
        let (Some(line), Some(highest)) = (self.line.take(), self.highest) else { return };
        // A receiver that has been away since begins anew behind the line.
        if line < self.first {
            return;
        }
        let from = self.first.max((highest + 1).saturating_sub(WINDOW));
        self.lost += self.missing_in(from, line);
        self.first = line + 1;
    }

    /// The next gap does not count: the receiver was away for its own reasons.
    pub fn forgive(&mut self) {
        self.forgives = true;
    }

    /// Ends the stream: what is missing now is lost. Returns what [`Self::take_lost`] would.
    pub fn finish(&mut self) -> u64 {
        self.lost += self.missing();
        self.highest = None;
        self.take_lost()
    }

    /// Numbers in the window that have not come.
    fn missing(&self) -> u64 {
        let Some(highest) = self.highest else { return 0 };
        self.missing_in(self.first.max((highest + 1).saturating_sub(WINDOW)), highest)
    }

    fn missing_in(&self, from: u64, to: u64) -> u64 {
        (from..=to).filter(|&n| self.seen[word(n)] & bit(n) == 0).count() as u64
    }

    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

fn word(number: u64) -> usize {
    (number % WINDOW / 64) as usize
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn received_and_lost_make_up_all(
            start in 0u64..70_000,
            arrivals in prop::collection::vec(0u64..4000, 1..600),
            marks in prop::collection::vec(0usize..600, 0..6),
        ) {
            let mut order = Order::default();
            let mut received = BTreeSet::new();
            let mut lost = 0;
            let numbers: Vec<u64> = arrivals.iter().scan(start, |at, step| {
                // Mostly small steps ahead, some back, some far.
                *at = match step % 10 { 0 => at.saturating_sub(step % 700), 1 => *at + step, _ => *at + 1 };
                Some(*at)
            }).collect();
            for (at, &number) in numbers.iter().enumerate() {
                if marks.contains(&at) {
                    order.draw_line();
                } else if marks.iter().any(|mark| mark + 7 == at) {
                    order.close();
                }
                match order.note(number) {
                    Place::Next | Place::Ahead | Place::Late => { prop_assert!(received.insert(number)) }
                    Place::Duplicate => prop_assert!(received.contains(&number)),
                    Place::Ancient => {}
                }
                lost += order.take_lost();
            }
            let highest = *received.last().unwrap();
            let first = numbers[0];
            lost += order.finish();
            prop_assert_eq!(lost + received.len() as u64, highest - first + 1);
        }
    }

    #[test]
    fn what_is_missing_before_the_line_is_counted_when_it_is_closed() {
        let mut order = Order::default();
        for number in [10, 11, 13, 15, 16] {
            order.note(number);
        }
        order.draw_line();
        // A repair under way when the line was drawn is no loss; a hole behind it comes later.
        assert_eq!((order.note(14), order.note(18)), (Place::Late, Place::Ahead));
        order.close();
        assert_eq!((order.take_lost(), order.note(12)), (1, Place::Ancient));
        assert_eq!((order.note(16), order.note(20)), (Place::Ancient, Place::Ahead));
        order.close();
        assert_eq!((order.take_lost(), order.finish()), (0, 2));
    }

    #[test]
    fn what_came_before_the_first_cycle_is_not_the_end_of_it() {
        let mut order = Order::default();
        assert_eq!(order.note(3), Place::Next);
        assert_eq!((order.extend(65_535), order.extend(0)), (None, Some(0)));
        assert_eq!((order.note(0), order.note(4)), (Place::Ancient, Place::Next));
    }

    #[test]
    fn a_gap_that_is_forgiven_is_not_lost_and_the_one_before_is() {
        let mut order = Order::default();
        for number in [10, 11, 13] {
            order.note(number);
        }
        order.forgive();
        assert_eq!(order.note(5000), Place::Ahead);
        assert_eq!(
            (order.take_lost(), order.note(4999), order.note(12)),
            (1, Place::Ancient, Place::Ancient)
        );
        order.note(5002);
        assert_eq!(order.finish(), 1);
    }

    #[test]
    fn places_are_told_apart() {
        let mut order = Order::default();
        let places: Vec<Place> = [65_534, 65_535, 65_538, 65_537, 65_537, 65_536, 65_538, 65_539]
            .map(|n| order.note(n))
            .into();
        use Place::*;
        assert_eq!(places, [Next, Next, Ahead, Late, Duplicate, Late, Duplicate, Next]);
        assert_eq!(order.extend(2), Some(65_538));
        assert_eq!(order.note(65_539 + WINDOW), Ahead);
        assert_eq!(order.note(65_539), Ancient);
    }
}
