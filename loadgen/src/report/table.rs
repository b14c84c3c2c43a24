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

/// Breaks at spaces; a word longer than a line is broken anywhere. Control characters, which
/// come from servers, become spaces.
pub(super) fn wrap(words: &str, width: usize) -> Vec<String> {
    let clean: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in clean.split(' ').filter(|word| !word.is_empty()) {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > width {
            lines.push(String::new());
            used = 0;
        }
        while used == 0 && rest.len() > width {
            let line = rest.drain(..width).collect();
            lines.insert(lines.len() - 1, line);
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            used += rest.len();
            line.extend(rest);
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

    const STAGE: &str = "";

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
