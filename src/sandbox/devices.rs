//! Whether something keeps root off this machine's disks where nothing can be mounted: a container's device cgroup.
//!
//! A root with MKNOD makes a node of any disk and opens it. In namespaces `nodev` prevents that, elsewhere only the
//! cgroup; where there is none, steps do without MKNOD, and do not see the nodes of their image.

use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::io::Errno;

use super::probe::Tried;
use crate::tree::{Device, RootDir};

/// Tried beside the disks that there are: a cgroup that refuses what others do not is not enough. The first loop device,
/// whether there is one or not.
const ANY: Device = Device { major: 7, minor: 0 };

/// Tries to open every disk of this machine by a node made in `directory`; works if none opens.
pub(super) fn are_kept_away(directory: &Path) -> Tried {
    let at = |error: io::Error| ("make a device node", error);
    std::fs::create_dir_all(directory).map_err(at)?;
    let directory = RootDir::open(directory).map_err(at)?;
    let mut disks = disks(&std::fs::read_to_string("/proc/partitions").unwrap_or_default());
    disks.push(ANY);
    let name = format!("disk-{}", std::process::id());
    for disk in disks {
        let device = makedev(disk.major, disk.minor);
        match mknodat(&directory, &*name, FileType::BlockDevice, Mode::RUSR, device) {
            Ok(()) => {}
            Err(Errno::PERM) => continue,
            Err(errno) => return Err(at(errno.into())),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&directory, &*name, flags, Mode::empty());
        directory.remove_file(&name).map_err(at)?;
        // A device that is not there is another answer than the cgroup's.
        if opened.err() != Some(Errno::PERM) {
            let text = format!("nothing forbids to open block device {}:{}", disk.major, disk.minor);
            return Err(("open a disk", io::Error::other(text)));
        }
    }
    Ok(())
}

/// Reads the device numbers of `/proc/partitions`.
fn disks(text: &str) -> Vec<Device> {
    let disk = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Device { major, minor })
    };
    text.lines().filter_map(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_read_from_the_kernels_list() {
        let text =
            "major minor  #blocks  name\n\n 254        0  268435456 vda\n   8       17       1024 sdb1\n";
        let expected = [Device { major: 254, minor: 0 }, Device { major: 8, minor: 17 }];
        assert_eq!(disks(text), expected);
        assert_eq!(disks(""), []);
    }
}
