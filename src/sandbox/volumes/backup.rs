//! The copy of a volume on the container's own file system, made once for a build, and what it is for: whatever a step
//! does to what was put aside is put right from it.
//!
//! The index of both is in the memory of a process that no step can look into. An entry whose inode and change time stand is
//! as it was; all others are compared by content.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::aside::RootLook;
use super::content;
use crate::oci::Digest;
use crate::stream::hash_all;
use crate::tree::{FileKind, Metadata, RootDir, Timestamp, Xattrs, copy_tree, copy_tree_without};

/// What an entry counts at least: its inode, and its place in the index.
const LEAST_BYTES: u64 = 4096;

/// As much is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A volume and its copy.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) point: PathBuf,
    volume: RootDir,
    copy: RootDir,
    index: BTreeMap<PathBuf, Kept>,
    /// How its root looked when the step began.
    look: RootLook,
    /// Mount points in the volume, below its root.
    mounts: Vec<PathBuf>,
}

/// One entry, as it was when the build began.
#[derive(Debug)]
struct Kept {
    own: Metadata,
    /// Inode and change time of its copy; what came later has none.
    copy: Option<(u64, Timestamp)>,
    /// It was there when the step began.
    is_there: bool,
    content: Content,
    xattrs: Xattrs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    File(Digest),
    Symlink(PathBuf),
    Other,
    /// Somebody else writes it, or changed it since the build began: it is left to whoever that is.
    Strangers,
}

/// What was found wrong.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Entries that were put right.
    pub(super) restored: Vec<PathBuf>,
    /// Entries that are gone and of which there is no copy.
    pub(super) lost: Vec<PathBuf>,
    /// Entries whose copy is not what it was either.
    pub(super) spoilt: BTreeSet<PathBuf>,
}

/// Adds up what a volume holds.
pub(super) fn size_bytes(volume: &RootDir, mounts: &[PathBuf]) -> io::Result<u64> {
    let entries = content::entries(volume, &|path| content::is_foreign(path, mounts))?;
    Ok(entries
        .values()
        .map(|metadata| match metadata.kind {
            FileKind::File => metadata.size_bytes.max(LEAST_BYTES),
            _ => LEAST_BYTES,
        })
        .sum())
}

impl Backup {
    /// Copies the volume at `point` to the directory `copy`, which is made.
    pub(super) fn make(point: &Path, copy: &Path, mounts: Vec<PathBuf>) -> io::Result<Self> {
        let volume = RootDir::open(point)?;
        std::fs::create_dir_all(copy)?;
        let copy = RootDir::open(copy)?;
        let is_left_out = |path: &Path| content::is_foreign(path, &mounts);
        copy_tree_without(&volume, "", &copy, "", &is_left_out)?;
        let mut index = BTreeMap::new();
        let mut checking = Checking::new();
        for (path, own) in content::entries(&volume, &is_left_out)? {
            let of_copy = copy.metadata(&path)?;
            let content = match checking.is_written(&own)? {
                true => Content::Strangers,
                false => content_of(&copy, &path, of_copy.kind, &mut checking.buffer)?,
            };
            let xattrs = copy.xattrs(&path)?;
            let copy = Some((of_copy.ino, of_copy.ctime));
            let kept = Kept { own, copy, is_there: true, content, xattrs };
            index.insert(path, kept);
        }
        let look = RootLook::of(&volume, Path::new(""))?;
        Ok(Self { point: point.to_path_buf(), volume, copy, index, look, mounts })
    }

    /// Returns where the copy is.
    pub(super) fn copy_path(&self) -> &Path {
        self.copy.path()
    }

