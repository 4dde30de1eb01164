//! The rules of `COPY`, one test each. Trees and results are listings, see [`Tree::new`] and [`listed`].

mod destinations;
mod links;
mod metadata;
mod selection;
mod sources;
mod stacked;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::build::copy_step::absolute_destination;
use crate::layer::{Content, Node, NodeKind};
use crate::tree::{Device, FileKind, Metadata, RootDir, copy_tree};

/// The time of everything in a tree of these tests.
const OLD: Timestamp = Timestamp { seconds: 1_000_000_000, nanoseconds: 0 };
/// The time of what a copy makes.
const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
/// A version 2 capability set: `cap_net_raw=p`.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Owners, devices and attributes of other than `user.` cannot be made without privilege.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory of files.
struct Tree {
    _directory: tempfile::TempDir,
    root: Arc<RootDir>,
}

impl Tree {
    /// Makes what the lines say: `dir PATH [MODE]`, `file PATH [CONTENT [MODE]]`, `link PATH TARGET`,
    /// `hard PATH OTHER`, `fifo PATH`, `sock PATH`, `null PATH`, `own PATH UID GID`, `cap PATH`, `attr PATH NAME`.
    fn new(lines: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(RootDir::open(directory.path()).unwrap());
        let mut paths = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let path = words[1];
            make(&root, directory.path(), &words);
            paths.push(path);
        }
        for path in paths.iter().rev() {
            root.set_mtime(path, OLD).unwrap();
        }
        Self { _directory: directory, root }
    }

    /// Copies the whole tree.
    fn fork(&self) -> Self {
        let copy = Self::new(&[]);
        copy_tree(&self.root, "", &copy.root, "").unwrap();
        copy
    }
}

fn make(root: &RootDir, directory: &Path, words: &[&str]) {
    let path = words[1];
    let mode = |index: usize, default| {
        words.get(index).map_or(default, |mode| u32::from_str_radix(mode, 8).unwrap())
    };
    match words[0] {
        "dir" => {
            root.create_dir(path, 0o755).unwrap();
            root.set_mode(path, mode(2, 0o755)).unwrap();
        }
        "file" => {
            let file = root.create_file(path, 0o644).unwrap();
            std::io::Write::write_all(&mut &file, words.get(2).unwrap_or(&"").as_bytes()).unwrap();
            root.set_mode(path, mode(3, 0o644)).unwrap();
        }
        "link" => root.symlink(Path::new(words[2]), path).unwrap(),
        "hard" => root.hard_link(words[2], path).unwrap(),
        "fifo" => root.mknod(path, FileKind::Fifo, 0o600).unwrap(),
        "sock" => drop(UnixListener::bind(directory.join(path)).unwrap()),
        "null" => {
            root.mknod(path, FileKind::CharDevice(Device { major: 1, minor: 3 }), 0o666).unwrap();
        }
        "own" => root.set_owner(path, words[2].parse().unwrap(), words[3].parse().unwrap()).unwrap(),
        "cap" => root.set_xattr(path, OsStr::new("security.capability"), &CAPABILITY).unwrap(),
        "attr" => root.set_xattr(path, OsStr::new(words[2]), b"value").unwrap(),
        other => panic!("{other}"),
    }
}

/// A copy to be planned.
struct Copying {
    sources: Vec<CopySource>,
    dest: String,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    parents: bool,
    exclude: Vec<String>,
}

/// A copy from a build context, or with [`Copying::of_stage`] from elsewhere; relative to `/work`.
fn copy(from: &Tree, patterns: &[&str], dest: &str) -> Copying {
    copy_ignoring(from, "", patterns, dest)
}

/// A copy from a build context with an ignore file.
fn copy_ignoring(from: &Tree, ignore: &str, patterns: &[&str], dest: &str) -> Copying {
    let ignore = Arc::new(Ignore::parse(ignore.as_bytes()).unwrap());
    let from = CopyRoot { root: from.root.clone(), ignore: Some(ignore), keep_owner: false };
    let pattern = |pattern: &&str| CopySource::Pattern { from: from.clone(), pattern: (*pattern).to_owned() };
    copying(patterns.iter().map(pattern).collect(), dest)
}

fn copying(sources: Vec<CopySource>, dest: &str) -> Copying {
    let dest = absolute_destination("/work", dest);
    Copying { sources, dest, owner: None, chmod: None, parents: false, exclude: Vec::new() }
}

impl Copying {
    fn of_stage(mut self) -> Self {
        for source in &mut self.sources {
            if let CopySource::Pattern { from, .. } | CopySource::Found { from, .. } = source {
                from.ignore = None;
                from.keep_owner = true;
            }
        }
        self
    }

