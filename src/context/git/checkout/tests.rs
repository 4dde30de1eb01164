use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::Command;

use super::*;
use crate::context::git::{git_state, parse_git_source};
use crate::context::loopback::{Answer, Server};

/// A directory of repositories, served as plain files.
struct Forge {
    directory: tempfile::TempDir,
    server: Server,
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.email=t@example.org", "-c", "user.name=t", "-c", "init.defaultBranch=master"])
        .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"])
        .args(arguments)
        .env("GIT_COMMITTER_DATE", "1000000000 +0000")
        .env("GIT_AUTHOR_DATE", "1000000000 +0000")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where there is no git, there is nothing to test.
fn has_git() -> bool {
    Command::new("git").arg("version").output().is_ok()
}

fn write(directory: &Path, path: &str, content: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn commit(directory: &Path, message: &str) -> String {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "-m", message]);
    git(directory, &["rev-parse", "HEAD"])
}

impl Forge {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::files(directory.path().to_path_buf());
        Self { directory, server }
    }

    fn repository(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        git(&path, &[&["init", "-q"], arguments].concat());
        path
    }

    /// Lets plain HTTP find the branches.
    fn publish(&self, name: &str) {
        git(&self.directory.path().join(name), &["update-server-info"]);
    }

    fn source(&self, text: &str) -> GitSource {
        parse_git_source(&format!("{}/{text}", self.server.url)).unwrap().unwrap()
    }

    /// `main`: tags v1 (light), v2 (annotated), branches master and feature.
    fn main(&self) -> [String; 3] {
        let path = self.repository("main", &[]);
        write(&path, "foo", "one");
        let first = commit(&path, "first");
        git(&path, &["tag", "v1"]);
        git(&path, &["checkout", "-q", "-b", "feature"]);
        write(&path, "sub/deep/file", "deep");
        write(&path, "run", "#!/bin/sh\n");
        fs::set_permissions(path.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        symlink("foo", path.join("link")).unwrap();
        symlink("sub", path.join("linked")).unwrap();
        let feature = commit(&path, "feature");
        git(&path, &["checkout", "-q", "master"]);
        write(&path, "foo", "two");
        let last = commit(&path, "last");
        git(&path, &["tag", "-a", "-m", "annotated", "v2"]);
        self.publish("main");
        [first, feature, last]
    }
}

fn options() -> CheckoutOptions<'static> {
    CheckoutOptions::default()
}

fn run(
    source: &GitSource,
    options: &CheckoutOptions<'_>,
) -> (tempfile::TempDir, Result<Checkout, ContextError>) {
    let dir = tempfile::tempdir().unwrap();
    let result = checkout_with(source, options, &dir.path().join("work"), &Reporter::silent());
    (dir, result)
}

fn foo(source: &GitSource) -> String {
    let (_dir, checkout) = run(source, &options());
    fs::read_to_string(checkout.unwrap().directory.join("foo")).unwrap()
}

fn error(source: &GitSource) -> String {
    run(source, &options()).1.unwrap_err().to_string()
}

#[test]
fn references_of_every_kind() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [first, feature, last] = forge.main();
    for (text, expected) in [
        ("main/.git".to_owned(), "two"),
        ("main/.git#master".to_owned(), "two"),
        ("main/.git#v1".to_owned(), "one"),
        ("main/.git#v2".to_owned(), "two"),
        ("main/.git#refs/tags/v1".to_owned(), "one"),
        ("main/.git#tags/v1".to_owned(), "one"),
        ("main/.git#heads/feature".to_owned(), "one"),
        ("main/.git?branch=feature".to_owned(), "one"),
        ("main/.git?tag=v2".to_owned(), "two"),
        // A commit that no name stands for: the server's files hold it all the same.
        (format!("main/.git#{first}"), "one"),
        (format!("main/.git#{feature}"), "one"),
        (format!("main/.git?commit={last}"), "two"),
        (format!("main/.git?commit={}", &last[..8]), "two"),
        (format!("main/.git?tag=v1&commit={first}"), "one"),
        (format!("main/.git?fetch-by-commit&commit={first}"), "one"),
        (format!("main/.git?fetch-by-commit&commit={first}#master"), "one"),
        (format!("main/.git?commit={}#{first}", &first[..7].to_uppercase()), "one"),
    ] {
        assert_eq!(foo(&forge.source(&text)), expected, "{text}");
    }
}

#[test]
fn the_commit_of_an_annotated_tag_and_its_own_hash_are_checksums() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [.., last] = forge.main();
    let tag = git(&forge.directory.path().join("main"), &["rev-parse", "v2"]);
    assert_ne!(tag, last);
    for checksum in [&tag, &last] {
        let source = forge.source(&format!("main/.git?checksum={checksum}#v2"));
        let (_dir, checkout) = run(&source, &options());
        let checkout = checkout.unwrap();
        assert_eq!((&checkout.commit, checkout.commit_time), (&last, 1_000_000_000));
    }
    assert_eq!(
        error(&forge.source("main/.git?checksum=abcdef0#v2")),
        format!("expected checksum to match abcdef0, got {tag} or {last}")
    );
}

