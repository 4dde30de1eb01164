//! What can go wrong with layers.

use std::io;
use std::path::PathBuf;

use crate::blob::BlobError;
use crate::oci::{DiffId, Digest};

/// A failure to write or to apply a layer. Paths are inside the tree or the archive.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file of the tree could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file changed while it was read.
    #[error("`{path}` changed while it was read: expected {expected_bytes} bytes, found {found_bytes}")]
    Changed {
        /// Which.
        path: PathBuf,
        /// Its length when it was listed.
        expected_bytes: u64,
        /// Its length when it was read.
        found_bytes: u64,
    },
    /// A layer has no way to say this.
    #[error("`{path}` cannot be in a layer: {problem}")]
    Unrepresentable {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The tar, compressed or not, could not be written on.
    #[error("cannot write the layer")]
    Write {
        /// The writer's answer.
        source: io::Error,
    },
    /// The archive could not be read.
    #[error("cannot read the archive")]
    Archive {
        /// The reader's answer: a cut download, a wrong digest, damaged compression.
        source: io::Error,
    },
    /// The archive is not a well-formed tar, or asks for more than any tar may.
    #[error("damaged archive at byte {offset}: {problem}")]
    Malformed {
        /// Where its header begins.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// An entry has a name or a link that leads out of the tree.
    #[error("archive entry `{entry}` {problem}")]
    Hostile {
        /// The entry's name as in the archive.
        entry: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Its content is not what its diff id says.
    #[error("it has the wrong content: expected diff id `{expected}`, found `{found}`")]
    WrongContent {
        /// What was promised.
        expected: DiffId,
        /// What it is.
        found: Digest,
    },
    /// A layer of a cache.
    #[error("layer `{digest}` cannot be used")]
    OfCache {
        /// The layer's blob.
        digest: Digest,
        /// What is wrong with it.
        source: Box<LayerError>,
    },
    /// An entry could not be put into the tree.
    #[error("cannot {action} `{entry}`")]
    Apply {
        /// What was tried, as a verb.
        action: &'static str,
        /// The entry's path in the tree.
        entry: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl LayerError {
    /// Tells whether a layer that was read is at fault, and not the machine that it was to be put on.
    pub fn is_content_fault(&self) -> bool {
        use io::ErrorKind::{OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Archive { .. }
            | Self::Malformed { .. }
            | Self::Hostile { .. }
            | Self::WrongContent { .. }
            | Self::Blob(_) => true,
            Self::OfCache { source, .. } => source.is_content_fault(),
            Self::Apply { source, .. } => {
                !matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | OutOfMemory)
            }
            Self::Read { .. } | Self::Changed { .. } | Self::Unrepresentable { .. } | Self::Write { .. } => {
                false
            }
        }
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Blob(error) => error.hint(),
            Self::Changed { .. } => Some("nothing may write to the files while they are being packed"),
            _ => None,
        }
    }
}
