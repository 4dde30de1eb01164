//! What is left out: `--exclude` and ignore files.

use super::*;

fn context() -> Tree {
    Tree::new(&[
        "dir d",
        "file d/a.o",
        "file d/a.c",
        "dir d/e",
        "file d/e/b.o",
        "file d/e/b.c",
        "dir d/f",
        "file d/f/c.o",
        "file top.o",
    ])
}

fn excluding(patterns: &[&str]) -> Vec<String> {
    let lines = copy(&context(), &["d"], "/to/").exclude(patterns).onto_scratch();
    paths(&lines).into_iter().map(str::to_owned).collect()
}

#[test]
fn excluded_files_are_left_out_by_their_path_in_the_source() {
    assert_eq!(excluding(&["*.o"]), ["to", "to/a.c", "to/e", "to/e/b.c", "to/e/b.o", "to/f", "to/f/c.o"]);
    assert_eq!(excluding(&["**/*.o"]), ["to", "to/a.c", "to/e", "to/e/b.c", "to/f"]);
    assert_eq!(excluding(&["d/a.c"]).len(), 8, "the source's own name is no part of the path");
    assert_eq!(excluding(&["e", "f"]), ["to", "to/a.c", "to/a.o"]);
}

#[test]
fn the_last_exclusion_that_matches_decides() {
    assert_eq!(excluding(&["**/*.o", "!e/*.o"]), ["to", "to/a.c", "to/e", "to/e/b.c", "to/e/b.o", "to/f"]);
    assert_eq!(excluding(&["*", "!e/b.o"]), ["to", "to/e", "to/e/b.o"]);
    assert_eq!(
        excluding(&["e", "!e/b.c"]),
        ["to", "to/a.c", "to/a.o", "to/e", "to/e/b.c", "to/f", "to/f/c.o"]
    );
}

#[test]
fn everything_excluded_leaves_an_empty_destination() {
    assert_eq!(excluding(&["**"]), ["to"]);
}

#[test]
fn a_file_named_as_a_source_is_not_excluded() {
    let lines = copy(&context(), &["top.o"], "/to/").exclude(&["top.o", "*.o"]).onto_scratch();
    assert_eq!(paths(&lines), ["to", "to/top.o"]);
}

#[test]
fn a_malformed_exclusion_is_an_error() {
    let onto = Tree::new(&[]);
    let error = copy(&context(), &["d"], "/to").exclude(&["[a"]).error(&onto);
    assert!(error.contains("`[a`: syntax error in pattern"), "{error}");
    let error = copy(&context(), &["d"], "/to").exclude(&["!"]).error(&onto);
    assert!(error.contains("illegal exclusion pattern: \"!\""), "{error}");
}

#[test]
fn parents_and_exclusions_together() {
    let lines = copy(&context(), &["d/**/*.?"], "/to/").parents().exclude(&["**/*.o"]).onto_scratch();
    assert_eq!(paths(&lines), ["to", "to/d", "to/d/a.c", "to/d/e", "to/d/e/b.c"]);
}

#[test]
fn what_a_context_ignores_is_not_there() {
    let at = |ignore: &str, pattern: &str| {
        let lines = copy_ignoring(&context(), ignore, &[pattern], "/to/").onto_scratch();
        paths(&lines).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(at("**/*.o\n", "d"), ["to", "to/a.c", "to/e", "to/e/b.c", "to/f"]);
    assert_eq!(at("d/e\n", "d"), ["to", "to/a.c", "to/a.o", "to/f", "to/f/c.o"]);
    assert_eq!(
        at("d/e\n!d/e/b.c\n", "d"),
        ["to", "to/a.c", "to/a.o", "to/e", "to/e/b.c", "to/f", "to/f/c.o"]
    );
    assert_eq!(at("*\n!d/e/b.c\n", "d"), ["to", "to/e", "to/e/b.c"]);
    assert_eq!(at("*\n!d/e/b.c\n", "."), ["to", "to/d", "to/d/e", "to/d/e/b.c"]);
    assert_eq!(at("*\n!d/e/b.c\n", "*/e"), ["to", "to/b.c"]);
    assert_eq!(at("*.o\n", "*.o"), Vec::<String>::new());
    assert_eq!(at("d/e\n", "d/*"), ["to", "to/a.c", "to/a.o", "to/c.o"]);
}

#[test]
fn an_ignored_source_is_not_found_and_the_error_knows_why() {
    let from = context();
    for (ignore, source) in
        [("top.o", "top.o"), ("d", "d"), ("d", "d/a.c"), ("d\n!d/nope", "d"), ("**/b.?", "d/e/b.c")]
    {
        let copying = copy_ignoring(&from, ignore, &[source], "/to/");
        let onto = Tree::new(&[]);
        let below = Below { root: Some(&onto.root), pending: &Pending::default() };
        match copying.plan(below).unwrap_err() {
            CopyError::NotFound { ignored, path, .. } => {
                assert!(ignored, "{source}");
                assert_eq!(path, format!("/{source}"));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_link_to_what_is_ignored_leads_nowhere() {
    let from = Tree::new(&["dir d", "file d/f x", "link l d/f"]);
    let error = copy_ignoring(&from, "d/f", &["l"], "/to").error(&Tree::new(&[]));
    assert!(error.ends_with("\"/l\": not found"), "{error}");
}

#[test]
fn a_stage_ignores_nothing() {
    let lines = copy_ignoring(&context(), "**", &["d/e"], "/to/").of_stage().onto_scratch();
    assert_eq!(paths(&lines), ["to", "to/b.c", "to/b.o"]);
}

#[test]
fn a_whole_tree_leaves_out_what_is_ignored() {
    let from = context();
    let ignore = Some(Arc::new(Ignore::parse(b"d\n!d/e").unwrap()));
    let source = CopySource::Found {
        from: CopyRoot { root: from.root.clone(), ignore, keep_owner: false },
        path: "".into(),
    };
    let lines = copying(vec![source], "/").onto_scratch();
    assert_eq!(paths(&lines), ["d", "d/e", "d/e/b.c", "d/e/b.o", "top.o"]);
}
