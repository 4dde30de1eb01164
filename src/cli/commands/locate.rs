//! Finds an image by what a person calls it: a name, a digest or the beginning of one, a path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::{BlobSource, Layout, Store, Tagged};
use crate::cli::args::RegistryArgs;
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::request::registry_config;
use crate::cli::wire;
use crate::event::Reporter;
use crate::oci::{Descriptor, Digest, Image, Platform, Reference, annotation, descriptor_digest};
use crate::output::{read_image, select_manifest};

/// An image that was found.
pub(super) struct Found {
    /// Its manifest or index.
    pub(super) descriptor: Descriptor,
    /// Has its blobs.
    pub(super) blobs: Arc<dyn BlobSource>,
    /// What it is called where it was found.
    pub(super) names: Vec<Reference>,
}

/// An image that was read, wherever it is.
pub(super) struct Located {
    /// The image.
    pub(super) image: Image,
    /// Has its layers.
    pub(super) blobs: Arc<dyn BlobSource>,
}

/// Finds and reads an image in a layout or archive, in the store, or in its registry.
pub(super) fn anywhere(
    text: &str,
    platform: &Platform,
    environment: &Environment,
    registry: &RegistryArgs,
    store: &Arc<Store>,
) -> Result<Located, Failure> {
    let found = match in_layout(environment, text)? {
        Some(found) => Some(found),
        None => in_store(store, text)?,
    };
    match found {
        Some(Found { descriptor, blobs, .. }) => {
            let descriptor = select_manifest(blobs.as_ref(), &descriptor, platform)?;
            Ok(Located { image: read_image(blobs.as_ref(), &descriptor)?, blobs })
        }
        None => in_registry(text, platform, environment, registry),
    }
}

/// Asks the registry that the name says.
fn in_registry(
    text: &str,
    platform: &Platform,
    environment: &Environment,
    registry: &RegistryArgs,
) -> Result<Located, Failure> {
    let no_image = || Failure::NoImage { name: text.to_owned() };
    if text.parse::<Digest>().is_ok() {
        return Err(no_image());
    }
    // A word that is no reference can only have been meant for the store.
    let reference: Reference = text.parse().map_err(|_| no_image())?;
    let client = wire::open_client(registry_config(registry, environment)?, Reporter::silent())?;
    let remote = client
        .image(&reference, platform)
        .map_err(|source| Failure::Nowhere { name: text.to_owned(), source })?;
    let blobs = client.blobs(&remote.reference);
    Ok(Located { image: remote.image, blobs })
}

/// Tells whether a tag of the store stands for an image without a name.
pub(super) fn is_nameless(tag: &str) -> bool {
    tag.parse::<Digest>().is_ok()
}

/// The fewest hex digits that are taken for the beginning of a digest.
const DIGITS_MIN: usize = 6;

/// Finds tags of the store by name, digest, or beginning of a digest.
pub(super) fn matching(tags: &[Tagged], text: &str) -> Result<Vec<Tagged>, Failure> {
    if let Ok(name) = text.parse::<Reference>()
        && name.digest().is_none()
    {
        let full = name.to_string();
        let named: Vec<Tagged> = tags.iter().filter(|tagged| tagged.reference == full).cloned().collect();
        if !named.is_empty() {
            return Ok(named);
        }
    }
    // `name@sha256:…` is the digest as well: content is what counts.
    let digest = text.rsplit('@').next().unwrap_or(text);
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(Vec::new());
    }
    let hex = |tagged: &Tagged| descriptor_digest(&tagged.descriptor).hex().to_owned();
    let found: Vec<Tagged> = tags.iter().filter(|tagged| hex(tagged).starts_with(digits)).cloned().collect();
    let mut digests: Vec<String> = found.iter().map(hex).collect();
    digests.dedup();
    digests.sort();
    digests.dedup();
    if digests.len() > 1 {
        let candidates = digests.iter().map(|hex| hex[..12].to_owned()).collect::<Vec<_>>().join(", ");
        return Err(Failure::Ambiguous { name: text.to_owned(), candidates });
    }
    Ok(found)
}

/// Finds an image in the store.
pub(super) fn in_store(store: &Arc<Store>, text: &str) -> Result<Option<Found>, Failure> {
    let found = matching(&store.tags()?, text)?;
    let Some(first) = found.first() else { return Ok(None) };
    let names = found.iter().filter(|tagged| !is_nameless(&tagged.reference));
    Ok(Some(Found {
        descriptor: first.descriptor.clone(),
        blobs: Arc::clone(store) as Arc<dyn BlobSource>,
        names: names.filter_map(|tagged| tagged.reference.parse().ok()).collect(),
    }))
}

