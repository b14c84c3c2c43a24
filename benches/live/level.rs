//! Finds how much load puts a server at a share of its core: by trying, and drawing a line
//! through what was tried.

/// After so many tries it is as near as it will come: each halves the gap at least, or hits.
const TRIES_MAX: usize = 8;

/// A share that is half of the aim tells little of what a multiple of its load takes.
const GROWTH_MAX: f64 = 3.0;

/// What was tried so far.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    aim: f64,
    tolerance: f64,
    first: usize,
    /// Loads, and what each took, in percent.
    tries: Vec<(usize, f64)>,
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
        let Some(nearest) = self.nearest() else { return Some(self.first) };
        if self.is_there(nearest.1) || self.tries.len() >= TRIES_MAX {
            return None;
        }
        let below = self.side(|percent| percent < self.aim);
        let above = self.side(|percent| percent >= self.aim);
        let load = match (below, above) {
            (Some(low), Some(high)) => line(low, high, self.aim),
            (Some(low), None) => {
                let before = self
                    .tries
                    .iter()
                    .copied()
                    .filter(|(load, _)| *load < low.0)
                    .max_by_key(|t| t.0);
                let grown =
                    before.map_or_else(|| scaled(low, self.aim), |b| line(b, low, self.aim));
                grown.min(low.0 as f64 * GROWTH_MAX)
            }
            (None, Some(high)) => scaled(high, self.aim),
            (None, None) => return None,
        };
        let (least, most) = (below.map_or(0, |low| low.0) + 1, above.map(|high| high.0 - 1));
        let most = most.unwrap_or(usize::MAX);
        (least <= most).then(|| (load.round() as usize).clamp(least, most))
    }

    /// What came nearest so far.
    pub(crate) fn nearest(&self) -> Option<(usize, f64)> {
        self.side(|_| true)
    }

    fn side(&self, is_of: impl Fn(f64) -> bool) -> Option<(usize, f64)> {
        let off = |percent: f64| (percent - self.aim).abs();
        let those = self.tries.iter().copied().filter(|(_, percent)| is_of(*percent));
        those.min_by(|a, b| off(a.1).total_cmp(&off(b.1)))
    }
}

/// The load at which a line through two tries reaches the aim.
fn line(a: (usize, f64), b: (usize, f64), aim: f64) -> f64 {
    let each = (b.1 - a.1) / (b.0 as f64 - a.0 as f64);
    if each > 0.0 { a.0 as f64 + (aim - a.1) / each } else { scaled(b, aim) }
}

fn scaled(one: (usize, f64), aim: f64) -> f64 {
    one.0 as f64 * aim / one.1.max(1.0)
}
