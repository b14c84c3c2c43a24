//! The report of one run, as `--json` writes it: every field with its unit.
//!
//! Invariants: what is not known is `null`, never 0; names of fields stay, new ones may come.
//! Whatever has no unit in its name is a count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objective::Objective;
use super::series::Moment;

/// One run. Media counts (packets, bytes, losses, latency, CPU) are of `duration_s`, after the
/// warm-up; sessions, failures, joins, API calls and `corrupted`, `foreign` and `duplicated` are
/// of the whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the load generator.
    pub version: String,
    pub scenario: String,
    /// How the server was asked: `realtime`, `whip`, `janus`.
    pub api: String,
    /// The URL that was asked.
    pub target: String,
    /// What the scenario was told beyond its defaults, by flag.
    pub settings: BTreeMap<String, String>,
    /// When the run began: RFC 3339, UTC.
    pub started: String,
    /// What was measured, seconds, without the warm-up.
    pub duration_s: f64,
    /// What was cut off at the beginning, seconds.
    pub warm_up_s: f64,
    /// Ended by Ctrl-C: a report of what was done until then.
    pub interrupted: bool,
    /// Why there was no run at all: the target could not be reached or refused the login.
    pub stopped: Option<FailureCount>,
    /// Sessions the scenario wanted that publish.
    pub publishers: u64,
    /// Sessions the scenario wanted that receive. A session that does both counts in both.
    pub viewers: u64,
    pub sessions: Sessions,
    pub failures: Vec<FailureCount>,
    /// Sessions by the name of their SRTP profile.
    pub srtp_profiles: BTreeMap<String, u64>,

    /// RTP packets that publishers sent, resends and padding apart.
    pub packets_in: u64,
    /// Their UDP payload.
    pub bytes_in: u64,
    /// RTP packets that viewers received, resends apart.
    pub packets_out: u64,
    /// Their UDP payload.
    pub bytes_out: u64,
    /// Packets per second.
    pub packets_in_per_s: Option<f64>,
    /// Packets per second.
    pub packets_out_per_s: Option<f64>,
    /// UDP payload, bits per second.
    pub bits_in_per_s: Option<f64>,
    /// UDP payload, bits per second.
    pub bits_out_per_s: Option<f64>,

    /// Sequence numbers that never reached their viewer, up to the last one its publisher had sent
    /// when the measurement ended.
    pub lost: u64,
    /// The same during the warm-up, which `lost` leaves out.
    pub lost_warm_up: u64,
    /// `lost` in a million of `packets_out + lost`.
    pub lost_ppm: Option<f64>,
    /// Times that a socket of the load generator overran, by several datagrams each: the run is
    /// invalid if there were any.
    pub overrun: u64,
    pub duplicated: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Came when they were counted lost already, or too late to be told from duplicates.
    pub ancient: u64,
    /// Reports (RTCP) that came twice.
    pub rtcp_replayed: u64,
    /// Received by RTX.
    pub resent: u64,
    /// Packets that were decrypted and checked bit by bit.
    pub checked: u64,
    /// Content that was not what its publisher sent, or authentication that failed.
    pub corrupted: u64,
    /// Content of a track that its viewer did not pull.
    pub foreign: u64,
    pub keyframes: u64,
    /// What publishers were asked for.
    pub keyframe_requests: u64,
    /// Packets the server asked publishers for again.
    pub nacks_in: u64,
    /// Packets viewers asked the server for again.
    pub nacks_out: u64,

    /// From a publisher's send to the arrival at the viewer's socket, microseconds. It includes
    /// what arrived after the measurement, for as long as was waited for what was under way (0.3 s
    /// to some 2 s): what a server held up at the end is in it, not only in `lost`.
    pub latency_us: Micros,
    /// The same as a curve, up to the maximum.
    pub latency_curve: Vec<CurvePoint>,
    /// From the first API call to a connected transport, milliseconds.
    pub join_ms: Millis,
    /// From the first API call to the first media packet, milliseconds.
    pub first_media_ms: Millis,
    /// From a viewer's move to the first media at its new address, milliseconds.
    pub outage_ms: Millis,
    /// One API call during the measurement, milliseconds: from when its peer wanted it, and until
    /// it was answered, refused, broke or was given up (15 s after it was sent).
    pub api_ms: Millis,
    /// One API call before it, of joins above all, milliseconds.
    pub api_warm_up_ms: Millis,

    /// One look at a session (`GET`) during the measurement, of those that `--api-rate` makes, from
    /// when it was due until it was answered, refused, broke or was given up, milliseconds. They
    /// are not in `api_ms`.
    pub api_look_ms: Millis,
    /// Of these looks, those that failed, by cause. They are in `api_look_ms`, unless for want of
    /// this machine, and neither in `failures` nor in `sessions`.
    pub api_looks_failed: Vec<FailureCount>,

    /// CPU nanoseconds of the server's process for each of `packets_out`.
    pub server_cpu_ns_per_packet: Option<f64>,
    /// CPU of the server's process, percent of one core.
    pub server_cpu_percent: Option<f64>,
    /// Resident memory of the server's process at the end of what was measured, bytes.
    pub server_rss_bytes: Option<u64>,
    /// Growth of the server's memory since before the run for each session that stood, bytes.
    pub server_rss_bytes_per_session: Option<f64>,
    /// Mean packets for each GSO send of the server.
    pub server_gso_run: Option<f64>,
    /// In the server, from when the kernel received the first datagram of a turn of its loops until
    /// it had the last one that the turn sent: the bounds of its histogram's buckets, microseconds.
    pub server_arrival_to_send_us: Option<Bounds>,
    /// In the server's loops, turns in which there was something to do, from beginning to end: the
    /// bounds of its histogram's buckets, microseconds.
    pub server_turn_us: Option<Bounds>,
    /// RTP packets that each shard of the server sent, by the shard's name.
    pub server_shards: Option<BTreeMap<String, u64>>,
    /// The busiest shard's packets over the mean of all: 1 is even.
    pub server_shard_imbalance: Option<f64>,
    /// What the server itself dropped, by its reason.
    pub server_drops: Option<BTreeMap<String, u64>>,

    /// CPU nanoseconds of the load generator for each of `packets_out`.
    pub generator_cpu_ns_per_packet: Option<f64>,
    /// CPU of the load generator, percent of one core.
    pub generator_cpu_percent: Option<f64>,
    /// Its busiest thread, percent of one core: near 100, and the generator is the bottleneck.
    pub generator_busiest_percent: Option<f64>,
    /// Its threads that move packets.
    pub generator_threads: u64,
    /// Why these figures may be the generator's rather than the server's; empty is good.
    pub generator_warnings: Vec<String>,

    /// By how much an idle thread woke late each millisecond, microseconds: how long this machine
    /// kept everybody waiting, whatever the server did.
    pub stalls_us: Micros,
    /// How that thread ran: `realtime`, before all ordinary programs, or `ordinary`, where that is
    /// not allowed: then other programs are in it.
    pub stalls_probe: Option<String>,
    /// The CPU it was pinned to.
    pub stalls_cpu: Option<u64>,

    /// What was asked of the run, and what of it was missed.
    pub objective: Option<Judged>,
    /// What `--ramp` tried to find the load of this run, in its order.
    pub ramp: Vec<Trial>,
    /// The run over time, warm-up included.
    pub series: Vec<Moment>,
}

