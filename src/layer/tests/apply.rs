//! What layers and archives do to a tree.

use std::ffi::OsStr;
use std::io::Write as _;

use super::*;
use crate::tree::Device;

fn write(root: &RootDir, path: &str, content: &[u8]) {
    root.create_file(path, 0o644).unwrap().write_all(content).unwrap();
}

fn paths(root: &RootDir) -> Vec<String> {
    list(root).into_keys().map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn tar(changes: Vec<(&str, Option<Node>)>) -> Vec<u8> {
    let changes = changes.into_iter().map(|(path, node)| {
        let path = PathBuf::from(path);
        Ok(match (node, path.file_name()) {
            (Some(node), _) => Change::Upsert { path, node },
            (None, Some(name)) if name == "*" => Change::Opaque { path: path.parent().unwrap().to_owned() },
            (None, _) => Change::Remove { path },
        })
    });
    let mut tar = Vec::new();
    let changes: Vec<_> = changes.collect();
    write_tar(Box::new(changes.into_iter()), &TarOptions::default(), &mut tar).unwrap();
    tar
}

/// `old/{a,b}`, `old/sub/c`, `keep`.
fn older() -> (tempfile::TempDir, Arc<RootDir>) {
    let (dir, root) = temporary();
    root.create_dir("old", 0o700).unwrap();
    root.create_dir("old/sub", 0o700).unwrap();
    for path in ["old/a", "old/b", "old/sub/c", "keep"] {
        write(&root, path, path.as_bytes());
    }
    (dir, root)
}

#[test]
fn whiteouts_remove_what_is_older() {
    let (_dir, root) = older();
    let layer = tar(vec![("old", Some(directory())), ("old/a", None), ("old/sub", None), ("zero", None)]);
    unpack(&layer, &root, &LAYER).unwrap();
    assert_eq!(paths(&root), ["keep", "old", "old/b"]);
    assert_eq!(metadata(&root, "old").mode, 0o755);
    assert_eq!(metadata(&root, "old").mtime.seconds, 1_700_000_000, "set after the removals");
}

#[test]
fn an_opaque_directory_hides_what_is_older_wherever_its_mark_stands() {
    let entries: [(&str, u8, &str, &[u8]); 4] = [
        ("old/", b'5', "", b""),
        ("old/new", b'0', "", b"new"),
        ("old/sub/deep/new", b'0', "", b"new"),
        ("old/.wh..wh..opq", b'0', "", b""),
    ];
    for order in [[0, 1, 2, 3], [0, 3, 1, 2], [3, 0, 1, 2], [2, 1, 3, 0]] {
        let (_dir, root) = older();
        let layer = raw_tar(&order.map(|index| entries[index]));
        unpack(&layer, &root, &LAYER).unwrap();
        let expected = ["keep", "old", "old/new", "old/sub", "old/sub/deep", "old/sub/deep/new"];
        assert_eq!(paths(&root), expected, "order {order:?}");
    }
}

#[test]
fn a_whiteout_and_a_new_entry_of_the_same_name_is_a_replacement() {
    for entries in [
        [("old/", b'5', "", &b""[..]), (".wh.old", b'0', "", b""), ("old/new", b'0', "", b"")],
        [(".wh.old", b'0', "", b""), ("old/", b'5', "", b""), ("old/new", b'0', "", b"")],
        [("old/new", b'0', "", b""), (".wh.old", b'0', "", b""), ("old/", b'5', "", b"")],
    ] {
        let (_dir, root) = older();
        unpack(&raw_tar(&entries), &root, &LAYER).unwrap();
        assert_eq!(paths(&root), ["keep", "old", "old/new"]);
        if is_root() {
            let (_lower_dir, lower) = temporary();
            unpack(&raw_tar(&entries), &lower, &LOWER).unwrap();
            assert_eq!(lower.xattrs("old").unwrap()[OsStr::new("trusted.overlay.opaque")], b"y");
        }
    }
}

#[test]
fn an_overlay_gets_its_own_marks() {
    // Device nodes and `trusted` attributes are for root.
    if !is_root() {
        return;
    }
    let layer = tar(vec![("dir", Some(directory())), ("dir/*", None), ("dir/gone", None), ("gone", None)]);
    for (userxattr, name) in [(false, "trusted.overlay.opaque"), (true, "user.overlay.opaque")] {
        let (_dir, root) = temporary();
        let options = ApplyOptions { whiteouts: Whiteouts::Overlay { userxattr }, ..LOWER };
        unpack(&layer, &root, &options).unwrap();
        let whiteout = FileKind::CharDevice(Device { major: 0, minor: 0 });
        assert_eq!(metadata(&root, "gone").kind, whiteout);
        assert_eq!(metadata(&root, "dir/gone").kind, whiteout);
        assert_eq!(root.xattrs("dir").unwrap()[OsStr::new(name)], b"y");
        assert_eq!(metadata(&root, "dir").mtime.seconds, 1_700_000_000);
    }
}

#[test]
fn an_archive_may_have_names_that_look_like_whiteouts() {
    let (_dir, root) = older();
    unpack(&raw_tar(&[("old/.wh.a", b'0', "", b"x"), (".wh..wh..opq", b'0', "", b"")]), &root, &ARCHIVE)
        .unwrap();
    assert_eq!(contents(&root, Path::new("old/.wh.a")), b"x");
    assert!(root.exists("old/a").unwrap() && root.exists(".wh..wh..opq").unwrap());
}

#[test]
fn types_replace_each_other() {
    let make: [fn() -> Node; 4] =
        [directory, || file(b"x"), || symlink("elsewhere"), || node(NodeKind::Fifo, 0o644)];
    for (from, first) in make.iter().enumerate() {
        for (to, second) in make.iter().enumerate() {
            let (_dir, root) = temporary();
            unpack(&tar(vec![("it", Some(first()))]), &root, &LAYER).unwrap();
            if from == 0 {
                write(&root, "it/inside", b"");
            }
            unpack(&tar(vec![("it", Some(second()))]), &root, &LAYER).unwrap();
            let (_fresh_dir, fresh) = temporary();
            unpack(&tar(vec![("it", Some(second()))]), &fresh, &LAYER).unwrap();
            assert_eq!(list(&root)[Path::new("it")], list(&fresh)[Path::new("it")], "{from} {to}");
            assert_eq!(root.exists("it/inside").unwrap(), from == 0 && to == 0, "{from} {to}");
        }
    }
}

#[test]
fn a_new_file_does_not_change_the_other_names_of_the_old_one() {
    let (_dir, root) = temporary();
    write(&root, "a", b"old");
    root.hard_link("a", "b").unwrap();
    unpack(&tar(vec![("a", Some(file(b"new")))]), &root, &LAYER).unwrap();
    assert_eq!(contents(&root, Path::new("b")), b"old");
}

#[test]
fn an_older_link_on_the_way_becomes_a_directory_in_a_layer() {
    let (_dir, root) = temporary();
    root.create_dir("usr", 0o755).unwrap();
    root.create_dir("usr/lib", 0o755).unwrap();
    root.symlink(Path::new("usr/lib"), "lib").unwrap();
    write(&root, "plain", b"");
    let layer = raw_tar(&[("lib/x", b'0', "", b"x"), ("plain/y", b'0', "", b"y")]);
    let applied = unpack(&layer, &root, &LAYER).unwrap();
    assert_eq!(paths(&root), ["lib", "lib/x", "plain", "plain/y", "usr", "usr/lib"]);
    assert_eq!(applied.implied_dirs, [Path::new("lib"), Path::new("plain")]);
    assert_eq!(metadata(&root, "lib").mode, 0o755);
    // The very same as what an overlay would show.
    let (_lower_dir, lower) = temporary();
    let applied = unpack(&layer, &lower, &LOWER).unwrap();
    assert_eq!(paths(&lower), ["lib", "lib/x", "plain", "plain/y"]);
    assert_eq!(applied.implied_dirs, [Path::new("lib"), Path::new("plain")]);
}

#[test]
fn a_link_of_the_same_layer_is_followed_inside_the_root() {
    let layer = raw_tar(&[
        ("abs", b'2', "/usr/lib", b""),
        ("up", b'2', "../../usr", b""),
        ("abs/x", b'0', "", b"x"),
        ("up/lib/y", b'0', "", b"y"),
    ]);
    for options in [LAYER, LOWER, ARCHIVE] {
        let (_dir, root) = temporary();
        unpack(&layer, &root, &options).unwrap();
        assert_eq!(paths(&root), ["abs", "up", "usr", "usr/lib", "usr/lib/x", "usr/lib/y"]);
    }
}

#[test]
fn an_archive_follows_links_that_were_there() {
    let (_dir, root) = temporary();
    root.create_dir("usr", 0o755).unwrap();
    root.symlink(Path::new("/usr"), "link").unwrap();
    let archive = raw_tar(&[("link/x", b'0', "", b"x"), ("./", b'5', "", b"")]);
    unpack(&archive, &root, &ARCHIVE).unwrap();
    apply_tar(TarReader::new(&archive[..]), &root, Path::new("/link/new/dest"), &ARCHIVE).unwrap();
    assert_eq!(
        paths(&root),
        ["link", "usr", "usr/new", "usr/new/dest", "usr/new/dest/link", "usr/new/dest/link/x", "usr/x"]
    );
}

#[test]
fn hard_links_are_found_by_relative_and_absolute_names() {
    let (_dir, root) = temporary();
    write(&root, "older", b"older");
    let layer = raw_tar(&[
        ("d/first", b'0', "", b"content"),
        ("second", b'1', "d/first", b""),
        ("third", b'1', "/d/first", b""),
        ("fourth", b'1', "./d/../d/first", b""),
        ("older too", b'1', "older", b""),
    ]);
    unpack(&layer, &root, &LAYER).unwrap();
    assert_eq!(metadata(&root, "d/first").nlink, 4);
    assert_eq!(metadata(&root, "older").nlink, 2);
    let (_lower_dir, lower) = temporary();
    let applied = unpack(&layer, &lower, &LOWER).unwrap();
    assert_eq!(applied.dangling_links, [(PathBuf::from("older too"), PathBuf::from("older"))]);
    let (_other_dir, other) = temporary();
    let error = unpack(&layer, &other, &LAYER).unwrap_err();
    assert_eq!(error.to_string(), "cannot link `older too`");
}

#[test]
fn directories_that_no_entry_stands_for_keep_their_times() {
    let (_dir, root) = older();
    let long_ago = Timestamp { seconds: 5, nanoseconds: 7 };
    for path in ["old/sub", "old"] {
        root.set_mtime(path, long_ago).unwrap();
    }
    unpack(&raw_tar(&[("old/sub/new", b'0', "", b""), ("old/.wh.a", b'0', "", b"")]), &root, &LAYER).unwrap();
    assert_eq!(metadata(&root, "old").mtime, long_ago);
    assert_eq!(metadata(&root, "old/sub").mtime, long_ago);
}

#[test]
fn modes_survive_owners_and_the_umask() {
    // Owners are for root.
    if !is_root() {
        return;
    }
    let mut setuid = file(b"x");
    (setuid.mode, setuid.uid, setuid.gid) = (0o6777, 12, 34);
    let mut sticky = directory();
    (sticky.mode, sticky.uid) = (0o1777, 99);
    let archive = tar(vec![("setuid", Some(setuid)), ("sticky", Some(sticky))]);
    let (_dir, root) = temporary();
    unpack(&archive, &root, &LAYER).unwrap();
    let found = metadata(&root, "setuid");
    assert_eq!((found.mode, found.uid, found.gid), (0o6777, 12, 34));
    let found = metadata(&root, "sticky");
    assert_eq!((found.mode, found.uid), (0o1777, 99));
    let options = ApplyOptions { owners: Owners::Set { uid: 7, gid: 8 }, ..ARCHIVE };
    apply_tar(TarReader::new(&archive[..]), &root, Path::new("made"), &options).unwrap();
    for path in ["made/setuid", "made/sticky"] {
        assert_eq!((metadata(&root, path).uid, metadata(&root, path).gid), (7, 8), "{path}");
    }
    // What the archive does not list is root's.
    assert_eq!((metadata(&root, "made").uid, metadata(&root, "made").gid), (0, 0));
    assert_eq!(metadata(&root, "made/setuid").mode, 0o6777);
}

#[test]
fn what_the_system_refuses_is_a_warning_and_counted() {
    // `trusted` on a file works for root; an attribute of no known kind works for nobody.
    let (_dir, root) = temporary();
    let mut odd = file(b"");
    odd.xattrs.insert(OsString::from("nonsense.name"), b"1".to_vec());
    odd.xattrs.insert(OsString::from("trusted.overlay.redirect"), b"/etc".to_vec());
    (odd.uid, odd.gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Written by hand: the writer drops the overlay's attributes itself.
    let mut archive = Vec::new();
    for name in ["one", "two"] {
        let mut records = BTreeMap::new();
        for (key, value) in &odd.xattrs {
            let key = [b"SCHILY.xattr.", std::os::unix::ffi::OsStrExt::as_bytes(key.as_os_str())].concat();
            records.insert(key, value.clone());
        }
        let header = header::Header {
            type_flag: b'0',
            name: name.as_bytes(),
            link: b"",
            mode: 0o644,
            uid: odd.uid.into(),
            gid: odd.gid.into(),
            size_bytes: 0,
            mtime_seconds: 0,
            device: None,
        };
        header.write(records, &mut archive);
    }
    let device = raw_tar(&[("dev", b'3', "", b"")]);
    archive.extend(device);
    let applied = unpack(&archive, &root, &LAYER).unwrap();
    let said: Vec<_> =
        applied.warnings.iter().map(|warning| (warning.what.as_str(), warning.count)).collect();
    assert_eq!(said, [("attribute nonsense.name", 2), ("device node 0:0", 1)]);
    assert!(root.xattrs("one").unwrap().is_empty(), "a layer cannot steer the overlay");
    assert!(!root.exists("dev").unwrap());
}
