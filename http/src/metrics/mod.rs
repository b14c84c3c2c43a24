//! What the node has counted, as text for Prometheus (OpenMetrics 1.0).
//!
//! Invariants: pure; a shard that did not answer has `shardcast_shard_up` 0 and nothing else,
//! so that its silence is not taken for a count of nothing.
//!
//! Not here: gathering the numbers, and who may read them.

mod cluster;
mod families;
mod links;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use shards::histogram::Histogram;
use shards::snapshot::Snapshot;

use self::families::{API_COUNTERS, COUNTERS, Family, GAUGES};
use crate::desk::{NodeInfo, Process};
use crate::response::Response;
use crate::tally::Kind;

/// What OpenMetrics 1.0 demands.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything there is to show.
#[derive(Debug)]
pub struct Scrape {
    pub node: NodeInfo,
    pub process: Process,
    /// In the order of shards; none of one that did not answer.
    pub shards: Vec<Option<Snapshot>>,
}

/// The answer to `GET /metrics`.
pub(crate) fn response(scrape: Scrape) -> Response {
    Response::plain(200, CONTENT_TYPE, text(scrape).into_bytes())
        .with("cache-control", "no-store")
        .with("x-content-type-options", "nosniff")
        .with("cross-origin-resource-policy", "same-origin")
}

/// The text itself.
pub fn text(scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes all that is written");
    text
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shards = self.shards.iter().enumerate();
        let shards: Vec<_> = shards
            .filter_map(|(shard, found)| Some((shard.to_string(), found.as_ref()?)))
            .collect();
        let mut page = Page { encoder, shards: &shards };
        self.node(&mut page)?;
        self.process(&mut page)?;
        page.times()?;
        for family in &GAUGES {
            page.numbers(family, MetricType::Gauge)?;
        }
        for family in COUNTERS.iter().chain(&API_COUNTERS) {
            page.numbers(family, MetricType::Counter)?;
        }
        cluster::write(&mut page)?;
        links::write(&mut page)?;
        page.drops()?;
        page.runs()?;
        page.requests()
    }
}

impl Scrape {
    fn node(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let (name, help) = ("shardcast_build", "The program");
        let mut build = page.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        build.encode_info(&[("version", self.node.version)])?;
        let draining = f64::from(u8::from(self.node.draining));
        page.gauge("shardcast_draining", "Whether the node is leaving", None, Some(draining))?;
        let (name, help) = ("shardcast_shard_up", "Whether the shard answered this scrape in time");
        let mut up = page.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (shard, found) in self.shards.iter().enumerate() {
            let labels = vec![("shard", shard.to_string())];
            up.encode_family(&labels)?.encode_gauge(&u32::from(found.is_some()))?;
        }
        Ok(())
    }

    /// Under the names every Prometheus client uses.
    fn process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let of = &self.process;
        let float = |number: u64| number as f64;
        let (cpu, unit) = (ConstCounter::new(of.cpu.as_secs_f64()), Unit::Seconds);
        let help = "CPU time of the process, user and system";
        let kind = cpu.metric_type();
        cpu.encode(page.encoder.encode_descriptor("process_cpu", help, Some(&unit), kind)?)?;
        for (name, help, unit, number) in [
            (
                "process_start_time",
                "When the process began, since 1970",
                Some(Unit::Seconds),
                Some(of.started.as_secs_f64()),
            ),
            (
                "process_resident_memory",
                "Memory in RAM",
                Some(Unit::Bytes),
                of.resident_bytes.map(float),
            ),
            (
                "process_virtual_memory",
                "Memory mapped, used or not",
                Some(Unit::Bytes),
                of.virtual_bytes.map(float),
            ),
            ("process_open_fds", "Open file descriptors", None, of.open_fds.map(float)),
            ("process_max_fds", "Most that may be open", None, of.max_fds.map(float)),
        ] {
            page.gauge(name, help, unit, number)?;
        }
        Ok(())
    }
}

/// The text as it grows, and the shards it tells of, by their numbers as text.
struct Page<'e, 's> {
    encoder: DescriptorEncoder<'e>,
    shards: &'s [(String, &'s Snapshot)],
}

