//! The stage's files of a path where a volume is mounted: laid into the volume before the step, and taken back after it.
//!
//! What the step left alone keeps its inode in the stage's tree, so that the search for changes finds exactly the step's.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::look::at;
use super::aside::{self, Aside, RootLook};
use crate::tree::{EntryError, FileKind, Metadata, RootDir, Timestamp, Walk, copy_tree, copy_tree_without};

/// A clock that does not move on for so long stands still.
const CLOCK_PATIENCE: Duration = Duration::from_secs(2);

pub(super) type Entries = BTreeMap<PathBuf, Metadata>;

/// What was laid into a volume.
#[derive(Debug)]
pub(in crate::sandbox) struct Laid {
    /// Where the stage has it, below its root.
    path: PathBuf,
    /// How the volume's root looked to the step.
    shown: RootLook,
    entries: Entries,
    /// What is shown to the step and not the stage's, by its inodes, and where, below the volume's root.
    lent: HashMap<u64, Metadata>,
    covered: Vec<PathBuf>,
    /// What is put aside, as far as it can be moved out with one command, by its inodes.
    aside: HashMap<u64, Metadata>,
    /// Mount points in the volume, below its root.
    mounts: Vec<PathBuf>,
}

/// Returns what is in the stage at `path`; `None` if nothing is.
///
/// Anything but a directory, and a path through links, cannot be shown where a volume is mounted.
pub(in crate::sandbox) fn directory_of(stage: &RootDir, path: &Path) -> io::Result<Option<PathBuf>> {
    let below = path.strip_prefix("/").unwrap_or(path);
    let found = match stage.metadata(below) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        other => Some(other?.kind),
    };
    let text = match found {
        Some(FileKind::Directory) if stage.resolve(below)? == below => return Ok(Some(below.to_path_buf())),
        Some(FileKind::Directory) => "the image's path to it leads through a link".to_owned(),
        Some(kind) => format!("the image has a {kind} there"),
        None => return Ok(None),
    };
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
}

impl Laid {
    /// Lays the stage's files into a volume whose own entries are aside. `mounts` are mount points in it.
    pub(in crate::sandbox) fn lay(
        stage: &RootDir,
        aside: &Aside,
        path: Option<PathBuf>,
        mounts: Vec<PathBuf>,
    ) -> io::Result<Self> {
        let volume = aside.volume();
        // An access control list of the volume's would be inherited.
        RootLook::plain().set(volume, Path::new(""))?;
        if let Some(path) = &path {
            copy_tree_without(stage, path, volume, "", &|below| is_in(below, &mounts))
                .map_err(|error| named(aside.point(), error))?;
        }
        let shown = RootLook::of(volume, Path::new(""))?;
        let path =
            path.unwrap_or_else(|| aside.point().strip_prefix("/").unwrap_or(aside.point()).to_path_buf());
        let entries = entries(volume, &|path| is_not_stages(aside, path, &mounts))?;
        wait_for_clock(volume, &aside.directory(), &entries)?;
        let put_aside = aside.inodes()?;
        Ok(Self { path, shown, entries, lent: HashMap::new(), covered: Vec::new(), aside: put_aside, mounts })
    }

    /// Notes what was put into the volume since at `covered`, which is not the stage's.
    pub(in crate::sandbox) fn note_lent(&mut self, aside: &Aside, covered: Vec<PathBuf>) -> io::Result<()> {
        if covered.is_empty() {
            return Ok(());
        }
        let now = entries(aside.volume(), &|path| is_not_stages(aside, path, &self.mounts))?;
        let lent = now.iter().filter(|(path, metadata)| !metadata.kind.is_dir() && is_in(path, &covered));
        self.lent = lent.map(|(_, metadata)| (metadata.ino, *metadata)).collect();
        self.entries.retain(|path, _| !is_in(path, &covered));
        self.covered = covered;
        Ok(())
    }

    /// Does in the stage's tree what the step did in the volume. Tells whether it did anything.
    pub(in crate::sandbox) fn take_back(&self, stage: &RootDir, aside: &Aside) -> io::Result<bool> {
        let volume = aside.volume();
        let look = RootLook::of(volume, Path::new(""))?;
        let mut now = entries(volume, &|path| is_not_stages(aside, path, &self.mounts))?;
        now.retain(|path, metadata| !is_in(path, &self.covered) && !has_moved(&self.lent, metadata));
        if let Some((path, _)) = now.iter().find(|(_, metadata)| has_moved(&self.aside, metadata)) {
            let text = "the step moved there what was put aside of the volume";
            return Err(at(&aside.point().join(path), io::Error::other(text)));
        }
        let before: Vec<_> = self.entries.iter().map(|(path, metadata)| (path, identity(metadata))).collect();
        let after: Vec<_> = now.iter().map(|(path, metadata)| (path, identity(metadata))).collect();
        if before == after && look == self.shown {
            return Ok(false);
        }
        if !stage.exists(&self.path)? {
            stage.create_dir_all(&self.path, 0o755, &mut |_| {})?;
        }
        let root = stage.subdir(&self.path)?;
        let taking = Taking { laid: self, root: &root, volume, now: &now };
        taking.take().map_err(|error| named(aside.point(), error))?;
        look.set(stage, &self.path)?;
        Ok(true)
    }
}

