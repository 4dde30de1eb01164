//! Making one entry in one open directory.
//!
//! Every function takes the directory's descriptor and a single name that was checked to be one, and follows no link:
//! nothing here can leave the directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::{TarEntry, TarEntryKind, TarReader};
use crate::tree::{Device, FileKind, Metadata, Timestamp};

/// Tells what is at `name`; `None` if nothing is.
pub(super) fn look(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<FileKind>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(Metadata::of(fd)?.kind)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory `name`; a link to one is not one.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Makes a directory that only we may enter until it gets its own mode.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(dir, name, Mode::RWXU)?)
}

/// Makes a file with the content that `tar` is at; holes stay holes.
pub(super) fn make_file<R: io::BufRead>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &TarEntry,
    tar: &mut TarReader<R>,
) -> Result<File, Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| Failure::Tree(error.into()))?;
    let mut file = File::from(fd);
    match &entry.data {
        None => write_stored(&mut file, entry.size_bytes, tar)?,
        Some(segments) => {
            for (offset, length) in segments {
                file.seek(SeekFrom::Start(*offset)).map_err(Failure::Tree)?;
                write_stored(&mut file, *length, tar)?;
            }
            file.set_len(entry.size_bytes).map_err(Failure::Tree)?;
        }
    }
    Ok(file)
}

/// Which side failed: that of the archive or that of the tree.
pub(super) enum Failure {
    Archive(io::Error),
    Tree(io::Error),
}

fn write_stored<R: io::BufRead>(
    file: &mut File,
    mut length: u64,
    tar: &mut TarReader<R>,
) -> Result<(), Failure> {
    while length > 0 {
        let bytes = tar.stored(length).map_err(Failure::Archive)?;
        let written = bytes.len();
        if written == 0 {
            let text = "a file has less content than its header says";
            return Err(Failure::Archive(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        file.write_all(bytes).map_err(Failure::Tree)?;
        tar.consume_stored(written);
        length -= written as u64;
    }
    Ok(())
}

/// Makes a link, device or pipe.
pub(super) fn make_other(dir: BorrowedFd<'_>, name: &OsStr, kind: &TarEntryKind) -> io::Result<()> {
    let node = |kind, device: Device| {
        let number = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, number)
    };
    match kind {
        TarEntryKind::Symlink { target } => rustix::fs::symlinkat(target, dir, name)?,
        TarEntryKind::CharDevice(device) => node(FileType::CharacterDevice, *device)?,
        TarEntryKind::BlockDevice(device) => node(FileType::BlockDevice, *device)?,
        TarEntryKind::Fifo => node(FileType::Fifo, Device { major: 0, minor: 0 })?,
        TarEntryKind::File | TarEntryKind::Directory | TarEntryKind::HardLink { .. } => {
            unreachable!("made by functions of their own")
        }
    }
    Ok(())
}

/// Makes an overlay's whiteout.
pub(super) fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Gives an entry, not followed, to a user and a group.
pub(super) fn set_owner(at: Target<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let done = match at {
        Target::Open(file) => rustix::fs::fchown(file, uid, gid),
        Target::Named(dir, name) => rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    };
    Ok(done?)
}

/// Sets the mode of anything but a symbolic link. A name must be known not to be one.
pub(super) fn set_mode(at: Target<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    let done = match at {
        Target::Open(file) => rustix::fs::fchmod(file, mode),
        Target::Named(dir, name) => rustix::fs::chmodat(dir, name, mode, AtFlags::empty()),
    };
    Ok(done?)
}

/// Sets the modification time of an entry, not followed.
pub(super) fn set_mtime(at: Target<'_>, mtime: Timestamp) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    };
    let done = match at {
        Target::Open(file) => rustix::fs::futimens(file, &times),
        Target::Named(dir, name) => rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
    };
    Ok(done?)
}

/// Sets an attribute of an open file.
pub(super) fn set_xattr(file: &File, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Gives what is at `from` in one directory the further name `to` in another.
pub(super) fn make_link(from: (BorrowedFd<'_>, &OsStr), to: (BorrowedFd<'_>, &OsStr)) -> Result<(), Errno> {
    rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())
}

/// Removes an entry that is not a directory.
pub(super) fn unlink(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
}

/// Returns a directory's own modification time.
pub(super) fn mtime_of(dir: impl AsFd) -> io::Result<Timestamp> {
    Ok(Metadata::of(dir)?.mtime)
}

/// An entry that is open, or named in its directory.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Open(&'a File),
    Named(BorrowedFd<'a>, &'a OsStr),
}