impl Page<'_, '_> {
    /// Nothing is shown of what is not known.
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        number: Option<f64>,
    ) -> fmt::Result {
        let Some(number) = number else { return Ok(()) };
        let gauge = ConstGauge::new(number);
        let kind = gauge.metric_type();
        gauge.encode(self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    fn numbers(&mut self, family: &Family, kind: MetricType) -> fmt::Result {
        let Family { name, help, unit, label, series } = family;
        let mut metric = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (shard, snapshot) in self.shards {
            for (value, read) in *series {
                let mut labels = vec![("shard", shard.as_str())];
                labels.extend(label.map(|label| (label, *value)));
                let (number, mut metric) = (read(snapshot), metric.encode_family(&labels)?);
                match kind {
                    MetricType::Counter => {
                        metric.encode_counter::<NoLabelSet, _, u64>(&number, None)?;
                    }
                    _ => metric.encode_gauge(&number)?,
                }
            }
        }
        Ok(())
    }

    fn times(&mut self) -> fmt::Result {
        let (name, help) = ("shardcast_shard_cpu", "CPU time of the shard's thread");
        let unit = Some(&Unit::Seconds);
        let mut cpu = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (shard, snapshot) in self.shards {
            let (labels, seconds) = (vec![("shard", shard.as_str())], snapshot.cpu.as_secs_f64());
            let mut cpu = cpu.encode_family(&labels)?;
            cpu.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
        }
        let kind = MetricType::Histogram;
        let (name, help) = ("shardcast_turn", "How long turns took that had something to do");
        let mut turns = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (shard, snapshot) in self.shards {
            let labels = vec![("shard", shard.as_str())];
            histogram(&mut turns.encode_family(&labels)?, &snapshot.pulse.turns)?;
        }
        let name = "shardcast_arrival_to_send";
        let help = "From when the kernel received the first datagram of a turn until it had the \
                    last one that the turn sent";
        let mut turns = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (shard, snapshot) in self.shards {
            let labels = vec![("shard", shard.as_str())];
            histogram(&mut turns.encode_family(&labels)?, &snapshot.pulse.arrival_to_send)?;
        }
        Ok(())
    }

    fn drops(&mut self) -> fmt::Result {
        let (name, help) = ("shardcast_drops", "What was dropped, where on its way and why");
        let mut drops = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, snapshot) in self.shards {
            for (stage, reason, count) in snapshot.drops() {
                let labels = vec![("shard", shard.as_str()), ("stage", stage), ("reason", reason)];
                let mut drops = drops.encode_family(&labels)?;
                drops.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn runs(&mut self) -> fmt::Result {
        let (name, help) = ("shardcast_gso_run_length", "Datagrams in a message to the kernel");
        let mut runs = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (shard, snapshot) in self.shards {
            let port = &snapshot.port;
            let mut buckets: Vec<_> = port.runs().map(|(most, n)| (most as f64, n)).collect();
            buckets.push((f64::INFINITY, 0));
            let labels = vec![("shard", shard.as_str())];
            let (sum, count) = (port.datagrams_out as f64, port.messages_out);
            let mut runs = runs.encode_family(&labels)?;
            runs.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// Only what was asked at least once: most routes and classes never are.
    fn requests(&mut self) -> fmt::Result {
        let (name, help) = ("shardcast_http_requests", "Requests answered");
        let mut requests = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, snapshot) in self.shards {
            for (kind, class, count) in answered(snapshot) {
                let route = kind.name();
                let labels = vec![("shard", shard.as_str()), ("route", route), ("code", class)];
                let mut requests = requests.encode_family(&labels)?;
                requests.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let name = "shardcast_api_latency";
        let help = "From a whole request until its answer was made, what it waits for included";
        let kind = MetricType::Histogram;
        let mut all = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for (shard, snapshot) in self.shards {
            for kind in Kind::ALL.into_iter().filter(|kind| kind.is_call()) {
                let latency = &snapshot.api.latency[kind.place()];
                if latency.count() > 0 {
                    let labels = vec![("shard", shard.as_str()), ("route", kind.name())];
                    histogram(&mut all.encode_family(&labels)?, latency)?;
                }
            }
        }
        Ok(())
    }
}

/// Requests by kind and class of status, those there were.
fn answered(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, &'static str, u64)> + '_ {
    let by_class = |kind: Kind| {
        let counts = snapshot.api.requests[kind.place()];
        CLASSES.into_iter().zip(counts).map(move |(class, count)| (kind, class, count))
    };
    Kind::ALL.into_iter().flat_map(by_class).filter(|(_, _, count)| *count > 0)
}

/// Of nanoseconds, as seconds.
fn histogram<const N: usize>(
    metric: &mut prometheus_client::encoding::MetricEncoder<'_>,
    times: &Histogram<N>,
) -> fmt::Result {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let mut buckets: Vec<_> = times.buckets().map(|(bound, n)| (seconds(bound), n)).collect();
    buckets.push((f64::INFINITY, times.above()));
    metric.encode_histogram::<NoLabelSet>(seconds(times.sum()), times.count(), &buckets, None)
}

/// Of statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
