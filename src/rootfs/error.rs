//! What can go wrong with a stage's files.

use std::io;
use std::path::{Path, PathBuf};

use crate::layer::LayerError;
use crate::oci::{DiffId, Digest};
use crate::space::explain;

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
    /// A base layer cannot be read.
    #[error("cannot read layer `{digest}`")]
    Read {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A base layer cannot be unpacked.
    #[error("cannot unpack layer `{digest}`")]
    Unpack {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: Box<LayerError>,
    },
    /// A base layer's content is not what the image's config says.
    #[error("layer `{digest}` has the wrong content: expected diff id `{expected}`, found `{found}`")]
    DiffIdMismatch {
        /// The layer's blob.
        digest: Digest,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        found: Digest,
    },
    /// A hard link of a base layer leads to a file that no layer below has.
    #[error("layer `{digest}` is broken: `{}` is a hard link to `{}`, which does not exist", name.display(), target.display())]
    DanglingLink {
        /// The layer's blob.
        digest: Digest,
        /// The link.
        name: PathBuf,
        /// What it should lead to.
        target: PathBuf,
    },
    /// A step in place changed a tree that is not its stage's.
    #[error("a step of another stage changed `{}` in the files of this one", Path::new("/").join(path).display())]
    Foreign {
        /// What is not as the stage's own steps left it, relative to the tree's root.
        path: PathBuf,
    },
    /// A step in place copied what of a volume was put aside for it.
    #[error("the step copied files of a volume of the container, which wait in `{}` meanwhile, to `/{}`", name.display(), path.display())]
    PutAside {
        /// The name of the directory.
        name: PathBuf,
        /// Where the step has it.
        path: PathBuf,
    },
    /// A tree is to be forked in the middle of a step.
    #[error("cannot fork a tree whose last step is not sealed")]
    NotSealed,
}

impl RootfsError {
    /// Says that `action` on `path` failed.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, source: explain(&path, source), path }
    }
}
