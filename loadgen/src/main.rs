//! `shardcast-loadgen`: reads the flags, runs, reports. See `--help`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use loadgen::compare::{self, compare};
use loadgen::conduct::{peers, ramp, run};
use loadgen::flags::{Command, Compare, Flags, OutputFlags, Run};
use loadgen::real::limits;
use loadgen::report::compare::Comparison;
use loadgen::report::compare_page::comparison_page;
use loadgen::report::compare_table::comparison;
use loadgen::report::html::page;
use loadgen::report::summary::Report;
use loadgen::report::table::{Paint, table};
use loadgen::scenario::Scenario;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = listen_for_signals().and_then(|stop| match &flags.command {
        Command::Compare(flags) => compare_servers(flags, &stop),
        command => match command.run() {
            Some((scenario, run)) => single(scenario, run, &stop),
            None => Err("nothing to play".to_owned()),
        },
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(USAGE)
        }
    }
}

/// Wrong flags, or a machine on which nothing can be begun.
const USAGE: u8 = 2;

/// As a second signal does.
const INTERRUPTED: u8 = 130;

/// The first signal asks for the report of what was done; the second ends it at once.
fn listen_for_signals() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let again =
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop));
        let once = signal_hook::flag::register(signal, Arc::clone(&stop));
        again.and(once).map_err(|error| format!("signals cannot be handled here: {error}"))?;
    }
    Ok(stop)
}

fn single(scenario: Scenario, flags: &Run, stop: &Arc<AtomicBool>) -> Result<u8, String> {
    let plan = flags.plan(scenario)?;
    try_outputs(&flags.output)?;
    let report = match flags.objective.objective(scenario)? {
        Some(objective) if flags.objective.ramp => {
            let reach = ramp::reach(&plan, limits::peers_allowed)?;
            let mut say = |line: &str| eprintln!("{line}");
            let found = ramp::ramp(&plan, objective, reach, stop, &mut say);
            show(&format!("{}\n\n", found.sentence()));
            found.report
        }
        objective => {
            limits::allow_files(peers(&plan))?;
            let mut report = run(&plan, stop);
            if let Some(objective) = objective {
                report.judge(objective);
            }
            report
        }
    };
    show(&table(&report, Paint::for_stdout()));
    keep(&flags.output, || report.to_json(), || page(&report))?;
    Ok(report.exit_code())
}

fn compare_servers(flags: &Compare, stop: &Arc<AtomicBool>) -> Result<u8, String> {
    let mut entries = compare::read(&flags.servers)?;
    if let Some(name) = flags.only.iter().find(|name| !entries.iter().any(|e| e.name == **name)) {
        return Err(format!("--only {name}: no such server in the files"));
    }
    if !flags.only.is_empty() {
        entries.retain(|entry| flags.only.contains(&entry.name));
    }
    let Some(first) = entries.first() else { return Err("no server to compare".to_owned()) };
    let plan = flags.plan(&first.url)?;
    try_outputs(&flags.output)?;
    limits::allow_files(peers(&plan))?;
    let mut say = |line: &str| eprintln!("{line}");
    let rounds: Vec<Vec<Report>> = compare(&plan, &entries, flags.rounds, stop, &mut say)?;
    if rounds.first().is_none_or(|first| first.len() < entries.len()) {
        eprintln!("interrupted in the first round: nothing was compared");
        return Ok(INTERRUPTED);
    }
    let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    let compared = Comparison::new(&names, &rounds);
    show(&comparison(&compared, Paint::for_stdout()));
    keep(&flags.output, || compared.to_json(), || comparison_page(&compared))?;
    Ok(compared.exit_code())
}

/// A closed stdout wants no table.
fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn keep(
    output: &OutputFlags,
    json: impl FnOnce() -> String,
    html: impl FnOnce() -> String,
) -> Result<(), String> {
    if let Some(path) = &output.json {
        write(path, &json())?;
    }
    if let Some(path) = &output.html {
        write(path, &html())?;
    }
    Ok(())
}

/// Says before a long run, not after it, that a report cannot be kept.
fn try_outputs(output: &OutputFlags) -> Result<(), String> {
    for path in output.json.iter().chain(&output.html) {
        let is_there = path.exists();
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        if !is_there {
            // Nothing is left by a run that does not come to its end.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let written = std::fs::write(path, text);
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}