/// Finds an image in a layout or archive: `PATH`, `PATH:TAG` or `PATH@DIGEST`; `None` if there is no such
/// path.
pub(super) fn in_layout(environment: &Environment, text: &str) -> Result<Option<Found>, Failure> {
    let Some((path, name)) = split_path(&environment.directory, text) else { return Ok(None) };
    let layout = Layout::open(&path)?;
    let Some(descriptor) = layout.find(name.as_deref()).cloned() else {
        let listed: Vec<String> = layout.manifests().iter().map(label).collect();
        return Err(match name {
            Some(name) => Failure::NotInLayout { path, name, listed: listed.join(", ") },
            None => Failure::Ambiguous { name: text.to_owned(), candidates: listed.join(", ") },
        });
    };
    let annotations = descriptor.annotations().clone().unwrap_or_default();
    let names = annotations.get(annotation::CONTAINERD_NAME).and_then(|name| name.parse().ok());
    Ok(Some(Found { descriptor, blobs: Arc::new(layout), names: names.into_iter().collect() }))
}

/// Names an entry of a layout's index.
fn label(descriptor: &Descriptor) -> String {
    let annotations = descriptor.annotations().clone().unwrap_or_default();
    let name = annotations.get(annotation::CONTAINERD_NAME).or(annotations.get(annotation::REF_NAME));
    name.cloned().unwrap_or_else(|| descriptor.digest().to_string())
}

/// Splits a path that exists from the tag or digest after it. A bare word is taken for a path only if it
/// is spelt like one: `./app` or `app.tar`.
fn split_path(directory: &Path, text: &str) -> Option<(PathBuf, Option<String>)> {
    let text = text.strip_prefix("oci-layout://").unwrap_or(text);
    let there = |path: &str| {
        let path = directory.join(path);
        (path.is_file() || path.join("oci-layout").is_file()).then_some(path)
    };
    if let Some(path) = there(text) {
        return Some((path, None));
    }
    let (path, name) = text.split_once('@').or_else(|| text.rsplit_once(':'))?;
    Some((there(path)?, Some(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{descriptor, media_type};

    fn tagged(reference: &str, content: &[u8]) -> Tagged {
        let descriptor = descriptor(media_type::OCI_MANIFEST, &Digest::of(content), content.len() as u64);
        Tagged { reference: reference.to_owned(), descriptor }
    }

    #[test]
    fn images_are_found_by_name_and_digest() {
        let tags = [
            tagged("r.io/app:1", b"one"),
            tagged("docker.io/library/app:latest", b"two"),
            tagged(Digest::of(b"three").as_str(), b"three"),
        ];
        let find = |text: &str| -> Vec<String> {
            matching(&tags, text).unwrap().into_iter().map(|tagged| tagged.reference).collect()
        };
        assert_eq!(find("r.io/app:1"), ["r.io/app:1"]);
        assert_eq!(find("app"), ["docker.io/library/app:latest"]);
        assert_eq!(find("r.io/app"), [""; 0]);
        assert_eq!(find(Digest::of(b"one").as_str()), ["r.io/app:1"]);
        assert_eq!(find(&format!("r.io/app@{}", Digest::of(b"one"))), ["r.io/app:1"]);
        assert_eq!(find(Digest::of(b"three").short()), [Digest::of(b"three").as_str()]);
        assert_eq!(find(&Digest::of(b"one").hex()[..5]), [""; 0]);
    }

    #[test]
    fn a_path_may_carry_a_tag() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("layout")).unwrap();
        std::fs::write(directory.path().join("layout/oci-layout"), "{}").unwrap();
        std::fs::write(directory.path().join("a.tar"), "").unwrap();
        let split = |text: &str| split_path(directory.path(), text).map(|(_, name)| name);
        assert_eq!(split("layout"), Some(None));
        assert_eq!(split("layout:1.0"), Some(Some("1.0".to_owned())));
        assert_eq!(split("oci-layout://layout@sha256:00"), Some(Some("sha256:00".to_owned())));
        assert_eq!(split("a.tar"), Some(None));
        assert_eq!(split("missing"), None);
        assert_eq!(split("missing:1"), None);
    }
}
