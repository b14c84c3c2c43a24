//! The `shardcast` program: the order of starting, and the exit code.

use std::process::ExitCode;

use shardcast::flags::Asked;
use shardcast::resolve::Machine;
use shardcast::start_error::StartError;
use shardcast::{boot, check, config, flags, keygen, log, resolve};

fn main() -> ExitCode {
    start().unwrap_or_else(|error| {
        eprintln!("shardcast: {error}");
        ExitCode::from(error.exit_code())
    })
}

fn start() -> Result<ExitCode, StartError> {
    let flags = match flags::read(std::env::args_os())? {
        Asked::Run(flags) => flags,
        Asked::Keygen(flags) => {
            keygen::run(&flags)?;
            return Ok(ExitCode::SUCCESS);
        }
        Asked::Help(help) => {
            // Nobody reads the help when its pipe is closed: no error.
            let _ = help.print();
            return Ok(ExitCode::SUCCESS);
        }
    };
    let settings = config::gather(&flags, |name| std::env::var_os(name))?;
    let machine = Machine::read()?;
    let mut plan = resolve::plan(&settings, &machine)?;
    log::start(plan.log);
    check::limits(plan.pins.len())?;
    check::rings()?;
    check::ports(&mut plan)?;
    boot::run(plan)
}
