//! The directory that acts as `/`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{FileKind, Metadata, Timestamp};

/// A directory below which everything resolves; nothing reached through it lies outside.
///
/// Paths are relative to the root; a leading `/` means the same. `.` and repeated or trailing slashes do not
/// matter, `..` never climbs above the root. Symbolic links in the directory part of a path are followed inside
/// the root; the last component is not followed unless a method says so. The empty path is the root itself.
#[derive(Debug)]
pub struct RootDir {
    path: PathBuf,
}

impl RootDir {
    /// Opens the directory at `path` of this process's own file system; symbolic links in `path` are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        todo!()
    }

    /// Returns the path this root was opened by, for messages and for mounting.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory at `path` (links followed) a root of its own.
    pub fn subdir(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        todo!()
    }

    /// Returns the metadata of the entry itself, a link not followed.
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        todo!()
    }

    /// Returns the metadata of what `path` leads to.
    pub fn metadata_follow(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        todo!()
    }

    /// Tells whether there is an entry, a dangling link included.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        todo!()
    }

    /// Returns the path with all symbolic links followed, relative to the root; components that do not exist stay.
    ///
    /// A dangling link resolves to its target. `ELOOP` after 40 links.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        todo!()
    }

    /// Opens a regular file for reading, links followed; anything else is an error and is not opened.
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        todo!()
    }

    /// Opens a regular file for reading unless the last component is a link (`ELOOP`).
    pub fn open_nofollow(&self, path: impl AsRef<Path>) -> io::Result<File> {
        todo!()
    }

    /// Returns a symbolic link's target.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        todo!()
    }

    /// Reads a whole regular file, links followed.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        todo!()
    }

    /// Returns the names in a directory (links followed) in byte order.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        todo!()
    }

    /// Creates a regular file that must not exist yet and opens it for writing; `mode` is exact, whatever the umask.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        todo!()
    }

    /// Creates a directory that must not exist yet; `mode` is exact, whatever the umask.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        todo!()
    }

    /// Creates a directory and its missing parents, links (dangling ones too) followed, and reports each created
    /// path (all links resolved, outermost first); `mode` is exact.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        on_create: &mut dyn FnMut(&Path),
    ) -> io::Result<()> {
        todo!()
    }

    /// Creates a symbolic link at `path`.
    pub fn symlink(&self, target: &Path, path: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Gives the inode at `from` (a link not followed) the further name `to`.
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Creates a device node, FIFO, socket or empty regular file; `mode` is exact.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileKind, mode: u32) -> io::Result<()> {
        todo!()
    }

    /// Renames, replacing what is at `to` if the kernel allows it.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Removes one entry that is not a directory.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Removes an entry and everything below it; a missing one is no error. For the root: everything in it.
    ///
    /// Directories that their owner may not write are made writable first; links are removed, not followed.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        todo!()
    }

    /// Changes the owner of the entry itself. The kernel clears setuid, setgid and file capabilities of files.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> io::Result<()> {
        todo!()
    }

    /// Changes the mode (`0o7777` bits) of an entry that is not a link (`EOPNOTSUPP`).
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        todo!()
    }

    /// Sets the modification time of the entry itself and leaves its access time.
    pub fn set_mtime(&self, path: impl AsRef<Path>, mtime: Timestamp) -> io::Result<()> {
        todo!()
    }

    /// Returns all extended attributes of the entry itself; empty where the file system has none.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
        todo!()
    }

    /// Sets one extended attribute of the entry itself.
    pub fn set_xattr(&self, path: impl AsRef<Path>, name: &OsStr, value: &[u8]) -> io::Result<()> {
        todo!()
    }

    /// Removes one extended attribute of the entry itself; a missing one is no error.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: &OsStr) -> io::Result<()> {
        todo!()
    }
}