    fn chown(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    fn chmod(mut self, mode: &str) -> Self {
        self.chmod = Some(mode.parse().unwrap());
        self
    }

    fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    fn exclude(mut self, patterns: &[&str]) -> Self {
        self.exclude = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self
    }

    fn plan(&self, below: Below<'_>) -> Result<(Vec<Change>, Pending), CopyError> {
        let request = CopyRequest {
            sources: self.sources.clone(),
            dest: self.dest.clone(),
            owner: self.owner,
            chmod: self.chmod.clone(),
            parents: self.parents,
            exclude: &self.exclude,
            now: NOW,
        };
        plan(&request, below)
    }

    /// Plans the copy onto nothing.
    fn onto_scratch(&self) -> Vec<String> {
        let (changes, _) = self.plan(Below { root: None, pending: &Pending::default() }).unwrap();
        assert_applies(&changes, &Tree::new(&[]));
        listed(&changes)
    }

    /// Plans the copy onto a tree.
    fn onto(&self, tree: &Tree) -> Vec<String> {
        let below = Below { root: Some(&tree.root), pending: &Pending::default() };
        let (changes, _) = self.plan(below).unwrap();
        assert_applies(&changes, tree);
        listed(&changes)
    }

    fn error(&self, tree: &Tree) -> String {
        let below = Below { root: Some(&tree.root), pending: &Pending::default() };
        self.plan(below).unwrap_err().to_string()
    }
}

/// Puts changes into a copy of `tree`, and checks that every one is there then, as it says.
fn assert_applies(changes: &[Change], tree: &Tree) {
    let needs_root = changes.iter().any(|change| match change {
        Change::Upsert { node, .. } => {
            (node.uid, node.gid) != (0, 0) || matches!(node.kind, NodeKind::CharDevice(_))
        }
        _ => false,
    });
    if needs_root && !is_root() {
        return;
    }
    let after = tree.fork();
    apply(changes, &after.root).unwrap();
    for change in changes {
        let Change::Upsert { path, node } = change else { panic!("a copy removes nothing") };
        let metadata = after.root.metadata(path).unwrap();
        let is_link = metadata.kind == FileKind::Symlink;
        let (uid, gid) = if is_root() { (metadata.uid, metadata.gid) } else { (node.uid, node.gid) };
        assert_eq!((uid, gid), (node.uid, node.gid), "{}", path.display());
        assert!(is_link || metadata.mode == node.mode, "{}: {:o}", path.display(), metadata.mode);
        assert_eq!(metadata.mtime.seconds, node.mtime.seconds, "{}", path.display());
        assert_same_kind(&after.root, path, &metadata, node);
    }
}

fn assert_same_kind(root: &RootDir, path: &Path, metadata: &Metadata, node: &Node) {
    let place = path.display();
    match &node.kind {
        NodeKind::File { size_bytes, content } => {
            assert_eq!((metadata.kind, metadata.size_bytes), (FileKind::File, *size_bytes), "{place}");
            assert_eq!(root.read(path).unwrap(), bytes(content), "{place}");
            assert_eq!(root.xattrs(path).unwrap(), node.xattrs, "{place}");
        }
        NodeKind::HardLink { target } => {
            assert!(metadata.same_inode(&root.metadata(target).unwrap()), "{place}");
        }
        NodeKind::Directory => assert_eq!(metadata.kind, FileKind::Directory, "{place}"),
        NodeKind::Symlink { target } => assert_eq!(&root.read_link(path).unwrap(), target, "{place}"),
        NodeKind::Fifo => assert_eq!(metadata.kind, FileKind::Fifo, "{place}"),
        NodeKind::CharDevice(device) => assert_eq!(metadata.kind, FileKind::CharDevice(*device), "{place}"),
        NodeKind::BlockDevice(device) => assert_eq!(metadata.kind, FileKind::BlockDevice(*device), "{place}"),
    }
}

fn bytes(content: &Content) -> Vec<u8> {
    match content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::File { root, path, .. } => {
            let mut bytes = Vec::new();
            root.open_nofollow(path).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        }
    }
}

/// Writes changes down, one a line: `KIND MODE UID:GID PATH [CONTENT]`.
fn listed(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let Change::Upsert { path, node } = change else { panic!("a copy removes nothing") };
        let (kind, rest) = match &node.kind {
            NodeKind::Directory => ("dir", String::new()),
            NodeKind::File { content, .. } => ("file", String::from_utf8_lossy(&bytes(content)).into_owned()),
            NodeKind::Symlink { target } => ("link", target.display().to_string()),
            NodeKind::HardLink { target } => ("hard", target.display().to_string()),
            NodeKind::Fifo => ("fifo", String::new()),
            NodeKind::CharDevice(device) => ("char", format!("{}:{}", device.major, device.minor)),
            NodeKind::BlockDevice(device) => ("block", format!("{}:{}", device.major, device.minor)),
        };
        let mode = if kind == "link" { 0o777 } else { node.mode };
        let line = format!("{kind} {mode:o} {}:{} {} {rest}", node.uid, node.gid, path.display());
        line.trim_end().to_owned()
    };
    changes.iter().map(line).collect()
}

/// Returns the paths of a listing.
fn paths(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(' ').nth(3).unwrap()).collect()
}

/// Returns a planned node.
fn node<'a>(changes: &'a [Change], path: &str) -> &'a Node {
    let found = changes.iter().find_map(|change| match change {
        Change::Upsert { path: at, node } if at == Path::new(path) => Some(node),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{path} is not in {:?}", listed(changes)))
}

#[test]
fn clean_clamps_at_the_root_and_may_keep_the_slash() {
    for (path, kept, plain) in [
        ("", "/", "/"),
        ("/", "/", "/"),
        ("a/", "/a/", "/a"),
        ("/a/./b/../c", "/a/c", "/a/c"),
        ("../../x", "/x", "/x"),
        ("/a/.", "/a/", "/a"),
    ] {
        assert_eq!(clean(path, true), kept, "{path}");
        assert_eq!(clean(path, false), plain, "{path}");
    }
}

#[test]
fn what_was_found_is_copied_whatever_its_name() {
    let from = Tree::new(&["file * star", "file a other", "file [b] class", "file \\ back"]);
    for (name, content) in [("*", "star"), ("[b]", "class"), ("\\", "back")] {
        let root = CopyRoot { root: from.root.clone(), ignore: None, keep_owner: true };
        let copying = copying(vec![CopySource::Found { from: root, path: name.into() }], "/to/");
        let (changes, _) = copying.plan(Below { root: None, pending: &Pending::default() }).unwrap();
        assert_eq!(paths(&listed(&changes)), ["to", &format!("to/{name}")]);
        assert!(listed(&changes)[1].ends_with(content), "{name}");
    }
}
