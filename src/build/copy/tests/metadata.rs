//! Owners, modes, attributes, special files.

use super::*;

#[test]
fn files_of_a_context_belong_to_root() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&[
        "dir d",
        "file d/f x",
        "own d/f 7 8",
        "dir d/e",
        "own d/e 7 8",
        "link d/l x",
        "own d/l 7 8",
    ]);
    let expected = ["dir 755 0:0 to", "dir 755 0:0 to/e", "file 644 0:0 to/f x", "link 777 0:0 to/l x"];
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), expected);
}

#[test]
fn files_of_a_stage_keep_their_owner_but_for_the_top_directory() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&[
        "dir d 700",
        "own d 7 8",
        "file d/f x",
        "own d/f 7 8",
        "dir d/e 750",
        "own d/e 9 9",
        "link d/l x",
        "own d/l 7 8",
    ]);
    let expected = ["dir 755 0:0 to", "dir 750 9:9 to/e", "file 644 7:8 to/f x", "link 777 7:8 to/l x"];
    assert_eq!(copy(&from, &["d"], "/to").of_stage().onto_scratch(), expected);
}

#[test]
fn an_owner_is_given_to_everything_also_to_new_parents() {
    let from = Tree::new(&["dir d", "dir d/e", "file d/e/f x", "link d/l y"]);
    let onto = Tree::new(&["dir a 711"]);
    let expected = [
        "dir 711 0:0 a",
        "dir 755 3:4 a/b",
        "dir 755 3:4 a/b/to",
        "dir 755 3:4 a/b/to/e",
        "file 644 3:4 a/b/to/e/f x",
        "link 777 3:4 a/b/to/l y",
    ];
    assert_eq!(copy(&from, &["d"], "/a/b/to").chown(3, 4).onto(&onto), expected);
}

#[test]
fn an_octal_mode_is_given_to_everything_also_to_new_parents() {
    let from = Tree::new(&["dir d", "dir d/e 711", "file d/e/f x 755"]);
    let expected = ["dir 640 0:0 q", "dir 640 0:0 q/r", "dir 640 0:0 q/r/e", "file 640 0:0 q/r/e/f x"];
    assert_eq!(copy(&from, &["d"], "/q/r").chmod("640").onto_scratch(), expected);
    let expected = ["dir 640 0:0 q", "dir 640 0:0 q/r", "file 640 0:0 q/r/f x"];
    assert_eq!(copy(&from, &["d/e/f"], "/q/r/f").chmod("640").onto_scratch(), expected);
}

#[test]
fn a_symbolic_mode_changes_what_each_had() {
    let from = Tree::new(&["dir d", "dir d/e 700", "file d/f x 640", "file d/g x 750"]);
    let expected = ["dir 755 0:0 to", "dir 711 0:0 to/e", "file 640 0:0 to/f x", "file 751 0:0 to/g x"];
    assert_eq!(copy(&from, &["d"], "/to").chmod("a+X").onto_scratch(), expected);
    let expected = ["dir 755 0:0 to", "dir 700 0:0 to/e", "file 600 0:0 to/f x", "file 700 0:0 to/g x"];
    assert_eq!(copy(&from, &["d"], "/to").chmod("go=").onto_scratch(), expected);
}

#[test]
fn an_existing_parent_is_left_alone() {
    let from = Tree::new(&["file f x"]);
    let onto = Tree::new(&["dir a 711"]);
    let expected = ["dir 711 0:0 a", "file 600 3:4 a/f x"];
    assert_eq!(copy(&from, &["f"], "/a/").chmod("600").chown(3, 4).onto(&onto), expected);
}

#[test]
fn set_id_and_sticky_bits_survive() {
    let from = Tree::new(&["dir d", "file d/u x 4755", "file d/g x 2755", "dir d/t 1777"]);
    let expected = ["dir 755 0:0 to", "file 2755 0:0 to/g x", "dir 1777 0:0 to/t", "file 4755 0:0 to/u x"];
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), expected);
    assert_eq!(copy(&from, &["d"], "/to").chown(1, 1).onto_scratch()[3], "file 4755 1:1 to/u x");
    assert_eq!(copy(&from, &["d/u"], "/to").chmod("6711").onto_scratch(), ["file 6711 0:0 to x"]);
}

#[test]
fn file_capabilities_survive_and_other_attributes_do_not() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&[
        "dir d",
        "file d/f x",
        "cap d/f",
        "attr d/f user.a",
        "attr d user.b",
        "dir d/e",
        "attr d/e user.c",
    ]);
    for copying in [copy(&from, &["d"], "/to"), copy(&from, &["d"], "/to").of_stage().chown(1, 2)] {
        copying.onto_scratch();
        let (changes, _) = copying.plan(Below { root: None, pending: &Pending::default() }).unwrap();
        let expected = BTreeMap::from([("security.capability".into(), CAPABILITY.to_vec())]);
        assert_eq!(node(&changes, "to/f").xattrs, expected);
        assert!(node(&changes, "to").xattrs.is_empty() && node(&changes, "to/e").xattrs.is_empty());
    }
}

