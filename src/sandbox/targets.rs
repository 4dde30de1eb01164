//! Places in the root where something gets mounted: made before the step, gone after it.
//!
//! The child makes them ([`Targets`]) because only it sees the root with its mounts; kiln removes them ([`Held`])
//! because it outlives the step. What the step itself renamed is found again through an open descriptor, and the
//! modification times of the directories around are as if nothing had ever been there. Nothing that is made or opened
//! here is looked up twice: what is mounted may be a directory that another step is changing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::mounting::mount_id;
use super::wire::Stub;
use crate::tree::{FileKind, Metadata, RootDir};

/// What is to be mounted somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// Something that is a directory.
    Directory,
    /// Anything else.
    File,
}

/// The child's side: opens mount targets in a root and makes those that are missing.
///
/// A target may lie in something mounted before it, where another step makes changes at the same time: after links were
/// followed nothing on the way may be one, and every name is looked up once.
#[derive(Debug)]
pub(super) struct Targets {
    root: RootDir,
    mount_id: u64,
    stubs: Vec<Stub>,
}

impl Targets {
    /// Starts on the directory `root`; `path` names it in messages.
    pub(super) fn open(root: OwnedFd, path: &Path) -> io::Result<Self> {
        let mount_id = mount_id(&root)?;
        Ok(Self { root: RootDir::from_fd(root, path), mount_id, stubs: Vec::new() })
    }

    /// Opens `target`, links followed inside the root, and makes it if it is missing.
    pub(super) fn ensure(&mut self, target: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
        let resolved = self.root.resolve(target)?;
        let mut place = self.root.open_path("")?;
        let mut path = PathBuf::new();
        // The deepest directory of the root itself that was there, and its time.
        let mut kept = None;
        for name in &resolved {
            path.push(name);
            place = match open_name(&place, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let on_root = mount_id(&place)? == self.mount_id;
                    let directory = RootDir::from_fd(place, path.parent().unwrap_or(&path));
                    if on_root && kept.is_none() {
                        kept = Some((directory.subdir("")?, directory.metadata("")?.mtime));
                    }
                    if path == resolved && kind == TargetKind::File {
                        directory.create_file(name, 0o644)?;
                    } else {
                        directory.create_dir(name, 0o755)?;
                    }
                    if on_root {
                        self.stubs.push(Stub { path: path.clone() });
                    }
                    open_name(&directory, name)?
                }
                found => found?,
            };
        }
        if let Some((directory, mtime)) = kept {
            directory.set_mtime("", mtime)?;
        }
        Ok(place)
    }

    /// Opens `target` if it is there.
    pub(super) fn existing(&self, target: &Path) -> io::Result<Option<OwnedFd>> {
        match self.root.open_path(target) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the root through its mounts.
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Returns what was made since this was asked last and is not hidden in a mount.
    pub(super) fn take_stubs(&mut self) -> Vec<Stub> {
        std::mem::take(&mut self.stubs)
    }
}

/// Opens what is called `name` in a directory; a link is `ELOOP`.
fn open_name(directory: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    match Metadata::of(&fd)?.kind {
        FileKind::Symlink => Err(rustix::io::Errno::LOOP.into()),
        _ => Ok(fd),
    }
}

/// The other side: holds on to what was made in a root, to remove it after the step.
#[derive(Debug)]
pub(super) struct Held {
    root: RootDir,
    held: Vec<OwnedFd>,
}

impl Held {
    /// Takes hold of nothing yet.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        Ok(Self { root: RootDir::open(root)?, held: Vec::new() })
    }

    /// Takes hold of what the child made; the step has not begun.
    pub(super) fn hold(&mut self, stubs: &[Stub]) -> io::Result<()> {
        for stub in stubs {
            self.held.push(self.root.open_entry(&stub.path)?);
        }
        Ok(())
    }

    /// Returns the root.
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Removes what is still as it was made, wherever the step moved it to. The step is over.
    pub(super) fn remove(&mut self) -> Result<(), (PathBuf, io::Error)> {
        let mut failed = None;
        while let Some(stub) = self.held.pop() {
            let Some(path) = self.path_of(&stub) else { continue };
            if let Err(error) = self.remove_one(&path) {
                failed = Some((path, error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Returns where `fd` is in the root now; `None` if it is not there any more.
    pub(super) fn path_of(&self, fd: &OwnedFd) -> Option<PathBuf> {
        let now = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
        let path = now(fd.as_fd())?.strip_prefix(now(self.root.as_fd())?).ok()?.to_path_buf();
        // A deleted file's link ends in ` (deleted)`, which could also be a name: only the inode tells.
        let here = self.root.metadata(&path).ok()?;
        (here.ino == Metadata::of(fd).ok()?.ino).then_some(path)
    }

    fn remove_one(&self, path: &Path) -> io::Result<()> {
        let metadata = self.root.metadata(path)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mtime = self.root.metadata(parent)?.mtime;
        let removed = match metadata.kind {
            FileKind::Directory => match self.root.remove_dir(path) {
                // The step put something there: then it is the step's.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
                other => other,
            },
            _ if metadata.size_bytes == 0 => self.root.remove_file(path),
            _ => return Ok(()),
        };
        removed?;
        self.root.set_mtime(parent, mtime)
    }
}

/// Returns how many components a path has: mounts are made from the outside in.
pub(super) fn depth(path: &Path) -> usize {
    path.components().filter(|c| matches!(c, std::path::Component::Normal(_))).count()
}
