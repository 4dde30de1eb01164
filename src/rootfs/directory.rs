//! Storage `directory`: one plain tree per stage, compared before and after each step.
//!
//! Steps in place can reach the trees of other stages. So a tree is made, scanned and copied only while none of them
//! runs, and is looked at anew before it is used after one: its index is in memory, where no step can reach it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::trees::make_root_dir;
use super::unpack::unpack;
use super::workdir::{WorkDir, remove_tree};
use super::{Rootfs, RootfsError, Storage};
use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::layer::{ChangeSet, Whiteouts};
use crate::oci::Layer;
use crate::sandbox::{Ground, is_put_aside};
use crate::snapshot::{Index, diff, scan};
use crate::tree::{Metadata, RootDir, copy_tree};

/// Plain directories.
pub(super) struct DirectoryStorage {
    shared: Arc<Shared>,
    reporter: Reporter,
}

/// What all trees of a build have in common.
struct Shared {
    build: WorkDir,
    ground: Arc<Ground>,
}

impl DirectoryStorage {
    pub(super) fn open(
        work_dir: &Path,
        ground: &Arc<Ground>,
        reporter: Reporter,
    ) -> Result<Self, RootfsError> {
        let build = WorkDir::create(work_dir, &reporter)?;
        Ok(Self { shared: Arc::new(Shared { build, ground: Arc::clone(ground) }), reporter })
    }
}

impl Storage for DirectoryStorage {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn create(&self, base: &[Layer], blobs: &dyn BlobSource) -> Result<Box<dyn Rootfs>, RootfsError> {
        let _held = self.shared.ground.hold();
        let mut rootfs = DirectoryRootfs::empty(&self.shared)?;
        for layer in base {
            unpack(layer, blobs, &rootfs.root, Whiteouts::Apply, &self.reporter)?;
        }
        rootfs.begin()?;
        Ok(Box::new(rootfs))
    }
}

struct DirectoryRootfs {
    shared: Arc<Shared>,
    dir: PathBuf,
    root: Arc<RootDir>,
    /// The state at the end of the last step.
    index: Arc<Index>,
    /// The root directory itself at that time.
    top: Metadata,
    /// What the index says nothing of.
    excluded: Vec<PathBuf>,
    /// How many steps in place had begun when the tree was last seen to be as the index says.
    seen_steps: AtomicU64,
}

impl DirectoryRootfs {
    fn empty(shared: &Arc<Shared>) -> Result<Self, RootfsError> {
        let dir = shared.build.subdir()?;
        let path = dir.join("root");
        make_root_dir(&path)?;
        let root = RootDir::open(&path).map_err(RootfsError::io("open", &path))?;
        let root = Arc::new(if shared.ground.is_shared() { root.exposed() } else { root });
        let top = root.metadata("").map_err(RootfsError::io("look at", &path))?;
        Ok(Self {
            shared: Arc::clone(shared),
            dir,
            root,
            top,
            index: Arc::default(),
            excluded: Vec::new(),
            seen_steps: AtomicU64::new(0),
        })
    }

    /// Notes the state from which the first step starts.
    fn begin(&mut self) -> Result<(), RootfsError> {
        let index = scan(&self.root, &[]).map_err(RootfsError::io("scan", self.root.path()))?;
        self.index = Arc::new(index);
        self.note_top()?;
        *self.seen_steps.get_mut() = self.shared.ground.steps();
        Ok(())
    }
}

impl DirectoryRootfs {
    fn note_top(&mut self) -> Result<(), RootfsError> {
        self.top = self.root.metadata("").map_err(RootfsError::io("look at", self.root.path()))?;
        Ok(())
    }

    /// Returns the first path that is not as the stage's own steps left it.
    fn first_touched(&self) -> std::io::Result<Option<PathBuf>> {
        let look = |top: &Metadata| (top.kind, top.dev, top.ino, top.mode, top.uid, top.gid);
        // Steps find the tree by its path, everybody else by its descriptor: both have to lead to the same.
        let by_path = RootDir::open(&self.dir)?.metadata("root")?;
        let by_descriptor = self.root.metadata("")?;
        if [&by_path, &by_descriptor].into_iter().any(|top| look(top) != look(&self.top)) {
            return Ok(Some(PathBuf::new()));
        }
        self.index.first_touched(&self.root, &self.excluded)
    }
}

impl Rootfs for DirectoryRootfs {
    fn root(&self) -> Arc<RootDir> {
        Arc::clone(&self.root)
    }

    fn seal_step(&mut self, exclude: &[PathBuf], still: &[PathBuf]) -> Result<ChangeSet, RootfsError> {
        let failed = |error| RootfsError::io("scan", self.root.path())(error);
        let mut after = self.index.rescan(&self.root, exclude, still).map_err(failed)?;
        if let Some(path) = after.find(is_put_aside) {
            let name = path.file_name().map(PathBuf::from).unwrap_or_default();
            return Err(RootfsError::PutAside { name, path });
        }
        after.complete(&self.root).map_err(failed)?;
        let after = Arc::new(after);
        let before = std::mem::replace(&mut self.index, Arc::clone(&after));
        self.excluded = exclude.to_vec();
        self.note_top()?;
        *self.seen_steps.get_mut() = self.shared.ground.steps();
        Ok(diff(before, after, Arc::clone(&self.root)))
    }

    fn check(&self) -> Result<(), RootfsError> {
        let steps = self.shared.ground.steps();
        if self.seen_steps.load(Ordering::SeqCst) == steps {
            return Ok(());
        }
        let failed = RootfsError::io("scan", self.root.path());
        match self.first_touched().map_err(failed)? {
            Some(path) => Err(RootfsError::Foreign { path }),
            None => {
                self.seen_steps.store(steps, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, RootfsError> {
        let _held = self.shared.ground.hold();
        self.check()?;
        let mut fork = Self::empty(&self.shared)?;
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
