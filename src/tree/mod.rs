//! Files below a root and never above it.
//!
//! A [`RootDir`] is a directory that acts as `/` for everything reached through it: symbolic links, absolute
//! ones and `..` included, resolve inside it, however hostile the tree is. All names are bytes. Paths may be
//! longer than `PATH_MAX` and trees thousands of levels deep; nothing here recurses.
//!
//! Functions return plain [`std::io::Error`]s: the caller knows the path and what it wanted, and says so.
//! This module does not know about images, layers or overlays.

mod copy;
mod metadata;
mod root;
mod walk;

pub use copy::{copy_file_data, copy_tree};
pub use metadata::{Device, FileKind, Metadata, Timestamp};
pub use root::RootDir;
pub use walk::{Entry, Walk};
