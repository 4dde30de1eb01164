//! Walking a tree in component-wise byte order.

use std::io;
use std::path::{Path, PathBuf};

use super::{Metadata, RootDir};

/// One entry met by a [`Walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path relative to where the walk started, never empty.
    pub path: PathBuf,
    /// The entry's own metadata.
    pub metadata: Metadata,
}

/// A pre-order walk: a directory comes before its entries, names of one directory in byte order.
#[derive(Debug)]
pub struct Walk {}

impl Walk {
    /// Starts below the directory `start` (links followed), which itself is not returned.
    pub fn new(root: &RootDir, start: impl AsRef<Path>) -> io::Result<Self> {
        todo!()
    }

    /// Leaves out what is below the directory returned last.
    pub fn skip_subtree(&mut self) {
        todo!()
    }

    /// Returns mount points but not what is mounted there.
    pub fn same_device_only(self) -> Self {
        todo!()
    }
}

impl Iterator for Walk {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
