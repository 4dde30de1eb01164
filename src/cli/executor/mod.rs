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
mod objects;
mod planned;
mod registry;
mod request;
mod results;
mod unpack;
mod warmer;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::Arc;

use clap::{CommandFactory, Parser};

pub use request::ExecutorError;

use args::{ExecutorArgs, ExecutorCli, ExecutorCommand, LogFlags, Verbosity, WarmerCli};
use log::Log;
use planned::{describe, planned};
use request::{Execution, execution};

use super::args::{CredentialArgs, ProgressArg};
use super::commands::build::{Watch, enter, perform_under};
use super::commands::{credentials, print_listing, push_image, put_right};
use super::environment::Environment;
use super::fail::{FAILED, Failure};
use super::home::{Home, Site};
use super::progress::Progress;
use super::request::Invocation;
use super::wire;
use crate::build::{ContextSource, Request};
use crate::event::{Event, Report, Reporter};
use crate::output::OutputSpec;
use crate::sandbox::Isolation;

/// Tells whether a word is one of the executor's flags: an image called with them is meant to be the executor.
pub fn is_flag(word: &str) -> bool {
    let command = ExecutorCli::command();
    let name = word.split('=').next().unwrap_or(word);
    match (name.strip_prefix("--"), name.strip_prefix('-')) {
        (Some(long), _) => command.get_arguments().any(|argument| {
            argument.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long))
                || argument.get_all_aliases().is_some_and(|all| all.contains(&long))
        }),
        (None, Some(short)) => {
            let first = short.chars().next();
            command.get_arguments().any(|argument| first.is_some() && argument.get_short() == first)
        }
        (None, None) => false,
    }
}

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
        Err(error) => super::show(&error, FAILED),
    }
}

/// Runs the warmer with the arguments after its name; returns the exit code.
pub fn warmer_main(arguments: &[OsString], environment: &Environment) -> u8 {
    let words = std::iter::once(OsString::from("warmer")).chain(arguments.iter().cloned());
    match WarmerCli::try_parse_from(words) {
        Ok(cli) => with_log(&cli.log.clone(), |log| {
            put_right(environment, || reporter(log))?;
            warmer::run(&cli, environment, &reporter(log))
        }),
        Err(error) => super::show(&error, FAILED),
    }
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
    let (site, repaired) =
        enter(isolation, args.moot.force == Some(true), &request::root(args, environment), environment)?;
    let Execution { mut invocation, sub_path, also, results } = execution(args, environment)?;
    invocation.warnings.extend(repaired);
    for note in moot::notes(args, environment) {
        log.message(Verbosity::Info, &note);
    }
    let reporter = reporter(log);
    // Holds the unpacked context until the build is over.
    let _unpacked = match sub_path {
        Some(path) => Some(unpack::unpack(&mut invocation, &site.home, &path, &reporter)?),
        None => None,
    };
    let is_dry = args.dryrun == Some(true);
    if is_dry || request::environment_bool(environment, "KANIKO_PRINT_PLAN") {
        // Standard input is read once, and the build needs it.
        if is_dry || invocation.request.context != ContextSource::Stdin {
            print_plans(&also, &invocation, (environment, &site.home), &reporter)?;
        } else {
            reporter.info("KANIKO_PRINT_PLAN: --dryrun prints the plan of a context on standard input");
        }
        if is_dry {
            return Ok(());
        }
    }
    let fetch = match results.need_network() {
        true => Some(wire::open_fetch(&invocation.registry, reporter.clone())),
        false => None,
    };
    let watch = Watch::start(&site.entered)?;
    build_also(&also, &mut invocation, &site, &watch, &reporter)?;
    let (outcome, _) = perform_under(&watch, &invocation, &site, &reporter)?;
    let pushed = invocation.outputs.iter().any(|output| matches!(output, OutputSpec::Registry { .. }));
    results.write(&invocation.request.names, pushed, &outcome.image.digest(), fetch.as_deref())
}

/// Prints what would be built for each target, and where the first one's image would go.
fn print_plans(
    also: &[String],
    invocation: &Invocation,
    (environment, home): (&Environment, &Home),
    reporter: &Reporter,
) -> Result<(), Failure> {
    let Invocation { request, registry, .. } = invocation;
    let pushes = invocation.outputs.iter().any(|output| matches!(output, OutputSpec::Registry { .. }));
    let mut names = if pushes { request.names.as_slice() } else { &[] };
    let further = also.iter().map(|target| Request { target: Some(target.clone()), ..request.clone() });
    for request in std::iter::once(request.clone()).chain(further) {
        let plan = planned(&request, home, registry, environment, reporter)?;
        print_listing(&mut io::stdout(), describe(&plan, names).trim_end())?;
        names = &[];
    }
    Ok(())
}

/// Builds the stages that `--target` names behind the first: they must succeed, and go nowhere.
fn build_also(
    targets: &[String],
    invocation: &mut Invocation,
    site: &Site,
    watch: &Watch,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let first = invocation.request.target.clone();
    let outputs = std::mem::take(&mut invocation.outputs);
    for target in targets {
        reporter.info(format!("Building the stage {target}, which is not pushed: the first --target is"));
        invocation.request.target = Some(target.clone());
        perform_under(watch, invocation, site, reporter)?;
        // They were said.
        invocation.warnings.clear();
    }
    invocation.request.target = first;
    invocation.outputs = outputs;
    Ok(())
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
            super::written(writeln!(io::stdout(), "kiln version : v{}", env!("CARGO_PKG_VERSION")))
        }
        ExecutorCommand::Login { server, username, password, password_stdin } => quiet(&mut || {
            let args = CredentialArgs {
                host: server.clone(),
                username: username.clone(),
                password: password.clone(),
                password_stdin,
                authfile: None,
            };
            put_right(environment, || Progress::open(ProgressArg::Plain, false, environment).reporter())?;
            credentials(&args, environment, &mut io::stdin(), &mut io::stdout())
        }),
        ExecutorCommand::Push { path, destination, registry, log } => with_log(&log, |log| {
            put_right(environment, || reporter(log))?;
            let config = registry::registry_config(&registry, environment)?;
            push_image(&path, &destination, config, environment, &reporter(log)).map(drop)
        }),
    }
}
