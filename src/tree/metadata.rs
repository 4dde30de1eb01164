//! What the kernel says about a file, without its name and content.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, Stat, StatxFlags, makedev};
use rustix::io::Errno;
use rustix::path::Arg;

/// A point in time with nanoseconds, as file systems keep it; may lie before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds past `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// The number of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The driver's own number for the device.
    pub minor: u32,
}

/// The type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device node; 0:0 is an overlay whiteout.
    CharDevice(Device),
    /// A block device node.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// The inode of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The type, with the device number of device nodes.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owning user id.
    pub uid: u32,
    /// Owning group id.
    pub gid: u32,
    /// Length of a file's content or of a link's target; meaningless for directories.
    pub size_bytes: u64,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// The file system's device number, as one number.
    pub dev: u64,
    /// The inode number within `dev`.
    pub ino: u64,
    /// How many names the inode has.
    pub nlink: u64,
}
