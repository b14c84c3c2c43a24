//! Finds how much load puts a server at a share of its core: by trying, and drawing a line
//! through what was tried.

/// After so many tries it is as near as it will come: once loads on either side are known, two
/// tries halve the gap between them at least, or hit.
const TRIES_MAX: usize = 8;

/// A share that is half of the aim tells little of what a multiple of its load takes.
const GROWTH_MAX: f64 = 3.0;

/// A load, and what it took, in percent; infinite for one that the server could not bear.
type Try = (usize, f64);

/// What was tried so far.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    aim: f64,
    tolerance: f64,
    first: usize,
    tries: Vec<Try>,
}

impl Level {
    pub(crate) fn new(first: usize, aim: f64, tolerance: f64) -> Self {
        Self { aim, tolerance, first: first.max(1), tries: Vec::new() }
    }

    pub(crate) fn tried(&mut self, load: usize, percent: f64) {
        self.tries.push((load, percent));
    }

    /// Something truer than what a load was tried with before.
    pub(crate) fn corrected(&mut self, load: usize, percent: f64) {
        self.tries.retain(|(tried, _)| *tried != load);
        self.tried(load, percent);
    }

    pub(crate) fn is_there(&self, percent: f64) -> bool {
        (percent - self.aim).abs() <= self.tolerance
    }

    /// The load to try next; none when one hit, or nothing nearer is left.
    pub(crate) fn next(&self) -> Option<usize> {
        let (before, all) = match self.tries.split_last() {
            None => return Some(self.first),
            Some((_, before)) => (gap(before, self.aim), gap(&self.tries, self.aim)),
        };
        let has_hit = self.nearest().is_some_and(|nearest| self.is_there(nearest.1));
        if has_hit || self.tries.len() >= TRIES_MAX {
            return None;
        }
        let load = match all {
            // A line through a bent curve creeps along one side of it, and none leads to where
            // nothing was measured.
            (Some(low), Some(high)) if is_slow(before, (low, high)) || high.1.is_infinite() => {
                (low.0 + high.0) as f64 / 2.0
            }
            (Some(low), Some(high)) => line(low, high, self.aim),
            (Some(low), None) => self.grown(low),
            (None, Some(high)) if high.1.is_infinite() => high.0 as f64 / 2.0,
            (None, Some(high)) => scaled(high, self.aim),
            (None, None) => return None,
        };
        // What lies between was not tried yet.
        let (least, most) = (all.0.map_or(0, |low| low.0) + 1, all.1.map(|high| high.0 - 1));
        let most = most.unwrap_or(usize::MAX);
        (least <= most).then(|| (load.round() as usize).clamp(least, most))
    }

    /// The same after a long run with `played`; failing that, another load that hit before.
    pub(crate) fn next_or_nearest(&self, played: usize) -> Option<usize> {
        let hit = || self.nearest().filter(|near| near.0 != played && self.is_there(near.1));
        let is_over = self.tries.iter().any(|try_| try_.0 == played && self.is_there(try_.1));
        if is_over { None } else { self.next().or_else(|| hit().map(|near| near.0)) }
    }

    /// With nothing above it.
    fn grown(&self, low: Try) -> f64 {
        let lower = self.tries.iter().copied().filter(|(load, _)| *load < low.0);
        let grown = match lower.max_by_key(|lower| lower.0) {
            Some(lower) => line(lower, low, self.aim),
            None => scaled(low, self.aim),
        };
        grown.min(low.0 as f64 * GROWTH_MAX)
    }

    /// What came nearest so far; never one that the server could not bear.
    pub(crate) fn nearest(&self) -> Option<Try> {
        let off = |one: &Try| (one.1 - self.aim).abs();
        let borne = self.tries.iter().copied().filter(|one| one.1.is_finite());
        borne.min_by(|a, b| off(a).total_cmp(&off(b)))
    }
}

/// The loads next to the aim: the least that took more, and below it the most that took less.
fn gap(tries: &[Try], aim: f64) -> (Option<Try>, Option<Try>) {
    let above = tries.iter().copied().filter(|one| one.1 >= aim).min_by_key(|one| one.0);
    let is_below = |one: &Try| one.1 < aim && above.is_none_or(|above| one.0 < above.0);
    (tries.iter().copied().filter(is_below).max_by_key(|one| one.0), above)
}

/// The last try left more than half of the gap.
fn is_slow(before: (Option<Try>, Option<Try>), (low, high): (Try, Try)) -> bool {
    let (Some(below), Some(above)) = before else { return false };
    2 * (high.0 - low.0) > above.0 - below.0
}

/// The load at which a line through two tries reaches the aim.
fn line(a: Try, b: Try, aim: f64) -> f64 {
    let each = (b.1 - a.1) / (b.0 as f64 - a.0 as f64);
    if each > 0.0 { a.0 as f64 + (aim - a.1) / each } else { scaled(b, aim) }
}

fn scaled(one: Try, aim: f64) -> f64 {
    one.0 as f64 * aim / one.1.max(1.0)
}
