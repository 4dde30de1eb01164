//! `kiln push`: an image that exists, to a registry.

use std::io::Write;
use std::sync::Arc;

use super::{locate, print};
use crate::blob::Store;
use crate::cli::args::PushArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::Progress;
use crate::cli::request::{platform, registry_config};
use crate::cli::wire;
use crate::event::Reporter;
use crate::oci::{Digest, Platform, Reference, ReferenceError};
use crate::output::{BuildResult, OutputSpec, PushOptions, read_image, select_manifest};
use crate::registry::RegistryConfig;

/// Pushes an image; its digest goes to `out`.
pub(super) fn run(args: &PushArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let platform = args.platform.as_deref().map(platform).transpose()?.unwrap_or_else(Platform::host);
    let store = wire::open_store(&environment.store_root(args.store.root.as_ref()))?;
    let found = match locate::in_store(&store, &args.image)? {
        Some(found) => found,
        None => locate::in_layout(environment, &args.image)?
            .ok_or_else(|| Failure::NoImage { name: args.image.clone() })?,
    };
    let names = destinations(&args.destination, &args.image, &found.names)?;
    let config = registry_config(&args.registry, environment)?;
    let progress = Progress::open(args.progress, args.store.debug, environment);
    let digest = deliver(found, names, &platform, config, store, &progress.reporter());
    drop(progress);
    print(out, digest?.as_str())
}

/// Pushes the layout or archive at `path` under `given`.
pub(crate) fn push_image(
    path: &str,
    given: &[String],
    config: RegistryConfig,
    environment: &Environment,
    reporter: &Reporter,
) -> Result<Digest, Failure> {
    let store = wire::open_store(&environment.store_root(None))?;
    let found = locate::in_layout(environment, path)?;
    let found = found.ok_or_else(|| Failure::NoImage { name: path.to_owned() })?;
    let names = destinations(given, path, &found.names)?;
    deliver(found, names, &Platform::host(), config, store, reporter)
}

fn deliver(
    found: locate::Found,
    names: Vec<Reference>,
    platform: &Platform,
    config: RegistryConfig,
    store: Arc<Store>,
    reporter: &Reporter,
) -> Result<Digest, Failure> {
    let descriptor = select_manifest(found.blobs.as_ref(), &found.descriptor, platform)?;
    let image = read_image(found.blobs.as_ref(), &descriptor)?;
    let digest = image.digest();
    let client = wire::open_client(config, reporter.clone())?;
    let spec = OutputSpec::Registry { names: names.clone(), options: PushOptions::default() };
    let output = wire::open_output(&spec, client, store, reporter.clone(), &names)?;
    output.commit(&BuildResult { image, names, blobs: found.blobs, tree: None, mount_from: Vec::new() })?;
    Ok(digest)
}

/// Returns what to push under: the names given, with the image's own tag where they have none, else the
/// image's own name (the one it was asked for by, if it has several).
fn destinations(given: &[String], image: &str, own: &[Reference]) -> Result<Vec<Reference>, Failure> {
    if given.is_empty() {
        return match own {
            [] => Err(Failure::NoDestination { image: image.to_owned() }),
            [only] => Ok(vec![only.clone()]),
            several => Ok(several.to_vec()),
        };
    }
    let tag = own.first().and_then(Reference::tag).unwrap_or("latest");
    let tagged = |text: &String| -> Result<Reference, ReferenceError> {
        let name: Reference = text.parse()?;
        if name.tag().is_none() && name.digest().is_none() { name.with_tag(tag) } else { Ok(name) }
    };
    Ok(given.iter().map(tagged).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(given: &[&str], own: &[&str]) -> Vec<String> {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        let own: Vec<Reference> = own.iter().map(|text| text.parse().unwrap()).collect();
        destinations(&given, "image", &own).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_destination_without_a_tag_takes_the_images() {
        assert_eq!(full(&["r.io/a"], &["x:1"]), ["r.io/a:1"]);
        assert_eq!(full(&["r.io/a:2", "r.io/b"], &[]), ["r.io/a:2", "r.io/b:latest"]);
        assert_eq!(full(&[], &["r.io/x:1"]), ["r.io/x:1"]);
        assert!(matches!(destinations(&[], "image", &[]), Err(Failure::NoDestination { .. })));
    }
}
