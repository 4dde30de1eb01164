use std::fs;

use super::*;
use crate::context::loopback::{Answer, Server};
use crate::context::{HttpFetch, HttpOptions};
use crate::event::Reporter;

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn fetch() -> HttpFetch {
    HttpFetch::new(HttpOptions::default(), Reporter::silent())
}

#[test]
fn a_file_with_its_digest() {
    let server = Server::start(|_, _| {
        Answer::new(200, "hello").with("Last-Modified", "Thu, 01 Jan 1970 00:00:07 GMT")
    });
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("made/for/it");
    let url = format!("{}/dir/a%20file.txt?x=y#z", server.url);
    let file = download(&fetch(), &url, &[], &into, Some(HELLO)).unwrap();
    assert_eq!(fs::read(&file.path).unwrap(), b"hello");
    assert!(file.path.starts_with(&into));
    assert_eq!(file.digest.to_string(), HELLO);
    assert_eq!((file.size_bytes, file.last_modified, file.name.as_str()), (5, Some(7), "a file.txt"));
    let second = download(&fetch(), &url, &[], &into, None).unwrap();
    assert_ne!(second.path, file.path);
}

#[test]
fn another_file_than_expected_is_refused_and_removed() {
    let server = Server::start(|_, _| Answer::new(200, "other"));
    let dir = tempfile::tempdir().unwrap();
    let error = download(&fetch(), &server.url, &[], dir.path(), Some(HELLO)).unwrap_err();
    let found = Digest::of(b"other");
    assert_eq!(error.to_string(), format!("digest mismatch {found}: {HELLO}"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bad_checksums_are_told_before_anything_is_fetched() {
    let server = Server::start(|_, _| Answer::new(200, "hello"));
    let dir = tempfile::tempdir().unwrap();
    let hex = &HELLO[7..];
    for (checksum, expected) in [
        (format!("md5:{}", &hex[..32]), "unsupported digest algorithm"),
        (format!("sha512:{hex}{hex}"), "unsupported digest algorithm"),
        (format!("unknown:{hex}"), "unsupported digest algorithm"),
        (hex.to_owned(), "invalid checksum digest format"),
        (String::new(), "invalid checksum digest format"),
        (":abc".to_owned(), "invalid checksum digest format"),
        ("sha256:".to_owned(), "invalid checksum digest format"),
        (format!("SHA256:{hex}"), "invalid checksum digest format"),
        (format!("sha256:{}", hex.to_uppercase()), "invalid checksum digest format"),
        (format!("sha256:{}", &hex[1..]), "invalid checksum digest length"),
    ] {
        let error = download(&fetch(), &server.url, &[], dir.path(), Some(&checksum)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{checksum}");
        assert!(error.hint().is_some());
    }
    assert!(server.requests().is_empty());
}

#[test]
fn what_broke_off_begins_again() {
    let server = Server::start(|_, before| {
        let whole = Answer::new(200, "hello");
        if before < 2 { Answer { cut_after: Some(before), ..whole } } else { whole }
    });
    let dir = tempfile::tempdir().unwrap();
    let file = download(&fetch(), &server.url, &[], dir.path(), Some(HELLO)).unwrap();
    assert_eq!(fs::read(&file.path).unwrap(), b"hello");
    let server = Server::start(|_, _| Answer { cut_after: Some(1), ..Answer::new(200, "hello") });
    let error = download(&fetch(), &server.url, &[], dir.path(), None).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot download `{}`: ", server.url)), "{error}");
    assert_eq!(server.requests().len(), 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn names_come_from_the_path() {
    for (url, expected) in [
        ("http://h/a/b.tar.gz", "b.tar.gz"),
        ("http://h/a/b/?q=/c", "b"),
        ("http://h", "__unnamed__"),
        ("http://h/", "__unnamed__"),
        ("http://h/?q", "__unnamed__"),
        ("http://h/%C3%A9", "é"),
        ("http://h/a%2Fb", "b"),
        ("http://h/a%2F..", "__unnamed__"),
        ("http://h/..", "__unnamed__"),
        ("http://h/a/../b", "b"),
        ("no url", "__unnamed__"),
    ] {
        assert_eq!(name_of(url), expected, "{url}");
    }
}
