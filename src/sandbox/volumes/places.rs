//! Where the container's mounts are: which of them are volumes, and that they stay where they are.
//!
//! A step in place cannot unmount anything, but it is root where the directories above a volume are parked, and can
//! rename those: then something else would be at the volume's path. A mount is known by its id.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::sandbox::mounting::{Mounted, is_directory, mount_id, mount_points, mounts};
use crate::sandbox::swap::Swap;
use crate::sandbox::{CacheDirectory, LaunchOptions, SandboxError};
use crate::tree::RootDir;

/// What is the kernel's, with all that is below.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

/// What every container has of devices. Other directories that are mounted below are volumes.
const DEVICES: [&str; 4] = ["/dev", "/dev/mqueue", "/dev/pts", "/dev/shm"];

/// What becomes of a mount for the time of a step, and who makes it as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A volume that shows the stage's files: put aside, copied and compared.
    Shows,
    /// A volume that is somewhere else, with the directory it is in: copied and compared.
    Moves,
    /// A volume beside kiln's own files or devices, where no image has any: steps see it. Copied and compared.
    Stays,
    /// A volume that holds nothing but directories with caches of kiln's, which steps see. What in them is no cache's is copied and
    /// compared; the rest is looked after by [`CacheFiles`](crate::sandbox::cache_files).
    Cache,
    /// A volume where kiln itself works.
    Kilns,
    /// Anything but a directory ([`MountedFiles`](crate::sandbox::mounted_files)).
    File,
    /// A file system of devices ([`DevEntries`](crate::sandbox::dev_entries)).
    Devices,
    /// The kernel's own.
    Kernels,
    /// Nothing can be written there.
    ReadOnly,
    /// Something else is mounted over it, and nobody gets there.
    Covered,
}

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

/// Returns what becomes of a mount, as long as that needs no trial: a volume that an image may have files at `Shows` them.
fn way_of(mount: &Mounted, state_dir: &Path) -> Way {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::open(&mount.path, flags, Mode::empty());
    let Some(found) = found.ok().filter(|found| mount_id(found).is_ok_and(|id| id == mount.id)) else {
        return Way::Covered;
    };
    let own = state_dir.components().take(2).collect::<PathBuf>();
    let is_below = |above: &Path| mount.path.starts_with(above);
    match is_directory(&found) {
        _ if KERNELS.iter().any(|kernels| is_below(Path::new(kernels))) => Way::Kernels,
        _ if DEVICES.iter().any(|devices| mount.path == Path::new(devices)) => Way::Devices,
        _ if mount.is_read_only => Way::ReadOnly,
        Ok(false) | Err(_) => Way::File,
        Ok(true) if state_dir.parent().is_some_and(is_below) => Way::Kilns,
        Ok(true) if is_below(&own) || is_below(Path::new(DEVICES[0])) => Way::Stays,
        Ok(true) => Way::Shows,
    }
}

/// Returns the volumes that an image may have files at: entries of theirs may have been put aside.
pub(super) fn showing(state_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    of_ways(&[Way::Shows], state_dir)
}

/// Returns the volumes of which there may be copies.
pub(super) fn copied(state_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    of_ways(&[Way::Shows, Way::Stays], state_dir)
}

fn of_ways(ways: &[Way], state_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let is_one = |mount: &Mounted| ways.contains(&way_of(mount, state_dir));
    Ok(mounts()?.into_iter().filter(is_one).map(|mount| mount.path).collect())
}

/// Every mount of the container but `/`, and what becomes of it.
pub(super) struct Found {
    pub(super) ways: Vec<(PathBuf, Way)>,
    /// What is caches' of kiln's, which are looked after otherwise.
    of_caches: Vec<PathBuf>,
}

impl Found {
    /// Returns what is caches' on the volume at `point`, below its root.
    pub(super) fn caches_below(&self, point: &Path) -> Vec<PathBuf> {
        let below = |path: &PathBuf| Some(path.strip_prefix(point).ok()?.to_path_buf());
        self.of_caches.iter().filter_map(below).collect()
    }
}

/// Finds out what becomes of every mount. A volume that is a cache of kiln's is left in its place: other containers may be
/// using it.
pub(super) fn find(options: &LaunchOptions) -> io::Result<Found> {
    let found = mounts()?;
    let there = |cache: &CacheDirectory| std::fs::canonicalize(&cache.path).ok();
    let caches: Vec<PathBuf> = options.cache_directories.iter().filter_map(there).collect();
    let own = |cache: &CacheDirectory| {
        let path = canonical(&cache.path);
        cache.own_names().map(|name| path.join(name)).collect::<Vec<_>>()
    };
    let of_caches = options.cache_directories.iter().flat_map(own).collect();
    let way = |mount: Mounted| {
        let way = match way_of(&mount, &options.state_dir) {
            Way::Shows | Way::Stays if is_cache(&mount.path, &caches) => Way::Cache,
            way => way,
        };
        (mount.path, way)
    };
    let mut ways: Vec<(PathBuf, Way)> = found.into_iter().map(way).collect();
    ways.sort_by(|(one, _), (other, _)| one.cmp(other));
    if ways.iter().any(|(point, way)| *way == Way::Shows && point.components().count() > 2) {
        let stay = staying(&options.state_dir)?;
        let moving = ways.iter_mut().filter(|(point, way)| *way == Way::Shows && !stay.contains(point));
        moving.for_each(|(_, way)| *way = Way::Moves);
    }
    Ok(Found { ways, of_caches })
}

/// Returns a path without links, whether there is something or not.
fn canonical(path: &Path) -> PathBuf {
    match (std::fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(path), ..) => path,
        (Err(_), Some(parent), Some(name)) => canonical(parent).join(name),
        (Err(_), ..) => path.to_path_buf(),
    }
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
