//! kiln's caches in directories of their own, beside steps in place, which can write there.
//!
//! Whoever may write to a cache changes what later builds make of it. So that a step cannot, the records and what makes a
//! directory a cache are known before each step and looked at after it: what is another, or new, is removed or put back, with
//! a warning. It is no error: others may use the directory at the same time, and lose a record by this at most. Blobs are
//! verified by whoever reads them.
//!
//! Blobs, and the files of whoever is writing some, come and go. What a step left among them under no name that kiln gives, or as
//! anything but a plain file, is removed. Whatever else is in the directory belongs to the volume or the container it is in,
//! and is looked after with that.
//!
//! kiln knows contents; who is left when kiln was killed knows inodes and times of change only, and removes more.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::look::at;
use super::wire::{path, paths};
use crate::oci::Digest;
use crate::tree::{FileKind, Metadata, RootDir, Walk};

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
    /// The directory with the blobs, by algorithm and digest.
    #[serde(with = "path")]
    pub blobs: PathBuf,
    /// The directory of those who are writing some.
    #[serde(with = "path")]
    pub sessions: PathBuf,
    /// The file that they lock.
    #[serde(with = "path")]
    pub lock: PathBuf,
}

impl CacheDirectory {
    /// Returns what belongs to a cache, by its names in the directory.
    pub fn own_names(&self) -> impl Iterator<Item = &PathBuf> {
        let Self { path: _, files, records, blobs, sessions, lock } = self;
        files.iter().chain([records, blobs, sessions, lock])
    }

