//! The tree a copy goes into: what is there already, and what the copy has put on top.
//!
//! A copy is planned against this view before a byte moves. So a stage that runs nothing afterwards never
//! needs its files on disk, and overlay and directory storage get the same layer by construction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::dockerfile::chmod::SET_GID;
use crate::layer::{Change, Content, Node, NodeKind, open_seen};
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
    /// Nobody in particular: root, and the group that a set-group-id directory passes on.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mtime: Timestamp,
}

/// Changes that wait to be put into a tree, by path.
#[derive(Debug, Clone, Default)]
pub(in crate::build) struct Pending {
    nodes: HashMap<PathBuf, Node>,
    /// Directories among them that the tree below does not have: nothing to look up inside them.
    new_directories: HashSet<PathBuf>,
}

impl Pending {
    /// Puts a finished plan on top.
    pub(in crate::build) fn merge(&mut self, planned: Self) {
        // A further name is a file like the first: a later plan may replace either without the other.
        let files = planned.nodes.iter().map(|(path, node)| match &node.kind {
            NodeKind::HardLink { target } => (path.clone(), planned.nodes[target].clone()),
            _ => (path.clone(), node.clone()),
        });
        self.nodes.extend(files);
        self.new_directories.extend(planned.new_directories);
    }
}

/// A tree as a copy finds it: files on disk, and changes that are not on disk yet.
#[derive(Debug, Clone, Copy)]
pub(in crate::build) struct Below<'a> {
    /// The files; `None` is an empty tree.
    pub(in crate::build) root: Option<&'a Arc<RootDir>>,
    /// What is to be put on top of them.
    pub(in crate::build) pending: &'a Pending,
}

/// An image's tree with a plan of changes on top. Paths are relative and canonical unless said otherwise.
#[derive(Debug)]
pub(super) struct View<'a> {
    below: Below<'a>,
    planned: Pending,
    /// The further names of planned files, by the first.
    links: HashMap<PathBuf, BTreeSet<PathBuf>>,
}

impl<'a> View<'a> {
    pub(super) fn new(below: Below<'a>) -> Self {
        Self { below, planned: Pending::default(), links: HashMap::new() }
    }

