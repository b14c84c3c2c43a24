//! The summary at the end of a run, on the terminal.
//!
//! Invariants: no line is longer than [`WIDTH`] columns; colour says nothing that words do not.

use std::env;
use std::io::{IsTerminal, stdout};

use super::figures::{Section, Tone, sections};
use super::summary::Report;

/// What every terminal has.
pub const WIDTH: usize = 80;
/// Where the values begin.
const VALUE: usize = 24;

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Colour,
}

impl Paint {
    /// Colours if stdout is a terminal that has them, and nobody asked for none.
    pub fn for_stdout() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        if stdout().is_terminal() && !unwanted { Self::Colour } else { Self::Plain }
    }

    pub(super) fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Head => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The verdict, then every figure, then what failed.
pub fn table(report: &Report, paint: Paint) -> String {
    let verdict = report.verdict();
    let tone = if verdict.is_ok() { Tone::Good } else { Tone::Bad };
    let mut text = Text { paint, text: String::new() };
    text.wrapped(tone, "", &verdict.line());
    for reason in verdict.reasons.iter().skip(1) {
        text.wrapped(tone, "        ", reason);
    }
    for section in sections(report) {
        text.section(&section);
    }
    for warning in &report.generator_warnings {
        text.line("");
        text.wrapped(Tone::Doubtful, "", &format!("Warning: {warning}"));
    }
    text.text
}

struct Text {
    paint: Paint,
    text: String,
}

impl Text {
    fn line(&mut self, line: &str) {
        self.text += line;
        self.text.push('\n');
    }

    fn wrapped(&mut self, tone: Tone, indent: &str, words: &str) {
        for line in wrap(words, WIDTH - indent.len()) {
            let line = self.paint.tone(tone, &line);
            self.line(&format!("{indent}{line}"));
        }
    }

    fn section(&mut self, section: &Section) {
        self.line("");
        let title = self.paint.tone(Tone::Head, section.title);
        self.line(&title);
        for row in &section.rows {
            let name = &row.name;
            let gap = VALUE.saturating_sub(2 + name.chars().count()).max(1);
            let indent = " ".repeat(VALUE);
            let mut lines = wrap(&row.value, WIDTH - VALUE).into_iter();
            let first = self.paint.tone(row.tone, &lines.next().unwrap_or_default());
            self.line(&format!("  {name}{}{first}", " ".repeat(gap)));
            for more in lines {
                let more = self.paint.tone(row.tone, &more);
                self.line(&format!("{indent}{more}"));
            }
        }
    }
}

/// Breaks at spaces, but keeps a number and its unit together; a word longer than a line is
/// broken anywhere. Control characters, which come from servers, become spaces.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words: Vec<String> = Vec::new();
    for word in clean.split(' ').filter(|word| !word.is_empty()) {
        match words.last_mut() {
            Some(last) if last.ends_with(|c: char| c.is_ascii_digit()) => {
                *last += &format!(" {word}")
            }
            _ => words.push(word.to_owned()),
        }
    }
    let length = |text: &str| text.chars().count();
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if length(line) + 1 + length(&word) <= width => *line += &format!(" {word}"),
            _ => {
                let letters: Vec<char> = word.chars().collect();
                lines.extend(
                    letters
                        .chunks(width)
                        .map(|chunk| chunk.iter().collect::<String>().trim().to_owned()),
                );
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::objective::Objective;
    use super::super::samples;
    use super::*;

    const STAGE: &str = "\
ok: 3 000 000 packets, none lost

Run
  scenario              stage
  target                http://127.0.0.1:8080/v1/apps/demo (realtime)
  settings              bitrate 2.5 Mbit/s
  began                 2024-06-01T12:00:00Z
  measured              20.0 s after 3.00 s of warm-up
  wanted                1 publishing, 500 receiving
  sessions              501 connected, 0 failed, 501 left
  SRTP                  501 × AEAD_AES_128_GCM

Traffic
  to the server         6 000 packets, 300/s, 2.50 Mbit/s
  from the server       3 000 000 packets, 150 000/s, 1.25 Gbit/s
  keyframes             20 sent, 4 asked for

Correctness
  lost                  0
  duplicated            0
  corrupted             0 of 30 000 checked bit by bit
  foreign               0
  reordered             12

Latency, publisher to viewer
  p50                   400 µs
  p90                   480 µs
  p99                   498 µs
  p99.9                 7.59 ms
  max                   8.49 ms

API and joins
  API call              p50 2.15 ms, p99 3.38 ms, max 3.40 ms
  API look at a session p50 899 µs, p99 1.39 ms, max 1.40 ms
  join                  p50 18.0 ms, p99 27.8 ms, max 28.0 ms
  first media           p50 27.0 ms, p99 41.7 ms, max 42.0 ms

CPU and memory
  server CPU            5.00 µs a packet, 75.0 % of a core
  server memory         62.0 MB, 100 kB a session
  server GSO run        5.00 packets a send
  server latency        p50 ≤ 200 µs, p99 ≤ 500 µs, p99.9 ≤ 500 µs
  server turn           p50 ≤ 500 µs, p99 ≤ 1.00 ms, p99.9 ≤ 1.00 ms
  server shards         0: 51.0 %, 1: 49.0 %; busiest 1.02 × the mean
  server drops          none
  generator CPU         3.00 µs a packet, 45.0 % of a core
  generator threads     1, the busiest at 43.0 % of a core
  machine stalls        p99 103 µs, p99.9 104 µs, max 104 µs (realtime, CPU 0)
";

    #[test]
    fn a_good_run_in_full() {
        let text = table(&samples::stage(), Paint::Plain);
        assert_eq!(text, STAGE, "\n{text}");
    }

    #[test]
    fn trouble_is_told_first_and_by_cause() {
        let mut report = samples::trouble();
        report.judge(Objective { latency_p99_us: Some(1_000), ..Objective::default() });
        let text = table(&report, Paint::Plain);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("FAILED: 9 of 500 sessions did not connect"));
        assert_eq!(lines.next(), Some("        3 failures after sessions had connected"));
        assert!(text.contains("latency p99 is 40.0 ms, over the limit of 1.00 ms"), "{text}");
        assert!(text.contains("\n  4 × no_path "), "{text}");
        assert!(
            text.contains("Warning: The load generator was the bottleneck: 1 of its 1 threads"),
            "{text}"
        );
    }

    #[test]
    fn no_line_is_too_long_and_plain_is_plain() {
        for report in [samples::stage(), samples::trouble(), samples::nothing()] {
            let text = table(&report, Paint::Plain);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
            assert!(!text.contains('\x1b'));
        }
    }

    #[test]
    fn colours_only_surround_words() {
        let report = samples::trouble();
        let mut text = table(&report, Paint::Colour);
        assert!(text.starts_with("\x1b[31mFAILED"));
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
            text = text.replace(code, "");
        }
        assert_eq!(text, table(&report, Paint::Plain));
    }

    proptest! {
        #[test]
        fn wrapping_keeps_the_letters(words in "[a-zé\u{1b}\n ]{0,200}", width in 1usize..40) {
            let lines = wrap(&words, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&words));
            let is_clean = !lines.concat().contains('\u{1b}');
            prop_assert!(is_clean);
        }
    }
}