    /// Takes note of what the job itself did in the volume since the last step.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.look = RootLook::of(&self.volume, Path::new(""))?;
        let mounts = self.mounts.clone();
        let now = content::entries(&self.volume, &|path| content::is_foreign(path, &mounts))?;
        for kept in self.index.values_mut() {
            kept.is_there = false;
        }
        for (path, own) in now {
            match self.index.get_mut(&path) {
                Some(kept) if identity(&kept.own) == identity(&own) => kept.is_there = true,
                Some(kept) => {
                    (kept.own, kept.is_there) = (own, true);
                    kept.xattrs = self.volume.xattrs(&path)?;
                    if !own.kind.is_dir() {
                        kept.content = Content::Strangers;
                    }
                }
                None => {
                    let content = if own.kind.is_dir() { Content::Other } else { Content::Strangers };
                    let xattrs = self.volume.xattrs(&path)?;
                    self.index.insert(path, Kept { own, copy: None, is_there: true, content, xattrs });
                }
            }
        }
        Ok(())
    }

    /// Puts right what is not as it was, in the volume and in its copy. A file that somebody holds open for writing is
    /// left alone from then on: no process of a step is left, so it is the job's own, its log for one.
    pub(super) fn check(&mut self) -> io::Result<Damage> {
        let mut damage = Damage::default();
        let mut checking = Checking::new();
        self.check_copy(&mut checking, &mut damage)?;
        let mounts = self.mounts.clone();
        let now = content::entries(&self.volume, &|path| content::is_foreign(path, &mounts))?;
        for (path, metadata) in &now {
            let is_known = self.index.get(path).is_some_and(|kept| kept.is_there);
            if !is_known && !checking.is_written(metadata)? && self.volume.exists(path)? {
                self.volume.remove_all(path)?;
                damage.restored.push(path.clone());
            }
        }
        let there = self.index.iter().filter(|(_, kept)| kept.is_there);
        let paths: Vec<PathBuf> = there.map(|(path, _)| path.clone()).collect();
        let mut touched = Vec::new();
        for path in &paths {
            let found = now.get(path).filter(|_| self.volume.exists(path).unwrap_or(false));
            match self.judge(path, found, &mut checking)? {
                Verdict::AsItWas => {}
                Verdict::Moved => touched.push(path),
                Verdict::Strangers => {
                    self.index.get_mut(path).expect("one of its paths").content = Content::Strangers;
                    touched.push(path);
                }
                Verdict::Dressed => {
                    self.dress(path)?;
                    touched.push(path);
                    damage.restored.push(path.clone());
                }
                Verdict::Gone if damage.spoilt.contains(path) => {}
                Verdict::Gone if self.has_no_copy(path) => damage.lost.push(path.clone()),
                Verdict::Gone => {
                    self.replace(path, &mut checking)?;
                    touched.push(path);
                    damage.restored.push(path.clone());
                }
            }
        }
        if !damage.restored.is_empty() {
            // What was done to their entries has changed the directories' times.
            for path in paths.iter().rev().filter(|path| self.index[*path].own.kind.is_dir()) {
                self.dress(path)?;
            }
            self.look.set(&self.volume, Path::new(""))?;
            touched = paths.iter().collect();
        }
        for path in touched {
            if let (Some(kept), Ok(metadata)) = (self.index.get_mut(path), self.volume.metadata(path)) {
                kept.own = metadata;
            }
        }
        Ok(damage)
    }

    /// Finds out what of the copy is not what it was: another mode or owner does not matter and is put right.
    fn check_copy(&mut self, checking: &mut Checking, damage: &mut Damage) -> io::Result<()> {
        let now = content::entries(&self.copy, &|_| false)?;
        let has_copy = |path: &PathBuf| self.index.get(path).is_some_and(|kept| kept.copy.is_some());
        damage.spoilt.extend(now.keys().filter(|path| !has_copy(path)).cloned());
        for (path, kept) in &mut self.index {
            let Some(copy) = &mut kept.copy else { continue };
            let Some(metadata) = now.get(path) else {
                damage.spoilt.insert(path.clone());
                continue;
            };
            if (metadata.ino, metadata.ctime) == *copy {
                continue;
            }
            let is_same = kept.content != Content::Strangers
                && metadata.kind == kept.own.kind
                && content_of(&self.copy, path, metadata.kind, &mut checking.buffer)? == kept.content;
            if !is_same {
                damage.spoilt.insert(path.clone());
                continue;
            }
            dress(&self.copy, path, &kept.own, &kept.xattrs)?;
            copy.1 = self.copy.metadata(path)?.ctime;
        }
        Ok(())
    }

    fn has_no_copy(&self, path: &Path) -> bool {
        let kept = &self.index[path];
        !kept.own.kind.is_dir() && (kept.copy.is_none() || kept.content == Content::Strangers)
    }

    fn judge(&self, path: &Path, found: Option<&Metadata>, checking: &mut Checking) -> io::Result<Verdict> {
        let kept = &self.index[path];
        let Some(found) = found.filter(|found| found.kind == kept.own.kind && found.ino == kept.own.ino)
        else {
            return Ok(Verdict::Gone);
        };
        if found.ctime == kept.own.ctime {
            return Ok(Verdict::AsItWas);
        }
        if kept.content == Content::Strangers || checking.is_written(found)? {
            return Ok(Verdict::Strangers);
        }
        if content_of(&self.volume, path, found.kind, &mut checking.buffer)? != kept.content {
            return Ok(Verdict::Gone);
        }
        let looks = |of: &Metadata| (of.mode, of.uid, of.gid, of.mtime);
        let is_dressed = looks(found) == looks(&kept.own) && self.volume.xattrs(path)? == kept.xattrs;
        Ok(if is_dressed { Verdict::Moved } else { Verdict::Dressed })
    }

    fn dress(&self, path: &Path) -> io::Result<()> {
        let kept = &self.index[path];
        dress(&self.volume, path, &kept.own, &kept.xattrs)
    }

    /// Puts an entry in its place from the copy; a directory without what is in it.
    fn replace(&self, path: &Path, checking: &mut Checking) -> io::Result<()> {
        let kept = &self.index[path];
        self.volume.remove_all(path)?;
        if kept.own.kind.is_dir() {
            self.volume.create_dir(path, 0o700)?;
            return self.dress(path);
        }
        if kept.own.nlink > 1 {
            if let Some(other) = self.other_name(path, checking)? {
                return self.volume.hard_link(other, path);
            }
            checking.links.insert(kept.own.ino, path.to_path_buf());
        }
        copy_tree(&self.copy, path, &self.volume, path)
    }

    /// Finds a name of the same inode: one that was put there from the copy, or one that is as it was.
    fn other_name(&self, path: &Path, checking: &mut Checking) -> io::Result<Option<PathBuf>> {
        let ino = self.index[path].own.ino;
        if let Some(put) = checking.links.get(&ino) {
            return Ok(Some(put.clone()));
        }
        let names = self.index.iter().filter(|(name, kept)| kept.own.ino == ino && name.as_path() != path);
        for (name, _) in names {
            let found = self.volume.metadata(name).ok();
            if !matches!(self.judge(name, found.as_ref(), checking)?, Verdict::Gone) {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

/// What became of an entry.
enum Verdict {
    AsItWas,
    /// Only its change time is another: it was renamed there and back.
    Moved,
    /// Somebody else writes to it.
    Strangers,
    /// Its content is as it was, and it looks otherwise.
    Dressed,
    /// It is not there, or another.
    Gone,
}

struct Checking {
    buffer: Vec<u8>,
    writers: Option<HashSet<(u64, u64)>>,
    /// Where the first name of an inode with several was put.
    links: HashMap<u64, PathBuf>,
}

impl Checking {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], writers: None, links: HashMap::new() }
    }

    /// Tells whether a process has the file open for writing.
    fn is_written(&mut self, metadata: &Metadata) -> io::Result<bool> {
        if metadata.kind != FileKind::File {
            return Ok(false);
        }
        if self.writers.is_none() {
            self.writers = Some(files_being_written()?);
        }
        Ok(self.writers.as_ref().is_some_and(|writers| writers.contains(&(metadata.dev, metadata.ino))))
    }
}

