//! Making an index of a tree, the first time and again after a step.
//!
//! An inode's (device, number, ctime) at one path tells that nothing of it was touched. ctime is exact on current
//! kernels, and on those with a coarse clock because a scan does not return before the clock has moved on.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::compare::same_metadata;
use super::fill::{self, thread_count};
use super::index::{Index, compare_paths};
use crate::threads;
use crate::tree::{
    Entry, EntryError, FileKind, Fingerprint, Fingerprints, KnownNames, Metadata, RootDir, Walk,
};

/// The slowest clock tick of any kernel configuration is 10 ms; much more means that the clock stands still.
const CLOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Directories with this many names in their path are the pieces that threads share: of the usual tree there are
/// some hundreds, few of them large.
const PIECE_DEPTH: usize = 3;

/// Scans a tree for the first time, reading all of its files.
pub fn scan(root: &RootDir, exclude: &[PathBuf]) -> io::Result<Index> {
    Index::scan(root, exclude, &Fingerprints::new())
}

impl Index {
    /// Scans a tree for the first time. Files without a `known` fingerprint are read.
    ///
    /// Returns once the file system's clock has moved on, so that no later change can hide in the same tick. Paths in
    /// `exclude` (relative to the root) and what is below them do not exist; mounts are not entered.
    pub fn scan(root: &RootDir, exclude: &[PathBuf], known: &Fingerprints) -> io::Result<Self> {
        let mut index = collect(root, &relative(exclude), None)?;
        for (number, fingerprint) in index.lookup(known) {
            index.set_fingerprint(number, fingerprint);
        }
        fill::fill(&mut index, root, |_| true)?;
        wait_for_clock(root)?;
        Ok(index)
    }

    /// Scans the tree again after a step, when all of the step's processes are gone.
    ///
    /// Reads only files that were touched and look unchanged otherwise. What is excluded is taken to be as it was, and what is
    /// `still` there not to have been changed, though it was touched.
    pub fn rescan(&self, root: &RootDir, exclude: &[PathBuf], still: &[PathBuf]) -> io::Result<Self> {
        let exclude = relative(exclude);
        let mut index = collect(root, &exclude, Some(self))?;
        if !exclude.is_empty() {
            index = index.adopt(self, |path| exclude.iter().any(|excluded| path.starts_with(excluded)))?;
        }
        let still: HashSet<&Path> = still.iter().map(PathBuf::as_path).collect();
        let Comparison { inherited, ambiguous } = index.compare(self, &still);
        for (number, fingerprint) in inherited {
            index.set_fingerprint(number, fingerprint);
        }
        if !ambiguous.is_empty() {
            let mut ambiguous = ambiguous.into_iter().peekable();
            fill::fill(&mut index, root, |number| ambiguous.next_if_eq(&number).is_some())?;
        }
        wait_for_clock(root)?;
        Ok(index)
    }

    /// Reads the files whose fingerprint is not known, which is needed before a further step may change them.
    ///
    /// Without it a file that the next step only touches counts as changed.
    pub fn complete(&mut self, root: &RootDir) -> io::Result<()> {
        fill::fill(self, root, |_| true)
    }

    /// Lists the tree again and returns the first path that is not the inode it was, or was touched in any way, since
    /// this index was made; `None` if there is none.
    ///
    /// Who may do anything but set the clock cannot hide a change: the time of an inode's last change only goes on. The
    /// root directory itself is in no index.
    pub fn first_touched(&self, root: &RootDir, exclude: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        let exclude = relative(exclude);
        let now = collect(root, &exclude, Some(self))?;
        let (mut old, mut new) = (self.cursor(), now.cursor());
        loop {
            if old.path().is_some() && exclude.iter().any(|excluded| old.as_path().starts_with(excluded)) {
                old.advance();
                continue;
            }
            let order = match (old.path(), new.path()) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => compare_paths(old, new),
            };
            if order != Ordering::Equal || !old.metadata().is_untouched(&new.metadata()) {
                let found = if order == Ordering::Greater { &new } else { &old };
                return Ok(Some(found.as_path().to_path_buf()));
            }
            old.advance();
            new.advance();
        }
    }

    fn lookup(&self, known: &Fingerprints) -> Vec<(usize, Fingerprint)> {
        let mut found = Vec::new();
        if known.is_empty() {
            return found;
        }
        let mut cursor = self.cursor();
        while cursor.path().is_some() {
            let metadata = cursor.metadata();
            if metadata.kind == FileKind::File
                && let Some(fingerprint) = known.get(cursor.as_path(), metadata.size_bytes)
            {
                found.push((cursor.number(), fingerprint));
            }
            cursor.advance();
        }
        found
    }

    /// Finds the entries that were not touched since `before` was made, and those that were touched to no visible end.
    fn compare(&self, before: &Self, still: &HashSet<&Path>) -> Comparison {
        let mut comparison = Comparison::default();
        let (mut old, mut new) = (before.cursor(), self.cursor());
        while let (Some(old_path), Some(new_path)) = (old.path(), new.path()) {
            match compare_paths(old_path, new_path) {
                Ordering::Less => old.advance(),
                Ordering::Greater => new.advance(),
                Ordering::Equal => {
                    let (old_metadata, new_metadata) = (old.metadata(), new.metadata());
                    let is_same =
                        |old: &Metadata| old.same_inode(&new_metadata) && still.contains(new.as_path());
                    if old_metadata.is_untouched(&new_metadata) || is_same(&old_metadata) {
                        let inherited = old.fingerprint().map(|fingerprint| (new.number(), fingerprint));
                        comparison.inherited.extend(inherited);
                    } else if same_metadata(&old_metadata, &new_metadata) {
                        comparison.ambiguous.push(new.number());
                    }
                    old.advance();
                    new.advance();
                }
            }
        }
        comparison
    }
}

