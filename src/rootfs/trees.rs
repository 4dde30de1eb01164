//! Unpacked base layers, each a lower directory of overlays, kept for the next build.
//!
//! A layer's tree depends on its own bytes alone and is keyed by diff id, unless the layer leaves something to those below
//! it: a directory it has entries in but does not list, or a hard link to a file of theirs. Then it is keyed by chain
//! id. A layer gets a kept tree only once its blob was found to have that diff id (`verified.rs`). A tree appears under
//! its key by rename, complete; the lock is a file beside it, so builds share trees and wait for each other's
//! unpacking. Owners on disk depend on the id maps, and marks on the kind of overlay: both are part of the directory's
//! name.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::unpack::{check, unpack};
use super::verified;
use super::workdir::{WorkDir, remove_tree};
use super::{RootfsError, removal};
use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::flock::{self, LockKind, Wait};
use crate::layer::{Applied, Whiteouts, opaque_attribute};
use crate::oci::{ChainId, DiffId, Digest, Layer};
use crate::sandbox::Overlay;
use crate::threads;
use crate::tree::regular::{self, NotRegular};
use crate::tree::{FileKind, RootDir, copy_tree};

/// More threads than this only make the disk's head dance.
const MAX_THREADS: usize = 4;

/// The kept trees of one kind.
#[derive(Debug)]
pub(super) struct Trees {
    dir: PathBuf,
    /// Where trees are made; swept by a later build if this one is killed.
    scratch: WorkDir,
    userxattr: bool,
    reporter: Reporter,
}

/// Removes the kept trees that no one uses.
pub(super) fn prune(trees_dir: &Path, reporter: &Reporter) -> Result<usize, RootfsError> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>, RootfsError> {
        match std::fs::read_dir(dir) {
            Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(RootfsError::io("read", dir)(error)),
        }
    };
    let mut removed = 0;
    for kind in list(trees_dir)?.into_iter().filter(|kind| regular::check_directory(kind).is_ok()) {
        let scratch = WorkDir::create(&kind, reporter)?;
        for lock in list(&kind)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "lock")) {
            let file = match regular::open(&lock) {
                // No build has such a lock.
                Err(error) if NotRegular::is(&error) => {
                    regular::remove(&lock).map_err(RootfsError::io("remove", &lock))?;
                    continue;
                }
                other => other.map_err(RootfsError::io("open", &lock))?,
            };
            // Who uses the tree holds its lock. The lock's file stays: another build may be waiting for it.
            let tree = lock.with_extension("");
            if tree.exists() && flock::try_lock(&file, LockKind::Exclusive) == Ok(true) {
                // All at once: half a tree must not be taken for a whole one.
                let removing = scratch.subdir()?.join("tree");
                std::fs::rename(&tree, &removing).map_err(RootfsError::io("rename", &tree))?;
                remove_tree(&removing);
                removed += 1;
            }
        }
        let is_note = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_bytes().starts_with(verified::BLOB_PREFIX.as_bytes()))
        };
        list(&kind)?.into_iter().filter(is_note).for_each(|note| verified::forget(&note, &kind));
        removal::wait(scratch.path(), Duration::MAX);
    }
    Ok(removed)
}

/// A kept tree, which no one removes while this lives.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) path: PathBuf,
    /// Its layer removes everything below it. The kernel does not look for the mark on the root of a lower directory.
    hides_below: bool,
    _lock: File,
}

/// Returns those of `trees`, lowest first, that are not hidden whole by one above.
pub(super) fn visible(trees: &[Tree]) -> &[Tree] {
    let lowest = trees.iter().rposition(|tree| tree.hides_below).unwrap_or(0);
    &trees[lowest..]
}

/// How often is looked whether another has finished unpacking.
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

/// A tree, or the right to make it.
enum Claim {
    Found(Tree),
    Mine(File),
}

/// A layer on its way: found under its diff id, or unpacked and dependent on those below.
enum Unpacked {
    Ready(Tree),
    /// Complete but for what is below; the chain's key is not known to exist.
    Dependent {
        temporary: PathBuf,
        applied: Applied,
    },
}

