//! kiln's own files beside a step in place: known before it, looked at after it, put back.
//!
//! Such a step is root where kiln's program lies, and what the job's next command runs. Three kinds of files are kept:
//! those that nobody changes while kiln runs (the program, git, authorities, the shell's directory), of which there is a
//! copy in a file without a name; those that kiln itself writes between steps (tags, records), which it leaves
//! alone while one runs; and in kiln's own image all the rest of the container, where kiln and the job look for programs and
//! configuration: elsewhere, too, exactly what kiln reads or runs by its path, above all where nothing is yet. Only the files of
//! credentials that are empty meanwhile have other rules (`private`). A time of last change cannot be set back, so only what has another is looked into.
//!
//! A changed mode, owner, attribute or time is put back and told of; anything else fails the step. What takes part in the build
//! itself, and is verified whenever it is read, is no business of this.
//!
//! All of it is in files without names, too, of which the keeper and the process that watches over a step hold descriptors:
//! when kiln is killed they do the same in its stead ([`Notes`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, StatVfsMountFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::Whose;
use super::look::dress;
use super::mounting::mount_points;
use super::private::Record;
use super::volumes::Writers;
use super::wire::{path, paths};
use crate::tree::{FileKind, Metadata, RootDir, Walk, Xattrs};

/// How much is compared at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Where the kernel, and a container's other processes, write as they like.
const BUSY: [&str; 6] = ["/dev", "/proc", "/sys", "/tmp", "/run", "/var"];

/// How much of the container's files is copied: its image is small unless somebody made another of it.
const MOST_KEPT_BYTES: u64 = 256 << 20;

/// Where kiln's own files are; nothing of it need be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilnFiles {
    /// Files, and directories with all that is below them, that nobody changes while kiln runs.
    #[serde(with = "paths")]
    pub fixed: Vec<PathBuf>,
    /// The same of what kiln itself changes, but not during a step.
    #[serde(with = "paths")]
    pub names: Vec<PathBuf>,
    /// The same of the container's own: the job changes it, but hardly during a step.
    #[serde(with = "paths")]
    pub container: Vec<PathBuf>,
    /// What of the container's own is the job's to change, even during a step.
    #[serde(with = "paths")]
    pub jobs: Vec<PathBuf>,
    /// What is not looked at, and not looked into.
    #[serde(with = "paths")]
    pub work: Vec<PathBuf>,
    /// What kiln reads or runs by its path: of the container's own wherever it is, and whatever else is there.
    #[serde(with = "paths")]
    pub read: Vec<PathBuf>,
}

