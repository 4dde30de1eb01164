//! What commands about whole images work with: the store, registries, progress, and where things are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{home, locate};
use crate::blob::Store;
use crate::cli::args::{ProgressArg, TransferArgs};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::Progress;
use crate::cli::request::{auth_warnings, registry_config};
use crate::cli::wire;
use crate::event::Reporter;
use crate::images::{ImagesError, Origin};
use crate::oci::{Digest, Reference};
use crate::output::{Destination, LayoutTarget};
use crate::registry::Client;

/// Everything opened. Dropping it ends the progress view: results are printed after that.
pub(super) struct Desk<'a> {
    pub(super) environment: &'a Environment,
    pub(super) store: Arc<Store>,
    pub(super) client: Client,
    pub(super) reporter: Reporter,
    _progress: Progress,
}

/// Something to read, and what it is called where it was found.
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) names: Vec<Reference>,
}

impl Source {
    /// Returns the tag it has there.
    pub(super) fn tag(&self) -> Option<&str> {
        self.names.first().and_then(Reference::tag)
    }
}

/// Somewhere to write to.
pub(super) enum Target {
    /// A registry.
    Registry(Reference),
    /// kiln's store.
    Store(Reference),
    /// An OCI layout, and the tag in it.
    Layout(LayoutTarget, Option<String>),
}

impl<'a> Desk<'a> {
    /// Opens everything.
    pub(super) fn open(args: &TransferArgs, environment: &'a Environment) -> Result<Self, Failure> {
        let kind = if args.quiet { ProgressArg::Quiet } else { args.progress };
        let config = registry_config(&args.registry, environment)?;
        let progress = Progress::open(kind, args.store.debug, environment);
        let reporter = progress.reporter();
        let store = wire::open_store(&home(&args.store, environment, &reporter)?, &reporter)?;
        auth_warnings(environment).into_iter().for_each(|warning| reporter.warning(warning));
        let client = wire::open_client(config, reporter.clone())?;
        Ok(Self { environment, store, client, reporter, _progress: progress })
    }

    /// Finds something to read: in a layout, in the store, in a registry.
    pub(super) fn source(&self, text: &str) -> Result<Source, Failure> {
        if let Some(name) = text.strip_prefix("docker://") {
            return self.in_registry(name, text);
        }
        if let Some(name) = text.strip_prefix("store://") {
            let found = locate::in_store(&self.store, name)?;
            return Ok(source(text, found.ok_or_else(|| Failure::NoImage { name: name.to_owned() })?));
        }
        let path = ["oci-archive:", "oci:"].iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(found) = locate::in_layout(self.environment, path.unwrap_or(text))? {
            return Ok(source(text, found));
        }
        if path.is_some() {
            return Err(Failure::NoLayout { name: text.to_owned() });
        }
        if let Some(found) = locate::in_store(&self.store, text)? {
            self.reporter.info(format!("{text}: in the store"));
            return Ok(source(text, found));
        }
        self.in_registry(text, text).map_err(|failure| match failure {
            Failure::Images(ImagesError::Registry(source)) => {
                Failure::Nowhere { name: text.to_owned(), source }
            }
            other => other,
        })
    }

    fn in_registry(&self, name: &str, shown: &str) -> Result<Source, Failure> {
        let no_image = || Failure::NoImage { name: shown.to_owned() };
        if name.parse::<Digest>().is_ok() {
            return Err(no_image());
        }
        let reference: Reference = match name.parse() {
            Ok(reference) => reference,
            // A word that is no reference can only have been meant for the store.
            Err(_) if name == shown && !name.contains('/') => return Err(no_image()),
            Err(error) => return Err(error.into()),
        };
        let origin = Origin::registry(&self.client, &reference)?;
        Ok(Source { origin, names: vec![reference] })
    }

    /// Reads where something is to go.
    pub(super) fn target(&self, text: &str) -> Result<Target, Failure> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Target::Registry(name.parse()?));
        }
        if let Some(name) = text.strip_prefix("store://") {
            return Ok(Target::Store(name.parse()?));
        }
        let (path, kind) = match text.split_once(':') {
            Some(("oci", path)) => (path, Some(false)),
            Some(("oci-layout", path)) => (path.trim_start_matches("//"), Some(false)),
            Some(("oci-archive", path)) => (path, Some(true)),
            _ => (text, None),
        };
        let (place, tag) = split_tag(path);
        let spelt = ["/", "./", "../"].iter().any(|start| path.starts_with(start)) || place == ".";
        let at = self.environment.directory.join(place);
        let is_archive = kind.unwrap_or(place.ends_with(".tar"));
        if kind.is_none() && !spelt && !place.ends_with(".tar") && !at.join("oci-layout").is_file() {
            return Ok(Target::Registry(text.parse()?));
        }
        Ok(Target::Layout(layout_target(at, is_archive), tag.map(str::to_owned)))
    }
}

fn layout_target(path: PathBuf, is_archive: bool) -> LayoutTarget {
    if is_archive {
        LayoutTarget::Archive(Destination::File(path), wire::stdout())
    } else {
        LayoutTarget::Directory(path)
    }
}

fn source(text: &str, found: locate::Found) -> Source {
    let name = found.names.first().map_or_else(|| text.to_owned(), ToString::to_string);
    Source { origin: Origin::local(&name, &found.descriptor, found.blobs), names: found.names }
}

/// Splits a tag from a path: what is behind the last `:`, if it could be one.
fn split_tag(path: &str) -> (&str, Option<&str>) {
    match path.rsplit_once(':') {
        Some((place, tag)) if !place.is_empty() && !tag.is_empty() && !tag.contains('/') => {
            (place, Some(tag))
        }
        _ => (path, None),
    }
}

/// Returns what an image is called in a layout: its own name with the layout's tag; one without a name is called
/// after the layout.
pub(super) fn layout_names(
    target: &LayoutTarget,
    tag: Option<&str>,
    source: &Source,
) -> Result<Vec<Reference>, Failure> {
    let Some(tag) = tag else { return Ok(source.names.iter().map(unpinned).collect()) };
    if let Some(name) = source.names.first() {
        return Ok(vec![name.with_tag(tag)?]);
    }
    let path = match target {
        LayoutTarget::Directory(path) | LayoutTarget::Archive(Destination::File(path), _) => path.as_path(),
        LayoutTarget::Archive(Destination::Stdout, _) => Path::new("image"),
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name: Reference =
        format!("localhost/{stem}:{tag}").parse().or(format!("localhost/image:{tag}").parse())?;
    Ok(vec![name])
}

/// A name in a layout is a tag, not a digest.
fn unpinned(name: &Reference) -> Reference {
    match name.tag() {
        Some(tag) => name.with_tag(tag).expect("a reference's own tag is a tag"),
        None => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_split_from_a_path() {
        assert_eq!(split_tag("a/b:1"), ("a/b", Some("1")));
        assert_eq!(split_tag("/a:1/b"), ("/a:1/b", None));
        assert_eq!(split_tag("a/b"), ("a/b", None));
        assert_eq!(split_tag("a:"), ("a:", None));
    }
}
