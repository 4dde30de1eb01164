//! Edits one by one, and what must be said of each.

use super::edit::{Edit, change, rename};
use super::*;

/// The changes that `edit` makes to the tree of `first`, by index on each file system and by overlay.
fn changes_of(first: impl Fn(&RootDir) + Sync, edit: impl Fn(&RootDir) + Sync, expected: &[&str]) {
    on_each_file_system(|dir| {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let root = subdir(dir.path(), "root");
        first(&root);
        let before = Arc::new(scan(&root, &[]).unwrap());
        edit(&root);
        let after = Arc::new(before.rescan(&root, &[], &[]).unwrap());
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
        let after = Arc::new(before.rescan(&root, &[], &[]).unwrap());
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
    let after = Arc::new(before.rescan(&root, &exclude, &[]).unwrap());
    assert_eq!(brief(diff(before, Arc::clone(&after), Arc::clone(&root))), expected);
    root.create_dir("run/cache", 0o755).unwrap();
    let last = Arc::new(after.rescan(&root, &[], &[]).unwrap());
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
    let second = Arc::new(first.rescan(&root, &[], &[]).unwrap());
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
    let after = Arc::new(before.rescan(&root, &[], &[]).unwrap());
    // The false fingerprint shows that the file was not read.
    assert_eq!(brief(diff(before, after, root)), ["+a"]);
}

#[test]
fn without_completion_a_touched_new_file_counts_as_changed() {
    let dir = tempfile::tempdir().unwrap();
    let root = subdir(dir.path(), "root");
    let first = Arc::new(scan(&root, &[]).unwrap());
    some_tree(&root);
    let mut second = first.rescan(&root, &[], &[]).unwrap();
    let incomplete = second.clone();
    second.complete(&root).unwrap();
    root.set_mode("a", 0o644).unwrap();
    let changed = |index: Index| {
        let after = Arc::new(index.rescan(&root, &[], &[]).unwrap());
        brief(diff(Arc::new(index), after, Arc::clone(&root)))
    };
    assert_eq!(changed(incomplete), ["+a"]);
    assert_eq!(changed(second), [""; 0]);
}
