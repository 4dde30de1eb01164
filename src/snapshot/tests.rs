//! Tests of the whole folder: the three ways agree, and what they say turns one tree into the other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::MsFlags;
use proptest::prelude::*;

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
                    NodeKind::File { size_bytes, content: Content::File { root, path: file } } => {
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
            NodeKind::File { content: Content::File { root: from, path: file }, .. } => {
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

/// One thing a build step may do. Names are picked from what is there.
#[derive(Debug, Clone)]
enum Edit {
    File(String, String),
    Directory(String),
    Symlink(String, String),
    Fifo(String),
    Socket(String),
    HardLink(usize, String),
    Rename(usize, String),
    Remove(usize),
    Append(usize, String),
    /// Writes and puts the time back.
    WriteUnseen(usize, String),
    /// Writes what is there already and puts the time back.
    WriteSame(usize),
    Mode(usize, u32),
    SameMode(usize),
    Owner(usize, u32),
    Time(usize, i64),
    SameTime(usize),
    SetAttribute(usize, String),
    RemoveAttribute(usize),
    /// Removes and creates again with the same content, mode and time.
    Recreate(usize),
    Replace(usize, Box<Edit>),
    /// Removes a directory and makes it again, empty.
    Renew(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = || {
        prop_oneof![
            "[ab]",
            "[ab]/[abc]",
            "[ab]/[abc]/[ad]",
            "a/[ab]/a/[ab](/[ab])?",
            Just("o d\nd\u{ff}".to_owned()),
            "[ab]-"
        ]
    };
    let text = || "[xy]{0,3}";
    let leaf = prop_oneof![
        4 => (name(), text()).prop_map(|(name, text)| Edit::File(name, text)),
        4 => name().prop_map(Edit::Directory),
        2 => (name(), prop_oneof!["a", "/b/c", "\\.\\./x"]).prop_map(|(name, to)| Edit::Symlink(name, to)),
        1 => name().prop_map(Edit::Fifo),
        1 => name().prop_map(Edit::Socket),
        2 => (any::<usize>(), name()).prop_map(|(from, name)| Edit::HardLink(from, name)),
        3 => (any::<usize>(), name()).prop_map(|(from, name)| Edit::Rename(from, name)),
        2 => any::<usize>().prop_map(Edit::Remove),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::Append(at, text)),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::WriteUnseen(at, text)),
        1 => any::<usize>().prop_map(Edit::WriteSame),
        1 => (any::<usize>(), prop_oneof![Just(0o4755), Just(0o600)]).prop_map(|(at, mode)| Edit::Mode(at, mode)),
        1 => any::<usize>().prop_map(Edit::SameMode),
        1 => (any::<usize>(), 0_u32..2).prop_map(|(at, uid)| Edit::Owner(at, uid)),
        1 => (any::<usize>(), 0_i64..2).prop_map(|(at, time)| Edit::Time(at, time)),
        1 => any::<usize>().prop_map(Edit::SameTime),
        1 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::SetAttribute(at, text)),
        1 => any::<usize>().prop_map(Edit::RemoveAttribute),
        1 => any::<usize>().prop_map(Edit::Recreate),
        1 => any::<usize>().prop_map(Edit::Renew),
    ];
    leaf.clone().prop_flat_map(move |edit| {
        prop_oneof![
            4 => Just(edit.clone()),
            1 => any::<usize>().prop_map(move |at| Edit::Replace(at, Box::new(edit.clone()))),
        ]
    })
}