/// What was known of an entry before a step.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    metadata: Metadata,
    #[serde(with = "pairs")]
    xattrs: Xattrs,
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
enum Content {
    /// A directory, or something that has none.
    None,
    /// Where a link leads.
    Link(#[serde(with = "path")] PathBuf),
    /// A file's bytes: where they begin in the copy.
    Copy(u64),
    /// Not known: what is not as it was is not used any more.
    Unknown,
    /// A file that is too much to be copied: its size and time tell.
    Large,
}

type Entries = BTreeMap<PathBuf, Known>;

/// An entry in the notes.
#[derive(Debug, Serialize, Deserialize)]
struct Noted<P, K>(P, K);

/// One sort of files, as they were before a step.
#[derive(Debug)]
struct Part {
    known: Entries,
    /// What they hold, one after the other.
    copy: File,
    /// What is known, in a file without a name: another process has a descriptor of it.
    note: File,
}

/// What a [`Guard`] knows, for another process that has to settle in kiln's stead.
#[derive(Debug)]
pub(super) struct Notes {
    files: KilnFiles,
    emptied: Vec<Record>,
    aside: PathBuf,
    parts: [Part; 3],
}

impl Notes {
    /// Takes over [`Guard::descriptors`], which are the first of `descriptors`.
    pub(super) fn take_over(
        (files, emptied): (KilnFiles, Vec<Record>),
        aside: PathBuf,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> io::Result<Self> {
        let mut next = || descriptors.next().map(File::from).ok_or(io::ErrorKind::UnexpectedEof);
        let mut part = || Ok::<_, io::Error>(Part { known: Entries::new(), note: next()?, copy: next()? });
        Ok(Self { files, emptied, aside, parts: [part()?, part()?, part()?] })
    }

    /// Makes everything as it was before the step that ran last.
    pub(super) fn settle(self) -> io::Result<Found> {
        let Self { files, emptied, aside, parts: [mut fixed, mut names, mut container] } = self;
        for part in [&mut fixed, &mut names, &mut container] {
            part.known = read_note(&part.note)?;
        }
        let slash = RootDir::open(Path::new("/"))?;
        Guard { files, emptied, slash, aside, fixed, names, container }.settle()
    }
}

/// The files as they have to be after a step.
#[derive(Debug)]
pub(super) struct Guard {
    files: KilnFiles,
    /// Files of credentials: who empties them refills them.
    emptied: Vec<Record>,
    /// Paths are below `/`, and never above.
    slash: RootDir,
    /// Where what was planted is moved to.
    aside: PathBuf,
    fixed: Part,
    names: Part,
    container: Part,
}

/// Something that no step may do.
#[derive(Debug)]
pub(super) struct Offence {
    pub(super) path: PathBuf,
    pub(super) whose: Whose,
}

/// What a step did to kiln's own files.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whose mode, owner, attributes or time were put back.
    pub(super) put_back: Vec<PathBuf>,
    /// What was removed, replaced, changed or planted.
    pub(super) offences: Vec<Offence>,
    /// Records that are gone, because nobody knows what they were.
    pub(super) dropped: Vec<PathBuf>,
    /// What could not be made as it was.
    pub(super) problems: Vec<String>,
}

impl Guard {
    /// Takes note of everything but the files that are `emptied`; no step has run yet. What is found later to be planted goes
    /// to `aside`.
    pub(super) fn new(files: &KilnFiles, emptied: Vec<Record>, aside: PathBuf) -> io::Result<Self> {
        let slash = RootDir::open(Path::new("/"))?;
        let directory = aside.parent().unwrap_or(Path::new("/"));
        let on_disk = || tempfile::tempfile_in(directory);
        // These are small, and others after every step.
        let in_memory = || Ok::<_, io::Error>(File::from(memfd_create(c"names", MemfdFlags::CLOEXEC)?));
        let (fixed, names) = (Part::new(on_disk()?)?, Part::new(in_memory()?)?);
        let container = Part::new(on_disk()?)?;
        let mut guard = Self { files: files.clone(), emptied, slash, aside, fixed, names, container };
        let entries = guard.look(&guard.files.fixed, &guard.files)?;
        let Part { known, copy, .. } = &mut guard.fixed;
        note(&guard.slash, entries, (known, Some(copy)), u64::MAX)?;
        guard.fixed.write_note()?;
        Ok(guard)
    }

    /// Returns the descriptors by which another process knows the same, now and later ([`Notes::take_over`]).
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 6] {
        let [fixed, names, container] = [&self.fixed, &self.names, &self.container];
        [&fixed.note, &fixed.copy, &names.note, &names.copy, &container.note, &container.copy]
            .map(|file| file.as_fd())
    }

