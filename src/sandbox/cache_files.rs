//! kiln's caches in directories of their own, beside steps in place, which can write there.
//!
//! Whoever may write to a cache changes what later builds make of it. So that a step cannot, the records and what makes a
//! directory a cache are known before each step and looked at after it: what is another, or new, is removed or put back, with
//! a warning. It is no error: others may use the directory at the same time, and lose a record by this at most. Blobs are
//! verified by whoever reads them.
//!
//! kiln knows contents; who is left when kiln was killed knows inodes and times of change only, and removes more.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::look::at;
use super::wire::{path, paths};
use crate::oci::Digest;
use crate::tree::{FileKind, Metadata, RootDir, Timestamp, Walk};

/// As much of a file is kept in memory to be put back; of a larger one nothing is.
const MOST_BYTES: u64 = 16 << 20;

/// A directory with a cache, and what is what in it; names are below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDirectory {
    /// Where it is; it need not be there.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Files that make it a cache, or name what is in it.
    #[serde(with = "paths")]
    pub files: Vec<PathBuf>,
    /// The directory with the records.
    #[serde(with = "path")]
    pub records: PathBuf,
    /// What else belongs to a cache, and comes and goes.
    #[serde(with = "paths")]
    pub others: Vec<PathBuf>,
}

/// How well what is there is to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Inodes and times of change.
    Looks,
    /// The content, too.
    Contents,
}

/// Cache directories as they were before a step.
#[derive(Debug)]
pub(super) struct CacheFiles {
    depth: Depth,
    caches: Vec<Cache>,
}

#[derive(Debug)]
struct Cache {
    directory: CacheDirectory,
    known: BTreeMap<PathBuf, Known>,
    /// What does not belong to a cache, where steps see the directory.
    strange: BTreeMap<PathBuf, Identity>,
    is_seen: bool,
}

#[derive(Debug)]
struct Known {
    metadata: Metadata,
    content: Content,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Record(Digest),
    File(Vec<u8>),
    /// Nobody has read it.
    Unknown,
}

/// What tells that an entry was left alone; other entries of a directory come and go.
type Identity = (FileKind, u64, u32, u32, u32, Option<Timestamp>);

/// What a step did to a cache.
#[derive(Debug)]
pub(super) struct Touched {
    /// Where the cache is.
    pub(super) path: PathBuf,
    /// What was removed or put back, below it.
    pub(super) undone: Vec<PathBuf>,
    /// What the step did there that is in no layer, below it.
    pub(super) strange: Vec<PathBuf>,
}

impl CacheFiles {
    /// Takes note of `directories`; `is_seen` tells where steps see one.
    pub(super) fn note(
        directories: &[CacheDirectory],
        depth: Depth,
        is_seen: &dyn Fn(&Path) -> bool,
    ) -> io::Result<Self> {
        let new = |directory: &CacheDirectory| Cache {
            is_seen: is_seen(&directory.path),
            directory: directory.clone(),
            known: BTreeMap::new(),
            strange: BTreeMap::new(),
        };
        let mut files = Self { depth, caches: directories.iter().map(new).collect() };
        files.renew()?;
        Ok(files)
    }

    /// Takes note of what kiln, and others, did since the last step.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        let depth = self.depth;
        self.caches
            .iter_mut()
            .try_for_each(|cache| cache.renew(depth).map_err(|error| at(&cache.directory.path, error)))
    }

    /// Makes records and files as they were before the step; returns what was done to which.
    pub(super) fn settle(&mut self) -> io::Result<Vec<Touched>> {
        let mut touched = Vec::new();
        for cache in &mut self.caches {
            let found = cache.settle().map_err(|error| at(&cache.directory.path, error))?;
            touched.extend((!found.undone.is_empty() || !found.strange.is_empty()).then_some(found));
        }
        Ok(touched)
    }
}

