//! The figures of a report, named, in sections: the same on the terminal and in HTML.

use std::collections::BTreeMap;

use super::number::{
    GAP, UNKNOWN, bits_per_s, bytes, digits, grouped, known, micros, millis, nanos, percent,
};
use super::summary::{Bounds, FailureCount, Micros, Millis, Report};
use super::verdict::overran;

/// What a value means, to be shown by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
    Head,
}

#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub value: String,
    pub tone: Tone,
}

#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    fn row(mut self, name: &str, value: String) -> Self {
        self.rows.push(Row { name: name.to_owned(), value, tone: Tone::Plain });
        self
    }

    /// A row only if there is something to tell.
    fn row_if(self, is_told: bool, name: &str, value: impl FnOnce() -> String) -> Self {
        if is_told { self.row(name, value()) } else { self }
    }

    /// A count that should be 0.
    fn wrong(mut self, name: &str, count: u64, value: String) -> Self {
        let tone = if count == 0 { Tone::Good } else { Tone::Bad };
        self.rows.push(Row { name: name.to_owned(), value, tone });
        self
    }
}

pub fn sections(report: &Report) -> Vec<Section> {
    let mut sections = vec![run(report)];
    if report.stopped.is_none() {
        sections.extend([
            traffic(report),
            correctness(report),
            latency(report),
            joins(report),
            cost(report),
        ]);
    }
    if !report.failures.is_empty() || !report.api_looks_failed.is_empty() {
        sections.push(failures(report));
    }
    sections
}

fn run(report: &Report) -> Section {
    let count = |count| grouped(count, GAP);
    let mut time = format!("{} s", digits(report.duration_s));
    if report.warm_up_s > 0.0 {
        time += &format!(" after {} s of warm-up", digits(report.warm_up_s));
    }
    if report.interrupted {
        time += ", interrupted";
    }
    let settings: Vec<String> =
        report.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let sessions = report.sessions;
    Section::new("Run")
        .row("scenario", report.scenario.clone())
        .row("target", format!("{} ({})", report.target, report.api))
        .row_if(!settings.is_empty(), "settings", || settings.join(", "))
        .row("began", report.started.clone())
        .row("measured", time)
        .row(
            "wanted",
            format!("{} publishing, {} receiving", count(report.publishers), count(report.viewers)),
        )
        .row(
            "sessions",
            format!(
                "{} connected, {} failed, {} left",
                count(sessions.connected),
                count(sessions.failed),
                count(sessions.left)
            ),
        )
        .row_if(!report.srtp_profiles.is_empty(), "SRTP", || counts(&report.srtp_profiles))
}

fn traffic(report: &Report) -> Section {
    let flow = |packets: u64, rate: Option<f64>, bits: Option<f64>| {
        let rate = known(rate, |rate| format!("{}/s", digits(rate)));
        format!("{} packets, {rate}, {}", grouped(packets, GAP), known(bits, bits_per_s))
    };
    let keyframes = || {
        format!(
            "{} sent, {} asked for",
            grouped(report.keyframes, GAP),
            grouped(report.keyframe_requests, GAP)
        )
    };
    Section::new("Traffic")
        .row(
            "to the server",
            flow(report.packets_in, report.packets_in_per_s, report.bits_in_per_s),
        )
        .row(
            "from the server",
            flow(report.packets_out, report.packets_out_per_s, report.bits_out_per_s),
        )
        .row("keyframes", keyframes())
        .row_if(report.nacks_in + report.nacks_out + report.resent > 0, "NACK", || {
            format!(
                "{} by the server, {} by viewers, {} resends received",
                grouped(report.nacks_in, GAP),
                grouped(report.nacks_out, GAP),
                grouped(report.resent, GAP)
            )
        })
}

fn correctness(report: &Report) -> Section {
    let count = |count| grouped(count, GAP);
    let mut lost = count(report.lost);
    if let Some(ppm) = report.lost_ppm.filter(|_| report.lost > 0) {
        lost += &format!(" ({} ppm)", digits(ppm));
    }
    if report.overrun > 0 {
        lost += &format!("; invalid, {}", overran(report.overrun));
    }
    Section::new("Correctness")
        .wrong("lost", report.lost, lost)
        .row_if(report.lost_warm_up > 0, "lost in the warm-up", || count(report.lost_warm_up))
        .wrong("duplicated", report.duplicated, count(report.duplicated))
        .wrong(
            "corrupted",
            report.corrupted,
            format!("{} of {} checked bit by bit", count(report.corrupted), count(report.checked)),
        )
        .wrong("foreign", report.foreign, count(report.foreign))
        .row("reordered", count(report.reordered))
        .row_if(report.ancient > 0, "too late to count", || count(report.ancient))
        .row_if(report.rtcp_replayed > 0, "reports that came twice", || count(report.rtcp_replayed))
}

fn latency(report: &Report) -> Section {
    let Micros { p50, p90, p99, p999, max, .. } = report.latency_us;
    let us = |value: Option<u64>| known(value, |us| micros(us as f64));
    Section::new("Latency, publisher to viewer")
        .row("p50", us(p50))
        .row("p90", us(p90))
        .row("p99", us(p99))
        .row("p99.9", us(p999))
        .row("max", us(max))
}

