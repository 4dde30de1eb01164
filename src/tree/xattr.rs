//! The directory that acts as `/`: extended attributes.
//!
//! Old kernels know no `*at` calls for them, so an entry is named by way of `/proc/self/fd`, which works for every
//! kind of entry without opening it. Where /proc is missing, files and directories are opened instead.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::metadata::look;
use super::{FileKind, RootDir};

/// Most entries have a handful of short attributes; longer ones are asked for again with the right size.
const FIRST_GUESS_BYTES: usize = 256;

/// Extended attributes by name.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

impl RootDir {
    /// Returns the extended attributes of the entry itself; empty where the file system has none.
    ///
    /// Labels that the host's security modules and network file systems put on every file are no part of it.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> io::Result<Xattrs> {
        let (dir, name) = self.parent(path.as_ref())?;
        xattrs_at(dir.as_fd(), name)
    }

    /// Sets one extended attribute of the entry itself.
    pub fn set_xattr(&self, path: impl AsRef<Path>, name: &OsStr, value: &[u8]) -> io::Result<()> {
        let (dir, entry) = self.parent(path.as_ref())?;
        set_xattr_at(dir.as_fd(), entry, name, value)
    }

    /// Removes one extended attribute of the entry itself; a missing one is no error.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: &OsStr) -> io::Result<()> {
        let (dir, entry) = self.parent(path.as_ref())?;
        let removed = Named::at(dir.as_fd(), entry).call(|way| match way {
            Way::Path(path) => rustix::fs::lremovexattr(path, name),
            Way::Open(fd) => rustix::fs::fremovexattr(fd, name),
        });
        match removed {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn set_xattr_at(dir: BorrowedFd<'_>, entry: &OsStr, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(Named::at(dir, entry).call(|way| match way {
        Way::Path(path) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
        Way::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
    })?)
}

pub(super) fn xattrs_at(dir: BorrowedFd<'_>, entry: &OsStr) -> io::Result<Xattrs> {
    xattrs_of(&Named::at(dir, entry))
}

fn xattrs_of(named: &Named<'_>) -> io::Result<Xattrs> {
    let listed = grow(|buffer| {
        named.call(|way| match way {
            Way::Path(path) => rustix::fs::llistxattr(path, &mut *buffer),
            Way::Open(fd) => rustix::fs::flistxattr(fd, &mut *buffer),
        })
    });
    let list = match listed {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        // Without /proc, entries that must not be opened tell nothing.
        Err(Errno::NXIO | Errno::LOOP) => return Ok(Xattrs::new()),
        result => result?,
    };
    let mut xattrs = Xattrs::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !belongs_to_host(name)) {
        let name = OsStr::from_bytes(name);
        let value = grow(|buffer| {
            named.call(|way| match way {
                Way::Path(path) => rustix::fs::lgetxattr(path, name, &mut *buffer),
                Way::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut *buffer),
            })
        });
        match value {
            Ok(value) => drop(xattrs.insert(OsString::from_vec(name.as_bytes().to_vec()), value)),
            // Listed but not for us to see, or gone meanwhile.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

/// Tells whether an attribute describes the machine and not the image.
fn belongs_to_host(name: &[u8]) -> bool {
    const HOSTS: [&[u8]; 6] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.apparmor",
        b"system.nfs4_acl",
        b"system.cifs_acl",
    ];
    HOSTS.contains(&name) || name.starts_with(b"security.SMACK64")
}

/// Calls `read` with a larger buffer until the answer fits.
fn grow(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; FIRST_GUESS_BYTES];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // The kernel's limit for both lists and values is 64 KiB.
            Err(Errno::RANGE) if buffer.len() <= 1 << 16 => buffer.resize(buffer.len() * 8, 0),
            Err(error) => return Err(error),
        }
    }
}

/// An entry as the extended attribute calls can name it.
struct Named<'dir> {
    dir: BorrowedFd<'dir>,
    entry: &'dir OsStr,
    path: PathBuf,
}

enum Way<'a> {
    Path(&'a Path),
    Open(&'a OwnedFd),
}

impl<'dir> Named<'dir> {
    fn at(dir: BorrowedFd<'dir>, entry: &'dir OsStr) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(entry);
        Self { dir, entry, path }
    }

    fn call<T>(&self, mut ask: impl FnMut(Way<'_>) -> Result<T, Errno>) -> Result<T, Errno> {
        match ask(Way::Path(&self.path)) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => ask(Way::Open(&self.open()?)),
            result => result,
        }
    }

    fn open(&self) -> Result<OwnedFd, Errno> {
        let found =
            look(self.dir, self.entry).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        match found.metadata.kind {
            FileKind::File | FileKind::Directory => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::openat(self.dir, self.entry, flags, Mode::empty())
            }
            FileKind::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn works_without_proc() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        root.create_file("f", 0o600).unwrap();
        root.create_dir("d", 0o700).unwrap();
        root.symlink(Path::new("f"), "l").unwrap();
        root.mknod("p", FileKind::Fifo, 0o600).unwrap();
        let name = OsStr::new("user.test");
        for entry in ["f", "d", "."] {
            let named =
                Named { path: PathBuf::from("/nonexistent"), ..Named::at(root.fd(), OsStr::new(entry)) };
            let set = named.call(|way| match way {
                Way::Path(path) => rustix::fs::lsetxattr(path, name, b"value", XattrFlags::empty()),
                Way::Open(fd) => rustix::fs::fsetxattr(fd, name, b"value", XattrFlags::empty()),
            });
            set.unwrap();
            assert_eq!(xattrs_of(&named).unwrap()[name], b"value", "{entry}");
        }
        for entry in ["l", "p"] {
            let named =
                Named { path: PathBuf::from("/nonexistent"), ..Named::at(root.fd(), OsStr::new(entry)) };
            assert!(xattrs_of(&named).unwrap().is_empty(), "{entry}");
        }
        let named =
            Named { path: PathBuf::from("/nonexistent"), ..Named::at(root.fd(), OsStr::new("missing")) };
        assert_eq!(xattrs_of(&named).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn labels_of_the_host_are_left_out() {
        for name in ["security.selinux", "security.ima", "security.SMACK64EXEC", "system.nfs4_acl"] {
            assert!(belongs_to_host(name.as_bytes()), "{name}");
        }
        for name in ["security.capability", "system.posix_acl_access", "user.selinux", "trusted.x"] {
            assert!(!belongs_to_host(name.as_bytes()), "{name}");
        }
    }
}
