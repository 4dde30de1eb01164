//! The directory that acts as `/`: creating, changing and removing.
//!
//! Modes are exact whatever the process's umask is, so that no output depends on who started kiln.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::descent::Descent;
use super::metadata::{Metadata, look};
use super::names::{Names, ReadBuffer};
use super::regular::NotRegular;
use super::resolve::Resolution;
use super::{FileKind, RootDir, Timestamp};

impl RootDir {
    /// Creates a regular file that must not exist yet and opens it for writing; `mode` is exact, whatever the umask.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let (dir, name) = self.parent(path.as_ref())?;
        create_file_at(dir.as_fd(), name, mode)
    }

    /// Creates a directory that must not exist yet; `mode` is exact, whatever the umask.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        create_dir_at(dir.as_fd(), name, mode)
    }

    /// Creates a directory and its missing parents, links (dangling ones too) followed, and reports each created
    /// path (all links resolved, outermost first); `mode` is exact.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        on_create: &mut dyn FnMut(&Path),
    ) -> io::Result<()> {
        match self.handle(path.as_ref()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Resolution::create(self.fd(), &self.resolve(path)?, &mut |dir, name, path| {
            create_dir_at(dir, name, mode)?;
            on_create(path);
            Ok(())
        })
    }

    /// Creates a symbolic link at `path`.
    pub fn symlink(&self, target: &Path, path: impl AsRef<Path>) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        Ok(rustix::fs::symlinkat(target, dir, name)?)
    }

    /// Gives the inode at `from` (a link not followed) the further name `to`.
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.hard_link_to(from, self, to)
    }

    /// Gives the inode at `from` (a link not followed) the further name `to_path` in the root `to`.
    pub fn hard_link_to(
        &self,
        from: impl AsRef<Path>,
        to: &Self,
        to_path: impl AsRef<Path>,
    ) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from.as_ref())?;
        let (to_dir, to_name) = to.parent(to_path.as_ref())?;
        Ok(rustix::fs::linkat(from_dir, from_name, to_dir, to_name, AtFlags::empty())?)
    }

    /// Opens a file for reading and writing, which is made with `mode` less the umask if it is missing; a link is
    /// `ELOOP`, and anything else [`NotRegular`].
    pub fn open_or_create(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let (dir, name) = self.parent(path.as_ref())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o7777))?.into();
        match Metadata::of(&file)?.kind {
            FileKind::File => Ok(file),
            found => Err(NotRegular { found }.into()),
        }
    }

    /// Creates a device node, FIFO, socket or empty regular file; `mode` is exact.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileKind, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        mknod_at(dir.as_fd(), name, kind, mode)
    }

    /// Renames, replacing what is at `to` if the kernel allows it.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        self.rename_to(from, self, to)
    }

    /// Renames into the root `to` (`EXDEV` between file systems), replacing what is there if the kernel allows it.
    pub fn rename_to(&self, from: impl AsRef<Path>, to: &Self, to_path: impl AsRef<Path>) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from.as_ref())?;
        let (to_dir, to_name) = to.parent(to_path.as_ref())?;
        Ok(rustix::fs::renameat(from_dir, from_name, to_dir, to_name)?)
    }

    /// Removes one entry that is not a directory.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes an entry and everything below it; a missing one is no error. For the root: everything in it.
    ///
    /// Directories that their owner may not write are made writable first. Links are removed, not followed; a mount
    /// point is an error (`EBUSY`) before anything of what is mounted there is touched.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (dir, name) = match self.parent(path.as_ref()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            result => result?,
        };
        if name == "." {
            return Removal::new(Descent::new(&dir)?)?.run();
        }
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut removal =
            Removal { descent: Descent::new(&dir)?, frames: Vec::new(), buffer: ReadBuffer::new() };
        removal.enter(name)?;
        removal.run()
    }

    /// Removes what is in the root, but for directories: returns their names. A mount point is an error (`EBUSY`).
    pub fn remove_files(&self) -> io::Result<Vec<OsString>> {
        let (dir, _) = self.parent(Path::new(""))?;
        Removal::new(Descent::new(&dir)?)?.run_flat()
    }

    /// Changes the owner of the entry itself. The kernel clears setuid, setgid and file capabilities of files.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        set_owner_at(dir.as_fd(), name, uid, gid)
    }

    /// Changes the mode (`0o7777` bits) of an entry that is not a link (`EOPNOTSUPP`).
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        // Kernels before 6.6 cannot change a mode without following links, and /proc may be missing.
        if look(&dir, name)?.metadata.kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    /// Sets the modification time of the entry itself and leaves its access time.
    pub fn set_mtime(&self, path: impl AsRef<Path>, mtime: Timestamp) -> io::Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        set_mtime_at(dir.as_fd(), name, mtime)
    }
}

