//! What is lost is repaired in time, and what is only late is not sent again.

use std::time::Duration;

use crate::world::{Path, World, ms};

/// A path, and what may become of a stream over it.
struct Row {
    pps: u64,
    delay_ms: u64,
    loss: f64,
    burst: f64,
    reorder_ms: u64,
    /// In percent of the packets.
    residual_max: f64,
    resent_max: f64,
    spurious_max: f64,
    /// 99.9 % of the packets come no later than this after a path without loss would have
    /// brought them.
    late_ms_max: u64,
}

const fn row(pps: u64, delay_ms: u64, loss: f64, burst: f64, reorder_ms: u64) -> Row {
    Row {
        pps,
        delay_ms,
        loss,
        burst,
        reorder_ms,
        residual_max: 0.0,
        resent_max: loss * 100.0 * 1.5 + 0.1,
        spurious_max: 0.2,
        late_ms_max: 0,
    }
}

const ROWS: [Row; 10] = [
    Row { late_ms_max: 110, ..row(50, 20, 0.01, 1.0, 0) },
    Row { late_ms_max: 110, ..row(250, 20, 0.01, 1.0, 0) },
    Row { late_ms_max: 15, ..row(2500, 2, 0.01, 1.0, 0) },
    Row { late_ms_max: 60, ..row(2500, 20, 0.01, 1.0, 0) },
    Row { late_ms_max: 110, ..row(2500, 20, 0.01, 8.0, 0) },
    Row { residual_max: 0.1, late_ms_max: 360, ..row(2500, 80, 0.03, 8.0, 0) },
    Row { residual_max: 0.1, late_ms_max: 160, resent_max: 8.5, ..row(2500, 20, 0.05, 20.0, 0) },
    Row { late_ms_max: 60, ..row(2500, 20, 0.001, 1.0, 4) },
    Row { late_ms_max: 12, spurious_max: 0.5, ..row(2500, 20, 0.0, 1.0, 12) },
    Row { residual_max: 0.5, resent_max: 20.0, late_ms_max: 600, ..row(250, 80, 0.10, 4.0, 2) },
];

/// How a stream fared, in percent and ms.
struct Outcome {
    residual: f64,
    resent: f64,
    spurious: f64,
    naive: f64,
    late_ms: [u64; 3],
    reports: f64,
}

fn stream(row: &Row, seed: u64, span: Duration) -> Outcome {
    let mut path = Path::new(row.delay_ms);
    (path.loss, path.burst) = (row.loss, row.burst);
    path.jitter += ms(row.reorder_ms);
    let mut world = World::new(seed, path);
    let lane = world.nodes[1].link.open_lane().unwrap();
    world.run_for(ms(500));
    world.stream(span, lane, row.pps, 1000);
    let reports = world.nodes[1].sent as f64 / span.as_secs_f64();
    world.run_for(ms(1500));
    let [sender, receiver] = &world.nodes;
    let total = sender.history.len() as f64;
    let base = ms(row.delay_ms);
    let late = |(key, at): (_, &std::time::Instant)| {
        at.saturating_duration_since(sender.history[key].0 + base).as_millis() as u64
    };
    let mut lates: Vec<u64> = receiver.delivered.iter().map(late).collect();
    lates.sort_unstable();
    let percent = |count: u64| count as f64 * 100.0 / total;
    Outcome {
        residual: 100.0 - percent(lates.len() as u64),
        resent: percent(sender.resent),
        spurious: percent(sender.spurious),
        naive: percent(receiver.overtaken),
        late_ms: [0.99, 0.999, 0.9999].map(|part| lates[(lates.len() as f64 * part) as usize]),
        reports,
    }
}

#[test]
fn what_is_lost_comes_in_time_and_hardly_anything_is_sent_in_vain() {
    println!(
        "{:>5} {:>5} {:>6} {:>5} {:>7} | {:>9} {:>16} {:>8} {:>9} {:>9} {:>9}",
        "pps",
        "delay",
        "loss",
        "burst",
        "reorder",
        "residual",
        "late p99/.9/.99",
        "resent",
        "spurious",
        "naive",
        "reports/s"
    );
    for (nth, row) in ROWS.iter().enumerate() {
        let outcome = stream(row, 1 + nth as u64, Duration::from_secs(12));
        let [p99, p999, p9999] = outcome.late_ms;
        println!(
            "{:>5} {:>3}ms {:>5}% {:>5} {:>5}ms | {:>8.4}% {:>16} {:>7.2}% {:>8.3}% {:>8.1}% {:>9.0}",
            row.pps,
            row.delay_ms,
            row.loss * 100.0,
            row.burst,
            row.reorder_ms,
            outcome.residual,
            format!("{p99}/{p999}/{p9999} ms"),
            outcome.resent,
            outcome.spurious,
            outcome.naive,
            outcome.reports,
        );
        assert!(outcome.residual <= row.residual_max, "residual {}", outcome.residual);
        assert!(outcome.resent <= row.resent_max, "resent {}", outcome.resent);
        assert!(outcome.spurious <= row.spurious_max, "spurious {}", outcome.spurious);
        assert!(p999 <= row.late_ms_max, "99.9 % within {p999} ms");
        assert!(outcome.reports <= 130.0, "{} reports", outcome.reports);
    }
}

#[test]
fn reordering_that_a_rule_of_three_takes_for_loss_is_waited_for() {
    for seed in 0..8 {
        let row = row(2500, 20, 0.0, 1.0, 4);
        let outcome = stream(&row, seed, Duration::from_secs(4));
        assert!(outcome.naive > 20.0, "the path reorders: {} %", outcome.naive);
        assert!(outcome.spurious < outcome.naive / 100.0, "{} %", outcome.spurious);
        assert_eq!(outcome.residual, 0.0);
    }
}
