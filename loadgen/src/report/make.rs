//! Makes a [`Report`] of what was counted and read.
//!
//! Invariants: quantiles are the histogram's own; a figure that lacks one of its terms is `None`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::metrics::Scrape;
use super::number::{percent, rfc3339};
use super::series::{Series, newer};
use super::summary::{CurvePoint, FailureCount, Micros, Millis, Report, Sessions};
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
        let cold = Tally::default();
        let before = at_warm_up.unwrap_or(&cold);
        let media = Media::after(total, before);
        let latency = newer(&total.latency, &before.latency);
        let seconds = facts.duration.as_secs_f64();
        let per_s = |count: u64| (seconds > 0.0).then(|| count as f64 / seconds);
        let metrics = server.metrics.unwrap_or_default();
        let server_cpu = server.cpu.or(metrics.cpu);
        let rss = server.rss_bytes.or(metrics.rss_bytes);
        let warnings = warnings(&facts, media.overrun, generator);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: facts.scenario,
            api: facts.api,
            target: facts.target,
            settings: facts.settings,
            started: rfc3339(facts.started),
            duration_s: seconds,
            warm_up_s: facts.warm_up.as_secs_f64(),
            interrupted: facts.interrupted,
            stopped: None,
            publishers: facts.publishers,
            viewers: facts.viewers,
            sessions: Sessions {
                begun: total.begun,
                connected: total.connected,
                left: total.left,
                failed: total.failed(),
            },
            failures: total
                .failures
                .iter()
                .map(|(f, count)| FailureCount::new(f, *count))
                .collect(),
            srtp_profiles: total.profiles.clone(),
            packets_in: media.packets_in,
            bytes_in: media.bytes_in,
            packets_out: media.packets_out,
            bytes_out: media.bytes_out,
            packets_in_per_s: per_s(media.packets_in),
            packets_out_per_s: per_s(media.packets_out),
            bits_in_per_s: per_s(media.bytes_in * 8),
            bits_out_per_s: per_s(media.bytes_out * 8),
            lost: media.lost,
            lost_warm_up: total.lost.saturating_sub(media.lost),
            lost_ppm: ratio(media.lost as f64 * 1e6, media.packets_out + media.lost),
            overrun: media.overrun,
            duplicated: total.duplicated,
            reordered: total.reordered.saturating_sub(before.reordered),
            resent: total.resent.saturating_sub(before.resent),
            checked: total.checked.saturating_sub(before.checked),
            corrupted: total.corrupted,
            foreign: total.foreign,
            keyframes: total.keyframes.saturating_sub(before.keyframes),
            keyframe_requests: total.keyframe_requests.saturating_sub(before.keyframe_requests),
            nacks_in: total.nacks_in.saturating_sub(before.nacks_in),
            nacks_out: total.nacks_out.saturating_sub(before.nacks_out),
            latency_us: Micros::of(&latency),
            latency_curve: curve(&latency),
            join_ms: Millis::of(&total.join),
            first_media_ms: Millis::of(&total.first_media),
            api_ms: Millis::of(&total.api),
            server_cpu_ns_per_packet: cpu_per_packet(server_cpu, media.packets_out),
            server_cpu_percent: share(server_cpu, facts.duration),
            server_rss_bytes: rss,
            server_rss_bytes_per_session: per_session(
                rss,
                server.rss_before_bytes,
                server.sessions,
            ),
            server_gso_run: metrics.gso_run(),
            server_shard_imbalance: imbalance(&metrics.shards_out),
            server_shards: (!metrics.shards_out.is_empty()).then_some(metrics.shards_out),
            server_drops: metrics.drops,
            generator_cpu_ns_per_packet: cpu_per_packet(generator.cpu, media.packets_out),
            generator_cpu_percent: share(generator.cpu, facts.duration),
            generator_busiest_percent: share(
                generator.workers.iter().max().copied(),
                facts.duration,
            ),
            generator_threads: facts.threads,
            generator_warnings: warnings,
            objective: None,
            series: series.moments(),
        }
    }

    /// Of a run that did not come about: the target was unreachable, or refused the login.
    pub fn stopped(facts: Facts, failure: &Failure) -> Self {
        let (series, generator) = (Series::default(), GeneratorUse::default());
        let nothing =
            Self::new(facts, &Tally::default(), None, &series, ServerUse::default(), &generator);
        Self { stopped: Some(FailureCount::new(failure, 1)), ..nothing }
    }
}

/// The media counts after the warm-up.
struct Media {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
    lost: u64,
    overrun: u64,
}

impl Media {
    fn after(total: &Tally, before: &Tally) -> Self {
        // Losses can be taken back by packets that come late, also across the warm-up's end.
        Self {
            packets_in: total.packets_in.saturating_sub(before.packets_in),
            bytes_in: total.bytes_in.saturating_sub(before.bytes_in),
            packets_out: total.packets_out.saturating_sub(before.packets_out),
            bytes_out: total.bytes_out.saturating_sub(before.bytes_out),
            lost: total.lost.saturating_sub(before.lost),
            overrun: total.overrun.saturating_sub(before.overrun),
        }
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

fn warnings(facts: &Facts, overrun: u64, generator: &GeneratorUse) -> Vec<String> {
    let mut warnings = Vec::new();
    let shares = generator.workers.iter().filter_map(|cpu| share(Some(*cpu), facts.duration));
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
            "The load generator received too slowly: {overrun} of the lost packets overran its socket buffers. \
             Give it more cores, larger buffers (net.core.rmem_max) or less load."
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
            let before = Tally { packets_out: cold, lost, foreign: 1, begun: 3, ..Tally::default() };
            let mut total = before.clone();
            total.packets_out += warm;
            total.lost += lost;
            let report = samples::report_of(&total, Some(&before));
            prop_assert_eq!(report.packets_out, warm);
            prop_assert_eq!((report.lost, report.lost_warm_up), (lost, lost));
            prop_assert_eq!(report.lost_ppm, Some(lost as f64 * 1e6 / (warm + lost) as f64));
            prop_assert_eq!((report.foreign, report.sessions.begun), (1, 3));
        }
    }

    #[test]
    fn a_busy_or_slow_generator_says_so() {
        let facts = samples::facts();
        let workers = vec![Duration::from_secs(19), Duration::from_secs(5)];
        let generator = GeneratorUse { cpu: Some(Duration::from_secs(24)), workers };
        let told = warnings(&facts, 7, &generator);
        assert!(told[0].contains("1 of its 2 threads") && told[0].contains("95.0 %"), "{told:?}");
        assert!(told[1].contains("7 of the lost packets"), "{told:?}");
        let at_ease = GeneratorUse { workers: vec![Duration::from_secs(18)], ..generator };
        assert!(warnings(&facts, 0, &at_ease).is_empty());
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
