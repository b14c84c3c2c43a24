//! Makes a [`Report`] of what was counted and read.
//!
//! Invariants: quantiles are the histogram's own; a figure that lacks one of its terms is `None`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::metrics::{Buckets, Scrape, bound_us};
use super::number::{percent, rfc3339};
use super::series::{Series, newer};
use super::summary::{Bounds, CurvePoint, FailureCount, Micros, Millis, Report, Sessions};
use super::tally::Tally;
use crate::api::{Cause, Failure};

/// A worker this busy, in percent of a core, delays what it measures.
const BUSY_PERCENT: f64 = 90.0;
/// Points of the latency curve for each further nine (90 %, 99 %, ...): smooth at a page's width.
const POINTS_PER_NINE: u32 = 10;

/// What is known of a run before it begins, and its times.
#[derive(Debug, Clone)]
pub struct Facts {
    pub scenario: String,
    pub api: String,
    pub target: String,
    pub settings: BTreeMap<String, String>,
    pub publishers: u64,
    pub viewers: u64,
    /// Threads of this process that move packets.
    pub threads: u64,
    pub started: SystemTime,
    /// Without the warm-up.
    pub duration: Duration,
    pub warm_up: Duration,
    pub interrupted: bool,
}

/// What the server used between the end of the warm-up and the end.
#[derive(Debug, Clone, Default)]
pub struct ServerUse {
    pub cpu: Option<Duration>,
    /// Before the sessions leave.
    pub rss_bytes: Option<u64>,
    /// Sessions that stood when `rss_bytes` was read.
    pub sessions: Option<u64>,
    /// Before the first session.
    pub rss_before_bytes: Option<u64>,
    /// The difference of two scrapes of its metrics.
    pub metrics: Option<Scrape>,
}

/// What this process used between the end of the warm-up and the end.
#[derive(Debug, Clone, Default)]
pub struct GeneratorUse {
    pub cpu: Option<Duration>,
    /// Of each thread that moves packets.
    pub workers: Vec<Duration>,
}

impl Report {
    /// `at_warm_up` is the sum of the tallies when the warm-up ended, if there was one.
    pub fn new(
        facts: Facts,
        total: &Tally,
        at_warm_up: Option<&Tally>,
        series: &Series,
        server: ServerUse,
        generator: &GeneratorUse,
    ) -> Self {
        let (duration, threads) = (facts.duration, facts.threads);
        let cold = Tally::default();
        let mut report = Self::named(facts);
        report.count_sessions(total);
        report.count_media(total, at_warm_up.unwrap_or(&cold));
        report.charge_server(server, duration);
        report.charge_generator(generator, duration);
        report.generator_warnings.extend(offered_less(total, at_warm_up.unwrap_or(&cold)));
        report.generator_threads = threads;
        report.series = series.moments();
        report
    }

    /// Of a run that did not come about: the target was unreachable, or refused the login.
    pub fn stopped(facts: Facts, failure: &Failure) -> Self {
        let (nothing, series) = (Tally::default(), Series::default());
        let (server, generator) = (ServerUse::default(), GeneratorUse::default());
        let report = Self::new(facts, &nothing, None, &series, server, &generator);
        Self { stopped: Some(FailureCount::new(failure, 1)), ..report }
    }

