//! SOCKET output: where a finished image goes.
//!
//! An [`Output`] is told of layers as they become ready (it may begin to move them) and is handed the
//! whole image at the end. Invariants: no name points at an image before every byte of it is in place;
//! files appear under their name only when they are complete; what is written depends on the image alone.
//! An output never changes the image: its digest is the same wherever it goes.

mod archive;
mod error;
mod file;
mod image;
mod layout;
mod registry;
mod rootfs;
mod store;
mod whole;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

pub use error::OutputError;
pub use file::write_result;
pub use image::{copy_blob, read_image, select_manifest};
pub use whole::{LayoutTarget, Whole, write_whole};

use crate::blob::{BlobSource, Growing, Store};
use crate::event::Reporter;
use crate::oci::{Digest, Image, Layer, Reference};
use crate::registry::Client;
use crate::tree::RootDir;

/// Somewhere an image can be put.
pub trait Output: Send + Sync {
    /// Returns what this is, for people: `registry`, `oci layout app.tar`.
    fn name(&self) -> String;

    /// Waits until it is known that the destination will take the image, as far as that can be known. Called before
    /// the first step, beside the making ready of base images.
    fn confirm(&self) -> Result<(), OutputError> {
        Ok(())
    }

    /// Hears that a layer is complete in the store; may begin to move it. Best effort: what fails here is
    /// done again by [`Output::commit`].
    fn layer_ready(&self, layer: &Layer);

    /// Hears of a layer that is large and not complete yet; may begin to move it, as best effort. The same layer comes
    /// to [`Output::layer_ready`] when it is complete.
    fn layer_growing(&self, growing: &Arc<Growing>) {
        let _ = growing;
    }

    /// Returns whether [`Output::commit`] needs the files themselves.
    fn needs_tree(&self) -> bool;

    /// Puts the image there, and then its names.
    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError>;
}

/// What a build made.
#[derive(Clone)]
pub struct BuildResult {
    /// The image.
    pub image: Image,
    /// What to call it.
    pub names: Vec<Reference>,
    /// Has every layer of the image.
    pub blobs: Arc<dyn BlobSource>,
    /// The files, where an output asked for them.
    pub tree: Option<Arc<RootDir>>,
    /// Repositories that hold some of the layers already (the base images'): a registry may take the
    /// blobs from there.
    pub mount_from: Vec<Reference>,
}

/// What an output did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The output's name.
    pub name: String,
    /// The manifest's digest; a root filesystem has none.
    pub digest: Option<Digest>,
    /// Bytes of manifest, config and layers; of a root filesystem, its files' or its archive's bytes.
    pub size_bytes: u64,
    /// Names that now point at the image, in full.
    pub tags: Vec<String>,
    /// Where it is: a path, a registry's host, `stdout`.
    pub location: String,
}

/// Which output, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputSpec {
    /// The registries that the image's names say; `names` are used instead of the build's where given.
    Registry {
        /// Names of its own.
        names: Vec<Reference>,
        /// How to push.
        options: PushOptions,
    },
    /// An OCI image layout (image-spec, `image-layout.md`) in a directory; merged into one that exists.
    OciDirectory {
        /// The directory.
        path: PathBuf,
        /// Names of its own.
        names: Vec<Reference>,
    },
    /// An OCI image layout in a tar.
    OciArchive {
        /// The file.
        destination: Destination,
        /// Names of its own.
        names: Vec<Reference>,
    },
    /// An archive for `docker load`, which is an OCI layout too.
    DockerArchive {
        /// The file.
        destination: Destination,
        /// Names of its own.
        names: Vec<Reference>,
    },
    /// The image's files below a directory.
    RootfsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The image's files in a tar.
    RootfsArchive {
        /// The file.
        destination: Destination,
    },
    /// kiln's own store.
    Store {
        /// Names of its own.
        names: Vec<Reference>,
    },
}

/// How an image is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushOptions {
    /// Pushes without moving any tag.
    pub by_digest: bool,
    /// Asks before the build whether the registry will take the image.
    pub check: bool,
    /// Counts a tag that exists and cannot be moved as pushed, with a warning.
    pub keep_immutable: bool,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { by_digest: false, check: true, keep_immutable: false }
    }
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into a file, which appears when it is complete.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

/// Gives the stream that [`Destination::Stdout`] means.
pub type OpenStdout = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

/// What outputs are made of.
#[derive(Clone)]
pub struct OutputParts {
    /// For registries.
    pub client: Client,
    /// kiln's store, where the layers of a build become ready.
    pub store: Arc<Store>,
    /// Hears of progress.
    pub reporter: Reporter,
    /// Standard output.
    pub stdout: OpenStdout,
    /// What the image will be called, as far as it is known: where early uploads go.
    pub names: Vec<Reference>,
}

/// Opens an output. Destinations are looked at now, so that a build need not run to its end to learn that
/// its directory is missing.
pub fn open(spec: &OutputSpec, parts: &OutputParts) -> Result<Box<dyn Output>, OutputError> {
    Ok(match spec {
        OutputSpec::Registry { names, options } => {
            Box::new(registry::RegistryOutput::open(parts, names, *options)?)
        }
        OutputSpec::OciDirectory { path, names } => Box::new(layout::LayoutDirectory::open(path, names)?),
        OutputSpec::OciArchive { destination, names } => {
            Box::new(archive::ImageArchive::open(archive::Kind::Oci, destination, names, parts)?)
        }
        OutputSpec::DockerArchive { destination, names } => {
            Box::new(archive::ImageArchive::open(archive::Kind::Docker, destination, names, parts)?)
        }
        OutputSpec::RootfsDirectory { path } => Box::new(rootfs::RootfsDirectory::open(path)?),
        OutputSpec::RootfsArchive { destination } => {
            Box::new(rootfs::RootfsArchive::open(destination, parts)?)
        }
        OutputSpec::Store { names } => Box::new(store::StoreOutput::open(&parts.store, names)),
    })
}

impl BuildResult {
    /// Returns `own` where an output has names of its own, else the build's.
    fn names_or<'a>(&'a self, own: &'a [Reference]) -> &'a [Reference] {
        if own.is_empty() { &self.names } else { own }
    }

    /// Returns the image's bytes in all: manifest, config and layers.
    fn size_bytes(&self) -> u64 {
        let layers: u64 = self.image.layers.iter().map(|layer| layer.descriptor.size()).sum();
        self.image.descriptor.size() + self.image.config_descriptor.size() + layers
    }
}

#[cfg(test)]
mod push_tests;
#[cfg(test)]
mod tests;