#[test]
fn what_is_not_there_is_told() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [first, feature, last] = forge.main();
    let url = format!("{}/main/.git", forge.server.url);
    let missing = |name: &str| format!("repository does not contain ref `{name}`: `{url}`");
    assert_eq!(error(&forge.source("main/.git#nope")), missing("nope"));
    assert_eq!(error(&forge.source(&format!("main/.git#{}", &last[..8]))), missing(&last[..8]));
    assert_eq!(error(&forge.source("main/.git?branch=v1")), missing("refs/heads/v1"));
    assert_eq!(error(&forge.source("main/.git?tag=master")), missing("refs/tags/master"));
    let unknown = "0123456789012345678901234567890123456789";
    assert_eq!(error(&forge.source(&format!("main/.git#{unknown}"))), missing(unknown));
    assert_eq!(
        error(&forge.source(&format!("main/.git?commit={feature}#v1"))),
        format!("expected checksum to match {feature}, got {first}")
    );
    assert_eq!(
        error(&forge.source(&format!("main/.git?commit={feature}#{first}"))),
        format!("expected checksum to match {feature}, got {first}")
    );
    assert_eq!(
        error(&forge.source("main/.git?checksum=xyz")),
        "invalid checksum xyz, expected hex commit hash"
    );
    assert_eq!(
        error(&forge.source("main/.git?fetch-by-commit")),
        "fetch-by-commit requires a checksum or a commit SHA ref"
    );
    assert_eq!(
        error(&forge.source("main/.git?fetch-by-commit&checksum=abc")),
        "fetch-by-commit requires a full commit SHA checksum, got \"abc\""
    );
    let nothing = error(&forge.source("nothing.git"));
    assert!(
        nothing.starts_with(&format!("cannot check out `{}/nothing.git`: ", forge.server.url)),
        "{nothing}"
    );
    assert!(nothing.contains("not found"), "{nothing}");
    forge.repository("empty", &[]);
    forge.publish("empty");
    assert!(error(&forge.source("empty/.git")).starts_with("repository does not contain ref `HEAD`"));
}

#[test]
fn modes_links_and_times() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    forge.main();
    let (_dir, checkout) = run(&forge.source("main/.git?mtime=commit#feature"), &options());
    let directory = checkout.unwrap().directory;
    let root = RootDir::open(&directory).unwrap();
    for (path, mode) in
        [("", 0o755), ("foo", 0o644), ("run", 0o755), ("sub", 0o755), ("sub/deep/file", 0o644)]
    {
        let metadata = root.metadata(path).unwrap();
        assert_eq!((metadata.mode, metadata.mtime.seconds), (mode, 1_000_000_000), "{path}");
    }
    assert_eq!(root.read_link("link").unwrap(), Path::new("foo"));
    assert_eq!(root.metadata("link").unwrap().mtime.seconds, 1_000_000_000);
    assert!(!root.exists(".git").unwrap());
    let (_dir, checkout) = run(&forge.source("main/.git#feature"), &options());
    assert!(fs::metadata(checkout.unwrap().directory.join("foo")).unwrap().mtime() > 1_000_000_000);
}

#[test]
fn subdirectories() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [_, feature, _] = forge.main();
    let keep = CheckoutOptions { keep_git_dir: true, ..options() };
    for text in [
        "main/.git#feature:sub/deep",
        "main/.git?subdir=/sub/deep&ref=feature",
        "main/.git#feature:/sub/./deep/",
    ] {
        let (_dir, checkout) = run(&forge.source(text), &keep);
        let names: Vec<_> =
            fs::read_dir(checkout.unwrap().directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{text}");
    }
    for subdir in ["nope", "foo", "linked/deep", "sub/deep/file"] {
        let text = error(&forge.source(&format!("main/.git#feature:{subdir}")));
        let url = format!("{}/main/.git", forge.server.url);
        assert_eq!(text, format!("`{subdir}` is not a directory of commit {feature} of `{url}`"));
    }
}

#[test]
fn the_git_directory_is_kept_on_request() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [_, _, last] = forge.main();
    let keep = CheckoutOptions { keep_git_dir: true, ..options() };
    let (_dir, checkout) = run(&forge.source("main/.git#v2"), &keep);
    let directory = checkout.unwrap().directory;
    assert_eq!(fs::read_to_string(directory.join(".git/HEAD")).unwrap(), format!("{last}\n"));
    assert!(!directory.join(".git/FETCH_HEAD").exists());
    assert!(!directory.join(".git/hooks").exists());
    let url = format!("{}/main/.git", forge.server.url);
    assert_eq!(git(&directory, &["config", "remote.origin.url"]), url);
    assert_eq!(git(&directory, &["describe", "--tags"]), "v2");
    assert_eq!(git(&directory, &["status", "--porcelain"]), "");
    let state = git_state(&directory, &[]).unwrap();
    assert_eq!(
        (state.commit, state.commit_time, state.dirty, state.remote_url),
        (last, 1_000_000_000, false, Some(url))
    );
}

