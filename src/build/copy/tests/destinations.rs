//! Where copies go.

use super::*;

fn file() -> Tree {
    Tree::new(&["file f new"])
}

#[test]
fn a_destination_without_a_slash_is_the_files_name() {
    assert_eq!(copy(&file(), &["f"], "/a/b").onto_scratch(), ["dir 755 0:0 a", "file 644 0:0 a/b new"]);
}

#[test]
fn a_destination_with_a_slash_is_a_directory() {
    let expected = ["dir 755 0:0 a", "dir 755 0:0 a/b", "file 644 0:0 a/b/f new"];
    assert_eq!(copy(&file(), &["f"], "/a/b/").onto_scratch(), expected);
}

#[test]
fn a_relative_destination_starts_at_the_working_directory() {
    assert_eq!(copy(&file(), &["f"], "x").onto_scratch(), ["dir 755 0:0 work", "file 644 0:0 work/x new"]);
    assert_eq!(copy(&file(), &["f"], "../x").onto_scratch(), ["file 644 0:0 x new"]);
}

#[test]
fn a_dot_and_nothing_are_the_working_directory() {
    for dest in [".", "", "./"] {
        assert_eq!(
            copy(&file(), &["f"], dest).onto_scratch(),
            ["dir 755 0:0 work", "file 644 0:0 work/f new"],
            "{dest:?}"
        );
    }
}

#[test]
fn a_file_goes_into_an_existing_directory() {
    let onto = Tree::new(&["dir a 700"]);
    assert_eq!(copy(&file(), &["f"], "/a").onto(&onto), ["dir 700 0:0 a", "file 644 0:0 a/f new"]);
}

#[test]
fn a_file_replaces_a_file() {
    let onto = Tree::new(&["dir a", "file a/f old 600"]);
    for dest in ["/a/f", "/a/", "/a"] {
        assert_eq!(copy(&file(), &["f"], dest).onto(&onto), ["dir 755 0:0 a", "file 644 0:0 a/f new"]);
    }
}

#[test]
fn a_directory_gives_its_contents() {
    let from = Tree::new(&["dir d 700", "file d/f x", "dir d/e 710", "file d/e/g y"]);
    let expected = ["dir 755 0:0 to", "dir 710 0:0 to/e", "file 644 0:0 to/e/g y", "file 644 0:0 to/f x"];
    for source in ["d", "d/", "d/.", "./d", "/d", "../d", "x/../d"] {
        assert_eq!(copy(&from, &[source], "/to").onto_scratch(), expected, "{source}");
        assert_eq!(copy(&from, &[source], "/to/").onto_scratch(), expected, "{source}");
    }
}

#[test]
fn an_existing_destination_keeps_its_mode_and_directories_inside_do_not() {
    let from = Tree::new(&["dir d 700", "dir d/e 710", "file d/e/g y"]);
    let onto = Tree::new(&["dir to 711", "dir to/e 777"]);
    let expected = ["dir 711 0:0 to", "dir 710 0:0 to/e", "file 644 0:0 to/e/g y"];
    assert_eq!(copy(&from, &["d"], "/to").onto(&onto), expected);
}

#[test]
fn an_empty_directory_makes_an_empty_directory() {
    let from = Tree::new(&["dir d"]);
    assert_eq!(copy(&from, &["d"], "/x/to").onto_scratch(), ["dir 755 0:0 x", "dir 755 0:0 x/to"]);
}

#[test]
fn a_new_destination_has_the_sources_time_and_parents_have_the_builds() {
    let from = Tree::new(&["dir d", "file d/f"]);
    let (changes, _) =
        copy(&from, &["d"], "/x/to").plan(Below { root: None, pending: &Pending::default() }).unwrap();
    assert_eq!(node(&changes, "x").mtime, NOW);
    assert_eq!(node(&changes, "x/to").mtime, OLD);
    assert_eq!(node(&changes, "x/to/f").mtime, OLD);
}

#[test]
fn the_whole_root_is_copied_onto_the_whole_root() {
    let from = Tree::new(&["dir d", "file d/f x"]);
    for source in [".", "/", "./", "..", "*/.."] {
        assert_eq!(copy(&from, &[source], "/").onto_scratch(), ["dir 755 0:0 d", "file 644 0:0 d/f x"]);
    }
}

#[test]
fn a_directory_does_not_go_onto_a_file() {
    let from = Tree::new(&["dir d", "file d/f", "dir d/e"]);
    let onto = Tree::new(&["file to", "dir x", "file x/e"]);
    assert_eq!(copy(&from, &["d"], "/to").error(&onto), "cannot copy to non-directory: /to");
    assert_eq!(copy(&from, &["d"], "/x").error(&onto), "cannot copy to non-directory: /x/e");
}

#[test]
fn a_file_does_not_go_onto_a_directory_of_its_name() {
    let from = Tree::new(&["file f", "dir d", "file d/f"]);
    let onto = Tree::new(&["dir a", "dir a/f"]);
    for source in ["f", "d"] {
        let error = copy(&from, &[source], "/a/").error(&onto);
        assert_eq!(error, "cannot replace to directory /a/f with file");
    }
}

