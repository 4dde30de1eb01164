//! What was verified once: which diff id a blob has, and what a kept tree looked like when it was complete.
//!
//! An image's config claims a diff id for each of its layers, and anybody can write a config. A tree is kept by a diff
//! id that was found by unpacking, and is given only to a layer whose own blob was found to have that diff id.
//!
//! A kept tree is written without waiting for the disk. The first use after each boot compares names, types, sizes,
//! owners, modes and times of everything in it with what was unpacked: a power failure, or a hand in the wrong
//! directory, costs the tree and not the build. Files are not read again.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::RootfsError;
use crate::oci::{DiffId, Digest};
use crate::stream::HashingWriter;
use crate::tree::regular::{self, NotRegular};
use crate::tree::{RootDir, Walk};

/// The beginning of the names of files that hold a blob's diff id.
pub(super) const BLOB_PREFIX: &str = "blob-";

/// The name of a tree's seal, beside the tree.
const SEAL: &str = "seal";

fn note_of(dir: &Path, blob: &Digest) -> PathBuf {
    dir.join(format!("{BLOB_PREFIX}{}", blob.hex()))
}

/// Returns the diff id that a blob was found to have, if that is known. A note that a crash has emptied is none.
pub(super) fn diff_id(dir: &Path, blob: &Digest) -> Result<Option<DiffId>, RootfsError> {
    let note = note_of(dir, blob);
    match regular::read_to_string(&note) {
        Ok(text) => Ok(text.parse().ok().map(DiffId::new)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || NotRegular::is(&error) => Ok(None),
        Err(error) => Err(RootfsError::io("read", &note)(error)),
    }
}

/// Notes the diff id that a blob was found to have.
pub(super) fn note_diff_id(dir: &Path, blob: &Digest, diff_id: &DiffId) -> Result<(), RootfsError> {
    replace(&note_of(dir, blob), diff_id.digest().as_str())
}

/// Removes the notes of blobs whose tree is not kept any more.
pub(super) fn forget(note: &Path, dir: &Path) {
    let tree = regular::read_to_string(note).ok().and_then(|text| text.parse::<Digest>().ok());
    if tree.is_none_or(|tree| !dir.join(super::trees::diff_key(&DiffId::new(tree))).exists()) {
        // Without it the blob is read once more.
        let _ = std::fs::remove_file(note);
    }
}

/// Seals the tree in `holder`, which is complete.
pub(super) fn seal(holder: &Path) -> Result<(), RootfsError> {
    let text = format!("{}\n{}\n", boot_id(), look(&holder.join("tree"))?);
    let path = holder.join(SEAL);
    replace(&path, &text)
}

/// Tells whether the tree in `holder` is as it was sealed.
pub(super) fn is_whole(holder: &Path) -> Result<bool, RootfsError> {
    let path = holder.join(SEAL);
    let text = match regular::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound || NotRegular::is(&error) => return Ok(false),
        Err(error) => return Err(RootfsError::io("read", &path)(error)),
    };
    let (sealed_boot, seal) = text.split_once('\n').unwrap_or_default();
    let boot = boot_id();
    if !boot.is_empty() && boot == sealed_boot {
        return Ok(true);
    }
    let is_whole = seal.trim_end() == look(&holder.join("tree"))?;
    if is_whole {
        replace(&path, &format!("{boot}\n{seal}"))?;
    }
    Ok(is_whole)
}

/// Sums up everything in a tree but the content of files.
fn look(tree: &Path) -> Result<String, RootfsError> {
    let failed = || RootfsError::io("look at", tree);
    let root = RootDir::open(tree).map_err(failed())?;
    let mut hash = HashingWriter::new(io::sink());
    let mut line = String::new();
    for entry in Walk::new(&root, "").map_err(failed())? {
        let entry = match entry {
            // A directory that is closed to its owner, where that is not root.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                hash.write_all(b"\0closed\0").map_err(failed())?;
                continue;
            }
            entry => entry.map_err(failed())?,
        };
        let found = &entry.metadata;
        let size_bytes = if found.kind.is_dir() { 0 } else { found.size_bytes };
        line.clear();
        let _ = write!(
            line,
            "\0{:?} {:o} {} {} {size_bytes} {:?}\0",
            found.kind, found.mode, found.uid, found.gid, found.mtime
        );
        hash.write_all(entry.path.as_os_str().as_bytes()).map_err(failed())?;
        hash.write_all(line.as_bytes()).map_err(failed())?;
    }
    Ok(hash.finish().1.digest.as_str().to_owned())
}

/// Names this boot of the machine; empty where that is not known.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}

/// Replaces a small file in one step.
fn replace(path: &Path, text: &str) -> Result<(), RootfsError> {
    regular::replace(path, text.as_bytes()).map_err(RootfsError::io("write", path))
}