/// Returns device and inode of every file that a process this one may look into has open for writing.
fn files_being_written() -> io::Result<HashSet<(u64, u64)>> {
    let mut found = HashSet::new();
    for process in std::fs::read_dir("/proc")? {
        let process = process?.path();
        let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            // The link's own mode tells how the file is open.
            let writes = descriptor.path().symlink_metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
            if let Some(metadata) = writes.then(|| std::fs::metadata(descriptor.path()).ok()).flatten() {
                found.insert((metadata.dev(), metadata.ino()));
            }
        }
    }
    Ok(found)
}

fn content_of(root: &RootDir, path: &Path, kind: FileKind, buffer: &mut [u8]) -> io::Result<Content> {
    Ok(match kind {
        FileKind::File => Content::File(hash_all(root.open_nofollow(path)?, buffer)?.digest),
        FileKind::Symlink => Content::Symlink(root.read_link(path)?),
        _ => Content::Other,
    })
}

fn identity(metadata: &Metadata) -> (u64, Timestamp, FileKind) {
    (metadata.ino, metadata.ctime, metadata.kind)
}

fn dress(root: &RootDir, path: &Path, look: &Metadata, wanted: &Xattrs) -> io::Result<()> {
    let now = root.metadata(path)?;
    if (now.uid, now.gid) != (look.uid, look.gid) {
        root.set_owner(path, look.uid, look.gid)?;
    }
    let xattrs = root.xattrs(path)?;
    for name in xattrs.keys().filter(|name| !wanted.contains_key(*name)) {
        root.remove_xattr(path, name)?;
    }
    for (name, value) in wanted.iter().filter(|(name, value)| xattrs.get(*name) != Some(*value)) {
        root.set_xattr(path, name, value)?;
    }
    // After the owner, whose change clears setuid.
    if look.kind != FileKind::Symlink && root.metadata(path)?.mode != look.mode {
        root.set_mode(path, look.mode)?;
    }
    if now.mtime != look.mtime {
        root.set_mtime(path, look.mtime)?;
    }
    Ok(())
}