impl Trees {
    /// Opens the trees of this kind below `trees_dir`.
    pub(super) fn open(trees_dir: &Path, userxattr: bool, reporter: Reporter) -> Result<Self, RootfsError> {
        let map = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let maps = Digest::of(format!("{}{}", map("uid_map"), map("gid_map")).as_bytes());
        let kind = if userxattr { "user" } else { "trusted" };
        let dir = trees_dir.join(format!("{kind}-{}", &maps.hex()[..12]));
        let scratch = WorkDir::create(&dir, &reporter)?;
        Ok(Self { dir, scratch, userxattr, reporter })
    }

    /// Returns the trees of `layers`, lowest first; those that are missing are unpacked side by side.
    pub(super) fn get(&self, layers: &[Layer], blobs: &dyn BlobSource) -> Result<Vec<Tree>, RootfsError> {
        let chains = chain_ids(layers);
        let unpacked = self.unpack_all(layers, &chains, blobs)?;
        let mut trees: Vec<Tree> = Vec::with_capacity(layers.len());
        for ((unpacked, layer), chain) in unpacked.into_iter().zip(layers).zip(&chains) {
            let tree = match unpacked {
                Unpacked::Ready(tree) => tree,
                Unpacked::Dependent { temporary, applied } => {
                    self.complete(layer, chain, &temporary, &applied, &trees)?
                }
            };
            trees.push(tree);
        }
        Ok(trees)
    }

    fn unpack_all(
        &self,
        layers: &[Layer],
        chains: &[ChainId],
        blobs: &dyn BlobSource,
    ) -> Result<Vec<Unpacked>, RootfsError> {
        let todo: Vec<_> = layers.iter().zip(chains).collect();
        threads::try_each("unpack", &todo, threads::count(MAX_THREADS), |(layer, chain)| {
            self.find_or_unpack(layer, chain, blobs)
        })
    }

    fn find_or_unpack(
        &self,
        layer: &Layer,
        chain: &ChainId,
        blobs: &dyn BlobSource,
    ) -> Result<Unpacked, RootfsError> {
        let own = diff_key(&layer.diff_id);
        for key in [&own, &chain_key(chain)] {
            if self.dir.join(key).exists()
                && let Some(tree) = self.find(key)?
            {
                self.check_claim(layer, blobs)?;
                return Ok(Unpacked::Ready(tree));
            }
        }
        // The same layer may be unpacked by another build, or stand twice in this one.
        let lock = match self.claim(&own)? {
            Claim::Found(tree) => {
                self.check_claim(layer, blobs)?;
                return Ok(Unpacked::Ready(tree));
            }
            Claim::Mine(lock) => lock,
        };
        let path = self.dir.join(&own);
        if path.exists() {
            self.check_claim(layer, blobs)?;
        } else {
            let temporary = self.scratch.subdir()?;
            let whiteouts = Whiteouts::Overlay { userxattr: self.userxattr };
            let root = self.make_root(&temporary)?;
            let applied = unpack(layer, blobs, &root, whiteouts, &self.reporter)?;
            verified::note_diff_id(&self.dir, &layer.digest(), &layer.diff_id)?;
            if !applied.implied_dirs.is_empty() || !applied.dangling_links.is_empty() {
                return Ok(Unpacked::Dependent { temporary, applied });
            }
            publish(&temporary, &path)?;
        }
        Ok(Unpacked::Ready(self.share(lock, path)?))
    }

    /// Fails if the layer's blob has another diff id than its image claims; reads the blob if that is not known yet.
    fn check_claim(&self, layer: &Layer, blobs: &dyn BlobSource) -> Result<(), RootfsError> {
        match verified::diff_id(&self.dir, &layer.digest())? {
            Some(found) if found == layer.diff_id => Ok(()),
            Some(found) => Err(RootfsError::DiffIdMismatch {
                digest: layer.digest(),
                expected: layer.diff_id.clone(),
                found: found.digest().clone(),
            }),
            None => {
                check(layer, blobs, &self.reporter)?;
                verified::note_diff_id(&self.dir, &layer.digest(), &layer.diff_id)
            }
        }
    }