/// Does an edit as far as it is possible; what is not is not done, on every tree alike.
fn perform(root: &RootDir, edit: &Edit) {
    let all: Vec<PathBuf> = Walk::new(root, "").unwrap().map(|entry| entry.unwrap().path).collect();
    let at = |index: &usize| all.get(index % all.len().max(1));
    if let Edit::File(name, _) | Edit::Directory(name) | Edit::HardLink(_, name) | Edit::Rename(_, name) =
        edit
    {
        let parent = Path::new(name).parent().unwrap();
        let _ = root.create_dir_all(parent, 0o755, &mut |_| {});
    }
    let _ = match edit {
        Edit::File(name, text) => {
            root.create_file(name, 0o644).and_then(|mut file| file.write_all(text.as_bytes()))
        }
        Edit::Directory(name) => root.create_dir(name, 0o755),
        Edit::Symlink(name, target) => root.symlink(Path::new(target), name),
        Edit::Fifo(name) => root.mknod(name, FileKind::Fifo, 0o600),
        Edit::Socket(name) => root.mknod(name, FileKind::Socket, 0o600),
        Edit::HardLink(from, name) => at(from).map_or(Ok(()), |from| root.hard_link(from, name)),
        Edit::Rename(from, name) => at(from).map_or(Ok(()), |from| rename(root, from, Path::new(name))),
        Edit::Remove(index) => at(index).map_or(Ok(()), |path| root.remove_all(path)),
        Edit::Replace(index, edit) => {
            if let Some(path) = at(index) {
                root.remove_all(path).unwrap();
                let named = |edit: &Edit| match edit.clone() {
                    Edit::File(_, text) => Edit::File(path.to_str().unwrap().to_owned(), text),
                    Edit::Directory(_) => Edit::Directory(path.to_str().unwrap().to_owned()),
                    Edit::Symlink(_, target) => Edit::Symlink(path.to_str().unwrap().to_owned(), target),
                    edit => edit,
                };
                perform(root, &named(edit));
            }
            Ok(())
        }
        edit => {
            if let Some(path) = match edit {
                Edit::Append(index, _)
                | Edit::WriteUnseen(index, _)
                | Edit::WriteSame(index)
                | Edit::Mode(index, _)
                | Edit::SameMode(index)
                | Edit::Owner(index, _)
                | Edit::Time(index, _)
                | Edit::SameTime(index)
                | Edit::SetAttribute(index, _)
                | Edit::RemoveAttribute(index)
                | Edit::Recreate(index)
                | Edit::Renew(index) => at(index),
                _ => unreachable!(),
            } {
                change(root, path, edit);
            }
            Ok(())
        }
    };
}

/// Renames as programs do: a directory from a lower layer is copied and removed.
fn rename(root: &RootDir, from: &Path, to: &Path) -> std::io::Result<()> {
    match root.rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            if to.starts_with(from) || root.exists(to)? {
                return Ok(());
            }
            copy_tree(root, from, root, to)?;
            root.remove_all(from)
        }
        result => result,
    }
}

