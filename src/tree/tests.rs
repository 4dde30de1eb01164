//! Tests of the whole folder: hostile links, any depth, faithful copies.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn fixture() -> (tempfile::TempDir, RootDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    let root = RootDir::open(&dir.path().join("root")).unwrap();
    (dir, root)
}

fn paths(walk: Walk) -> Vec<String> {
    walk.map(|entry| entry.unwrap().path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn links_stay_inside() {
    let (dir, root) = fixture();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    let inside = dir.path().join("root");
    fs::create_dir_all(inside.join("etc")).unwrap();
    fs::write(inside.join("etc/passwd"), "inside").unwrap();
    symlink("/etc/passwd", inside.join("absolute")).unwrap();
    symlink("../../../../../etc/passwd", inside.join("climbing")).unwrap();
    symlink("../secret", inside.join("neighbour")).unwrap();
    symlink("/", inside.join("top")).unwrap();
    for root in [&root, &RootDir::open_without_openat2(&inside).unwrap()] {
        for path in ["absolute", "climbing", "top/top/absolute", "../../etc/passwd", "/etc/../../etc/passwd"]
        {
            assert_eq!(root.read(path).unwrap(), b"inside", "{path}");
            assert_eq!(root.resolve(path).unwrap(), Path::new("etc/passwd"), "{path}");
        }
        assert_eq!(root.read("neighbour").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.resolve("neighbour").unwrap(), Path::new("secret"));
        assert!(root.exists("neighbour").unwrap());
        assert!(!root.exists("absolute/x").unwrap());
        assert_eq!(root.metadata_follow("top").unwrap().ino, fs::metadata(&inside).unwrap().ino());
        assert_eq!(root.metadata("top").unwrap().kind, FileKind::Symlink);
        assert_eq!(root.metadata("").unwrap().ino, fs::metadata(&inside).unwrap().ino());
        assert_eq!(root.metadata("/..").unwrap().ino, fs::metadata(&inside).unwrap().ino());
    }
}

#[test]
fn link_loops_end() {
    let (dir, root) = fixture();
    symlink("b", dir.path().join("root/a")).unwrap();
    symlink("a", dir.path().join("root/b")).unwrap();
    symlink("self/self", dir.path().join("root/self")).unwrap();
    for path in ["a", "self", "a/x"] {
        assert_eq!(root.resolve(path).unwrap_err().raw_os_error(), Some(libc::ELOOP), "{path}");
        assert_eq!(root.read(path).unwrap_err().raw_os_error(), Some(libc::ELOOP), "{path}");
    }
}

#[test]
fn resolve_keeps_what_is_missing() {
    let (dir, root) = fixture();
    let inside = dir.path().join("root");
    fs::create_dir_all(inside.join("a/b")).unwrap();
    fs::write(inside.join("file"), "").unwrap();
    symlink("/a", inside.join("link")).unwrap();
    symlink("nowhere/else", inside.join("dangling")).unwrap();
    for (path, expected) in [
        ("link/x/y", "a/x/y"),
        ("link/x/../b/../../link/z", "a/z"),
        ("dangling", "nowhere/else"),
        ("dangling/../more", "nowhere/more"),
        ("missing/../link/b", "a/b"),
        ("", ""),
        ("/", ""),
        ("a/b/../..", ""),
        ("link/.", "a"),
    ] {
        assert_eq!(root.resolve(path).unwrap(), Path::new(expected), "{path}");
    }
    assert_eq!(root.resolve("file/x").unwrap_err().kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn create_dir_all_reports_what_it_made() {
    let (dir, root) = fixture();
    let inside = dir.path().join("root");
    fs::create_dir(inside.join("a")).unwrap();
    symlink("/lib64/deep", inside.join("a/dangling")).unwrap();
    fs::write(inside.join("file"), "").unwrap();
    let create = |path: &str| {
        let mut made = Vec::new();
        let result =
            root.create_dir_all(path, 0o1750, &mut |path| made.push(path.to_str().unwrap().to_owned()));
        result.map(|()| made)
    };
    assert_eq!(create("a/x/y").unwrap(), ["a/x", "a/x/y"]);
    assert_eq!(create("a/x/y/").unwrap(), [""; 0]);
    assert_eq!(create("/a/dangling/z").unwrap(), ["lib64", "lib64/deep", "lib64/deep/z"]);
    assert_eq!(create("file/z").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(create("file").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(root.metadata("lib64").unwrap().mode, 0o1750);
}

#[test]
fn opening_never_blocks_or_touches_devices() {
    let (_dir, root) = fixture();
    root.mknod("pipe", FileKind::Fifo, 0o644).unwrap();
    root.mknod("socket", FileKind::Socket, 0o644).unwrap();
    root.create_dir("dir", 0o755).unwrap();
    root.symlink(Path::new("pipe"), "link").unwrap();
    for path in ["pipe", "socket", "dir", "link"] {
        assert!(root.open_file(path).is_err(), "{path}");
        assert!(root.open_nofollow(path).is_err(), "{path}");
        assert!(root.read(path).is_err(), "{path}");
    }
    let message = root.open_file("link").unwrap_err().to_string();
    assert_eq!(message, "expected a regular file, found a named pipe");
    assert_eq!(root.open_nofollow("link").unwrap_err().raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn changes_do_not_follow_links() {
    let (_dir, root) = fixture();
    root.create_file("file", 0o640).unwrap();
    root.symlink(Path::new("file"), "link").unwrap();
    let before = root.metadata("file").unwrap();
    let when = Timestamp { seconds: -5, nanoseconds: 7 };
    root.set_mtime("link", when).unwrap();
    assert_eq!(root.metadata("link").unwrap().mtime, when);
    assert_eq!(root.set_mode("link", 0o777).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    if is_root() {
        root.set_owner("link", 5, 6).unwrap();
        assert_eq!(root.metadata("link").unwrap().uid, 5);
        // Links take no other attributes, and these take CAP_SYS_ADMIN.
        match root.set_xattr("link", OsStr::new("trusted.t"), b"x") {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            Ok(()) => assert_eq!(root.xattrs("link").unwrap()[OsStr::new("trusted.t")], b"x"),
        }
    }
    assert_eq!(root.metadata("file").unwrap(), before);
    assert!(root.xattrs("file").unwrap().is_empty());
    assert_eq!(root.set_owner("file", u32::MAX, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    root.remove_all("link").unwrap();
    assert!(root.exists("file").unwrap());
}

#[test]
fn extended_attributes_of_any_size() {
    let (_dir, root) = fixture();
    root.create_dir("d", 0o755).unwrap();
    root.create_file("d/f", 0o644).unwrap();
    let large = vec![10; 1500]; // ext4 keeps about 4,000 bytes in all
    for path in ["d", "d/f", ""] {
        root.set_xattr(path, OsStr::new("user.large"), &large).unwrap();
        root.set_xattr(path, OsStr::new("user.empty"), b"").unwrap();
        for index in 0..30 {
            root.set_xattr(path, OsStr::new(&format!("user.longer-name-{index}")), b"\n").unwrap();
        }
        let xattrs = root.xattrs(path).unwrap();
        assert_eq!(xattrs.len(), 32);
        assert_eq!(xattrs[OsStr::new("user.large")], large);
        root.remove_xattr(path, OsStr::new("user.large")).unwrap();
        root.remove_xattr(path, OsStr::new("user.large")).unwrap();
        assert_eq!(root.xattrs(path).unwrap().len(), 31);
    }
    assert_eq!(root.xattrs("missing").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn walks_in_component_order() {
    let (_dir, root) = fixture();
    for path in ["a", "a/z", "a-b", "a.d", "B"] {
        root.create_dir(path, 0o755).unwrap();
    }
    root.symlink(Path::new("/"), "a/loop").unwrap();
    root.create_file(OsStr::from_bytes(b"\xff\n"), 0o600).unwrap();
    let all: Vec<PathBuf> = Walk::new(&root, "").unwrap().map(|entry| entry.unwrap().path).collect();
    let mut expected: Vec<PathBuf> =
        ["B", "a", "a/loop", "a/z", "a-b", "a.d"].into_iter().map(PathBuf::from).collect();
    expected.push(PathBuf::from(OsStr::from_bytes(b"\xff\n")));
    assert_eq!(all, expected);
    let mut walk = Walk::new(&root, "").unwrap();
    while let Some(entry) = walk.next() {
        let path = entry.unwrap().path;
        assert_ne!(path, Path::new("a/loop"));
        if path == Path::new("a") {
            walk.skip_subtree();
        }
    }
    assert_eq!(paths(Walk::new(&root, "a/loop/a").unwrap()), ["loop", "z"]);
    assert!(Walk::new(&root, "missing").is_err());
}

#[test]
fn a_walk_believes_who_knows_what_is_in_a_directory() {
    let (dir, root) = fixture();
    for path in ["root/a/b", "root/c"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    for path in ["root/a/x", "root/a/y", "root/a/b/z", "root/c/z"] {
        fs::write(dir.path().join(path), "").unwrap();
    }
    let known = root.metadata("a").unwrap();
    let names = |now: &Metadata| {
        known.is_untouched(now).then(|| Names::of(["b", "gone", "y"].into_iter().map(str::as_bytes)))
    };
    let walk = |start: &str, metadata| Walk::new(&root, start).unwrap().knowing(&names, metadata);
    assert_eq!(paths(walk("", None)), ["a", "a/b", "a/b/z", "a/y", "c", "c/z"]);
    assert_eq!(paths(walk("a", Some(known))), ["b", "b/z", "y"]);
    assert_eq!(paths(walk("a", None)), ["b", "b/z", "x", "y"]);
}

#[test]
fn walk_stays_on_one_mount_if_asked() {
    let root = RootDir::open(Path::new("/")).unwrap();
    let mut walk = Walk::new(&root, "").unwrap().same_device_only();
    let mut met = false;
    while let Some(entry) = walk.next() {
        let path = entry.unwrap().path;
        met |= path == Path::new("proc");
        assert!(path == Path::new("proc") || !path.starts_with("proc"));
        if path != Path::new("proc") {
            walk.skip_subtree();
        }
    }
    assert!(met);
}

#[test]
fn remove_all_spares_mounts() {
    if !is_root() {
        return; // mounting needs CAP_SYS_ADMIN
    }
    let (dir, root) = fixture();
    let inside = dir.path().join("root");
    fs::create_dir_all(inside.join("a/volume")).unwrap();
    fs::create_dir_all(dir.path().join("precious")).unwrap();
    fs::write(dir.path().join("precious/data"), "x").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
                return;
            }
            let none: Option<&str> = None;
            let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
            nix::mount::mount(none, "/", none, private, none).unwrap();
            let source = dir.path().join("precious");
            let flags = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(&source), &inside.join("a/volume"), none, flags, none).unwrap();
            let root = RootDir::open(&inside).unwrap();
            assert_eq!(root.remove_all("a").unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            assert_eq!(paths(Walk::new(&root, "").unwrap()), ["a", "a/volume", "a/volume/data"]);
            assert_eq!(paths(Walk::new(&root, "").unwrap().same_device_only()), ["a", "a/volume"]);
        });
    });
    root.remove_all("a").unwrap();
    assert!(dir.path().join("precious/data").exists());
}

#[test]
fn remove_all_takes_everything_or_nothing_at_all() {
    let (_dir, root) = fixture();
    root.create_dir_all("a/b/c", 0o755, &mut |_| {}).unwrap();
    root.create_file("a/b/f", 0o000).unwrap();
    root.mknod("a/p", FileKind::Fifo, 0o000).unwrap();
    root.set_mode("a/b", 0o000).unwrap();
    root.remove_all("a/missing").unwrap();
    root.remove_all("missing/b").unwrap();
    root.remove_all("a").unwrap();
    root.create_file("x", 0o000).unwrap();
    root.create_dir("y", 0o000).unwrap();
    root.remove_all("").unwrap();
    assert!(root.read_dir("").unwrap().is_empty());
}

#[test]
fn trees_of_any_depth() {
    let (_dir, root) = fixture();
    let deep = PathBuf::from(vec!["deep-directory"; 2500].join("/"));
    let mut made = 0;
    root.create_dir_all(&deep, 0o755, &mut |_| made += 1).unwrap();
    assert_eq!(made, 2500);
    let file = deep.join("file");
    root.create_file(&file, 0o600).unwrap().write_all(b"bottom").unwrap();
    root.hard_link(&file, deep.join("link")).unwrap();
    root.set_xattr(&file, OsStr::new("user.x"), b"y").unwrap();
    assert_eq!(root.read(&file).unwrap(), b"bottom");
    assert_eq!(root.resolve(&file).unwrap(), file);
    assert_eq!(Walk::new(&root, "").unwrap().count(), 2502);
    copy_tree(&root, "deep-directory", &root, "copy").unwrap();
    let copied = Path::new("copy").join(file.strip_prefix("deep-directory").unwrap());
    assert_eq!(root.read(&copied).unwrap(), b"bottom");
    assert_eq!(root.metadata(&copied).unwrap().nlink, 2);
    assert_eq!(root.xattrs(&copied).unwrap().len(), 1);
    root.remove_all("").unwrap();
    assert!(root.read_dir("").unwrap().is_empty());
}

#[test]
fn copies_keep_holes() {
    let (_dir, root) = fixture();
    let file = root.create_file("sparse", 0o600).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"middle", 40 << 20).unwrap();
    file.set_len(100 << 20).unwrap();
    copy_tree(&root, "sparse", &root, "copy").unwrap();
    let copy = root.open_file("copy").unwrap();
    let metadata = copy.metadata().unwrap();
    assert_eq!(metadata.len(), 100 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20, "holes were filled");
    let mut middle = [0; 6];
    copy.read_exact_at(&mut middle, 40 << 20).unwrap();
    assert_eq!(&middle, b"middle");
}

#[test]
fn copies_between_file_systems_keep_holes() {
    let Ok(shared) = tempfile::tempdir_in("/dev/shm") else {
        return; // needs a second file system
    };
    let (_dir, root) = fixture();
    let other = RootDir::open(shared.path()).unwrap();
    let file = other.create_file("f", 0o600).unwrap();
    file.write_all_at(b"x", 3 << 20).unwrap();
    file.set_len(5 << 20).unwrap();
    copy_tree(&other, "", &root, "").unwrap();
    assert_eq!(root.read("f").unwrap(), other.read("f").unwrap());
    assert!(root.open_file("f").unwrap().metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn copy_file_data_stops_at_size_and_at_the_end() {
    let (_dir, root) = fixture();
    root.create_file("f", 0o600).unwrap().write_all(&[7; 10_000]).unwrap();
    for (size, expected) in [(0, 0), (5, 5), (10_000, 10_000), (20_000, 10_000)] {
        root.remove_all("g").unwrap();
        let to = root.create_file("g", 0o600).unwrap();
        assert_eq!(copy_file_data(&root.open_file("f").unwrap(), &to, size).unwrap(), expected);
        assert_eq!(root.metadata("g").unwrap().size_bytes, expected);
    }
    // A file whose metadata says nothing of its content.
    let proc = fs::File::open("/proc/self/status").unwrap();
    let to = root.create_file("h", 0o600).unwrap();
    assert!(copy_file_data(&proc, &to, 1 << 20).unwrap() > 100);
}

#[test]
fn copy_tree_is_faithful() {
    let (_dir, root) = fixture();
    root.create_dir_all("from/sub/empty", 0o755, &mut |_| {}).unwrap();
    root.create_file("from/sub/f", 0o4751).unwrap().write_all(b"content").unwrap();
    root.hard_link("from/sub/f", "from/other").unwrap();
    root.symlink(Path::new("/anywhere"), "from/link").unwrap();
    root.mknod("from/pipe", FileKind::Fifo, 0o620).unwrap();
    root.set_xattr("from/sub", OsStr::new("user.k"), b"v").unwrap();
    if is_root() {
        let device = Device { major: 1, minor: 300 };
        // Root in a user namespace may not.
        if let Err(error) = root.mknod("from/null", FileKind::CharDevice(device), 0o666) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        root.set_owner("from/sub/f", 12, 13).unwrap();
        root.set_mode("from/sub/f", 0o4751).unwrap();
        root.set_owner("from/link", 14, 15).unwrap();
    }
    for (index, path) in
        ["from/sub/f", "from/link", "from/pipe", "from/sub", "from/sub/empty", "from"].iter().enumerate()
    {
        root.set_mtime(path, Timestamp { seconds: 1_000 + index as i64, nanoseconds: 5 }).unwrap();
    }
    root.create_dir("to", 0o700).unwrap();
    copy_tree(&root, "from", &root, "to").unwrap();
    assert_eq!(describe(&root, "to"), describe(&root, "from"));
    assert_eq!(root.metadata("to").unwrap().mtime.seconds, 1_005);
    let error = copy_tree(&root, "from", &root, "to").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(error.to_string(), "`link`");
}

#[test]
fn a_directory_cannot_be_copied_into_itself() {
    let (_dir, root) = fixture();
    root.create_dir_all("a/z", 0o755, &mut |_| {}).unwrap();
    for to in ["a/b", "a/z/b", "a"] {
        let error = copy_tree(&root, "a", &root, to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{to}");
    }
}

/// Everything about a tree that a copy keeps.
fn describe(root: &RootDir, start: &str) -> Vec<String> {
    Walk::new(root, start)
        .unwrap()
        .map(|entry| {
            let Entry { path, metadata: m } = entry.unwrap();
            let full = Path::new(start).join(&path);
            let size = if m.kind.is_dir() { 0 } else { m.size_bytes };
            let text = match m.kind {
                FileKind::File => format!("{:?}", root.read(&full).unwrap()),
                FileKind::Symlink => format!("{:?}", root.read_link(&full).unwrap()),
                _ => String::new(),
            };
            let xattrs = root.xattrs(&full).unwrap();
            format!(
                "{path:?} {:?} {:o} {}:{} {size} {:?} {} {xattrs:?} {text}",
                m.kind, m.mode, m.uid, m.gid, m.mtime, m.nlink
            )
        })
        .collect()
}

/// A step of a random tree: a directory, a file or a link with a hostile target.
fn hostile_step() -> impl Strategy<Value = (u8, String, String)> {
    (0_u8..4, "[abc](/[abc]){0,2}", "/?((\\.\\.|\\.|[abc])/){0,4}([abc]|\\.\\.|[abc]/)")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_and_own_resolution_agree(
        steps in prop::collection::vec(hostile_step(), 1..14),
        paths in prop::collection::vec("/?((\\.\\.|\\.|[abc])/){0,5}([abc]|\\.\\.)/?", 12),
    ) {
        let (dir, root) = fixture();
        let own = RootDir::open_without_openat2(root.path()).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "outside").unwrap();
        }
        for (kind, path, target) in steps {
            // Whether or not it works: both resolvers see the same tree.
            let _ = match kind {
                0 => root.create_dir(&path, 0o755),
                1 => root.create_file(&path, 0o644).map(drop),
                _ => root.symlink(Path::new(&target), &path),
            };
        }
        let mut inodes: BTreeSet<u64> =
            Walk::new(&root, "").unwrap().map(|entry| entry.unwrap().metadata.ino).collect();
        inodes.insert(root.metadata("").unwrap().ino);
        for path in paths {
            let by_kernel = root.metadata_follow(&path);
            let by_hand = own.metadata_follow(&path);
            match (&by_kernel, &by_hand) {
                (Ok(a), Ok(b)) => {
                    prop_assert_eq!(a.ino, b.ino, "{}", path);
                    prop_assert!(inodes.contains(&a.ino), "{} escaped", path);
                    let canonical = root.resolve(&path).unwrap();
                    prop_assert_eq!(root.metadata(&canonical).unwrap().ino, a.ino, "{}", path);
                    prop_assert_eq!(root.resolve(&canonical).unwrap(), canonical);
                }
                (Err(a), Err(b)) => prop_assert_eq!(a.raw_os_error(), b.raw_os_error(), "{}", path),
                _ => prop_assert!(false, "{}: {:?} {:?}", path, by_kernel, by_hand),
            }
            let plain = |root: &RootDir| root.metadata(&path).map(|metadata| metadata.ino).ok();
            prop_assert_eq!(plain(&root), plain(&own));
            if root.create_dir_all(&path, 0o755, &mut |_| {}).is_ok() {
                let made = own.resolve(&path).unwrap();
                prop_assert!(own.metadata(&made).unwrap().kind.is_dir());
                inodes.extend(Walk::new(&root, "").unwrap().map(|entry| entry.unwrap().metadata.ino));
            }
        }
        let outside: Vec<OsString> = RootDir::open(dir.path()).unwrap().read_dir("").unwrap();
        prop_assert_eq!(outside, ["a", "b", "c", "root"]);
    }
}

/// A cache is another step's, too, while a directory is made in it.
#[test]
fn a_link_that_takes_the_place_of_a_new_directory_leads_nowhere() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let (dir, root) = fixture();
    let (outside, inside) = (dir.path().join("outside"), dir.path().join("root"));
    fs::write(&outside, "").unwrap();
    fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    symlink(&outside, inside.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (new, link) = (inside.join("new"), inside.join("link"));
                let _ = renameat_with(CWD, new, CWD, link, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..3000 {
            // Whether it is made or refused does not matter.
            let _ = root.create_dir("new", 0o755);
            while root.exists("new").unwrap() && root.exists("link").unwrap() {
                let _ = root.remove_dir("new").or_else(|_| root.remove_dir("link"));
            }
            let _ = root.rename("new", "link");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_exact_path_has_no_links() {
    let (dir, root) = fixture();
    symlink("root", dir.path().join("link")).unwrap();
    root.create_dir_all("a/b", 0o755, &mut |_| {}).unwrap();
    symlink("a", dir.path().join("root/c")).unwrap();
    // Where temporary directories are may be a link.
    let base = dir.path().canonicalize().unwrap();
    assert_eq!(RootDir::open_exact(&base.join("root/a")).unwrap().read_dir("").unwrap(), ["b"]);
    for path in ["link", "link/a", "root/c", "root/c/b", "root/../root", "none"] {
        assert!(RootDir::open_exact(&base.join(path)).is_err(), "{path}");
    }
    assert!(RootDir::open_exact(Path::new("/")).is_ok());
}
