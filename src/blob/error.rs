//! What can go wrong with blobs.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::oci::Digest;
use crate::space::explain;

/// A failure to read or keep blobs. Paths are of this machine, digests name the blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The place is not writable.
    #[error("`{path}` is not writable")]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The blob is not there.
    #[error("blob `{digest}` is not in `{place}`")]
    NotFound {
        /// Which blob.
        digest: Digest,
        /// Where it was looked for.
        place: String,
    },
    /// The bytes are not those that the digest or the descriptor promises.
    #[error("blob `{digest}` in `{place}` is damaged: {problem}")]
    Damaged {
        /// Which blob.
        digest: Digest,
        /// Where it is.
        place: String,
        /// Expected against found.
        problem: String,
    },
    /// A blob that is read into memory is larger than such blobs may be.
    #[error(
        "blob `{digest}` is too large to read at once: expected at most {limit_bytes} bytes, found {size_bytes}"
    )]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// The most that is accepted.
        limit_bytes: u64,
    },
    /// A descriptor's digest is not a sha256 digest.
    #[error("unsupported digest `{digest}`: expected `sha256:` and 64 lower-case hex digits")]
    Digest {
        /// The digest as written.
        digest: String,
    },
    /// The directory or archive is not an OCI image layout.
    #[error("`{path}` is not an OCI image layout: {problem}")]
    NotALayout {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The store's list of tags means nothing.
    #[error("`{path}` is broken: {problem}")]
    BrokenIndex {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A source that is not a file system failed.
    #[error("cannot read blob `{digest}` from `{place}`")]
    Source {
        /// Which blob.
        digest: Digest,
        /// The source's name: a registry, a URL.
        place: String,
        /// The source's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl BlobError {
    /// Says which `action` failed on `path`, and tells a read-only place from the rest.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let source = explain(path, source);
        let path = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::ROFS) => Self::ReadOnly { path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("give kiln the right to it, or choose another directory for the store")
            }
            Self::ReadOnly { .. } => Some("choose a writable directory for the store"),
            Self::Damaged { .. } => {
                Some("run again: a damaged blob of the store is dropped, and fetched or built anew")
            }
            Self::BrokenIndex { .. } => Some(
                "put a good one back, or remove it: then the images in the store have no names any more, and the next \
                 `kiln prune` removes them",
            ),
            Self::NotALayout { .. } => Some(
                "an image layout has `oci-layout` and `index.json` at its top; compressed archives must be unpacked first",
            ),
            _ => None,
        }
    }
}
