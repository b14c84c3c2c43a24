//! A strict reader of OpenMetrics text: panics at whatever Prometheus would stumble over, and at
//! what it would swallow and misread.

use std::collections::{BTreeMap, BTreeSet};

/// One metric: all that stands between its HELP and the next one's.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// By name and labels, as written.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// Reads and checks all of it; families by name.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with EOF, and says so");
    let mut families = BTreeMap::new();
    for block in body.split("# HELP ").skip(1) {
        let (name, family) = block_of(block);
        assert!(families.insert(name.clone(), family).is_none(), "{name} is there twice");
    }
    let told: usize = families.values().map(|family| family.samples.len()).sum();
    let lines = body.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(told, lines, "every sample belongs to a metric, and is there once");
    families
}

/// The value of a sample, by its name and labels.
pub(crate) fn value(families: &BTreeMap<String, Family>, sample: &str) -> f64 {
    let found = families.values().find_map(|family| family.samples.get(sample));
    *found.unwrap_or_else(|| panic!("no {sample}"))
}

/// The sum of a metric's samples that have all these in their name or labels.
pub(crate) fn sum(families: &BTreeMap<String, Family>, name: &str, having: &[&str]) -> f64 {
    let samples = &families[name].samples;
    let with = |sample: &String| having.iter().all(|part| sample.contains(part));
    samples.iter().filter(|(sample, _)| with(sample)).map(|(_, value)| value).sum()
}

/// Checks that nothing that may only grow has shrunk or vanished.
pub(crate) fn assert_monotone(before: &BTreeMap<String, Family>, after: &BTreeMap<String, Family>) {
    for (name, family) in before.iter().filter(|(_, family)| family.kind != "gauge") {
        for (sample, was) in &family.samples {
            let is = after[name].samples.get(sample);
            assert!(is.is_some_and(|is| is >= was), "{sample} was {was} and is {is:?}");
        }
    }
}

fn block_of(block: &str) -> (String, Family) {
    let mut lines = block.lines().peekable();
    let head = lines.next().expect("a HELP line");
    let (name, help) = head.split_once(' ').expect("a name and a help text");
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
    assert!(name.bytes().all(plain), "{name}");
    assert!(help.len() > 5 && !help.ends_with('.'), "{name}: {help}");
    let kind = lines.next().and_then(|line| line.strip_prefix(&*format!("# TYPE {name} ")));
    let kind = kind.unwrap_or_else(|| panic!("{name} has no type")).to_owned();
    let unit = format!("# UNIT {name} ");
    if let Some(unit) = lines.peek().and_then(|line| line.strip_prefix(&*unit)) {
        assert!(name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
        lines.next();
    }
    let mut samples = BTreeMap::new();
    let mut histograms = BTreeMap::new();
    for line in lines {
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (own, labels) = sample
            .split_once('{')
            .map_or((sample, ""), |(own, labels)| (own, labels.strip_suffix('}').expect("closed")));
        let suffix = own.strip_prefix(name).unwrap_or_else(|| panic!("{own} below {name}"));
        let labels = labels_of(labels);
        match (&*kind, suffix) {
            ("counter", "_total") => assert!(value >= 0.0, "{line}"),
            ("gauge", "") => assert!(value.is_finite(), "{line}"),
            ("info", "_info") => assert_eq!(value, 1.0, "{line}"),
            ("histogram", "_sum" | "_count" | "_bucket") => {
                let series = histograms.entry(without_le(&labels)).or_insert_with(Vec::new);
                series.push((suffix.to_owned(), labels.get("le").cloned(), value));
            }
            _ => panic!("{line} below a {kind}"),
        }
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} is there twice");
    }
    for (labels, series) in histograms {
        assert_histogram(&format!("{name} {labels:?}"), &series);
    }
    (name.to_owned(), Family { kind, samples })
}

fn labels_of(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    // None of ours contains a comma or an escaped quote.
    for label in text.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{text}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.filter(|value| !value.contains(['"', '\\']));
        let value = value.unwrap_or_else(|| panic!("{text}")).to_owned();
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
    }
    labels
}

fn without_le(labels: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    let others = labels.iter().filter(|(name, _)| *name != "le");
    others.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// (suffix, le, value), in order.
fn assert_histogram(what: &str, series: &[(String, Option<String>, f64)]) {
    let only = |suffix: &str| {
        let found: Vec<f64> =
            series.iter().filter(|(own, ..)| own == suffix).map(|(.., value)| *value).collect();
        assert_eq!(found.len(), 1, "{what} has one {suffix}");
        found[0]
    };
    let (sum, count) = (only("_sum"), only("_count"));
    let buckets: Vec<(f64, f64)> = series
        .iter()
        .filter(|(own, ..)| own == "_bucket")
        .map(|(_, le, value)| (le.as_ref().expect("le").parse().expect("a number"), *value))
        .collect();
    let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
    assert!(buckets.len() > 2 && buckets.windows(2).all(rises), "{what}: {buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{what}");
    assert!(sum >= 0.0 && (count > 0.0 || sum == 0.0), "{what}: {sum} of {count}");
}
