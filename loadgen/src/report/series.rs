//! How a run went over time: one [`Moment`] a second, and coarser ones when it is long.
//!
//! Invariants: never more than [`MOMENTS_MAX`] moments; counts are sums over a moment's span, so
//! merging two keeps every total; moments follow each other without overlap.

use std::mem;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::api::Cause;

/// What a chart can show in a page's width, 20 minutes of seconds; a day is told in minutes.
pub const MOMENTS_MAX: usize = 1200;

/// What happened in one second, or in `span_s` of them. Counts are of this span alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its beginning, seconds since the run began (warm-up included).
    pub at_s: f64,
    /// Its length in seconds.
    pub span_s: f64,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub lost: u64,
    /// Of `lost`, what this process received too slowly.
    pub overrun: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// Sessions connected at its end.
    pub sessions: u64,
    /// Of the span's packets, microseconds; after merging the mean weighted by packets.
    pub latency_p50_us: Option<f64>,
    /// Of the span's packets, microseconds; after merging the worst second.
    pub latency_p99_us: Option<f64>,
    /// CPU nanoseconds of the server's process.
    pub server_cpu_ns: Option<u64>,
    /// CPU nanoseconds of this process.
    pub generator_cpu_ns: Option<u64>,
    /// Resident bytes of the server's process at its end.
    pub server_rss_bytes: Option<u64>,
}

/// What was read beside the tally when a moment ended; each CPU time since the moment before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    pub server_cpu_ns: Option<u64>,
    pub generator_cpu_ns: Option<u64>,
    pub server_rss_bytes: Option<u64>,
}

impl Moment {
    /// From two sums over all workers, a span apart.
    pub fn between(at_s: f64, span_s: f64, before: &Tally, now: &Tally, used: Use) -> Self {
        let fresh = newer(&now.latency, &before.latency);
        let quantile = |q| (!fresh.is_empty()).then(|| fresh.value_at_quantile(q) as f64);
        Self {
            at_s,
            span_s,
            packets_in: now.packets_in.saturating_sub(before.packets_in),
            bytes_in: now.bytes_in.saturating_sub(before.bytes_in),
            packets_out: now.packets_out.saturating_sub(before.packets_out),
            bytes_out: now.bytes_out.saturating_sub(before.bytes_out),
            lost: now.lost.saturating_sub(before.lost),
            overrun: now.overrun.saturating_sub(before.overrun),
            failed: now.failed().saturating_sub(before.failed()),
            sessions: standing(now),
            latency_p50_us: quantile(0.5),
            latency_p99_us: quantile(0.99),
            server_cpu_ns: used.server_cpu_ns,
            generator_cpu_ns: used.generator_cpu_ns,
            server_rss_bytes: used.server_rss_bytes,
        }
    }

    /// A count of this span as a rate.
    pub fn per_s(&self, count: u64) -> f64 {
        if self.span_s > 0.0 { count as f64 / self.span_s } else { 0.0 }
    }

    pub fn bits_in_per_s(&self) -> f64 {
        self.per_s(self.bytes_in) * 8.0
    }

    pub fn bits_out_per_s(&self) -> f64 {
        self.per_s(self.bytes_out) * 8.0
    }

    /// In percent of one core.
    pub fn server_percent(&self) -> Option<f64> {
        self.server_cpu_ns.map(|ns| self.per_s(ns) / 1e7)
    }

    /// In percent of one core.
    pub fn generator_percent(&self) -> Option<f64> {
        self.generator_cpu_ns.map(|ns| self.per_s(ns) / 1e7)
    }

    /// This moment and the next one as one.
    #[must_use]
    pub fn merged(&self, next: &Self) -> Self {
        let weighted = |one: f64, other: f64| {
            let (a, b) = (self.packets_out as f64, next.packets_out as f64);
            if a + b > 0.0 { (one * a + other * b) / (a + b) } else { f64::midpoint(one, other) }
        };
        Self {
            at_s: self.at_s,
            span_s: self.span_s + next.span_s,
            packets_in: self.packets_in + next.packets_in,
            bytes_in: self.bytes_in + next.bytes_in,
            packets_out: self.packets_out + next.packets_out,
            bytes_out: self.bytes_out + next.bytes_out,
            lost: self.lost + next.lost,
            overrun: self.overrun + next.overrun,
            failed: self.failed + next.failed,
            sessions: next.sessions,
            latency_p50_us: either(self.latency_p50_us, next.latency_p50_us, weighted),
            latency_p99_us: either(self.latency_p99_us, next.latency_p99_us, f64::max),
            // Half a known time would pass for a low one.
            server_cpu_ns: both(self.server_cpu_ns, next.server_cpu_ns),
            generator_cpu_ns: both(self.generator_cpu_ns, next.generator_cpu_ns),
            server_rss_bytes: next.server_rss_bytes.or(self.server_rss_bytes),
        }
    }
}

fn either<T>(one: Option<T>, other: Option<T>, merge: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(merge(one, other)),
        (one, other) => one.or(other),
    }
}

fn both(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one? + other?)
}

/// Sessions that connected and neither left nor were closed by the server.
pub fn standing(tally: &Tally) -> u64 {
    let closed = tally.failures.iter().filter(|(failure, _)| failure.cause == Cause::Closed);
    tally.connected.saturating_sub(tally.left).saturating_sub(closed.map(|(_, count)| count).sum())
}

/// What was recorded in `now` and not yet in `before`, an earlier state of the same histogram.
pub fn newer(now: &Histogram<u64>, before: &Histogram<u64>) -> Histogram<u64> {
    let mut fresh = now.clone();
    fresh.subtract(before).expect("an earlier state of the same histogram has no more in it");
    fresh
}

