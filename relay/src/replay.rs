//! Which numbers were seen, of the most recent ones: against replay of datagrams, and against
//! delivering a packet twice.
//!
//! Invariants: a number is new once. What is as far behind the highest as the window is wide
//! is never new.

/// Remembers `64 * WORDS` numbers up to the highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window<const WORDS: usize> {
    highest: Option<u64>,
    /// One bit per number, at its place modulo the width.
    seen: [u64; WORDS],
}

/// What a number is to a [`Window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    New,
    Before,
    /// So old that nobody knows.
    Forgotten,
}

impl<const WORDS: usize> Window<WORDS> {
    /// How many numbers are remembered.
    pub const WIDTH: u64 = 64 * WORDS as u64;

    pub const fn new() -> Self {
        Self { highest: None, seen: [0; WORDS] }
    }

    #[inline]
    pub fn look(&self, number: u64) -> Seen {
        match self.highest {
            Some(highest) if number <= highest => {
                if highest - number >= Self::WIDTH {
                    Seen::Forgotten
                } else if self.seen[Self::word(number)] & bit(number) != 0 {
                    Seen::Before
                } else {
                    Seen::New
                }
            }
            _ => Seen::New,
        }
    }

    /// Notes a number that was [`Seen::New`].
    #[inline]
    pub fn note(&mut self, number: u64) {
        debug_assert_eq!(self.look(number), Seen::New);
        match self.highest {
            Some(highest) if number <= highest => {}
            // The usual case: the next one, whose bit is that of one a whole window ago.
            Some(highest) if number == highest + 1 => {
                self.seen[Self::word(number)] &= !bit(number);
                self.highest = Some(number);
            }
            Some(highest) => {
                self.forget(highest + 1, number);
                self.highest = Some(number);
            }
            None => self.highest = Some(number),
        }
        self.seen[Self::word(number)] |= bit(number);
    }

    fn forget(&mut self, first: u64, last: u64) {
        if last - first >= Self::WIDTH {
            self.seen = [0; WORDS];
            return;
        }
        for number in first..=last {
            self.seen[Self::word(number)] &= !bit(number);
        }
    }

    #[inline]
    fn word(number: u64) -> usize {
        (number / 64) as usize % WORDS
    }
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn bit(number: u64) -> u64 {
    1 << (number % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_new_once_and_never_when_it_is_too_old() {
        let mut window = Window::<2>::new();
        assert_eq!(window.look(u64::MAX), Seen::New);
        for number in [1000, 1001, 990, 1000 + 127] {
            assert_eq!(window.look(number), Seen::New);
            window.note(number);
            assert_eq!(window.look(number), Seen::Before);
        }
        assert_eq!(window.look(999), Seen::Forgotten);
        assert_eq!(window.look(1002), Seen::New);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            start in 0u64..1 << 47,
            steps in prop::collection::vec((-300i64..60, 0u64..2000), 1..400),
        ) {
            let mut window = Window::<4>::new();
            let mut noted = BTreeSet::new();
            let mut highest = start;
            for (n, &(step, jump)) in steps.iter().enumerate() {
                highest += if n % 50 == 49 { jump } else { 0 };
                let number = highest.saturating_add_signed(step);
                let expected = match noted.last() {
                    Some(&top) if number <= top && top - number >= Window::<4>::WIDTH => {
                        Seen::Forgotten
                    }
                    _ if noted.contains(&number) => Seen::Before,
                    _ => Seen::New,
                };
                prop_assert_eq!(window.look(number), expected);
                if expected == Seen::New {
                    window.note(number);
                    noted.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }
}
