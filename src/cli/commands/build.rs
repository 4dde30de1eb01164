//! `kiln build`.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use crate::build::{Outcome, build};
use crate::cli::args::{BuildArgs, ProgressArg};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::home::{Home, Site};
use crate::cli::progress::{Progress, bytes};
use crate::cli::request::{Invocation, RequestError, auth_warnings, invocation};
use crate::cli::signals::{self, Ending};
use crate::cli::{commit, verify, wire};
use crate::event::Reporter;
use crate::oci::Reference;
use crate::output::{Receipt, write_result};
use crate::sandbox::{self, Cancel, Entered, Isolation};

/// Builds an image; its digest goes to `out` unless an archive does.
pub(super) fn run(args: &BuildArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let isolation: Isolation = args.isolation.parse().map_err(RequestError::Isolation)?;
    let root = environment.store_root(args.store.root.as_ref());
    // Before anything else: this may start the process over, and needs it to have one thread.
    let (site, repaired) = enter(isolation, args.force, &root, environment)?;
    let commit = commit::find(&args.source.context, environment);
    let mut invocation = invocation(args, environment, commit.as_ref(), &mut std::io::stdin())?;
    invocation.warnings.extend(repaired);
    invocation.warnings.extend(auth_warnings(environment));
    let progress = Progress::open(invocation.progress, invocation.debug, environment);
    let finished = perform(&invocation, &site, &progress.reporter());
    drop(progress);
    if let Err(Failure::Unverified(unverified)) = &finished
        && let Some(path) = &invocation.reports.metadata
    {
        write_file(path, &format!("{:#}\n", json!({ "kiln.verify": unverified.as_json() })))?;
    }
    let (outcome, stdout_is_taken) = finished?;
    write_reports(&invocation, &outcome)?;
    if stdout_is_taken {
        return Ok(());
    }
    // A digest that nobody got is a failure, also where the reader has gone.
    writeln!(out, "{}", outcome.image.digest()).and_then(|()| out.flush()).map_err(Failure::Stdout)
}

/// Puts right what a killed kiln left behind, enters the sandbox, and hides this process from its neighbours; returns
/// what to warn of.
pub(crate) fn enter(
    isolation: Isolation,
    force: bool,
    root: &Path,
    environment: &Environment,
) -> Result<(Site, Vec<String>), Failure> {
    // What was killed may have had the usual root.
    let usual = Home::put_right_at(&environment.store_root(None))?;
    let (home, repaired) = Home::begin(root)?;
    let entered = sandbox::enter(isolation, force, &sandbox::probe_for(isolation))?;
    // From here on the arguments are blank for who lists processes; they have been read.
    let concealed = sandbox::conceal().err();
    let told = concealed.map(|error| format!("other processes can look into kiln's own: {error}"));
    let warnings = usual.into_iter().chain(repaired).chain(told).collect();
    Ok((Site { home, entered }, warnings))
}

/// Runs a build to its end; tells whether an output wrote to standard output.
pub(crate) fn perform(
    invocation: &Invocation,
    site: &Site,
    reporter: &Reporter,
) -> Result<(Outcome, bool), Failure> {
    perform_under(&Watch::start(&site.entered)?, invocation, site, reporter)
}

/// The watch for signals, which a process keeps once for all of its builds.
pub(crate) struct Watch {
    cancel: Arc<Cancel>,
    ending: Arc<Ending>,
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start(entered: &Entered) -> Result<Self, Failure> {
        let cancel = Arc::new(Cancel::new().map_err(|source| Failure::File {
            action: "create",
            path: "eventfd".into(),
            source,
        })?);
        let ending = Arc::new(Ending::default());
        signals::watch(Arc::clone(&cancel), Arc::clone(&ending), entered.clone())?;
        Ok(Self { cancel, ending })
    }
}

