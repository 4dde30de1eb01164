//! Storage `directory`: one plain tree per stage, compared before and after each step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::trees::make_root_dir;
use super::unpack::unpack;
use super::workdir::{WorkDir, remove_tree};
use super::{Rootfs, RootfsError, Storage};
use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::layer::{ChangeSet, Whiteouts};
use crate::oci::Layer;
use crate::snapshot::{Index, diff, scan};
use crate::tree::{RootDir, copy_tree};

/// Plain directories.
pub(super) struct DirectoryStorage {
    build: Arc<WorkDir>,
    reporter: Reporter,
}

impl DirectoryStorage {
    pub(super) fn open(work_dir: &Path, reporter: Reporter) -> Result<Self, RootfsError> {
        Ok(Self { build: Arc::new(WorkDir::create(work_dir, &reporter)?), reporter })
    }
}

impl Storage for DirectoryStorage {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn create(&self, base: &[Layer], blobs: &dyn BlobSource) -> Result<Box<dyn Rootfs>, RootfsError> {
        let mut rootfs = DirectoryRootfs::empty(&self.build)?;
        for layer in base {
            unpack(layer, blobs, &rootfs.root, Whiteouts::Apply, &self.reporter)?;
        }
        rootfs.begin()?;
        Ok(Box::new(rootfs))
    }
}

struct DirectoryRootfs {
    build: Arc<WorkDir>,
    dir: PathBuf,
    root: Arc<RootDir>,
    /// The state at the end of the last step.
    index: Arc<Index>,
}

impl DirectoryRootfs {
    fn empty(build: &Arc<WorkDir>) -> Result<Self, RootfsError> {
        let dir = build.subdir()?;
        let path = dir.join("root");
        make_root_dir(&path)?;
        let root = Arc::new(RootDir::open(&path).map_err(RootfsError::io("open", &path))?);
        Ok(Self { build: Arc::clone(build), dir, root, index: Arc::default() })
    }

    /// Notes the state from which the first step starts.
    fn begin(&mut self) -> Result<(), RootfsError> {
        let index = scan(&self.root, &[]).map_err(RootfsError::io("scan", self.root.path()))?;
        self.index = Arc::new(index);
        Ok(())
    }
}

impl Rootfs for DirectoryRootfs {
    fn root(&self) -> Arc<RootDir> {
        Arc::clone(&self.root)
    }

    fn seal_step(&mut self, exclude: &[PathBuf]) -> Result<ChangeSet, RootfsError> {
        let failed = |error| RootfsError::io("scan", self.root.path())(error);
        let mut after = self.index.rescan(&self.root, exclude).map_err(failed)?;
        after.complete(&self.root).map_err(failed)?;
        let after = Arc::new(after);
        let before = std::mem::replace(&mut self.index, Arc::clone(&after));
        Ok(diff(before, after, Arc::clone(&self.root)))
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, RootfsError> {
        let mut fork = Self::empty(&self.build)?;
        copy_tree(&self.root, "", &fork.root, "").map_err(RootfsError::io("copy to", fork.root.path()))?;
        fork.begin()?;
        Ok(Box::new(fork))
    }

    fn must_drain(&self) -> bool {
        true
    }
}

impl Drop for DirectoryRootfs {
    fn drop(&mut self) {
        remove_tree(&self.dir);
    }
}