    /// Takes note of what kiln itself, and the job, may have changed since the last step.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.names.known.clear();
        self.names.copy.set_len(0)?;
        self.names.copy.rewind()?;
        for place in &self.files.names {
            let entries = self.look(std::slice::from_ref(place), &self.files)?;
            let Part { known, copy, .. } = &mut self.names;
            // Of a directory of records there is no copy: one that was touched is not used again.
            let is_file = entries.get(place).is_some_and(|metadata| metadata.kind == FileKind::File);
            let mut noted = Entries::new();
            note(&self.slash, entries, (&mut noted, is_file.then_some(&mut *copy)), u64::MAX)?;
            known.extend(noted);
        }
        self.names.write_note()?;
        let entries = self.look_at_container()?;
        let Part { known, copy, .. } = &mut self.container;
        note(&self.slash, entries, (known, Some(copy)), MOST_KEPT_BYTES)?;
        self.container.write_note()
    }

    /// Makes everything as it was before the step.
    pub(super) fn settle(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        let now = self.look(&self.files.fixed, &self.files)?;
        let keeper = Keeper { slash: &self.slash, aside: &self.aside, work: &self.files.work };
        keeper.settle(Kind::Fixed, &mut self.fixed, &now, &mut found)?;
        let now = self.look(&self.files.names, &self.files)?;
        keeper.settle(Kind::Names, &mut self.names, &now, &mut found)?;
        if !found.put_back.is_empty() || !found.offences.is_empty() {
            self.fixed.write_note()?;
        }
        let now = self.look_at_container()?;
        let keeper = Keeper { slash: &self.slash, aside: &self.aside, work: &self.files.work };
        keeper.settle(Kind::Container, &mut self.container, &now, &mut found)?;
        Ok(found)
    }

    /// Lists the container's own files, without volumes, and what kiln reads of them, volumes or not; both without what is
    /// kept more strictly.
    fn look_at_container(&self) -> io::Result<BTreeMap<PathBuf, Metadata>> {
        let mounts = mount_points()?;
        let mut entries = self.look(&self.files.read, &KilnFiles::default())?;
        entries.retain(|path, metadata| {
            // Those that lie on a mount each are put back by who looks after the surroundings.
            let is_around = mounts.contains(path) && metadata.kind == FileKind::File;
            metadata.kind != FileKind::Socket && !self.fixed.known.contains_key(path) && !is_around
        });
        let KilnFiles { fixed, names, container, jobs, work, read: _ } = &self.files;
        if container.is_empty() {
            return Ok(entries);
        }
        let busy = BUSY.map(PathBuf::from);
        let others = mounts
            .iter()
            .chain(&busy)
            .chain(jobs)
            .chain(fixed)
            .chain(names)
            .filter(|path| *path != Path::new("/"));
        let work = work.iter().chain(others).cloned().collect();
        let files = KilnFiles { work, ..KilnFiles::default() };
        let mut others = self.look(container, &files)?;
        // The root of a volume is no entry of the container's.
        others.retain(|path, _| !mounts.contains(path) || path == Path::new("/"));
        entries.extend(others);
        Ok(entries)
    }

    /// Lists `places` and what is below them, links not followed, without what the work of `files` is and what other places
    /// there are; what is not there is left out, and so is who is emptied.
    fn look(&self, places: &[PathBuf], files: &KilnFiles) -> io::Result<BTreeMap<PathBuf, Metadata>> {
        let mut found = look(&self.slash, places, files)?;
        found.retain(|_, metadata| {
            !self.emptied.iter().any(|record| record.is_inode(metadata.dev, metadata.ino))
        });
        Ok(found)
    }
}

impl KilnFiles {
    /// Adds what links lead to at the paths that are read; no step has run yet.
    pub(super) fn follow_links(&mut self) {
        let is_read_only = |path: &PathBuf| {
            rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
        };
        let mut all: BTreeSet<PathBuf> = self.read.drain(..).collect();
        // On a read-only mount no step changes anything, but who is outside of the container may.
        let targets = all.iter().filter_map(|path| std::fs::canonicalize(path).ok());
        let targets: Vec<PathBuf> = targets.filter(|path| !is_read_only(path)).collect();
        all.extend(targets);
        // What the kernel makes up is another each time.
        all.retain(|path| !["/dev", "/proc", "/sys"].iter().any(|place| path.starts_with(place)));
        self.read.extend(all);
    }
}

impl Part {
    /// Knows nothing yet.
    fn new(copy: File) -> io::Result<Self> {
        let note = File::from(memfd_create(c"guard", MemfdFlags::CLOEXEC)?);
        Ok(Self { known: Entries::new(), copy, note })
    }

    fn write_note(&self) -> io::Result<()> {
        let noted: Vec<_> = self.known.iter().map(|(path, known)| Noted(path.as_os_str(), known)).collect();
        self.note.set_len(0)?;
        self.note.write_all_at(&serde_json::to_vec(&noted)?, 0)
    }
}

/// Extended attributes in notes: their names are any bytes.
mod pairs {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{OsString, Xattrs};

