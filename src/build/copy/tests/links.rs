//! Symbolic and hard links, on either side.

use super::*;

#[test]
fn a_link_named_as_a_source_is_followed() {
    let from = Tree::new(&["file f x", "link l f", "dir d", "file d/g y", "link e d", "link abs /d/g"]);
    assert_eq!(copy(&from, &["l"], "/to/").onto_scratch()[1], "file 644 0:0 to/l x");
    assert_eq!(copy(&from, &["abs"], "/to/").onto_scratch()[1], "file 644 0:0 to/abs y");
    assert_eq!(copy(&from, &["e"], "/to/").onto_scratch()[1], "file 644 0:0 to/g y");
    assert_eq!(copy(&from, &["e/g"], "/to/").onto_scratch()[1], "file 644 0:0 to/g y");
    assert_eq!(copy(&from, &["l*"], "/to/").onto_scratch()[1], "file 644 0:0 to/l x");
    assert_eq!(copy(&from, &["e*"], "/to/").onto_scratch()[1], "file 644 0:0 to/g y");
}

#[test]
fn a_link_inside_a_copied_directory_stays_one() {
    let from = Tree::new(&["dir d", "link d/l ../../x", "link d/m /nowhere", "link d/e ."]);
    let expected =
        ["dir 755 0:0 to", "link 777 0:0 to/e .", "link 777 0:0 to/l ../../x", "link 777 0:0 to/m /nowhere"];
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), expected);
    assert_eq!(copy(&from, &["d"], "/to").chmod("700").onto_scratch()[2], "link 777 0:0 to/l ../../x");
}

#[test]
fn a_link_does_not_lead_out_of_the_source() {
    let outside = Tree::new(&["file secret x"]);
    let secret = outside.root.path().join("secret");
    let climbing = format!("link c ../../../../../../../..{}", secret.display());
    let absolute = format!("link a {}", secret.display());
    let from = Tree::new(&[climbing.as_str(), absolute.as_str(), "file top y", "link up ../../../top"]);
    let onto = Tree::new(&[]);
    for source in ["a", "c"] {
        let error = copy(&from, &[source], "/to").error(&onto);
        assert!(error.ends_with(&format!("\"/{source}\": not found")), "{error}");
    }
    assert_eq!(copy(&from, &["up"], "/to").onto_scratch(), ["file 644 0:0 to y"]);
}

#[test]
fn a_dangling_source_is_not_found() {
    let from = Tree::new(&["link l nowhere", "file f", "link n f/x"]);
    let onto = Tree::new(&[]);
    for source in ["l", "n", "l/x", "f/x"] {
        let error = copy(&from, &[source], "/to").error(&onto);
        assert!(error.contains(&format!("\"/{source}\": not found")), "{error}");
    }
}

#[test]
fn a_loop_of_links_is_an_error_that_says_so() {
    let from = Tree::new(&["link a b", "link b a", "file f"]);
    let onto = Tree::new(&["link x y", "link y x"]);
    let error = copy(&from, &["a"], "/to").error(&onto);
    assert_eq!(error, "cannot read `a` to copy it: Too many levels of symbolic links (os error 40)");
    for dest in ["/x", "/x/", "/x/z"] {
        let error = copy(&from, &["f"], dest).error(&onto);
        assert!(error.starts_with("cannot copy to `/x"), "{error}");
        assert!(error.ends_with("Too many levels of symbolic links (os error 40)"), "{error}");
    }
}

#[test]
fn links_of_the_destination_are_followed() {
    let from = Tree::new(&["file f x", "dir d", "file d/f x"]);
    let onto = Tree::new(&["dir real", "link l real", "link abs /real", "dir s", "link s/up ../../real"]);
    for dest in ["/l/", "/l", "/l/f", "/abs/f", "/s/up/f"] {
        assert_eq!(
            copy(&from, &["f"], dest).onto(&onto),
            ["dir 755 0:0 real", "file 644 0:0 real/f x"],
            "{dest}"
        );
    }
    assert_eq!(copy(&from, &["d"], "/l").onto(&onto), ["dir 755 0:0 real", "file 644 0:0 real/f x"]);
}

