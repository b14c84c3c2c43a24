//! Prometheus text, and what the report takes from a server's `/metrics`.
//!
//! Invariants: lines that are no samples are passed over; what a server does not tell stays
//! unknown; counters that went back (a restart) have no difference.

use std::collections::BTreeMap;
use std::time::Duration;

/// One line: a value with its name and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// The samples of a text in the Prometheus or OpenMetrics format, in their order.
pub fn samples(text: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter_map(|line| sample(line.trim()))
}

fn sample(line: &str) -> Option<Sample> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (name, mut rest) = line.split_at(line.find(|c| !is_name(c))?);
    if name.is_empty() {
        return None;
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        (labels, rest) = labels_of(inside)?;
    }
    let value = rest.split_ascii_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what comes after it.
fn labels_of(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = quoted_value(quoted)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// The value up to its closing quote, unescaped, and what comes after it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// What the report wants to know of a server, at one moment or between two.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// RTP packets sent to viewers, by shard; empty where the server does not tell.
    pub shards_out: BTreeMap<String, u64>,
    /// CPU time of the process.
    pub cpu: Option<Duration>,
    pub rss_bytes: Option<u64>,
    /// Datagrams handed to the kernel, and in how many sends.
    pub gso: Option<(u64, u64)>,
    /// What was dropped, by stage and reason; only what is not 0.
    pub drops: Option<BTreeMap<String, u64>>,
    /// Turns of the server's loops, from the first datagram's arrival until the last one was sent.
    pub arrival_to_send: Buckets,
    /// Turns by how long they took.
    pub turns: Buckets,
}

/// How many took up to so many nanoseconds, each bucket including those below it.
pub type Buckets = BTreeMap<u64, u64>;

const SHARDS_OUT: &str = "shardcast_media_packets_total";
const GSO_DATAGRAMS: &str = "shardcast_gso_run_length_sum";
const GSO_SENDS: &str = "shardcast_gso_run_length_count";
const DROPS: &str = "shardcast_drops_total";
const ARRIVAL_TO_SEND: &str = "shardcast_arrival_to_send_seconds_bucket";
const TURNS: &str = "shardcast_turn_seconds_bucket";
const CPU: &str = "process_cpu_seconds_total";
const RSS: &str = "process_resident_memory_bytes";

impl Scrape {
    pub fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        let (mut datagrams, mut sends) = (None, None);
        for sample in samples(text).filter(|sample| sample.value.is_finite() && sample.value >= 0.0)
        {
            let count = sample.value.round() as u64;
            let label = |name| sample.labels.get(name).map(String::as_str);
            let add = |sum: &mut Option<u64>| *sum = Some(sum.unwrap_or(0) + count);
            match sample.name.as_str() {
                SHARDS_OUT if label("direction") == Some("out") => {
                    let shard = label("shard").unwrap_or_default().to_owned();
                    *scrape.shards_out.entry(shard).or_default() += count;
                }
                GSO_DATAGRAMS => add(&mut datagrams),
                GSO_SENDS => add(&mut sends),
                DROPS => {
                    let words = ["stage", "reason"].map(label);
                    let reason = words.into_iter().flatten().collect::<Vec<_>>().join(": ");
                    let drops = scrape.drops.get_or_insert_default();
                    if count > 0 {
                        *drops.entry(reason).or_default() += count;
                    }
                }
                name @ (ARRIVAL_TO_SEND | TURNS) => {
                    let buckets = match name {
                        TURNS => &mut scrape.turns,
                        _ => &mut scrape.arrival_to_send,
                    };
                    if let Some(bound) = label("le").and_then(nanos_of_bound) {
                        *buckets.entry(bound).or_default() += count;
                    }
                }
                CPU => scrape.cpu = Duration::try_from_secs_f64(sample.value).ok(),
                RSS => scrape.rss_bytes = Some(count),
                _ => {}
            }
        }
        scrape.gso = datagrams.zip(sends);
        scrape
    }

    /// What happened after `before`; memory is that of now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let cpu = self.cpu.zip(before.cpu).and_then(|(now, before)| now.checked_sub(before));
        let process = Self { cpu, rss_bytes: self.rss_bytes, ..Self::default() };
        if !self.shards_out.keys().eq(before.shards_out.keys()) {
            // A shard that did not answer one of the two is missing in all sums.
            return process;
        }
        let gso =
            self.gso.zip(before.gso).and_then(|((datagrams, sends), (datagrams_0, sends_0))| {
                Some((datagrams.checked_sub(datagrams_0)?, sends.checked_sub(sends_0)?))
            });
        let drops = self.drops.as_ref().zip(before.drops.as_ref());
        Self {
            shards_out: differences(&self.shards_out, &before.shards_out).unwrap_or_default(),
            gso,
            drops: drops.and_then(|(now, before)| {
                let mut moved = differences(now, before)?;
                moved.retain(|_, count| *count > 0);
                Some(moved)
            }),
            arrival_to_send: differences(&self.arrival_to_send, &before.arrival_to_send)
                .unwrap_or_default(),
            turns: differences(&self.turns, &before.turns).unwrap_or_default(),
            ..process
        }
    }

    /// Mean datagrams for each send.
    pub fn gso_run(&self) -> Option<f64> {
        let (datagrams, sends) = self.gso?;
        (sends > 0).then(|| datagrams as f64 / sends as f64)
    }
}