#[test]
fn submodules_unless_told_not_to() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let path = forge.repository("library", &[]);
    write(&path, "file", "from the library");
    commit(&path, "first");
    forge.publish("library");
    let path = forge.repository("program", &[]);
    let url = format!("{}/library/.git", forge.server.url);
    git(&path, &["submodule", "--quiet", "add", &url, "vendor/library"]);
    commit(&path, "first");
    forge.publish("program");
    let (_dir, checkout) = run(&forge.source("program/.git"), &options());
    let file = checkout.unwrap().directory.join("vendor/library/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "from the library");
    let (_dir, checkout) = run(&forge.source("program/.git?submodules=0"), &options());
    assert!(!checkout.unwrap().directory.join("vendor/library/file").exists());
}

#[test]
fn submodules_do_not_reach_into_this_machine() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let path = forge.repository("secret", &[]);
    write(&path, "file", "secret");
    commit(&path, "first");
    let evil = forge.repository("evil", &[]);
    git(&evil, &["submodule", "--quiet", "add", path.to_str().unwrap(), "stolen"]);
    commit(&evil, "first");
    forge.publish("evil");
    let text = error(&forge.source("evil/.git"));
    assert!(text.contains("transport 'file' not allowed"), "{text}");
}

#[test]
fn credentials_are_sent_but_neither_kept_nor_shown() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    forge.main();
    let root = forge.directory.path().to_path_buf();
    let guarded = Server::start(move |request, _| match request.header("authorization") {
        Some("Basic dTpwQHNz") => {
            let path = request.path.split('?').next().unwrap().trim_start_matches('/').to_owned();
            fs::read(root.join(path)).map_or_else(|_| Answer::new(404, ""), |body| Answer::new(200, body))
        }
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    });
    let url = guarded.url.replace("http://", "http://u:p%40ss@");
    let source = |url: &str| parse_git_source(&format!("{url}/main/.git")).unwrap().unwrap();
    let keep = CheckoutOptions { keep_git_dir: true, ..options() };
    let (_dir, checkout) = run(&source(&url), &keep);
    let config = fs::read_to_string(checkout.unwrap().directory.join(".git/config")).unwrap();
    assert!(
        config.contains(&guarded.url) && !config.contains("p%40ss") && !config.contains("dTpwQHNz"),
        "{config}"
    );
    let text = error(&source(&url.replace("p%40ss", "wrong")));
    assert!(text.starts_with(&format!("cannot check out `{}/main/.git`", guarded.url)), "{text}");
    assert!(!text.contains("wrong"), "{text}");
    assert!(!error(&source(&guarded.url)).is_empty());
    let header = CheckoutOptions { authorization: Some("Basic dTpwQHNz"), ..options() };
    run(&source(&guarded.url), &header).1.unwrap();
}

#[test]
fn repositories_of_sha256() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let path = forge.repository("new", &["--object-format=sha256"]);
    write(&path, "foo", "new");
    let commit = commit(&path, "first");
    forge.publish("new");
    assert_eq!(commit.len(), 64);
    assert_eq!(foo(&forge.source(&format!("new/.git?commit={commit}#master"))), "new");
}

#[test]
fn a_second_checkout_replaces_the_first() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    forge.main();
    let dir = tempfile::tempdir().unwrap();
    for (reference, has_sub) in [("feature", true), ("master", false)] {
        let source = forge.source(&format!("main/.git#{reference}"));
        let result = checkout(&source, false, None, None, dir.path(), &Reporter::silent()).unwrap();
        assert_eq!(result.directory.join("sub").exists(), has_sub);
    }
}

#[test]
fn without_git_the_error_says_so() {
    let source = GitSource { remote: "http://h/x.git".to_owned(), ..GitSource::default() };
    let environment = vec![("PATH".into(), "/nonexistent".into())];
    let (_dir, result) = run(&source, &CheckoutOptions { environment, ..options() });
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "cannot check out `http://h/x.git`: the `git` program is not installed");
    assert!(error.hint().is_some());
}

#[test]
fn other_transports_are_refused() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    forge.main();
    let file = format!("file://{}", forge.directory.path().join("main").display());
    for remote in [file.as_str(), "ext::sh -c id"] {
        let source = GitSource { remote: remote.to_owned(), ..GitSource::default() };
        assert!(error(&source).contains("not allowed"), "{}", error(&source));
    }
}

#[test]
fn the_state_of_a_directory() {
    if !has_git() {
        return;
    }
    let forge = Forge::new();
    let [_, _, last] = forge.main();
    let path = forge.directory.path().join("main");
    git(&path, &["remote", "add", "origin", "https://u:secret@h/x.git"]);
    write(&path, "sub/new", "");
    let state = git_state(&path.join("sub"), &[]).unwrap();
    assert_eq!((state.commit, state.dirty), (last, true));
    assert_eq!(state.remote_url.as_deref(), Some("https://h/x.git"));
    assert_eq!(git_state(tempfile::tempdir().unwrap().path(), &[]), None);
    forge.repository("empty", &[]);
    assert_eq!(git_state(&forge.directory.path().join("empty"), &[]), None);
    assert_eq!(git_state(Path::new("/nonexistent"), &[]), None);
}
