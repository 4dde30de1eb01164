use std::os::unix::ffi::OsStrExt as _;

use proptest::prelude::*;

use super::*;

fn patterns(patterns: &[&str]) -> Ignore {
    Ignore::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn file(text: &str) -> Ignore {
    Ignore::parse(text.as_bytes()).unwrap()
}

fn texts(ignore: &Ignore) -> Vec<String> {
    let text = |pattern: &Pattern| format!("{}{}", if pattern.negated { "!" } else { "" }, pattern.text);
    ignore.patterns.iter().map(text).collect()
}

#[test]
fn single_patterns() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("**/**", "file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "direct", false),
        ("**/dir", "dir/file", true),
        ("**/dir", "a/b/dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/*", "dir2", false),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/dir/file", true),
        ("**file", "afile", true),
        ("**/file", "afile", false),
        ("**file*", "dir/file", true),
        ("**file*", "dir/file.txt", true),
        ("**file*", "dir/afile", false),
        ("**file*txt", "dir/file.txt", true),
        ("**file*.txt*", "dir/dir/file.txtx", true),
        ("**/**/*.txt", "file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/*.txt", "dir/file.txt", true),
        ("**/*.txt", "dir/txt", false),
        ("**/a.b", "x/a.b", true),
        ("**/a.b", "x/aXb", false),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a**/*.txt", "ab/file.txt", true),
        ("a**", "abc/d", true),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txtx", false),
        ("a/*.txt**", "a/file.txtx", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        ("a[^b-d]e", "ace", false),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("abc?def", "abc/def", false),
        (r"a\\", r"a\", true),
        (r"a\*b", "a*b", true),
        (r"a\*b", "acb", false),
        (r"a\?b*", "a?bc", true),
        (r"a\db*", "adb", true),
        (r"a\db*", "a1b", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("**/foo/bar", "foo/x/bar", false),
        ("abc/**", "abc", false),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("./bar.*", "bar.txt", true),
        ("bar/./x/../y", "bar/y", true),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("a.|)$(}+{b*", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("a^b*", "a^bc", true),
        ("[*]", "*", true),
        ("[*]", "a", false),
        ("[?]x", "?x", true),
        ("[^^]x", "ax", true),
        ("[z-a]", "m", false),
        ("[^z-a]", "m", true),
        ("[&&a]x", "&x", true),
        ("é*", "tété", false),
        ("é*", "éa", true),
        ("?", "é", true),
        ("a", "A", false),
        ("dir", "dir/below/deep", true),
        ("dir", "dirty", false),
        ("d*", "dir/below/deep", true),
        ("dir/", "dir/x", true),
        ("/dir", "dir", false),
        ("..", "a", false),
        (".", "a", false),
        ("/", "a", false),
        ("*", "a/b", true),
        ("*/b", "a/b/c", true),
        ("*/b", "b", false),
        ("  spaced\t", "spaced", true),
    ] {
        assert_eq!(patterns(&[pattern]).is_ignored(Path::new(path)), expected, "{pattern:?} {path:?}");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    for (list, path, expected) in [
        (&["*", "!README.md"][..], "README.md", false),
        (&["*", "!README.md"], "LICENSE", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
        (&["!README.md", "*"], "README.md", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/a", true),
        (&["docs", "!docs/README.md"], "docs", true),
        (&["docs/", "!docs/**/*.md", "docs/private"], "docs/a/b/x.md", false),
        // As the original walks: `docs/private` is hidden already, the third pattern is not asked about it, and does
        // not cover what is below.
        (&["docs/", "!docs/**/*.md", "docs/private"], "docs/private/x.md", false),
        (&["docs/", "!docs/**/*.md", "docs/private/**"], "docs/private/x.md", true),
        (&["**", "!a"], "a/b/c", false),
        (&["**", "!a/b"], "a/c", true),
        (&["*", "!a/*.go"], "a/x.go", false),
        (&["*", "!a/*.go"], "a/x.c", true),
        (&["util/docker/web", "!util/docker/web/foo"], "util/docker/web/foo", false),
        (&["util", "!util/docker/web"], "util/docker/web/foo", false),
        (&["util", "!util/docker/web"], "util/docker/x", true),
        (&["**/*.o", "!keep.o"], "x/keep.o", true),
        (&["!a"], "b", false),
        (&["*", "!**/*.py", "test_*"], "pkg/a.py", false),
        (&["a", "!a", "a/b"], "a/b", true),
        (&["a", "!a", "a/b"], "a/c", false),
        // As the original walks: `!a` has nothing to bring back at `a`, and is not asked about it again below.
        (&["a/b", "!a"], "a/b", true),
        (&["a/b", "!a", "!a/b"], "a/b", false),
    ] {
        assert_eq!(patterns(list).is_ignored(Path::new(path)), expected, "{list:?} {path:?}");
    }
}

#[test]
fn the_root_is_never_hidden() {
    for path in ["", ".", "/", "./"] {
        assert!(!patterns(&["**", "*", "."]).is_ignored(Path::new(path)), "{path}");
    }
    assert!(patterns(&["a/b"]).is_ignored(Path::new("/a/./b/")));
}

#[test]
fn paths_in_any_order_have_the_same_answer() {
    let ignore = patterns(&["a", "!a/b", "**/x"]);
    let expected = [("a", true), ("a/b", false), ("a/b/x", true), ("b", false), ("a/c", true), ("b/x", true)];
    for (path, hidden) in expected.iter().chain(expected.iter().rev()).chain([&("a/b/c/d", false)]) {
        assert_eq!(ignore.is_ignored(Path::new(path)), *hidden, "{path}");
    }
}

#[test]
fn names_need_not_be_text() {
    let path = Path::new(OsStr::from_bytes(b"dir/a\xff\xfeb"));
    for (pattern, expected) in
        [("dir", true), ("dir/a??b", true), ("dir/a?b", false), ("*/a*b", true), ("dir/ab", false)]
    {
        assert_eq!(patterns(&[pattern]).is_ignored(path), expected, "{pattern}");
    }
    assert!(patterns(&["a/**/c"]).is_ignored(Path::new("a/new\nline/c")));
    assert!(patterns(&["a/?"]).is_ignored(Path::new("a/\n")));
}

#[test]
fn files_are_read_line_by_line() {
    let text = "\u{feff}# comment\n  # no comment\n\n/rooted\nx/\r\n  !  /back/../again/ \n!/keep\n\t\n/\n.\n./a//b\n!!odd\nlast";
    let expected = ["# no comment", "rooted", "x", "!again", "!keep", "/", ".", "a/b", "!!odd", "last"];
    assert_eq!(texts(&file(text)), expected);
    assert!(file("").is_empty());
    assert!(file("# only\n\n \n").is_empty());
    assert!(Ignore::none().is_empty());
    assert!(!file("a").is_empty());
    assert!(texts(&file("../up\n/../up2")) == ["../up", "up2"]);
}

#[test]
fn faults_are_told() {
    for text in ["!", " ! ", "a\n!\t\nb"] {
        let error = Ignore::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "illegal exclusion pattern: \"!\"", "{text:?}");
    }
    assert!(matches!(Ignore::new(&["!".to_owned()]), Err(ContextError::LoneExclamation)));
    for text in ["a[", "[]", "x\\", "![a", "[-x]"] {
        assert!(matches!(Ignore::parse(text.as_bytes()), Err(ContextError::Pattern { .. })), "{text}");
    }
    let error = Ignore::parse(b"ok\n# caf\xe9\ncaf\xe9\n").unwrap_err();
    assert_eq!(error.to_string(), "invalid ignore file: line 3 is not UTF-8");
    let utf16: Vec<u8> = "\u{feff}a\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(Ignore::parse(&utf16).unwrap_err().hint().is_some());
}

#[test]
fn hidden_directories_are_entered_only_for_what_may_come_back() {
    for (list, directory, expected) in [
        (&["*"][..], "a", false),
        (&["*", "!a/b"], "a", true),
        (&["*", "!a/b"], "b", false),
        (&["*", "!a/b"], "a/b", false),
        (&["*", "!a/b/c"], "a/b", true),
        (&["*", "!a/b/c"], "a/c", false),
        (&["*", "!*/c"], "a", true),
        (&["*", "!*/c"], "a/b", false),
        (&["*", "!x?/c"], "ab", false),
        (&["*", "!x?/c"], "xb", true),
        (&["*", "!**/c"], "a/b/d", true),
        (&["*", "!a/**"], "a/b", true),
        (&["*", "!a/**"], "b", false),
        (&["*", "!a"], "b", false),
        (&["*", "!c[/]d/e"], "c", true),
    ] {
        assert_eq!(patterns(list).may_include_below(Path::new(directory)), expected, "{list:?} {directory}");
    }
}

#[test]
fn cleaning_is_as_in_go() {
    for (path, expected) in [
        ("", "."),
        ("/", "/"),
        ("//a", "/a"),
        ("a/", "a"),
        ("a/./b//c/", "a/b/c"),
        ("a/../b", "b"),
        ("a/..", "."),
        ("../a", "../a"),
        ("../../a/..", "../.."),
        ("/../a", "/a"),
        ("!a/../../b", "../b"),
    ] {
        assert_eq!(clean(path), expected, "{path}");
    }
}

/// Whether a whole path matches, trying everything: no regular expression, no tokens.
fn naive_match(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*'] => true,
        ['*', '*', rest @ ..] => {
            let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
            if rest.is_empty() {
                return true;
            }
            (0..=path.len()).any(|at| (at == 0 || path[at - 1] == '/') && naive_match(rest, &path[at..]))
        }
        ['*', rest @ ..] => (0..=path.len())
            .take_while(|taken| !path[..*taken].contains(&'/'))
            .any(|taken| naive_match(rest, &path[taken..])),
        ['?', rest @ ..] => path.first().is_some_and(|char| *char != '/') && naive_match(rest, &path[1..]),
        ['\\', char, rest @ ..] | [char, rest @ ..] => {
            path.first() == Some(char) && naive_match(rest, &path[1..])
        }
    }
}

/// The outcome for every prefix of a path, by the words of the original: a pattern is asked if it can change
/// the outcome, and not at all if it matched the directory above.
fn naive_ignored(list: &[String], path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let mut above = vec![false; list.len()];
    let mut ignored = false;
    for depth in 1..=parts.len() {
        ignored = false;
        let prefix: Vec<char> = parts[..depth].join("/").chars().collect();
        for (index, pattern) in list.iter().enumerate() {
            let (negated, text) = match pattern.strip_prefix('!') {
                Some(text) => (true, text),
                None => (false, pattern.as_str()),
            };
            let text: Vec<char> = text.chars().collect();
            if !above[index] && negated == ignored {
                let plain = |chars: &[char]| chars.iter().all(|char| char.is_ascii_lowercase());
                above[index] = match &text[..] {
                    ['*', '*', rest @ ..] if plain(rest) => prefix.ends_with(rest),
                    text => naive_match(text, &prefix),
                };
            }
            if above[index] {
                ignored = !negated;
            }
        }
    }
    ignored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_a_naive_matcher(
        list in prop::collection::vec(
            r"!?([ab]{1,2}|[ab?]\*?|\*[ab]?|\*\*[ab]?)(/([ab]{1,2}|[ab?]\*?|\*[ab]?|\*\*|\*\*[ab]|a\*\*)){0,3}", 1..5),
        paths in prop::collection::vec(r"[abc]{1,2}(/[abc]{1,2}){0,4}", 1..5),
    ) {
        let ignore = Ignore::new(&list).unwrap();
        for path in &paths {
            prop_assert_eq!(ignore.is_ignored(Path::new(path)), naive_ignored(&list, path), "{:?} {}", list, path);
            // A walk that trusts `may_include_below` loses nothing.
            for (at, _) in path.match_indices('/') {
                let directory = Path::new(&path[..at]);
                if ignore.is_ignored(directory) && !ignore.may_include_below(directory) {
                    prop_assert!(naive_ignored(&list, path), "{:?} {} in {:?}", list, path, directory);
                }
            }
        }
    }

    #[test]
    fn never_panics(text in any::<Vec<u8>>(), path in any::<Vec<u8>>()) {
        if let Ok(ignore) = Ignore::parse(&text) {
            let path = Path::new(OsStr::from_bytes(&path));
            let _ = (ignore.is_ignored(path), ignore.may_include_below(path));
        }
    }
}
