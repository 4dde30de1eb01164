//! Unpacking a tar into a tree.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::LayerError;
use crate::tree::RootDir;

/// What entries named `.wh.…` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer onto the merged tree of those below it: what they name is removed.
    Apply,
    /// A layer into an empty directory that will be one lower directory of an overlay: they become 0:0 character
    /// devices and opaque attributes.
    Overlay {
        /// The overlay is mounted with `userxattr`.
        userxattr: bool,
    },
    /// Not a layer but a user's archive: they are files like any other.
    Literal,
}

/// Whom the unpacked entries belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says; a failure is an error.
    Keep,
    /// As the archive says where the system lets us: for user namespaces with a single id. Failures become warnings.
    KeepIfPossible,
    /// All to one.
    Set {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// What whiteouts mean, and with them whether this is a layer.
    pub whiteouts: Whiteouts,
    /// Whom entries belong to.
    pub owners: Owners,
}

/// Something the archive asked for that could not be done and was left out.
#[derive(Debug)]
pub struct ApplyWarning {
    /// The entry's path in the tree.
    pub path: PathBuf,
    /// What was left out: `device node`, `owner 12:34`, `attribute security.selinux`.
    pub what: String,
    /// The system's answer.
    pub error: io::Error,
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many entries.
    pub entries: u64,
    /// How many bytes of file content.
    pub bytes: u64,
    /// Directories that had to be made because entries lie in them that the archive itself does not list.
    pub implied_dirs: Vec<PathBuf>,
    /// Hard links (name, target) whose target is not in this tree: with `Whiteouts::Overlay` it is in a lower one.
    pub dangling_links: Vec<(PathBuf, PathBuf)>,
    /// What could not be done.
    pub warnings: Vec<ApplyWarning>,
}

/// Unpacks `tar`, not compressed, below `dest` of `into`.
pub fn apply_tar(
    tar: impl Read,
    into: &RootDir,
    dest: &Path,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    let _ = (tar, into, dest, options);
    todo!()
}
