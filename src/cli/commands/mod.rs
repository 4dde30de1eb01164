//! The commands, each a thin function over the library.

mod artifact;
pub(crate) mod build;
mod cache;
mod check;
mod copy;
mod desk;
mod diff;
mod doctor;
mod images;
mod index;
mod inspect;
mod locate;
mod login;
mod prune;
mod push;
mod remove;
mod tag;
mod warm;

use std::io::{self, Write};
use std::sync::Arc;

pub(crate) use diff::as_json as diff_json;
pub(crate) use login::login as credentials;
pub(crate) use push::push_image;

use super::args::{Cli, Command, ProgressArg, StoreArgs};
use super::environment::Environment;
use super::fail::Failure;
use super::home::Home;
use super::progress::Progress;
use super::wire;
use crate::blob::Store;
use crate::event::Reporter;
use crate::text;

/// Runs a command; its result goes to `out`.
pub fn run(cli: Cli, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    match &cli.command {
        // It does so itself, and tells in its own words.
        Command::Build(_) | Command::Doctor(_) | Command::Version => {}
        _ => put_right(environment, || Progress::open(ProgressArg::Plain, false, environment).reporter())?,
    }
    match cli.command {
        Command::Build(args) => build::run(&args, environment, out),
        Command::Check(args) => check::run(&args, environment, out),
        Command::Images(args) => images::run(&args, environment, out),
        Command::Diff(args) => diff::run(&args, environment, out),
        Command::Inspect(args) => inspect::run(&args, environment, out),
        Command::Push(args) => push::run(&args, environment, out),
        Command::Copy(args) => copy::run(&args, environment, out),
        Command::Tag(args) => tag::tag(&args, environment, out),
        Command::LsTags(args) => tag::list(&args, environment, out),
        Command::RmTag(args) => tag::remove(&args, environment, out),
        Command::Index(command) => index::run(&command, environment, out),
        Command::Artifact(command) => artifact::run(&command, environment, out),
        Command::Warm(args) => warm::run(&args, environment, out),
        Command::Rm(args) => remove::run(&args, environment, out),
        Command::Prune(args) => prune::run(&args, environment, out),
        Command::Cache(args) => cache::run(&args, environment, out),
        Command::Doctor(args) => doctor::run(&args, environment, out),
        Command::Login(args) => login::checked(&args, environment, &mut io::stdin(), out),
        Command::Logout(args) => login::logout(&args, environment, out),
        Command::Version => print(out, &format!("kiln {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// Puts right what a step may have left in the container, whether or not the command has a store: it believes files or writes
/// credentials there. What was put right is told to the reporter, which is opened only then.
pub(crate) fn put_right(
    environment: &Environment,
    reporter: impl FnOnce() -> Reporter,
) -> Result<(), Failure> {
    if let Some(told) = Home::put_right_at(&environment.store_root(None))? {
        reporter().warning(told);
    }
    Ok(())
}

/// Opens kiln's own directory that the arguments name.
fn home(args: &StoreArgs, environment: &Environment, reporter: &Reporter) -> Result<Home, Failure> {
    Home::open(&environment.store_root(args.root.as_ref()), reporter)
}

/// Opens the store for a command without a view of its own; a long wait for it is told as lines.
fn open_store(args: &StoreArgs, environment: &Environment) -> Result<Arc<Store>, Failure> {
    let progress = Progress::open(ProgressArg::Plain, args.debug, environment);
    let reporter = progress.reporter();
    wire::open_store(&home(args, environment, &reporter)?, &reporter)
}

/// Writes a line of a command's result. Names and labels in it are anybody's.
pub(crate) fn print(out: &mut dyn Write, line: &str) -> Result<(), Failure> {
    write_line(out, &text::line(line))
}

/// Writes several lines of kiln's own.
pub(crate) fn print_listing(out: &mut dyn Write, listing: &str) -> Result<(), Failure> {
    write_line(out, &text::listing(listing))
}

/// Writes what is harmless already.
fn write_line(out: &mut dyn Write, line: &str) -> Result<(), Failure> {
    match writeln!(out, "{line}") {
        // `kiln images | head` has seen enough; that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::Stdout),
    }
}

/// Writes a value as JSON for people and programs.
fn print_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<(), Failure> {
    write_line(out, &text::json(&format!("{value:#}")))
}

/// Writes rows under their headings, each column as wide as its widest cell.
fn print_table(out: &mut dyn Write, headings: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
    // As wide as they are shown.
    let shown = |row: &Vec<String>| row.iter().map(|cell| text::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    print(out, &line(&mut headings.iter().copied()))?;
    for row in &rows {
        print(out, &line(&mut row.iter().map(String::as_str)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut out = Vec::new();
        let rows =
            [vec!["r.io/application".to_owned(), "1".to_owned()], vec!["x".to_owned(), "22".to_owned()]];
        print_table(&mut out, &["NAME", "TAG"], &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME              TAG\nr.io/application  1\nx                 22\n"
        );
    }
}