impl Cache {
    fn open(&self) -> io::Result<Option<RootDir>> {
        match RootDir::open(&self.directory.path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    fn renew(&mut self, depth: Depth) -> io::Result<()> {
        let mut before = std::mem::take(&mut self.known);
        self.strange.clear();
        let Some(root) = self.open()? else { return Ok(()) };
        for (path, metadata) in self.guarded(&root)? {
            // What is as it was need not be read again.
            let known = match before.remove(&path).filter(|known| known.metadata.is_untouched(&metadata)) {
                Some(known) => known,
                None => Known { metadata, content: self.content(&root, &path, &metadata, depth)? },
            };
            self.known.insert(path, known);
        }
        if self.is_seen {
            self.strange = self.strange(&root)?;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<Touched> {
        let mut found =
            Touched { path: self.directory.path.clone(), undone: Vec::new(), strange: Vec::new() };
        let Some(root) = self.open()? else {
            found.undone.extend(self.known.keys().cloned());
            return Ok(found);
        };
        let now = self.guarded(&root)?;
        for (path, metadata) in &now {
            let known = self.known.get(path);
            if known.is_some_and(|known| known.metadata.is_untouched(metadata)) {
                continue;
            }
            let is_same = match known {
                Some(Known { content: Content::Unknown, .. }) | None => false,
                Some(known) => self.content(&root, path, metadata, Depth::Contents)? == known.content,
            };
            if !is_same {
                root.remove_all(path)?;
                found.undone.push(path.clone());
            }
        }
        for (path, known) in &self.known {
            let is_gone = !root.exists(path)?;
            if let (true, Content::File(bytes)) = (is_gone, &known.content) {
                match root.create_file(path, known.metadata.mode) {
                    // Somebody else has made it this moment.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    file => file?.write_all(bytes)?,
                }
                root.set_owner(path, known.metadata.uid, known.metadata.gid)?;
                root.set_mode(path, known.metadata.mode)?;
            }
            if is_gone && !found.undone.contains(path) {
                found.undone.push(path.clone());
            }
        }
        if self.is_seen {
            let now = self.strange(&root)?;
            let is_new = |(path, now): &(&PathBuf, &Identity)| self.strange.get(*path) != Some(*now);
            found.strange.extend(now.iter().filter(is_new).map(|(path, _)| path.clone()));
            found.strange.extend(self.strange.keys().filter(|path| !now.contains_key(*path)).cloned());
        }
        Ok(found)
    }

    /// Lists the records and the files that are there, links not followed.
    fn guarded(&self, root: &RootDir) -> io::Result<BTreeMap<PathBuf, Metadata>> {
        let mut found = BTreeMap::new();
        let CacheDirectory { files, records, .. } = &self.directory;
        for path in files.iter().chain([records]) {
            match root.metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    found.insert(path.clone(), other?);
                }
            }
        }
        // A directory is nothing by itself; anything else in its place is.
        if found.get(records).is_some_and(|metadata| metadata.kind.is_dir()) {
            found.remove(records);
            for entry in Walk::new(root, records)? {
                let entry = entry?;
                if !entry.metadata.kind.is_dir() {
                    found.insert(records.join(entry.path), entry.metadata);
                }
            }
        }
        Ok(found)
    }

    /// Lists what does not belong to a cache.
    fn strange(&self, root: &RootDir) -> io::Result<BTreeMap<PathBuf, Identity>> {
        let CacheDirectory { files, records, others, .. } = &self.directory;
        let mut found = BTreeMap::from([(PathBuf::new(), identity(&root.metadata("")?))]);
        let mut walk = Walk::new(root, "")?;
        while let Some(entry) = walk.next().transpose()? {
            let is_own = |path: &PathBuf| entry.path == *path;
            if files.iter().chain(others).chain([records]).any(is_own) {
                walk.skip_subtree();
            } else {
                found.insert(entry.path, identity(&entry.metadata));
            }
        }
        Ok(found)
    }

    fn content(&self, root: &RootDir, path: &Path, metadata: &Metadata, depth: Depth) -> io::Result<Content> {
        if depth == Depth::Looks || metadata.kind != FileKind::File || metadata.size_bytes > MOST_BYTES {
            return Ok(Content::Unknown);
        }
        let mut bytes = Vec::new();
        match root.open_nofollow(path) {
            // Somebody else has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Unknown),
            file => file?.take(MOST_BYTES).read_to_end(&mut bytes)?,
        };
        Ok(match self.directory.files.iter().any(|file| file == path) {
            true => Content::File(bytes),
            false => Content::Record(Digest::of(&bytes)),
        })
    }
}

impl Touched {
    /// Says what was undone.
    pub(super) fn warning(&self) -> Option<String> {
        let first = self.undone.first()?;
        Some(format!(
            "the step, or somebody else meanwhile, changed `{}` and {} more in the cache `{}`, which are not used any more",
            first.display(),
            self.undone.len() - 1,
            self.path.display()
        ))
    }
}

fn identity(metadata: &Metadata) -> Identity {
    let changed = (!metadata.kind.is_dir()).then_some(metadata.ctime);
    (metadata.kind, metadata.ino, metadata.mode, metadata.uid, metadata.gid, changed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cache(depth: Depth) -> (tempfile::TempDir, CacheFiles) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("records/ab")).unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        for (name, text) in
            [("index.json", "{}"), ("oci-layout", "1"), ("records/ab/one", "1"), ("records/ab/two", "2")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let directory = CacheDirectory {
            path: dir.path().to_owned(),
            files: ["index.json", "oci-layout"].map(PathBuf::from).into(),
            records: "records".into(),
            others: ["blobs", "ingest", "lock"].map(PathBuf::from).into(),
        };
        let files = CacheFiles::note(&[directory], depth, &|_| true).unwrap();
        (dir, files)
    }

    #[test]
    fn what_is_used_meanwhile_stays_and_what_is_changed_goes() {
        let (dir, mut files) = cache(Depth::Contents);
        let at = |name: &str| dir.path().join(name);
        fs::write(at("blobs/sha256/x"), "another kiln's").unwrap();
        fs::File::open(at("records/ab/one")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(files.settle().unwrap().is_empty());
        fs::write(at("records/ab/two"), "3").unwrap();
        fs::write(at("records/ab/planted"), "4").unwrap();
        fs::remove_file(at("oci-layout")).unwrap();
        fs::write(at("index.json"), "[]").unwrap();
        fs::write(at("mine"), "the step's").unwrap();
        let touched = files.settle().unwrap();
        assert_eq!(touched[0].undone.len(), 4, "{touched:?}");
        assert_eq!(touched[0].strange, [Path::new("mine")]);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        assert_eq!((read("index.json"), read("oci-layout")), ("{}".to_owned(), "1".to_owned()));
        assert!(at("records/ab/one").exists() && !at("records/ab/two").exists());
        assert!(!at("records/ab/planted").exists());
        // What kiln itself writes afterwards is known before the next step.
        fs::write(at("records/ab/two"), "5").unwrap();
        files.renew().unwrap();
        assert!(files.settle().unwrap().is_empty());
    }

    #[test]
    fn records_elsewhere_and_a_directory_that_became_a_cache_go() {
        let (dir, mut files) = cache(Depth::Looks);
        let other = tempfile::tempdir().unwrap();
        fs::rename(dir.path().join("records"), other.path().join("records")).unwrap();
        std::os::unix::fs::symlink(other.path().join("records"), dir.path().join("records")).unwrap();
        assert_eq!(files.settle().unwrap()[0].undone.len(), 3);
        assert!(!dir.path().join("records").exists());
        fs::remove_dir_all(dir.path()).unwrap();
        files.renew().unwrap();
        fs::rename(other.path(), dir.path()).unwrap();
        fs::write(dir.path().join("oci-layout"), "1").unwrap();
        assert_eq!(files.settle().unwrap()[0].undone.len(), 3);
        assert!(!dir.path().join("records/ab/one").exists() && !dir.path().join("oci-layout").exists());
        fs::create_dir(other.path()).unwrap();
    }
}
