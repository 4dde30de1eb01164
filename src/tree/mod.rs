//! Files below a root and never above it.
//!
//! A [`RootDir`] is a directory that acts as `/` for everything reached through it: symbolic links, absolute
//! ones and `..` included, resolve inside it, however hostile the tree is. All names are bytes. Paths may be
//! longer than `PATH_MAX` and trees thousands of levels deep; nothing here recurses.
//!
//! Functions on one entry return plain [`std::io::Error`]s: the caller knows the path and what it wanted, and says so.
//! Functions on many entries wrap the cause in an [`EntryError`] that names the entry, inside an [`std::io::Error`] of
//! the same kind.
//! This module does not know about images, layers or overlays.

mod copy;
mod descent;
mod fingerprint;
mod holes;
mod metadata;
mod modify;
mod names;
pub mod regular;
mod resolve;
mod root;
#[cfg(test)]
mod tests;
mod walk;
mod xattr;

use std::io;
use std::path::PathBuf;

pub use copy::{copy_file_data, copy_tree, copy_tree_without};
pub use descent::Way;
pub use fingerprint::{ContentHasher, Fingerprint, Fingerprints};
pub use holes::{Pieces, next_data};
pub use metadata::{Device, FileKind, Metadata, Timestamp};
pub(crate) use names::Names;
pub use root::RootDir;
pub(crate) use walk::KnownNames;
pub use walk::{Entry, Walk};
pub use xattr::Xattrs;

/// What went wrong with one of many entries.
#[derive(Debug, thiserror::Error)]
#[error("`{}`", path.display())]
pub struct EntryError {
    /// The entry, relative to where the operation started.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

impl EntryError {
    /// Names the entry in an error of the same kind.
    pub fn wrap(path: impl Into<PathBuf>, source: io::Error) -> io::Error {
        let path = Some(path.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty());
        io::Error::new(source.kind(), Self { path: path.unwrap_or_else(|| PathBuf::from(".")), source })
    }
}
