//! Trees into tars and back, archives of other programs, hostile archives, and measurements.

mod apply;
mod foreign;
mod golden;
mod hostile;
mod measure;
mod rewrite;
mod round_trip;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::oci::Digest;
use crate::tree::{FileKind, Metadata, RootDir, Timestamp, Walk};

/// Not everything here can be made without privilege: owners, devices, most attributes.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn temporary() -> (tempfile::TempDir, Arc<RootDir>) {
    let dir = tempfile::tempdir().unwrap();
    let root = RootDir::open(dir.path()).unwrap();
    (dir, Arc::new(root))
}

/// Everything a layer keeps of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime_seconds: i64,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Describes a whole tree: equal listings, equal trees. Hard links are named by their first path.
fn list(root: &RootDir) -> BTreeMap<PathBuf, Listed> {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut listing = BTreeMap::new();
    for entry in Walk::new(root, "").unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata;
        let mut kind = match metadata.kind {
            FileKind::File => format!("file {}", Digest::of(&contents(root, &entry.path)).short()),
            FileKind::Symlink => format!("link to {}", root.read_link(&entry.path).unwrap().display()),
            other => format!("{other:?}"),
        };
        if metadata.nlink > 1 && metadata.kind != FileKind::Directory {
            let same = first.entry((metadata.dev, metadata.ino)).or_insert_with(|| entry.path.clone());
            kind += &format!(", same as {}", same.display());
        }
        let listed = Listed {
            kind,
            mode: if metadata.kind == FileKind::Symlink { 0o777 } else { metadata.mode },
            owner: (metadata.uid, metadata.gid),
            mtime_seconds: metadata.mtime.seconds,
            xattrs: root.xattrs(&entry.path).unwrap(),
        };
        listing.insert(entry.path, listed);
    }
    listing
}

fn contents(root: &RootDir, path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    root.open_nofollow(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A whole tree as changes against nothing.
fn changes(root: &Arc<RootDir>) -> ChangeSet {
    let root = Arc::clone(root);
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let walk = Walk::new(&root, "").unwrap();
    Box::new(walk.filter_map(move |entry| {
        let entry = entry.unwrap();
        let metadata = entry.metadata;
        let mut node = match Node::from_tree(&root, entry.path.clone(), &metadata) {
            Ok(node) => node?,
            Err(error) => return Some(Err(error)),
        };
        if metadata.nlink > 1 && metadata.kind != FileKind::Directory {
            match first.get(&(metadata.dev, metadata.ino)) {
                Some(target) => node.kind = NodeKind::HardLink { target: target.clone() },
                None => drop(first.insert((metadata.dev, metadata.ino), entry.path.clone())),
            }
        }
        Some(Ok(Change::Upsert { path: entry.path, node }))
    }))
}

fn tar_of(root: &Arc<RootDir>) -> Vec<u8> {
    let mut tar = Vec::new();
    write_tar(changes(root), &TarOptions::default(), &mut tar).unwrap();
    tar
}

const LAYER: ApplyOptions = ApplyOptions { whiteouts: Whiteouts::Apply, owners: Owners::Keep };
const ARCHIVE: ApplyOptions = ApplyOptions { whiteouts: Whiteouts::Literal, owners: Owners::Keep };
const LOWER: ApplyOptions =
    ApplyOptions { whiteouts: Whiteouts::Overlay { userxattr: false }, owners: Owners::Keep };

fn unpack(tar: &[u8], root: &RootDir, options: &ApplyOptions) -> Result<Applied, LayerError> {
    apply_tar(TarReader::new(tar), root, Path::new(""), options)
}

fn directory() -> Node {
    node(NodeKind::Directory, 0o755)
}

fn file(content: &[u8]) -> Node {
    let kind =
        NodeKind::File { size_bytes: content.len() as u64, content: Content::Bytes(Arc::from(content)) };
    node(kind, 0o644)
}

fn symlink(target: &str) -> Node {
    node(NodeKind::Symlink { target: PathBuf::from(target) }, 0o777)
}

fn hard_link(target: &str) -> Node {
    node(NodeKind::HardLink { target: PathBuf::from(target) }, 0o644)
}

fn node(kind: NodeKind, mode: u32) -> Node {
    let mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
    Node { kind, mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
}

/// A tar of these entries, in this order, however wrong. Names go into the header as they are.
fn raw_tar(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, type_flag, link, content) in entries {
        let header = header::Header {
            type_flag: *type_flag,
            name: name.as_bytes(),
            link: link.as_bytes(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            size_bytes: content.len() as u64,
            mtime_seconds: 1_600_000_000,
            device: None,
        };
        header.write(BTreeMap::new(), &mut tar);
        tar.extend_from_slice(content);
        header::pad(content.len() as u64, &mut tar);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn metadata(root: &RootDir, path: &str) -> Metadata {
    root.metadata(path).unwrap()
}

fn is_hole(root: &RootDir, path: &str) -> bool {
    let file = root.open_nofollow(path).unwrap();
    let end = rustix::fs::seek(file.as_fd(), rustix::fs::SeekFrom::Hole(0)).unwrap();
    end < file.metadata().unwrap().len()
}
