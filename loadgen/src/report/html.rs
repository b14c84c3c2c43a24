//! A report as one HTML page that needs nothing else: style, drawings and script are in it.
//!
//! Invariant: whatever comes from outside (names, addresses, sentences of servers) goes through
//! [`escape`].

use std::fmt::Write;
use std::time::Duration;

use super::chart::{Chart, Line, time_ticks};
use super::figures::{Section, Tone, sections};
use super::number::{
    NARROW_GAP, bits_per_s, bytes, clock, digits, grouped, known, micros, millis, nanos, percent,
};
use super::series::Moment;
use super::summary::{CurvePoint, Report};

pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

/// Escaped, with narrow gaps between a figure's groups and no line break before its unit.
pub(super) fn figure(text: &str) -> String {
    let is_group = |word: &str| {
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        end == 3
    };
    let mut kept = String::with_capacity(text.len());
    let mut before = "";
    for (at, word) in text.split(' ').enumerate() {
        let is_number = before.ends_with(|c: char| c.is_ascii_digit());
        let begins_so = before.trim_start_matches('(').starts_with(|c: char| c.is_ascii_digit());
        match at {
            0 => {}
            _ if is_number && begins_so && is_group(word) => kept.push(NARROW_GAP),
            _ if is_number => kept.push('\u{a0}'),
            _ => kept.push(' '),
        }
        kept += word;
        before = word;
    }
    escape(&kept)
}

/// A page around a body that is HTML already.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n{body}\n\
         <footer>shardcast-loadgen {}</footer>\n<script>\n{}</script>\n</body>\n</html>\n",
        escape(title),
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
        include_str!("page.js"),
    )
}

/// The report's page.
pub fn page(report: &Report) -> String {
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"target\">{} · {}</p>\n",
        escape(&report.scenario),
        escape(&report.target),
        escape(&report.started)
    );
    body += &verdict(report);
    body += &cards(report);
    let charts = charts(report);
    if !charts.is_empty() {
        let _ = write!(body, "<h2>Charts</h2>\n<div class=\"charts\">{charts}</div>\n");
    }
    let (failures, figures): (Vec<_>, Vec<_>) =
        sections(report).into_iter().partition(|section| section.title == "Failures");
    for section in failures {
        let _ =
            write!(body, "<h2>Failures</h2>\n<div class=\"failures\">{}</div>\n", rows(&section));
    }
    body += "<h2>All figures</h2>\n<div class=\"sections\">";
    for section in figures {
        let _ = writeln!(
            body,
            "<section><h3>{}</h3>{}</section>",
            escape(section.title),
            rows(&section)
        );
    }
    body += "</div>";
    document(&format!("{} · {}", report.scenario, report.target), &body)
}

fn verdict(report: &Report) -> String {
    let verdict = report.verdict();
    let class = if verdict.is_ok() { "good" } else { "bad" };
    let mut text = format!("<div class=\"verdict {class}\"><p>{}</p>", figure(&verdict.line()));
    for reason in verdict.reasons.iter().skip(1) {
        let _ = write!(text, "<p>{}</p>", figure(reason));
    }
    text += "</div>\n";
    for warning in &report.generator_warnings {
        let _ = writeln!(text, "<p class=\"warning\">{}</p>", figure(warning));
    }
    text
}

fn cards(report: &Report) -> String {
    let sessions = report.sessions;
    let cards = [
        ("sessions connected", grouped(sessions.connected, NARROW_GAP)),
        ("packets out/s", known(report.packets_out_per_s, digits)),
        ("out", known(report.bits_out_per_s, bits_per_s)),
        ("lost", known(report.lost_ppm, |ppm| format!("{} ppm", digits(ppm)))),
        ("latency p50", known(report.latency_us.p50, |us| micros(us as f64))),
        ("latency p99", known(report.latency_us.p99, |us| micros(us as f64))),
        ("join p99", known(report.join_ms.p99, millis)),
        ("server CPU/packet", known(report.server_cpu_ns_per_packet, nanos)),
        ("generator CPU/packet", known(report.generator_cpu_ns_per_packet, nanos)),
        ("server memory", known(report.server_rss_bytes, |rss| bytes(rss as f64))),
    ];
    let card = |(name, value): &(&str, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), figure(value))
    };
    format!("<dl class=\"cards\">{}</dl>\n", cards.iter().map(card).collect::<String>())
}

fn rows(section: &Section) -> String {
    let mut rows = String::from("<table>");
    for row in &section.rows {
        let class = match row.tone {
            Tone::Plain | Tone::Head => "",
            Tone::Good => " class=\"good\"",
            Tone::Doubtful => " class=\"doubtful\"",
            Tone::Bad => " class=\"bad\"",
        };
        let (name, value) = (figure(&row.name), figure(&row.value));
        let _ = write!(rows, "<tr><th>{name}</th><td{class}>{value}</td></tr>");
    }
    rows + "</table>"
}

