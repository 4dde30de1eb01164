//! One layer's worth of changes as values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LayerError;
use crate::tree::{Device, FileKind, Metadata, RootDir, Timestamp};

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file, which is opened when its turn comes.
    File {
        /// The tree it is in.
        root: Arc<RootDir>,
        /// Its path there; a link as the last component is not followed.
        path: PathBuf,
        /// Which inode it was when the change was found, where others may change it until it is read.
        seen: Option<SeenInode>,
    },
}

/// An inode as it was once looked at. Nobody can set the time of its last change back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenInode {
    ino: u64,
    ctime: Timestamp,
}

impl SeenInode {
    /// Fails unless the open file is that inode and was not changed since.
    pub fn check(self, file: &File) -> io::Result<()> {
        let now = Metadata::of(file)?;
        if (now.ino, now.ctime) == (self.ino, self.ctime) {
            return Ok(());
        }
        Err(io::Error::other("somebody changed it while the build was using it"))
    }
}

impl Content {
    /// Returns the content of a file that `metadata` was read of.
    pub fn of_file(root: &Arc<RootDir>, path: PathBuf, metadata: &Metadata) -> Self {
        let seen = SeenInode { ino: metadata.ino, ctime: metadata.ctime };
        Self::File { root: Arc::clone(root), path, seen: root.is_exposed().then_some(seen) }
    }
}

/// Opens the file of a [`Content::File`] as it was found.
pub fn open_seen(root: &RootDir, path: &Path, seen: Option<SeenInode>) -> io::Result<File> {
    let file = root.open_nofollow(path)?;
    seen.map_or(Ok(()), |seen| seen.check(&file))?;
    Ok(file)
}

/// What kind of entry a node is, with what only that kind has.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// A regular file.
    File {
        /// Length of the content.
        size_bytes: u64,
        /// The content.
        content: Content,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: PathBuf,
    },
    /// A further name of a file that comes earlier in the same set of changes.
    HardLink {
        /// Its first name, relative to the root, no leading slash.
        target: PathBuf,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// An entry of a tree as it is to be.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its type and content.
    pub kind: NodeKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes by their full names (`security.capability`).
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// One difference between two trees. Paths are relative to the root and not empty.
#[derive(Debug, Clone)]
pub enum Change {
    /// The entry is new or other than it was; a directory keeps its children.
    Upsert {
        /// Which.
        path: PathBuf,
        /// What it is now.
        node: Node,
    },
    /// The entry is gone, with everything below it.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Everything older in this directory is gone; comes right after the directory's own `Upsert`.
    Opaque {
        /// Which.
        path: PathBuf,
    },
}

/// Changes in component-wise byte order, every changed entry after all of its ancestor directories.
pub type ChangeSet = Box<dyn Iterator<Item = Result<Change, LayerError>> + Send>;

impl Change {
    /// Returns the path that changes.
    pub fn path(&self) -> &Path {
        match self {
            Self::Upsert { path, .. } | Self::Remove { path } | Self::Opaque { path } => path,
        }
    }
}

impl Node {
    /// Describes the entry at `path` of `root` from its metadata; `None` for a socket, which no layer can hold.
    ///
    /// A file's content is not read now but when the layer is written. The link count is not looked at: who
    /// walks the tree knows which of several names comes first.
    pub fn from_tree(
        root: &Arc<RootDir>,
        path: PathBuf,
        metadata: &Metadata,
    ) -> Result<Option<Self>, LayerError> {
        let read = |source| LayerError::Read { path: path.clone(), source };
        let xattrs = match metadata.kind {
            FileKind::Socket => return Ok(None),
            _ => root.xattrs(&path).map_err(read)?,
        };
        let kind = match metadata.kind {
            FileKind::File => NodeKind::File {
                size_bytes: metadata.size_bytes,
                content: Content::of_file(root, path.clone(), metadata),
            },
            FileKind::Directory => NodeKind::Directory,
            FileKind::Symlink => NodeKind::Symlink { target: root.read_link(&path).map_err(read)? },
            FileKind::CharDevice(device) => NodeKind::CharDevice(device),
            FileKind::BlockDevice(device) => NodeKind::BlockDevice(device),
            FileKind::Fifo => NodeKind::Fifo,
            FileKind::Socket => return Ok(None),
        };
        Ok(Some(Self {
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
            xattrs,
        }))
    }
}
