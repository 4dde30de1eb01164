//! `kiln push`: an image that exists, to a registry.

use std::io::Write;
use std::sync::Arc;

use super::{locate, open_store, print};
use crate::blob::Store;
use crate::cli::args::PushArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::home::Home;
use crate::cli::progress::Progress;
use crate::cli::request::{platform, registry_config};
use crate::cli::wire;
use crate::event::Reporter;
use crate::images::{self, ImagesError, Origin, is_index};
use crate::oci::{Digest, Platform, Reference, ReferenceError, descriptor_digest};
use crate::output::{BuildResult, OutputSpec, PushOptions, read_image};
use crate::registry::{Client, RegistryConfig, RegistryError};

/// Pushes an image; its digest goes to `out`.
pub(super) fn run(args: &PushArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let platform = args.platform.as_deref().map(platform).transpose()?;
    let store = open_store(&args.store, environment)?;
    let found = match locate::in_store(&store, &args.image)? {
        Some(found) => found,
        None => locate::in_layout(environment, &args.image)?
            .ok_or_else(|| Failure::NoImage { name: args.image.clone() })?,
    };
    let names = destinations(&args.destination, &args.image, &found.names)?;
    let config = registry_config(&args.registry, environment)?;
    let progress = Progress::open(args.progress, args.store.debug, environment);
    let options = PushOptions {
        check: !args.skip_push_permission_check,
        keep_immutable: args.push_ignore_immutable_tag_errors,
        ..PushOptions::default()
    };
    let push = Push { names, options, platform };
    let digest = deliver(found, push, config, store, &progress.reporter());
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
    let store = wire::open_store(&Home::open(&environment.store_root(None), reporter)?, reporter)?;
    let found = locate::in_layout(environment, path)?;
    let found = found.ok_or_else(|| Failure::NoImage { name: path.to_owned() })?;
    let names = destinations(given, path, &found.names)?;
    let push = Push { names, options: PushOptions::default(), platform: Some(Platform::host()) };
    deliver(found, push, config, store, reporter)
}

/// What is pushed how.
struct Push {
    names: Vec<Reference>,
    options: PushOptions,
    /// Which image of an index; all of it without one.
    platform: Option<Platform>,
}

fn deliver(
    found: locate::Found,
    push: Push,
    config: RegistryConfig,
    store: Arc<Store>,
    reporter: &Reporter,
) -> Result<Digest, Failure> {
    let Push { names, options, platform } = push;
    let client = wire::open_client(config, reporter.clone())?;
    let origin = match (&platform, names.first()) {
        (None, Some(name)) => Origin::local(&name.to_string(), &found.descriptor, Arc::clone(&found.blobs)),
        (platform, _) => {
            let platform = platform.clone().unwrap_or_else(Platform::host);
            Origin::local("", &found.descriptor, Arc::clone(&found.blobs)).choose(&platform)?
        }
    };
    if is_index(&origin.descriptor) || !is_image(&origin)? {
        return push_whole(&origin, &names, options, &client, reporter);
    }
    let image = read_image(found.blobs.as_ref(), &origin.descriptor)?;
    let digest = image.digest();
    let spec = OutputSpec::Registry { names: names.clone(), options };
    let output = wire::open_output(&spec, client, store, reporter.clone(), &names)?;
    output.commit(&BuildResult { image, names, blobs: found.blobs, tree: None, mount_from: Vec::new() })?;
    Ok(digest)
}

/// Artifacts are in stores and layouts too.
fn is_image(origin: &Origin) -> Result<bool, Failure> {
    Ok(origin.platform()?.is_some())
}

/// Pushes what is no single image as it is.
fn push_whole(
    origin: &Origin,
    names: &[Reference],
    options: PushOptions,
    client: &Client,
    reporter: &Reporter,
) -> Result<Digest, Failure> {
    origin.check_complete()?;
    for name in names.iter().filter(|_| options.check) {
        client.check_push(name)?;
    }
    let mut digest = descriptor_digest(&origin.descriptor);
    for name in names {
        match images::push(origin, client, std::slice::from_ref(name)) {
            Ok(pushed) => digest = pushed,
            Err(ImagesError::Registry(error @ RegistryError::Immutable { .. })) if options.keep_immutable => {
                reporter.warning(format!("{error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(digest)
}

/// Returns what to push under: the names given, with the image's own tag where they have none, else the
/// image's own name (the one it was asked for by, if it has several).
pub(super) fn destinations(
    given: &[String],
    image: &str,
    own: &[Reference],
) -> Result<Vec<Reference>, Failure> {
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
