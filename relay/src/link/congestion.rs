//! Whether a path is full, and what may not be sent on it then (RFC 8085, RFC 8083).
//!
//! | state | entered when | what goes |
//! |---|---|---|
//! | OK | queue < 15 ms and loss < 1 %, for 1 s | all; a layer comes back each 2 s after 5 s |
//! | WARM | queue > 25 ms for 100 ms, or loss > 2 % in 500 ms | as much as before |
//! | HOT | queue > 80 ms for 200 ms, or loss > 8 % in 1 s | a layer less, each second one more |
//! | BREAK | loss > 30 % of each second, for 3 s | sound and control only |
//!
//! Repairs take a fifth of what is sent; on a path with a queue a twentieth, and none of video
//! but of keyframes when it is HOT. Loss alone does not forbid them: a path that loses packets
//! without a queue would stay bad for ever if they were not repaired for it.
//!
//! One step down at a time: HOT is left for WARM after 1 s without what WARM is entered for,
//! BREAK for HOT after 3 s with less than 8 % loss.
//!
//! Invariants: sound is never refused; a track's only or lowest layer is not refused before
//! BREAK. What happens depends on the times and numbers given alone.
//!
//! Not here: pacing, and rates of single tracks.

use super::time::Least;

/// How full the path to the other side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    Warm,
    Hot,
    Break,
}

/// What a packet is to those who watch: how long it is worth repairing, and what goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Audio,
    Video,
    /// Of a keyframe: without it nothing after it can be decoded.
    Keyframe,
}

/// Where a layer stands among those of its track that are sent on this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many are better.
    pub above: u8,
    /// How many are worse.
    pub below: u8,
}

impl Standing {
    /// The layer of a track that has no others.
    pub const ONLY: Self = Self { above: 0, below: 0 };
}

/// The path of one direction of a link, judged by its sender. Times are µs of link time.
#[derive(Debug)]
pub(super) struct Congestion {
    state: State,
    since: u64,
    /// Layers that are refused, counted from the best.
    shed: u8,
    shed_at: u64,
    /// One-way delay over the least of the last ten seconds, and when it was measured.
    queue: u64,
    queue_at: u64,
    base: Least<()>,
    /// Since when there is too much of a queue or of loss, or all is calm.
    over_warm: Option<u64>,
    over_hot: Option<u64>,
    over_break: Option<u64>,
    calm: Option<u64>,
    cool: Option<u64>,
    losses: Losses,
    judged_at: u64,
}

impl Congestion {
    pub(super) fn new(now: u64) -> Self {
        Self {
            state: State::Ok,
            since: now,
            shed: 0,
            shed_at: now,
            queue: 0,
            queue_at: now,
            base: Least::new(),
            over_warm: None,
            over_hot: None,
            over_break: None,
            calm: None,
            cool: None,
            losses: Losses::default(),
            judged_at: now,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// µs.
    pub(super) fn queue(&self) -> u64 {
        self.queue
    }

    /// The other side reported. `delay`: one way, in µs, by clocks that need not agree;
    /// `sent` datagrams were told the fate of, `lost` of them never came.
    pub(super) fn on_report(&mut self, delay: Option<i64>, sent: u64, lost: u64, now: u64) {
        if let Some(delay) = delay {
            self.base.note(now, delay, ());
            let least = self.base.get(now).map_or(delay, |(least, ())| least);
            self.queue = delay.saturating_sub(least).unsigned_abs();
            self.queue_at = now;
        }
        self.losses.note(sent, lost, now);
        self.judge(now);
    }

    /// The other side reports nothing, although much was sent: as if all of it was lost.
    pub(super) fn on_blackout(&mut self, now: u64) {
        self.losses.note(BLACKOUT, BLACKOUT, now);
        self.judge(now);
    }

    /// When to judge anew, without reports.
    pub(super) fn deadline(&self) -> Option<u64> {
        (self.state != State::Ok || self.shed > 0).then_some(self.judged_at + TICK)
    }

    pub(super) fn on_timeout(&mut self, now: u64) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.judge(now);
        }
    }

    /// Whether a packet may be sent.
    #[inline]
    pub(super) fn admits(&self, class: Class, standing: Standing) -> bool {
        match (class, self.state) {
            (Class::Audio, _) => true,
            (Class::Video | Class::Keyframe, State::Break) => false,
            _ => standing.below == 0 || standing.above >= self.shed,
        }
    }

