//! Line charts as SVG, for pages without scripts from elsewhere: axes with round numbers, lines
//! with gaps where nothing is known, and what the page's own script shows under the pointer.
//!
//! Invariants: all text is escaped; every coordinate is finite; colours are the page's classes.

use std::fmt::Write;

use super::html::escape;

/// The drawing's units: about a pixel in a page of two columns.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

#[derive(Debug)]
pub struct Line {
    pub name: &'static str,
    /// A class of the page's style: `one`, `two`, `bad`.
    pub class: &'static str,
    /// One value for each of the chart's `xs`.
    pub ys: Vec<Option<f64>>,
}

#[derive(Debug)]
pub struct Chart {
    pub title: &'static str,
    /// Ascending, at least one.
    pub xs: Vec<f64>,
    pub lines: Vec<Line>,
    /// Labels of the x axis.
    pub ticks: Vec<(f64, String)>,
    /// What the pointer is told at each of `xs`, beside the lines' values.
    pub names: Vec<String>,
    /// How values of y are written.
    pub y_text: fn(f64) -> String,
    /// To this x the ground is shaded: the warm-up.
    pub shaded_to: f64,
}

impl Chart {
    /// Nothing to draw, nothing drawn.
    pub fn svg(&self) -> String {
        let values = || self.lines.iter().flat_map(|line| line.ys.iter().flatten().copied());
        if self.xs.is_empty() || values().next().is_none() {
            return String::new();
        }
        let steps = round_steps(values().fold(0.0, f64::max));
        let plot = Plot {
            x_0: self.xs[0],
            x_1: self.xs[self.xs.len() - 1].max(self.xs[0] + 1e-9),
            y_1: steps.last().copied().unwrap_or(1.0),
        };
        let mut svg = format!(
            "<figure><h3>{}</h3><p class=\"legend\">{}</p>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" data-x=\"{}\" data-text=\"{}\">",
            escape(self.title),
            self.legend(),
            escape(self.title),
            self.xs.iter().map(|x| format!("{:.1}", plot.x(*x))).collect::<Vec<_>>().join(" "),
            escape(&self.tips().join("|")),
        );
        self.ground(&mut svg, &plot, &steps);
        for line in &self.lines {
            let path = plot.path(&self.xs, &line.ys);
            let _ = write!(svg, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
        }
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(svg, "<path class=\"cursor\" d=\"M0 {TOP}V{bottom}\"/></svg>");
        svg + "<p class=\"tip\"></p></figure>"
    }

    fn legend(&self) -> String {
        let entry =
            |line: &Line| format!("<span class=\"{}\">{}</span>", line.class, escape(line.name));
        self.lines.iter().map(entry).collect()
    }

    fn ground(&self, svg: &mut String, plot: &Plot, steps: &[f64]) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        if self.shaded_to > plot.x_0 {
            let width = plot.x(self.shaded_to.min(plot.x_1)) - LEFT;
            let height = bottom - TOP;
            let _ = write!(
                svg,
                "<rect class=\"warm\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\">\
                 <title>warm-up</title></rect>"
            );
        }
        for step in steps {
            let y = plot.y(*step);
            let text = escape(&axis_text(&(self.y_text)(*step), *step));
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{}\" y=\"{y:.1}\" dy=\".35em\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0
            );
        }
        for (x, text) in self.ticks.iter().filter(|(x, _)| (plot.x_0..=plot.x_1).contains(x)) {
            let x = plot.x(*x);
            // Half a label beside the drawing is cut off.
            let anchor = if x > right - 24.0 { "end" } else { "middle" };
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v4\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                HEIGHT - 8.0,
                escape(text)
            );
        }
    }

    fn tips(&self) -> Vec<String> {
        let tip = |(at, name): (usize, &String)| {
            let mut tip = name.clone();
            for line in &self.lines {
                if let Some(y) = line.ys.get(at).copied().flatten() {
                    let _ = write!(tip, " · {} {}", line.name, (self.y_text)(y));
                }
            }
            tip.replace('|', "/")
        };
        self.names.iter().enumerate().map(tip).collect()
    }
}

struct Plot {
    x_0: f64,
    x_1: f64,
    y_1: f64,
}

