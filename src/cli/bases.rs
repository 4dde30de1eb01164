//! The images that a Dockerfile builds on: what `kiln warm` and kaniko's warmer fetch.

use std::path::Path;

use super::args::{SourceArgs, StepArgs};
use super::environment::Environment;
use super::fail::Failure;
use super::home::temporary_directory;
use super::request::{base_request, is_remote};
use super::wire;
use crate::build::{ContextSource, DockerfileSource, NeededImage, Request, Workbench, needed_images};
use crate::event::Reporter;
use crate::oci::Platform;
use crate::own_files::OwnFiles;
use crate::registry::RegistryConfig;

/// A Dockerfile, and how it will be built.
pub(super) struct Recipe<'a> {
    /// The Dockerfile.
    pub path: &'a Path,
    /// `--build-arg`.
    pub build_args: &'a [String],
    /// `--build-context`.
    pub build_contexts: &'a [String],
    /// `--target`; all stages without one.
    pub target: Option<&'a str>,
}

/// Returns the images that a Dockerfile needs to be built for a platform.
pub(super) fn images(
    recipe: &Recipe<'_>,
    platform: &Platform,
    environment: &Environment,
    config: &RegistryConfig,
    reporter: &Reporter,
) -> Result<Vec<NeededImage>, Failure> {
    let source = SourceArgs {
        build_arg: recipe.build_args.to_vec(),
        build_context: recipe.build_contexts.to_vec(),
        target: recipe.target.map(str::to_owned),
        ..SourceArgs::default()
    };
    let mut request: Request =
        base_request(&source, &StepArgs::default(), environment, &mut std::io::empty(), &mut Vec::new())?;
    request.context = ContextSource::Directory(environment.directory.clone());
    let url = recipe.path.to_str().filter(|path| is_remote(path));
    request.dockerfile = match url {
        Some(url) => DockerfileSource::Url(url.to_owned()),
        None => DockerfileSource::Path(environment.directory.join(recipe.path)),
    };
    request.platform = Some(platform.clone());
    let fetch = wire::open_fetch(config, reporter.clone());
    let work_dir = temporary_directory(&environment.store_root(None), reporter)?;
    let bench = Workbench {
        reporter,
        fetch: fetch.as_ref(),
        git_environment: &environment.for_git(),
        own_files: &OwnFiles::default(),
        work_dir: work_dir.path(),
    };
    Ok(needed_images(&request, &bench, &Platform::host())?)
}