    pub(super) fn serialize<S: Serializer>(xattrs: &Xattrs, to: S) -> Result<S::Ok, S::Error> {
        xattrs.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Xattrs, D::Error> {
        Ok(Vec::<(OsString, Vec<u8>)>::deserialize(from)?.into_iter().collect())
    }
}

fn read_note(note: &File) -> io::Result<Entries> {
    let mut text = vec![0; usize::try_from(note.metadata()?.len()).map_err(io::Error::other)?];
    note.read_exact_at(&mut text, 0)?;
    let noted: Vec<Noted<OsString, Known>> = serde_json::from_slice(&text)?;
    Ok(noted.into_iter().map(|Noted(path, known)| (path.into(), known)).collect())
}

fn look(slash: &RootDir, places: &[PathBuf], files: &KilnFiles) -> io::Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let missing =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    // As text: comparing paths by their components with each of these takes longer than looking at them.
    let plain = |path: &PathBuf| path.components().collect::<PathBuf>();
    let set = |paths: &[PathBuf]| paths.iter().map(|path| plain(path).into()).collect();
    let (work, names): (HashSet<OsString>, HashSet<OsString>) = (set(&files.work), set(&files.names));
    for place in &places.iter().map(plain).collect::<Vec<_>>() {
        let metadata = match slash.metadata(place) {
            Ok(metadata) => metadata,
            Err(error) if missing(&error) => continue,
            Err(error) => return Err(super::look::at(place, error)),
        };
        let is_directory = metadata.kind.is_dir();
        if work.contains(place.as_os_str())
            || found.insert(place.clone(), metadata).is_some()
            || !is_directory
        {
            continue;
        }
        let mut walk = Walk::new(slash, place)?.same_device_only();
        while let Some(entry) = walk.next().transpose()? {
            let path = place.join(&entry.path);
            let is_work = work.contains(path.as_os_str());
            let is_elsewhere = names.contains(path.as_os_str());
            if is_work || is_elsewhere {
                walk.skip_subtree();
            }
            // The directory in which the work goes on is kiln's own all the same.
            if is_elsewhere || (is_work && !entry.metadata.kind.is_dir()) {
                continue;
            }
            if entry.metadata.kind != FileKind::Socket {
                found.insert(path, entry.metadata);
            }
        }
    }
    Ok(found)
}

/// Takes note of entries and what they contain, instead of what was known before; files go to the end of the copy, if
/// there is one, as long as that holds no more than `most_bytes`.
fn note(
    slash: &RootDir,
    entries: BTreeMap<PathBuf, Metadata>,
    (noted, mut copy): (&mut Entries, Option<&mut File>),
    most_bytes: u64,
) -> io::Result<()> {
    let mut before = std::mem::take(noted);
    for (path, metadata) in entries {
        if let Some(known) = before.remove(&path).filter(|known| known.metadata.is_untouched(&metadata)) {
            noted.insert(path, known);
            continue;
        }
        let content = match metadata.kind {
            FileKind::Symlink => Content::Link(slash.read_link(&path)?),
            FileKind::File => match &mut copy {
                Some(copy) => {
                    let start = copy.seek(SeekFrom::End(0))?;
                    if start + metadata.size_bytes > most_bytes {
                        Content::Large
                    } else {
                        io::copy(&mut slash.open_nofollow(&path)?, copy)?;
                        Content::Copy(start)
                    }
                }
                None => Content::Unknown,
            },
            _ => Content::None,
        };
        let xattrs = match content {
            // One that was touched at all is not used again.
            Content::Unknown => Xattrs::new(),
            _ => slash.xattrs(&path)?,
        };
        noted.insert(path, Known { metadata, xattrs, content });
    }
    Ok(())
}

/// Compares and puts back.
struct Keeper<'a> {
    slash: &'a RootDir,
    aside: &'a Path,
    work: &'a [PathBuf],
}

/// Tells whether it is the same inode, with the same mode and owner.
fn looks_the_same(now: &Metadata, was: &Metadata) -> bool {
    now.same_inode(was) && (now.mode, now.uid, now.gid) == (was.mode, was.uid, was.gid)
}

/// Which of kiln's files they are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Fixed,
    Names,
    Container,
}

impl Kind {
    fn offence(self, path: &Path) -> Offence {
        let whose = match self {
            Self::Fixed | Self::Names => Whose::Kilns,
            Self::Container => Whose::Containers,
        };
        Offence { path: path.to_path_buf(), whose }
    }
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    /// Another mode, owner, attribute or time, and no other content.
    Dressed,
    /// Another inode, other content, or nobody knows.
    Spoilt,
}

