//! What differs between two images: their documents, their layers, and the files these come to.
//!
//! Layers that both images have are not read, unless a file is only told by them; the others are streamed, and
//! what is kept of a file is its metadata and its digest. So memory goes with the number of paths in the
//! layers that differ, whatever their size. Nothing is unpacked, and no name in a layer is trusted with anything
//! but being shown. Why two builds differ is a guess of `cause`, from names and bytes alone.

mod cause;
mod contrast;
mod document;
mod listing;
mod merged;
mod pair;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub use cause::{Cause, Evidence, usual_cause};
pub use contrast::{Contrast, contrast};

use crate::blob::{BlobError, BlobSource};
use crate::layer::LayerError;
use crate::oci::{Digest, Image, Layer};

/// An image, and where its layers are read.
#[derive(Clone)]
pub struct Subject {
    /// The image.
    pub image: Image,
    /// Has its layers.
    pub blobs: Arc<dyn BlobSource>,
}

/// A value that differs; `None` where one side has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// What it is called: `config.Env.PATH`, `mode`.
    pub name: String,
    /// The first image's.
    pub before: Option<String>,
    /// The second image's.
    pub after: Option<String>,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// Which, relative to the root.
    pub path: PathBuf,
    /// Who has it.
    pub side: Side,
    /// What differs; of a path that only one side has, what it is.
    pub fields: Vec<FieldChange>,
}

/// Which of the two images has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first alone: it was removed.
    First,
    /// The second alone: it was added.
    Second,
    /// Both, differently.
    Both,
}

/// How two layers that stand in each other's place compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The same blob.
    Same,
    /// The same tar in another compression.
    Compression,
    /// The same entries in another order or another form of tar.
    Form,
    /// Entries differ.
    Entries,
    /// There is only one of them.
    Alone(Side),
}

/// A place in the stack of layers.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerChange {
    /// The first image's layer here, and its position from 0.
    pub before: Option<(usize, Layer)>,
    /// The second image's.
    pub after: Option<(usize, Layer)>,
    /// The instruction that made it, as the history has it.
    pub created_by: String,
    /// How they compare.
    pub likeness: Likeness,
    /// Entries that differ, as they stand in the layers: removals are names that begin with `.wh.`.
    pub entries: Vec<PathChange>,
}

/// Everything that differs between two images.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDiff {
    /// Whether the manifests are the same, byte for byte.
    pub same: bool,
    /// Fields of the manifest: media types and annotations.
    pub manifest: Vec<FieldChange>,
    /// Fields of the config but history and layers.
    pub config: Vec<FieldChange>,
    /// Lines of the history.
    pub history: Vec<FieldChange>,
    /// All layers, also those that are the same.
    pub layers: Vec<LayerChange>,
    /// Paths of the files that the layers come to.
    pub paths: Vec<PathChange>,
}

/// An image that cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A layer cannot be had.
    #[error("cannot read the layer `{digest}`")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        source: BlobError,
    },
    /// A layer cannot be understood.
    #[error("cannot read the layer `{digest}`")]
    Layer {
        /// Which.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
}

/// Compares two images.
pub fn compare_images(first: &Subject, second: &Subject) -> Result<ImageDiff, CompareError> {
    let layers = pair::layers(first, second)?;
    let paths = merged::paths(first, second, &layers)?;
    Ok(ImageDiff {
        same: first.image.digest() == second.image.digest(),
        manifest: document::manifest(&first.image, &second.image),
        config: document::config(&first.image, &second.image),
        history: document::history(&first.image, &second.image),
        layers: layers.into_iter().map(|pair| pair.change).collect(),
        paths,
    })
}

impl PathChange {
    /// Returns the field of this name, if it differs.
    pub fn field(&self, name: &str) -> Option<&FieldChange> {
        self.fields.iter().find(|field| field.name == name)
    }
}