    fn named(facts: Facts) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: facts.scenario,
            api: facts.api,
            target: facts.target,
            settings: facts.settings,
            started: rfc3339(facts.started),
            duration_s: facts.duration.as_secs_f64(),
            warm_up_s: facts.warm_up.as_secs_f64(),
            interrupted: facts.interrupted,
            publishers: facts.publishers,
            viewers: facts.viewers,
            ..Self::default()
        }
    }

    /// What is told of the whole run.
    fn count_sessions(&mut self, total: &Tally) {
        self.sessions = Sessions {
            begun: total.begun,
            connected: total.connected,
            left: total.left,
            failed: total.failed(),
        };
        let failures = total.failures.iter();
        self.failures =
            failures.map(|(failure, count)| FailureCount::new(failure, *count)).collect();
        self.srtp_profiles.clone_from(&total.profiles);
        self.duplicated = total.duplicated;
        self.corrupted = total.corrupted;
        self.foreign = total.foreign;
        self.join_ms = Millis::of(&total.join);
        self.first_media_ms = Millis::of(&total.first_media);
    }

    /// What is told of the time after the warm-up.
    fn count_media(&mut self, total: &Tally, before: &Tally) {
        let after = |what: fn(&Tally) -> u64| what(total).saturating_sub(what(before));
        self.packets_in = after(|t| t.packets_in);
        self.bytes_in = after(|t| t.bytes_in);
        self.packets_out = after(|t| t.packets_out);
        self.bytes_out = after(|t| t.bytes_out);
        self.lost = after(|t| t.lost).saturating_sub(after(|t| t.lost_early));
        self.lost_warm_up = total.lost.saturating_sub(self.lost);
        self.lost_ppm = ratio(self.lost as f64 * 1e6, self.packets_out + self.lost);
        self.overrun = after(|t| t.overrun);
        self.reordered = after(|t| t.reordered);
        self.ancient = after(|t| t.ancient);
        self.rtcp_replayed = after(|t| t.rtcp_replayed);
        self.resent = after(|t| t.resent);
        self.checked = after(|t| t.checked);
        self.keyframes = after(|t| t.keyframes);
        self.keyframe_requests = after(|t| t.keyframe_requests);
        self.nacks_in = after(|t| t.nacks_in);
        self.nacks_out = after(|t| t.nacks_out);
        let seconds = self.duration_s;
        let per_s = |count: u64| (seconds > 0.0).then(|| count as f64 / seconds);
        self.packets_in_per_s = per_s(self.packets_in);
        self.packets_out_per_s = per_s(self.packets_out);
        self.bits_in_per_s = per_s(self.bytes_in * 8);
        self.bits_out_per_s = per_s(self.bytes_out * 8);
        self.outage_ms = Millis::of(&newer(&total.outage, &before.outage));
        self.api_ms = Millis::of(&newer(&total.api, &before.api));
        self.api_warm_up_ms = Millis::of(&before.api);
        let latency = newer(&total.latency, &before.latency);
        self.latency_us = Micros::of(&latency);
        self.latency_curve = curve(&latency);
    }

    fn charge_server(&mut self, server: ServerUse, duration: Duration) {
        let metrics = server.metrics.unwrap_or_default();
        let cpu = server.cpu.or(metrics.cpu);
        let rss = server.rss_bytes.or(metrics.rss_bytes);
        self.server_cpu_ns_per_packet = cpu_per_packet(cpu, self.packets_out);
        self.server_cpu_percent = share(cpu, duration);
        self.server_rss_bytes = rss;
        self.server_rss_bytes_per_session =
            per_session(rss, server.rss_before_bytes, server.sessions);
        self.server_gso_run = metrics.gso_run();
        self.server_arrival_to_send_us = Bounds::of(&metrics.arrival_to_send);
        self.server_turn_us = Bounds::of(&metrics.turns);
        self.server_shard_imbalance = imbalance(&metrics.shards_out);
        self.server_shards = (!metrics.shards_out.is_empty()).then_some(metrics.shards_out);
        self.server_drops = metrics.drops;
    }

    fn charge_generator(&mut self, generator: &GeneratorUse, duration: Duration) {
        self.generator_cpu_ns_per_packet = cpu_per_packet(generator.cpu, self.packets_out);
        self.generator_cpu_percent = share(generator.cpu, duration);
        self.generator_busiest_percent = share(generator.workers.iter().max().copied(), duration);
        self.generator_warnings = warnings(duration, self.overrun, generator);
    }
}

impl Report {
    /// Whether the run measured the load generator: its sockets overran, or a thread of it was
    /// busy throughout. What was lost or late then says nothing of the server.
    pub fn generator_was_the_limit(&self) -> bool {
        self.overrun > 0
            || self.generator_busiest_percent.is_some_and(|percent| percent > BUSY_PERCENT)
    }
}

impl FailureCount {
    pub fn new(failure: &Failure, count: u64) -> Self {
        Self { cause: word(failure.cause).to_owned(), what: failure.what.clone(), count }
    }
}

fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Unreachable => "unreachable",
        Cause::Slow => "slow",
        Cause::Unauthorized => "unauthorized",
        Cause::Refused => "refused",
        Cause::Incomprehensible => "incomprehensible",
        Cause::Negotiation => "negotiation",
        Cause::NoPath => "no_path",
        Cause::Handshake => "handshake",
        Cause::NoMedia => "no_media",
        Cause::Closed => "closed",
        Cause::Local => "local",
    }
}

