//! A way down into a tree and back up, of any depth, with a bounded number of open descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::RootDir;
use super::resolve::open_names;

/// Descriptors kept open at once; deeper ways close the oldest and open them again on the way back.
const OPEN_LEVELS: usize = 48;

const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// For calls on what is in a directory; needs no right to read it.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories from a start to where we are, each open: for reading, but on a [`Way`].
#[derive(Debug)]
pub(super) struct Descent {
    start: OwnedFd,
    levels: Vec<Level>,
    /// How directories are opened.
    flags: OFlags,
}

#[derive(Debug)]
struct Level {
    name: OsString,
    fd: Option<OwnedFd>,
    /// Device and inode number, to know the directory again.
    identity: (u64, u64),
}

impl Descent {
    /// Begins in the directory `start`, a handle of any kind.
    pub(super) fn new(start: impl AsFd) -> io::Result<Self> {
        Self::with_flags(start, READ_DIR)
    }

    fn with_flags(start: impl AsFd, flags: OFlags) -> io::Result<Self> {
        let start = rustix::fs::openat(start, ".", flags, Mode::empty())?;
        Ok(Self { start, levels: Vec::new(), flags })
    }

    /// Returns the directory we are in.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        match self.levels.last() {
            None => self.start.as_fd(),
            Some(level) => level.fd.as_ref().expect("the deepest level is open").as_fd(),
        }
    }

    /// Returns the path from the start to where we are.
    pub(super) fn path(&self) -> PathBuf {
        let names: Vec<&OsStr> = self.levels.iter().map(|level| level.name.as_os_str()).collect();
        PathBuf::from(names.join(OsStr::new("/")))
    }

    /// Goes down into the directory `name`, never through a link.
    pub(super) fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let fd = rustix::fs::openat(self.current(), name, self.flags, Mode::empty())?;
        self.levels.push(Level { name: name.to_os_string(), fd: Some(fd), identity: (0, 0) });
        if let Some(oldest) = self.levels.len().checked_sub(OPEN_LEVELS + 1)
            && let Some(fd) = &self.levels[oldest].fd
        {
            let identity = identity(fd)?;
            self.levels[oldest].identity = identity;
            self.levels[oldest].fd = None;
        }
        Ok(())
    }

    /// Goes back up one level and returns the name of the directory that was left; `None` at the start.
    pub(super) fn leave(&mut self) -> io::Result<Option<OsString>> {
        let Some(left) = self.levels.pop() else { return Ok(None) };
        if let Some(parent) = self.levels.last()
            && parent.fd.is_none()
        {
            let child = left.fd.as_ref().expect("the deepest level was open");
            let fd = self.reopen(child, parent.identity)?;
            self.levels.last_mut().expect("is there").fd = Some(fd);
        }
        Ok(Some(left.name))
    }

    /// Opens the deepest level again: by `..` if that is still the same directory, else by name.
    fn reopen(&self, child: &OwnedFd, expected: (u64, u64)) -> io::Result<OwnedFd> {
        if let Ok(fd) = rustix::fs::openat(child, "..", self.flags, Mode::empty())
            && identity(&fd)? == expected
        {
            return Ok(fd);
        }
        open_names(self.start.as_fd(), self.levels.iter().map(|level| level.name.as_os_str()), self.flags)
    }
}

/// Goes from directory to directory of a tree, each by its path without links: from one to the next costs what they do
/// not have in common.
#[derive(Debug)]
pub struct Way(Descent);

impl Way {
    /// Begins at the root.
    pub fn from(root: &RootDir) -> io::Result<Self> {
        Ok(Self(Descent::with_flags(root, HANDLE)?))
    }

    /// Goes to the directory at `path`, relative to the root, and returns a handle of it.
    pub fn to(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        let names = || path.components().map(Component::as_os_str);
        let levels = &self.0.levels;
        let common = levels.iter().zip(names()).take_while(|(level, name)| level.name == *name).count();
        while self.0.levels.len() > common {
            self.0.leave()?;
        }
        for name in names().skip(common) {
            self.0.enter(name)?;
        }
        Ok(self.0.current())
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = super::Metadata::of(fd)?;
    Ok((found.dev, found.ino))
}
