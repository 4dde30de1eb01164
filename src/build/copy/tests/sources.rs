//! What sources name: paths and patterns.

use super::*;

fn context() -> Tree {
    Tree::new(&[
        "dir a",
        "dir a/b",
        "dir a/b/c",
        "file a/b/c/deep.txt 3",
        "file a/d.txt 2",
        "file e.txt 1",
        "file .hidden h",
        "dir x1",
        "file x1/one 1",
        "dir x2",
        "file x2/two 2",
    ])
}

fn copied(patterns: &[&str]) -> Vec<String> {
    let lines = copy(&context(), patterns, "/to/").onto_scratch();
    paths(&lines).into_iter().map(str::to_owned).collect()
}

#[test]
fn sources_are_clamped_at_the_root() {
    for source in ["e.txt", "/e.txt", "../e.txt", "/../../e.txt", "./a/../../../e.txt", "e.txt/"] {
        assert_eq!(copied(&[source]), ["to", "to/e.txt"], "{source}");
    }
}

#[test]
fn a_missing_source_is_an_error_in_buildkits_words() {
    let onto = Tree::new(&[]);
    let error = copy(&context(), &["nope"], "/to/").error(&onto);
    assert_eq!(error, "failed to calculate checksum of ref build context: \"/nope\": not found");
    let error = copy(&context(), &["../a/nope/"], "/to/").of_stage().error(&onto);
    assert_eq!(error, "failed to calculate checksum of ref source: \"/a/nope\": not found");
}

#[test]
fn a_star_stays_within_a_component_and_takes_hidden_files() {
    assert_eq!(copied(&["*.txt"]), ["to", "to/e.txt"]);
    assert_eq!(copied(&["a/*.txt"]), ["to", "to/d.txt"]);
    assert_eq!(copied(&["*hidden"]), ["to", "to/.hidden"]);
    assert_eq!(copied(&["*/d.txt"]), ["to", "to/d.txt"]);
    assert_eq!(copied(&["*/*/*/*"]), ["to", "to/deep.txt"]);
}

#[test]
fn two_stars_are_one_component() {
    assert_eq!(copied(&["**/*.txt"]), ["to", "to/d.txt"]);
    assert_eq!(copied(&["**"]), copied(&["*"]));
}

#[test]
fn classes_question_marks_and_escapes() {
    assert_eq!(copied(&["x[1]"]), ["to", "to/one"]);
    assert_eq!(copied(&["x[^1]"]), ["to", "to/two"]);
    assert_eq!(copied(&["x?"]), ["to", "to/one", "to/two"]);
    assert_eq!(copied(&["e?txt"]), ["to", "to/e.txt"]);
    let from = Tree::new(&["file * star", "file b b"]);
    assert_eq!(copy(&from, &["\\*[*]"], "/to/").onto_scratch(), Vec::<String>::new());
    assert_eq!(copy(&from, &["[*]"], "/to/").onto_scratch()[1], "file 644 0:0 to/* star");
}

#[test]
fn a_pattern_without_match_copies_nothing_and_makes_nothing() {
    for pattern in ["*.none", "e.txt/*", "a/*/none", "x[3-9]"] {
        assert_eq!(copied(&[pattern]), Vec::<String>::new(), "{pattern}");
    }
    assert_eq!(copied(&["*.none", "e.txt"]), ["to", "to/e.txt"]);
}

#[test]
fn the_directory_in_front_of_a_wildcard_must_be_there() {
    for pattern in ["none/*", "a/none/*.txt", "./none/../nothing/x?"] {
        let error = copy(&context(), &[pattern], "/to/").error(&Tree::new(&[]));
        assert!(error.ends_with(": not found"), "{pattern}: {error}");
    }
}

/// BuildKit's: what `--parents` names is looked for as it is written, and all of the root is not a name.
#[test]
fn parents_must_find_what_has_no_wildcard() {
    for pattern in ["./", "a/./", "a/none", "none/./a"] {
        let error = copy(&context(), &[pattern], "/to").parents().error(&Tree::new(&[]));
        assert!(error.ends_with(": not found"), "{pattern}: {error}");
    }
}

#[test]
fn a_malformed_pattern_is_an_error_even_without_a_file() {
    let error = copy(&Tree::new(&[]), &["[a"], "/to/").error(&Tree::new(&[]));
    assert_eq!(error, "`[a`: syntax error in pattern");
}

#[test]
fn a_matched_directory_gives_its_contents() {
    assert_eq!(copied(&["x*"]), ["to", "to/one", "to/two"]);
    assert_eq!(copied(&["a*"]), ["to", "to/b", "to/b/c", "to/b/c/deep.txt", "to/d.txt"]);
}

#[test]
fn parents_keep_the_path() {
    let at = |pattern: &str| copy(&context(), &[pattern], "/to").parents().onto_scratch();
    assert_eq!(paths(&at("a/d.txt")), ["to", "to/a", "to/a/d.txt"]);
    assert_eq!(paths(&at("./a/./b")), ["to", "to/b", "to/b/c", "to/b/c/deep.txt"]);
    assert_eq!(paths(&at("a/b/./c/deep.txt")), ["to", "to/c", "to/c/deep.txt"]);
    assert_eq!(paths(&at("x?/one")), ["to", "to/x1", "to/x1/one"]);
    assert_eq!(paths(&at("/a/b/c/")), ["to", "to/a", "to/a/b", "to/a/b/c", "to/a/b/c/deep.txt"]);
}

#[test]
fn parents_take_two_stars_for_any_depth() {
    let lines = copy(&context(), &["**/*.txt"], "/to/").parents().onto_scratch();
    let expected = ["to", "to/a", "to/a/b", "to/a/b/c", "to/a/b/c/deep.txt", "to/a/d.txt", "to/e.txt"];
    assert_eq!(paths(&lines), expected);
    let lines = copy(&context(), &["a/./**/*.txt"], "/to/").parents().onto_scratch();
    assert_eq!(paths(&lines), ["to", "to/b", "to/b/c", "to/b/c/deep.txt", "to/d.txt"]);
}

#[test]
fn parents_have_the_modes_of_the_source() {
    let from = Tree::new(&["dir a 700", "dir a/b 2750", "file a/b/f x", "dir a/other 777"]);
    let expected = ["dir 755 0:0 to", "dir 700 0:0 to/a", "dir 2750 0:0 to/a/b", "file 644 0:0 to/a/b/f x"];
    assert_eq!(copy(&from, &["a/b/f"], "/to/").parents().onto_scratch(), expected);
}

#[test]
fn parents_need_a_literal_source_but_no_match() {
    let onto = Tree::new(&[]);
    let error = copy(&context(), &["x"], "/to/").parents().error(&onto);
    assert_eq!(error, "failed to calculate checksum of ref build context: \"/x\": not found");
    let error = copy(&context(), &["a/./x"], "/to/").parents().error(&onto);
    assert!(error.ends_with("\"/a/x\": not found"), "{error}");
    let lines = copy(&context(), &["*.none"], "/to/").parents().onto_scratch();
    assert_eq!(paths(&lines), ["to"]);
}

#[test]
fn parents_with_several_sources() {
    let lines = copy(&context(), &["x1/one", "a/d.txt"], "/to/").parents().onto_scratch();
    assert_eq!(paths(&lines), ["to", "to/a", "to/a/d.txt", "to/x1", "to/x1/one"]);
}
