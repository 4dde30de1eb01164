//! Layers of records as they are read: one that cannot be, or is not what its record says, is remembered, and its
//! records are not used again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Found;
use crate::blob::{BlobError, BlobSource};
use crate::oci::{Descriptor, Digest, Layer, descriptor_digest};

/// The layers that could not be used.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    layers: BTreeSet<Digest>,
    /// How many of them were told of.
    told: usize,
    /// The layers of hits, with the files of their records where they are kiln's own.
    hits: BTreeMap<Digest, BTreeSet<PathBuf>>,
}

impl Broken {
    /// Tells whether the layer could not be used.
    pub(super) fn has(&self, layer: &Layer) -> bool {
        self.seen(|seen| seen.layers.contains(&layer.digest()))
    }

    /// Notes a hit: only what came from a cache can be given up.
    pub(super) fn note_hit(&self, found: &Found) {
        self.seen(|seen| {
            let files = seen.hits.entry(found.layer.digest()).or_default();
            files.extend(found.file.clone());
        });
    }

    /// Tells whether a layer has become one that cannot be used since this was asked last, the one `blamed` counted
    /// in, and removes the records of kiln's own that promise it.
    pub(super) fn drop_news(&self, blamed: Option<&Digest>) -> bool {
        self.seen(|seen| {
            seen.layers.extend(blamed.filter(|digest| seen.hits.contains_key(digest)).cloned());
            let is_news = seen.layers.len() > seen.told;
            seen.told = seen.layers.len();
            for file in seen.layers.iter().filter_map(|digest| seen.hits.get(digest)).flatten() {
                // One that stays is found wrong by the next build as well.
                let _ = std::fs::remove_file(file);
            }
            is_news
        })
    }

    /// Returns `blobs` with an eye on what cannot be read.
    pub(super) fn watch(&self, blobs: Arc<dyn BlobSource>) -> Arc<dyn BlobSource> {
        Arc::new(Watched { blobs, broken: self.clone() })
    }

    fn note(&self, digest: &Digest) {
        self.seen(|seen| seen.layers.insert(digest.clone()));
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Watched {
    blobs: Arc<dyn BlobSource>,
    broken: Broken,
}

impl BlobSource for Watched {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        // Records' descriptors were checked when they were found.
        let digest = descriptor_digest(descriptor);
        match self.blobs.open(descriptor) {
            Ok(reader) => Ok(Box::new(WatchedReader { reader, digest, broken: self.broken.clone() })),
            Err(error) => {
                self.broken.note(&digest);
                Err(error)
            }
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.blobs.contains(digest)
    }
}

struct WatchedReader {
    reader: Box<dyn Read + Send>,
    digest: Digest,
    broken: Broken,
}

impl Read for WatchedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.reader.read(buffer);
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.broken.note(&self.digest);
        }
        result
    }
}
