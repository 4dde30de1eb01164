//! Fast fingerprints of file content, to tell later whether a touched file really changed.
//!
//! Not digests: nothing here withstands somebody who wants two contents to look equal. They only ever compare a
//! file with what the same file was before a build step.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Xattrs;

/// The fingerprint of an entry's content (or link target) and extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Takes a fingerprint of content that arrives in pieces of any size.
#[derive(Default)]
pub struct ContentHasher(Xxh3);

impl ContentHasher {
    /// Begins with no content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Ends with the entry's extended attributes.
    pub fn finish(self, xattrs: &Xattrs) -> Fingerprint {
        let content = self.0.digest128().to_le_bytes();
        if xattrs.is_empty() {
            return Fingerprint(content);
        }
        let mut framed = content.to_vec();
        for (name, value) in xattrs {
            for part in [name.as_bytes(), value] {
                framed.extend_from_slice(&(part.len() as u64).to_le_bytes());
                framed.extend_from_slice(part);
            }
        }
        Fingerprint(xxh3_128(&framed).to_le_bytes())
    }
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentHasher").finish_non_exhaustive()
    }
}

/// Fingerprints of the regular files of a tree by path, taken by whoever wrote them.
///
/// Paths are kept as 128-bit hashes: a large image has half a million.
#[derive(Debug, Clone, Default)]
pub struct Fingerprints(HashMap<u128, (u64, Fingerprint)>);

impl Fingerprints {
    /// Begins with none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the fingerprint of the file at `path`, relative to the root; a later one replaces it.
    pub fn insert(&mut self, path: &Path, size_bytes: u64, fingerprint: Fingerprint) {
        self.0.insert(key(path), (size_bytes, fingerprint));
    }

    /// Tells whether none was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the file at `path`.
    pub fn remove(&mut self, path: &Path) {
        self.0.remove(&key(path));
    }

    /// Returns the fingerprint of the file at `path` if it was noted for this size.
    pub fn get(&self, path: &Path, size_bytes: u64) -> Option<Fingerprint> {
        let (noted, fingerprint) = self.0.get(&key(path))?;
        (*noted == size_bytes).then_some(*fingerprint)
    }
}

fn key(path: &Path) -> u128 {
    let mut hasher = Xxh3::new();
    for component in path.components() {
        if let Component::Normal(name) = component {
            hasher.update(name.as_bytes());
            hasher.update(b"/");
        }
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn fingerprint(pieces: &[&[u8]], xattrs: &[(&str, &[u8])]) -> Fingerprint {
        let mut hasher = ContentHasher::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish(&xattrs.iter().map(|(name, value)| (OsString::from(name), value.to_vec())).collect())
    }

    #[test]
    fn everything_counts_but_not_the_pieces() {
        let plain = fingerprint(&[b"content"], &[]);
        assert_eq!(fingerprint(&[b"con", b"", b"tent"], &[]), plain);
        assert_ne!(fingerprint(&[b"Content"], &[]), plain);
        let one = fingerprint(&[b"content"], &[("user.a", b"bc")]);
        assert_ne!(one, plain);
        assert_ne!(fingerprint(&[b"content"], &[("user.ab", b"c")]), one);
        assert_ne!(fingerprint(&[b"content"], &[("user.a", b"b"), ("user.c", b"")]), one);
    }

    #[test]
    fn noted_by_path_and_size() {
        let print = fingerprint(&[b"x"], &[]);
        let mut noted = Fingerprints::new();
        noted.insert(Path::new("/a/./b"), 1, print);
        assert_eq!(noted.get(Path::new("a/b"), 1), Some(print));
        assert_eq!(noted.get(Path::new("a/b"), 2), None);
        assert_eq!(noted.get(Path::new("ab"), 1), None);
        noted.remove(Path::new("a/b"));
        assert_eq!(noted.get(Path::new("a/b"), 1), None);
    }
}