impl Keeper<'_> {
    fn settle(
        &self,
        kind: Kind,
        Part { known, copy, .. }: &mut Part,
        now: &BTreeMap<PathBuf, Metadata>,
        found: &mut Found,
    ) -> io::Result<()> {
        let mut writers = Writers::default();
        let new = now.iter().filter(|(path, _)| !known.contains_key(*path) && !self.work.contains(path));
        let mut planted: Vec<PathBuf> = Vec::new();
        for (path, metadata) in new {
            let is_planted = match kind {
                // A new directory is in nobody's way, and may be another kiln's: programs are looked for in those there are.
                Kind::Fixed => {
                    !metadata.kind.is_dir() && path.parent().is_some_and(|parent| known.contains_key(parent))
                }
                Kind::Names => true,
                // What is below goes with it. A file that the job writes is one that a step gave another name: what the job makes
                // meanwhile is in the stage.
                Kind::Container => !planted.last().is_some_and(|last| path.starts_with(last)),
            };
            planted.extend(is_planted.then(|| path.clone()));
        }
        let mut gone = Vec::new();
        for (path, known) in known.iter_mut() {
            let fate = match self.fate(path, known, now.get(path), copy) {
                // It went with a directory that it was in.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Fate::Spoilt,
                other => other?,
            };
            let settled = match (&fate, &known.content) {
                (Fate::Untouched, _) => {
                    if let Some(now) = now.get(path).filter(|now| !now.kind.is_dir()) {
                        known.metadata = *now;
                    }
                    continue;
                }
                // What it holds by now is found out before the next step.
                (Fate::Spoilt, _)
                    if matches!(kind, Kind::Container)
                        && now.get(path).is_some_and(|now| looks_the_same(now, &known.metadata))
                        && now.get(path).map_or(Ok(false), |now| writers.write(now))? =>
                {
                    continue;
                }
                (Fate::Dressed, _) => {
                    found.put_back.push(path.clone());
                    dress(self.slash, path, &known.metadata, &known.xattrs)
                }
                (Fate::Spoilt, Content::Large) => {
                    found.offences.push(kind.offence(path));
                    found.problems.push(format!("`{}`: it is too large to be kept", path.display()));
                    gone.push(path.clone());
                    if now.contains_key(path) { self.put_aside(path) } else { Ok(()) }
                }
                (Fate::Spoilt, Content::Unknown) => {
                    found.dropped.push(path.clone());
                    gone.push(path.clone());
                    self.slash.remove_all(path)
                }
                (Fate::Spoilt, _) => {
                    found.offences.push(kind.offence(path));
                    self.make_anew(path, known, copy)
                }
            };
            let settled = settled.and_then(|()| self.slash.metadata(path));
            match settled {
                Ok(metadata) => known.metadata = metadata,
                Err(_) if gone.last() == Some(path) => {}
                Err(error) => found.problems.push(format!("`{}`: {error}", path.display())),
            }
        }
        for path in planted {
            if let Err(error) = self.put_aside(&path) {
                found.problems.push(format!("`{}`: {error}", path.display()));
            }
            found.offences.push(kind.offence(&path));
        }
        known.retain(|path, _| !gone.contains(path));
        Ok(())
    }

    fn fate(&self, path: &Path, known: &Known, now: Option<&Metadata>, copy: &File) -> io::Result<Fate> {
        let Some(now) = now else { return Ok(Fate::Spoilt) };
        let was = &known.metadata;
        if now.kind != was.kind || (!now.same_inode(was) && !self.is_moved(path)) {
            return Ok(Fate::Spoilt);
        }
        // A change of an attribute, too, is one of the entry's own time.
        if was.is_untouched(now) {
            return Ok(Fate::Untouched);
        }
        let same_look = (now.mode, now.uid, now.gid) == (was.mode, was.uid, was.gid)
            && (matches!(known.content, Content::Unknown) || self.slash.xattrs(path)? == known.xattrs);
        // kiln itself has work going on in some directories, and what is in the others is looked at for itself.
        if was.kind.is_dir() && same_look {
            return Ok(Fate::Untouched);
        }
        let same = match &known.content {
            Content::None => true,
            Content::Unknown => false,
            Content::Link(target) => self.slash.read_link(path)? == *target,
            Content::Large => now.size_bytes == was.size_bytes && now.mtime == was.mtime,
            Content::Copy(start) => {
                now.size_bytes == was.size_bytes && {
                    let file = self.slash.open_nofollow(path)?;
                    same_bytes(file, copy, *start, was.size_bytes)?
                }
            }
        };
        Ok(match same {
            true if self.is_moved(path) && same_look && now.mtime == was.mtime => Fate::Untouched,
            true => Fate::Dressed,
            false => Fate::Spoilt,
        })
    }

    /// Tells whether an entry is moved out of a step's way and back, and so may be another inode after it.
    fn is_moved(&self, path: &Path) -> bool {
        path.components().nth(1) != self.aside.components().nth(1)
    }

    fn make_anew(&self, path: &Path, known: &Known, copy: &File) -> io::Result<()> {
        if self.slash.exists(path)? {
            // kiln has made it again, for what it moves there.
            if self.aside.starts_with(path) && self.slash.metadata(path)?.kind.is_dir() {
                return dress(self.slash, path, &known.metadata, &known.xattrs);
            }
            self.put_aside(path)?;
        }
        match &known.content {
            Content::Link(target) => self.slash.symlink(target, path)?,
            Content::Copy(start) => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                self.slash.create_dir_all(directory, 0o755, &mut |_| {})?;
                let mut file = self.slash.create_file(path, 0o600)?;
                write_part(copy, *start, known.metadata.size_bytes, &mut file)?;
            }
            Content::None if known.metadata.kind.is_dir() => self.slash.create_dir(path, 0o700)?,
            Content::None | Content::Unknown | Content::Large => {
                self.slash.mknod(path, known.metadata.kind, known.metadata.mode)?;
            }
        }
        dress(self.slash, path, &known.metadata, &known.xattrs)
    }

    /// Moves an entry to where nothing looks for it; it may be somebody else's after all.
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        self.slash.create_dir_all(self.aside, 0o700, &mut |_| {})?;
        for number in 0..u32::MAX {
            let to = self.aside.join(number.to_string());
            if !self.slash.exists(&to)? {
                return match self.slash.rename(path, to) {
                    // It went with a directory that it was in.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn same_bytes(mut file: File, copy: &File, start: u64, size_bytes: u64) -> io::Result<bool> {
    let (mut now, mut then) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut position = 0;
    loop {
        let length = file.read(&mut now)?;
        if length == 0 || position + length as u64 > size_bytes {
            return Ok(length == 0 && position == size_bytes);
        }
        copy.read_exact_at(&mut then[..length], start + position)?;
        if now[..length] != then[..length] {
            return Ok(false);
        }
        position += length as u64;
    }
}

fn write_part(copy: &File, start: u64, size_bytes: u64, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut position = 0;
    while position < size_bytes {
        let part = usize::try_from(size_bytes - position).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        copy.read_exact_at(&mut buffer[..part], start + position)?;
        to.write_all(&buffer[..part])?;
        position += part as u64;
    }
    Ok(())
}

impl Found {
    /// Names the first that was not as before, beside modes, owners and times: those are a step's to change.
    pub(super) fn first_touched(&self) -> Option<String> {
        let named = |path: &PathBuf| format!("`{}`", path.display());
        let path = self.offences.first().map(|offence| &offence.path).or(self.dropped.first());
        path.map(named).or_else(|| self.problems.first().cloned())
    }

    /// Says what an error about the offences has besides the first.
    pub(super) fn state(&self) -> String {
        let more = match self.offences.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        match &self.problems[..] {
            [] => format!("{more}; all is as before again"),
            problems => format!("{more}; it cannot be put back: {}", problems.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

    use super::super::private::{Private, Reach};
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        guard: Guard,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            for sub in ["own/git", "own/store/records/ab", "own/store/work", "aside"] {
                fs::create_dir_all(at(sub)).unwrap();
            }
            fs::write(at("own/kiln"), "program").unwrap();
            fs::write(at("own/git/git"), "git").unwrap();
            symlink("kiln", at("own/executor")).unwrap();
            fs::write(at("own/store/index.json"), "{}").unwrap();
            fs::write(at("own/store/records/ab/abc"), "record").unwrap();
            let files = KilnFiles {
                fixed: vec![at("own")],
                names: vec![at("own/store/index.json"), at("own/store/records")],
                work: vec![at("own/store/work")],
                ..KilnFiles::default()
            };
            let mut guard = Guard::new(&files, Vec::new(), at("aside/planted")).unwrap();
            guard.begin().unwrap();
            Self { dir, guard }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn settle(&mut self) -> (Vec<String>, Vec<String>) {
            let found = self.guard.settle().unwrap();
            assert_eq!(found.problems, Vec::<String>::new());
            let shown = |paths: Vec<PathBuf>| {
                let name = |path: PathBuf| path.strip_prefix(self.dir.path()).unwrap().display().to_string();
                paths.into_iter().map(name).collect()
            };
            let offences = found.offences.into_iter().map(|offence| offence.path).collect();
            (shown(found.put_back), shown(offences))
        }
    }

    #[test]
    fn what_nobody_touched_is_left_alone_and_work_goes_on() {
        let mut place = Place::new();
        fs::write(place.at("own/store/work/anything"), "x").unwrap();
        assert_eq!(place.settle(), (vec![], vec![]));
    }

    #[test]
    fn modes_owners_and_times_are_put_back() {
        let mut place = Place::new();
        let before = fs::metadata(place.at("own/kiln")).unwrap();
        for name in ["own", "own/kiln", "own/store/index.json"] {
            fs::set_permissions(place.at(name), PermissionsExt::from_mode(0o4777)).unwrap();
        }
        std::os::unix::fs::lchown(place.at("own/executor"), Some(7), None).unwrap();
        File::open(place.at("own/kiln")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(
            place.settle(),
            (["own", "own/executor", "own/kiln", "own/store/index.json"].map(str::to_owned).to_vec(), vec![])
        );
        let after = fs::metadata(place.at("own/kiln")).unwrap();
        assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
        assert_eq!(fs::symlink_metadata(place.at("own/executor")).unwrap().uid(), before.uid());
        assert_eq!(place.settle(), (vec![], vec![]));
    }

    #[test]
    fn what_was_changed_replaced_removed_or_planted_is_found_and_undone() {
        let mut place = Place::new();
        let then = fs::metadata(place.at("own/kiln")).unwrap().modified().unwrap();
        fs::write(place.at("own/kiln"), "pr0gram").unwrap();
        File::open(place.at("own/kiln")).unwrap().set_modified(then).unwrap();
        fs::rename(place.at("own/git"), place.at("own/git2")).unwrap();
        fs::create_dir(place.at("own/git")).unwrap();
        fs::write(place.at("own/git/git"), "git").unwrap();
        fs::write(place.at("own/ls"), "planted").unwrap();
        fs::remove_file(place.at("own/executor")).unwrap();
        symlink("ls", place.at("own/executor")).unwrap();
        fs::write(place.at("own/store/index.json"), "[]").unwrap();
        fs::write(place.at("own/store/records/ab/abc"), "r3cord").unwrap();
        fs::write(place.at("own/store/records/ab/planted"), "r3cord").unwrap();
        let (put_back, offences) = place.settle();
        assert_eq!(put_back, Vec::<String>::new());
        for name in [
            "own/kiln",
            "own/git",
            "own/git/git",
            "own/ls",
            "own/executor",
            "own/store/index.json",
            "own/store/records/ab/planted",
        ] {
            assert!(offences.iter().any(|offence| offence == name), "{name}: {offences:?}");
        }
        let read = |name: &str| fs::read_to_string(place.at(name)).unwrap();
        assert_eq!((read("own/kiln"), read("own/git/git")), ("program".to_owned(), "git".to_owned()));
        assert_eq!(
            (read("own/executor"), read("own/store/index.json")),
            ("program".to_owned(), "{}".to_owned())
        );
        for name in ["own/ls", "own/store/records/ab/abc", "own/store/records/ab/planted"] {
            assert!(!place.at(name).exists(), "{name}");
        }
        assert_eq!(place.settle(), (vec![], vec![]));
    }

    #[test]
    fn another_process_settles_in_kilns_stead() {
        type Spoil = fn(&Place);
        let spoil: [(Option<&str>, Spoil); 8] = [
            (None, |place| fs::write(place.at("own/store/work/anything"), "x").unwrap()),
            (None, |place| {
                fs::set_permissions(place.at("own"), PermissionsExt::from_mode(0o777)).unwrap();
            }),
            (Some("own/kiln"), |place| fs::write(place.at("own/kiln"), "pr0gram").unwrap()),
            (Some("own/git"), |place| {
                fs::rename(place.at("own/git"), place.at("own/store/work/git")).unwrap();
            }),
            (Some("own/ls"), |place| fs::write(place.at("own/ls"), "").unwrap()),
            (Some("own/store/index.json"), |place| {
                fs::write(place.at("own/store/index.json"), "[]").unwrap();
            }),
            (Some("own/store/records/ab/abc"), |place| {
                fs::write(place.at("own/store/records/ab/abc"), "r3cord").unwrap();
            }),
            (Some("own/store/records/ab/planted"), |place| {
                fs::write(place.at("own/store/records/ab/planted"), "").unwrap();
            }),
        ];
        for (named, spoil) in spoil {
            let place = Place::new();
            let descriptors = place.guard.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
            let notes = Notes::take_over(
                (place.guard.files.clone(), Vec::new()),
                place.at("aside/planted"),
                &mut descriptors.into_iter(),
            );
            spoil(&place);
            let found = notes.unwrap().settle().unwrap();
            let named = named.map(|named| format!("`{}`", place.at(named).display()));
            assert_eq!((found.first_touched(), found.problems), (named, vec![]));
            let read = |name: &str| fs::read_to_string(place.at(name)).unwrap();
            assert_eq!((read("own/kiln"), read("own/git/git")), ("program".into(), "git".into()));
            assert_eq!(read("own/store/index.json"), "{}");
            for name in ["own/ls", "own/store/records/ab/planted"] {
                assert!(!place.at(name).exists(), "{name}");
            }
        }
    }

    #[test]
    fn what_is_read_is_guarded_where_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["state", "home", "real"] {
            fs::create_dir(at(sub)).unwrap();
        }
        for (name, content) in [("home/empty", ""), ("home/credentials", "token"), ("real/config", "own")] {
            fs::write(at(name), content).unwrap();
        }
        symlink("../real/config", at("home/link")).unwrap();
        let (mut private, visible) =
            Private::open(&at("state"), Reach::All, &[at("home/credentials"), at("home/empty")]).unwrap();
        assert_eq!((private.records().len(), visible), (1, vec![]));
        let mut files = KilnFiles {
            read: ["home/credentials", "home/empty", "home/link", "home/.aws/config", "home/certs.d"]
                .map(at)
                .to_vec(),
            ..KilnFiles::default()
        };
        files.follow_links();
        let mut guard = Guard::new(&files, private.records(), at("state/planted")).unwrap();
        guard.begin().unwrap();
        private.empty().unwrap();
        let settle = |guard: &mut Guard| {
            let found = guard.settle().unwrap();
            assert_eq!((found.put_back, found.problems), (vec![], vec![]));
            found.offences.into_iter().map(|offence| offence.path).collect::<Vec<_>>()
        };
        // Others' files may come and go.
        fs::write(at("home/another"), "").unwrap();
        assert_eq!(settle(&mut guard), Vec::<PathBuf>::new());
        fs::write(at("home/empty"), "evil").unwrap();
        fs::write(at("real/config"), "evil").unwrap();
        for sub in ["home/.aws", "home/certs.d"] {
            fs::create_dir(at(sub)).unwrap();
        }
        fs::write(at("home/.aws/config"), "evil").unwrap();
        fs::write(at("home/certs.d/ca.crt"), "evil").unwrap();
        let offences = settle(&mut guard);
        let expected = ["home/empty", "real/config", "home/.aws/config", "home/certs.d"].map(at);
        assert_eq!(offences, expected);
        assert!(!at("home/.aws/config").exists() && !at("home/certs.d").exists());
        assert_eq!(
            ["home/empty", "home/link"].map(|name| fs::read_to_string(at(name)).unwrap()),
            ["", "own"]
        );
        // The file that was emptied is not the guard's: nobody refills it too early.
        assert_eq!(fs::read_to_string(at("home/credentials")).unwrap(), "");
        fs::rename(at("home/another"), at("home/credentials")).unwrap();
        assert_eq!(settle(&mut guard), [at("home/credentials")]);
    }

    #[test]
    fn everything_is_made_anew_when_nothing_is_left() {
        let mut place = Place::new();
        fs::remove_dir_all(place.at("own")).unwrap();
        assert!(place.settle().1.len() > 5);
        assert_eq!(fs::read_to_string(place.at("own/git/git")).unwrap(), "git");
        assert_eq!(place.settle(), (vec![], vec![]));
    }
}
