//! The tree a copy goes into: what is there already, and what the copy has put on top.
//!
//! A copy is planned against this view before a byte moves. So a stage that runs nothing afterwards never
//! needs its files on disk, and overlay and directory storage get the same layer by construction.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::layer::{Change, Content, Node, NodeKind};
use crate::tree::{FileKind, Metadata, RootDir, Timestamp};

/// How many symbolic links one path may lead through: the kernel's own limit.
const LINK_LIMIT: usize = 40;

/// What a path of the view is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Directory,
    Symlink(PathBuf),
    Other,
}

/// Who owns, and what mode has, a directory that a copy has to create on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDirectory {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
}

/// An image's tree with a plan of changes on top. Paths are relative and canonical unless said otherwise.
#[derive(Debug)]
pub(super) struct View {
    root: Option<Arc<RootDir>>,
    planned: BTreeMap<PathBuf, Node>,
    /// Planned directories that the tree below does not have: nothing to look up inside them.
    new_directories: HashSet<PathBuf>,
}

impl View {
    /// Looks onto `root`; `None` is an empty tree.
    pub(super) fn new(root: Option<Arc<RootDir>>) -> Self {
        Self { root, planned: BTreeMap::new(), new_directories: HashSet::new() }
    }

    /// Returns what is at a canonical path.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Seen>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Seen::Directory));
        }
        if let Some(node) = self.planned.get(path) {
            return Ok(Some(match &node.kind {
                NodeKind::Directory => Seen::Directory,
                NodeKind::Symlink { target } => Seen::Symlink(target.clone()),
                _ => Seen::Other,
            }));
        }
        match self.metadata_below(path)? {
            None => Ok(None),
            Some(metadata) => Ok(Some(match metadata.kind {
                FileKind::Directory => Seen::Directory,
                FileKind::Symlink => {
                    let root = self.root.as_ref().expect("metadata came from a root");
                    Seen::Symlink(root.read_link(path)?)
                }
                _ => Seen::Other,
            })),
        }
    }

    /// Returns the metadata of a path in the tree below the plan.
    fn metadata_below(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let (Some(root), Some(parent)) = (&self.root, path.parent()) else { return Ok(None) };
        if self.new_directories.contains(parent) {
            return Ok(None);
        }
        match root.metadata(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Follows every symbolic link of `path`, dangling ones too, and returns the canonical path it leads to.
    /// Components that do not exist stay as they are; `..` never climbs above the root.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut todo: VecDeque<OsString> = components(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.look(&next)? {
                Some(Seen::Symlink(target)) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()));
                    }
                    if target.is_absolute() {
                        at.clear();
                    }
                    for component in components(&target).into_iter().rev() {
                        todo.push_front(component);
                    }
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    /// Makes the directory at a canonical path and those above it that are missing.
    pub(super) fn make_directories(&mut self, path: &Path, new: &NewDirectory) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match self.look(at)? {
                Some(Seen::Directory) => break,
                Some(_) => {
                    let reason = format!("mkdir /{}: not a directory", at.display());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, reason));
                }
                None => missing.push(at.to_path_buf()),
            }
            at = at.parent().expect("the root is a directory");
        }
        for path in missing.into_iter().rev() {
            let node = Node {
                kind: NodeKind::Directory,
                mode: new.mode,
                uid: new.uid,
                gid: new.gid,
                mtime: new.mtime,
                xattrs: BTreeMap::new(),
            };
            self.new_directories.insert(path.clone());
            self.planned.insert(path, node);
        }
        Ok(())
    }

    /// Plans `node` at a canonical path whose parent exists.
    pub(super) fn put(&mut self, path: PathBuf, node: Node) -> io::Result<()> {
        if matches!(node.kind, NodeKind::Directory)
            && !self.new_directories.contains(&path)
            && self.metadata_below(&path)?.is_none_or(|m| m.kind != FileKind::Directory)
        {
            self.new_directories.insert(path.clone());
        }
        self.planned.insert(path, node);
        Ok(())
    }

    /// Sets the modification time of a directory that this plan created.
    pub(super) fn touch_new_directory(&mut self, path: &Path, mtime: Timestamp) {
        if self.new_directories.contains(path)
            && let Some(node) = self.planned.get_mut(path)
        {
            node.mtime = mtime;
        }
    }

    /// Ends the plan: the changes in order, with the directories above them, without what would change nothing.
    pub(super) fn into_changes(self) -> io::Result<Vec<Change>> {
        let linked: HashSet<PathBuf> = self
            .planned
            .values()
            .filter_map(|node| match &node.kind {
                NodeKind::HardLink { target } => Some(target.clone()),
                _ => None,
            })
            .collect();
        let mut changes: BTreeMap<PathBuf, Node> = BTreeMap::new();
        for (path, node) in &self.planned {
            let kept = linked.contains(path) || !self.is_unchanged(path, node)?;
            if !kept {
                continue;
            }
            for above in path.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()) {
                if changes.contains_key(above) {
                    break;
                }
                let directory = match self.planned.get(above) {
                    Some(node) => node.clone(),
                    None => self.existing_directory(above)?,
                };
                changes.insert(above.to_path_buf(), directory);
            }
            changes.insert(path.clone(), node.clone());
        }
        Ok(changes.into_iter().map(|(path, node)| Change::Upsert { path, node }).collect())
    }

    fn existing_directory(&self, path: &Path) -> io::Result<Node> {
        let root = self.root.as_ref().expect("a directory that is not planned is in the tree below");
        let metadata = root.metadata(path)?;
        Ok(Node {
            kind: NodeKind::Directory,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: metadata.mtime,
            xattrs: root.xattrs(path)?,
        })
    }

    /// Tells whether the tree below has exactly this node already.
    fn is_unchanged(&self, path: &Path, node: &Node) -> io::Result<bool> {
        let Some(old) = self.metadata_below(path)? else { return Ok(false) };
        let same_kind = match (&node.kind, old.kind) {
            (NodeKind::Directory, FileKind::Directory) => true,
            (NodeKind::File { size_bytes, .. }, FileKind::File) => *size_bytes == old.size_bytes,
            (NodeKind::Symlink { .. }, FileKind::Symlink) => true,
            _ => false,
        };
        let same_mode = node.mode == old.mode || matches!(node.kind, NodeKind::Symlink { .. });
        if !same_kind
            || !same_mode
            || (node.uid, node.gid) != (old.uid, old.gid)
            || node.mtime.seconds != old.mtime.seconds
        {
            return Ok(false);
        }
        let root = self.root.as_ref().expect("metadata came from a root");
        if root.xattrs(path)? != node.xattrs {
            return Ok(false);
        }
        match &node.kind {
            NodeKind::Symlink { target } => Ok(root.read_link(path)? == *target),
            NodeKind::File { content, .. } => same_content(root, path, content),
            _ => Ok(true),
        }
    }
}

fn same_content(root: &RootDir, path: &Path, content: &Content) -> io::Result<bool> {
    use io::Read;
    let mut old = root.open_nofollow(path)?;
    let mut new: Box<dyn Read> = match content {
        Content::Bytes(bytes) => Box::new(&bytes[..]),
        Content::File { root, path } => Box::new(root.open_nofollow(path)?),
    };
    let (mut a, mut b) = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    loop {
        let read = old.read(&mut a)?;
        if read == 0 {
            return Ok(new.read(&mut b[..1])? == 0);
        }
        match new.read_exact(&mut b[..read]) {
            Ok(()) if a[..read] == b[..read] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