/// Puts the volume at `point` right from its copy as far as that can be done where nobody has an index any more: what is
/// missing comes back, and looks are as they were. The content of what is there stays, which may be the job's log.
/// Returns how many entries were missing.
pub(super) fn restore(point: &Path, copy: &Path) -> io::Result<usize> {
    let (volume, copy) = (RootDir::open(point)?, RootDir::open(copy)?);
    let kept = content::entries(&copy, &|_| false)?;
    let mut names: HashMap<u64, &Path> = HashMap::new();
    for (path, metadata) in &kept {
        if metadata.nlink > 1 && volume.exists(path)? {
            names.insert(metadata.ino, path);
        }
    }
    let mut missing = 0;
    for (path, metadata) in &kept {
        if volume.exists(path)? {
            continue;
        }
        missing += 1;
        match names.get(&metadata.ino) {
            _ if metadata.kind.is_dir() => volume.create_dir(path, 0o700)?,
            Some(name) => volume.hard_link(name, path)?,
            None => {
                copy_tree(&copy, path, &volume, path)?;
                names.insert(metadata.ino, path);
            }
        }
    }
    for (path, metadata) in kept.iter().rev() {
        let there = volume.metadata(path)?;
        if there.kind == metadata.kind {
            let is_same_size = metadata.kind != FileKind::File || there.size_bytes == metadata.size_bytes;
            let mtime = if is_same_size { metadata.mtime } else { there.mtime };
            dress(&volume, path, &Metadata { mtime, ..*metadata }, &copy.xattrs(path)?)?;
        }
    }
    RootLook::of(&copy, Path::new(""))?.set(&volume, Path::new(""))?;
    Ok(missing)
}
