//! Tests of the whole folder: the three ways agree, and what they say turns one tree into the other. This file has
//! what they share: file systems to try on, changes as text, and how to apply them.

mod cases;
mod edit;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::MsFlags;

use super::*;
use crate::layer::{Change, ChangeSet, Content, NodeKind};
use crate::tree::{ContentHasher, Entry, FileKind, Fingerprints, RootDir, Timestamp, Walk, copy_tree};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn open(path: &Path) -> Arc<RootDir> {
    Arc::new(RootDir::open(path).unwrap())
}

fn subdir(dir: &Path, name: &str) -> Arc<RootDir> {
    fs::create_dir(dir.join(name)).unwrap();
    open(&dir.join(name))
}

/// Runs `test` with mounts of its own; does nothing where they are not allowed.
fn with_mounts(test: impl FnOnce() + Send) {
    if !is_root() {
        return; // mounting needs CAP_SYS_ADMIN
    }
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
                return;
            }
            let none: Option<&str> = None;
            nix::mount::mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
            test();
        });
        if let Err(panic) = handle.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `test` on the temporary directory's file system, on a tmpfs and on an overlay.
fn on_each_file_system(test: impl Fn(&Path) + Send + Sync) {
    let dir = tempfile::tempdir().unwrap();
    test(dir.path());
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        test(dir.path());
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let merged = dir.path().join("merged");
        let name = Some("overlay");
        // An overlay's upper directory cannot be on an overlay, and then that is what the first round was on.
        if nix::mount::mount(name, &merged, name, MsFlags::empty(), Some(options.as_str())).is_ok() {
            test(&merged);
            nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    });
}

/// What is left after an edit of a merged view.
struct Edited {
    dir: PathBuf,
    upper: Arc<RootDir>,
    /// Mounted anew: in the old mount, copied-up links kept the inode numbers from below with `userxattr`.
    merged: Arc<RootDir>,
    userxattr: bool,
}

/// Runs `edit` on the merged view and then `check`, with both flavours of overlay.
fn with_overlay(dir: &Path, lower: &RootDir, edit: impl Fn(&RootDir), check: impl Fn(Edited)) {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    if rustix::fs::statfs(dir).unwrap().f_type == OVERLAYFS_SUPER_MAGIC {
        return; // none can have its upper directory on another
    }
    // In a user namespace there is only the one flavour.
    let nested =
        fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("4294967295");
    for userxattr in [false, true].into_iter().filter(|userxattr| *userxattr || !nested) {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let dir = dir.path();
        let (upper, merged) = (subdir(dir, "upper"), dir.join("merged"));
        fs::create_dir(dir.join("work")).unwrap();
        fs::create_dir(&merged).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,{}",
            lower.path().display(),
            upper.path().display(),
            dir.join("work").display(),
            if userxattr { "userxattr" } else { "redirect_dir=off" },
        );
        let with_mount = |work: &dyn Fn(Arc<RootDir>)| {
            let (name, options) = (Some("overlay"), Some(options.as_str()));
            nix::mount::mount(name, &merged, name, MsFlags::empty(), options).unwrap();
            work(open(&merged));
            nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
        };
        with_mount(&|merged| edit(&merged));
        with_mount(&|merged| {
            check(Edited { dir: dir.to_path_buf(), upper: upper.clone(), merged, userxattr })
        });
    }
}

/// One line for each change, with everything that makes a layer's bytes.
fn lines(changes: ChangeSet) -> Vec<String> {
    changes
        .map(|change| match change.unwrap() {
            Change::Remove { path } => format!("- {path:?}"),
            Change::Opaque { path } => format!("! {path:?}"),
            Change::Upsert { path, node } => {
                let kind = match node.kind {
                    NodeKind::File { size_bytes, content: Content::File { root, path: file, .. } } => {
                        assert_eq!(path, file);
                        let content = root.read(&file).unwrap();
                        assert_eq!(content.len() as u64, size_bytes);
                        format!("file {:?}", String::from_utf8_lossy(&content))
                    }
                    kind => format!("{kind:?}"),
                };
                let (uid, gid, mtime) = (node.uid, node.gid, node.mtime);
                format!("+ {path:?} {kind} {:o} {uid}:{gid} {mtime:?} {:?}", node.mode, node.xattrs)
            }
        })
        .collect()
}

/// The changes' marks and paths only.
fn brief(changes: ChangeSet) -> Vec<String> {
    lines(changes)
        .iter()
        .map(|line| {
            let mut words = line.split('"');
            format!("{}{}", words.next().unwrap().trim(), words.next().unwrap())
        })
        .collect()
}

