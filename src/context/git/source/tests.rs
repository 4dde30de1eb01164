use super::*;
use crate::context::{SourceKind, classify_source};

fn remote(remote: &str) -> GitSource {
    GitSource { remote: remote.to_owned(), ..GitSource::default() }
}

fn at(remote_text: &str, reference: &str, subdir: &str) -> GitSource {
    let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    GitSource { reference: filled(reference), subdir: filled(subdir), ..remote(remote_text) }
}

#[test]
fn sources_of_every_form() {
    for (text, expected) in [
        ("https://example.com/foo.git", remote("https://example.com/foo.git")),
        ("HTTPS://example.com/foo.git", remote("https://example.com/foo.git")),
        ("http://127.0.0.1:8080/main.repo/.git", remote("http://127.0.0.1:8080/main.repo/.git")),
        ("https://example.com/foo.git#deadbeef", at("https://example.com/foo.git", "deadbeef", "")),
        ("https://example.com/foo.git#release/1.2", at("https://example.com/foo.git", "release/1.2", "")),
        ("https://example.com/foo.git#a%20b", at("https://example.com/foo.git", "a b", "")),
        ("https://u:p@example.com/foo.git", remote("https://u:p@example.com/foo.git")),
        ("git://example.com/foo", remote("git://example.com/foo")),
        ("git://host.xz:1234/path/to/repo.git", remote("git://host.xz:1234/path/to/repo.git")),
        ("ssh://git@github.com:22/moby/buildkit", remote("ssh://git@github.com:22/moby/buildkit")),
        ("git@github.com:moby/buildkit", remote("git@github.com:moby/buildkit")),
        ("git@github.com:moby/buildkit.git#v1:hack", at("git@github.com:moby/buildkit.git", "v1", "hack")),
        ("someone_else@a-b.c:/srv/x.git", remote("someone_else@a-b.c:/srv/x.git")),
        (
            "https://github.com/foo/bar.git#baz/qux:quux/quuz",
            at("https://github.com/foo/bar.git", "baz/qux", "quux/quuz"),
        ),
        ("https://github.com/foo/bar.git#:sub", at("https://github.com/foo/bar.git", "", "sub")),
        ("https://github.com/foo/bar.git#v1:/a/../../b/", at("https://github.com/foo/bar.git", "v1", "b")),
        ("https://github.com/foo/bar.git#v1:/", at("https://github.com/foo/bar.git", "v1", "")),
        ("https://github.com/foo/bar.git#", remote("https://github.com/foo/bar.git")),
        (
            "https://github.com/foo/bar.git?ref=v1.0.0&subdir=/subdir",
            at("https://github.com/foo/bar.git", "v1.0.0", "/subdir"),
        ),
        (
            "https://github.com/foo/bar.git?subdir=/subdir#v1.0.0",
            at("https://github.com/foo/bar.git", "v1.0.0", "/subdir"),
        ),
        (
            "git@github.com:moby/buildkit.git?subdir=/subdir#v1.0.0",
            at("git@github.com:moby/buildkit.git", "v1.0.0", "/subdir"),
        ),
        ("https://github.com/foo/bar.git?tag=v1", at("https://github.com/foo/bar.git", "refs/tags/v1", "")),
        (
            "https://github.com/foo/bar.git?tag=refs/tags/v1",
            at("https://github.com/foo/bar.git", "refs/tags/v1", ""),
        ),
        (
            "https://github.com/foo/bar.git?branch=v1",
            at("https://github.com/foo/bar.git", "refs/heads/v1", ""),
        ),
        (
            "https://github.com/foo/bar.git?ref=refs/heads/b&branch=b",
            at("https://github.com/foo/bar.git", "refs/heads/b", ""),
        ),
        ("https://github.com/foo/bar.git?ref=a#a", at("https://github.com/foo/bar.git", "a", "")),
    ] {
        assert_eq!(parse_git_source(text).unwrap(), Some(expected), "{text}");
        assert_eq!(classify_source(text), SourceKind::Git, "{text}");
    }
}

#[test]
fn options() {
    let parse = |query: &str| parse_git_source(&format!("https://h/x.git?{query}")).unwrap().unwrap();
    let base = remote("https://h/x.git");
    for (query, expected) in [
        ("", base.clone()),
        ("keep-git-dir", GitSource { keep_git_dir: Some(true), ..base.clone() }),
        ("keep-git-dir=", GitSource { keep_git_dir: Some(true), ..base.clone() }),
        ("keep-git-dir=0", GitSource { keep_git_dir: Some(false), ..base.clone() }),
        ("submodules=false", GitSource { submodules: Some(false), ..base.clone() }),
        (
            "submodules&keep-git-dir=T",
            GitSource { submodules: Some(true), keep_git_dir: Some(true), ..base.clone() },
        ),
        ("mtime=commit", GitSource { mtime_commit: true, ..base.clone() }),
        ("mtime=checkout", base.clone()),
        ("commit=abc123", GitSource { checksum: Some("abc123".to_owned()), ..base.clone() }),
        (
            "fetch-by-commit&checksum=abc123",
            GitSource { checksum: Some("abc123".to_owned()), fetch_by_commit: true, ..base.clone() },
        ),
        ("fetch-by-commit=false", base.clone()),
    ] {
        assert_eq!(parse(query), expected, "{query}");
    }
}

