//! Layers of records as they are read: one that cannot be is remembered, and its records are not used again.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::blob::{BlobError, BlobSource};
use crate::oci::{Descriptor, Digest, Layer, descriptor_digest};

/// The layers that could not be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Broken(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    layers: BTreeSet<Digest>,
    /// How many of them were told of.
    told: usize,
}

impl Broken {
    /// Tells whether the layer could not be read.
    pub(super) fn has(&self, layer: &Layer) -> bool {
        self.seen(|seen| seen.layers.contains(&layer.digest()))
    }

    /// Tells whether a layer has become one that cannot be read since this was asked last.
    pub(super) fn has_news(&self) -> bool {
        self.seen(|seen| {
            let is_news = seen.layers.len() > seen.told;
            seen.told = seen.layers.len();
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
