//! The directories that entries go into: found, made, or put in the place of something else.
//!
//! Paths are resolved component by component below the root. What a component that is no directory means depends on
//! who left it there:
//!
//! * a link that this very archive made is followed inside the root, as every unpacker does;
//! * whatever an *older* layer left is replaced by a directory. A layer that is unpacked by itself, as an overlay's
//!   lower directory, cannot see the older one, and its directory would hide it: so both ways have one result;
//! * for a user's archive (`ADD`), links are followed inside the root, whoever made them.
//!
//! The directory found last stays open: archives list the entries of a directory together.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::apply::hostile;
use super::names::opaque_attribute;
use super::place::{self, Target};
use super::{LayerError, Owners, Whiteouts};
use crate::tree::{Device, FileKind, RootDir, Timestamp, Way};

/// As many as the kernel follows (`path_resolution(7)`).
const LINK_LIMIT: usize = 40;

/// A short name makes as many directories as it has slashes, and each of their paths is remembered. Layers that list none
/// of their directories have a few megabytes.
const IMPLIED_LIMIT_BYTES: usize = 16 << 20;

const WHITEOUT_DEVICE: Device = Device { major: 0, minor: 0 };

/// The tree as this archive leaves it so far.
pub(super) struct Parents<'a> {
    root: &'a RootDir,
    whiteouts: Whiteouts,
    owners: Owners,
    /// The directory found last, by the path it was asked for.
    last: Option<(PathBuf, Parent)>,
    /// What this archive wrote, with all directories above; only where it matters what is older.
    written: HashSet<PathBuf>,
    /// Modification times to set when all is done, since making entries changes them.
    times: BTreeMap<PathBuf, Timestamp>,
    /// Directories made because something is in them, as long as no entry of their own has come.
    implied: BTreeSet<PathBuf>,
    /// How many bytes all paths have that were ever in `implied`.
    implied_bytes: usize,
}

/// An open directory and its path without links.
#[derive(Clone)]
pub(super) struct Parent {
    pub(super) path: Rc<Path>,
    pub(super) fd: Rc<OwnedFd>,
}

/// What a path led to on the way.
enum Step {
    Directory(OwnedFd),
    Link(PathBuf),
    Other(Option<FileKind>),
}

impl<'a> Parents<'a> {
    pub(super) fn new(root: &'a RootDir, whiteouts: Whiteouts, owners: Owners) -> Self {
        Self {
            root,
            whiteouts,
            owners,
            last: None,
            written: HashSet::new(),
            times: BTreeMap::new(),
            implied: BTreeSet::new(),
            implied_bytes: 0,
        }
    }

    /// Finds or makes the directory at `path`. `entry` is for messages.
    pub(super) fn find(&mut self, path: &Path, entry: &Path) -> Result<Parent, LayerError> {
        if let Some((_, found)) = self.last.as_ref().filter(|(asked, _)| asked == path) {
            return Ok(found.clone());
        }
        let (canonical, fd) = match self.find_quickly(path) {
            Some(fd) => (path.to_owned(), fd),
            None => self.find_by_step(path, entry)?,
        };
        self.note_change(&canonical, &fd)?;
        let found = Parent { path: Rc::from(canonical), fd: Rc::new(fd) };
        self.last = Some((path.to_owned(), found.clone()));
        Ok(found)
    }

