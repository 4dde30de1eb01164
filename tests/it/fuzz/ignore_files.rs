//! Ignore files and the wildcards of sources.

use std::ffi::OsStr;
use std::path::Path;

use kiln::context::{Ignore, glob};

use super::fuzz;
use super::input::Samples;

const SAMPLES: &[&str] = &[
    "# comment\n*\n!src/**\nsrc/*.o\n",
    "**/node_modules\n!keep/node_modules\n",
    "a/b\n!a/b/c\na/b/c/d\n",
    "/x/../y/\n  !  z \n**.tmp\n[a-c]?\\*\n",
    "**\n!**/b\na**b\n[^a]\n",
];

const WORDS: &[&str] = &[
    "*", "**", "?", "[", "]", "[a-c]", "[^a]", "\\", "!", "#", "/", "./", "../", "a", "b", "c", "ab", ".tmp",
    "\n", "\r\n", " ", "\u{feff}", "\u{e9}", "-", "^", "{", "(", "+", "$", "|", "**/", "/**",
];

const PATHS: &[&str] = &[
    "a",
    "a/b",
    "a/b/c",
    "a/b/c/d",
    "ab",
    "b",
    "b/a",
    "c/b/a",
    "a.tmp",
    "src",
    "src/a.o",
    "node_modules/x",
    "keep/node_modules/x",
    "\u{e9}",
    "z",
    "y/a",
    "*",
    "a/*",
    "[a",
    "!a",
    "#",
];

#[test]
fn ignore_files_are_read() {
    fuzz("ignore-files", 100, &Samples::new(SAMPLES, WORDS), |input| {
        let Ok(ignore) = Ignore::parse(&input.0) else { return };
        let again = Ignore::new(ignore.patterns()).unwrap();
        for path in PATHS.iter().map(Path::new) {
            // What was asked before must not matter.
            let fresh = Ignore::new(ignore.patterns()).unwrap();
            let ignored = ignore.is_ignored(path);
            assert_eq!(ignored, fresh.is_ignored(path), "{}", path.display());
            assert_eq!(ignored, again.is_ignored(path), "{}", path.display());
            let above = path.parent().unwrap();
            if !ignored && ignore.is_ignored(above) {
                assert!(ignore.may_include_below(above), "{} hides {}", above.display(), path.display());
            }
        }
        assert!(!ignore.is_ignored(Path::new("")));
    });
}

#[test]
fn wildcards_match() {
    fuzz("wildcards", 2000, &Samples::new(SAMPLES, WORDS), |input| {
        let pattern = input.text();
        let is_sound = glob::check(&pattern).is_ok();
        for path in PATHS {
            let matches = glob::match_component(&pattern, OsStr::new(path));
            assert!(is_sound || !matches, "{path}");
            if !glob::has_wildcard(&pattern) && !pattern.contains('\\') {
                assert_eq!(matches, pattern == *path, "{path}");
            }
        }
        let escaped: String = pattern.chars().flat_map(|char| ['\\', char]).collect();
        assert!(glob::match_component(&escaped, OsStr::new(&pattern)));
        assert!(!glob::has_wildcard(&escaped));
    });
}