fn change(root: &RootDir, path: &Path, edit: &Edit) {
    let metadata = root.metadata(path).unwrap();
    let file = || {
        let file = fs::OpenOptions::new().write(true).open(root.path().join(path)).unwrap();
        let length = file.metadata().unwrap().len();
        (file, length)
    };
    match edit {
        Edit::Mode(_, mode) if metadata.kind != FileKind::Symlink => root.set_mode(path, *mode).unwrap(),
        Edit::SameMode(_) if metadata.kind != FileKind::Symlink => {
            root.set_mode(path, metadata.mode).unwrap()
        }
        Edit::Owner(_, uid) if is_root() => root.set_owner(path, *uid, 0).unwrap(),
        Edit::Time(_, seconds) => {
            root.set_mtime(path, Timestamp { seconds: *seconds, nanoseconds: 9 }).unwrap();
        }
        Edit::SameTime(_) => root.set_mtime(path, metadata.mtime).unwrap(),
        Edit::Renew(_) if metadata.kind.is_dir() => {
            root.remove_all(path).unwrap();
            root.create_dir(path, metadata.mode).unwrap();
        }
        _ if metadata.kind != FileKind::File => {}
        Edit::Append(_, text) => {
            let (file, length) = file();
            file.write_all_at(text.as_bytes(), length).unwrap();
        }
        Edit::WriteUnseen(_, text) => {
            file().0.write_all_at(text.as_bytes(), 0).unwrap();
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        Edit::WriteSame(_) => {
            let content = root.read(path).unwrap();
            file().0.write_all_at(&content, 0).unwrap();
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        Edit::SetAttribute(_, text) => {
            root.set_xattr(path, OsStr::new("user.test"), text.as_bytes()).unwrap();
        }
        Edit::RemoveAttribute(_) => root.remove_xattr(path, OsStr::new("user.test")).unwrap(),
        Edit::Recreate(_) => {
            let (content, xattrs) = (root.read(path).unwrap(), root.xattrs(path).unwrap());
            root.remove_file(path).unwrap();
            root.create_file(path, metadata.mode).unwrap().write_all(&content).unwrap();
            xattrs.iter().for_each(|(name, value)| root.set_xattr(path, name, value).unwrap());
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        _ => {}
    }
}

fn cases(count: u32) -> ProptestConfig {
    // More by hand, in containers for one: tools/unit-in-kinds.
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(count),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

/// Compares index and full comparison over two steps, and applies what they say.
fn check_index(dir: &Path, first: &[Edit], steps: &[Vec<Edit>]) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let dir = dir.path();
    let root = subdir(dir, "root");
    first.iter().for_each(|edit| perform(&root, edit));
    let mut index = Arc::new(scan(&root, &[]).unwrap());
    for edits in steps {
        let before = subdir(dir, "before");
        copy_tree(&root, "", &before, "").unwrap();
        edits.iter().for_each(|edit| perform(&root, edit));
        let after = Arc::new(index.rescan(&root, &[]).unwrap());
        let by_index = || diff(Arc::clone(&index), Arc::clone(&after), Arc::clone(&root));
        let compared = lines(compare_trees(Arc::clone(&before), Arc::clone(&root)));
        assert_eq!(lines(by_index()), compared);
        assert_turns_into(dir, &before, &root, by_index);
        index = after;
        Arc::get_mut(&mut index).unwrap().complete(&root).unwrap();
        fs::remove_dir_all(dir.join("before")).unwrap();
    }
}

/// The changes that `edit` makes to the tree of `first`, by index on each file system and by overlay.
fn changes_of(first: impl Fn(&RootDir) + Sync, edit: impl Fn(&RootDir) + Sync, expected: &[&str]) {
    on_each_file_system(|dir| {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let root = subdir(dir.path(), "root");
        first(&root);
        let before = Arc::new(scan(&root, &[]).unwrap());
        edit(&root);
        let after = Arc::new(before.rescan(&root, &[]).unwrap());
        assert_eq!(brief(diff(before, after, root)), expected, "by index");
    });
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let lower = subdir(dir.path(), "lower");
        first(&lower);
        with_overlay(dir.path(), &lower, &edit, |Edited { upper, userxattr, .. }| {
            assert_eq!(brief(overlay_changes(upper, lower.clone(), userxattr, &[])), expected, "by overlay");
        });
    });
}

fn some_tree(root: &RootDir) {
    for dir in ["d", "d/e", "keep"] {
        root.create_dir(dir, 0o755).unwrap();
    }
    for file in ["a", "b", "d/f", "d/e/g", "keep/k"] {
        root.create_file(file, 0o644).unwrap().write_all(file.as_bytes()).unwrap();
        root.set_xattr(file, OsStr::new("user.x"), b"1").unwrap();
    }
    root.symlink(Path::new("a"), "l").unwrap();
    for path in ["a", "b", "d/f", "d/e/g", "d/e", "d", "l", "keep/k", "keep"] {
        root.set_mtime(path, Timestamp { seconds: 1_000, nanoseconds: 0 }).unwrap();
    }
}

#[test]
fn merely_touched_entries_are_left_out() {
    let touch = |root: &RootDir| {
        for path in ["a", "d/f", "d/e", "d"] {
            root.set_mode(path, root.metadata(path).unwrap().mode).unwrap();
        }
        root.set_mtime("l", Timestamp { seconds: 1_000, nanoseconds: 0 }).unwrap();
        root.set_xattr("b", OsStr::new("user.x"), b"1").unwrap();
        for edit in [Edit::WriteSame(0), Edit::Recreate(0)] {
            change(root, Path::new("d/e/g"), &edit);
        }
        root.set_mtime("d/e", Timestamp { seconds: 1_000, nanoseconds: 0 }).unwrap();
    };
    changes_of(some_tree, touch, &[]);
}

#[test]
fn changes_with_forged_times_are_seen() {
    let forge = |root: &RootDir| {
        change(root, Path::new("d/e/g"), &Edit::WriteUnseen(0, "X".to_owned()));
        root.set_xattr("b", OsStr::new("user.x"), b"2").unwrap();
        root.remove_file("l").unwrap();
        root.symlink(Path::new("b"), "l").unwrap();
        root.set_mtime("l", Timestamp { seconds: 1_000, nanoseconds: 0 }).unwrap();
    };
    changes_of(some_tree, forge, &["+b", "+d", "+d/e", "+d/e/g", "+l"]);
}

#[test]
fn replaced_directories_say_what_is_gone() {
    let renew = |root: &RootDir| {
        root.remove_all("d").unwrap();
        root.create_dir("d", 0o755).unwrap();
        root.create_dir("d/e", 0o755).unwrap();
        root.create_file("d/new", 0o644).unwrap();
    };
    changes_of(some_tree, renew, &["+d", "+d/e", "-d/e/g", "-d/f", "+d/new"]);
}

#[test]
fn other_types_replace_what_was_there() {
    let swap = |root: &RootDir| {
        root.remove_all("d").unwrap();
        root.create_file("d", 0o644).unwrap();
        root.remove_all("a").unwrap();
        root.create_dir("a", 0o755).unwrap();
        root.create_file("a/x", 0o644).unwrap();
        root.remove_all("keep").unwrap();
        root.symlink(Path::new("a"), "keep").unwrap();
        root.remove_all("b").unwrap();
        root.mknod("b", FileKind::Socket, 0o600).unwrap();
    };
    changes_of(some_tree, swap, &["+a", "+a/x", "-b", "+d", "+keep"]);
}

#[test]
fn a_directory_does_not_merge_with_what_a_link_below_leads_to() {
    let first = |root: &RootDir| {
        some_tree(root);
        root.symlink(Path::new("d"), "to-d").unwrap();
    };
    let edit = |root: &RootDir| {
        root.remove_file("to-d").unwrap();
        copy_tree(root, "d", root, "to-d").unwrap();
    };
    changes_of(first, edit, &["+to-d", "+to-d/e", "+to-d/e/g", "+to-d/f"]);
}

#[test]
fn what_came_and_went_leaves_only_its_directory() {
    let edit = |root: &RootDir| {
        root.create_dir("d/tmp", 0o755).unwrap();
        root.create_file("d/tmp/x", 0o644).unwrap();
        root.remove_all("d/tmp").unwrap();
        root.remove_all("keep/k").unwrap();
    };
    changes_of(some_tree, edit, &["+d", "+keep", "-keep/k"]);
}

#[test]
fn a_new_name_brings_the_others_along() {
    let edit = |root: &RootDir| {
        root.hard_link("d/f", "z").unwrap();
        root.hard_link("b", "b2").unwrap();
    };
    changes_of(some_tree, edit, &["+b", "+b2", "+d", "+d/f", "+z"]);
}

#[test]
fn writing_through_one_name_changes_all_in_a_directory() {
    on_each_file_system(|dir| {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let root = subdir(dir.path(), "root");
        some_tree(&root);
        root.hard_link("d/f", "z").unwrap();
        root.hard_link("a", "y").unwrap();
        let before = Arc::new(scan(&root, &[]).unwrap());
        change(&root, Path::new("z"), &Edit::WriteUnseen(0, "XX".to_owned()));
        root.remove_file("y").unwrap();
        let after = Arc::new(before.rescan(&root, &[]).unwrap());
        assert_eq!(brief(diff(before, after, root)), ["+d", "+d/f", "-y", "+z"]);
    });
}

#[test]
fn moved_directories_are_new_with_all_they_hold() {
    let edit = |root: &RootDir| rename(root, Path::new("d"), Path::new("moved")).unwrap();
    changes_of(some_tree, edit, &["-d", "+moved", "+moved/e", "+moved/e/g", "+moved/f"]);
    let edit = |root: &RootDir| {
        rename(root, Path::new("d"), Path::new("t")).unwrap();
        rename(root, Path::new("t"), Path::new("d")).unwrap();
    };
    changes_of(some_tree, edit, &[]);
}

#[test]
fn stores_through_a_mapping_are_seen() {
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[0:1]=b'X'\n";
    let python = |path: &Path| std::process::Command::new("python3").args(["-c", script]).arg(path).status();
    if !python(Path::new("/nonexistent")).is_ok_and(|status| status.code() == Some(1)) {
        return; // needs python3: a mapping cannot be written to without unsafe code
    }
    let edit = |root: &RootDir| {
        let metadata = root.metadata("d/f").unwrap();
        assert!(python(&root.path().join("d/f")).unwrap().success());
        root.set_mtime("d/f", metadata.mtime).unwrap();
    };
    changes_of(some_tree, edit, &["+d", "+d/f"]);
}

#[test]
fn excluded_paths_are_as_they_were() {
    let root_of = |dir: &Path| {
        let root = subdir(dir, "root");
        some_tree(&root);
        for path in ["run/cache/deep", "keep/p/q/r/s/old"] {
            root.create_dir_all(path, 0o755, &mut |_| {}).unwrap();
        }
        root
    };
    let edit = |root: &RootDir| {
        root.remove_all("run/cache").unwrap();
        root.remove_all("d").unwrap();
        root.create_file("run/x", 0o644).unwrap();
        root.create_file("keep/p/q/r/s/t", 0o644).unwrap();
    };
    let exclude = ["/run/cache", "d/e", "none", "keep/p/q/r/s", "d/e/1/2"].map(PathBuf::from);
    let expected = ["-d", "+run", "+run/x"];
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(dir.path());
    let before = Arc::new(scan(&root, &[]).unwrap());
    edit(&root);
    let after = Arc::new(before.rescan(&root, &exclude).unwrap());
    assert_eq!(brief(diff(before, Arc::clone(&after), Arc::clone(&root))), expected);
    root.create_dir("run/cache", 0o755).unwrap();
    let last = Arc::new(after.rescan(&root, &[]).unwrap());
    let expected_last = [
        "+keep",
        "+keep/p",
        "+keep/p/q",
        "+keep/p/q/r",
        "+keep/p/q/r/s",
        "+keep/p/q/r/s/t",
        "+run",
        "+run/cache",
        "-run/cache/deep",
    ];
    assert_eq!(brief(diff(after, last, root)), expected_last);
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let lower = root_of(dir.path());
        with_overlay(dir.path(), &lower, edit, |Edited { upper, userxattr, .. }| {
            assert_eq!(brief(overlay_changes(upper, lower.clone(), userxattr, &exclude)), expected);
        });
    });
}

