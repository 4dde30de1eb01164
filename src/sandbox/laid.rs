//! Mount targets below a mount of the container: what is to be seen there is laid into that file system itself.
//!
//! In place, a container's own mounts stay where they are, and what the stage's tree has at such a path is not seen.
//! `/dev` is one of them in every container, and the scripts of here-documents are shown at `/dev/pipes`. A volume shows
//! the stage's files; only what is read-only is laid there, and not into the stage's tree: a secret never is in it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::task::{Mount, MountKind};
use super::wire::{Cause, Failure};
use crate::tree::{RootDir, Timestamp, copy_tree};

/// Mounts of the task that the container's own would hide.
#[derive(Debug)]
pub(super) struct Laying {
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    /// Where it is to be seen, links resolved.
    path: PathBuf,
    mount: Mount,
    /// It is in a volume that shows the stage's files, and may cover one.
    in_volume: bool,
}

/// What was laid, or had to be made for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What is to be seen.
    Item,
    /// A directory above it that was missing.
    Above,
    /// The same in a volume that shows the stage's files: the step may have put something there.
    AboveInVolume,
}

impl Laying {
    /// Finds those of `mounts` that `mount_points` are at or above, as seen in the stage's tree `root`; `volumes` are
    /// mount points that show the stage's files.
    pub(super) fn of(
        mounts: &[Mount],
        root: &RootDir,
        mount_points: &BTreeSet<PathBuf>,
        volumes: &BTreeSet<PathBuf>,
    ) -> Result<Self, Failure> {
        let mut items = Vec::new();
        for mount in mounts {
            let resolved = root.resolve(&mount.target).map_err(|error| failure(&mount.target, error))?;
            let path = Path::new("/").join(resolved);
            let Some(above) = mount_points.iter().rfind(|point| path.starts_with(point)) else { continue };
            let is_read_only = matches!(mount.kind, MountKind::Bind { read_only: true, .. });
            let in_volume = volumes.contains(above);
            if in_volume && (path == *above || !is_read_only) {
                // It is put into the stage's tree, and shown with that.
                continue;
            }
            let writable = matches!(mount.kind, MountKind::Bind { read_only: false, .. });
            if path == *above || writable {
                let text = format!("the container has a mount at `{}`, which stays there", above.display());
                return Err(failure(&mount.target, io::Error::new(io::ErrorKind::Unsupported, text)));
            }
            items.push(Item { path, mount: mount.clone(), in_volume });
        }
        Ok(Self { items })
    }

    /// Tells whether a mount of the task is one of these.
    pub(super) fn has(&self, mount: &Mount) -> bool {
        self.items.iter().any(|item| item.mount == *mount)
    }

    /// Lays everything out, and tells `note` of each path before it is made, directories first.
    pub(super) fn lay(&self, note: &mut dyn FnMut(&Path, Part) -> io::Result<()>) -> Result<(), Failure> {
        let slash = RootDir::open(Path::new("/")).map_err(|error| failure(Path::new("/"), error))?;
        for item in &self.items {
            lay_one(&slash, item, note).map_err(|error| failure(&item.mount.target, error))?;
        }
        Ok(())
    }
}

fn lay_one(
    slash: &RootDir,
    item: &Item,
    note: &mut dyn FnMut(&Path, Part) -> io::Result<()>,
) -> io::Result<()> {
    let path = &item.path;
    if slash.resolve(path)? != path.strip_prefix("/").unwrap_or(path) {
        // An earlier step may have put it into the container's mount.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link leads somewhere else"));
    }
    let mut missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    let outermost = missing.last().copied().unwrap_or(path);
    let keep = KeepTime::of(slash, outermost)?;
    missing.reverse();
    for directory in missing {
        note(directory, if item.in_volume { Part::AboveInVolume } else { Part::Above })?;
        slash.create_dir(directory, 0o755)?;
    }
    if slash.exists(path)? {
        if !item.in_volume {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the container has something there"));
        }
        slash.remove_all(path)?;
    }
    note(path, Part::Item)?;
    put(slash, path, &item.mount.kind)?;
    keep.restore(slash)
}

fn put(slash: &RootDir, path: &Path, kind: &MountKind) -> io::Result<()> {
    match kind {
        MountKind::Tmpfs { mode, .. } => slash.create_dir(path, *mode),
        MountKind::Bind { source, .. } | MountKind::ScratchOverlay { lower: source, .. } => {
            let (directory, name) = source.entry()?;
            copy_tree(&directory, name, slash, path)
        }
    }
}

/// The time of the directory around an entry, to be set again after that came or went.
struct KeepTime<'path>(&'path Path, Timestamp);

impl<'path> KeepTime<'path> {
    fn of(slash: &RootDir, entry: &'path Path) -> io::Result<Self> {
        let directory = entry.parent().unwrap_or(Path::new("/"));
        Ok(Self(directory, slash.metadata(directory)?.mtime))
    }

    fn restore(self, slash: &RootDir) -> io::Result<()> {
        slash.set_mtime(self.0, self.1)
    }
}

/// Removes what was laid out, the last first; what the step removed itself is gone already.
pub(super) fn remove(laid: &[(PathBuf, Part)]) -> io::Result<()> {
    let slash = RootDir::open(Path::new("/"))?;
    for (path, part) in laid.iter().rev() {
        let Ok(keep) = KeepTime::of(&slash, path) else { continue };
        let removed = match part {
            Part::Item | Part::Above => slash.remove_all(path),
            Part::AboveInVolume => match slash.remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => continue,
                other => other,
            },
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(super::look::at(path, error)),
            Ok(()) => keep.restore(&slash)?,
        }
    }
    Ok(())
}

fn failure(target: &Path, error: io::Error) -> Failure {
    Failure::Mount {
        target: target.to_string_lossy().into_owned(),
        action: "place".to_owned(),
        cause: Cause::from(error),
    }
}
