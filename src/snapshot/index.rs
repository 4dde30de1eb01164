//! Everything about a tree that a later look at it is compared with.

use std::io;
use std::path::PathBuf;

use crate::tree::{Fingerprints, RootDir};

/// A tree's state: path, inode, metadata and fingerprint of each entry, in about 100 bytes each.
#[derive(Debug, Clone)]
pub struct Index {}

/// Scans a tree for the first time, reading all of its files.
pub fn scan(root: &RootDir, exclude: &[PathBuf]) -> io::Result<Index> {
    Index::scan(root, exclude, &Fingerprints::new())
}

impl Index {
    /// Scans a tree for the first time. Files without a `known` fingerprint are read.
    ///
    /// Returns once the file system's clock has moved on, so that no later change can hide in the same tick. Paths in
    /// `exclude` (relative to the root) and what is below them do not exist; mounts are not entered.
    pub fn scan(root: &RootDir, exclude: &[PathBuf], known: &Fingerprints) -> io::Result<Self> {
        let _ = (root, exclude, known);
        todo!()
    }

    /// Scans the tree again after a step, when all of the step's processes are gone.
    ///
    /// Reads only files that were touched and look unchanged otherwise.
    pub fn rescan(&self, root: &RootDir, exclude: &[PathBuf]) -> io::Result<Self> {
        let _ = (root, exclude);
        todo!()
    }

    /// Reads the files whose fingerprint is not known, which is needed before a further step may change them.
    ///
    /// Without it a file that the next step only touches counts as changed.
    pub fn complete(&mut self, root: &RootDir) -> io::Result<()> {
        let _ = root;
        todo!()
    }
}