#[derive(Default)]
struct Comparison {
    inherited: Vec<(usize, Fingerprint)>,
    ambiguous: Vec<usize>,
}

fn relative(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.strip_prefix("/").unwrap_or(path).to_path_buf()).collect()
}

/// Lists the tree on several threads: one walks its upper part and hands out the pieces below. Directories that are as they were
/// `before` are not read.
fn collect(root: &RootDir, exclude: &[PathBuf], before: Option<&Index>) -> io::Result<Index> {
    let directories = before.map(Index::directories).unwrap_or_default();
    let known = |now: &Metadata| before?.names_in(*directories.get(&(now.dev, now.ino))?, now);
    let lister = Lister { root, exclude, known: &known };
    let threads = thread_count();
    if threads == 1 {
        return lister.list(Path::new(""), None);
    }
    let (piece_sender, piece_receiver) = mpsc::channel::<(usize, Entry)>();
    let (list_sender, list_receiver) = mpsc::channel::<(usize, io::Result<Index>)>();
    let piece_receiver = Mutex::new(piece_receiver);
    let work = |lists: mpsc::Sender<_>| {
        loop {
            let piece = piece_receiver.lock().expect("nobody panics while receiving").recv();
            let Ok((number, Entry { path, metadata })) = piece else { return };
            if lists.send((number, lister.list(&path, Some(metadata)))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let lists = list_sender.clone();
            // Without it this thread does more.
            if threads::spawn_in(scope, "scan", move || work(lists)).is_err() {
                break;
            }
        }
        let (trunk, places) = lister.list_trunk(piece_sender)?;
        work(list_sender);
        let mut pieces: Vec<_> = list_receiver.iter().collect();
        pieces.sort_unstable_by_key(|(number, _)| *number);
        join(&trunk, &places, pieces)
    })
}

/// What all threads that list a tree need.
#[derive(Clone, Copy)]
struct Lister<'a> {
    root: &'a RootDir,
    exclude: &'a [PathBuf],
    known: &'a KnownNames<'a>,
}

impl<'a> Lister<'a> {
    /// Lists the upper part of the tree, sends off the directories where it ends, and returns how many entries come
    /// before what is in each of them.
    fn list_trunk(self, pieces: mpsc::Sender<(usize, Entry)>) -> io::Result<(Index, Vec<usize>)> {
        let mut trunk = Index::default();
        let mut places = Vec::new();
        let mut entries = self.entries(Path::new(""), None)?;
        while let Some(entry) = entries.advance()? {
            trunk.push(&entry, 0)?;
            if entries.walk.enters_next() && entry.path.components().count() == PIECE_DEPTH {
                entries.walk.skip_subtree();
                let number = places.len();
                places.push(trunk.len());
                pieces.send((number, entry)).expect("the receiver outlives this call");
            }
        }
        Ok((trunk, places))
    }

    /// Lists what is below one directory, which looks like `metadata`.
    fn list(self, start: &Path, metadata: Option<Metadata>) -> io::Result<Index> {
        let mut index = Index::default();
        let above = start.components().count();
        let whole = |error: io::Error| match error.downcast::<EntryError>() {
            Ok(EntryError { path, source }) => EntryError::wrap(start.join(path), source),
            Err(source) => EntryError::wrap(start, source),
        };
        let mut entries = self.entries(start, metadata).map_err(whole)?;
        while let Some(entry) = entries.advance().map_err(whole)? {
            index.push(&entry, above)?;
        }
        Ok(index)
    }

    fn entries(self, start: &Path, metadata: Option<Metadata>) -> io::Result<Entries<'a>> {
        let below = self.exclude.iter().filter_map(|path| path.strip_prefix(start).ok());
        let walk = Walk::new(self.root, start)?.same_device_only().knowing(self.known, metadata);
        Ok(Entries { walk, exclude: below.map(Path::to_path_buf).collect() })
    }
}

fn join(trunk: &Index, places: &[usize], pieces: Vec<(usize, io::Result<Index>)>) -> io::Result<Index> {
    let mut index = Index::default();
    let mut start = 0;
    for (place, (_, piece)) in places.iter().zip(pieces) {
        index.append(trunk, start..*place)?;
        let piece = piece?;
        index.append(&piece, 0..piece.len())?;
        start = *place;
    }
    index.append(trunk, start..trunk.len())?;
    Ok(index)
}

/// The entries below a directory without what is excluded and without sockets, which no layer can hold.
struct Entries<'a> {
    walk: Walk<'a>,
    /// Relative to that directory.
    exclude: Vec<PathBuf>,
}

impl Entries<'_> {
    fn advance(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(entry) = self.walk.next().transpose()? else { return Ok(None) };
            if self.exclude.contains(&entry.path) {
                self.walk.skip_subtree();
            } else if entry.metadata.kind != FileKind::Socket {
                return Ok(Some(entry));
            }
        }
    }
}

/// Waits until a change made now gets another ctime than everything before.
///
/// Touches nothing but the ctime of the root directory, which is in no index.
fn wait_for_clock(root: &RootDir) -> io::Result<()> {
    let touch = || {
        root.set_mode("", root.metadata("")?.mode)?;
        Ok::<_, io::Error>(root.metadata("")?.ctime)
    };
    let first = touch()?;
    let begin = Instant::now();
    while touch()? == first {
        if begin.elapsed() > CLOCK_PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the file system's clock stands still"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