fn joins(report: &Report) -> Section {
    let times = |times: Millis| {
        if times.count == 0 {
            return UNKNOWN.to_owned();
        }
        let [p50, p99, max] = [times.p50, times.p99, times.max].map(|ms| known(ms, millis));
        format!("p50 {p50}, p99 {p99}, max {max}")
    };
    Section::new("API and joins")
        .row("API call", times(report.api_ms))
        .row_if(report.api_look_ms.count > 0, "API look at a session", || times(report.api_look_ms))
        .row_if(report.api_warm_up_ms.count > 0, "API call, warm-up", || {
            times(report.api_warm_up_ms)
        })
        .row_if(report.outage_ms.count > 0, "outage of a move", || times(report.outage_ms))
        .row("join", times(report.join_ms))
        .row("first media", times(report.first_media_ms))
}

fn cost(report: &Report) -> Section {
    let cpu = |per_packet: Option<f64>, share: Option<f64>| match (per_packet, share) {
        (None, None) => UNKNOWN.to_owned(),
        (per_packet, share) => {
            format!("{} a packet, {} of a core", known(per_packet, nanos), known(share, percent))
        }
    };
    let mut memory = known(report.server_rss_bytes, |rss| bytes(rss as f64));
    if let Some(each) = report.server_rss_bytes_per_session {
        memory += &format!(", {} a session", bytes(each));
    }
    let generator = cpu(report.generator_cpu_ns_per_packet, report.generator_cpu_percent);
    Section::new("CPU and memory")
        .row("server CPU", cpu(report.server_cpu_ns_per_packet, report.server_cpu_percent))
        .row("server memory", memory)
        .row_if(report.server_gso_run.is_some(), "server GSO run", || {
            known(report.server_gso_run, |run| format!("{} packets a send", digits(run)))
        })
        .row_if(report.server_arrival_to_send_us.is_some(), "server latency", || {
            bounds(report.server_arrival_to_send_us)
        })
        .row_if(report.server_turn_us.is_some(), "server turn", || bounds(report.server_turn_us))
        .row_if(report.server_shard_imbalance.is_some(), "server shards", || shards(report))
        .row_if(report.server_drops.is_some(), "server drops", || {
            drops(report.server_drops.as_ref())
        })
        .row("generator CPU", generator)
        .row_if(report.generator_busiest_percent.is_some(), "generator threads", || {
            let busiest = known(report.generator_busiest_percent, percent);
            format!("{}, the busiest at {busiest} of a core", report.generator_threads)
        })
        .row_if(report.stalls_us.count > 0, "machine stalls", || stalls(report))
}

/// The idle probe's, with what it takes to read them.
fn stalls(report: &Report) -> String {
    let Micros { p99, p999, max, .. } = report.stalls_us;
    let [p99, p999, max] = [p99, p999, max].map(|us| known(us, |us| micros(us as f64)));
    let class = report.stalls_probe.as_deref().unwrap_or(UNKNOWN);
    let cpu = report.stalls_cpu.map(|cpu| format!(", CPU {cpu}")).unwrap_or_default();
    format!("p99 {p99}, p99.9 {p999}, max {max} ({class}{cpu})")
}

fn bounds(bounds: Option<Bounds>) -> String {
    let Some(Bounds { p50, p99, p999 }) = bounds else {
        return UNKNOWN.to_owned();
    };
    let [p50, p99, p999] = [p50, p99, p999].map(|us| known(us, |us| format!("≤ {}", micros(us))));
    format!("p50 {p50}, p99 {p99}, p99.9 {p999}")
}

/// The share of each shard, if they are few enough to be read.
fn shards(report: &Report) -> String {
    let Some(shards) = &report.server_shards else { return UNKNOWN.to_owned() };
    let total = shards.values().sum::<u64>().max(1);
    let share = |(shard, count): (&String, &u64)| {
        format!("{shard}: {} %", digits(*count as f64 * 100.0 / total as f64))
    };
    let imbalance =
        known(report.server_shard_imbalance, |of| format!("busiest {} × the mean", digits(of)));
    if shards.len() > 8 {
        return format!("{} shards, {imbalance}", shards.len());
    }
    format!("{}; {imbalance}", shards.iter().map(share).collect::<Vec<_>>().join(", "))
}

fn drops(drops: Option<&BTreeMap<String, u64>>) -> String {
    match drops {
        None => UNKNOWN.to_owned(),
        Some(drops) if drops.is_empty() => "none".to_owned(),
        Some(drops) => counts(drops),
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> =
        counts.iter().map(|(name, count)| format!("{} × {name}", grouped(*count, GAP))).collect();
    each.join(", ")
}

fn failures(report: &Report) -> Section {
    let mut failures: Vec<_> = report.failures.iter().collect();
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
    let row = |failure: &FailureCount, of: &str| Row {
        name: format!("{} × {of}{}", grouped(failure.count, GAP), failure.cause),
        value: failure.what.clone(),
        tone: Tone::Bad,
    };
    let looks = report.api_looks_failed.iter().map(|failure| row(failure, "look "));
    let rows = failures.into_iter().map(|failure| row(failure, "")).chain(looks);
    Section { title: "Failures", rows: rows.collect() }
}