#[test]
fn trees_deeper_than_any_path() {
    let dir = tempfile::tempdir().unwrap();
    let (before, root) = (subdir(dir.path(), "before"), subdir(dir.path(), "root"));
    let deep = PathBuf::from(vec!["directory-with-a-long-name"; 300].join("/"));
    root.create_dir_all(&deep, 0o755, &mut |_| {}).unwrap();
    for name in ["f", "g"] {
        root.create_file(deep.join(name), 0o644).unwrap();
    }
    copy_tree(&root, "", &before, "").unwrap();
    let first = Arc::new(scan(&root, &[]).unwrap());
    root.create_file(deep.join("f2"), 0o644).unwrap().write_all(b"x").unwrap();
    root.set_mode(deep.join("g"), 0o644).unwrap();
    let second = Arc::new(first.rescan(&root, &[]).unwrap());
    let by_index = lines(diff(first, second, Arc::clone(&root)));
    assert_eq!(by_index.len(), 301);
    assert_eq!(lines(compare_trees(before, root)), by_index);
}

#[test]
fn known_fingerprints_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let root = subdir(dir.path(), "root");
    some_tree(&root);
    let mut known = Fingerprints::new();
    let hasher = ContentHasher::new();
    known.insert(Path::new("a"), 1, hasher.finish(&root.xattrs("a").unwrap()));
    let before = Arc::new(Index::scan(&root, &[], &known).unwrap());
    for path in ["a", "b"] {
        root.set_mode(path, 0o644).unwrap();
    }
    let after = Arc::new(before.rescan(&root, &[]).unwrap());
    // The false fingerprint shows that the file was not read.
    assert_eq!(brief(diff(before, after, root)), ["+a"]);
}

