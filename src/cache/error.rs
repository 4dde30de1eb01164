//! What can go wrong with a cache. None of it stops a build.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::BlobError;
use crate::registry::RegistryError;
use crate::space::explain;

/// A failure to read or write a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A record that must not be used.
    #[error("record `{name}` of cache `{place}` is refused: {reason}")]
    Refused {
        /// The cache.
        place: String,
        /// The record: its tag or file.
        name: String,
        /// Why, as expected against found.
        reason: String,
    },
    /// The registry, or the way to it.
    #[error("cache `{place}` cannot be used")]
    Registry {
        /// The cache.
        place: String,
        /// What happened.
        source: Arc<RegistryError>,
    },
    /// A blob.
    #[error("cache `{place}` cannot be used")]
    Blob {
        /// The cache.
        place: String,
        /// What happened.
        source: BlobError,
    },
    /// The registry removes nothing.
    #[error("the registry of cache `{place}` does not let manifests be deleted")]
    NoDeletion {
        /// The cache.
        place: String,
    },
    /// The file system.
    #[error("cannot {action} `{path}` of the cache")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl CacheError {
    /// Says which `action` failed on `path`.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: explain(path, source) }
    }

    /// Tells whether only one record is bad, and the cache itself works.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Returns the error with its causes, on one line.
    pub fn full(&self) -> String {
        crate::event::with_causes(self)
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => Some(
                "the step runs instead, and its record is written anew; who else writes to this cache?"
                    .to_owned(),
            ),
            Self::Registry { source, .. } => source.hint(),
            Self::Blob { source, .. } => source.hint().map(str::to_owned),
            Self::NoDeletion { .. } => Some(
                "allow it in the registry (for docker's: REGISTRY_STORAGE_DELETE_ENABLED=true), or let its own \
                 retention rules remove old tags"
                    .to_owned(),
            ),
            Self::Io { .. } => None,
        }
    }
}
