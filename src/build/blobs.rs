//! Every blob of a build under one roof: the store's own, and those of base images wherever they are.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use crate::blob::{BlobError, BlobSource, Store, StoreWriter};
use crate::oci::{Descriptor, Digest, Layer, descriptor_digest};

/// The store, then the places base images come from.
pub(super) struct Blobs {
    store: Arc<Store>,
    /// Whether what is read from elsewhere is kept in the store.
    keep: bool,
    elsewhere: Mutex<HashMap<Digest, Arc<dyn BlobSource>>>,
}

impl Blobs {
    pub(super) fn new(store: Arc<Store>, keep: bool) -> Self {
        Self { store, keep, elsewhere: Mutex::default() }
    }

    /// Says that `layers` are to be had from `source`.
    pub(super) fn register(&self, layers: &[Layer], source: &Arc<dyn BlobSource>) {
        let mut elsewhere = self.elsewhere.lock().expect("no panic while blobs are registered");
        for layer in layers {
            elsewhere.entry(layer.digest()).or_insert_with(|| source.clone());
        }
    }

    fn source(&self, digest: &Digest) -> Option<Arc<dyn BlobSource>> {
        self.elsewhere.lock().expect("no panic while blobs are registered").get(digest).cloned()
    }

    /// Brings the blobs of `layers` into the store.
    pub(super) fn fetch(&self, layers: &[Layer]) -> Result<(), BlobError> {
        for layer in layers {
            let digest = layer.digest();
            if self.store.has(&digest) {
                continue;
            }
            let Some(source) = self.source(&digest) else { continue };
            let mut reader = source.open(&layer.descriptor)?;
            let mut writer = self.store.writer()?;
            copy(&mut reader, &mut writer, &digest)?;
            writer.commit(Some(&layer.descriptor))?;
        }
        Ok(())
    }
}

fn copy(reader: &mut dyn Read, writer: &mut StoreWriter, digest: &Digest) -> Result<(), BlobError> {
    io::copy(&mut io::BufReader::with_capacity(256 * 1024, reader), writer).map(drop).map_err(|e| {
        BlobError::Source { digest: digest.clone(), place: "the base image".to_owned(), source: e.into() }
    })
}

impl BlobSource for Blobs {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = descriptor_digest(descriptor);
        match self.source(&digest) {
            Some(source) if !self.store.has(&digest) => {
                let reader = source.open(descriptor)?;
                if !self.keep {
                    return Ok(reader);
                }
                let writer = Some(self.store.writer()?);
                Ok(Box::new(Keeping { reader, writer, descriptor: descriptor.clone() }))
            }
            _ => BlobSource::open(&*self.store, descriptor),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        if self.store.has(digest) {
            return Ok(true);
        }
        self.source(digest).map_or(Ok(false), |source| source.contains(digest))
    }
}

/// Hands on what it reads, and keeps it in the store once it was read to its end.
struct Keeping {
    reader: Box<dyn Read + Send>,
    writer: Option<StoreWriter>,
    descriptor: Descriptor,
}

impl Read for Keeping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            if let Some(writer) = self.writer.take() {
                writer.commit(Some(&self.descriptor)).map_err(io::Error::other)?;
            }
        } else if let Some(writer) = &mut self.writer {
            writer.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}
