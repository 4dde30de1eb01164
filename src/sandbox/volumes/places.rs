//! Where the container's mounts are: which of them are volumes, and that they stay where they are.
//!
//! A step in place cannot unmount anything, but it is root where the directories above a volume are parked, and can
//! rename those: then something else would be at the volume's path. A mount is known by its id.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::sandbox::mounting::{Mounted, mount_points, mounts};
use crate::sandbox::swap::Swap;
use crate::sandbox::{CacheDirectory, LaunchOptions, SandboxError};
use crate::tree::RootDir;

/// What nobody expects to find files of an image in.
const KERNELS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Every mount of the container, and where it belongs.
#[derive(Debug)]
pub(super) struct Places(BTreeMap<u64, PathBuf>);

impl Places {
    /// Notes where everything is mounted.
    pub(super) fn note() -> io::Result<Self> {
        Ok(Self(by_id()?))
    }

    /// Moves what is mounted elsewhere back, as far as that goes; returns the first, and what became of it. What a step put
    /// in its place is moved to `state_dir`.
    pub(super) fn first_moved(&self, state_dir: &Path) -> io::Result<Option<(PathBuf, String)>> {
        let mut first = None;
        loop {
            let now = by_id()?;
            // What is gone was unmounted by somebody else: no step in place can.
            let there = |(id, point)| now.get(id).map(|there| (id, point, there));
            let mut moved = self.0.iter().filter_map(there).filter(|(_, point, there)| there != point);
            let Some((id, point, there)) = moved.next() else { break };
            let text = format!("the step moved it to `{}`", there.display());
            let is_back = move_back(there, point, state_dir).is_ok() && by_id()?.get(id) == Some(point);
            let end = match is_back {
                true => "; it is at its place again",
                false => ", and it cannot be moved back: go on in a new container",
            };
            first.get_or_insert((point.clone(), text + end));
            if !is_back {
                break;
            }
        }
        Ok(first)
    }
}

fn by_id() -> io::Result<BTreeMap<u64, PathBuf>> {
    Ok(mounts()?.into_iter().map(|mount| (mount.id, mount.path)).collect())
}

/// Renames the directory that a mount moved with, which is the lowest whose place is there.
fn move_back(there: &Path, point: &Path, state_dir: &Path) -> io::Result<()> {
    for (from, to) in there.ancestors().skip(1).zip(point.ancestors().skip(1)) {
        let Some(parent) = to.parent() else { break };
        if parent.symlink_metadata().is_ok_and(|parent| parent.is_dir()) {
            if to.symlink_metadata().is_ok() {
                let planted = tempfile::Builder::new().prefix("planted-").tempdir_in(state_dir)?.keep();
                std::fs::rename(to, planted.join("moved"))?;
            }
            return std::fs::rename(from, to);
        }
        if from.file_name() != to.file_name() {
            break;
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Returns the directories that are mounted read-write and are not the kernel's or kiln's own.
pub(super) fn candidates(state_dir: &Path) -> io::Result<Vec<Mounted>> {
    let own = state_dir.components().take(2).collect::<PathBuf>();
    let mut found = mounts()?;
    // What was mounted later at the same place is what is seen there.
    let mut seen = BTreeSet::new();
    found.reverse();
    found.retain(|mount| seen.insert(mount.path.clone()));
    found.retain(|mount| {
        let is_kernels = KERNELS.iter().any(|kernels| mount.path.starts_with(kernels));
        !is_kernels && !mount.is_read_only && !mount.path.starts_with(&own) && mount.path.is_dir()
    });
    Ok(found)
}

/// The volumes that lie over paths of an image.
pub(super) struct Found {
    /// They stay where they are when a stage takes the place of `/`.
    pub(super) staying: BTreeSet<PathBuf>,
    /// They move with the directories they are in.
    pub(super) moving: BTreeSet<PathBuf>,
    /// Caches of kiln's, which are left alone.
    caches: Vec<PathBuf>,
}

impl Found {
    /// Tells whether a volume is mounted there.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.staying.contains(path) || self.moving.contains(path)
    }

    /// Tells whether steps see what is at `path`: on a volume that is left alone.
    pub(super) fn is_seen(&self, path: &Path) -> bool {
        let Ok(path) = std::fs::canonicalize(path) else { return false };
        let mounted = mount_points().unwrap_or_default();
        path.ancestors().find(|above| mounted.contains(*above)).is_some_and(|point| !self.has(point))
    }

    /// Returns the caches on the volume at `point`, below its root.
    pub(super) fn caches_below(&self, point: &Path) -> Vec<PathBuf> {
        self.caches.iter().filter_map(|cache| Some(cache.strip_prefix(point).ok()?.to_path_buf())).collect()
    }
}

/// Finds the volumes; those that are caches of kiln's are left out: other containers may be using them.
pub(super) fn find(options: &LaunchOptions) -> io::Result<Found> {
    let found = candidates(&options.state_dir)?;
    let canonical = |cache: &CacheDirectory| std::fs::canonicalize(&cache.path).ok();
    let caches: Vec<PathBuf> = options.cache_directories.iter().filter_map(canonical).collect();
    let mut points: BTreeSet<PathBuf> = found.into_iter().map(|mount| mount.path).collect();
    points.retain(|point| !is_cache(point, &caches));
    if points.iter().all(|point| point.components().count() == 2) {
        return Ok(Found { staying: points, moving: BTreeSet::new(), caches });
    }
    let stay = staying(&options.state_dir)?;
    let (staying, moving) = points.into_iter().partition(|point| stay.contains(point));
    Ok(Found { staying, moving, caches })
}

/// Tells whether there is nothing on the volume at `point` but caches.
pub(super) fn is_cache(point: &Path, caches: &[PathBuf]) -> bool {
    let below: Vec<&Path> = caches.iter().filter_map(|cache| cache.strip_prefix(point).ok()).collect();
    if below.is_empty() || below.iter().any(|cache| cache.as_os_str().is_empty()) {
        return !below.is_empty();
    }
    let names = RootDir::open(point).and_then(|root| root.read_dir(""));
    names.is_ok_and(|names| names.iter().all(|name| below.iter().any(|cache| cache.starts_with(name))))
}

/// Returns the mount points that are left when an empty stage has the place of `/`.
fn staying(state_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let empty = state_dir.join("empty");
    std::fs::create_dir_all(&empty)?;
    let mut swap = Swap::new(&empty, state_dir, Vec::new(), Vec::new())?;
    let entered = swap.enter(BTreeSet::new()).and_then(|_| mount_points());
    swap.leave().map_err(|failure| io::Error::other(SandboxError::from(failure).to_string()))?;
    std::fs::remove_dir(&empty)?;
    entered
}
