//! What a cache keeps of a step, and what a hit tells of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::artifact::Header;
use super::entry::Entry;
use super::inputs::Inputs;
use super::key::{Chain, Key, StepName};
use crate::blob::BlobSource;
use crate::oci::{Digest, Layer, Reference, descriptor_digest};
use crate::stream::Compression;

/// What a step with a key made, and what went into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What went into the step, as a hash.
    pub key: Key,
    /// Which step it was.
    pub step: StepName,
    /// The instruction, for people.
    pub instruction: String,
    /// The tree the step worked on.
    pub parent: Chain,
    /// The trees it read from, by name: stages, images.
    pub sources: Vec<(String, Chain)>,
    /// What it made.
    pub layer: Layer,
    /// How the layer is compressed: an image that wants it otherwise has it compressed anew.
    pub compression: Compression,
    /// When, in seconds since 1970.
    pub created_seconds: i64,
    /// What went into the key.
    pub inputs: Inputs,
}

/// A hit: what one request tells of a record.
#[derive(Clone)]
pub struct Found {
    /// The key that was looked for.
    pub key: Key,
    /// The tree the step worked on.
    pub parent: Chain,
    /// The trees it read from, by name.
    pub sources: Vec<(String, Chain)>,
    /// What it made.
    pub layer: Layer,
    /// How the layer is compressed.
    pub compression: Compression,
    /// When, in seconds since 1970.
    pub created_seconds: i64,
    /// The cache it was found in, for people.
    pub from: String,
    /// The number of that cache among the build's sources.
    pub source: usize,
    /// Where the layer is read from, verified; `None` if it is in kiln's own store.
    pub blobs: Option<Arc<dyn BlobSource>>,
    /// The repository the layer can be mounted from.
    pub repository: Option<Reference>,
    /// The file that has the record, if it is one of kiln's own: it goes once the record turns out to be wrong.
    pub file: Option<PathBuf>,
}

impl Found {
    /// Tells whether another record says the same of the same trees, wherever it is.
    pub fn is_same(&self, other: &Self) -> bool {
        let chains = |found: &Self| found.sources.iter().map(|(_, chain)| chain.clone()).collect::<Vec<_>>();
        self.parent == other.parent
            && self.layer.diff_id == other.layer.diff_id
            && self.layer.descriptor.digest() == other.layer.descriptor.digest()
            && chains(self) == chains(other)
    }

    /// Tells whether a record says the same of the same trees, however its layer is compressed.
    pub(super) fn agrees(&self, record: &Record) -> bool {
        let chains = |sources: &[(String, Chain)]| sources.iter().map(|(_, c)| c.clone()).collect::<Vec<_>>();
        self.parent == record.parent
            && self.layer.diff_id == record.layer.diff_id
            && chains(&self.sources) == chains(&record.sources)
    }
}

impl Header {
    /// Returns the hit that this header makes in the cache called `from`.
    pub(super) fn found(self, from: String) -> Found {
        let Self { key, parent, sources, layer, compression, created_seconds, .. } = self;
        Found {
            key,
            parent,
            sources,
            layer,
            compression,
            created_seconds,
            from,
            source: 0,
            blobs: None,
            repository: None,
            file: None,
        }
    }
}

impl Header {
    /// Returns the line that a list has for this record.
    pub(super) fn entry(self, name: String, manifest: Option<Digest>, used_seconds: Option<i64>) -> Entry {
        let blobs = [&self.layer.descriptor, &self.config];
        Entry {
            name,
            key: Some(self.key),
            manifest,
            blobs: blobs.iter().map(|blob| (descriptor_digest(blob), blob.size())).collect(),
            created_seconds: self.created_seconds,
            used_seconds,
            instruction: self.instruction,
        }
    }
}

impl Entry {
    /// Returns the line of a record that cannot be read.
    pub(super) fn unreadable(name: String, manifest: Option<Digest>, reason: &str) -> Self {
        let instruction = format!("({reason})");
        Self {
            name,
            key: None,
            instruction,
            manifest,
            blobs: Vec::new(),
            created_seconds: 0,
            used_seconds: None,
        }
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Found");
        shown.field("key", &self.key).field("layer", &self.layer.descriptor.digest().to_string());
        shown.field("from", &self.from).finish_non_exhaustive()
    }
}