    /// Whether a packet of this class may be sent again. On a path with a queue, it would only
    /// make that longer; a path that loses without one is not made worse by it.
    pub(super) fn repairs(&self, class: Class) -> bool {
        match (self.state, class) {
            (State::Ok | State::Warm, _) | (_, Class::Audio) => true,
            (State::Hot, Class::Keyframe) => true,
            (State::Hot, Class::Video) => !self.has_queue(),
            (State::Break, Class::Video | Class::Keyframe) => false,
        }
    }

    /// How much of what is sent may be sent again, in percent.
    #[inline]
    pub(super) fn repair_percent(&self) -> u64 {
        if self.has_queue() { REPAIR_PERCENT_QUEUE } else { REPAIR_PERCENT }
    }

    #[inline]
    fn has_queue(&self) -> bool {
        self.queue > WARM_QUEUE && self.state != State::Ok
    }

    fn judge(&mut self, now: u64) {
        self.judged_at = now;
        if now.saturating_sub(self.queue_at) > STALE {
            self.queue = 0;
        }
        let (queue, losses) = (self.queue, &self.losses);
        held(&mut self.over_warm, queue > WARM_QUEUE, now);
        held(&mut self.over_hot, queue > HOT_QUEUE, now);
        held(&mut self.over_break, losses.above(BREAK_LOSS, SECOND, now), now);
        held(&mut self.calm, queue < OK_QUEUE && losses.below(OK_LOSS, SECOND, now), now);
        let cool = queue < WARM_QUEUE && losses.below(WARM_LOSS, SECOND, now);
        held(&mut self.cool, cool, now);
        let lasts = |since: Option<u64>, long| since.is_some_and(|at| now - at >= long);
        let warm = lasts(self.over_warm, WARM_LASTS) || losses.above(WARM_LOSS, SECOND / 2, now);
        let hot = lasts(self.over_hot, HOT_LASTS) || losses.above(HOT_LOSS, SECOND, now);
        // The first second's loss is known at its end.
        let broken = lasts(self.over_break, BREAK_LASTS - SECOND);
        let mended = now - self.since >= BREAK_LASTS && losses.below(HOT_LOSS, BREAK_LASTS, now);
        let next = match self.state {
            _ if broken => State::Break,
            State::Break if mended => State::Hot,
            State::Break => State::Break,
            _ if hot => State::Hot,
            State::Hot if lasts(self.cool, SECOND) => State::Warm,
            State::Hot => State::Hot,
            _ if warm => State::Warm,
            State::Warm if lasts(self.calm, SECOND) => State::Ok,
            state @ (State::Ok | State::Warm) => state,
        };
        self.enter(next, now);
        self.shed(now);
    }

    fn enter(&mut self, next: State, now: u64) {
        if next == self.state {
            return;
        }
        if next == State::Hot && self.state < State::Hot {
            (self.shed, self.shed_at) = ((self.shed + 1).min(SHED_MAX), now);
        }
        (self.state, self.since) = (next, now);
        // What led here does not lead on.
        (self.calm, self.cool) = (None, None);
    }

    fn shed(&mut self, now: u64) {
        match self.state {
            State::Hot if self.cool.is_none() && now - self.shed_at >= SHED_EACH => {
                (self.shed, self.shed_at) = ((self.shed + 1).min(SHED_MAX), now);
            }
            State::Ok
                if self.shed > 0
                    && now - self.since >= RESTORE_AFTER
                    && now - self.shed_at >= RESTORE_EACH =>
            {
                (self.shed, self.shed_at) = (self.shed - 1, now);
            }
            State::Ok | State::Warm | State::Hot | State::Break => {}
        }
    }
}

/// Notes since when something holds without a break.
fn held(since: &mut Option<u64>, holds: bool, now: u64) {
    match (holds, &since) {
        (true, None) => *since = Some(now),
        (false, Some(_)) => *since = None,
        _ => {}
    }
}

/// Losses of the last three seconds, by tenths of a second.
#[derive(Debug, Default)]
struct Losses {
    /// Tenth, sent, lost; at its place modulo the length.
    tenths: [(u64, u64, u64); TENTHS],
}

impl Losses {
    fn note(&mut self, sent: u64, lost: u64, now: u64) {
        let tenth = now / TENTH;
        let place = &mut self.tenths[(tenth % TENTHS as u64) as usize];
        if place.0 != tenth {
            *place = (tenth, 0, 0);
        }
        place.1 += sent;
        place.2 += lost;
    }

