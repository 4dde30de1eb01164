//! Garbage collection.

use std::time::Duration;

use super::{BlobError, Store};

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes every blob that no tag reaches, that is older than `grace`, and that no running build can need.
    pub fn collect_garbage(&self, grace: Duration) -> Result<Collected, BlobError> {
        let _ = grace;
        todo!()
    }
}
