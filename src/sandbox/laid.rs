//! Mount targets below a mount of the container: what is to be seen there is laid into that file system itself.
//!
//! In place, a container's own mounts stay where they are, and what the stage's tree has at such a path is not seen.
//! `/dev` is one of them in every container, and the scripts of here-documents are shown at `/dev/pipes`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::task::{Mount, MountKind};
use super::wire::{Cause, Failure};
use crate::tree::{RootDir, copy_tree};

/// Mounts of the task that the container's own would hide.
#[derive(Debug)]
pub(super) struct Laying {
    /// Where they are to be seen, links resolved, and what.
    items: Vec<(PathBuf, Mount)>,
}

impl Laying {
    /// Finds those of `mounts` that `mount_points` are at or above, as seen in the stage's tree `root`.
    pub(super) fn of(
        mounts: &[Mount],
        root: &RootDir,
        mount_points: &BTreeSet<PathBuf>,
    ) -> Result<Self, Failure> {
        let mut items = Vec::new();
        for mount in mounts {
            let resolved = root.resolve(&mount.target).map_err(|error| failure(&mount.target, error))?;
            let path = Path::new("/").join(resolved);
            let Some(above) = mount_points.iter().rfind(|point| path.starts_with(point)) else { continue };
            let writable = matches!(mount.kind, MountKind::Bind { read_only: false, .. });
            if path == *above || writable {
                let text = format!("the container has a mount at `{}`, which stays there", above.display());
                return Err(failure(&mount.target, io::Error::new(io::ErrorKind::Unsupported, text)));
            }
            items.push((path, mount.clone()));
        }
        Ok(Self { items })
    }

    /// Tells whether a mount of the task is one of these.
    pub(super) fn has(&self, mount: &Mount) -> bool {
        self.items.iter().any(|(_, own)| own == mount)
    }

    /// Lays everything out, and tells `note` of each path before it is made, directories first.
    pub(super) fn lay(&self, note: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<(), Failure> {
        let slash = RootDir::open(Path::new("/")).map_err(|error| failure(Path::new("/"), error))?;
        for (path, mount) in &self.items {
            lay_one(&slash, path, &mount.kind, note).map_err(|error| failure(&mount.target, error))?;
        }
        Ok(())
    }
}

fn lay_one(
    slash: &RootDir,
    path: &Path,
    kind: &MountKind,
    note: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if slash.resolve(path)? != path.strip_prefix("/").unwrap_or(path) {
        // An earlier step may have put it into the container's mount.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link leads somewhere else"));
    }
    let mut missing: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    missing.reverse();
    for directory in missing {
        note(directory)?;
        slash.create_dir(directory, 0o755)?;
    }
    if slash.exists(path)? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the container has something there"));
    }
    note(path)?;
    match kind {
        MountKind::Tmpfs { mode, .. } => slash.create_dir(path, *mode),
        MountKind::Bind { source, .. } | MountKind::ScratchOverlay { lower: source, .. } => {
            let (directory, name) = source.entry()?;
            copy_tree(&directory, name, slash, path)
        }
    }
}

/// Removes what was laid out, the last first; what the step removed itself is gone already.
pub(super) fn remove(paths: &[PathBuf]) -> io::Result<()> {
    let slash = RootDir::open(Path::new("/"))?;
    for path in paths.iter().rev() {
        match slash.remove_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(super::look::at(path, error));
            }
            _ => {}
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
