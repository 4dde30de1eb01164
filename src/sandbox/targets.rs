//! Places in the root where something gets mounted: made before the step, gone after it.
//!
//! The child makes them ([`Targets`]) because only it sees the root with its mounts; kiln removes them ([`Held`])
//! because it outlives the step. What the step itself renamed is found again through an open descriptor, and the
//! modification times of the directories around are as if nothing had ever been there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat};

use super::mounting::{mount_id, open_in_root};
use super::wire::Stub;
use crate::tree::{FileKind, RootDir};

/// What is to be mounted somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// Something that is a directory.
    Directory,
    /// Anything else.
    File,
}

/// The child's side: opens mount targets in a root and makes those that are missing.
#[derive(Debug)]
pub(super) struct Targets {
    root: RootDir,
    fd: OwnedFd,
    mount_id: u64,
    stubs: Vec<Stub>,
}

impl Targets {
    /// Starts on what is at `root` now.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mount_id = mount_id(&fd)?;
        Ok(Self { root: RootDir::open(root)?, fd, mount_id, stubs: Vec::new() })
    }

    /// Opens `target`, links followed inside the root, and makes it if it is missing.
    pub(super) fn ensure(&mut self, target: &Path, kind: TargetKind) -> io::Result<OwnedFd> {
        let resolved = self.root.resolve(target)?;
        if !self.root.exists(&resolved)? {
            self.make(&resolved, kind)?;
        }
        open_in_root(&self.fd, &resolved)
    }

    /// Opens `target` if it is there.
    pub(super) fn existing(&self, target: &Path) -> io::Result<Option<OwnedFd>> {
        match open_in_root(&self.fd, target) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the root through its mounts.
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Returns what was made since this was asked last.
    pub(super) fn take_stubs(&mut self) -> Vec<Stub> {
        std::mem::take(&mut self.stubs)
    }

    /// Returns the descriptor of the root, and what was made in it that is not hidden in a mount.
    pub(super) fn finish(self) -> (OwnedFd, Vec<Stub>) {
        (self.fd, self.stubs)
    }

    fn make(&mut self, resolved: &Path, kind: TargetKind) -> io::Result<()> {
        let (ancestor, mtime) = self.nearest_directory(resolved)?;
        let on_root = mount_id(open_in_root(&self.fd, &ancestor)?)? == self.mount_id;
        let mut made = Vec::new();
        let mut note = |path: &Path| made.push(Stub { path: path.to_path_buf() });
        match kind {
            TargetKind::Directory => self.root.create_dir_all(resolved, 0o755, &mut note)?,
            TargetKind::File => {
                if let Some(parent) = resolved.parent() {
                    self.root.create_dir_all(parent, 0o755, &mut note)?;
                }
                self.root.create_file(resolved, 0o644)?;
                made.push(Stub { path: resolved.to_path_buf() });
            }
        }
        if on_root {
            self.root.set_mtime(&ancestor, mtime)?;
            self.stubs.append(&mut made);
        }
        Ok(())
    }

    /// Returns the deepest directory above `path` that exists, and its modification time.
    fn nearest_directory(&self, path: &Path) -> io::Result<(PathBuf, crate::tree::Timestamp)> {
        for ancestor in path.ancestors().skip(1) {
            match self.root.metadata(ancestor) {
                Ok(metadata) => return Ok((ancestor.to_path_buf(), metadata.mtime)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((PathBuf::new(), self.root.metadata("")?.mtime))
    }
}

/// The other side: holds on to what was made in a root, to remove it after the step.
#[derive(Debug)]
pub(super) struct Held {
    root: RootDir,
    fd: OwnedFd,
    held: Vec<OwnedFd>,
}

impl Held {
    /// Takes hold of nothing yet.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root: RootDir::open(root)?, fd, held: Vec::new() })
    }

    /// Takes hold of what the child made; the step has not begun.
    pub(super) fn hold(&mut self, stubs: &[Stub]) -> io::Result<()> {
        for stub in stubs {
            self.held.push(self.open(&stub.path)?);
        }
        Ok(())
    }

    /// Opens an entry of the root itself, a link not followed.
    pub(super) fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat2(&self.fd, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }

    /// Returns the descriptor of the root.
    pub(super) fn root_fd(&self) -> &OwnedFd {
        &self.fd
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
        let now = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
        let path = now(fd)?.strip_prefix(now(&self.fd)?).ok()?.to_path_buf();
        // A deleted file's link ends in ` (deleted)`, which could also be a name: only the inode tells.
        let here = self.root.metadata(&path).ok()?;
        let stat = statat(fd, c"", AtFlags::EMPTY_PATH).ok()?;
        (here.ino == stat.st_ino).then_some(path)
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
