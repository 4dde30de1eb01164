//! Mount primitives of a step's child: detached mounts that are attached to descriptors, never to path names.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    mount_move, move_mount, open_tree, unmount,
};

use super::sys;

/// As much as most containers' mounts take: each further read makes the kernel look for the place where it was.
const MOUNTINFO_BYTES: usize = 32 << 10;

/// Makes every mount of this namespace private, so that nothing done here is seen outside.
pub(super) fn make_all_private() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Makes a new file system, not attached anywhere; an option without a value is a flag.
pub(super) fn new_filesystem(
    name: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Makes a detached copy of what is mounted at and below `path` of this process's file system, links not followed.
pub(super) fn copy_of_path(path: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// Makes a detached copy of what is mounted at and below what `fd` refers to.
pub(super) fn copy_of(fd: impl AsFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(fd, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Attaches a detached mount at what `target` refers to.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Sets attributes of a mount and of all below it (Linux 5.12).
pub(super) fn restrict(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    sys::mount_setattr(mount, attributes, MountAttrFlags::empty(), true)
}

/// Returns the id of the mount that `fd` is on.
pub(super) fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no mnt_id in fdinfo"))
}

/// Makes the mount at `root` the root of this process, and lets go of the old one.
///
/// Where pivot_root is forbidden (Docker's profile allows mounts but not this) the new root is moved over the old.
pub(super) fn change_root(root: impl AsFd) -> io::Result<()> {
    rustix::process::fchdir(&root)?;
    match rustix::process::pivot_root(c".", c".") {
        Ok(()) => unmount(c".", UnmountFlags::DETACH)?,
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => {
            mount_move(c".", c"/")?;
            rustix::process::chroot(c".")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::process::chdir(c"/")?)
}

/// Tells whether what `fd` refers to is a directory.
pub(super) fn is_directory(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Something that is mounted in this process's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// What no other mount has as long as this one is there.
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) is_read_only: bool,
}

/// Returns every mount but `/`, in the order in which they were made (proc_pid_mountinfo(5)).
pub(super) fn mounts() -> io::Result<Vec<Mounted>> {
    let mut text = Vec::with_capacity(MOUNTINFO_BYTES);
    File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

fn parse_mount(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let id = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
    let path = PathBuf::from(unescape(fields.get(4)?));
    let says_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
    // The options of the mount, and at the end of the line those of the file system.
    let is_read_only = says_read_only(fields.get(5)?) || says_read_only(fields.last()?);
    (path != Path::new("/")).then_some(Mounted { id, path, is_read_only })
}

/// Returns every mount point but `/`.
pub(super) fn mount_points() -> io::Result<BTreeSet<PathBuf>> {
    Ok(mounts()?.into_iter().map(|mount| mount.path).collect())
}

/// Undoes the octal escapes (`\040`) of mountinfo.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\134c"), OsString::from("/a b\\c"));
        assert_eq!(unescape(b"/plain\\"), OsString::from("/plain\\"));
    }

    #[test]
    fn the_proc_mount_is_known() {
        assert!(mount_points().unwrap().contains(Path::new("/proc")));
    }
}