    /// Returns what is at a canonical path.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Seen>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Seen::Directory));
        }
        if let Some(node) = self.planned.nodes.get(path).or_else(|| self.below.pending.nodes.get(path)) {
            return Ok(Some(match &node.kind {
                NodeKind::Directory => Seen::Directory,
                NodeKind::Symlink { target } => Seen::Symlink(target.clone()),
                _ => Seen::Other,
            }));
        }
        match self.on_disk(path)? {
            None => Ok(None),
            Some((root, metadata)) => Ok(Some(match metadata.kind {
                FileKind::Directory => Seen::Directory,
                FileKind::Symlink => Seen::Symlink(root.read_link(path)?),
                _ => Seen::Other,
            })),
        }
    }

    /// Returns the metadata of a path that is on disk below every plan.
    fn on_disk(&self, path: &Path) -> io::Result<Option<(&'a Arc<RootDir>, Metadata)>> {
        let (Some(root), Some(parent)) = (self.below.root, path.parent()) else { return Ok(None) };
        if self.planned.new_directories.contains(parent)
            || self.below.pending.new_directories.contains(parent)
        {
            return Ok(None);
        }
        match root.metadata(path) {
            Ok(metadata) => Ok(Some((root, metadata))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the entry below this plan, as a node.
    fn node_below(&self, path: &Path) -> io::Result<Option<Node>> {
        if let Some(node) = self.below.pending.nodes.get(path) {
            return Ok(Some(node.clone()));
        }
        match self.on_disk(path)? {
            None => Ok(None),
            Some((root, metadata)) => {
                Node::from_tree(root, path.to_path_buf(), &metadata).map_err(io::Error::other)
            }
        }
    }

    /// Returns the entry at a canonical path.
    fn node(&self, path: &Path) -> io::Result<Option<Node>> {
        match self.planned.nodes.get(path) {
            Some(node) => Ok(Some(node.clone())),
            None => self.node_below(path),
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
                        return Err(rustix::io::Errno::LOOP.into());
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

    /// Makes the directory at a canonical path and those above it that are missing. As mkdir(2) has it, what is made
    /// in a set-group-id directory is one itself.
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
        let above = self.node(at)?;
        let group = above.filter(|above| above.mode & SET_GID != 0).map(|above| above.gid);
        let (uid, gid) = new.owner.unwrap_or((0, group.unwrap_or(0)));
        for path in missing.into_iter().rev() {
            let node = Node {
                kind: NodeKind::Directory,
                mode: new.mode | group.map_or(0, |_| SET_GID),
                uid,
                gid,
                mtime: new.mtime,
                xattrs: BTreeMap::new(),
            };
            self.planned.new_directories.insert(path.clone());
            self.planned.nodes.insert(path, node);
        }
        Ok(())
    }

    /// Plans `node` at a canonical path whose parent exists. A directory that is there keeps its attributes.
    pub(super) fn put(&mut self, path: PathBuf, mut node: Node) -> io::Result<()> {
        if matches!(node.kind, NodeKind::Directory) {
            match self.node(&path)?.filter(|old| matches!(old.kind, NodeKind::Directory)) {
                Some(old) => node.xattrs = old.xattrs,
                None => drop(self.planned.new_directories.insert(path.clone())),
            }
        }
        self.release(&path);
        if let NodeKind::HardLink { target } = &node.kind {
            self.links.entry(target.clone()).or_default().insert(path.clone());
        }
        self.planned.nodes.insert(path, node);
        Ok(())
    }

    /// Gives the directory at a canonical path a mode and leaves the rest of it alone; tells whether there is one.
    pub(super) fn set_directory_mode(&mut self, path: &Path, mode: u32) -> io::Result<bool> {
        let old = self.node(path)?.filter(|old| matches!(old.kind, NodeKind::Directory));
        let Some(old) = old else { return Ok(false) };
        self.planned.nodes.insert(path.to_path_buf(), Node { mode, ..old });
        Ok(true)
    }

    /// Takes what is planned at `path` from there. Its further names stay what they are: the first of them becomes
    /// the file the others link to.
    fn release(&mut self, path: &Path) {
        let Some(old) = self.planned.nodes.remove(path) else { return };
        if let NodeKind::HardLink { target } = &old.kind
            && let Some(names) = self.links.get_mut(target)
        {
            names.remove(path);
        }
        let mut names = self.links.remove(path).unwrap_or_default();
        let Some(first) = names.pop_first() else { return };
        for name in &names {
            if let Some(node) = self.planned.nodes.get_mut(name) {
                node.kind = NodeKind::HardLink { target: first.clone() };
            }
        }
        self.planned.nodes.insert(first.clone(), old);
        self.links.insert(first, names);
    }

    /// Sets the modification time of a directory that this plan created.
    pub(super) fn touch_new_directory(&mut self, path: &Path, mtime: Timestamp) {
        if self.planned.new_directories.contains(path)
            && let Some(node) = self.planned.nodes.get_mut(path)
        {
            node.mtime = mtime;
        }
    }

    /// Ends the plan: the changes in order, with the directories above them, without what would change nothing.
    pub(super) fn finish(self) -> io::Result<(Vec<Change>, Pending)> {
        let linked: HashSet<&PathBuf> = self
            .planned
            .nodes
            .values()
            .filter_map(|node| match &node.kind {
                NodeKind::HardLink { target } => Some(target),
                _ => None,
            })
            .collect();
        let mut planned: Vec<(&PathBuf, &Node)> = self.planned.nodes.iter().collect();
        planned.sort_by_cached_key(|(path, _)| in_order(path));
        // Directories come right before what is in them: those above a change that are not listed go in front of it.
        let (mut changes, mut listed) = (Vec::with_capacity(planned.len()), HashSet::new());
        for (path, node) in planned {
            if !linked.contains(path) && self.is_unchanged(path, node)? {
                continue;
            }
            let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !listed.contains(*above);
            let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
            for above in missing.into_iter().rev() {
                let node = match self.planned.nodes.get(above) {
                    Some(node) => node.clone(),
                    None => self.node_below(above)?.expect("a directory that is not planned is there below"),
                };
                listed.insert(above);
                changes.push(Change::Upsert { path: above.to_path_buf(), node });
            }
            listed.insert(path);
            changes.push(Change::Upsert { path: path.clone(), node: node.clone() });
        }
        Ok((changes, self.planned))
    }

    /// Tells whether the tree below has exactly this node already.
    fn is_unchanged(&self, path: &Path, node: &Node) -> io::Result<bool> {
        let Some(old) = self.node_below(path)? else { return Ok(false) };
        let is_link = matches!(node.kind, NodeKind::Symlink { .. });
        if !(is_link || node.mode == old.mode)
            || (node.uid, node.gid) != (old.uid, old.gid)
            || node.mtime.seconds != old.mtime.seconds
            || node.xattrs != old.xattrs
        {
            return Ok(false);
        }
        match (&node.kind, &old.kind) {
            (NodeKind::Directory, NodeKind::Directory) => Ok(true),
            (NodeKind::Symlink { target: new }, NodeKind::Symlink { target: old }) => Ok(new == old),
            (
                NodeKind::File { size_bytes: new_size, content: new },
                NodeKind::File { size_bytes: old_size, content: old },
            ) => Ok(new_size == old_size && same_content(old, new)?),
            _ => Ok(false),
        }
    }
}

/// Returns what sorts canonical paths as `Path` does, component by component, in one comparison of bytes.
fn in_order(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

fn open(content: &Content) -> io::Result<Box<dyn Read + '_>> {
    Ok(match content {
        Content::Bytes(bytes) => Box::new(&bytes[..]),
        Content::File { root, path, seen } => Box::new(open_seen(root, path, *seen)?),
    })
}

fn same_content(old: &Content, new: &Content) -> io::Result<bool> {
    let (mut old, mut new) = (open(old)?, open(new)?);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_in_order_sort_as_paths_do(
            names in prop::collection::vec(prop::collection::vec("[a/b .\u{1}-]{1,3}", 1..4), 2..8),
        ) {
            let canonical = |parts: &Vec<String>| -> PathBuf {
                let names = parts.iter().map(|part| part.replace(['/', '.'], "z"));
                names.collect::<Vec<_>>().join("/").into()
            };
            let mut paths: Vec<PathBuf> = names.iter().map(canonical).collect();
            let mut as_paths = paths.clone();
            as_paths.sort();
            paths.sort_by_cached_key(|path| in_order(path));
            prop_assert_eq!(paths, as_paths);
        }
    }
}
