//! The copy of a volume on the container's own file system, made once for a build, and what it is for: whatever a step
//! does to what was put aside is put right from it.
//!
//! The index of both is in the memory of a process that no step can look into. An entry whose inode and change time stand is
//! as it was; all others are compared by content. kiln has the index of the whole build; who watches over a step notes its
//! own, without contents, for the case that kiln is killed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::look::dress;
use super::super::wire::paths;
use super::aside::RootLook;
use super::content;
use super::unsettled::Unsettled;
use super::writers::Writers;
use crate::oci::Digest;
use crate::stream::hash_all;
use crate::tree::{FileKind, Metadata, RootDir, Timestamp, Xattrs, copy_tree, copy_tree_without};

/// What an entry counts at least: its inode, and its place in the index.
const LEAST_BYTES: u64 = 4096;

/// What the mode may be of a file that a step could have made of the job's: not run, and nobody else's rights.
const NO_PROGRAM: u32 = 0o666;

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
    left_out: LeftOut,
}

/// What there is in a volume, below its root, that its copy is without.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct LeftOut {
    /// Mount points and caches, with all that is below: not looked at.
    #[serde(with = "paths")]
    pub(super) foreign: Vec<PathBuf>,
    /// Files with credentials: others empty and refill them, as long as they are the same.
    #[serde(with = "paths")]
    pub(super) private: Vec<PathBuf>,
    /// Others make directories on the way to caches meanwhile.
    pub(super) is_shared: bool,
}

impl LeftOut {
    fn is_foreign(&self, volume: &RootDir, path: &Path) -> bool {
        content::is_foreign(volume, path, &self.foreign)
    }

    /// Tells whether something that is not looked at is below: a directory's time tells nothing then.
    fn is_on_way(&self, path: &Path) -> bool {
        self.foreign.iter().any(|foreign| foreign.starts_with(path))
    }

    fn is_private(&self, path: &Path) -> bool {
        self.private.iter().any(|private| private == path)
    }

