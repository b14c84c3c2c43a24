//! Finds the largest load that still holds: doubles until one fails, then halves the gap.
//!
//! Invariants: a load fails when it failed twice in a row, since one hiccup of the machine is
//! none of the server's; the answer was held by a run; there is an end ([`TRIALS_MAX`]).

/// More than doubling from 1 to a million and closing in needs with every second run a hiccup.
pub const TRIALS_MAX: u32 = 64;
/// How near the answer comes to the first load that fails.
pub const PRECISION: f64 = 0.05;

#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    next: u64,
    most: u64,
    held: Option<u64>,
    failed: Option<u64>,
    /// `next` failed once already.
    again: bool,
    trials: u32,
}

impl Ramp {
    /// Begins with `first` and goes no further than `most`.
    pub fn new(first: u64, most: u64) -> Self {
        let most = most.max(1);
        Self { next: first.clamp(1, most), most, held: None, failed: None, again: false, trials: 0 }
    }

    /// The load to try next; `None` at the end.
    pub fn next(&self) -> Option<u64> {
        (self.trials < TRIALS_MAX && !self.is_near()).then_some(self.next)
    }

    /// Whether the load that [`Self::next`] named held.
    pub fn tried(&mut self, held: bool) {
        self.trials += 1;
        if !held && !self.again {
            self.again = true;
            return;
        }
        self.again = false;
        if held {
            self.held = Some(self.next);
        } else {
            self.failed = Some(self.next);
        }
        self.next = match self.failed {
            None => self.next.saturating_mul(2).min(self.most),
            Some(failed) => u64::midpoint(self.held.unwrap_or(0), failed),
        };
    }

    /// The largest load that held so far.
    pub fn found(&self) -> Option<u64> {
        self.held
    }

    /// The smallest load that failed so far, above [`Self::found`].
    pub fn failed(&self) -> Option<u64> {
        self.failed
    }

    fn is_near(&self) -> bool {
        let held = self.held.unwrap_or(0);
        match self.failed {
            None => held == self.most,
            Some(failed) => failed - held <= 1 || (failed - held) as f64 <= held as f64 * PRECISION,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a ramp against a server that holds `limit`, with a hiccup in the runs that
    /// `hiccups` names, but never two in a row.
    fn run(first: u64, most: u64, limit: u64, hiccups: &[bool]) -> (Ramp, Vec<u64>) {
        let mut ramp = Ramp::new(first, most);
        let (mut tried, mut hiccuped) = (Vec::new(), false);
        while let Some(load) = ramp.next() {
            hiccuped = !hiccuped && hiccups.get(tried.len()).copied().unwrap_or(false);
            tried.push(load);
            ramp.tried(load <= limit && !hiccuped);
        }
        (ramp, tried)
    }

    proptest! {
        #[test]
        fn the_answer_is_near_whatever_hiccups_there_are(
            first in 1u64..5_000,
            most in 1u64..1_000_000,
            limit in 0u64..1_200_000,
            hiccups in prop::collection::vec(any::<bool>(), 0..TRIALS_MAX as usize),
        ) {
            let (ramp, tried) = run(first, most, limit, &hiccups);
            prop_assert!(tried.len() <= TRIALS_MAX as usize);
            prop_assert!(tried.iter().all(|load| (1..=most).contains(load)));
            let most_held = limit.min(most);
            match ramp.found() {
                Some(found) => {
                    prop_assert!(found <= most_held && tried.contains(&found));
                    let missed = (most_held - found) as f64;
                    prop_assert!(missed <= 1.0 || missed <= found as f64 * PRECISION, "{found} of {most_held}");
                }
                None => prop_assert_eq!(most_held, 0),
            }
        }
    }

    #[test]
    fn it_doubles_then_closes_in_and_retries_what_failed() {
        let (ramp, tried) = run(100, 10_000, 700, &[]);
        assert_eq!(tried, [100, 200, 400, 800, 800, 600, 700, 750, 750, 725, 725]);
        assert_eq!((ramp.found(), ramp.failed()), (Some(700), Some(725)));
    }

    #[test]
    fn it_ends_at_the_most_that_may_be_tried() {
        let (ramp, tried) = run(100, 250, 1_000_000, &[]);
        assert_eq!(tried, [100, 200, 250]);
        assert_eq!((ramp.found(), ramp.failed()), (Some(250), None));
    }
}
