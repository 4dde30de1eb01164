//! What the kernel says about a file, without its name and content.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dev, FileType, Stat, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use serde::{Deserialize, Serialize};

/// A point in time with nanoseconds, as file systems keep it; may lie before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds past `seconds`, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// The number of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The driver's own number for the device.
    pub minor: u32,
}

/// The type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

impl FileKind {
    /// Tells whether this is a directory.
    pub fn is_dir(self) -> bool {
        self == Self::Directory
    }

    fn new(file_type: FileType, device: Device) -> Self {
        match file_type {
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice(device),
            FileType::BlockDevice => Self::BlockDevice(device),
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::RegularFile | FileType::Unknown => Self::File,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "regular file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::CharDevice(_) => "character device",
            Self::BlockDevice(_) => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
        })
    }
}

impl Device {
    pub(super) fn number(self) -> Dev {
        rustix::fs::makedev(self.major, self.minor)
    }

    fn from_number(number: u64) -> Self {
        Self { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
    }
}

impl Metadata {
    /// Reads the metadata of an open file.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    /// Tells whether two names belong to one inode.
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Tells whether `later` is the same inode, and nothing of it was changed in between.
    pub fn is_untouched(&self, later: &Self) -> bool {
        self.same_inode(later) && self.ctime == later.ctime
    }

    fn from_stat(stat: &Stat) -> Self {
        // The integer types of `struct stat` differ between architectures.
        #![expect(clippy::unnecessary_cast, reason = "other architectures need the casts")]
        Self {
            kind: FileKind::new(
                FileType::from_raw_mode(stat.st_mode),
                Device::from_number(stat.st_rdev as u64),
            ),
            mode: (stat.st_mode as u32) & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size_bytes: stat.st_size as u64,
            mtime: Timestamp { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 },
            ctime: Timestamp { seconds: stat.st_ctime as i64, nanoseconds: stat.st_ctime_nsec as u32 },
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            nlink: stat.st_nlink as u64,
        }
    }

    fn from_statx(stat: &Statx) -> Self {
        Self {
            kind: FileKind::new(
                FileType::from_raw_mode(stat.stx_mode.into()),
                Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor },
            ),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size_bytes: stat.stx_size,
            mtime: Timestamp { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec },
            ctime: Timestamp { seconds: stat.stx_ctime.tv_sec, nanoseconds: stat.stx_ctime.tv_nsec },
            dev: Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }.number(),
            ino: stat.stx_ino,
            nlink: stat.stx_nlink.into(),
        }
    }
}

/// Metadata of a name in a directory, and whether something is mounted on that name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) metadata: Metadata,
    /// `None` where the kernel (before 5.8) does not say.
    pub(super) mount_root: Option<bool>,
}

/// Looks at `name` in the directory `dir`, a link not followed.
pub(super) fn look(dir: impl AsFd, name: impl Arg + Copy) -> io::Result<Found> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(&dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Found {
            metadata: Metadata::from_statx(&stat),
            mount_root: stat
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT)
                .then(|| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        }),
        // Seccomp profiles older than statx refuse it in their own ways.
        Err(Errno::NOSYS | Errno::PERM) => {
            let stat = rustix::fs::statat(&dir, name, flags)?;
            Ok(Found { metadata: Metadata::from_stat(&stat), mount_root: None })
        }
        Err(error) => Err(error.into()),
    }
}
