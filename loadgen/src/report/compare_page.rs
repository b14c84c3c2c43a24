//! A comparison as one HTML page: a table for each measure, with bars by the median.

use std::fmt::Write;

use super::compare::{Comparison, MEASURES, Measure};
use super::compare_table::{headline, ratio, runs};
use super::html::{document, escape, figure};
use super::number::known;

pub fn comparison_page(comparison: &Comparison) -> String {
    let mut body = format!(
        "<h1>{}</h1>\n<p class=\"target\">{}<br>× first: to the first target in the same round, median \
         (least … most)</p>\n<h2>Runs</h2>\n<div class=\"wide\"><table>\
         <thead><tr><th>target</th><th>API</th><th>runs</th></tr></thead>",
        figure(&headline(comparison)),
        escape(&comparison.started),
    );
    for target in &comparison.targets {
        let class = if target.troubles.is_empty() { "good" } else { "bad" };
        let _ = write!(
            body,
            "<tr><td class=\"word\">{}</td><td class=\"word\">{}</td><td class=\"{class}\">{}</td></tr>",
            escape(&target.name),
            escape(&target.api),
            figure(&runs(target))
        );
    }
    body += "</table></div>\n";
    for measure in &MEASURES {
        body += &table(comparison, measure);
    }
    document(&format!("{}, compared", comparison.scenario), &body)
}

fn table(comparison: &Comparison, measure: &Measure) -> String {
    let figures: Vec<_> = comparison
        .targets
        .iter()
        .map(|target| (&target.name, target.figures.get(measure.field)))
        .collect();
    let medians = figures.iter().filter_map(|(_, figure)| figure.as_ref()?.median);
    let most = medians.fold(0.0, f64::max);
    let mut text = format!(
        "<h2>{}</h2>\n<div class=\"wide\"><table class=\"bars\"><thead><tr><th>target</th>\
         <th class=\"number\">median</th><th class=\"number\">× first</th><th class=\"room\"></th></tr></thead>",
        escape(measure.title)
    );
    for (at, (name, found)) in figures.into_iter().enumerate() {
        let median = found.and_then(|found| found.median);
        let share = median.filter(|_| most > 0.0).map(|median| median / most * 100.0);
        let other = if at == 0 { "" } else { " other" };
        let bar = share.map_or_else(String::new, |share| {
            format!("<div class=\"bar{other}\" style=\"width:{share:.1}%\"></div>")
        });
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"room\">{bar}</td></tr>",
            escape(name),
            figure(&known(median, measure.text)),
            figure(&ratio(found)),
        );
    }
    text + "</table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn names_are_escaped_and_figures_told() {
        let names = ["ours".to_owned(), "<img onerror=x>".to_owned()];
        let rounds =
            [vec![samples::stage(), samples::stage()], vec![samples::stage(), samples::trouble()]];
        let html = comparison_page(&Comparison::new(&names, &rounds));
        assert!(!html.contains("<img") && !html.contains("<script>alert"));
        assert!(html.contains("&lt;img onerror=x&gt;"));
        assert_eq!(html.matches("<table class=\"bars\">").count(), MEASURES.len());
        assert!(html.contains(&figure("1.00 (1.00 … 1.00)")) && html.contains("9\u{a0}of 500"));
        assert!(!html.contains("NaN") && !html.contains("inf%"));
    }
}