/// Applies changes in the simplest way.
fn apply(changes: ChangeSet, root: &RootDir) {
    let mut directories = Vec::new();
    for change in changes {
        let (path, node) = match change.unwrap() {
            Change::Remove { path } => {
                assert!(root.exists(&path).unwrap(), "{path:?} was not there");
                root.remove_all(&path).unwrap();
                continue;
            }
            Change::Opaque { path } => panic!("unexpected opaque {path:?}"),
            Change::Upsert { path, node } => (path, node),
        };
        let is_dir = matches!(node.kind, NodeKind::Directory);
        if !(is_dir && root.metadata(&path).is_ok_and(|old| old.kind.is_dir())) {
            root.remove_all(&path).unwrap();
        }
        match &node.kind {
            NodeKind::Directory if root.exists(&path).unwrap() => {}
            NodeKind::Directory => root.create_dir(&path, 0o700).unwrap(),
            NodeKind::File { content: Content::File { root: from, path: file, .. }, .. } => {
                root.create_file(&path, 0o600).unwrap().write_all(&from.read(file).unwrap()).unwrap();
            }
            NodeKind::File { content: Content::Bytes(bytes), .. } => {
                root.create_file(&path, 0o600).unwrap().write_all(bytes).unwrap();
            }
            NodeKind::Symlink { target } => root.symlink(target, &path).unwrap(),
            NodeKind::HardLink { target } => {
                root.hard_link(target, &path).unwrap();
                continue;
            }
            NodeKind::CharDevice(device) => root.mknod(&path, FileKind::CharDevice(*device), 0).unwrap(),
            NodeKind::BlockDevice(device) => root.mknod(&path, FileKind::BlockDevice(*device), 0).unwrap(),
            NodeKind::Fifo => root.mknod(&path, FileKind::Fifo, 0).unwrap(),
        }
        if is_root() {
            root.set_owner(&path, node.uid, node.gid).unwrap();
        }
        for name in root.xattrs(&path).unwrap().keys() {
            root.remove_xattr(&path, name).unwrap();
        }
        for (name, value) in &node.xattrs {
            root.set_xattr(&path, name, value).unwrap();
        }
        if !matches!(node.kind, NodeKind::Symlink { .. }) {
            root.set_mode(&path, node.mode).unwrap();
        }
        root.set_mtime(&path, node.mtime).unwrap();
        if is_dir {
            directories.push((path, node.mtime));
        }
    }
    for (path, mtime) in directories {
        root.set_mtime(path, mtime).unwrap();
    }
}

/// Everything about a tree but which names share an inode.
fn describe(root: &RootDir) -> Vec<String> {
    let describe = |Entry { path, metadata: m }: Entry| {
        let text = match m.kind {
            FileKind::File => format!("{:?}", root.read(&path).unwrap()),
            FileKind::Symlink => format!("{:?}", root.read_link(&path).unwrap()),
            FileKind::Socket => return None,
            _ => String::new(),
        };
        let xattrs = root.xattrs(&path).unwrap();
        Some(format!(
            "{path:?} {:?} {:o} {}:{} {:?} {xattrs:?} {text}",
            m.kind, m.mode, m.uid, m.gid, m.mtime
        ))
    };
    Walk::new(root, "").unwrap().filter_map(|entry| describe(entry.unwrap())).collect()
}

fn groups(root: &RootDir) -> BTreeMap<u64, BTreeSet<PathBuf>> {
    let mut groups: BTreeMap<u64, BTreeSet<PathBuf>> = BTreeMap::new();
    for entry in Walk::new(root, "").unwrap().map(Result::unwrap) {
        if !entry.metadata.kind.is_dir() && entry.metadata.kind != FileKind::Socket {
            groups.entry(entry.metadata.ino).or_default().insert(entry.path);
        }
    }
    groups
}

/// Checks that `changes` turn a copy of `before` into `after`, names of changed inodes included.
fn assert_turns_into(dir: &Path, before: &RootDir, after: &RootDir, changes: impl Fn() -> ChangeSet) {
    let copy = subdir(dir, "applied");
    copy_tree(before, "", &copy, "").unwrap();
    apply(changes(), &copy);
    assert_eq!(describe(&copy), describe(after));
    let upserted: BTreeSet<PathBuf> = changes()
        .filter_map(|change| match change.unwrap() {
            Change::Upsert { path, .. } => Some(path),
            _ => None,
        })
        .collect();
    let applied = groups(&copy);
    for names in groups(after).values() {
        if names.len() > 1 && !names.is_disjoint(&upserted) {
            assert!(names.is_subset(&upserted), "only some of {names:?}");
            assert!(applied.values().any(|group| group == names), "not linked: {names:?}");
        }
    }
    fs::remove_dir_all(dir.join("applied")).unwrap();
}