    /// Returns the tree under `key` if it is there and whole.
    fn find(&self, key: &str) -> Result<Option<Tree>, RootfsError> {
        let (lock, at) = self.open_lock(key)?;
        let take = |kind| {
            flock::lock(&lock, kind, Wait::begin(&at, &self.reporter)).map_err(RootfsError::io("lock", &at))
        };
        take(LockKind::Shared)?;
        let path = self.dir.join(key);
        if path.exists() && !verified::is_whole(&path)? {
            take(LockKind::Exclusive)?;
            if path.exists() {
                let text = format!("`{}` is not as it was unpacked, and is unpacked again", path.display());
                self.reporter.warning(text);
                let removing = self.scratch.subdir()?.join("tree");
                std::fs::rename(&path, &removing).map_err(RootfsError::io("rename", &path))?;
                remove_tree(&removing);
            }
            return Ok(None);
        }
        if path.exists() { self.tree(lock, &path).map(Some) } else { Ok(None) }
    }

    /// Returns the tree under `key`, or the right to make it. Never waits for the lock itself: who has just made
    /// the tree keeps it for as long as it is used, perhaps by this very build.
    fn claim(&self, key: &str) -> Result<Claim, RootfsError> {
        let path = self.dir.join(key);
        let (lock, at) = self.open_lock(key)?;
        let mut wait = Wait::begin(&at, &self.reporter);
        loop {
            if path.exists()
                && let Some(tree) = self.find(key)?
            {
                return Ok(Claim::Found(tree));
            }
            let locked = flock::try_lock(&lock, LockKind::Exclusive);
            if locked.map_err(|errno| RootfsError::io("lock", &at)(errno.into()))? {
                return Ok(Claim::Mine(lock));
            }
            wait.goes_on(&lock).map_err(RootfsError::io("lock", &at))?;
            std::thread::sleep(CLAIM_PAUSE);
        }
    }

    fn share(&self, lock: File, path: PathBuf) -> Result<Tree, RootfsError> {
        flock::lock(&lock, LockKind::Shared, Wait::begin(&path, &self.reporter))
            .map_err(RootfsError::io("lock", &path))?;
        self.tree(lock, &path)
    }

    fn tree(&self, lock: File, holder: &Path) -> Result<Tree, RootfsError> {
        let path = holder.join("tree");
        let root = RootDir::open(&path).map_err(RootfsError::io("open", &path))?;
        let hides_below = self.hides_below(&root)?;
        Ok(Tree { path, hides_below, _lock: lock })
    }

    fn hides_below(&self, tree: &RootDir) -> Result<bool, RootfsError> {
        let marks = tree.xattrs("").map_err(RootfsError::io("read the attributes of", tree.path()))?;
        Ok(marks.get(OsStr::new(opaque_attribute(self.userxattr))).is_some_and(|value| value == b"y"))
    }

    fn open_lock(&self, key: &str) -> Result<(File, PathBuf), RootfsError> {
        let path = self.dir.join(format!("{key}.lock"));
        let file = regular::open_or_create(&path).map_err(RootfsError::io("open", &path))?;
        Ok((file, path))
    }

    fn make_root(&self, parent: &Path) -> Result<RootDir, RootfsError> {
        let path = parent.join("tree");
        make_root_dir(&path)?;
        RootDir::open(&path).map_err(RootfsError::io("open", &path))
    }

    /// Finishes a tree that depends on those below it, `below`, and keeps it by its chain.
    fn complete(
        &self,
        layer: &Layer,
        chain: &ChainId,
        temporary: &Path,
        applied: &Applied,
        below: &[Tree],
    ) -> Result<Tree, RootfsError> {
        let key = chain_key(chain);
        let lock = match self.claim(&key)? {
            Claim::Found(tree) => return Ok(tree),
            Claim::Mine(lock) => lock,
        };
        let path = self.dir.join(&key);
        if !path.exists() {
            let tree = temporary.join("tree");
            let tree = RootDir::open(&tree).map_err(RootfsError::io("open", &tree))?;
            let below = if self.hides_below(&tree)? { &[] } else { visible(below) };
            let view = self.view_of(below, temporary)?;
            let result = view.as_ref().map_or(Ok(()), |view| adopt_directories(&view.root, &tree, applied));
            let result = result.and_then(|()| copy_links(view.as_ref(), &tree, layer, applied));
            drop(view);
            result?;
            publish(temporary, &path)?;
        }
        self.share(lock, path)
    }

