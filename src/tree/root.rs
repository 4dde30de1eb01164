//! The directory that acts as `/`: opening and looking.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::metadata::look;
use super::names::{Names, ReadBuffer};
use super::resolve::{self, DirFd, Resolution};
use super::{FileKind, Metadata};

/// What [`RootDir::read`] is for is configuration; a hostile sparse file must not fill the memory.
const READ_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

const READ_FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory below which everything resolves; nothing reached through it lies outside.
///
/// Paths are relative to the root; a leading `/` means the same. `.` and repeated or trailing slashes do not
/// matter, `..` never climbs above the root. Symbolic links in the directory part of a path are followed inside
/// the root; the last component is not followed unless a method says so. The empty path is the root itself.
///
/// The methods that change files are in `modify.rs`, those for extended attributes in `xattr.rs`.
#[derive(Debug)]
pub struct RootDir {
    path: PathBuf,
    fd: OwnedFd,
    use_openat2: bool,
    is_exposed: bool,
}

impl AsFd for RootDir {
    /// Returns the root's `O_PATH` descriptor, for callers that work on many entries of one directory. Who uses it must
    /// see to it that nothing is followed out of the root.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl RootDir {
    /// Opens the directory at `path` of this process's own file system; symbolic links in `path` are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::from_fd(rustix::fs::open(path, resolve::HANDLE, Mode::empty())?, path))
    }

    /// Opens the directory at the absolute `path` of this process's own file system, where no component is a link: with
    /// one it is `ENOTDIR`, whoever put it there.
    pub fn open_exact(path: &Path) -> io::Result<Self> {
        let slash = rustix::fs::open("/", resolve::HANDLE, Mode::empty())?;
        let names = path.components().map(|component| match component {
            Component::RootDir | Component::CurDir => Ok(OsStr::new(".")),
            Component::Normal(name) => Ok(name),
            Component::ParentDir | Component::Prefix(_) => Err(Errno::INVAL),
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::from_fd(resolve::open_names(slash.as_fd(), names, resolve::HANDLE)?, path))
    }

    /// Makes the directory `fd`, which `path` names in messages, a root.
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Self {
        let use_openat2 = resolve::openat2_works(fd.as_fd());
        Self { path: path.to_path_buf(), fd, use_openat2, is_exposed: false }
    }

    /// Opens a root that behaves as on a kernel without `openat2`.
    #[cfg(test)]
    pub(super) fn open_without_openat2(path: &Path) -> io::Result<Self> {
        Ok(Self { use_openat2: false, ..Self::open(path)? })
    }

    /// Says that others than its owner can change what is in it at any time.
    pub fn exposed(self) -> Self {
        Self { is_exposed: true, ..self }
    }

    /// Tells whether what was once seen of a file has to be seen again when it is opened.
    pub fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    /// Returns the path this root was opened by, for messages and for mounting.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory at `path` (links followed) a root of its own.
    pub fn subdir(&self, path: impl AsRef<Path>) -> io::Result<Self> {
        let canonical = self.resolve(&path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = resolve::open(self.fd.as_fd(), self.use_openat2, path.as_ref(), flags)?;
        Ok(Self {
            path: self.path.join(canonical),
            fd,
            use_openat2: self.use_openat2,
            is_exposed: self.is_exposed,
        })
    }

    /// Returns the metadata of the entry itself, a link not followed.
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        let (dir, name) = self.parent(path.as_ref())?;
        Ok(look(dir, name)?.metadata)
    }

    /// Returns the metadata of what `path` leads to.
    pub fn metadata_follow(&self, path: impl AsRef<Path>) -> io::Result<Metadata> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Metadata::of(resolve::open(self.fd.as_fd(), self.use_openat2, path.as_ref(), flags)?)
    }

    /// Tells whether there is an entry, a dangling link included.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the path with all symbolic links followed, relative to the root; components that do not exist stay.
    ///
    /// A dangling link resolves to its target. `ELOOP` after 40 links, `ENOTDIR` below something that is no directory.
    pub fn resolve(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        Resolution::of(self.fd.as_fd(), path.as_ref()).canonical()
    }

    /// Opens a regular file for reading, links followed; anything else is an error and is not opened.
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        refuse_irregular(&self.metadata_follow(path)?)?;
        Ok(resolve::open(self.fd.as_fd(), self.use_openat2, path, READ_FILE)?.into())
    }

    /// Opens a regular file for reading unless the last component is a link (`ELOOP`).
    pub fn open_nofollow(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (dir, name) = self.parent(path.as_ref())?;
        refuse_irregular(&look(&dir, name)?.metadata)?;
        Ok(rustix::fs::openat(&dir, name, READ_FILE | OFlags::NOFOLLOW, Mode::empty())?.into())
    }

    /// Returns a handle (`O_PATH`) of what `path` leads to, whatever it is.
    pub fn open_path(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        resolve::open(self.fd.as_fd(), self.use_openat2, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC)
    }

    /// Returns a handle (`O_PATH`) of the entry itself, a link not followed.
    pub fn open_entry(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let (dir, name) = self.parent(path.as_ref())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
    }

    /// Returns a symbolic link's target.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let (dir, name) = self.parent(path.as_ref())?;
        let target = rustix::fs::readlinkat(&dir, name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Reads a whole regular file of at most 64 MiB, links followed.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let length = self.open_file(path)?.take(READ_LIMIT_BYTES + 1).read_to_end(&mut content)?;
        if length as u64 > READ_LIMIT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }

    /// Returns the names in a directory (links followed) in byte order.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = resolve::open(self.fd.as_fd(), self.use_openat2, path.as_ref(), flags)?;
        Ok(Names::read(dir, &mut ReadBuffer::new())?.iter().map(OsStr::to_os_string).collect())
    }

    /// Returns a handle of the directory `path`, links followed.
    pub(super) fn handle(&self, path: &Path) -> io::Result<DirFd<'_>> {
        resolve::open_dir(self.fd.as_fd(), self.use_openat2, path)
    }

    /// Returns the directory that holds the last component, and that component; `.` for paths that have none.
    pub(super) fn parent<'path>(&self, path: &'path Path) -> io::Result<(DirFd<'_>, &'path OsStr)> {
        let mut components = path.components();
        match components.next_back() {
            Some(Component::Normal(name)) => Ok((self.handle(components.as_path())?, name)),
            _ => Ok((self.handle(path)?, OsStr::new("."))),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn refuse_irregular(metadata: &Metadata) -> io::Result<()> {
    match metadata.kind {
        FileKind::File => Ok(()),
        FileKind::Directory => Err(Errno::ISDIR.into()),
        FileKind::Symlink => Err(Errno::LOOP.into()),
        kind => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("expected a regular file, found a {kind}"),
        )),
    }
}