    fn sum(&self, span: u64, now: u64) -> (u64, u64) {
        let (newest, count) = (now / TENTH, span / TENTH);
        let recent = self.tenths.iter().filter(|(tenth, ..)| tenth + count > newest);
        recent.fold((0, 0), |sum, (_, sent, lost)| (sum.0 + sent, sum.1 + lost))
    }

    /// More than so many per thousand were lost. Few losses tell nothing about the path.
    fn above(&self, permille: u64, span: u64, now: u64) -> bool {
        let (sent, lost) = self.sum(span, now);
        lost >= LOST_MIN && lost * 1000 > sent * permille
    }

    fn below(&self, permille: u64, span: u64, now: u64) -> bool {
        let (sent, lost) = self.sum(span, now);
        lost < LOST_MIN || lost * 1000 < sent * permille
    }
}

/// Repairs may take so much of what is sent: one packet in ten lost needs an eighth.
pub(super) const REPAIR_PERCENT: u64 = 20;
/// On a path with a queue: more would make it overflow.
const REPAIR_PERCENT_QUEUE: u64 = 5;
const SECOND: u64 = 1_000_000;
const OK_QUEUE: u64 = 15_000;
const WARM_QUEUE: u64 = 25_000;
const WARM_LASTS: u64 = 100_000;
const HOT_QUEUE: u64 = 80_000;
const HOT_LASTS: u64 = 200_000;
/// Per thousand.
const OK_LOSS: u64 = 10;
const WARM_LOSS: u64 = 20;
const HOT_LOSS: u64 = 80;
const BREAK_LOSS: u64 = 300;
const BREAK_LASTS: u64 = 3 * SECOND;
/// A few lost datagrams of a link that carries little are chance.
const LOST_MIN: u64 = 4;
/// A layer less takes a round trip and a queue to show.
const SHED_EACH: u64 = SECOND;
const RESTORE_AFTER: u64 = 5 * SECOND;
const RESTORE_EACH: u64 = 2 * SECOND;
/// Publishers send three layers, of which the lowest stays. More would only take longer to come
/// back.
const SHED_MAX: u8 = 3;
/// A queue not measured for so long is empty: nothing was sent.
const STALE: u64 = SECOND;
const TICK: u64 = 100_000;
const TENTH: u64 = 100_000;
const TENTHS: usize = (BREAK_LASTS / TENTH) as usize;
/// What one silent tenth of a second counts.
const BLACKOUT: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_makes_it_warm_then_hot_and_its_end_ok_again() {
        let mut path = Path::new();
        path.run(1_000, 5_000, 0);
        assert_eq!(path.state(), State::Ok);
        path.run(50, 35_000, 0);
        assert_eq!(path.state(), State::Ok, "not yet 100 ms");
        path.run(100, 35_000, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(150, 90_000, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(100, 90_000, 0);
        assert_eq!(path.state(), State::Hot);
        path.run(900, 6_000, 0);
        assert_eq!(path.state(), State::Hot);
        path.run(200, 6_000, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(900, 6_000, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(200, 6_000, 0);
        assert_eq!(path.state(), State::Ok);
    }

    #[test]
    fn between_the_thresholds_it_stays_what_it_is() {
        let mut path = Path::new();
        path.run(1_000, 0, 0);
        path.run(4_000, 20_000, 15);
        assert_eq!(path.state(), State::Ok, "20 ms and 1.5 %");
        path.run(300, 30_000, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(4_000, 20_000, 15);
        assert_eq!(path.state(), State::Warm);
    }

    #[test]
    fn loss_makes_it_warm_hot_and_break() {
        for (permille, state) in [
            (5, State::Ok),
            (30, State::Warm),
            (100, State::Hot),
            (400, State::Break),
            (1000, State::Break),
        ] {
            let mut path = Path::new();
            path.run(5_000, 0, permille);
            assert_eq!(path.state(), state, "{permille} permille");
        }
    }

    #[test]
    fn break_is_left_step_by_step() {
        let mut path = Path::new();
        path.run(5_000, 0, 500);
        path.run(1_000, 0, 0);
        assert_eq!(path.state(), State::Break);
        path.run(2_100, 0, 0);
        assert_eq!(path.state(), State::Hot);
        path.run(1_200, 0, 0);
        assert_eq!(path.state(), State::Warm);
        path.run(1_200, 0, 0);
        assert_eq!(path.state(), State::Ok);
    }

    #[test]
    fn silence_about_what_was_sent_breaks_and_time_alone_mends() {
        let mut path = Path::new();
        let begin = path.now;
        for _ in 0..22 {
            path.now += 100_000;
            path.congestion.on_blackout(path.now);
        }
        assert_eq!(path.state(), State::Break);
        while let Some(at) = path.congestion.deadline() {
            path.now = path.now.max(at);
            path.congestion.on_timeout(path.now);
        }
        assert_eq!(path.state(), State::Ok);
        assert!(path.now - begin < 30_000_000, "all layers are back");
    }

    #[test]
    fn a_single_loss_of_few_datagrams_tells_nothing() {
        let mut congestion = Congestion::new(0);
        for tick in 1..100u64 {
            congestion.on_report(Some(0), 2, u64::from(tick % 10 == 0), tick * 100_000);
            assert_eq!(congestion.state(), State::Ok);
        }
    }

    #[test]
    fn best_layers_go_first_and_come_back_one_by_one() {
        let mut path = Path::new();
        let layers = [0, 1, 2].map(|above| Standing { above, below: 2 - above });
        let sent = |path: &Path| {
            let admits = |s: &&Standing| path.congestion.admits(Class::Video, **s);
            layers.iter().filter(admits).count()
        };
        path.run(1_000, 0, 0);
        assert_eq!(sent(&path), 3);
        path.run(250, 90_000, 0);
        assert_eq!((path.state(), sent(&path)), (State::Hot, 2));
        path.run(1_100, 90_000, 0);
        assert_eq!(sent(&path), 1);
        path.run(3_000, 90_000, 0);
        assert_eq!(sent(&path), 1, "the last one stays");
        assert!(path.congestion.admits(Class::Video, Standing::ONLY));
        path.run(7_200, 0, 0);
        let shed = path.congestion.shed;
        assert_eq!((path.state(), shed), (State::Ok, 2));
        path.run(2_000, 0, 0);
        assert_eq!(path.congestion.shed, 1);
        path.run(2_000, 0, 0);
        assert_eq!(sent(&path), 3);
        assert_eq!(path.congestion.deadline(), None);
    }

    #[test]
    fn sound_always_goes_and_pictures_until_break() {
        let mut path = Path::new();
        path.run(5_000, 0, 400);
        assert_eq!(path.state(), State::Break);
        assert!(path.congestion.admits(Class::Audio, Standing::ONLY));
        assert!(!path.congestion.admits(Class::Video, Standing::ONLY));
        assert!(!path.congestion.admits(Class::Keyframe, Standing::ONLY));
        assert!(path.congestion.repairs(Class::Audio));
        assert!(!path.congestion.repairs(Class::Keyframe));
        let mut path = Path::new();
        path.run(2_000, 0, 100);
        assert_eq!(path.state(), State::Hot);
        assert!(path.congestion.repairs(Class::Keyframe) && path.congestion.repairs(Class::Video));
        path.run(200, 30_000, 100);
        assert!(path.congestion.repairs(Class::Keyframe));
        assert!(!path.congestion.repairs(Class::Video), "it has a queue");
    }

    #[test]
    fn a_queue_leaves_less_for_repairs() {
        let mut path = Path::new();
        path.run(2_000, 0, 30);
        assert_eq!((path.state(), path.congestion.repair_percent()), (State::Warm, 20));
        path.run(200, 40_000, 0);
        assert_eq!((path.state(), path.congestion.repair_percent()), (State::Warm, 5));
    }

    /// Reports each 25 ms about 1,000 datagrams a second.
    struct Path {
        congestion: Congestion,
        now: u64,
        owed: u64,
    }

    impl Path {
        fn new() -> Self {
            let now = 1 << 40;
            Self { congestion: Congestion::new(now), now, owed: 0 }
        }

        fn state(&self) -> State {
            self.congestion.state()
        }

        fn run(&mut self, ms: u64, delay: i64, permille: u64) {
            for _ in 0..ms / 25 {
                self.now += 25_000;
                self.owed += 25 * permille;
                let lost = self.owed / 1000;
                self.owed %= 1000;
                self.congestion.on_report(Some(delay - 1_000_000), 25, lost, self.now);
            }
        }
    }
}
