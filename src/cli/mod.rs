//! The front doors: arguments in, exit code out. The only place that prints, reads the environment, exits.
//!
//! `args` is what was typed, `request` what it means; `wire` opens the sockets; `commands` do the work;
//! `progress` shows it and `fail` says what went wrong.

pub mod args;
pub mod commands;
pub mod commit;
pub mod environment;
pub mod fail;
pub mod progress;
pub mod request;
pub mod signals;
pub mod tags;
pub mod values;
pub mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use environment::Environment;

/// Runs kiln with the process's arguments and returns its exit code.
///
/// Must be called before the process has a second thread: a build may enter namespaces.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment = Environment::of_process();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output with code 0, mistakes to standard error with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(fail::USAGE));
        }
    };
    let mut out = std::io::stdout();
    match commands::run(cli, &environment, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let colour = environment.stderr_is_terminal && environment.set_var("NO_COLOR").is_none();
            let _ = std::io::stderr().write_all(failure.render(colour).as_bytes());
            ExitCode::from(failure.exit_code())
        }
    }
}
