//! What can go wrong with an output.

use std::io;
use std::path::{Path, PathBuf};

use crate::blob::BlobError;
use crate::layer::LayerError;
use crate::oci::{Digest, ReferenceError};
use crate::registry::RegistryError;
use crate::space::explain;

/// A failure to put an image somewhere.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The directory that a file should appear in is not there.
    #[error("cannot write `{path}`: the directory `{directory}` does not exist")]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// A directory stands where a file should.
    #[error("cannot write `{path}`: it is a directory, expected a file name")]
    IsDirectory {
        /// The place.
        path: PathBuf,
    },
    /// A file stands where a directory should.
    #[error("cannot write into `{path}`: it is not a directory")]
    NotDirectory {
        /// The place.
        path: PathBuf,
    },
    /// A directory has other things in it.
    #[error("cannot write an OCI layout to `{path}`: the directory is not empty and not an OCI layout")]
    NotLayout {
        /// The place.
        path: PathBuf,
    },
    /// A layout's file is not what it should be.
    #[error("`{path}` is not a valid part of an OCI layout: {reason}")]
    BadLayout {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system refused a write.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused a read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Standard output was closed or refused.
    #[error("cannot write to standard output")]
    Stdout {
        /// The system's answer.
        source: io::Error,
    },
    /// A layer could not be read to be written elsewhere.
    #[error("cannot read blob `{digest}`")]
    Blob {
        /// The blob.
        digest: Digest,
        /// Why.
        source: BlobError,
    },
    /// Bytes broke off between a blob and its destination.
    #[error("cannot copy blob `{digest}`")]
    Copy {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The store refused.
    #[error("cannot keep the image in kiln's store")]
    Store(#[source] BlobError),
    /// A registry refused.
    #[error("cannot push `{reference}`")]
    Push {
        /// What was pushed.
        reference: String,
        /// Why.
        source: RegistryError,
    },
    /// A name cannot be written with its tag or digest.
    #[error("cannot name the image")]
    Name {
        /// Why.
        source: ReferenceError,
    },
    /// A push without a name.
    #[error("nothing to push to: the image has no name")]
    NoNames,
    /// The registry has another digest for what it was sent.
    #[error("the registry stored `{reference}` as `{found}`, expected `{expected}`")]
    OtherDigest {
        /// What was pushed.
        reference: String,
        /// The image's digest.
        expected: Digest,
        /// The registry's.
        found: Digest,
    },
    /// The files of the image could not be written as a tar.
    #[error("cannot archive the image's files")]
    Archive(#[source] LayerError),
    /// The engine did not hand over the files it was asked for.
    #[error("the build kept no files for the output `{output}`")]
    NoTree {
        /// The output.
        output: String,
    },
    /// A manifest or config is not one.
    #[error("blob `{digest}` is no valid {what}: {reason}")]
    BadDocument {
        /// The blob.
        digest: Digest,
        /// `manifest`, `image config`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An index without an image for the platform.
    #[error("no image for `{wanted}` in index `{digest}`, found {found}")]
    NoPlatform {
        /// The index.
        digest: Digest,
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

impl OutputError {
    /// Says that `path` could not be written.
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source: explain(path, source) }
    }

    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoDirectory { directory, .. } => {
                return Some(format!("create it first: `mkdir -p {}`", directory.display()));
            }
            Self::IsDirectory { .. } => {
                "name a file, or use `tar=false` to write an OCI layout into a directory"
            }
            Self::NotLayout { .. } => "choose an empty directory, a new one, or an OCI layout",
            Self::NoNames => "name the image with `-t registry.example.com/app`",
            Self::Write { source, .. } | Self::Stdout { source } | Self::Copy { source, .. } => {
                match source.kind() {
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                        "choose a place that this user can write to"
                    }
                    io::ErrorKind::BrokenPipe => "the reader of the pipe ended early",
                    _ => return None,
                }
            }
            Self::Blob { source, .. } | Self::Store(source) => return source.hint().map(str::to_owned),
            Self::Push { source, .. } => return source.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}
