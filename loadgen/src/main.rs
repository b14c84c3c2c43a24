//! `shardcast-loadgen`: reads the flags, runs, reports. See `--help`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use loadgen::conduct;
use loadgen::flags::{Flags, OutputFlags};
use loadgen::real::limits;
use loadgen::report::summary::Report;
use loadgen::report::table::{Paint, table};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (scenario, run) = flags.command.scenario();
    let plan = match run.plan(scenario) {
        Ok(plan) => plan,
        Err(sentence) => return usage(&sentence),
    };
    let peers = plan.sizes.publishers + plan.sizes.viewers;
    if let Err(sentence) = limits::allow_files(peers) {
        return usage(&sentence);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it at once; the first one asks for the report.
        let again = signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone());
        let once = signal_hook::flag::register(signal, stop.clone());
        if let Err(error) = again.and(once) {
            return usage(&format!("signals cannot be handled here: {error}"));
        }
    }
    let report = conduct::run(&plan, &stop);
    finish(&report, &run.output)
}

fn finish(report: &Report, output: &OutputFlags) -> ExitCode {
    // A closed stdout wants no table.
    let _ = std::io::stdout().write_all(table(report, Paint::for_stdout()).as_bytes());
    let mut code = report.exit_code();
    let json = output.json.as_deref().map(|path| (path, report.to_json()));
    for (path, text) in json.into_iter() {
        if let Err(sentence) = write(path, &text) {
            eprintln!("error: {sentence}");
            code = code.max(2);
        }
    }
    ExitCode::from(code)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text)
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn usage(sentence: &str) -> ExitCode {
    eprintln!("error: {sentence}");
    ExitCode::from(2)
}
