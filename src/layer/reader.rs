//! Reading tars of any origin.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::PathBuf;

use super::LayerError;
use crate::tree::{Device, Timestamp};

/// What kind of entry it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarEntryKind {
    /// A regular file, sparse or not.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: PathBuf,
    },
    /// A further name of an earlier entry.
    HardLink {
        /// The earlier entry's name, as written.
        target: PathBuf,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One entry of a tar, all extensions resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as written, which may be hostile.
    pub path: PathBuf,
    /// The type.
    pub kind: TarEntryKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes by their full names.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Length of a file's content with its holes, zero for all else.
    pub size_bytes: u64,
    /// Where a sparse file has data, as (offset, length) in order; `None` for a plain file.
    pub data: Option<Vec<(u64, u64)>>,
}

/// Reads a tar entry by entry; between two entries it reads as the content of the one before, holes as zeros.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
}

impl<R: Read> TarReader<R> {
    /// Starts at the beginning of an uncompressed tar.
    pub fn new(inner: R) -> Self {
        Self { inner }
    }

    /// Goes to the next entry; what is left of the current one is skipped.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, LayerError> {
        let _ = &self.inner;
        todo!()
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}