fn charts(report: &Report) -> String {
    let (moments, warm_up) = (&report.series, report.warm_up_s);
    let over_time = |title, y_text, lines| timeline(moments, warm_up, title, y_text, lines);
    let line = |name, class, of: fn(&Moment) -> Option<f64>| Line {
        name,
        class,
        ys: moments.iter().map(of).collect(),
    };
    let throughput = vec![
        line("out", "one", |m| Some(m.bits_out_per_s())),
        line("in", "two", |m| Some(m.bits_in_per_s())),
    ];
    let packets = vec![
        line("out", "one", |m| Some(m.per_s(m.packets_out))),
        line("in", "two", |m| Some(m.per_s(m.packets_in))),
    ];
    let cpu = vec![
        line("server", "one", Moment::server_percent),
        line("generator", "two", Moment::generator_percent),
    ];
    let latency =
        vec![line("p99", "two", |m| m.latency_p99_us), line("p50", "one", |m| m.latency_p50_us)];
    let losses = vec![line("lost each second", "bad", |m| Some(m.per_s(m.lost)))];
    let memory = vec![line("server", "one", |m| m.server_rss_bytes.map(|rss| rss as f64))];
    let sessions = vec![line("connected", "one", |m| Some(m.sessions as f64))];
    let count: fn(f64) -> String = |value| digits(value);
    let charts = [
        curve(&report.latency_curve),
        over_time("Latency over time", micros, latency),
        over_time("Throughput", bits_per_s, throughput),
        over_time("Packets each second", count, packets),
        over_time("CPU, of one core", percent, cpu),
        over_time("Lost packets", count, losses),
        over_time("Memory", bytes, memory),
        over_time("Sessions", count, sessions),
    ];
    charts.iter().map(Chart::svg).collect()
}

fn timeline(
    moments: &[Moment],
    warm_up_s: f64,
    title: &'static str,
    y_text: fn(f64) -> String,
    lines: Vec<Line>,
) -> Chart {
    let at = |seconds: f64| clock(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    // What was counted in a span of time is drawn in its middle.
    let xs: Vec<f64> = moments.iter().map(|moment| moment.at_s + moment.span_s / 2.0).collect();
    let ticks = time_ticks(xs.last().copied().unwrap_or(0.0));
    Chart {
        title,
        names: xs.iter().map(|x| at(*x)).collect(),
        ticks: ticks.into_iter().map(|x| (x, at(x))).collect(),
        xs,
        lines,
        y_text,
        shaded_to: warm_up_s,
    }
}

/// Latency by percentile; each step to the right is one more nine.
fn curve(points: &[CurvePoint]) -> Chart {
    // The last is 100 %, which no number of nines reaches: a step after the one before.
    let nines = |at: usize, point: &CurvePoint| match point.percentile {
        percentile if percentile < 100.0 => -(1.0 - percentile / 100.0).log10(),
        _ => at as f64 / 10.0,
    };
    let xs: Vec<f64> = points.iter().enumerate().map(|(at, point)| nines(at, point)).collect();
    let labels =
        ["0", "90", "99", "99.9", "99.99", "99.999", "6 nines", "7 nines", "8 nines", "9 nines"];
    let name = |point: &CurvePoint| match point.percentile {
        percentile if percentile >= 100.0 => "max".to_owned(),
        percentile if percentile < 99.0 => format!("{percentile:.1} %"),
        percentile => format!("{} %", (percentile * 1e6).round() / 1e6),
    };
    Chart {
        title: "Latency by percentile",
        names: points.iter().map(name).collect(),
        ticks: labels
            .iter()
            .enumerate()
            .map(|(x, label)| (x as f64, (*label).to_owned()))
            .collect(),
        xs,
        lines: vec![Line {
            name: "publisher to viewer",
            class: "one",
            ys: points.iter().map(|point| Some(point.us as f64)).collect(),
        }],
        y_text: micros,
        shaded_to: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn nothing_comes_through_unescaped_and_nothing_from_elsewhere() {
        let html = page(&samples::trouble());
        assert!(!html.contains("<script>alert") && !html.contains("<b>"));
        assert!(html.contains("stage &lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(html.contains("&lt;b&gt;&quot;too many&quot; &amp; more&lt;/b&gt;"));
        for elsewhere in ["src=", "href=", "@import", "url("] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
        assert_eq!(html.matches("<script>").count(), 1);
    }

    #[test]
    fn a_good_page_has_its_charts_and_figures() {
        let html = page(&samples::stage());
        for title in ["Latency by percentile", "Throughput", "CPU, of one core", "Lost packets"] {
            assert!(html.contains(&format!("<h3>{title}</h3>")), "{title}");
        }
        assert!(html.contains("class=\"verdict good\""));
        assert!(!html.contains("<h2>Failures</h2>") && !html.contains("NaN"));
    }

    #[test]
    fn a_run_of_which_nothing_is_known_has_a_page() {
        let html = page(&samples::nothing());
        assert!(!html.contains("<svg") && html.contains("<dd>–</dd>"));
    }

    #[test]
    fn figures_do_not_break() {
        assert_eq!(figure("p50 100 000 µs <x"), "p50\u{a0}100\u{202f}000\u{a0}µs &lt;x");
    }
}
