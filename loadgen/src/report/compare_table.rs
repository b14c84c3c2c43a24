//! A comparison on the terminal.
//!
//! Invariants: as the summary's table: [`WIDTH`] columns, colour says nothing that words do not.

use super::compare::{Compared, Comparison, Figure, MEASURES, Ratio};
use super::figures::Tone;
use super::number::{GAP, UNKNOWN, digits, grouped, known};
use super::table::{Paint, WIDTH, wrap};

/// Longer names are cut, so that the figures stand below each other.
const NAME: usize = 24;

pub fn comparison(comparison: &Comparison, paint: Paint) -> String {
    let mut lines: Vec<String> = wrap(&headline(comparison), WIDTH);
    lines.push(String::new());
    for target in &comparison.targets {
        let tone = if target.troubles.is_empty() { Tone::Good } else { Tone::Bad };
        for (at, line) in wrap(&runs(target), WIDTH - 2 - NAME).into_iter().enumerate() {
            let name = if at == 0 { column(&target.name) } else { column("") };
            lines.push(format!("  {name}{}", paint.tone(tone, &line)));
        }
    }
    for measure in &MEASURES {
        lines.push(String::new());
        let title = format!(
            "{:<width$}{:>12}   × first (least … most)",
            measure.title,
            "median",
            width = NAME + 16
        );
        lines.push(paint.tone(Tone::Head, &title));
        for target in &comparison.targets {
            let figure = target.figures.get(measure.field);
            let median = known(figure.and_then(|figure| figure.median), measure.text);
            let line = format!(
                "  {:<width$}{median:>12}   {}",
                column(&target.name),
                ratio(figure),
                width = NAME + 14
            );
            lines.push(line.trim_end().to_owned());
        }
    }
    lines.join("\n") + "\n"
}

pub(super) fn headline(comparison: &Comparison) -> String {
    format!(
        "{}: {} publishing, {} receiving; {} rounds of {} s",
        comparison.scenario,
        grouped(comparison.publishers, GAP),
        grouped(comparison.viewers, GAP),
        comparison.rounds,
        digits(comparison.duration_s)
    )
}

/// How a target's runs went, and what it negotiated.
pub(super) fn runs(target: &Compared) -> String {
    let mut parts = vec![format!("{} runs ok", target.runs_ok)];
    parts.extend(target.troubles.iter().cloned());
    let profiles: Vec<&str> = target.srtp_profiles.keys().map(String::as_str).collect();
    if !profiles.is_empty() {
        parts.push(profiles.join(" and "));
    }
    if let Some(run) = target.server_gso_run {
        parts.push(format!("{} packets a GSO send", digits(run)));
    }
    parts.join("; ")
}

pub(super) fn ratio(figure: Option<&Figure>) -> String {
    match figure.and_then(|figure| figure.ratio.as_ref()) {
        None if figure.is_none_or(|figure| figure.median.is_none()) => UNKNOWN.to_owned(),
        None => String::new(),
        Some(Ratio { median, min, max, .. }) => {
            format!("{} ({} … {})", digits(*median), digits(*min), digits(*max))
        }
    }
}

fn column(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME - 1).collect();
    format!("{clean:<NAME$}")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::summary::Report;
    use super::*;

    const TWO: &str = "\
stage: 1 publishing, 500 receiving; 3 rounds of 20.0 s

  shardcast               3 runs ok; AEAD_AES_128_GCM; 5.00 packets a GSO send
  a very long name of ano 2 runs ok; FAILED: 9 of 500 sessions did not connect;
                          AEAD_AES_128_GCM; 5.00 packets a GSO send

server CPU for each forwarded packet          median   × first (least … most)
  shardcast                                  5.00 µs
  a very long name of ano                    32.5 µs   6.50 (6.00 … 7.00)

server memory                                 median   × first (least … most)
  shardcast                                  62.0 MB
  a very long name of ano                    62.0 MB   1.00 (1.00 … 1.00)

latency p50                                   median   × first (least … most)
  shardcast                                   400 µs
  a very long name of ano                     400 µs   1.00 (1.00 … 1.00)

latency p99                                   median   × first (least … most)
  shardcast                                   498 µs
  a very long name of ano                     498 µs   1.00 (1.00 … 1.00)

join p50                                      median   × first (least … most)
  shardcast                                  18.0 ms
  a very long name of ano                    18.0 ms   1.00 (1.00 … 1.00)

join p99                                      median   × first (least … most)
  shardcast                                  27.8 ms
  a very long name of ano                    27.8 ms   1.00 (1.00 … 1.00)

lost, ppm                                     median   × first (least … most)
  shardcast                                        0
  a very long name of ano                          0
";

    fn sample() -> Comparison {
        let theirs = |ns| Report {
            server_cpu_ns_per_packet: Some(ns),
            server_gso_run: None,
            ..samples::stage()
        };
        let rounds = [
            vec![samples::stage(), theirs(30_000.0)],
            vec![samples::stage(), theirs(35_000.0)],
            vec![samples::stage(), samples::trouble()],
        ];
        Comparison::new(
            &["shardcast".to_owned(), "a very long name of another one".to_owned()],
            &rounds,
        )
    }

    #[test]
    fn two_targets_in_full() {
        let text = comparison(&sample(), Paint::Plain);
        assert!(
            text.lines().all(|line| line.chars().count() <= WIDTH && line == line.trim_end()),
            "{text}"
        );
        assert_eq!(text, TWO, "\n{text}");
    }

    #[test]
    fn colours_only_surround_words() {
        let mut text = comparison(&sample(), Paint::Colour);
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"] {
            text = text.replace(code, "");
        }
        assert_eq!(text, comparison(&sample(), Paint::Plain));
    }
}
