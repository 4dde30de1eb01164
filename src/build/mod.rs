//! The engine: from a [`Request`] to an image.
//!
//! The Dockerfile is parsed and planned, then every stage the target needs runs on a thread of its own;
//! a stage that needs another waits for it (and runs it itself if nobody has begun). Each stage is a fold
//! over its instructions (`stage`): the config changes, layers pile up, and files are only made when a step
//! needs them (`tree`). Layers are compressed beside all that (`layers`). At the end the image is sealed and
//! handed to the outputs (`finish`).
//!
//! The engine asks no socket which mode it is in.

mod add;
mod agent;
mod base;
mod blobs;
mod brought;
mod cache_mount;
mod check;
mod copy;
mod copy_step;
mod epoch;
mod error;
mod finish;
mod inputs;
mod layers;
mod metadata;
mod mount_saving;
mod mounts;
mod offline;
mod probe;
mod request;
mod run;
mod schedule;
mod scope;
mod services;
mod stage;
mod tree;
mod user;

use std::sync::{Arc, Mutex};

pub use cache_mount::prune_cache_mounts;
pub use check::{ImageLookup, Wanted, check};
pub use copy::CopyError;
pub use error::{BuildError, Place, Problem};
pub use finish::{Finished, Outcome};
pub use inputs::{DockerfileText, GIT_SECRETS, Workbench, read_dockerfile};
pub use offline::{Missing, NeededImage, needed_images};
pub use probe::StepReport;
pub use request::{
    ContextSource, DockerfileSource, Entitlement, EpochChoice, Explain, NamedContext, NetworkMode, Request,
    SecretSource, SshKey, SshSource,
};
pub use services::Services;
pub use user::UserError;

use crate::dockerfile::Dockerfile;
use crate::event::Event;
use crate::layer::{LayerOptions, TarOptions};
use crate::oci::{Platform, Reference};
use crate::plan::Plan;
use crate::rootfs::Rootfs;

/// Everything one build shares between its stages.
struct Build<'a> {
    request: &'a Request,
    services: &'a Services,
    dockerfile: Dockerfile,
    plan: Plan,
    inputs: inputs::Inputs,
    platform: Platform,
    /// The source epoch in seconds since 1970, if there is one.
    epoch: Option<i64>,
    /// What of the epoch is in the keys of caches.
    epoch_key: String,
    blobs: Arc<blobs::Blobs>,
    bases: base::BaseImages,
    works: layers::LayerWorks,
    schedule: schedule::Schedule,
    /// Trees that are read from until the build ends.
    kept: Mutex<Vec<Box<dyn Rootfs>>>,
    downloads: base::Once<String, copy::CopySource>,
    probe: Arc<probe::Probe>,
    keeper: probe::Keeper,
    /// How each step came about, and why those that ran were in no cache.
    reports: Mutex<Vec<StepReport>>,
    used_mounts: mount_saving::UsedMounts,
    /// Repositories of caches that the image's layers may be taken from.
    cache_repositories: Mutex<Vec<Reference>>,
}

/// Looks at an image before any output gets a byte of it; `false` ends the build with [`Problem::Refused`].
pub type Gate<'a> = &'a (dyn Fn(&Finished) -> bool + Sync);

/// How often a build is tried whose cached layers cannot be used, before no cache is believed any more. Each time one
/// source of failure less is left.
const MOST_TRIES: usize = 4;

/// Builds an image and hands it to the outputs. Where a layer is not what a cache promised, its step runs.
pub fn build(request: &Request, services: &Services) -> Result<Outcome, BuildError> {
    let read = read_inputs(request, services)?;
    for tries in 1..=MOST_TRIES {
        let error = match build_read(request, services, &read, None) {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        let blamed = error.problem.broken_layer();
        if !services.caches.drop_broken(blamed) || !services.cancel.resume() {
            return Err(error);
        }
        let problem = crate::event::with_causes(&error);
        let mut text = format!("a layer of a cache cannot be used, and its step runs instead: {problem}");
        if tries == MOST_TRIES {
            text += "; it was not the first: no cache is used any more";
            services.caches.give_up_hits();
        }
        services.reporter.report(Event::Warning { text, hint: None });
    }
    build_read(request, services, &read, None)
}

/// Builds an image, and hands it to the outputs if `gate` lets it pass.
pub fn build_gated(
    request: &Request,
    services: &Services,
    gate: Option<Gate<'_>>,
) -> Result<Outcome, BuildError> {
    build_read(request, services, &read_inputs(request, services)?, gate)
}

/// What a build reads once, however often it is tried: standard input cannot be read again.
type Read = (Dockerfile, inputs::Inputs);

fn read_inputs(request: &Request, services: &Services) -> Result<Read, BuildError> {
    offline::check_inputs(request)?;
    inputs::open(request, services)
}

fn build_read(
    request: &Request,
    services: &Services,
    (dockerfile, inputs): &Read,
    gate: Option<Gate<'_>>,
) -> Result<Outcome, BuildError> {
    let platform = request.platform.clone().unwrap_or_else(|| services.build_platform.clone());
    let (dockerfile, mut inputs) = (dockerfile.clone(), inputs.again());
    let mut plan = inputs::plan(&dockerfile, request, services, &platform)?;
    let request = &inputs.settle(request, &plan, services)?;
    if request.offline {
        offline::check(&dockerfile, &plan, request, services)?;
    }
    let epoch = epoch::find(&plan, request, services, &inputs)
        .map_err(|problem| BuildError { problem, place: None })?;
    if plan.source_date_epoch.is_some() {
        plan.set_source_date_epoch(epoch);
    }
    let epoch_key = epoch::for_keys(&plan, request, epoch);
    let options = LayerOptions {
        compression: request.compression,
        threads: request.compression_threads,
        tar: TarOptions { epoch },
        format: request.format.unwrap_or_default(),
    };
    let blobs = Arc::new(blobs::Blobs::new(services.store.clone(), services.keep_base_blobs));
    let mut build = Build {
        request,
        services,
        platform,
        epoch,
        epoch_key,
        downloads: base::Once::default(),
        probe: Arc::default(),
        keeper: probe::Keeper::start(&services.caches, blobs.clone(), &services.reporter),
        cache_repositories: Mutex::default(),
        reports: Mutex::default(),
        used_mounts: mount_saving::UsedMounts::default(),
        blobs,
        bases: base::BaseImages::default(),
        works: layers::LayerWorks::new(
            services.store.clone(),
            // Layers of an image that may be refused do not go ahead of it.
            if gate.is_some() { Vec::new() } else { services.outputs.clone() },
            services.reporter.clone(),
            options,
        ),
        schedule: schedule::Schedule::new(plan.stages.len(), request.jobs),
        kept: Mutex::default(),
        dockerfile,
        plan,
        inputs,
    };
    build.enforce_checks()?;
    build.probe = Arc::new(build.probe());
    let target = build.run_stages();
    build.warn();
    let outcome = target.and_then(|target| build.finish(&target, gate));
    if outcome.is_ok() {
        build.keep_untouched();
    }
    build.works.finish();
    build.keeper.finish();
    services.caches.finish();
    if outcome.is_ok() {
        build.save_mounts();
    }
    outcome
}
