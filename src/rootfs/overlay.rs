//! Storage `overlay`: base layers are lower directories, each step has an upper directory of its own.
//!
//! Sealing a step mounts the same directories again with the step's upper as the topmost lower, which takes about a
//! millisecond; the sealed upper is what changed, and can be read while the next step writes elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::trees::{Tree, Trees, make_root_dir, visible};
use super::workdir::{WorkDir, remove_tree};
use super::{Rootfs, RootfsError, Storage};
use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::layer::{Change, ChangeSet, LayerError};
use crate::oci::Layer;
use crate::sandbox::{MAX_LOWERS, Overlay, unmount_at};
use crate::snapshot::overlay_changes;
use crate::tree::{RootDir, copy_tree};

/// Above this many lowers they are merged into one: the kernel's limit less some room.
const MERGE_ABOVE: usize = if cfg!(test) { 12 } else { MAX_LOWERS - 4 };

/// Overlays of one kind.
pub(super) struct OverlayStorage {
    shared: Arc<Shared>,
    trees: Trees,
}

struct Shared {
    build: WorkDir,
    userxattr: bool,
}

impl OverlayStorage {
    pub(super) fn open(
        work_dir: &Path,
        trees_dir: &Path,
        userxattr: bool,
        reporter: Reporter,
    ) -> Result<Self, RootfsError> {
        let build = WorkDir::create(work_dir, &reporter)?;
        let trees = Trees::open(trees_dir, userxattr, reporter)?;
        Ok(Self { shared: Arc::new(Shared { build, userxattr }), trees })
    }
}

impl Storage for OverlayStorage {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn create(&self, base: &[Layer], blobs: &dyn BlobSource) -> Result<Box<dyn Rootfs>, RootfsError> {
        let trees = self.trees.get(base, blobs)?;
        let mut lowers: Vec<Arc<Lower>> = Vec::new();
        let hidden = trees.len() - visible(&trees).len();
        for tree in trees.into_iter().skip(hidden).rev() {
            // The kernel takes a directory once. A layer that comes again higher up has all this one could show.
            if !lowers.iter().any(|above| above.path() == tree.path) {
                lowers.push(Arc::new(Lower::Kept(tree)));
            }
        }
        Ok(Box::new(OverlayRootfs::mount(&self.shared, lowers)?))
    }
}

/// A directory below the upper one.
enum Lower {
    /// A base layer.
    Kept(Tree),
    /// A sealed step, or merged ones: removed with its last user.
    Sealed(PathBuf),
}

impl Lower {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(tree) => &tree.path,
            Self::Sealed(path) => path,
        }
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        if let Self::Sealed(path) = self {
            remove_tree(path);
        }
    }
}

struct OverlayRootfs {
    shared: Arc<Shared>,
    /// The uppermost first.
    lowers: Vec<Arc<Lower>>,
    /// Holds `merged`, `upper` and `work`.
    dir: PathBuf,
    root: Arc<RootDir>,
    /// Paths of the upper directory: one per step.
    step: Step,
}

/// Where a step's writes go.
struct Step {
    upper: PathBuf,
    work: PathBuf,
}

impl OverlayRootfs {
    fn mount(shared: &Arc<Shared>, lowers: Vec<Arc<Lower>>) -> Result<Self, RootfsError> {
        let dir = shared.build.subdir()?;
        let merged = dir.join("merged");
        std::fs::create_dir(&merged).map_err(RootfsError::io("create", &merged))?;
        let lowers = merge_if_many(shared, lowers)?;
        let step = mount_step(shared, &lowers, &merged)?;
        let root = Arc::new(RootDir::open(&merged).map_err(RootfsError::io("open", &merged))?);
        Ok(Self { shared: Arc::clone(shared), lowers, dir, root, step })
    }
}

impl Rootfs for OverlayRootfs {
    fn root(&self) -> Arc<RootDir> {
        Arc::clone(&self.root)
    }

    fn seal_step(&mut self, exclude: &[PathBuf], _: &[PathBuf]) -> Result<ChangeSet, RootfsError> {
        let merged = self.dir.join("merged");
        let below = View::mount(&self.shared, &self.lowers)?;
        let upper = RootDir::open(&self.step.upper).map_err(RootfsError::io("open", &self.step.upper))?;
        let mut lowers = self.lowers.clone();
        let sealed = Arc::new(Lower::Sealed(self.step.upper.clone()));
        lowers.insert(0, Arc::clone(&sealed));
        let lowers = merge_if_many(&self.shared, lowers)?;
        unmount_at(&merged).map_err(RootfsError::io("unmount", &merged))?;
        remove_tree(&self.step.work);
        self.step = mount_step(&self.shared, &lowers, &merged)?;
        self.root = Arc::new(RootDir::open(&merged).map_err(RootfsError::io("open", &merged))?);
        self.lowers = lowers;
        let changes =
            overlay_changes(Arc::new(upper), Arc::clone(&below.root), self.shared.userxattr, exclude);
        Ok(Box::new(Sealed { changes, _below: below, _upper: sealed }))
    }

