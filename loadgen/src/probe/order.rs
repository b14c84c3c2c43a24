//! What became of each sequence number of one stream: arrived, late, twice, never.
//!
//! Invariants: every number from the first to the highest is counted exactly once as received or
//! lost, a lost one when it is [`WINDOW`] behind the highest, when the books are closed over it,
//! or at the end. Which span a loss belongs to is decided by its number, whenever it is found out.

/// How far behind a packet may come and still be told from a duplicate.
pub(super) const WINDOW: u64 = 1024;

/// Numbers found lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    pub all: u64,
    /// Of them, those from before the measurement ([`Order::begin`]).
    pub early: u64,
}

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
    lost: Lost,
    /// The first number of the measurement.
    begin: u64,
    /// Up to where [`Self::close`] counts; what is lost behind it waits in `held`.
    line: Option<u64>,
    held: u64,
    /// The next gap is nobody's fault.
    forgives: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            first: 0,
            highest: None,
            seen: [0; (WINDOW / 64) as usize],
            lost: Lost::default(),
            begin: 0,
            line: None,
            held: 0,
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
            self.lose_missing(self.oldest(), highest);
            (self.first, self.highest, self.forgives) = (number, Some(number), false);
            self.mark(number);
            return Place::Ahead;
        }
        if number > highest {
            self.jump(number, highest);
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
            self.lose(to - WINDOW, to - WINDOW);
        }
        self.seen[word(to)] &= !bit(to);
        self.highest = Some(to);
    }

    /// Moves the window by more than one.
    fn jump(&mut self, to: u64, highest: u64) {
        // A jump beyond the window empties it: no need to walk further than that.
        for passed in highest + 1..=to.min(highest + WINDOW) {
            self.advance(passed);
        }
        if to > highest + WINDOW {
            self.lose((highest + 1).max(self.first), to - WINDOW);
        }
        self.highest = Some(to);
    }

    /// All of these numbers are lost.
    #[cold]
    fn lose(&mut self, from: u64, to: u64) {
        let upto = |end: u64| (end + 1).saturating_sub(from);
        let counted = self.line.map_or(to, |line| line.min(to));
        self.lost.all += upto(counted);
        self.lost.early += self.begin.checked_sub(1).map_or(0, |last| upto(last.min(counted)));
        self.held += upto(to) - upto(counted);
    }

    /// Those of these numbers that have not come are.
    fn lose_missing(&mut self, from: u64, to: u64) {
        for number in from..=to {
            if self.seen[word(number)] & bit(number) == 0 {
                self.lose(number, number);
            }
        }
    }

    #[inline]
    fn mark(&mut self, number: u64) {
        self.seen[word(number)] |= bit(number);
    }

    /// Numbers found lost since the last call.
    pub fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// The measurement begins: what was sent so far, up to `sent` if that is known, is not part
    /// of it.
    pub fn begin(&mut self, sent: Option<u64>) {
        self.begin = sent.or(self.highest).map_or(0, |last| last + 1);
    }

    /// The measurement ends: [`Self::close`] counts what was sent so far, up to `sent` if that is
    /// known, come or not.
    pub fn draw_line(&mut self, sent: Option<u64>) {
        self.line = sent.or(self.highest);
    }

    /// How many from before the line no later packet reveals.
    pub fn lacking(&self) -> u64 {
        let (Some(line), Some(highest)) = (self.line, self.highest) else { return 0 };
        if self.forgives { 0 } else { line.saturating_sub(highest) }
    }

    /// Closes the books up to the line: what is still missing there is lost now, and what comes
    /// of it later is too old. Of what nothing came after it, `all` says whether it was owed.
    pub fn close(&mut self, all: bool) {
        let (Some(line), Some(highest)) = (self.line, self.highest) else { return };
        let line = if all && !self.forgives { line } else { line.min(highest) };
        if line > highest {
            self.jump(line, highest);
        }
        // A receiver that has been away since begins anew behind the line.
        if line >= self.first {
            self.lose_missing(self.oldest(), line);
            self.first = line + 1;
        }
        self.line = None;
        self.begin = 0;
    }

    /// The next gap does not count: the receiver was away for its own reasons.
    pub fn forgive(&mut self) {
        self.forgives = true;
    }

    /// Ends the stream: what is missing now is lost. Returns what [`Self::take_lost`] would.
    pub fn finish(&mut self) -> Lost {
        if let Some(highest) = self.highest.take() {
            let oldest = self.first.max((highest + 1).saturating_sub(WINDOW));
            self.lose_missing(oldest, highest);
        }
        self.lost.all += std::mem::take(&mut self.held);
        self.take_lost()
    }

    /// The oldest number that may still come.
    fn oldest(&self) -> u64 {
        self.first.max(self.highest.map_or(0, |highest| (highest + 1).saturating_sub(WINDOW)))
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
                    order.begin(None);
                    order.draw_line(None);
                } else if marks.iter().any(|mark| mark + 7 == at) {
                    order.close(true);
                }
                match order.note(number) {
                    Place::Next | Place::Ahead | Place::Late => { prop_assert!(received.insert(number)) }
                    Place::Duplicate => prop_assert!(received.contains(&number)),
                    Place::Ancient => {}
                }
                lost += order.take_lost().all;
            }
            let highest = *received.last().unwrap();
            let first = numbers[0];
            lost += order.finish().all;
            prop_assert_eq!(lost + received.len() as u64, highest - first + 1);
        }
    }

    #[test]
    fn what_is_missing_before_the_line_is_counted_when_it_is_closed() {
        let mut order = Order::default();
        for number in [10, 11, 13, 15, 16] {
            order.note(number);
        }
        order.draw_line(None);
        // A repair under way when the line was drawn is no loss; a hole behind it comes later.
        assert_eq!((order.note(14), order.note(18)), (Place::Late, Place::Ahead));
        order.close(true);
        assert_eq!((order.take_lost().all, order.note(12)), (1, Place::Ancient));
        assert_eq!((order.note(16), order.note(20)), (Place::Ancient, Place::Ahead));
        order.close(true);
        assert_eq!((order.take_lost().all, order.finish().all), (0, 2));
    }

    /// Numbers up to 9 came, then none up to 19, then those up to `highest`.
    fn after_a_pause(highest: u64, mark: impl Fn(&mut Order)) -> Order {
        let mut order = Order::default();
        for number in 0..10 {
            order.note(number);
        }
        mark(&mut order);
        for number in 20..=highest {
            order.note(number);
        }
        order
    }

    #[test]
    fn what_nothing_came_after_is_lost_if_it_was_sent_and_owed() {
        let mut order = after_a_pause(0, |order| order.draw_line(Some(4000)));
        assert_eq!(order.lacking(), 3991);
        order.close(true);
        assert_eq!((order.take_lost().all, order.note(4000)), (3991, Place::Ancient));
        assert_eq!((order.note(4001), order.finish().all), (Place::Next, 0));
        let mut leaving = after_a_pause(0, |order| order.draw_line(Some(14)));
        leaving.close(false);
        assert_eq!(leaving.finish().all, 0);
        let mut away = after_a_pause(0, |order| order.draw_line(Some(14)));
        away.forgive();
        assert_eq!(away.lacking(), 0);
        away.close(true);
        assert_eq!((away.note(500), away.finish().all), (Place::Ahead, 0));
    }

    #[test]
    fn a_loss_belongs_to_the_side_of_the_mark_it_was_sent_on() {
        // 10 to 12 were sent before the measurement began, the rest in it.
        let mut order = after_a_pause(5000, |order| order.begin(Some(12)));
        assert_eq!(order.take_lost(), Lost { all: 10, early: 3 });
        order.draw_line(Some(5000));
        order.close(true);
        assert_eq!(order.finish(), Lost::default());
        // All that was lost after the end comes to light while the books are still open.
        let mut order = after_a_pause(5000, |order| order.draw_line(Some(12)));
        assert_eq!(order.take_lost().all, 3);
        order.close(true);
        assert_eq!((order.take_lost().all, order.finish().all), (0, 7));
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
            (order.take_lost().all, order.note(4999), order.note(12)),
            (1, Place::Ancient, Place::Ancient)
        );
        order.note(5002);
        assert_eq!(order.finish().all, 1);
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
