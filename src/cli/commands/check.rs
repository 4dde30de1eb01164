//! `kiln check`: BuildKit's build checks without a build.

use std::io::Write;

use super::{print, print_listing, write_line};
use crate::build::{BuildError, NamedContext, Place, Problem, Wanted, Workbench, check, read_dockerfile};
use crate::cli::args::{CheckArgs, Format};
use crate::cli::environment::Environment;
use crate::cli::fail::{Failure, excerpt};
use crate::cli::home::temporary_directory;
use crate::cli::request::{ambient_config, check_request};
use crate::cli::wire;
use crate::dockerfile::Dockerfile;
use crate::event::Reporter;
use crate::oci::{ImageConfig, Platform, Reference};
use crate::own_files::OwnFiles;
use crate::plan::lint::{LintReport, Report};
use crate::text;

/// Checks a Dockerfile; findings go to `out`. Fails where a build would, and on `# check=error=true`.
pub(super) fn run(args: &CheckArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let request = check_request(args, environment, &mut std::io::stdin())?;
    let mut registry = ambient_config(environment)?;
    // Base images make findings better, but nobody waits for a registry that is away.
    registry.retries.count = 0;
    let reporter = Reporter::silent();
    let fetch = wire::open_fetch(&registry, reporter.clone());
    let work_dir = temporary_directory(&environment.store_root(None), &reporter)?;
    let bench = Workbench {
        reporter: &reporter,
        fetch: fetch.as_ref(),
        git_environment: &environment.for_git(),
        own_files: &OwnFiles::default(),
        work_dir: work_dir.path(),
    };
    let source = match read_dockerfile(&request, &bench) {
        Ok(read) => read,
        Err(error) => {
            if args.format == Format::Json {
                json(&Report::unread(&error.to_string()), out)?;
            }
            return Err(error.into());
        }
    };
    let client = wire::open_client(registry, reporter)?;
    let lookup = |wanted: &Wanted<'_>, platform: &Platform| -> Option<ImageConfig> {
        let text = match wanted {
            Wanted::Reference(text) => text,
            Wanted::Context(name) => match request.named_contexts.get(*name)? {
                NamedContext::Image(text) => text.as_str(),
                NamedContext::Layout(_) | NamedContext::Files(_) => return None,
            },
        };
        let reference: Reference = text.parse().ok()?;
        client.image(&reference, platform).ok().map(|remote| remote.image.config)
    };
    let (dockerfile, report) = check(&request, &Platform::host(), &source, &lookup);
    match args.format {
        Format::Json => json(&Report::new(&dockerfile, &report), out)?,
        Format::Text => text(&dockerfile, &report, out)?,
    }
    verdict(&dockerfile, report)
}

/// Writes the report as buildx does: the number first, then the warnings in the order of the lines.
fn text(dockerfile: &Dockerfile, report: &LintReport, out: &mut dyn Write) -> Result<(), Failure> {
    match (report.warnings.len(), &report.error) {
        (0, Some(_)) => {}
        (0, None) => print(out, "Check complete, no warnings found.")?,
        (1, _) => print(out, "Check complete, 1 warning has been found!")?,
        (count, _) => print(out, &format!("Check complete, {count} warnings have been found!"))?,
    }
    let mut warnings: Vec<_> = report.warnings.iter().collect();
    warnings.sort_by_key(|warning| warning.span.start_line);
    for warning in warnings {
        let url = warning.rule.url;
        let more = if url.is_empty() { String::new() } else { format!(" - {url}") };
        let mut lines = format!("\nWARNING: {}{more}\n{}\n", warning.rule.name, warning.detail);
        let place =
            Place { name: dockerfile.name.clone(), source: dockerfile.source.clone(), span: warning.span };
        excerpt(&mut lines, &place);
        print_listing(out, lines.trim_end_matches('\n'))?;
    }
    Ok(())
}

/// Writes the report as buildx does, which writes what BuildKit gives it: Go's JSON escapes what HTML would.
fn json(report: &Report<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let mut json = serde_json::to_string_pretty(report).expect("a report has no keys but names");
    for (char, escape) in [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        json = json.replace(char, escape);
    }
    write_line(out, &text::json(&json))
}

/// Fails if the Dockerfile cannot be built, or says itself that its warnings are errors.
fn verdict(dockerfile: &Dockerfile, report: LintReport) -> Result<(), Failure> {
    if let Some(message) = report.violation {
        return Err(Failure::Check { message });
    }
    let Some(error) = report.error else { return Ok(()) };
    let place = error.span.map(|span| Place {
        name: dockerfile.name.clone(),
        source: dockerfile.source.clone(),
        span,
    });
    Err(BuildError { problem: Problem::Lint { message: error.message }, place }.into())
}
