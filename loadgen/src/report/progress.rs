//! How a run goes, while it goes, on stderr: a bar on a terminal, a plain line now and then
//! elsewhere, nothing if asked for quiet.
//!
//! Invariants: never writes to stdout; a stderr that is closed does not end the run.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::number::{GAP, bits_per_s, clock, grouped, known, micros, percent};
use super::series::Moment;

/// Between plain lines: a log of an hour has 720.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Joining { connected: u64, wanted: u64 },
    WarmingUp,
    Steady,
    Leaving,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining { connected, wanted } => {
                write!(f, "joining {}/{}", grouped(*connected, GAP), grouped(*wanted, GAP))
            }
            Self::WarmingUp => f.write_str("warming up"),
            Self::Steady => f.write_str("steady"),
            Self::Leaving => f.write_str("leaving"),
        }
    }
}

/// What is shown, once a second.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    pub elapsed: Duration,
    /// Of the whole run, as planned.
    pub planned: Duration,
    pub phase: Phase,
    /// The last second.
    pub moment: &'a Moment,
    /// Since the beginning.
    pub lost: u64,
    pub failed: u64,
}

impl Progress<'_> {
    /// The rates, in two lines of less than 80 columns.
    fn lines(&self) -> [String; 2] {
        let moment = self.moment;
        let rate = |packets, bits: f64| {
            format!(
                "{} packets/s {}",
                grouped(moment.per_s(packets).round() as u64, GAP),
                bits_per_s(bits)
            )
        };
        let rates = format!(
            "in {} · out {}",
            rate(moment.packets_in, moment.bits_in_per_s()),
            rate(moment.packets_out, moment.bits_out_per_s())
        );
        let state = format!(
            "p99 {} · lost {} · failed {} · CPU server {}, generator {}",
            known(moment.latency_p99_us, micros),
            grouped(self.lost, GAP),
            grouped(self.failed, GAP),
            known(moment.server_percent(), percent),
            known(moment.generator_percent(), percent),
        );
        [rates, state]
    }

    fn plain(&self) -> String {
        let [rates, state] = self.lines();
        format!(
            "{}/{} {} · {rates} · {state}",
            clock(self.elapsed),
            clock(self.planned),
            self.phase
        )
    }
}

/// Where progress goes.
#[derive(Debug)]
pub struct Display(Sink);

enum Sink {
    Quiet,
    Lines { to: Box<dyn Write + Send>, next: Duration },
    Bar(ProgressBar),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quiet => "Quiet",
            Self::Lines { .. } => "Lines",
            Self::Bar(_) => "Bar",
        })
    }
}

impl Display {
    /// As fits stderr.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self(Sink::Quiet);
        }
        if !stderr().is_terminal() {
            return Self::lines(Box::new(stderr()));
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix:<18} {wide_bar} {pos:>1}\n{msg}")
            .expect("a template of known words");
        // The clock takes the place of the position: seconds alone are not read at a glance.
        let style = style
            .with_key("pos", |state: &indicatif::ProgressState, to: &mut dyn fmt::Write| {
                let planned = state.len().unwrap_or_default();
                let at = |ms| clock(Duration::from_millis(ms));
                // A terminal that cannot be written to is no reason to stop.
                let _ = write!(to, "{} / {}", at(state.pos()), at(planned));
            })
            .progress_chars("━╸─");
        bar.set_style(style);
        Self(Sink::Bar(bar))
    }

    fn lines(to: Box<dyn Write + Send>) -> Self {
        Self(Sink::Lines { to, next: Duration::ZERO })
    }

    pub fn show(&mut self, progress: &Progress<'_>) {
        match &mut self.0 {
            Sink::Quiet => {}
            Sink::Lines { to, next } => {
                if progress.elapsed >= *next {
                    *next = progress.elapsed + LINE_EVERY;
                    let _ = writeln!(to, "{}", progress.plain());
                }
            }
            Sink::Bar(bar) => {
                let planned = millis(progress.planned);
                bar.set_length(planned);
                bar.set_position(millis(progress.elapsed).min(planned));
                bar.set_prefix(progress.phase.to_string());
                bar.set_message(progress.lines().join("\n"));
            }
        }
    }

    /// A line that stays, above the bar.
    pub fn say(&mut self, line: &str) {
        match &mut self.0 {
            Sink::Quiet => {}
            Sink::Lines { to, .. } => {
                let _ = writeln!(to, "{line}");
            }
            Sink::Bar(bar) => bar.println(line),
        }
    }

    /// Takes the bar away, before the summary is printed.
    pub fn end(self) {
        if let Sink::Bar(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn busy() -> Moment {
        Moment {
            span_s: 1.0,
            packets_in: 301,
            bytes_in: 316_000,
            packets_out: 1_150_021,
            bytes_out: 1_198_000_000,
            latency_p99_us: Some(1234.0),
            server_cpu_ns: Some(712_000_000),
            generator_cpu_ns: Some(1_512_000_000),
            ..Moment::default()
        }
    }

    fn at(seconds: u64, moment: &Moment) -> Progress<'_> {
        let (elapsed, planned) = (Duration::from_secs(seconds), Duration::from_secs(60));
        Progress { elapsed, planned, phase: Phase::Steady, moment, lost: 12, failed: 0 }
    }

    #[test]
    fn the_lines_fit_a_terminal() {
        let moment = busy();
        let [rates, state] = at(1, &moment).lines();
        assert_eq!(rates, "in 301 packets/s 2.53 Mbit/s · out 1 150 021 packets/s 9.58 Gbit/s");
        assert_eq!(state, "p99 1.23 ms · lost 12 · failed 0 · CPU server 71.2 %, generator 151 %");
        assert!(rates.chars().count() < 80 && state.chars().count() < 80);
        let idle = Moment { span_s: 1.0, ..Moment::default() };
        let state = &at(1, &idle).lines()[1];
        assert_eq!(state, "p99 – · lost 12 · failed 0 · CPU server –, generator –");
    }

    #[test]
    fn without_a_terminal_there_is_a_line_in_5_s() {
        let paper = Paper::default();
        let mut display = Display::lines(Box::new(paper.clone()));
        let moment = busy();
        for second in 1..=12 {
            display.show(&at(second, &moment));
        }
        display.say("Ending.");
        display.end();
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let beginnings: Vec<&str> = text.lines().map(|line| &line[..7.min(line.len())]).collect();
        assert_eq!(beginnings, ["0:01/1:", "0:06/1:", "0:11/1:", "Ending."]);
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn phases_are_said_in_words() {
        assert_eq!(
            Phase::Joining { connected: 120, wanted: 5000 }.to_string(),
            "joining 120/5 000"
        );
        assert_eq!(Phase::Steady.to_string(), "steady");
    }
}