    /// Shows what the trees amount to; `None` if there are none.
    fn view_of(&self, below: &[Tree], holder: &Path) -> Result<Option<View>, RootfsError> {
        let Some(lowest) = below.first() else { return Ok(None) };
        if below.len() == 1 {
            let root = RootDir::open(&lowest.path).map_err(RootfsError::io("open", &lowest.path))?;
            return Ok(Some(View { root, mounted: None }));
        }
        let target = holder.join("below");
        std::fs::create_dir(&target).map_err(RootfsError::io("create", &target))?;
        let lowers: Vec<&Path> = below.iter().rev().map(|tree| tree.path.as_path()).collect();
        Overlay { lowers: &lowers, upper: None, userxattr: self.userxattr }
            .mount(&target)
            .map_err(RootfsError::io("mount an overlay at", &target))?;
        let root = RootDir::open(&target).map_err(RootfsError::io("open", &target))?;
        Ok(Some(View { root, mounted: Some(target) }))
    }
}

/// What a set of trees amounts to; unmounted when dropped.
struct View {
    root: RootDir,
    mounted: Option<PathBuf>,
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(target) = &self.mounted {
            let _ = crate::sandbox::unmount_at(target);
            let _ = std::fs::remove_dir(target);
        }
    }
}

/// Seals a complete tree and shows it to everybody.
fn publish(temporary: &Path, path: &Path) -> Result<(), RootfsError> {
    verified::seal(temporary)?;
    std::fs::rename(temporary, path).map_err(RootfsError::io("rename to", path))
}

/// Makes a tree's own root, as every base image has it.
pub(super) fn make_root_dir(path: &Path) -> Result<(), RootfsError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(path)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
        .map_err(RootfsError::io("create", path))
}

/// Gives directories that the layer does not list itself the metadata they have below.
fn adopt_directories(below: &RootDir, tree: &RootDir, applied: &Applied) -> Result<(), RootfsError> {
    // The innermost first: setting times of a directory comes after everything in it.
    for path in applied.implied_dirs.iter().rev() {
        let adopt = || -> io::Result<()> {
            let metadata = match below.metadata(path) {
                Ok(metadata) if metadata.kind == FileKind::Directory => metadata,
                Ok(_) => return Ok(()),
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            tree.set_owner(path, metadata.uid, metadata.gid)?;
            tree.set_mode(path, metadata.mode)?;
            for (name, value) in below.xattrs(path)? {
                tree.set_xattr(path, &name, &value)?;
            }
            tree.set_mtime(path, metadata.mtime)
        };
        adopt().map_err(RootfsError::io("set metadata of", &tree.path().join(path)))?;
    }
    Ok(())
}

/// Replaces hard links to files of lower layers by copies: an overlay cannot link across its directories.
fn copy_links(
    view: Option<&View>,
    tree: &RootDir,
    layer: &Layer,
    applied: &Applied,
) -> Result<(), RootfsError> {
    let mut copied: Vec<(&Path, &Path)> = Vec::new();
    for (name, target) in &applied.dangling_links {
        let failed = RootfsError::io("copy", &tree.path().join(name));
        let parent = name.parent().unwrap_or(Path::new(""));
        let copy = || -> io::Result<bool> {
            let mtime = tree.metadata(parent)?.mtime;
            if let Some((_, first)) = copied.iter().find(|(known, _)| known == target) {
                tree.hard_link(first, name)?;
            } else {
                let Some(view) = view else { return Ok(false) };
                match view.root.metadata(target) {
                    Ok(metadata) if metadata.kind == FileKind::Directory => return Ok(false),
                    Ok(_) => copy_tree(&view.root, target, tree, name)?,
                    Err(error) if is_missing(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            tree.set_mtime(parent, mtime)?;
            Ok(true)
        };
        if !copy().map_err(failed)? {
            let digest = layer.digest();
            return Err(RootfsError::DanglingLink { digest, name: name.clone(), target: target.clone() });
        }
        copied.push((target, name));
    }
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn chain_ids(layers: &[Layer]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(ChainId::extend(chains.last(), &layer.diff_id));
    }
    chains
}

/// Returns the name of a tree that depends on its own bytes alone.
pub(super) fn diff_key(diff_id: &DiffId) -> String {
    format!("diff-{}", diff_id.digest().hex())
}

fn chain_key(chain: &ChainId) -> String {
    format!("chain-{}", chain.digest().hex())
}