impl Plot {
    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x_0) / (self.x_1 - self.x_0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let bottom = HEIGHT - BOTTOM;
        bottom - y / self.y_1 * (bottom - TOP)
    }

    fn path(&self, xs: &[f64], ys: &[Option<f64>]) -> String {
        let mut path = String::new();
        let mut is_drawn = false;
        for (x, y) in xs.iter().zip(ys) {
            let Some(y) = y else {
                is_drawn = false;
                continue;
            };
            let (x, y) = (self.x(*x), self.y(*y));
            // A lone point is a dot: a line to itself, with a round end.
            let begin = format!("M{x:.1} {y:.1}h0");
            path += &if is_drawn { format!("L{x:.1} {y:.1}") } else { begin };
            is_drawn = true;
        }
        path
    }
}

/// A round number needs no zeros behind the point, and 0 no unit.
fn axis_text(text: &str, value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let (number, unit) =
        text.split_at(text.rfind(|c: char| c.is_ascii_digit()).map_or(0, |at| at + 1));
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    };
    format!("{number}{unit}")
}

/// From 0 to at least `most`, in steps of 1, 2 or 5 with zeros: three to six of them.
pub fn round_steps(most: f64) -> Vec<f64> {
    if !(most > 0.0 && most.is_finite()) {
        return vec![0.0, 1.0];
    }
    let size = 10f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|times| times * size)
        .into_iter()
        .find(|step| most / step <= 4.5)
        .unwrap_or(size * 10.0);
    let count = (most / step).ceil().max(1.0) as u32;
    (0..=count).map(|at| f64::from(at) * step).collect()
}

/// Round times from 0 to `most` seconds, about five.
pub fn time_ticks(most: f64) -> Vec<f64> {
    const STEPS: [f64; 13] =
        [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];
    let step = STEPS.into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or_else(|| (most / 5.0 / 7200.0).ceil() * 7200.0);
    (0..).map(|at| f64::from(at) * step).take_while(|at| *at <= most).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chart(xs: Vec<f64>, ys: Vec<Option<f64>>) -> Chart {
        let names = xs.iter().map(|x| format!("<at> {x}|")).collect();
        let lines = vec![Line { name: "a & b", class: "one", ys }];
        let y_text = |y: f64| format!("{y} <u>");
        Chart {
            title: "\"T\"",
            xs,
            lines,
            ticks: vec![(0.0, "<0>".to_owned())],
            names,
            y_text,
            shaded_to: 1.0,
        }
    }

    #[test]
    fn lines_have_gaps_and_text_is_escaped() {
        let svg =
            chart(vec![0.0, 1.0, 2.0, 3.0], vec![Some(1.0), Some(2.0), None, Some(1.0)]).svg();
        let path = svg.split("class=\"line one\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert!(
            svg.contains("&lt;0&gt;") && svg.contains("1 &lt;u&gt;") && svg.contains("a &amp; b")
        );
        assert!(!svg.contains("<u>") && !svg.contains("<at>") && !svg.contains("\"T\""));
    }

    #[test]
    fn axes_say_no_more_than_they_must() {
        assert_eq!(axis_text("2.00 ms", 2.0), "2 ms");
        assert_eq!(axis_text("1.50 Gbit/s", 1.5), "1.5 Gbit/s");
        assert_eq!(axis_text("1 500", 1500.0), "1 500");
        assert_eq!(axis_text("0.0 %", 0.0), "0");
    }

    #[test]
    fn nothing_known_is_nothing_drawn() {
        assert_eq!(chart(vec![], vec![]).svg(), "");
        assert_eq!(chart(vec![0.0, 1.0], vec![None, None]).svg(), "");
    }

    proptest! {
        #[test]
        fn axes_are_round_and_cover_everything(most in 0.0f64..1e12) {
            let steps = round_steps(most);
            prop_assert!(steps[0] == 0.0 && *steps.last().unwrap() >= most && (2..=6).contains(&steps.len()));
            let ticks = time_ticks(most);
            prop_assert!(ticks.len() <= 7 && ticks[0] == 0.0);
        }

        #[test]
        fn every_coordinate_is_finite(ys in prop::collection::vec(prop::option::of(0.0f64..1e12), 1..50)) {
            let svg = chart((0..ys.len()).map(|x| x as f64).collect(), ys).svg();
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }
}