#[test]
fn contradictions_are_told_in_buildkits_words() {
    for (options, expected) in [
        ("?ref=v1.0.0#v1.2.3", r#"ref conflicts: "v1.2.3" vs "v1.0.0""#),
        ("?ref=v1.0.0&tag=v1.2.3", r#"ref conflicts: "v1.0.0" vs "refs/tags/v1.2.3""#),
        ("?branch=b#v1", r#"ref conflicts: "v1" vs "refs/heads/b""#),
        ("?tag=v1&branch=b", "branch conflicts with tag"),
        ("?subdir=a#v1:b", r#"subdir conflicts: "b" vs "a""#),
        ("?checksum=aa&commit=bb", r#"checksum conflicts: "aa" vs "bb""#),
        ("?invalid=123", r#"unexpected query "invalid""#),
        ("?ref=", r#"query "ref" has no value"#),
        ("?tag", r#"query "tag" has no value"#),
        ("?ref=a&ref=a", r#"query "ref" has multiple values"#),
        ("?keep-git-dir=1&keep-git-dir=0", r#"query "keep-git-dir" has multiple values"#),
        ("?keep-git-dir=maybe", r#"invalid keep-git-dir value: "maybe""#),
        ("?submodules=2", r#"invalid submodules value: "2""#),
        ("?fetch-by-commit=x", r#"invalid fetch-by-commit value: "x""#),
        ("?mtime=now", r#"invalid mtime value: "now" (must be "checkout" or "commit")"#),
        ("#--upload-pack=x", r#"invalid git ref "--upload-pack=x""#),
    ] {
        let text = format!("https://u:secret@h/x.git{options}");
        let error = parse_git_source(&text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{options}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(classify_source(&text), SourceKind::Git);
    }
}

#[test]
fn everything_else_is_no_git_source() {
    for (text, kind) in [
        ("https://example.com/", SourceKind::Http),
        ("https://example.com", SourceKind::Http),
        ("https://example.git", SourceKind::Http),
        ("https://example.com/foo", SourceKind::Http),
        ("https://example.com/foo.git/", SourceKind::Http),
        ("https://example.com/foo.git.bar", SourceKind::Http),
        ("https://github.com/moby/buildkit", SourceKind::Http),
        ("http://github.com/docker/docker.git:#branch", SourceKind::Http),
        ("https://example.com/x?y=.git", SourceKind::Http),
        ("ftp://example.com/foo.git", SourceKind::Path),
        ("httpx://example.com/foo.git", SourceKind::Path),
        ("HTTP://example.com/foo", SourceKind::Path),
        ("custom.xyz/moby/buildkit.git", SourceKind::Path),
        ("github.com/moby/buildkit", SourceKind::Path),
        ("github.com/moby/buildkit.git", SourceKind::Path),
        ("./.git", SourceKind::Path),
        ("./git@github.com:a/b", SourceKind::Path),
        ("../x.git", SourceKind::Path),
        (".git", SourceKind::Path),
        ("", SourceKind::Path),
        ("dir/user@host:path", SourceKind::Path),
        ("user@host", SourceKind::Path),
        ("C:\\x", SourceKind::Path),
        ("file:///x.git", SourceKind::Path),
        ("ext::sh -c id", SourceKind::Path),
    ] {
        assert_eq!(parse_git_source(text).unwrap(), None, "{text}");
        assert_eq!(classify_source(text), kind, "{text}");
    }
}

#[test]
fn contexts_on_github_need_no_scheme() {
    for (text, expected) in [
        ("github.com/moby/buildkit", remote("https://github.com/moby/buildkit")),
        ("github.com/moby/buildkit#master:x", at("https://github.com/moby/buildkit", "master", "x")),
        ("github.com/moby/buildkit?tag=v1", at("https://github.com/moby/buildkit", "refs/tags/v1", "")),
        ("git@github.com:moby/buildkit", remote("git@github.com:moby/buildkit")),
        ("http://h/x.git", remote("http://h/x.git")),
    ] {
        assert_eq!(parse_git_context(text).unwrap(), Some(expected), "{text}");
    }
    for text in ["gitlab.com/x/y", "https://github.com/moby/buildkit", ".", "/dir", "./github.com/x"] {
        assert_eq!(parse_git_context(text).unwrap(), None, "{text}");
    }
}

#[test]
fn decoding_keeps_what_is_malformed() {
    for (text, expected) in
        [("a%20b", "a b"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%c3%a9", "é"), ("%ff", "%ff")]
    {
        assert_eq!(decoded(text), expected);
    }
}

#[test]
fn credentials_are_redacted() {
    for (text, expected) in [
        ("https://u:p@h/x.git#r", "https://h/x.git#r"),
        ("https://token@h:8/x", "https://h:8/x"),
        ("https://u:p@ss@h/x", "https://h/x"),
        ("https://h/x@y", "https://h/x@y"),
        ("https://h?q=a@b", "https://h?q=a@b"),
        ("ssh://git@h/x", "ssh://git@h/x"),
        ("ssh://git:pw@h/x", "ssh://git@h/x"),
        ("git@h:x", "git@h:x"),
        ("plain", "plain"),
    ] {
        assert_eq!(crate::text::without_credentials(text), expected, "{text}");
    }
}
