//! Garbage collection: what may go, and why nothing that is needed does.
//!
//! A blob stays if
//!
//! 1. a tag or a manifest below `records/` (which is the build cache's) reaches it, through indexes, manifests, configs and layers;
//! 2. it was used or written less than a grace period ago, so that a build can use what the last one left; or
//! 3. it was used or written since the oldest living session began: whatever a running build wrote, read or was told to be there.
//!
//! "Used" is the blob's modification time, which [`Store::has`] and opening it set to now. Both that and the beginning of a
//! session are times of the file system's clock, so clocks of machines do not matter. Uses happen under the store's shared
//! lock and a collection under the exclusive one: no build can be told that a blob is there that is about to go. A
//! session that was killed has lost its lock and counts no more.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::lock::sweep;
use super::store::{BLOBS, INGEST, LOCK, check_directories, touch};
use super::{BlobError, Store, WHOLE_LIMIT_BYTES};
use crate::oci::Digest;
use crate::tree::regular::{self, NotRegular};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Manifests that are not blobs, each in a file of its own, and that need what they name as a tag does.
pub const RECORDS_DIRECTORY: &str = "records";

/// A manifest's JSON does not say so by its name; everything larger is a layer and not looked into.
const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

impl Store {
    /// Removes every blob that no tag reaches, that was not used for `grace`, and that no running build can need.
    ///
    /// What this `Store` itself has used stays as well.
    pub fn collect_garbage(&self, grace: Duration) -> Result<Collected, BlobError> {
        let guard = self.lock().exclusive()?;
        check_directories(self.path())?;
        let ingest = self.path().join(INGEST);
        let oldest_session = sweep(&ingest, &guard)?;
        let now = self.file_system_time()?;
        let mut keep_since = now.checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some(began) = oldest_session {
            keep_since = keep_since.min(began);
        }
        let reached = self.reached()?;
        let mut collected = Collected::default();
        let directory = self.path().join(BLOBS);
        let list = |error| BlobError::io("list", &directory, error);
        for entry in fs::read_dir(&directory).map_err(list)? {
            let entry = entry.map_err(list)?;
            if entry.file_name().to_str().is_some_and(|name| reached.contains(name)) {
                continue;
            }
            let path = entry.path();
            let metadata = entry.metadata().map_err(|error| BlobError::io("look at", &path, error))?;
            let used = metadata.modified().map_err(|error| BlobError::io("look at", &path, error))?;
            if !metadata.is_file() || used >= keep_since {
                continue;
            }
            fs::remove_file(&path).map_err(|error| BlobError::io("remove", &path, error))?;
            collected.blobs += 1;
            collected.bytes += metadata.len();
        }
        drop(guard);
        Ok(collected)
    }

    /// Asks the file system what time it is.
    fn file_system_time(&self) -> Result<SystemTime, BlobError> {
        let path = self.path().join(LOCK);
        touch(&path)
            .and_then(|()| fs::metadata(&path)?.modified())
            .map_err(|error| BlobError::io("touch", &path, error))
    }

    /// Returns the hex digests of all blobs that the index reaches.
    fn reached(&self) -> Result<BTreeSet<String>, BlobError> {
        let (index, _) = super::index::read_index(self.path())?;
        let mut reached = BTreeSet::new();
        let mut pending = VecDeque::from([Value::Object(index)]);
        pending.extend(self.records()?);
        while let Some(document) = pending.pop_front() {
            for digest in descriptors_in(&document) {
                if !reached.insert(digest.hex().to_owned()) {
                    continue;
                }
                if let Some(document) = self.manifest(&digest)? {
                    pending.push_back(document);
                }
            }
        }
        Ok(reached)
    }

    /// Reads the manifests below `records/`. One that cannot be read keeps nothing.
    fn records(&self) -> Result<Vec<Value>, BlobError> {
        let mut records = Vec::new();
        let mut pending = vec![self.path().join(RECORDS_DIRECTORY)];
        while let Some(directory) = pending.pop() {
            let list = |error| BlobError::io("list", &directory, error);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(list(error)),
            };
            for entry in entries {
                let entry = entry.map_err(list)?;
                if entry.file_type().map_err(list)?.is_dir() {
                    pending.push(entry.path());
                    continue;
                }
                let manifest = regular::read(&entry.path()).ok();
                records.extend(manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
            }
        }
        Ok(records)
    }

    /// Reads a blob that may be a manifest or an index; `None` for all others and for missing ones.
    fn manifest(&self, digest: &Digest) -> Result<Option<Value>, BlobError> {
        const { assert!(MANIFEST_LIMIT_BYTES <= WHOLE_LIMIT_BYTES) };
        let path = self.blob_path(digest);
        let read = || -> std::io::Result<Option<Vec<u8>>> {
            if fs::symlink_metadata(&path)?.len() > MANIFEST_LIMIT_BYTES {
                return Ok(None);
            }
            regular::read(&path).map(Some)
        };
        match read() {
            Ok(Some(bytes)) if bytes.first() == Some(&b'{') => Ok(serde_json::from_slice(&bytes).ok()),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Damaged: it leads to nothing.
            Err(error) if NotRegular::is(&error) => Ok(None),
            Err(error) => Err(BlobError::io("read", &path, error)),
        }
    }
}

/// Returns what a manifest or an index refers to. A config has none of these keys in this form.
fn descriptors_in(document: &Value) -> Vec<Digest> {
    let lists = ["manifests", "layers", "blobs"].into_iter().filter_map(|key| document.get(key)?.as_array());
    let singles = ["config", "subject"].into_iter().filter_map(|key| document.get(key));
    lists
        .flatten()
        .chain(singles)
        .filter_map(|descriptor| descriptor.get("digest")?.as_str()?.parse().ok())
        .collect()
}