    fn has(&self, volume: &RootDir, path: &Path) -> bool {
        self.is_foreign(volume, path) || self.is_private(path)
    }
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

impl Kept {
    fn private(own: Metadata) -> Self {
        Self { own, copy: None, is_there: true, content: Content::Private, xattrs: Xattrs::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    File(Digest),
    Symlink(PathBuf),
    Other,
    /// What the copy has, which is as it was when it was noted; its attributes, too.
    OfCopy,
    /// What the copy had, which is not as it was any more.
    Lost,
    /// Somebody else writes it, or changed it since the build began: it is left to whoever that is.
    Strangers,
    /// Credentials: nothing but that it is the same file is of interest.
    Private,
}

/// What was found wrong.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Entries that were put right: they were removed, changed, replaced or planted.
    pub(super) restored: Vec<PathBuf>,
    /// Entries of which only mode, owner, attributes or time were put right.
    pub(super) dressed: Vec<PathBuf>,
    /// Entries that could not be put right, and why.
    pub(super) failed: BTreeMap<PathBuf, String>,
    /// Entries that are gone and of which there is no copy.
    pub(super) lost: Vec<PathBuf>,
    /// Entries that are gone, and their copy with them.
    pub(super) destroyed: Vec<PathBuf>,
    /// Entries whose copy is not what it was.
    pub(super) spoilt: BTreeSet<PathBuf>,
    /// Entries that somebody else changed before, and nobody knows who did now.
    pub(super) strangers: Vec<PathBuf>,
}

impl Damage {
    /// Keeps in mind what could not be done; the first failure with an entry tells most.
    fn note(&mut self, path: &Path, done: io::Result<()>) {
        if let Err(error) = done {
            self.failed.entry(path.to_path_buf()).or_insert_with(|| error.to_string());
        }
    }
}

/// Adds up what a volume holds; `None` if there is a file of the name `here`.
pub(super) fn size_bytes(volume: &RootDir, left_out: &LeftOut, here: &OsStr) -> io::Result<Option<u64>> {
    let entries = content::entries(volume, &|path| left_out.has(volume, path))?;
    if entries.keys().any(|path| path.file_name() == Some(here)) {
        return Ok(None);
    }
    let sizes = entries
        .values()
        .map(|metadata| match metadata.kind {
            FileKind::File => metadata.size_bytes.max(LEAST_BYTES),
            _ => LEAST_BYTES,
        })
        .sum();
    Ok(Some(sizes))
}

impl Backup {
    /// Copies the volume at `point` to the directory `copy`, which is made.
    pub(super) fn make(point: &Path, copy: &Path, left_out: LeftOut) -> io::Result<Self> {
        let volume = RootDir::open(point)?;
        std::fs::create_dir_all(copy)?;
        let copy = RootDir::open(copy)?;
        copy_tree_without(&volume, "", &copy, "", &|path| left_out.has(&volume, path))?;
        let mut index = BTreeMap::new();
        let mut checking = Checking::new();
        for (path, own) in content::entries(&volume, &|path| left_out.is_foreign(&volume, path))? {
            if left_out.is_private(&path) {
                index.insert(path, Kept::private(own));
                continue;
            }
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
        Ok(Self { point: point.to_path_buf(), volume, copy, index, look, left_out })
    }

    /// Notes how `volume`, which is mounted at `point`, and its copy are now, but for what is at `left_out`; no file is read.
    pub(super) fn note(point: &Path, volume: RootDir, copy: RootDir, left_out: LeftOut) -> io::Result<Self> {
        let of_copy = content::entries(&copy, &|_| false)?;
        let mut index = BTreeMap::new();
        for (path, own) in content::entries(&volume, &|path| left_out.is_foreign(&volume, path))? {
            if left_out.is_private(&path) {
                index.insert(path, Kept::private(own));
                continue;
            }
            let copy = of_copy.get(&path).filter(|copy| copy.kind == own.kind);
            // The job has changed it since the copy was made.
            let is_other = |copy: &&Metadata| {
                !own.kind.is_dir() && (copy.size_bytes, copy.mtime) != (own.size_bytes, own.mtime)
            };
            let content = match copy {
                Some(copy) if !is_other(&copy) => Content::OfCopy,
                None if own.kind.is_dir() => Content::Other,
                Some(_) | None => Content::Strangers,
            };
            let xattrs = match content {
                Content::Other => match volume.xattrs(&path) {
                    // The job has removed it this moment.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    xattrs => xattrs?,
                },
                _ => Xattrs::default(),
            };
            let copy = copy.map(|copy| (copy.ino, copy.ctime));
            index.insert(path, Kept { own, copy, is_there: true, content, xattrs });
        }
        // What the job has removed since is in the copy all the same.
        let only_copy = of_copy.iter().filter(|(path, _)| !index.contains_key(*path));
        let only_copy: Vec<(PathBuf, Kept)> = only_copy
            .map(|(path, own)| {
                let copy = Some((own.ino, own.ctime));
                let content = Content::OfCopy;
                (path.clone(), Kept { own: *own, copy, is_there: false, content, xattrs: Xattrs::default() })
            })
            .collect();
        index.extend(only_copy);
        let look = RootLook::of(&volume, Path::new(""))?;
        Ok(Self { point: point.to_path_buf(), volume, copy, index, look, left_out })
    }

    /// Returns the entries that are not as they were, or of which nobody knows that, or whose copy is not.
    pub(super) fn unsettled(&self, damage: &Damage) -> Option<Unsettled> {
        let own = damage.failed.keys().chain(&damage.destroyed).chain(&damage.lost).chain(&damage.strangers);
        let found = Unsettled {
            entries: own.cloned().collect(),
            spoilt: damage.spoilt.iter().cloned().collect(),
            ..self.all_unsettled()
        };
        (!found.entries.is_empty() || !found.spoilt.is_empty()).then_some(found)
    }

    /// The same of all entries.
    pub(super) fn all_unsettled(&self) -> Unsettled {
        let there = self.index.iter().filter(|(_, kept)| kept.is_there);
        Unsettled {
            point: self.point.clone(),
            entries: there.map(|(path, _)| path.clone()).collect(),
            copy: self.copy_path().file_name().map(PathBuf::from).unwrap_or_default(),
            spoilt: Vec::new(),
            is_told: false,
        }
    }

    /// Says where the entries belong now.
    pub(super) fn wait_in(&mut self, volume: RootDir) {
        self.volume = volume;
    }

    /// Returns where the copy is.
    pub(super) fn copy_path(&self) -> &Path {
        self.copy.path()
    }

    /// Returns what the copy is without.
    pub(super) fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Takes note of what the job itself did in the volume since the last step.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        self.look = RootLook::of(&self.volume, Path::new(""))?;
        let now = self.entries()?;
        for kept in self.index.values_mut() {
            kept.is_there = false;
        }
        for (path, own) in now {
            match self.index.get_mut(&path) {
                Some(kept) if identity(&kept.own) == identity(&own) => kept.is_there = true,
                Some(kept) => {
                    (kept.own, kept.is_there) = (own, true);
                    if kept.content == Content::Private {
                        continue;
                    }
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

    /// Puts right what is not as it was, in the volume and in its copy, as far as that goes. A file that somebody holds open for
    /// writing is left alone from then on: no process of a step is left, so it is the job's own, its log for one.
    pub(super) fn check(&mut self) -> io::Result<Damage> {
        let mut damage = Damage::default();
        let mut checking = Checking::new();
        self.check_copy(&mut checking, &mut damage)?;
        for path in &damage.spoilt {
            if let Some(kept) = self.index.get_mut(path).filter(|kept| kept.content == Content::OfCopy) {
                kept.content = Content::Lost;
            }
        }
        let now = self.entries()?;
        for (path, metadata) in &now {
            let removed = self.remove_planted(path, metadata, &mut checking, &mut damage);
            damage.note(path, removed);
        }
        // Some may be at their places again.
        let now = match damage.restored.is_empty() {
            true => now,
            false => self.entries()?,
        };
        let there = self.index.iter().filter(|(_, kept)| kept.is_there);
        let paths: Vec<PathBuf> = there.map(|(path, _)| path.clone()).collect();
        let mut touched = Vec::new();
        for path in &paths {
            let found = now.get(path).filter(|_| self.volume.exists(path).unwrap_or(false));
            match self.put_right(path, found, &mut checking, &mut damage) {
                Ok(is_touched) => touched.extend(is_touched.then_some(path)),
                failed => damage.note(path, failed.map(drop)),
            }
        }
        if !RootLook::of(&self.volume, Path::new(""))?.is_dressed_like(&self.look) {
            damage.dressed.push(".".into());
        }
        if !damage.restored.is_empty() || !damage.dressed.is_empty() {
            // What was done to their entries has changed the directories' times.
            for path in paths.iter().rev().filter(|path| self.index[*path].own.kind.is_dir()) {
                damage.note(path, self.dress(path));
            }
            damage.note(Path::new("."), self.look.set(&self.volume, Path::new("")));
            touched = paths.iter().filter(|path| !damage.failed.contains_key(*path)).collect();
        }
        for path in touched {
            if let (Some(kept), Ok(metadata)) = (self.index.get_mut(path), self.volume.metadata(path)) {
                kept.own = metadata;
            }
        }
        Ok(damage)
    }

    /// Removes an entry that was not there. A file that the job has open for writing goes back to where it was; one that it made
    /// meanwhile stays, and is no program.
    fn remove_planted(
        &self,
        path: &Path,
        metadata: &Metadata,
        checking: &mut Checking,
        damage: &mut Damage,
    ) -> io::Result<()> {
        let is_anybodys = self.left_out.is_shared && metadata.kind.is_dir() && self.left_out.is_on_way(path);
        let is_known = is_anybodys || self.index.get(path).is_some_and(|kept| kept.is_there);
        if is_known || !self.volume.exists(path)? {
            return Ok(());
        }
        let mut known = self.index.iter().filter(|(_, kept)| kept.is_there);
        let was = known.find(|(_, kept)| kept.own.ino == metadata.ino && kept.own.kind == metadata.kind);
        match was {
            _ if !checking.is_written(metadata)? => self.volume.remove_all(path)?,
            Some((own, _)) if !self.volume.exists(own)? => self.volume.rename(path, own)?,
            Some(_) => self.volume.remove_file(path)?,
            None if metadata.mode & !NO_PROGRAM != 0 => {
                self.volume.set_mode(path, metadata.mode & NO_PROGRAM)?;
            }
            None => return Ok(()),
        }
        damage.restored.push(path.to_path_buf());
        Ok(())
    }

    /// Makes an entry as it was; tells whether it has another inode or time of change by now, and is to be known by these.
    fn put_right(
        &mut self,
        path: &Path,
        found: Option<&Metadata>,
        checking: &mut Checking,
        damage: &mut Damage,
    ) -> io::Result<bool> {
        match self.judge(path, found, checking)? {
            Verdict::AsItWas => return Ok(false),
            Verdict::Moved => {}
            Verdict::Strangers => {
                if let Some(found) = found {
                    if !checking.is_written(found)? {
                        damage.strangers.extend((!damage.spoilt.contains(path)).then(|| path.to_path_buf()));
                    } else if self.looks_otherwise(path, found)? {
                        // Its content is the job's, and nothing else of it was for a step to change.
                        let own = Metadata { mtime: found.mtime, ..self.index[path].own };
                        dress(&self.volume, path, &own, &*self.xattrs(path)?)?;
                        damage.dressed.push(path.to_path_buf());
                    }
                }
                self.index.get_mut(path).expect("one of its paths").content = Content::Strangers;
            }
            Verdict::Dressed => {
                self.dress(path)?;
                damage.dressed.push(path.to_path_buf());
            }
            Verdict::Gone if damage.spoilt.contains(path) => {
                damage.destroyed.push(path.to_path_buf());
                return Ok(false);
            }
            Verdict::Gone if self.has_no_copy(path) => {
                if let Some(found) = found
                    && !checking.is_written(found)?
                {
                    self.volume.remove_all(path)?;
                    damage.restored.push(path.to_path_buf());
                }
                // Whoever looks after credentials says so.
                if self.index[path].content != Content::Private {
                    damage.lost.push(path.to_path_buf());
                }
                return Ok(false);
            }
            Verdict::Gone => {
                self.replace(path, checking)?;
                damage.restored.push(path.to_path_buf());
            }
        }
        Ok(true)
    }

    /// Finds out what of the copy is not what it was: another mode or owner does not matter and is put right.
    fn check_copy(&mut self, checking: &mut Checking, damage: &mut Damage) -> io::Result<()> {
        let now = match content::entries(&self.copy, &|_| false) {
            // Its root is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            other => other?,
        };
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
            let is_known = !matches!(
                kept.content,
                Content::Strangers | Content::OfCopy | Content::Lost | Content::Private
            );
            let is_same = is_known
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
        !kept.own.kind.is_dir()
            && (kept.copy.is_none() || matches!(kept.content, Content::Strangers | Content::Private))
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
        if kept.content == Content::Private {
            return Ok(Verdict::Moved);
        }
        if kept.content == Content::Strangers || checking.is_written(found)? {
            return Ok(Verdict::Strangers);
        }
        let was = match &kept.content {
            Content::OfCopy => content_of(&self.copy, path, found.kind, &mut checking.buffer)?,
            known => known.clone(),
        };
        if content_of(&self.volume, path, found.kind, &mut checking.buffer)? != was {
            return Ok(Verdict::Gone);
        }
        let has_time = !self.left_out.is_on_way(path);
        let looks = |of: &Metadata| (of.mode, of.uid, of.gid, has_time.then_some(of.mtime));
        let is_dressed =
            looks(found) == looks(&kept.own) && self.volume.xattrs(path)? == *self.xattrs(path)?;
        Ok(if is_dressed { Verdict::Moved } else { Verdict::Dressed })
    }

    /// Tells whether the mode, owner or attributes of a file are others than before.
    fn looks_otherwise(&self, path: &Path, found: &Metadata) -> io::Result<bool> {
        let looks = |of: &Metadata| (of.mode, of.uid, of.gid);
        Ok(looks(found) != looks(&self.index[path].own) || self.volume.xattrs(path)? != *self.xattrs(path)?)
    }

    fn entries(&self) -> io::Result<content::Entries> {
        content::entries(&self.volume, &|path| self.left_out.is_foreign(&self.volume, path))
    }

    fn dress(&self, path: &Path) -> io::Result<()> {
        if self.index[path].content == Content::Lost {
            return Ok(());
        }
        dress(&self.volume, path, &self.index[path].own, &*self.xattrs(path)?)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Cow<'_, Xattrs>> {
        let kept = &self.index[path];
        Ok(match kept.content {
            Content::OfCopy => Cow::Owned(self.copy.xattrs(path)?),
            _ => Cow::Borrowed(&kept.xattrs),
        })
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
    writers: Writers,
    /// Where the first name of an inode with several was put.
    links: HashMap<u64, PathBuf>,
}

impl Checking {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], writers: Writers::default(), links: HashMap::new() }
    }

    fn is_written(&mut self, metadata: &Metadata) -> io::Result<bool> {
        self.writers.write(metadata)
    }
}

pub(super) fn content_of(
    root: &RootDir,
    path: &Path,
    kind: FileKind,
    buffer: &mut [u8],
) -> io::Result<Content> {
    Ok(match kind {
        FileKind::File => Content::File(hash_all(root.open_nofollow(path)?, buffer)?.digest),
        FileKind::Symlink => Content::Symlink(root.read_link(path)?),
        _ => Content::Other,
    })
}

fn identity(metadata: &Metadata) -> (u64, Timestamp, FileKind) {
    (metadata.ino, metadata.ctime, metadata.kind)
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
