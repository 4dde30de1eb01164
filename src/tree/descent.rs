//! A way down into a tree and back up, of any depth, with a bounded number of open descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::resolve::open_names;

/// Descriptors kept open at once; deeper ways close the oldest and open them again on the way back.
const OPEN_LEVELS: usize = 48;

const READ_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The directories from a start to where we are, each open for reading.
#[derive(Debug)]
pub(super) struct Descent {
    start: OwnedFd,
    levels: Vec<Level>,
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
        let start = rustix::fs::openat(start, ".", READ_DIR, Mode::empty())?;
        Ok(Self { start, levels: Vec::new() })
    }

    /// Returns the directory we are in, open for reading.
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
        let fd = rustix::fs::openat(self.current(), name, READ_DIR, Mode::empty())?;
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
        if let Ok(fd) = rustix::fs::openat(child, "..", READ_DIR, Mode::empty())
            && identity(&fd)? == expected
        {
            return Ok(fd);
        }
        open_names(self.start.as_fd(), self.levels.iter().map(|level| level.name.as_os_str()), READ_DIR)
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = super::Metadata::of(fd)?;
    Ok((found.dev, found.ino))
}
