//! Contexts on disk: a directory as it is, or an archive unpacked into one.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::{ContextError, Ignore};
use crate::tree::RootDir;

/// A tree to copy from.
#[derive(Debug, Clone)]
pub struct ContextTree {
    /// The files.
    pub root: Arc<RootDir>,
    /// What of them is hidden.
    pub ignore: Arc<Ignore>,
    /// Its own time, in seconds since 1970: of the commit, of the download, or of an archive's newest file. A
    /// directory has none.
    pub time: Option<i64>,
    /// The commit it was checked out from.
    pub commit: Option<String>,
}

/// What a stream turned out to be.
#[derive(Debug)]
pub enum Archive {
    /// A tar archive, now unpacked. Nothing is hidden: the ignore file is for the caller to find.
    Tree(ContextTree),
    /// A Dockerfile and nothing else.
    Dockerfile(Vec<u8>),
}

/// Takes a directory of this machine for a context.
pub fn open_directory(dir: &Path, ignore: Arc<Ignore>) -> Result<ContextTree, ContextError> {
    let _ = (dir, ignore);
    todo!()
}

/// Unpacks a tar archive, compressed or not, below the directory `into`; anything else is taken for a Dockerfile.
pub fn open_stream(reader: impl Read + Send, into: &Path) -> Result<Archive, ContextError> {
    let _ = (reader, into);
    todo!()
}