/// Runs one of several builds to its end; tells whether an output wrote to standard output.
pub(crate) fn perform_under(
    watch: &Watch,
    invocation: &Invocation,
    site: &Site,
    reporter: &Reporter,
) -> Result<(Outcome, bool), Failure> {
    for warning in &invocation.warnings {
        reporter.warning(warning.clone());
    }
    let Watch { cancel, ending } = watch;
    let mut workshop = wire::open_workshop(invocation, site, Arc::clone(cancel), reporter)?;
    workshop.services.steps_running = Arc::clone(&ending.steps_running);
    *ending.work_dir.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(workshop.services.work_dir.clone());
    let outcome = wire::read_lent(&invocation.request).and_then(|request| match invocation.verify {
        false => build(&request, &workshop.services).map_err(Failure::from),
        true => {
            let invocation = Invocation { request, ..invocation.clone() };
            verify::build_twice(&invocation, site, &workshop.services)
        }
    });
    // Before the next build reads them, and whatever became of this one.
    let returned = workshop.services.launch.finish();
    let stdout_is_taken = workshop.stdout_is_taken;
    let closed = workshop.close();
    let outcome = outcome?;
    returned?;
    if let Err(path) = closed {
        // The image is finished and delivered: leftovers are no reason to fail.
        reporter.warning(format!("cannot remove `{}`: a later build will", path.display()));
    }
    if invocation.progress != ProgressArg::Quiet {
        outcome.receipts.iter().for_each(|receipt| reporter.info(describe(receipt)));
    }
    Ok((outcome, stdout_is_taken))
}

/// Writes what an output did on one line.
fn describe(receipt: &Receipt) -> String {
    let tags = receipt.tags.join(", ");
    let digest = receipt.digest.as_ref().map(|digest| format!(" {digest}")).unwrap_or_default();
    let size = if receipt.size_bytes > 0 { format!(" {}", bytes(receipt.size_bytes)) } else { String::new() };
    let what = if tags.is_empty() { String::new() } else { format!(" {tags}") };
    format!("{} {}:{what}{digest}{size}", receipt.name, receipt.location)
}

/// Writes `--iidfile` and `--metadata-file`.
fn write_reports(invocation: &Invocation, outcome: &Outcome) -> Result<(), Failure> {
    let reports = &invocation.reports;
    if let Some(path) = &reports.image_id {
        write_file(path, outcome.image.digest().as_str())?;
    }
    if let Some(path) = &reports.metadata {
        let mut metadata = metadata(outcome);
        if invocation.verify {
            metadata["kiln.verify"] = json!({ "reproducible": true, "digest": outcome.image.digest() });
        }
        write_file(path, &format!("{metadata:#}\n"))?;
    }
    Ok(())
}

/// Writes a small file of results.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(write_result(path, text.as_bytes())?)
}

/// Describes the result under buildx's keys.
fn metadata(outcome: &Outcome) -> Value {
    let image = &outcome.image;
    let tags: Vec<&str> = outcome.receipts.iter().flat_map(|r| r.tags.iter().map(String::as_str)).collect();
    let mut names: Vec<String> = Vec::new();
    for tag in tags {
        let familiar = tag.parse::<Reference>().map_or_else(|_| tag.to_owned(), |r| r.to_string());
        if !names.contains(&familiar) {
            names.push(familiar);
        }
    }
    json!({
        "containerimage.config.digest": image.config_descriptor.digest().to_string(),
        "containerimage.descriptor": image.descriptor,
        "containerimage.digest": image.digest(),
        "image.name": names.join(","),
        "kiln.steps": outcome.steps.iter().map(|step| json!({
            "stage": step.stage,
            "number": step.number,
            "instruction": step.instruction,
            "cached": step.cached,
            "reasons": step.reasons,
            "seconds": step.took.as_secs_f64(),
        })).collect::<Vec<_>>(),
        "kiln.outputs": outcome.receipts.iter().map(|receipt| json!({
            "output": receipt.name,
            "location": receipt.location,
            "tags": receipt.tags,
            "digest": receipt.digest,
            "sizeBytes": receipt.size_bytes,
        })).collect::<Vec<_>>(),
    })
}
