//! The front doors: arguments in, exit code out. The only place that prints, reads the environment, exits.
//!
//! `args` is what was typed, `request` what it means; `wire` opens the sockets; `commands` do the work;
//! `progress` shows it and `fail` says what went wrong.

pub mod args;
mod bases;
pub mod commands;
pub mod commit;
pub mod environment;
pub mod executor;
pub mod fail;
pub mod home;
pub mod progress;
pub mod request;
pub mod signals;
pub mod tags;
pub mod values;
pub mod verify;
pub mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::Cli;
use environment::Environment;

use crate::threads;

/// Runs kiln with the process's arguments and returns its exit code.
///
/// Must be called before the process has a second thread: a build may enter namespaces.
pub fn main() -> ExitCode {
    threads::watch_panics(|text| {
        let _ = writeln!(
            std::io::stderr(),
            "internal error: {text}\nhint: this is a fault of kiln's: please report it"
        );
    });
    let code = catch_unwind(|| {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let environment = Environment::of_process();
        let code = match Door::of(&arguments) {
            Door::Kiln => run(&arguments, &environment),
            Door::Executor(skip) => executor::main(&arguments[skip..], &environment),
            Door::Warmer(skip) => executor::warmer_main(&arguments[skip..], &environment),
        };
        if code == 0 { written(Ok(())) } else { code }
    });
    ExitCode::from(match code {
        // Whatever a thread that panicked was to do is not done.
        Ok(code) if code == 0 && threads::panicked() => fail::FAILED,
        Ok(code) => code,
        Err(_) => fail::FAILED,
    })
}

/// Shows help, which goes to standard output with code 0, or what is wrong with the arguments, which is `wrong`.
fn show(error: &clap::Error, wrong: u8) -> u8 {
    let shown = error.print();
    if error.use_stderr() { wrong } else { written(shown) }
}

/// Returns the exit code of a command whose result was to go to standard output. Who closed it has seen enough.
fn written(result: std::io::Result<()>) -> u8 {
    match result.and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = std::io::stderr().write_all(fail::Failure::Stdout(error).render(false).as_bytes());
            fail::FAILED
        }
        _ => 0,
    }
}

/// The command lines that kiln understands, with how many arguments name it.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    /// kiln's own.
    Kiln,
    /// kaniko's executor.
    Executor(usize),
    /// kaniko's warmer.
    Warmer(usize),
}

/// What kiln's own command line understands without a command.
const HELP: [&str; 2] = ["-h", "--help"];

impl Door {
    /// Finds the door by the name kiln is called by, else by its first argument.
    fn of(arguments: &[OsString]) -> Self {
        let called =
            arguments.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
        let first = arguments.get(1).and_then(|word| word.to_str());
        match (called, first) {
            (Some("executor"), _) => Self::Executor(1),
            (Some("warmer"), _) => Self::Warmer(1),
            (_, Some("executor")) => Self::Executor(2),
            (_, Some("warmer")) => Self::Warmer(2),
            // A job that gives the image kaniko's flags, with the image's own entrypoint.
            (_, Some(word)) if executor::is_flag(word) && !HELP.contains(&word) => Self::Executor(1),
            _ => Self::Kiln,
        }
    }
}

/// Runs one of kiln's own commands.
fn run(arguments: &[OsString], environment: &Environment) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return show(&error, fail::USAGE),
    };
    match commands::run(cli, environment, &mut std::io::stdout()) {
        Ok(()) => 0,
        Err(failure) => {
            let colour = environment.stderr_is_terminal && environment.set_var("NO_COLOR").is_none();
            let _ = std::io::stderr().write_all(failure.render(colour).as_bytes());
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_found_by_name_or_first_argument() {
        let door = |words: &[&str]| Door::of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(door(&["kiln", "build"]), Door::Kiln);
        assert_eq!(door(&["/kaniko/executor", "--context", "x"]), Door::Executor(1));
        assert_eq!(door(&["executor"]), Door::Executor(1));
        assert_eq!(door(&["kiln", "executor", "-f", "x"]), Door::Executor(2));
        assert_eq!(door(&["/kaniko/warmer"]), Door::Warmer(1));
        assert_eq!(door(&["kiln", "warmer"]), Door::Warmer(2));
        assert_eq!(door(&["/kiln/kiln", "--dockerfile=D", "--context=/c"]), Door::Executor(1));
        assert_eq!(door(&["/kiln/kiln", "-f", "D"]), Door::Executor(1));
        assert_eq!(door(&["/kiln/kiln", "--snapshotMode=redo"]), Door::Executor(1));
        for word in ["--help", "-h", "--debug", "--version", "-", "--", "--root=/r"] {
            assert_eq!(door(&["kiln", word]), Door::Kiln, "{word}");
        }
        assert_eq!(door(&[]), Door::Kiln);
    }
}