    /// Tells whether an entry among what comes and goes is one that a kiln makes.
    fn is_kilns(&self, path: &Path, metadata: &Metadata) -> bool {
        // A directory may have inherited its group.
        let is_directory = metadata.kind.is_dir() && metadata.mode & 0o5000 == 0;
        let is_file = metadata.kind == FileKind::File && metadata.mode & 0o7000 == 0;
        let parts = |above: &Path| {
            let below = path.strip_prefix(above).ok()?;
            below.iter().map(|part| part.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_session = |name: &str| {
            name.split_once('-').is_some_and(|(process, attempt)| is_number(process) && is_number(attempt))
        };
        if let Some(parts) = parts(&self.blobs) {
            return match &parts[..] {
                [] => is_directory,
                [algorithm] => is_directory && algorithm == "sha256",
                [algorithm, hex] => is_file && format!("{algorithm}:{hex}").parse::<Digest>().is_ok(),
                _ => false,
            };
        }
        if let Some(parts) = parts(&self.sessions) {
            return match &parts[..] {
                [] => is_directory,
                [name] if is_directory => is_session(name),
                [name] => is_file && name.strip_suffix(".lock").is_some_and(is_session),
                [name, number] => is_file && is_session(name) && is_number(number),
                _ => false,
            };
        }
        // Records are known one by one.
        if path == self.lock { is_file } else { is_directory || !metadata.kind.is_dir() }
    }
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
    /// What comes and goes, and the directories of the records.
    others: BTreeMap<PathBuf, Metadata>,
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

/// What a step did to a cache.
#[derive(Debug)]
pub(super) struct Touched {
    /// Where the cache is.
    pub(super) path: PathBuf,
    /// What was removed or put back, below it.
    pub(super) undone: Vec<PathBuf>,
}

impl CacheFiles {
    /// Takes note of `directories`.
    pub(super) fn note(directories: &[CacheDirectory], depth: Depth) -> io::Result<Self> {
        let new = |directory: &CacheDirectory| Cache {
            directory: directory.clone(),
            known: BTreeMap::new(),
            others: BTreeMap::new(),
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
            touched.extend((!found.undone.is_empty()).then_some(found));
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
        self.others.clear();
        let Some(root) = self.open()? else { return Ok(()) };
        for (path, metadata) in self.guarded(&root)? {
            // What is as it was need not be read again.
            let known = match before.remove(&path).filter(|known| known.metadata.is_untouched(&metadata)) {
                Some(known) => known,
                None => Known { metadata, content: self.content(&root, &path, &metadata, depth)? },
            };
            self.known.insert(path, known);
        }
        self.others = self.others(&root)?;
        Ok(())
    }

    fn settle(&mut self) -> io::Result<Touched> {
        let mut found = Touched { path: self.directory.path.clone(), undone: Vec::new() };
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
        self.settle_others(&root, &mut found)?;
        Ok(found)
    }

    /// Removes what is no kiln's of what came or was changed, and makes directories look as they did.
    fn settle_others(&self, root: &RootDir, found: &mut Touched) -> io::Result<()> {
        for (path, now) in self.others(root)? {
            let was = self.others.get(&path);
            let looks = |of: &Metadata| (of.kind, of.ino, of.mode, of.uid, of.gid);
            let is_same = was.is_some_and(|was| {
                looks(was) == looks(&now) && (now.kind.is_dir() || was.is_untouched(&now))
            });
            if is_same || !root.exists(&path)? {
                continue;
            }
            // Another in the place of the one that somebody holds locked would be none.
            let is_lock = |was: &Metadata| {
                path == self.directory.lock && now.kind == FileKind::File && was.ino == now.ino
            };
            match was.filter(|was| now.kind.is_dir() && was.kind.is_dir() || is_lock(was)) {
                Some(was) => {
                    if is_lock(was) {
                        let flags = OFlags::WRONLY
                            | OFlags::TRUNC
                            | OFlags::NOFOLLOW
                            | OFlags::NONBLOCK
                            | OFlags::CLOEXEC;
                        rustix::fs::openat(root, &path, flags, Mode::empty())?;
                    }
                    root.set_owner(&path, was.uid, was.gid)?;
                    root.set_mode(&path, was.mode)?;
                }
                None if self.directory.is_kilns(&path, &now) => continue,
                None => root.remove_all(&path)?,
            }
            found.undone.push(path);
        }
        Ok(())
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

    /// Lists what comes and goes, and the directories of the records.
    fn others(&self, root: &RootDir) -> io::Result<BTreeMap<PathBuf, Metadata>> {
        let mut found = BTreeMap::new();
        let CacheDirectory { records, blobs, sessions, lock, .. } = &self.directory;
        for place in [records, blobs, sessions, lock] {
            let metadata = match root.metadata(place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            found.insert(place.clone(), metadata);
            if !metadata.kind.is_dir() {
                continue;
            }
            for entry in Walk::new(root, place)? {
                let entry = entry?;
                if place != records || entry.metadata.kind.is_dir() {
                    found.insert(place.join(entry.path), entry.metadata);
                }
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
            blobs: "blobs".into(),
            sessions: "ingest".into(),
            lock: "lock".into(),
        };
        let files = CacheFiles::note(&[directory], depth).unwrap();
        (dir, files)
    }

    #[test]
    fn what_is_used_meanwhile_stays_and_what_is_changed_goes() {
        let (dir, mut files) = cache(Depth::Contents);
        let at = |name: &str| dir.path().join(name);
        fs::write(at("blobs/sha256").join("a".repeat(64)), "another kiln's").unwrap();
        fs::create_dir_all(at("ingest/17-0")).unwrap();
        for file in ["ingest/17-0/3", "ingest/17-0.lock", "lock"] {
            fs::write(at(file), "").unwrap();
        }
        fs::File::open(at("records/ab/one")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(files.settle().unwrap().is_empty());
        fs::write(at("records/ab/two"), "3").unwrap();
        fs::write(at("records/ab/planted"), "4").unwrap();
        fs::remove_file(at("oci-layout")).unwrap();
        fs::write(at("index.json"), "[]").unwrap();
        fs::write(at("mine"), "the step's").unwrap();
        let touched = files.settle().unwrap();
        assert_eq!(touched[0].undone.len(), 4, "{touched:?}");
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
    fn nothing_of_a_steps_stays_among_the_blobs() {
        let (dir, mut files) = cache(Depth::Looks);
        let at = |name: &str| dir.path().join(name);
        let hex = "b".repeat(64);
        fs::write(at("blobs/readme"), "the job's").unwrap();
        files.renew().unwrap();
        fs::create_dir_all(at("ingest/17-0/deep")).unwrap();
        fs::create_dir_all(at("blobs/sha1")).unwrap();
        let evil = ["blobs/evil", "blobs/sha256/deploy.sh", "ingest/x", "ingest/17-0/.hook", "blobs/sha1/x"];
        for name in evil.iter().copied().chain([format!("blobs/sha256/{hex}").as_str()]) {
            fs::write(at(name), "").unwrap();
        }
        let set_mode = |name: &str, mode| {
            fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        set_mode(&format!("blobs/sha256/{hex}"), 0o4755);
        std::os::unix::fs::symlink("/etc", at("ingest/17-0.lock")).unwrap();
        set_mode("blobs", 0o1777);
        let touched = files.settle().unwrap();
        assert_eq!(touched[0].undone.len(), 9, "{touched:?}");
        for name in evil.iter().copied().chain(["ingest/17-0.lock", "blobs/sha1", "ingest/17-0/deep"]) {
            assert!(fs::symlink_metadata(at(name)).is_err(), "{name}");
        }
        assert!(at("blobs/readme").exists() && !at("blobs/sha256").join(hex).exists());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(at("blobs")).unwrap().permissions().mode() & 0o7777, 0o755);
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