pub(super) fn create_file_at(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))?;
    Ok(fd.into())
}

pub(super) fn create_dir_at(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    // Not by its name: in a directory that steps share, a link may have taken its place.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(mode & 0o7777))?)
}

pub(super) fn mknod_at(dir: BorrowedFd<'_>, name: &OsStr, kind: FileKind, mode: u32) -> io::Result<()> {
    let (file_type, device) = match kind {
        FileKind::File => (FileType::RegularFile, 0),
        FileKind::Fifo => (FileType::Fifo, 0),
        FileKind::Socket => (FileType::Socket, 0),
        FileKind::CharDevice(device) => (FileType::CharacterDevice, device.number()),
        FileKind::BlockDevice(device) => (FileType::BlockDevice, device.number()),
        FileKind::Directory | FileKind::Symlink => return Err(Errno::INVAL.into()),
    };
    rustix::fs::mknodat(dir, name, file_type, Mode::from_raw_mode(0o600), device)?;
    Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
}

pub(super) fn set_owner_at(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
    // To the system call, all ones means "leave it".
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL.into());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn set_mtime_at(dir: BorrowedFd<'_>, name: &OsStr, mtime: Timestamp) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    };
    Ok(rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes a tree from its leaves up, without recursion.
struct Removal {
    descent: Descent,
    /// The names of each directory entered, and which comes next.
    frames: Vec<(Names, usize)>,
    buffer: ReadBuffer,
}

impl Removal {
    /// Prepares to empty the directory where `descent` begins, which itself stays.
    fn new(descent: Descent) -> io::Result<Self> {
        let mut buffer = ReadBuffer::new();
        let names = Names::read(descent.current(), &mut buffer)?;
        Ok(Self { descent, frames: vec![(names, 0)], buffer })
    }

    fn run(mut self) -> io::Result<()> {
        while let Some((names, next)) = self.frames.last_mut() {
            if *next == names.len() {
                self.frames.pop();
                if let Some(name) = self.descent.leave()? {
                    self.unlink(&name, AtFlags::REMOVEDIR)?;
                }
                continue;
            }
            let (name, file_type) = names.get(*next);
            let name = OsStr::from_bytes(name.to_bytes()).to_os_string();
            *next += 1;
            let is_dir = match file_type {
                FileType::Directory => true,
                FileType::Unknown => self.unlink(&name, AtFlags::empty()).map(|removed| !removed)?,
                _ => !self.unlink(&name, AtFlags::empty())?,
            };
            if is_dir {
                self.enter(&name)?;
            }
        }
        Ok(())
    }

    /// Removes the files of the first directory alone; returns the names of the directories in it.
    fn run_flat(mut self) -> io::Result<Vec<OsString>> {
        let mut directories = Vec::new();
        let (names, _) = self.frames.pop().expect("begun in a directory");
        for (name, file_type) in (0..names.len()).map(|index| names.get(index)) {
            let name = OsStr::from_bytes(name.to_bytes());
            if file_type != FileType::Directory && self.unlink(name, AtFlags::empty())? {
                continue;
            }
            if look(self.descent.current(), name)?.mount_root == Some(true) {
                return Err(Errno::BUSY.into());
            }
            directories.push(name.to_owned());
        }
        Ok(directories)
    }

    /// Removes `name` from the current directory; `false` if it is a directory and `flags` are for files.
    fn unlink(&self, name: &OsStr, flags: AtFlags) -> io::Result<bool> {
        let dir = self.descent.current();
        let mut result = rustix::fs::unlinkat(dir, name, flags);
        if result == Err(Errno::ACCESS) {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            result = rustix::fs::unlinkat(dir, name, flags);
        }
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let dir = self.descent.current();
        if look(dir, name)?.mount_root == Some(true) {
            return Err(Errno::BUSY.into());
        }
        match self.descent.enter(name) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                rustix::fs::chmodat(self.descent.current(), name, Mode::RWXU, AtFlags::empty())?;
                self.descent.enter(name)?;
            }
            result => result?,
        }
        let names = Names::read(self.descent.current(), &mut self.buffer)?;
        self.frames.push((names, 0));
        Ok(())
    }
}
