//! kaniko's front door: `kiln executor`, or kiln called as `executor` or `/kaniko/executor`; and `warmer`.
//!
//! Flags, defaults, variables and files are kaniko's, so that a pipeline works with only the image's name
//! changed; what is built is the same [`Request`](crate::build::Request) that `kiln build` makes. As with
//! kaniko, anything that goes wrong is exit code 1.

mod args;
mod cache;
mod context;
mod log;
mod moot;
mod registry;
mod request;
mod unpack;
mod warmer;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use clap::Parser;

pub use request::ExecutorError;

use args::{ExecutorArgs, ExecutorCli, ExecutorCommand, LogFlags, Verbosity, WarmerCli};
use log::Log;
use request::{DigestFiles, Execution, execution};

use super::args::CredentialArgs;
use super::commands::build::{enter, perform, write_file};
use super::commands::{credentials, push_image};
use super::environment::Environment;
use super::fail::{FAILED, Failure};
use crate::event::{Event, Report, Reporter};
use crate::oci::{Digest, Reference};
use crate::sandbox::Isolation;

/// Passes events on to a log that is used directly as well.
struct Shared(Arc<Log>);

impl Report for Shared {
    fn report(&self, event: Event) {
        self.0.report(event);
    }
}

/// Runs the executor with the arguments after its name; returns the exit code.
pub fn main(arguments: &[OsString], environment: &Environment) -> u8 {
    let words = std::iter::once(OsString::from("executor")).chain(arguments.iter().cloned());
    match ExecutorCli::try_parse_from(words) {
        Ok(cli) => match cli.command {
            None => with_log(&cli.build.log.clone(), |log| build(&cli.build, environment, log)),
            Some(command) => run_command(command, environment),
        },
        Err(error) => usage(&error),
    }
}

/// Runs the warmer with the arguments after its name; returns the exit code.
pub fn warmer_main(arguments: &[OsString], environment: &Environment) -> u8 {
    let words = std::iter::once(OsString::from("warmer")).chain(arguments.iter().cloned());
    match WarmerCli::try_parse_from(words) {
        Ok(cli) => with_log(&cli.log.clone(), |log| warmer::run(&cli, environment, &reporter(log))),
        Err(error) => usage(&error),
    }
}

/// Shows help, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { FAILED } else { 0 }
}

/// Runs something that logs, and logs how it failed.
fn with_log(flags: &LogFlags, work: impl FnOnce(&Arc<Log>) -> Result<(), Failure>) -> u8 {
    let log = Arc::new(Log::new(flags, Box::new(io::stderr()), Box::new(io::stdout())));
    match work(&log) {
        Ok(()) => 0,
        Err(failure) => {
            log.message(Verbosity::Fatal, failure.render(false).trim_end());
            // An interrupted build says so; anything else is kaniko's 1.
            if failure.is_interrupted() { failure.exit_code() } else { FAILED }
        }
    }
}

fn reporter(log: &Arc<Log>) -> Reporter {
    Reporter::new(Shared(Arc::clone(log)))
}

/// Builds and pushes.
fn build(args: &ExecutorArgs, environment: &Environment, log: &Arc<Log>) -> Result<(), Failure> {
    let isolation = match environment.set_var("KILN_ISOLATION") {
        Some(text) => text.parse().map_err(ExecutorError::from)?,
        None => Isolation::Auto,
    };
    // Before anything else: this may start the process over, and needs it to have one thread.
    let (entered, repaired) =
        enter(isolation, args.moot.force == Some(true), &request::root(args, environment))?;
    let Execution { mut invocation, sub_path, files } = execution(args, environment)?;
    invocation.warnings.extend(repaired);
    for note in moot::notes(args, environment) {
        log.message(Verbosity::Info, &note);
    }
    let reporter = reporter(log);
    // Holds the unpacked context until the build is over.
    let _unpacked = match sub_path {
        Some(path) => Some(unpack::unpack(&mut invocation, &path, &reporter)?),
        None => None,
    };
    let (outcome, _) = perform(&invocation, &entered, &reporter)?;
    write_files(&files, &invocation.request.names, &outcome.image.digest())
}

/// Writes the files that later jobs read.
fn write_files(files: &DigestFiles, names: &[Reference], digest: &Digest) -> Result<(), Failure> {
    if let Some(path) = &files.digest {
        write_file(path, digest.as_str())?;
    }
    let lines = |line: &dyn Fn(&Reference) -> String| -> String { names.iter().map(line).collect() };
    if let Some(path) = &files.name {
        write_file(path, &lines(&|name| format!("{}@{digest}\n", shown(name))))?;
    }
    if let Some(path) = &files.name_tag {
        let tag = |name: &Reference| name.tag().unwrap_or("latest").to_owned();
        write_file(path, &lines(&|name| format!("{}:{}@{digest}\n", shown(name), tag(name))))?;
    }
    Ok(())
}

/// Returns a repository as kaniko writes it: Docker Hub is `index.docker.io`.
fn shown(name: &Reference) -> String {
    match name.registry() {
        "docker.io" => format!("index.docker.io/{}", name.repository()),
        _ => name.name(),
    }
}

fn run_command(command: ExecutorCommand, environment: &Environment) -> u8 {
    let quiet = |work: &mut dyn FnMut() -> Result<(), Failure>| match work() {
        Ok(()) => 0,
        Err(failure) => {
            let _ = io::stderr().write_all(failure.render(false).as_bytes());
            FAILED
        }
    };
    match command {
        ExecutorCommand::Version => {
            let _ = writeln!(io::stdout(), "kiln version : v{}", env!("CARGO_PKG_VERSION"));
            0
        }
        ExecutorCommand::Login { server, username, password, password_stdin } => quiet(&mut || {
            let args = CredentialArgs {
                host: server.clone(),
                username: username.clone(),
                password: password.clone(),
                password_stdin,
                authfile: None,
            };
            credentials(&args, environment, &mut io::stdin(), &mut io::stdout())
        }),
        ExecutorCommand::Push { path, destination, registry, log } => with_log(&log, |log| {
            let config = registry::registry_config(&registry, environment)?;
            push_image(&path, &destination, config, environment, &reporter(log)).map(drop)
        }),
    }
}
