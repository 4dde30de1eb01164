//! kaniko's warmer: base images into an OCI layout, before builds need them.

use std::path::PathBuf;

use super::args::WarmerCli;
use super::registry::{registry_config, retries};
use super::request::{ExecutorError, parse_duration_seconds};
use crate::cli::bases::{self, Recipe};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::home::Home;
use crate::cli::request::platform;
use crate::cli::wire;
use crate::event::Reporter;
use crate::oci::{Platform, Reference};
use crate::output::{BuildResult, OutputSpec};

/// Fetches the images.
pub(super) fn run(cli: &WarmerCli, environment: &Environment, reporter: &Reporter) -> Result<(), Failure> {
    parse_duration_seconds("--cache-ttl", &cli.cache_ttl).map_err(ExecutorError::from)?;
    for note in notes(cli) {
        reporter.info(note);
    }
    let platform = match cli.custom_platform.as_str() {
        "" => Platform::host(),
        text => platform(text)?,
    };
    let mut config = registry_config(&cli.registry, environment)?;
    retries(&mut config, &cli.registry);
    let mut images = cli.image.clone();
    if let Some(path) = &cli.dockerfile {
        let recipe =
            Recipe { path: path.as_ref(), build_args: &cli.build_arg, build_contexts: &[], target: None };
        let needed = bases::images(&recipe, &platform, environment, &config, reporter)?;
        images.extend(needed.into_iter().map(|image| image.text));
    }
    images.dedup();
    if images.is_empty() {
        return Err(Failure::NothingToWarm);
    }
    let client = wire::open_client(config, reporter.clone())?;
    let store = wire::open_store(&Home::open(&environment.store_root(None), reporter)?, reporter)?;
    let directory: PathBuf = environment.directory.join(&cli.cache_dir);
    for text in &images {
        let reference: Reference = text.parse()?;
        reporter.info(format!("Retrieving image {reference}"));
        let remote = client.image(&reference, &platform)?;
        let result = BuildResult {
            image: remote.image,
            names: vec![reference.clone()],
            blobs: client.blobs(&reference),
            tree: None,
            mount_from: Vec::new(),
        };
        let spec = OutputSpec::OciDirectory { path: directory.clone(), names: Vec::new() };
        let output = wire::open_output(&spec, client.clone(), store.clone(), reporter.clone(), &[])?;
        output.commit(&result)?;
        reporter.info(format!("Stored {reference} in {}", directory.display()));
    }
    Ok(())
}

/// Says what kiln does instead of what these flags ask for.
fn notes(cli: &WarmerCli) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if cli.force == Some(true) {
        notes.push("--force: every image is looked up at its registry in any case");
    }
    if cli.cache_ttl != "336h" {
        notes.push("--cache-ttl: every image is looked up at its registry, so none can be too old");
    }
    notes
}