#[test]
fn sockets_become_empty_files_and_pipes_stay() {
    let from = Tree::new(&["dir d", "sock d/s", "fifo d/p"]);
    from.root.set_mode("d/s", 0o711).unwrap();
    let expected = ["dir 755 0:0 to", "fifo 600 0:0 to/p", "file 711 0:0 to/s"];
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), expected);
    assert_eq!(copy(&from, &["d/s"], "/to").onto_scratch(), ["file 711 0:0 to"]);
}

#[test]
fn devices_stay_devices() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&["dir d", "null d/n"]);
    from.root.set_mode("d/n", 0o622).unwrap();
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), ["dir 755 0:0 to", "char 622 0:0 to/n 1:3"]);
}

#[test]
fn what_is_there_already_is_no_change() {
    let lines = ["dir d", "file d/f x", "link d/l y", "dir d/e 700", "file d/e/g z"];
    let from = Tree::new(&lines);
    assert_eq!(copy(&from, &["."], "/").onto(&Tree::new(&lines)), Vec::<String>::new());
    assert_eq!(copy(&from, &["d/f"], "/d/").onto(&Tree::new(&lines)), Vec::<String>::new());
}

#[test]
fn any_difference_is_a_change() {
    let from = Tree::new(&["file f x"]);
    for onto in ["file f y", "file f xx", "file f x 600", "link f x", "fifo f"] {
        let onto = Tree::new(&[onto]);
        let dest = copy(&from, &["f"], "/./f/../f");
        if onto.root.metadata("f").unwrap().kind != FileKind::Symlink {
            assert_eq!(dest.onto(&onto), ["file 644 0:0 f x"]);
        }
    }
    let onto = Tree::new(&["file f x"]);
    onto.root.set_mtime("f", NOW).unwrap();
    assert_eq!(copy(&from, &["f"], "/").onto(&onto), ["file 644 0:0 f x"]);
    assert_eq!(copy(&from, &["f"], "/").chown(1, 1).onto(&Tree::new(&["file f x"])), ["file 644 1:1 f x"]);
}

#[test]
fn fractions_of_a_second_are_no_change_as_no_layer_has_them() {
    let from = Tree::new(&["file f x"]);
    from.root.set_mtime("f", Timestamp { nanoseconds: 5, ..OLD }).unwrap();
    assert!(copy(&from, &["f"], "/").onto(&Tree::new(&["file f x"])).is_empty());
}

#[test]
fn directories_above_a_change_come_as_they_are() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&["file f x"]);
    let onto = Tree::new(&["dir a 701", "own a 5 6", "dir a/b 1777", "attr a user.x"]);
    let copying = copy(&from, &["f"], "/a/b/");
    assert_eq!(copying.onto(&onto), ["dir 701 5:6 a", "dir 1777 0:0 a/b", "file 644 0:0 a/b/f x"]);
    let below = Below { root: Some(&onto.root), pending: &Pending::default() };
    assert_eq!(node(&copying.plan(below).unwrap().0, "a").mtime, OLD);
}

/// BuildKit's: what is only on the way to what is taken keeps its owner where it is there already, and gets the source's
/// own mode, also where an earlier source of the same copy made it with the mode of `--chmod`.
#[test]
fn directories_on_the_way_keep_their_owner_and_get_the_sources_mode() {
    let from = Tree::new(&["dir x 750", "dir x/a 700", "file x/a/f 1", "dir x/b", "file x/b/f 3"]);
    let copying = |patterns| copy(&from, patterns, "/").parents().chown(3, 4).chmod("711");
    let expected = [
        "dir 750 3:4 x",
        "dir 711 3:4 x/a",
        "file 711 3:4 x/a/f 1",
        "dir 711 3:4 x/b",
        "file 711 3:4 x/b/f 3",
    ];
    assert_eq!(copying(&["x/a/f", "x/b/f"]).onto_scratch(), expected);

    if !is_root() {
        return;
    }
    let onto = Tree::new(&["dir x 705", "own x 7 8", "dir x/a 711", "own x/a 9 9", "attr x/a user.kept"]);
    let (changes, _) = {
        let below = Below { root: Some(&onto.root), pending: &Pending::default() };
        copying(&["x/a/f"]).plan(below).unwrap()
    };
    assert_eq!(listed(&changes), ["dir 750 7:8 x", "dir 700 9:9 x/a", "file 711 3:4 x/a/f 1"]);
    assert!(node(&changes, "x/a").xattrs.contains_key(OsStr::new("user.kept")));
    // What is taken itself is given all of it.
    assert_eq!(copying(&["x/a"]).onto(&onto)[..2], ["dir 750 7:8 x", "dir 711 3:4 x/a"]);
}

#[test]
fn an_excluded_directory_with_something_to_take_is_on_the_way_too() {
    let from = Tree::new(&["dir d", "dir d/s 700", "file d/s/x 1", "file d/s/y 2"]);
    let onto = Tree::new(&["dir to", "dir to/s 711"]);
    let copying = copy(&from, &["d"], "/to").exclude(&["s", "!s/x"]).chown(3, 4).chmod("u=rwx,go=");
    assert_eq!(copying.onto(&onto), ["dir 755 0:0 to", "dir 700 0:0 to/s", "file 700 3:4 to/s/x 1"]);
}