#[test]
fn without_completion_a_touched_new_file_counts_as_changed() {
    let dir = tempfile::tempdir().unwrap();
    let root = subdir(dir.path(), "root");
    let first = Arc::new(scan(&root, &[]).unwrap());
    some_tree(&root);
    let mut second = first.rescan(&root, &[]).unwrap();
    let incomplete = second.clone();
    second.complete(&root).unwrap();
    root.set_mode("a", 0o644).unwrap();
    let changed = |index: Index| {
        let after = Arc::new(index.rescan(&root, &[]).unwrap());
        brief(diff(Arc::new(index), after, Arc::clone(&root)))
    };
    assert_eq!(changed(incomplete), ["+a"]);
    assert_eq!(changed(second), [""; 0]);
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn index_says_what_a_full_comparison_says(
        first in prop::collection::vec(edit(), 0..20),
        steps in prop::collection::vec(prop::collection::vec(edit(), 0..8), 1..3),
    ) {
        on_each_file_system(|dir| check_index(dir, &first, &steps));
    }

    #[test]
    fn overlay_says_what_a_full_comparison_says(
        first in prop::collection::vec(edit(), 0..20),
        edits in prop::collection::vec(edit(), 0..12),
    ) {
        let first: Vec<&Edit> = first.iter().filter(|edit| !matches!(edit, Edit::HardLink(..))).collect();
        with_mounts(|| {
            let dir = tempfile::tempdir().unwrap();
            let lower = subdir(dir.path(), "lower");
            first.iter().for_each(|edit| perform(&lower, edit));
            let edit = |merged: &RootDir| edits.iter().for_each(|edit| perform(merged, edit));
            with_overlay(dir.path(), &lower, edit, |Edited { dir, upper, merged, userxattr }| {
                let by_upper = || overlay_changes(Arc::clone(&upper), Arc::clone(&lower), userxattr, &[]);
                let compared = lines(compare_trees(Arc::clone(&lower), Arc::clone(&merged)));
                assert_eq!(lines(by_upper()), compared);
                assert_turns_into(&dir, &lower, &merged, by_upper);
            });
        });
    }
}
