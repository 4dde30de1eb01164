//! One-line texts: references, digests, platforms, git sources.

use kiln::context::{classify_source, parse_git_context, parse_git_source, validate_checksum};
use kiln::oci::{Digest, Platform, Reference};

use super::fuzz;
use super::input::Samples;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn references_come_back() {
    let pinned = format!("r.io/a/b:1@{DIGEST}");
    let samples = [
        "debian",
        "debian:12",
        "me/app",
        "index.docker.io/x",
        "localhost:5000/x:y",
        "[::1]:5000/x",
        "r.io/a/b__c/d-e.f:1.0",
        "docker.io/library/a.b/c",
        &pinned,
    ];
    let words = &[
        "a",
        "b9",
        "A",
        "/",
        ":",
        "@",
        ".",
        "_",
        "__",
        "-",
        "--",
        "localhost",
        "docker.io/",
        "library/",
        "r.io/",
        "5000",
        "[",
        "]",
        "::1",
        "sha256:",
        DIGEST,
        "latest",
        " ",
        "\u{e9}",
        "http://",
    ];
    fuzz("references", 2000, &Samples::new(samples, words), |input| {
        let Ok(reference) = input.text().parse::<Reference>() else { return };
        assert_eq!(reference.to_string().parse::<Reference>().unwrap().to_string(), reference.to_string());
        let familiar: Reference = reference.familiar().parse().unwrap();
        assert_eq!(familiar.to_string(), reference.to_string(), "{}", reference.familiar());
        assert!(reference.repository().len() <= 255);
        assert_eq!(reference.with_tag("x").unwrap().tag(), Some("x"));
    });
}

#[test]
fn digests_come_back() {
    let words = &["sha256:", "sha512:", "0", "f", "F", "g", DIGEST, ":", " ", "\n", "\u{e9}"];
    fuzz("digests", 2000, &Samples::new([DIGEST], words), |input| {
        let text = input.text();
        let _ = validate_checksum(&text);
        match text.parse::<Digest>() {
            Ok(digest) => {
                assert_eq!(digest.to_string(), text);
                assert_eq!((digest.hex().len(), digest.short().len()), (64, 12));
                let json = serde_json::to_string(&digest).unwrap();
                assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
            }
            Err(_) => assert!(serde_json::from_value::<Digest>(text.into()).is_err()),
        }
    });
}

#[test]
fn platforms_come_back() {
    let samples = ["linux/amd64", "linux/arm/v7", "windows(10.0.17763)/amd64", "arm64", "linux/arm64/v8"];
    let words =
        &["linux", "windows", "/", "(", ")", "amd64", "arm", "v7", "v8", "x86_64", "aarch64", " ", "\0", "."];
    fuzz("platforms", 2000, &Samples::new(samples, words), |input| {
        let Ok(platform) = input.text().parse::<Platform>() else { return };
        assert_eq!(platform.clone().normalised(), platform.clone().normalised().normalised());
        let again: Platform = platform.to_string().parse().unwrap();
        assert_eq!(again.to_string(), platform.to_string());
        assert!(platform.accepts(&platform).is_some());
    });
}

#[test]
fn git_sources_are_understood() {
    let samples = [
        "https://u:p@host/a/b.git#main:sub/dir",
        "git@github.com:a/b.git?ref=x&subdir=y#x:y",
        "ssh://git@h:22/a?tag=v1&keep-git-dir=1&submodules=0",
        "github.com/a/b#refs/heads/x",
        "git://h/x?commit=0123456789&mtime=commit&fetch-by-commit",
        "https://h/a%2egit",
    ];
    let words = &[
        "https://",
        "ssh://",
        "git://",
        "git@",
        "-o",
        "--upload-pack=x",
        "host",
        "/",
        ".git",
        "#",
        "?",
        "&",
        "=",
        "ref",
        "tag",
        "branch",
        "commit",
        "checksum",
        "subdir",
        "keep-git-dir",
        "submodules",
        "mtime",
        ":",
        "..",
        "../..",
        "%2e",
        "%",
        "%00",
        "\n",
        " ",
        "\u{e9}",
        "refs/tags/",
        "-",
        "github.com/",
        "ext::sh",
    ];
    fuzz("git-sources", 2000, &Samples::new(samples, words), |input| {
        let text = input.text();
        let _ = classify_source(&text);
        for understood in [parse_git_source(&text), parse_git_context(&text)] {
            let Ok(Some(source)) = understood else { continue };
            assert!(!source.remote.contains(['#', '?']), "{source:?}");
            assert!(
                source.reference.as_deref().is_none_or(|r| !r.is_empty() && !r.starts_with('-')),
                "{source:?}"
            );
            // A subdirectory in a query is cleaned when it is used.
            let climbs = |path: &str| path.starts_with('/') || path.split('/').any(|part| part == "..");
            assert!(text.contains("subdir") || !source.subdir.as_deref().is_some_and(climbs), "{source:?}");
        }
    });
}