impl Micros {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile));
        Self {
            count: histogram.len(),
            mean: (!histogram.is_empty()).then(|| histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

impl Millis {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = Micros::of(histogram);
        let ms = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
        Self { count: us.count, p50: ms(us.p50), p90: ms(us.p90), p99: ms(us.p99), max: ms(us.max) }
    }
}

impl Bounds {
    fn of(buckets: &Buckets) -> Option<Self> {
        let is_told = buckets.values().any(|count| *count > 0);
        let at = |quantile| bound_us(buckets, quantile);
        is_told.then(|| Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

/// Points at equal steps of nines (0, ..., 90, ..., 99, ..., 99.9 %), as far as there are enough
/// values to tell them from the maximum, which is the last.
fn curve(histogram: &Histogram<u64>) -> Vec<CurvePoint> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let nines = (histogram.len() as f64).log10();
    let steps = (0..).map(|step| f64::from(step) / f64::from(POINTS_PER_NINE));
    let quantiles = steps.take_while(|at| *at < nines).map(|at| 1.0 - 10f64.powf(-at));
    // Rounded to what a run can have in packets, and a JSON reader takes back exactly.
    let percentile = |q: f64| (q * 1e12).round() / 1e10;
    let point =
        |q: f64| CurvePoint { percentile: percentile(q), us: histogram.value_at_quantile(q) };
    quantiles.chain([1.0]).map(point).collect()
}

fn ratio(over: f64, under: u64) -> Option<f64> {
    (under > 0).then(|| over / under as f64)
}

fn cpu_per_packet(cpu: Option<Duration>, packets: u64) -> Option<f64> {
    ratio(cpu?.as_nanos() as f64, packets)
}

/// In percent of one core.
fn share(cpu: Option<Duration>, of: Duration) -> Option<f64> {
    (!of.is_zero()).then_some(cpu?.as_secs_f64() / of.as_secs_f64() * 100.0)
}

fn per_session(rss: Option<u64>, before: Option<u64>, sessions: Option<u64>) -> Option<f64> {
    ratio(rss? as f64 - before? as f64, sessions?)
}

/// The busiest over the mean.
fn imbalance(shards: &BTreeMap<String, u64>) -> Option<f64> {
    let busiest = *shards.values().max()?;
    ratio(busiest as f64 * shards.len() as f64, shards.values().sum())
}

fn warnings(duration: Duration, overrun: u64, generator: &GeneratorUse) -> Vec<String> {
    let mut warnings = Vec::new();
    let shares = generator.workers.iter().filter_map(|cpu| share(Some(*cpu), duration));
    let busy: Vec<f64> = shares.filter(|share| *share > BUSY_PERCENT).collect();
    if let Some(most) = busy.iter().copied().reduce(f64::max) {
        warnings.push(format!(
            "The load generator was the bottleneck: {} of its {} threads used over {BUSY_PERCENT} % of a core \
             (the busiest {}). Its latencies and losses are its own; give it more cores or less load.",
            busy.len(),
            generator.workers.len(),
            percent(most)
        ));
    }
    if overrun > 0 {
        warnings.push(format!(
            "The load generator received too slowly: its socket buffers overran {overrun} times, so that \
             this run is invalid. Give it more cores, larger buffers (net.core.rmem_max) or less load."
        ));
    }
    warnings
}

/// What publishers owed and did not send: the server had less to do than the run says.
fn offered_less(total: &Tally, before: &Tally) -> Vec<String> {
    let mut warnings = Vec::new();
    let skipped = total.skipped_frames.saturating_sub(before.skipped_frames);
    if skipped > 0 {
        warnings.push(format!(
            "Publishers left out {skipped} frames for which the load generator was too late, or which \
             their pace did not allow. Give it more cores or a lower bitrate."
        ));
    }
    let unsent = total.unsent.saturating_sub(before.unsent);
    if unsent > 0 {
        warnings.push(format!(
            "This machine's kernel did not take {unsent} datagrams that the load generator sent."
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut tally = Tally::default();
        for us in values {
            Tally::record(&mut tally.latency, Duration::from_micros(*us));
        }
        tally.latency
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(mut values in prop::collection::vec(1u64..10_000_000, 1..2000)) {
            let found = Micros::of(&histogram(&values));
            values.sort_unstable();
            let exact = |q: f64| values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1];
            for (q, us) in [(0.5, found.p50), (0.9, found.p90), (0.99, found.p99), (0.999, found.p999), (1.0, found.max)] {
                let (us, exact) = (us.unwrap() as f64, exact(q) as f64);
                prop_assert!((us - exact).abs() <= exact * 0.001 + 1.0, "{q}: {us} for {exact}");
            }
        }

        #[test]
        fn the_curve_rises_to_the_maximum_in_bounded_steps(values in prop::collection::vec(1u64..10_000_000, 1..500)) {
            let histogram = histogram(&values);
            let curve = curve(&histogram);
            prop_assert!(curve.len() <= 32);
            prop_assert!(curve.windows(2).all(|w| w[0].percentile < w[1].percentile && w[0].us <= w[1].us));
            let last = curve[curve.len() - 1];
            prop_assert_eq!(last, CurvePoint { percentile: 100.0, us: histogram.value_at_quantile(1.0) });
        }

        #[test]
        fn the_warm_up_is_cut_off(cold in 0u64..1_000_000, warm in 1u64..1_000_000, lost in 0u64..1000) {
            let mut before = Tally { packets_out: cold, lost, foreign: 1, begun: 3, ..Tally::default() };
            Tally::record(&mut before.api, Duration::from_millis(90));
            Tally::record(&mut before.join, Duration::from_millis(90));
            let mut total = before.clone();
            Tally::record(&mut total.api, Duration::from_millis(2));
            Tally::record(&mut total.join, Duration::from_millis(2));
            total.packets_out += warm;
            // Seven more from before the mark come to light after it.
            total.lost += lost + 7;
            total.lost_early += 7;
            let report = samples::report_of(&total, Some(&before));
            prop_assert_eq!(report.packets_out, warm);
            prop_assert_eq!((report.lost, report.lost_warm_up), (lost, lost + 7));
            prop_assert_eq!(report.lost_ppm, Some(lost as f64 * 1e6 / (warm + lost) as f64));
            prop_assert_eq!((report.foreign, report.sessions.begun), (1, 3));
            prop_assert_eq!((report.join_ms.count, report.api_ms.count), (2, 1));
            prop_assert_eq!((report.api_warm_up_ms.count, report.api_ms.p50), (1, Some(2.0)));
        }
    }

    #[test]
    fn a_busy_or_slow_generator_says_so() {
        let duration = samples::facts().duration;
        let workers = vec![Duration::from_secs(19), Duration::from_secs(5)];
        let generator = GeneratorUse { cpu: Some(Duration::from_secs(24)), workers };
        let told = warnings(duration, 7, &generator);
        assert!(told[0].contains("1 of its 2 threads") && told[0].contains("95.0 %"), "{told:?}");
        assert!(told[1].contains("overran 7 times"), "{told:?}");
        let at_ease = GeneratorUse { workers: vec![Duration::from_secs(18)], ..generator };
        assert!(warnings(duration, 0, &at_ease).is_empty());
    }

    #[test]
    fn memory_per_session_is_the_growth_and_balance_the_busiest_over_the_mean() {
        assert_eq!(per_session(Some(62_000_000), Some(12_000_000), Some(500)), Some(100_000.0));
        assert_eq!(per_session(Some(62_000_000), None, Some(500)), None);
        assert_eq!(per_session(Some(1), Some(1), Some(0)), None);
        let shards = BTreeMap::from([("0".to_owned(), 300), ("1".to_owned(), 100)]);
        assert_eq!(imbalance(&shards), Some(1.5));
        assert_eq!(imbalance(&BTreeMap::new()), None);
    }

    #[test]
    fn a_run_that_did_not_come_about_says_why() {
        let failure =
            Failure { cause: Cause::Unauthorized, what: "The API answered 401.".to_owned() };
        let report = Report::stopped(samples::facts(), &failure);
        assert_eq!(report.stopped.unwrap().cause, "unauthorized");
        assert_eq!(report.latency_us.p50, None);
    }
}