/// The step's changes on their way into the stage.
struct Taking<'a> {
    laid: &'a Laid,
    /// The stage's directory.
    root: &'a RootDir,
    volume: &'a RootDir,
    now: &'a Entries,
}

impl Taking<'_> {
    fn take(&self) -> io::Result<()> {
        for path in self.laid.entries.keys() {
            if !self.now.contains_key(path) {
                self.root.remove_all(path).map_err(|error| EntryError::wrap(path, error))?;
            }
        }
        // Where the first name of an inode with several is now.
        let mut names: HashMap<u64, &Path> = HashMap::new();
        for (path, metadata) in self.now {
            if !self.is_unchanged(path, metadata) {
                self.entry(path, metadata, &mut names).map_err(|error| EntryError::wrap(path, error))?;
            }
        }
        for (path, metadata) in self.now.iter().rev().filter(|(_, metadata)| metadata.kind.is_dir()) {
            self.dress(path, metadata).map_err(|error| EntryError::wrap(path, error))?;
        }
        Ok(())
    }

    fn is_unchanged(&self, path: &Path, metadata: &Metadata) -> bool {
        self.laid.entries.get(path).is_some_and(|before| identity(before) == identity(metadata))
    }

    fn entry<'p>(
        &self,
        path: &'p Path,
        metadata: &Metadata,
        names: &mut HashMap<u64, &'p Path>,
    ) -> io::Result<()> {
        let there = match self.root.metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other?.kind),
        };
        if metadata.kind.is_dir() {
            if there.is_some_and(FileKind::is_dir) {
                return Ok(());
            }
            self.root.remove_all(path)?;
            return self.root.create_dir(path, 0o700);
        }
        self.root.remove_all(path)?;
        if metadata.nlink > 1 {
            if let Some(first) = names.get(&metadata.ino) {
                return self.root.hard_link(first, path);
            }
            names.insert(metadata.ino, path);
        }
        copy_tree(self.volume, path, self.root, path)
    }

    /// Makes a directory look as in the volume: what was done to its entries here has changed its time.
    fn dress(&self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let there = self.root.metadata(path)?;
        let looks = |of: &Metadata| (of.mode, of.uid, of.gid, of.mtime);
        if self.is_unchanged(path, metadata) && looks(&there) == looks(metadata) {
            return Ok(());
        }
        RootLook::of(self.volume, path)?.set(self.root, path)
    }
}

/// What tells that nothing was done to an entry. A directory's content is told by its own entries.
fn identity(metadata: &Metadata) -> (u64, Timestamp, FileKind) {
    (metadata.ino, metadata.ctime, metadata.kind)
}

/// Tells whether an entry is one of `known`. What a step made anew may have got the inode of something that it removed.
fn has_moved(known: &HashMap<u64, Metadata>, now: &Metadata) -> bool {
    known.get(&now.ino).is_some_and(|was| (was.kind, was.mtime) == (now.kind, now.mtime))
}

fn is_in(path: &Path, places: &[PathBuf]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Lists what is below `root` but for what `is_left_out` accepts.
pub(super) fn entries(root: &RootDir, is_left_out: &dyn Fn(&Path) -> bool) -> io::Result<Entries> {
    let mut entries = Entries::new();
    let mut walk = Walk::new(root, "")?;
    while let Some(entry) = walk.next() {
        let entry = entry?;
        if is_left_out(&entry.path) {
            walk.skip_subtree();
        } else {
            entries.insert(entry.path, entry.metadata);
        }
    }
    Ok(entries)
}

/// Tells whether an entry of a volume is another kiln's that is at work there, or mounted there. A name alone makes nothing kiln's:
/// anybody can give it to a directory.
pub(super) fn is_foreign(volume: &RootDir, path: &Path, mounts: &[PathBuf]) -> bool {
    let is_top = path.components().count() == 1;
    is_top && aside::is_at_work(volume, path.as_os_str()) || is_in(path, mounts)
}

/// The same while the volume shows a stage's files and its own are in `aside`.
fn is_not_stages(aside: &Aside, path: &Path, mounts: &[PathBuf]) -> bool {
    aside.is_own(path.as_os_str()) || is_foreign(aside.volume(), path, mounts)
}

/// Waits until a change would get another time than all there is: kernels with a coarse clock need a moment.
fn wait_for_clock(volume: &RootDir, directory: &Path, entries: &Entries) -> io::Result<()> {
    let Some(latest) = entries.values().map(|metadata| metadata.ctime).max() else { return Ok(()) };
    let sentinel = directory.join("look");
    let begin = Instant::now();
    loop {
        volume.set_mode(&sentinel, 0o600)?;
        if volume.metadata(&sentinel)?.ctime > latest {
            return Ok(());
        }
        if begin.elapsed() > CLOCK_PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the volume's clock stands still"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Adds the volume and the entry below it to an error.
fn named(point: &Path, error: io::Error) -> io::Error {
    match error.downcast::<EntryError>() {
        Ok(EntryError { path, source }) => at(&point.join(path), source),
        Err(error) => at(point, error),
    }
}