/// A run of a ramp.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// In viewers (in a meeting: people; of several: rooms; of `idle`: sessions).
    pub load: u64,
    /// What of the objective it missed; empty: it held.
    pub missed: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    pub begun: u64,
    pub connected: u64,
    /// Left on purpose.
    pub left: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCount {
    /// A word: `unreachable`, `slow`, `unauthorized`, `refused`, `incomprehensible`,
    /// `negotiation`, `no_path`, `handshake`, `no_media`, `closed`, `local`.
    pub cause: String,
    /// One sentence.
    pub what: String,
    pub count: u64,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Micros {
    /// How many were measured.
    pub count: u64,
    pub mean: Option<f64>,
    pub p50: Option<u64>,
    pub p90: Option<u64>,
    pub p99: Option<u64>,
    pub p999: Option<u64>,
    pub max: Option<u64>,
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// How many were measured.
    pub count: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// Upper bounds of quantiles in microseconds; `null` above the last bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// 0 to 100.
    pub percentile: f64,
    /// Microseconds.
    pub us: u64,
}

/// An objective and its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    #[serde(flatten)]
    pub objective: Objective,
    /// One sentence for each limit that was missed.
    pub missed: Vec<String>,
}

impl Report {
    /// As `--json` writes it.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with text keys");
        text.push('\n');
        text
    }

    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Judges the run by what was asked of it; the verdict becomes part of the report.
    pub fn judge(&mut self, objective: Objective) {
        let missed = objective.missed_by(self);
        self.objective = Some(Judged { objective, missed });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::samples;
    use super::*;

    #[test]
    fn the_promised_fields_are_there_with_their_values() {
        let report = samples::stage();
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["scenario"], "stage");
        assert_eq!(json["target"], "http://127.0.0.1:8080/v1/apps/demo");
        assert_eq!(json["duration_s"], 20.0);
        assert_eq!(json["publishers"], 1);
        assert_eq!(json["viewers"], 500);
        assert_eq!(json["packets_in"], 6_000);
        assert_eq!(json["packets_out"], 3_000_000);
        assert_eq!(json["lost_ppm"], 0.0);
        assert_eq!(json["duplicated"], 0);
        assert_eq!(json["corrupted"], 0);
        for quantile in ["p50", "p99", "p999", "max"] {
            assert!(json["latency_us"][quantile].is_u64(), "{quantile}");
            assert!(json["stalls_us"][quantile].is_u64(), "{quantile}");
        }
        assert_eq!((&json["stalls_probe"], &json["stalls_cpu"]), (&"realtime".into(), &0.into()));
        for times in ["join_ms", "api_ms", "api_look_ms", "first_media_ms"] {
            assert!(json[times]["p50"].is_f64() && json[times]["p99"].is_f64(), "{times}");
        }
        assert_eq!(json["server_cpu_ns_per_packet"], 5_000.0);
        assert_eq!(json["generator_cpu_ns_per_packet"], 3_000.0);
        assert_eq!(json["server_rss_bytes"], 62_000_000);
        assert_eq!(json["started"], "2024-06-01T12:00:00Z");
        assert_eq!(json["failures"][0]["cause"], Value::Null);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let json: Value = serde_json::from_str(&samples::nothing().to_json()).unwrap();
        let null = [
            "stopped",
            "lost_ppm",
            "packets_in_per_s",
            "bits_out_per_s",
            "server_cpu_ns_per_packet",
            "server_cpu_percent",
            "server_rss_bytes",
            "server_rss_bytes_per_session",
            "server_gso_run",
            "server_arrival_to_send_us",
            "server_turn_us",
            "stalls_probe",
            "stalls_cpu",
            "server_shards",
            "server_shard_imbalance",
            "server_drops",
            "generator_cpu_ns_per_packet",
            "generator_cpu_percent",
            "generator_busiest_percent",
            "objective",
        ];
        for field in null {
            let object = json.as_object().unwrap();
            assert_eq!(object.get(field), Some(&Value::Null), "{field}");
        }
        for times in
            ["latency_us", "join_ms", "first_media_ms", "api_ms", "api_look_ms", "stalls_us"]
        {
            assert_eq!(json[times]["count"], 0);
            assert_eq!(json[times].get("p99"), Some(&Value::Null), "{times}");
            assert_eq!(json[times].get("max"), Some(&Value::Null), "{times}");
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        for mut report in [samples::stage(), samples::trouble(), samples::nothing()] {
            report.judge(Objective { latency_p99_us: Some(5_000), ..Objective::default() });
            // The reader may err in the last of 17 digits.
            report.latency_us.mean = report.latency_us.mean.map(f64::round);
            assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
        }
    }
}
