//! A cache whose layers are read before a record counts (`--cache-from …,verify=true`).
//!
//! Without it a record is taken at its word for as long as nobody reads its layer: a hit transfers none. Here the layer
//! must have the digest, the diff id and the well-formed names that the record promises, or there is no hit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Cache, CacheError, Entry, Found, Key, Record, Removed, SharedCache, StepName};
use crate::blob::BlobSource;
use crate::layer::{LayerError, check_layer};
use crate::oci::{DiffId, Digest};
use crate::stream::auto_decoder;

/// Reads every layer that `cache` promises, each once.
pub fn open_verified(cache: SharedCache) -> SharedCache {
    Arc::new(Verified { cache, known: Mutex::default() })
}

#[derive(Debug)]
struct Verified {
    cache: SharedCache,
    /// The layers that were read, and what is wrong with them.
    known: Mutex<HashMap<(Digest, DiffId), Option<String>>>,
}

impl Verified {
    /// Returns what is wrong with the layer of a hit.
    fn fault(&self, found: &Found, blobs: &dyn BlobSource) -> Option<String> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = (found.layer.digest(), found.layer.diff_id.clone());
        if let Some(fault) = known().get(&layer) {
            return fault.clone();
        }
        let read = || -> Result<(), LayerError> {
            let reader = blobs.open(&found.layer.descriptor)?;
            let (_, tar) = auto_decoder(reader).map_err(|source| LayerError::Archive { source })?;
            check_layer(tar, &found.layer.diff_id)
        };
        let fault = read().err().map(|error| crate::event::with_causes(&error));
        known().insert(layer, fault.clone());
        fault
    }
}

impl Cache for Verified {
    fn describe(&self) -> String {
        self.cache.describe()
    }

    fn find(&self, key: &Key) -> Result<Option<Found>, CacheError> {
        let Some(found) = self.cache.find(key)? else { return Ok(None) };
        let fault = found.blobs.as_ref().and_then(|blobs| self.fault(&found, &**blobs));
        match fault {
            None => Ok(Some(found)),
            Some(fault) => Err(CacheError::Refused {
                place: self.describe(),
                name: key.to_string(),
                reason: format!("its layer `{}`: {fault}", found.layer.digest()),
            }),
        }
    }

    fn newest(&self, step: &StepName) -> Result<Option<Record>, CacheError> {
        self.cache.newest(step)
    }

    fn put(&self, record: &Record, layer: &dyn BlobSource) -> Result<(), CacheError> {
        self.cache.put(record, layer)
    }

    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        self.cache.entries()
    }

    fn remove(&self, entries: &[Entry]) -> Result<Removed, CacheError> {
        self.cache.remove(entries)
    }
}