#[test]
fn a_dangling_link_of_the_destination_is_written_through() {
    let from = Tree::new(&["file f x", "dir d", "file d/f x"]);
    let onto = Tree::new(&["link dang nowhere", "link deep /no/where"]);
    assert_eq!(copy(&from, &["f"], "/dang").onto(&onto), ["file 644 0:0 nowhere x"]);
    assert_eq!(
        copy(&from, &["f"], "/dang/").onto(&onto),
        ["dir 755 0:0 nowhere", "file 644 0:0 nowhere/f x"]
    );
    assert_eq!(copy(&from, &["d"], "/dang").onto(&onto), ["dir 755 0:0 nowhere", "file 644 0:0 nowhere/f x"]);
    assert_eq!(copy(&from, &["f"], "/deep").onto(&onto), ["dir 755 0:0 no", "file 644 0:0 no/where x"]);
}

#[test]
fn a_link_inside_the_destination_is_replaced_by_a_file_and_in_the_way_of_a_directory() {
    let from = Tree::new(&["dir d", "file d/f x", "dir e", "dir e/f"]);
    let onto = Tree::new(&["dir to", "dir real", "link to/f /real"]);
    assert_eq!(copy(&from, &["d"], "/to").onto(&onto), ["dir 755 0:0 to", "file 644 0:0 to/f x"]);
    assert_eq!(copy(&from, &["e"], "/to").error(&onto), "cannot copy to non-directory: /to/f");
}

#[test]
fn an_empty_tree_below_has_no_links_to_follow() {
    let from = Tree::new(&["file f x"]);
    assert_eq!(copy(&from, &["f"], "/l/f").onto_scratch(), ["dir 755 0:0 l", "file 644 0:0 l/f x"]);
}

#[test]
fn hard_links_within_a_directory_survive() {
    let from = Tree::new(&["dir d", "dir d/a", "file d/a/x 1", "hard d/b d/a/x", "hard other d/b"]);
    let expected =
        ["dir 755 0:0 to", "dir 755 0:0 to/a", "file 644 0:0 to/a/x 1", "hard 644 0:0 to/b to/a/x"];
    assert_eq!(copy(&from, &["d"], "/to").onto_scratch(), expected);
}

#[test]
fn hard_links_of_different_sources_are_files_of_their_own() {
    let from = Tree::new(&["dir d", "file d/x 1", "dir e", "hard e/y d/x", "hard f d/x"]);
    let expected = ["dir 755 0:0 to", "file 644 0:0 to/f 1", "file 644 0:0 to/x 1", "file 644 0:0 to/y 1"];
    assert_eq!(copy(&from, &["d", "e", "f"], "/to/").onto_scratch(), expected);
    assert_eq!(copy(&from, &["[def]"], "/to/").onto_scratch(), expected);
}

#[test]
fn hard_links_below_several_pivots_are_files_of_their_own() {
    let from = Tree::new(&["dir p1", "dir p2", "file p1/z 1", "hard p2/a p1/z"]);
    let expected = ["dir 755 0:0 to", "file 644 0:0 to/a 1", "file 644 0:0 to/z 1"];
    assert_eq!(copy(&from, &["p*/./"], "/to/").parents().onto_scratch(), expected);
}

/// The later source replaces the first name of the earlier one's links, not their content.
#[test]
fn a_replaced_first_name_leaves_the_other_links_as_they_were() {
    let from = Tree::new(&[
        "dir d",
        "file d/a old",
        "hard d/b d/a",
        "hard d/c d/a",
        "dir e",
        "file e/a new",
        "dir g",
        "file g/b new",
    ]);
    let expected =
        ["dir 755 0:0 to", "file 644 0:0 to/a new", "file 644 0:0 to/b old", "hard 644 0:0 to/c to/b"];
    assert_eq!(copy(&from, &["d", "e"], "/to/").onto_scratch(), expected);
    let expected =
        ["dir 755 0:0 to", "file 644 0:0 to/a old", "file 644 0:0 to/b new", "hard 644 0:0 to/c to/a"];
    assert_eq!(copy(&from, &["d", "g"], "/to/").onto_scratch(), expected);
}

#[test]
fn an_unchanged_first_name_comes_along_for_a_new_link() {
    let from = Tree::new(&["dir d", "file d/a x", "hard d/b d/a"]);
    let onto = Tree::new(&["dir to", "file to/a x"]);
    let expected = ["dir 755 0:0 to", "file 644 0:0 to/a x", "hard 644 0:0 to/b to/a"];
    assert_eq!(copy(&from, &["d"], "/to/").onto(&onto), expected);
}
