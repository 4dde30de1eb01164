//! Puts planned changes into a real tree.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::layer::{Change, Content, Node, NodeKind, open_seen};
use crate::tree::{FileKind, RootDir, Timestamp, copy_file_data};

/// Applies `changes`, parents first as they come, with the semantics of a layer: what is in the way is
/// replaced, a directory that is there keeps its children.
pub(in crate::build) fn apply(changes: &[Change], root: &RootDir) -> Result<(), (PathBuf, io::Error)> {
    let mut directories: Vec<(&Path, Timestamp)> = Vec::new();
    for change in changes {
        let Change::Upsert { path, node } = change else {
            unreachable!("a copy removes nothing");
        };
        put(root, path, node).map_err(|e| (path.clone(), e))?;
        if matches!(node.kind, NodeKind::Directory) {
            directories.push((path, node.mtime));
        }
    }
    // Last and from the leaves up: every entry put into a directory changes its time.
    for (path, mtime) in directories.into_iter().rev() {
        root.set_mtime(path, mtime).map_err(|e| (path.to_path_buf(), e))?;
    }
    Ok(())
}

fn put(root: &RootDir, path: &Path, node: &Node) -> io::Result<()> {
    let existing = match root.metadata(path) {
        Ok(metadata) => Some(metadata.kind),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let keeps_directory = matches!((&node.kind, existing), (NodeKind::Directory, Some(FileKind::Directory)));
    if !keeps_directory {
        if existing.is_some() {
            root.remove_all(path)?;
        }
        create(root, path, node)?;
    }
    root.set_owner(path, node.uid, node.gid)?;
    if matches!(node.kind, NodeKind::Symlink { .. }) {
        return root.set_mtime(path, node.mtime);
    }
    // After the owner: chown clears the set-id bits and file capabilities.
    root.set_mode(path, node.mode)?;
    for (name, value) in &node.xattrs {
        root.set_xattr(path, name, value)?;
    }
    if matches!(node.kind, NodeKind::Directory) { Ok(()) } else { root.set_mtime(path, node.mtime) }
}

fn create(root: &RootDir, path: &Path, node: &Node) -> io::Result<()> {
    match &node.kind {
        NodeKind::File { size_bytes, content } => {
            let mut file = root.create_file(path, 0o600)?;
            match content {
                Content::Bytes(bytes) => file.write_all(bytes),
                Content::File { root: source, path, seen } => {
                    let from = open_seen(source, path, *seen)?;
                    copy_file_data(&from, &file, *size_bytes).map(drop)
                }
            }
        }
        NodeKind::Directory => root.create_dir(path, 0o700),
        NodeKind::Symlink { target } => root.symlink(target, path),
        NodeKind::HardLink { target } => root.hard_link(target, path),
        NodeKind::CharDevice(device) => root.mknod(path, FileKind::CharDevice(*device), node.mode),
        NodeKind::BlockDevice(device) => root.mknod(path, FileKind::BlockDevice(*device), node.mode),
        NodeKind::Fifo => root.mknod(path, FileKind::Fifo, node.mode),
    }
}
