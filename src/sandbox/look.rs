//! Metadata of directories that are moved entry by entry, and of entries that are put back: how they look, and making
//! others look like them.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::tree::{FileKind, Metadata, RootDir, Xattrs};

/// A directory's own metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_seconds: i64,
    pub(super) mtime_nanoseconds: u32,
}

/// Returns how a directory looks.
pub(super) fn look(path: &Path) -> io::Result<Look> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| at(path, error))?;
    Ok(Look {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_seconds: metadata.mtime(),
        mtime_nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    })
}

/// Makes a directory look like `to`.
pub(super) fn set_look(path: &Path, to: &Look) -> io::Result<()> {
    let set = || -> io::Result<()> {
        let now = look(path)?;
        if (now.uid, now.gid) != (to.uid, to.gid) {
            lchown(path, Some(to.uid), Some(to.gid))?;
        }
        if now.mode != to.mode {
            std::fs::set_permissions(path, PermissionsExt::from_mode(to.mode))?;
        }
        let nanoseconds = Duration::from_nanos(u64::from(to.mtime_nanoseconds));
        let seconds = Duration::from_secs(to.mtime_seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let whole =
            if to.mtime_seconds < 0 { epoch.checked_sub(seconds) } else { epoch.checked_add(seconds) };
        match whole.and_then(|whole| whole.checked_add(nanoseconds)) {
            Some(mtime) => std::fs::File::open(path)?.set_modified(mtime),
            None => Ok(()),
        }
    };
    set().map_err(|error| at(path, error))
}

/// Gives `to` the extended attributes of `from`, access control lists among them.
pub(super) fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (RootDir::open(from)?, RootDir::open(to)?);
    for (name, value) in from.xattrs("")? {
        // Overlay's own marks say that they are not to be copied.
        match to.set_xattr("", &name, &value) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Gives an entry the owner, mode and time of `to`, and the attributes `wanted` and no others.
pub(super) fn dress(root: &RootDir, path: &Path, to: &Metadata, wanted: &Xattrs) -> io::Result<()> {
    let now = root.metadata(path)?;
    if (now.uid, now.gid) != (to.uid, to.gid) {
        root.set_owner(path, to.uid, to.gid)?;
    }
    let xattrs = root.xattrs(path)?;
    for name in xattrs.keys().filter(|name| !wanted.contains_key(*name)) {
        root.remove_xattr(path, name)?;
    }
    for (name, value) in wanted.iter().filter(|(name, value)| xattrs.get(*name) != Some(*value)) {
        root.set_xattr(path, name, value)?;
    }
    // After the owner, whose change clears setuid.
    if to.kind != FileKind::Symlink && root.metadata(path)?.mode != to.mode {
        root.set_mode(path, to.mode)?;
    }
    if now.mtime != to.mtime {
        root.set_mtime(path, to.mtime)?;
    }
    Ok(())
}

/// Adds the path to an error.
pub(super) fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}