/// The moments of a run.
#[derive(Debug, Clone)]
pub struct Series {
    moments: Vec<Moment>,
    /// How many of what is pushed make one moment: doubles whenever the room is used up.
    stride: u32,
    /// What waits to become a moment, and of how many it is made.
    pending: Option<(Moment, u32)>,
}

impl Default for Series {
    fn default() -> Self {
        Self { moments: Vec::new(), stride: 1, pending: None }
    }
}

impl Series {
    pub fn push(&mut self, moment: Moment) {
        let (sum, count) = match self.pending.take() {
            Some((sum, count)) => (sum.merged(&moment), count + 1),
            None => (moment, 1),
        };
        if count < self.stride {
            self.pending = Some((sum, count));
            return;
        }
        self.moments.push(sum);
        if self.moments.len() == MOMENTS_MAX {
            self.thin_out();
        }
    }

    fn thin_out(&mut self) {
        let fine = mem::take(&mut self.moments);
        let pairs = fine.chunks(2);
        self.moments =
            pairs.map(|pair| pair[1..].iter().fold(pair[0], |a, b| a.merged(b))).collect();
        self.stride = self.stride.saturating_mul(2);
    }

    /// All of it, in order, with what is still gathering at the end.
    pub fn moments(&self) -> Vec<Moment> {
        let mut all = self.moments.clone();
        all.extend(self.pending.map(|(moment, _)| moment));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn any_moment() -> impl Strategy<Value = Moment> {
        let small = 0u64..1_000_000;
        (
            small.clone(),
            small.clone(),
            0u64..100,
            prop::option::of(1.0f64..1e6),
            prop::option::of(small),
        )
            .prop_map(|(packets_in, packets_out, lost, latency, cpu)| Moment {
                span_s: 1.0,
                packets_in,
                packets_out,
                bytes_out: packets_out * 1200,
                lost,
                sessions: lost,
                latency_p50_us: latency,
                latency_p99_us: latency.map(|us| us * 3.0),
                server_cpu_ns: cpu,
                ..Moment::default()
            })
    }

    proptest! {
        #[test]
        fn thinning_keeps_sums_times_and_the_worst(
            few in prop::collection::vec(any_moment(), 1..40),
            repeats in 1usize..400,
        ) {
            let pushed: Vec<Moment> = (0..repeats).flat_map(|_| few.clone()).collect();
            let mut series = Series::default();
            for (at, moment) in pushed.iter().enumerate() {
                series.push(Moment { at_s: at as f64, ..*moment });
            }
            let kept = series.moments();
            prop_assert!(kept.len() <= MOMENTS_MAX);
            let sum = |of: &[Moment], what: fn(&Moment) -> u64| of.iter().map(what).sum::<u64>();
            prop_assert_eq!(sum(&kept, |m| m.packets_in), sum(&pushed, |m| m.packets_in));
            prop_assert_eq!(sum(&kept, |m| m.packets_out), sum(&pushed, |m| m.packets_out));
            prop_assert_eq!(sum(&kept, |m| m.bytes_out), sum(&pushed, |m| m.bytes_out));
            prop_assert_eq!(sum(&kept, |m| m.lost), sum(&pushed, |m| m.lost));
            let worst = |of: &[Moment]| of.iter().filter_map(|m| m.latency_p99_us).fold(0.0, f64::max);
            prop_assert_eq!(worst(&kept), worst(&pushed));
            prop_assert_eq!(kept[kept.len() - 1].sessions, pushed[pushed.len() - 1].sessions);
            let mut at = 0.0;
            for moment in &kept {
                prop_assert_eq!(moment.at_s, at);
                at += moment.span_s;
            }
            prop_assert_eq!(at, pushed.len() as f64);
        }

        #[test]
        fn a_merged_latency_lies_between_and_half_a_cpu_time_is_none(a in any_moment(), b in any_moment()) {
            let merged = a.merged(&b);
            if let (Some(one), Some(other)) = (a.latency_p50_us, b.latency_p50_us) {
                let middle = merged.latency_p50_us.unwrap();
                prop_assert!(middle >= one.min(other) - 1e-6 && middle <= one.max(other) + 1e-6);
            }
            let known = a.server_cpu_ns.is_some() && b.server_cpu_ns.is_some();
            prop_assert_eq!(merged.server_cpu_ns.is_some(), known);
        }
    }

    #[test]
    fn a_moment_tells_only_of_its_own_second() {
        let mut before = Tally { packets_out: 100, ..Tally::default() };
        Tally::record(&mut before.latency, Duration::from_secs(9));
        let mut now = before.clone();
        now.packets_out = 350;
        now.connected = 7;
        now.left = 2;
        for us in [100, 200, 300] {
            Tally::record(&mut now.latency, Duration::from_micros(us));
        }
        let used = Use { server_cpu_ns: Some(250_000_000), ..Use::default() };
        let moment = Moment::between(4.0, 0.5, &before, &now, used);
        assert_eq!(moment.packets_out, 250);
        assert_eq!(moment.per_s(moment.packets_out), 500.0);
        assert_eq!(moment.latency_p50_us, Some(200.0));
        assert_eq!(moment.latency_p99_us, Some(300.0));
        assert_eq!(moment.server_percent(), Some(50.0));
        assert_eq!(moment.generator_percent(), None);
        assert_eq!(moment.sessions, 5);
        let silent = Moment::between(5.0, 1.0, &now, &now, Use::default());
        assert_eq!(silent.latency_p99_us, None);
    }
}