    fn fork(&self) -> Result<Box<dyn Rootfs>, RootfsError> {
        let mut entries =
            std::fs::read_dir(&self.step.upper).map_err(RootfsError::io("read", &self.step.upper))?;
        if entries.next().is_some() {
            return Err(RootfsError::NotSealed);
        }
        Ok(Box::new(Self::mount(&self.shared, self.lowers.clone())?))
    }

    fn must_drain(&self) -> bool {
        false
    }
}

impl Drop for OverlayRootfs {
    fn drop(&mut self) {
        let _ = unmount_at(&self.dir.join("merged"));
        remove_tree(&self.step.upper);
        remove_tree(&self.step.work);
        remove_tree(&self.dir);
    }
}

/// Changes together with what they are read from.
struct Sealed {
    // Fields are dropped in this order: the reader first.
    changes: ChangeSet,
    _below: View,
    _upper: Arc<Lower>,
}

impl Iterator for Sealed {
    type Item = Result<Change, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.changes.next()
    }
}

/// The view below a step, read-only; unmounted when dropped.
struct View {
    root: Arc<RootDir>,
    dir: PathBuf,
    _lowers: Vec<Arc<Lower>>,
    _shared: Arc<Shared>,
}

impl View {
    fn mount(shared: &Arc<Shared>, lowers: &[Arc<Lower>]) -> Result<Self, RootfsError> {
        let dir = shared.build.subdir()?;
        let (empty, merged) = (dir.join("empty"), dir.join("merged"));
        for path in [&empty, &merged] {
            make_root_dir(path)?;
        }
        // An overlay without an upper directory must have two lowers at least.
        let mut paths: Vec<&Path> = lowers.iter().map(|lower| lower.path()).collect();
        while paths.len() < 2 {
            paths.push(&empty);
        }
        if paths[0] == paths[1] {
            paths[1] = &merged;
        }
        Overlay { lowers: &paths, upper: None, userxattr: shared.userxattr }
            .mount(&merged)
            .map_err(RootfsError::io("mount an overlay at", &merged))?;
        let root = Arc::new(RootDir::open(&merged).map_err(RootfsError::io("open", &merged))?);
        Ok(Self { root, dir, _lowers: lowers.to_vec(), _shared: Arc::clone(shared) })
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = unmount_at(&self.dir.join("merged"));
        remove_tree(&self.dir);
    }
}

/// Mounts `lowers` under a new upper directory at `merged`.
fn mount_step(shared: &Shared, lowers: &[Arc<Lower>], merged: &Path) -> Result<Step, RootfsError> {
    let upper = shared.build.subdir()?;
    let work = shared.build.subdir()?;
    let empty = work.join("empty");
    std::fs::create_dir(&empty).map_err(RootfsError::io("create", &empty))?;
    let kernel = work.join("kernel");
    std::fs::create_dir(&kernel).map_err(RootfsError::io("create", &kernel))?;
    like_root_of(lowers, &upper)?;
    let mut paths: Vec<&Path> = lowers.iter().map(|lower| lower.path()).collect();
    if paths.is_empty() {
        paths.push(&empty);
    }
    Overlay { lowers: &paths, upper: Some((&upper, &kernel)), userxattr: shared.userxattr }
        .mount(merged)
        .map_err(RootfsError::io("mount an overlay at", merged))?;
    Ok(Step { upper, work })
}

/// The upper directory's own metadata is the merged root's: it gets what the root had.
fn like_root_of(lowers: &[Arc<Lower>], upper: &Path) -> Result<(), RootfsError> {
    let set = || -> std::io::Result<()> {
        let root = RootDir::open(upper)?;
        let Some(lower) = lowers.first() else { return root.set_mode("", 0o755) };
        let metadata = RootDir::open(lower.path())?.metadata("")?;
        root.set_owner("", metadata.uid, metadata.gid)?;
        root.set_mode("", metadata.mode)?;
        root.set_mtime("", metadata.mtime)
    };
    set().map_err(RootfsError::io("set metadata of", upper))
}

/// Copies what many lowers amount to into one directory: the kernel stacks only so many.
fn merge_if_many(shared: &Arc<Shared>, mut lowers: Vec<Arc<Lower>>) -> Result<Vec<Arc<Lower>>, RootfsError> {
    while lowers.len() > MERGE_ABOVE {
        // The lowest ones: with nothing below them, they need no whiteouts.
        let lowest = lowers.split_off(lowers.len() - MERGE_ABOVE);
        let view = View::mount(shared, &lowest)?;
        let to = shared.build.subdir()?;
        let target = RootDir::open(&to).map_err(RootfsError::io("open", &to))?;
        let merged = Arc::new(Lower::Sealed(to.clone()));
        copy_tree(&view.root, "", &target, "").map_err(RootfsError::io("copy to", &to))?;
        lowers.push(merged);
    }
    Ok(lowers)
}
