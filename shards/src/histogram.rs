//! How often a value fell between which bounds: a fixed array that one thread owns.
//!
//! Invariants: recording neither allocates nor fails; bounds ascend; a value equal to a bound
//! counts below it.

use std::time::Duration;

/// Counts by size. `N` is the number of bounds; what is above the last is counted too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    counts: [u64; N],
    above: u64,
    sum: u64,
}

impl<const N: usize> Histogram<N> {
    pub const fn new(bounds: &'static [u64; N]) -> Self {
        Self { bounds, counts: [0; N], above: 0, sum: 0 }
    }

    #[inline]
    pub fn record(&mut self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        *self.counts.get_mut(at).unwrap_or(&mut self.above) += 1;
        self.sum += value;
    }

    /// Records nanoseconds.
    #[inline]
    pub fn record_time(&mut self, time: Duration) {
        self.record(time.as_nanos() as u64);
    }

    /// Each bound, with how many values lay below it and above the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.bounds.iter().copied().zip(self.counts)
    }

    /// Values above the last bound.
    pub fn above(&self) -> u64 {
        self.above
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }

    /// Of all values recorded.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// Bounds in nanoseconds, given in microseconds.
pub const fn micros<const N: usize>(micros: [u64; N]) -> [u64; N] {
    let mut nanos = [0; N];
    let mut at = 0;
    while at < N {
        assert!(at == 0 || micros[at - 1] < micros[at], "bounds ascend");
        nanos[at] = micros[at] * 1000;
        at += 1;
    }
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [u64; 3] = micros([1, 5, 20]);

    #[test]
    fn a_value_counts_below_the_first_bound_it_does_not_exceed() {
        let mut times = Histogram::new(&BOUNDS);
        for nanos in [0, 1000, 1001, 5000, 20_000, 20_001, 9_999_999] {
            times.record_time(Duration::from_nanos(nanos));
        }
        let buckets: Vec<_> = times.buckets().collect();
        assert_eq!(buckets, [(1000, 2), (5000, 2), (20_000, 1)]);
        assert_eq!((times.above(), times.count()), (2, 7));
        assert_eq!(times.sum(), 1000 + 1001 + 5000 + 20_000 + 20_001 + 9_999_999);
    }
}