#[test]
fn a_file_on_the_way_is_an_error() {
    let onto = Tree::new(&["file a"]);
    for dest in ["/a/b", "/a/", "/a/b/c/"] {
        let error = copy(&file(), &["f"], dest).error(&onto);
        assert!(error.contains("mkdir /a: not a directory"), "{dest}: {error}");
    }
}

#[test]
fn of_several_sources_without_a_slash_the_last_wins() {
    let from = Tree::new(&["file f 1", "file g 2"]);
    assert_eq!(copy(&from, &["f", "g"], "/x").onto_scratch(), ["file 644 0:0 x 2"]);
    assert_eq!(copy(&from, &["g", "f"], "/x").onto_scratch(), ["file 644 0:0 x 1"]);
}

#[test]
fn several_sources_go_into_one_directory() {
    let from = Tree::new(&["file f 1", "dir d", "file d/g 2", "dir e", "file e/g 3"]);
    let expected = ["dir 755 0:0 x", "file 644 0:0 x/f 1", "file 644 0:0 x/g 3"];
    assert_eq!(copy(&from, &["f", "d", "e"], "/x/").onto_scratch(), expected);
}

#[test]
fn a_directory_made_by_one_source_takes_the_next() {
    let from = Tree::new(&["dir d", "file f 1"]);
    assert_eq!(copy(&from, &["d", "f"], "/x").onto_scratch(), ["dir 755 0:0 x", "file 644 0:0 x/f 1"]);
}

#[test]
fn a_heredoc_is_a_file_of_its_own_name() {
    let inline = || CopySource::Inline { name: "eof".to_owned(), body: Arc::from(*b"text") };
    assert_eq!(copying(vec![inline()], "/a/").onto_scratch(), ["dir 755 0:0 a", "file 644 0:0 a/eof text"]);
    assert_eq!(copying(vec![inline()], "/a").onto_scratch(), ["file 644 0:0 a text"]);
    let all = copying(vec![inline()], "/b/a").chmod("700").chown(1, 2).onto_scratch();
    assert_eq!(all, ["dir 700 1:2 b", "file 700 1:2 b/a text"]);
    let onto = Tree::new(&["dir a", "dir a/eof"]);
    assert!(copying(vec![inline()], "/a").error(&onto).starts_with("cannot replace to directory /a/eof"));
}

#[test]
fn a_download_has_its_own_name_mode_and_time() {
    let from = Tree::new(&["file downloaded x 644"]);
    let root = CopyRoot { root: from.root.clone(), ignore: None, keep_owner: false };
    let source = CopySource::Download {
        from: root,
        path: "downloaded".into(),
        name: "name.tar".to_owned(),
        mode: 0o600,
        mtime: Timestamp { seconds: 5, nanoseconds: 0 },
    };
    let copying = copying(vec![source], "/a/");
    assert_eq!(copying.onto_scratch(), ["dir 755 0:0 a", "file 600 0:0 a/name.tar x"]);
    let (changes, _) = copying.plan(Below { root: None, pending: &Pending::default() }).unwrap();
    assert_eq!(node(&changes, "a/name.tar").mtime.seconds, 5);
}

#[test]
fn a_working_directory_belongs_to_its_user_with_all_new_parents() {
    let onto = Tree::new(&["dir a 700"]);
    let below = Below { root: Some(&onto.root), pending: &Pending::default() };
    let (changes, _) = plan_directory("/a/b/c", Some((5, 6)), NOW, below).unwrap();
    assert_eq!(listed(&changes), ["dir 700 0:0 a", "dir 755 5:6 a/b", "dir 755 5:6 a/b/c"]);
    let (changes, _) = plan_directory("/a/", Some((5, 6)), NOW, below).unwrap();
    assert!(changes.is_empty(), "{:?}", listed(&changes));
    let onto = Tree::new(&["file a"]);
    let below = Below { root: Some(&onto.root), pending: &Pending::default() };
    let error = plan_directory("/a/b", None, NOW, below).unwrap_err().to_string();
    assert_eq!(error, "cannot copy to `/a/b`: mkdir /a: not a directory");
}

/// mkdir(2)'s: Debian's `/var/local` is such a directory.
#[test]
fn what_is_made_in_a_set_group_id_directory_is_one_itself() {
    if !is_root() {
        return;
    }
    let from = Tree::new(&["dir d", "dir d/s 700", "file f x"]);
    let onto = Tree::new(&["dir l 2775", "own l 0 50"]);
    let below = Below { root: Some(&onto.root), pending: &Pending::default() };
    let (changes, _) = plan_directory("/l/a/b", None, NOW, below).unwrap();
    assert_eq!(listed(&changes), ["dir 2775 0:50 l", "dir 2755 0:50 l/a", "dir 2755 0:50 l/a/b"]);
    let (changes, _) = plan_directory("/l/a", Some((5, 6)), NOW, below).unwrap();
    assert_eq!(listed(&changes)[1], "dir 2755 5:6 l/a");
    let lines = copy(&from, &["f"], "/l/a/").chmod("700").onto(&onto);
    assert_eq!(lines[1..], ["dir 2700 0:50 l/a", "file 700 0:0 l/a/f x"]);
    // What is copied has its own mode and owner.
    assert_eq!(copy(&from, &["d"], "/l/").onto(&onto)[1..], ["dir 700 0:0 l/s"]);
}
