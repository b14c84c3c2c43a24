//! What a long run must show: nothing lost or dropped in the server, memory that does not grow.

use std::process::ExitCode;

use loadgen::report::summary::Report;

/// Growth of the resident memory from the first tenth of the run to the last that passes for
/// none: 1 %, for what the allocator and the kernel's own count leave open.
const GROWTH_MAX: f64 = 0.01;

/// Says what a long run came to, and whether it is as it must be. `beside` is what else is wrong
/// with it, in a sentence each.
pub(crate) fn check(load: &str, report: &Report, beside: Vec<String>) -> ExitCode {
    println!(
        "{load}, {:.0} s: server at {:.0} % of a core, {} packets forwarded",
        report.duration_s,
        report.server_cpu_percent.unwrap_or(f64::NAN),
        report.packets_out,
    );
    println!(
        "lost {}; times that a socket of the generator overran: {}; memory {} bytes, {:+.2} % from \
         the first tenth to the last",
        report.lost,
        report.overrun,
        report.server_rss_bytes.unwrap_or(0),
        growth(report).unwrap_or(f64::NAN) * 100.0,
    );
    let faults: Vec<String> = faults(report).into_iter().chain(beside).collect();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() {
        println!("nothing lost, nothing dropped, memory flat");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// One sentence for each thing that is not as it must be.
pub(crate) fn faults(report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    // Nothing is taken off `lost` for it: how many datagrams each time cost is not known.
    if report.overrun > 0 {
        faults.push(format!(
            "the run is invalid: sockets of the load generator overran {} times",
            report.overrun
        ));
    } else if report.generator_was_the_limit() {
        faults.push(format!(
            "the load generator was the limit, not the server: a thread of it used {:.0} % of a core",
            report.generator_busiest_percent.unwrap_or(f64::NAN)
        ));
    }
    let counts = [
        (report.lost, "packets lost"),
        (report.corrupted, "packets changed"),
        (report.foreign, "packets of somebody else's"),
        (report.duplicated, "packets twice"),
        (report.looks_failed(), "looks at sessions by the API failed"),
    ];
    for (count, what) in counts {
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    }
    match &report.server_drops {
        None => faults.push("the server does not tell what it drops".to_owned()),
        Some(drops) => {
            faults.extend(drops.iter().map(|(reason, count)| format!("{count} drops: {reason}")));
        }
    }
    match growth(report) {
        None => faults.push("the run is too short to tell whether memory grows".to_owned()),
        Some(growth) if growth > GROWTH_MAX => {
            faults.push(format!("memory grew by {:.1} %", growth * 100.0));
        }
        Some(_) => {}
    }
    faults
}

/// Of the resident memory, from the first tenth of what was measured to the last.
fn growth(report: &Report) -> Option<f64> {
    let end = report.warm_up_s + report.duration_s;
    let within = |at: f64| at >= report.warm_up_s && at < end;
    let moments = report.series.iter().filter(|moment| within(moment.at_s));
    let sizes: Vec<f64> =
        moments.filter_map(|moment| Some(moment.server_rss_bytes? as f64)).collect();
    let tenth = sizes.len() / 10;
    if tenth == 0 {
        return None;
    }
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    Some(mean(&sizes[sizes.len() - tenth..]) / mean(&sizes[..tenth]) - 1.0)
}