/// The upper bound, in microseconds, of the bucket that the quantile falls in; `None` also
/// above the last bound.
pub fn bound_us(buckets: &Buckets, quantile: f64) -> Option<f64> {
    let (_, total) = buckets.last_key_value().filter(|(_, total)| **total > 0)?;
    let wanted = (*total as f64 * quantile).ceil().max(1.0);
    let (bound, _) = buckets.iter().find(|(_, count)| **count as f64 >= wanted)?;
    (*bound != u64::MAX).then(|| *bound as f64 / 1e3)
}

/// The bound of a bucket, given in seconds; the last is without bound.
fn nanos_of_bound(text: &str) -> Option<u64> {
    match text {
        "+Inf" => Some(u64::MAX),
        text => text.parse::<f64>().ok().map(|seconds| (seconds * 1e9).round() as u64),
    }
}

fn differences<K: Ord + Clone>(
    now: &BTreeMap<K, u64>,
    before: &BTreeMap<K, u64>,
) -> Option<BTreeMap<K, u64>> {
    let earlier = |name: &K| before.get(name).copied().unwrap_or(0);
    now.iter()
        .map(|(name, count)| Some((name.clone(), count.checked_sub(earlier(name))?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
# HELP shardcast_media_packets_total RTP packets.
# TYPE shardcast_media_packets_total counter
shardcast_media_packets_total{direction=\"out\",shard=\"0\"} 1000
shardcast_media_packets_total{direction=\"out\",shard=\"1\"} 3.0e3 1700000000000

shardcast_drops_total{shard=\"0\",stage=\"send\",reason=\"kernel_buffer_full\"} 4
shardcast_drops_total{shard=\"1\",stage=\"send\",reason=\"kernel_buffer_full\"} 2
shardcast_drops_total{shard=\"1\",stage=\"mail\",reason=\"ring_full\"} 0
shardcast_media_packets_total{direction=\"in\",shard=\"0\"} 77
shardcast_gso_run_length_bucket{shard=\"0\",le=\"+Inf\"} 500
shardcast_arrival_to_send_seconds_bucket{le=\"0.0001\",shard=\"0\"} 40
shardcast_arrival_to_send_seconds_bucket{le=\"0.001\",shard=\"0\"} 49
shardcast_arrival_to_send_seconds_bucket{le=\"+Inf\",shard=\"0\"} 50
shardcast_arrival_to_send_seconds_bucket{le=\"0.0001\",shard=\"1\"} 50
shardcast_arrival_to_send_seconds_bucket{le=\"0.001\",shard=\"1\"} 50
shardcast_arrival_to_send_seconds_bucket{le=\"+Inf\",shard=\"1\"} 50
shardcast_turn_seconds_bucket{le=\"0.0005\",shard=\"0\"} 98
shardcast_turn_seconds_bucket{le=\"0.005\",shard=\"0\"} 100
shardcast_turn_seconds_bucket{le=\"+Inf\",shard=\"0\"} 100
shardcast_gso_run_length_sum{shard=\"0\"} 4000
shardcast_gso_run_length_count{shard=\"0\"} 500
process_cpu_seconds_total 12.5
process_resident_memory_bytes 6.2e+07
# EOF
";

    #[test]
    fn a_scrape_is_read() {
        let scrape = Scrape::read(TEXT);
        assert_eq!(
            scrape.shards_out,
            BTreeMap::from([("0".to_owned(), 1000), ("1".to_owned(), 3000)])
        );
        assert_eq!(scrape.cpu, Some(Duration::from_millis(12_500)));
        assert_eq!(scrape.rss_bytes, Some(62_000_000));
        assert_eq!(scrape.gso_run(), Some(8.0));
        assert_eq!(
            scrape.drops,
            Some(BTreeMap::from([("send: kernel_buffer_full".to_owned(), 6)]))
        );
        assert_eq!(bound_us(&scrape.arrival_to_send, 0.9), Some(100.0));
        assert_eq!(bound_us(&scrape.arrival_to_send, 0.99), Some(1000.0));
        assert_eq!(bound_us(&scrape.arrival_to_send, 0.999), None);
        assert_eq!(bound_us(&scrape.turns, 0.5), Some(500.0));
        assert_eq!(bound_us(&scrape.turns, 0.999), Some(5000.0));
        assert_eq!(bound_us(&Buckets::new(), 0.5), None);
        assert_eq!(Scrape::read("<html>404</html>"), Scrape::default());
    }

    #[test]
    fn two_scrapes_have_a_difference_unless_the_server_restarted() {
        let before = Scrape::read(TEXT);
        let now =
            TEXT.replace(" 1000\n", " 1500\n").replace(" 12.5", " 13.75").replace("} 4\n", "} 9\n");
        let between = Scrape::read(&now).since(&before);
        assert_eq!(
            between.shards_out,
            BTreeMap::from([("0".to_owned(), 500), ("1".to_owned(), 0)])
        );
        assert_eq!(between.cpu, Some(Duration::from_millis(1250)));
        assert_eq!(
            between.drops,
            Some(BTreeMap::from([("send: kernel_buffer_full".to_owned(), 5)]))
        );
        assert_eq!(between.gso_run(), None);
        assert_eq!(bound_us(&between.arrival_to_send, 0.5), None);
        assert_eq!(bound_us(&between.turns, 0.5), None);
        let restarted = Scrape::read(TEXT).since(&Scrape::read(&now));
        assert!(restarted.shards_out.is_empty());
        assert_eq!((restarted.cpu, restarted.drops), (None, None));
    }

    #[test]
    fn a_shard_that_did_not_answer_once_leaves_no_sums() {
        let now = Scrape::read(TEXT);
        let before = TEXT.lines().filter(|line| !line.contains("shard=\"1\"")).collect::<Vec<_>>();
        let between = now.since(&Scrape::read(&before.join("\n")));
        assert_eq!((&between.drops, between.gso), (&None, None));
        assert!(between.shards_out.is_empty());
        assert_eq!(between.cpu, Some(Duration::ZERO));
    }

    #[test]
    fn labels_may_hold_anything() {
        let found = sample(r#"up{path="C:\\a \"b\",}\n", other="",} 1 # {trace="x"} 0.5"#).unwrap();
        assert_eq!(found.labels["path"], "C:\\a \"b\",}\n");
        assert_eq!(found.labels["other"], "");
        assert_eq!(found.value, 1.0);
        for broken in ["", "#", "up", "up{a=\"b} 1", "up{a} 1", "up x", "{a=\"b\"} 1"] {
            assert_eq!(sample(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn no_text_confuses_it(text in "[a-z{}\"\\\\=, \n0-9é]{0,200}") {
            let _ = Scrape::read(&text);
        }
    }
}