    /// Asks the kernel for a directory that is there, with no link on the way. `None` asks for the long way.
    fn find_quickly(&self, path: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve).ok()
    }

    fn find_by_step(&mut self, path: &Path, entry: &Path) -> Result<(PathBuf, OwnedFd), LayerError> {
        let mut pending: VecDeque<OsString> = names(path).map(OsStr::to_owned).collect();
        let mut here = PathBuf::new();
        let mut fd = self.reopen(&here)?;
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                here.pop();
                fd = self.reopen(&here)?;
                continue;
            }
            let path = here.join(&name);
            match self.step(&fd, &name, &path)? {
                Step::Directory(next) => {
                    fd = next;
                    here = path;
                }
                Step::Link(target) => {
                    links += 1;
                    if links > LINK_LIMIT {
                        return Err(apply("unpack", entry, Errno::LOOP.into()));
                    }
                    if target.is_absolute() {
                        here = PathBuf::new();
                        fd = self.reopen(&here)?;
                    }
                    for name in names(&target).rev() {
                        pending.push_front(name.to_owned());
                    }
                }
                Step::Other(found) => {
                    fd = self.make_implied(&fd, &name, &path, found, entry)?;
                    here = path;
                }
            }
        }
        Ok((here, fd))
    }

    fn step(&self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<Step, LayerError> {
        match place::open_dir(dir.as_fd(), name) {
            Ok(fd) => return Ok(Step::Directory(fd)),
            Err(Errno::NOENT) => return Ok(Step::Other(None)),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(apply("open", path, error.into())),
        }
        let look = |source| apply("look at", path, source);
        let found = place::look(dir.as_fd(), name).map_err(look)?;
        if found == Some(FileKind::Symlink) && self.may_follow(path) {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|error| look(error.into()))?;
            return Ok(Step::Link(super::fields::path_of(target.into_bytes())));
        }
        Ok(Step::Other(found))
    }

    fn may_follow(&self, path: &Path) -> bool {
        match self.whiteouts {
            Whiteouts::Apply => self.written.contains(path),
            Whiteouts::Overlay { .. } | Whiteouts::Literal => true,
        }
    }

    /// Makes a directory that no entry has asked for yet.
    fn make_implied(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
        found: Option<FileKind>,
        entry: &Path,
    ) -> Result<OwnedFd, LayerError> {
        let failed = |source| apply("create the directory", path, source);
        let is_whiteout = found == Some(FileKind::CharDevice(WHITEOUT_DEVICE));
        match (found, self.whiteouts) {
            (None, _) => {}
            (Some(_), Whiteouts::Apply) if !self.written.contains(path) => {
                place::unlink(dir.as_fd(), name).map_err(failed)?;
            }
            (Some(_), Whiteouts::Overlay { .. }) if is_whiteout => {
                place::unlink(dir.as_fd(), name).map_err(failed)?;
            }
            (Some(_), _) => return Err(apply("unpack", entry, Errno::NOTDIR.into())),
        }
        self.implied_bytes += path.as_os_str().len();
        if self.implied_bytes > IMPLIED_LIMIT_BYTES {
            let problem = format!(
                "needs more directories that the archive does not list: expected at most {IMPLIED_LIMIT_BYTES} bytes \
                 of their paths in all"
            );
            return Err(hostile(entry, &problem));
        }
        self.note_change(path.parent().unwrap_or(Path::new("")), dir)?;
        place::make_dir(dir.as_fd(), name).map_err(failed)?;
        // What a user's archive does not list belongs to root, whoever the rest belongs to: BuildKit's rule.
        if let (Owners::Set { uid, gid }, true) = (self.owners, self.whiteouts != Whiteouts::Literal) {
            place::set_owner(Target::Named(dir.as_fd(), name), uid, gid).map_err(failed)?;
        }
        place::set_mode(Target::Named(dir.as_fd(), name), 0o755).map_err(failed)?;
        let fd = place::open_dir(dir.as_fd(), name).map_err(|error| failed(error.into()))?;
        if let (true, Whiteouts::Overlay { userxattr }) = (is_whiteout, self.whiteouts) {
            self.set_opaque(path, userxattr)?;
        }
        self.implied.insert(path.to_owned());
        Ok(fd)
    }

    /// Remembers a directory's time before it is changed for the first time.
    fn note_change(&mut self, path: &Path, dir: &OwnedFd) -> Result<(), LayerError> {
        if !self.times.contains_key(path) && !self.implied.contains(path) {
            let mtime = place::mtime_of(dir).map_err(|source| apply("look at", path, source))?;
            self.times.insert(path.to_owned(), mtime);
        }
        Ok(())
    }

    /// Opens a directory by a path that has no links in it.
    fn reopen(&self, path: &Path) -> Result<OwnedFd, LayerError> {
        let failed = |error: Errno| apply("open", path, error.into());
        let mut fd = place::open_dir(self.root.as_fd(), OsStr::new(".")).map_err(failed)?;
        for name in names(path) {
            fd = place::open_dir(fd.as_fd(), name).map_err(failed)?;
        }
        Ok(fd)
    }

    /// Marks a directory, by its path without links, as hiding everything in lower layers.
    pub(super) fn set_opaque(&self, path: &Path, userxattr: bool) -> Result<(), LayerError> {
        self.root
            .set_xattr(path, OsStr::new(opaque_attribute(userxattr)), b"y")
            .map_err(|source| apply("mark as opaque", path, source))
    }

    /// Notes that the archive itself wrote `path` (without links).
    pub(super) fn note_written(&mut self, path: &Path) {
        if self.whiteouts != Whiteouts::Apply {
            return;
        }
        for path in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if !self.written.insert(path.to_owned()) {
                break;
            }
        }
    }

    pub(super) fn is_written(&self, path: &Path) -> bool {
        self.written.contains(path)
    }

    /// Notes a directory's own entry, and the time it is to have.
    pub(super) fn note_directory(&mut self, path: &Path, mtime: Timestamp) {
        self.implied.remove(path);
        self.times.insert(path.to_owned(), mtime);
    }

    /// Removes what is at `path` (without links), a whole tree maybe.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.forget(path);
        self.root.remove_all(path)
    }

    /// Drops what is known of a tree that goes away.
    fn forget(&mut self, path: &Path) {
        self.last = None;
        let known = self.times.range(path.to_owned()..).map(|(known, _)| known);
        let gone: Vec<PathBuf> = known.take_while(|known| known.starts_with(path)).cloned().collect();
        for known in gone {
            self.times.remove(&known);
            self.implied.remove(&known);
        }
    }

    /// Sets the directories' times, and returns those that no entry stands for.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, LayerError> {
        let failed = |path: &Path, source| apply("set the time of", path, source);
        let mut way = Way::from(self.root).map_err(|source| failed(Path::new(""), source))?;
        // Paths come in the order of a walk, so that each is a few steps from the one before, however deep both are.
        for (path, mtime) in &self.times {
            let parent = path.parent().unwrap_or(Path::new(""));
            let name = path.file_name().unwrap_or(OsStr::new("."));
            let set = way.to(parent).and_then(|dir| place::set_mtime(Target::Named(dir, name), *mtime));
            match set {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(path, source)),
            }
        }
        Ok(self.implied.into_iter().collect())
    }
}

/// Returns the components of a path that mean something: names and `..`.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// An error about an entry of the tree.
pub(super) fn apply(action: &'static str, entry: &Path, source: io::Error) -> LayerError {
    LayerError::Apply { action, entry: entry.to_owned(), source }
}
