//! What can go wrong with a stage's files.

use std::io;
use std::path::PathBuf;

use crate::oci::Digest;

/// An error of storage.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The system refused something.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was being done: `create`, `mount`, …
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A base layer cannot be unpacked.
    #[error("cannot unpack layer `{digest}`")]
    Unpack {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A base layer's content is not what the image's config says.
    #[error("layer `{digest}` has the wrong content: expected diff id `{expected}`, found `{found}`")]
    DiffIdMismatch {
        /// The layer's blob.
        digest: Digest,
        /// What the config says.
        expected: String,
        /// What it is.
        found: String,
    },
}
