//! SOCKET storage: where a stage's files live while it is built.
//!
//! A [`Storage`] makes [`Rootfs`]es; a [`Rootfs`] is one stage's tree, from its base's layers to its last step. What
//! a step changed comes out of [`Rootfs::seal_step`] as a [`ChangeSet`]. Overlay storage keeps each base layer as a
//! directory of its own, keyed by diff id and shared by builds; directory storage keeps one plain tree per stage.
//! Neither believes the diff id that an image claims for a layer before the layer was read.
//!
//! Everything below the work directory is removable at any time when no kiln runs; work directories of killed builds
//! are swept by the next. This module does not run anything in a root: that is `sandbox/`.

mod directory;
mod error;
mod overlay;
mod removal;
mod trees;
mod unpack;
mod verified;
mod workdir;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::layer::ChangeSet;
use crate::oci::Layer;
use crate::sandbox::{Entered, Ground, LaunchKind, try_overlay};
use crate::tree::RootDir;

pub use error::RootfsError;
pub use unpack::unpack_over;
pub use workdir::WorkDir;

/// Where stages' files live.
pub trait Storage: Send + Sync {
    /// Returns the name for people: `overlay` or `directory`.
    fn name(&self) -> &'static str;

    /// Makes a stage's tree out of `base`, lowest layer first; no layers mean an empty tree.
    fn create(&self, base: &[Layer], blobs: &dyn BlobSource) -> Result<Box<dyn Rootfs>, RootfsError>;
}

/// One stage's files. Dropping it removes them.
pub trait Rootfs: Send + Sync {
    /// Returns the merged view; writes through it belong to the current step. It is another one after each
    /// [`Rootfs::seal_step`], at the same path.
    fn root(&self) -> Arc<RootDir>;

    /// Returns what changed since the last call (since [`Storage::create`] for the first) and begins the next step.
    ///
    /// Paths in `exclude` are left out with all that is below them; `still` is what is known not to have been changed, other
    /// than by moving it away and back. No process may be writing to the root. The set reads the files while it is
    /// consumed: see [`Rootfs::must_drain`].
    fn seal_step(&mut self, exclude: &[PathBuf], still: &[PathBuf]) -> Result<ChangeSet, RootfsError>;

    /// Makes sure that nobody but the stage's own steps changed the files since the last step was sealed. What was
    /// found holds until a further step in place begins.
    fn check(&self) -> Result<(), RootfsError> {
        Ok(())
    }

    /// Makes an independent tree with the same content (`FROM stage`); the current step must be sealed.
    fn fork(&self) -> Result<Box<dyn Rootfs>, RootfsError>;

    /// Tells whether a [`ChangeSet`] must be consumed before the next step may write to the root.
    fn must_drain(&self) -> bool;
}

/// The storages there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageKind {
    /// Overlay mounts.
    Overlay {
        /// Whether overlay keeps its own marks in `user.*` attributes, as it must in a user namespace.
        userxattr: bool,
    },
    /// Plain directories.
    Directory,
}

/// Opens storage below `work_dir`, with unpacked layers shared by all builds in `trees_dir`.
///
/// Both are created if missing; for overlays they should be on the same file system. The build gets a directory of
/// its own in `work_dir`; what killed builds left there is removed in the background.
pub fn open(
    kind: StorageKind,
    work_dir: &Path,
    trees_dir: &Path,
    ground: &Arc<Ground>,
    reporter: Reporter,
) -> Result<Arc<dyn Storage>, RootfsError> {
    match kind {
        StorageKind::Overlay { userxattr } => {
            let storage = overlay::OverlayStorage::open(work_dir, trees_dir, userxattr, reporter)?;
            Ok(Arc::new(storage))
        }
        StorageKind::Directory => {
            Ok(Arc::new(directory::DirectoryStorage::open(work_dir, ground, reporter)?))
        }
    }
}

/// Removes the unpacked layers below `trees_dir` that no build is using; returns how many.
pub fn prune(trees_dir: &Path, reporter: &Reporter) -> Result<usize, RootfsError> {
    trees::prune(trees_dir, reporter)
}

/// Finds out which storage works with its files below `work_dir`, by mounting an overlay there, and says why.
///
/// Called after [`crate::sandbox::enter`]: the answer holds for the namespaces kiln is in, and the mounts must not
/// be seen by others.
pub fn choose(entered: &Entered, work_dir: &Path) -> (StorageKind, String) {
    if entered.launch != LaunchKind::Namespaces {
        return (
            StorageKind::Directory,
            "directory: without mount namespaces there are no overlays".to_owned(),
        );
    }
    let userxattr = entered.overlay_userxattr;
    let kinds = if userxattr { [true, false] } else { [false, true] };
    let mut problem = String::new();
    for userxattr in kinds {
        match try_overlay(work_dir, userxattr) {
            Ok(()) => return (StorageKind::Overlay { userxattr }, "overlay".to_owned()),
            Err(text) => problem = text,
        }
    }
    let hint = "overlays need the work directory on a volume or tmpfs";
    (StorageKind::Directory, format!("directory: {problem}; {hint}"))
}

#[cfg(test)]
mod tests;
