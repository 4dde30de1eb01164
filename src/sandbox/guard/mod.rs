//! kiln's own files beside a step in place: known before it, looked at after it, put back.
//!
//! Such a step is root where kiln's program lies, and what the job's next command runs. Three kinds of files are kept:
//! those that nobody changes while kiln runs (the program, git, authorities, the shell's directory), of which there is a
//! copy in a file without a name; those that kiln itself writes between steps (tags, records), which it leaves
//! alone while one runs; and what kiln reads or runs by its path, whether something is there or not, with all the rest of the
//! container in kiln's own image, where the job looks for programs and configuration, too. The files of credentials that
//! are empty meanwhile have other rules (`private`). A time of last change cannot be set back, so only what has another
//! is looked into.
//!
//! A changed mode, owner, attribute or time is put back and told of; anything else fails the step. What takes part in the build
//! itself, and is verified whenever it is read, is no business of this.
//!
//! All of it is in files without names, too, of which the keeper and the process that watches over a step hold descriptors:
//! when kiln is killed they do the same in its stead ([`Notes`]).

mod settling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, StatVfsMountFlags, memfd_create};
use serde::{Deserialize, Serialize};
use settling::{Kind, Settling};

use super::Whose;
use super::mounting::mount_points;
use super::private::Record;
use super::wire::{path, paths};
use crate::tree::{FileKind, Metadata, RootDir, Walk, Xattrs};

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
        let settling = Settling { slash: &self.slash, aside: &self.aside, work: &self.files.work };
        settling.settle(Kind::Fixed, &mut self.fixed, &now, &mut found)?;
        let now = self.look(&self.files.names, &self.files)?;
        settling.settle(Kind::Names, &mut self.names, &now, &mut found)?;
        if !found.put_back.is_empty() || !found.offences.is_empty() {
            self.fixed.write_note()?;
        }
        let now = self.look_at_container()?;
        let settling = Settling { slash: &self.slash, aside: &self.aside, work: &self.files.work };
        settling.settle(Kind::Container, &mut self.container, &now, &mut found)?;
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
        let mut found = list(&self.slash, places, files)?;
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

/// The same, whoever is emptied.
fn list(slash: &RootDir, places: &[PathBuf], files: &KilnFiles) -> io::Result<BTreeMap<PathBuf, Metadata>> {
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
