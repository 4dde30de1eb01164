//! The content of files as part of a key.
//!
//! A copy is planned onto an empty tree: what the plan has, with names, modes and owners as they will be, is what
//! can reach the layer. Times are no part of it. Files are hashed on several threads, each read once.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::build::error::Problem;
use crate::cache::{FileInput, FileInputs, KeyBuilder};
use crate::layer::{Change, Content, Node, NodeKind, open_seen};
use crate::oci::Digest;
use crate::stream;
use crate::threads;
use crate::tree::{FileKind, Metadata, RootDir, Timestamp};

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a file was when it was hashed: as long as this is the same, so is its content.
#[derive(Debug)]
struct Stamp {
    root: Arc<RootDir>,
    path: PathBuf,
    size_bytes: u64,
    ctime: Timestamp,
    ino: u64,
}

/// What the files of a key were when they were hashed.
#[derive(Debug, Default)]
pub(in crate::build) struct Stamps(Vec<Stamp>);

impl Stamps {
    /// Tells whether no file changed since it was hashed.
    pub(in crate::build) fn hold(&self) -> bool {
        self.0.iter().all(|stamp| match stamp.root.metadata(&stamp.path) {
            Ok(now) => (now.size_bytes, now.ctime, now.ino) == (stamp.size_bytes, stamp.ctime, stamp.ino),
            Err(_) => false,
        })
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Hashes what a copy planned onto an empty tree, and adds it to a key under `name`.
pub(super) fn add_files(
    key: &mut KeyBuilder,
    name: &str,
    changes: &[Change],
    threads: NonZeroUsize,
) -> Result<Stamps, Problem> {
    let (digests, stamps) = hash_all(changes, threads)?;
    let mut files = Vec::with_capacity(changes.len());
    let mut links = Vec::new();
    for (change, content) in changes.iter().zip(digests) {
        let Change::Upsert { path, node } = change else {
            unreachable!("a copy onto nothing removes nothing");
        };
        if let NodeKind::HardLink { target } = &node.kind {
            links.push(format!("{path:?} {target:?}"));
        }
        files.push(file_input(path.clone(), node, content));
    }
    key.files(name, FileInputs::new(files));
    if !links.is_empty() {
        key.list(&format!("hard links of {name}"), links);
    }
    Ok(stamps)
}

fn file_input(path: PathBuf, node: &Node, content: Option<Sum>) -> FileInput {
    let kind = match &node.kind {
        NodeKind::File { .. } | NodeKind::HardLink { .. } => FileKind::File,
        NodeKind::Directory => FileKind::Directory,
        NodeKind::Symlink { .. } => FileKind::Symlink,
        NodeKind::CharDevice(device) => FileKind::CharDevice(*device),
        NodeKind::BlockDevice(device) => FileKind::BlockDevice(*device),
        NodeKind::Fifo => FileKind::Fifo,
    };
    let (content, size_bytes) = match content {
        Some((digest, size_bytes)) => (Some(digest), size_bytes),
        None => (None, 0),
    };
    let xattrs = (!node.xattrs.is_empty()).then(|| {
        let mut key = KeyBuilder::new("xattrs");
        for (name, value) in &node.xattrs {
            key.bytes("name", name.as_bytes()).bytes("value", value);
        }
        Digest::from_sha256(*key.finish().0.as_bytes())
    });
    FileInput { path, kind, mode: node.mode, uid: node.uid, gid: node.gid, content, xattrs, size_bytes }
}

/// The digest and the length of a file's data or of a link's target.
type Sum = (Digest, u64);

fn hash_all(changes: &[Change], threads: NonZeroUsize) -> Result<(Vec<Option<Sum>>, Stamps), Problem> {
    let most = threads.get().min(changes.len() / 16 + 1);
    let results = threads::each_with(
        "hash",
        changes,
        most,
        || vec![0; BUFFER_BYTES],
        |buffer, change| match change {
            Change::Upsert { node, .. } => hash(&node.kind, buffer),
            Change::Remove { .. } | Change::Opaque { .. } => Ok(None),
        },
    );
    let mut digests = vec![None; changes.len()];
    let mut stamps = Vec::new();
    for (digest, result) in digests.iter_mut().zip(results) {
        if let Some(hashed) = result? {
            *digest = Some(hashed.sum);
            stamps.extend(hashed.stamp);
        }
    }
    Ok((digests, Stamps(stamps)))
}

/// What an entry has besides its name, mode and owner.
struct Hashed {
    sum: Sum,
    stamp: Option<Stamp>,
}

fn hash(kind: &NodeKind, buffer: &mut [u8]) -> Result<Option<Hashed>, Problem> {
    let bytes = |bytes: &[u8]| Some(Hashed { sum: (Digest::of(bytes), bytes.len() as u64), stamp: None });
    Ok(match kind {
        NodeKind::Symlink { target } => bytes(target.as_os_str().as_bytes()),
        NodeKind::File { content: Content::Bytes(content), .. } => bytes(content),
        NodeKind::File { content: Content::File { root, path, seen }, .. } => {
            let failed = |source| Problem::Io { action: "read", path: path.clone(), source };
            let file = open_seen(root, path, *seen).map_err(failed)?;
            let before = Metadata::of(&file).map_err(failed)?;
            let sum = stream::hash_all(file, buffer).map_err(failed)?;
            let stamp = Stamp {
                root: root.clone(),
                path: path.clone(),
                size_bytes: before.size_bytes,
                ctime: before.ctime,
                ino: before.ino,
            };
            Some(Hashed { sum: (sum.digest, sum.size_bytes), stamp: Some(stamp) })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cache::Key;

    fn changes(root: &Arc<RootDir>, paths: &[&str]) -> Vec<Change> {
        let node = |path: &str| {
            let metadata = root.metadata(path).unwrap();
            Node::from_tree(root, path.into(), &metadata).unwrap().unwrap()
        };
        paths.iter().map(|path| Change::Upsert { path: path.into(), node: node(path) }).collect()
    }

    fn key(root: &Arc<RootDir>, paths: &[&str]) -> Key {
        let mut key = KeyBuilder::new("test");
        add_files(&mut key, "files", &changes(root, paths), NonZeroUsize::new(2).unwrap()).unwrap();
        key.finish().0
    }

    #[test]
    fn everything_but_the_time_of_a_file_is_in_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(RootDir::open(directory.path()).unwrap());
        let file = directory.path().join("file");
        fs::write(&file, "one").unwrap();
        fs::write(directory.path().join("other"), "one").unwrap();
        let first = key(&root, &["file"]);
        root.set_mtime("file", Timestamp { seconds: 1, nanoseconds: 0 }).unwrap();
        assert_eq!(key(&root, &["file"]), first);
        assert_ne!(key(&root, &["other"]), first, "a name");
        assert_ne!(key(&root, &["file", "other"]), first, "another file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap();
        assert_ne!(key(&root, &["file"]), first, "a mode");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "two").unwrap();
        assert_ne!(key(&root, &["file"]), first, "content");
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("one", &file).unwrap();
        assert_ne!(key(&root, &["file"]), first, "a link to the same text");
    }

    #[test]
    fn stamps_hold_until_a_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(RootDir::open(directory.path()).unwrap());
        fs::write(directory.path().join("file"), "one").unwrap();
        let changes = changes(&root, &["file"]);
        let (_, stamps) = hash_all(&changes, NonZeroUsize::MIN).unwrap();
        assert!(stamps.hold());
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(directory.path().join("file"), "two").unwrap();
        assert!(!stamps.hold());
    }
}
