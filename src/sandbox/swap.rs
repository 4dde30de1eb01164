//! Rename-swap: a stage's top-level entries take the place of the container's own in `/`, and give it back.
//!
//! Mount points are never moved: what is mounted in `/` stays. A directory that cannot be moved whole (one of a lower
//! overlay layer cannot) is emptied into a new one and removed; if it holds mounts it stays as a residual directory.
//! What of the stage's cannot be shown because a mount is in its place stays in the stage's tree.
//!
//! This is the container's own file system and not an image's: paths are of this machine, nobody else changes them
//! meanwhile, and renames never follow links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::SandboxError;
use super::journal::{Begin, Journal, Line, Residual, is_straight};
use super::laid::{self, Laying, Part};
use super::look::{Look, at, copy_attributes, look, set_look};
use super::mounting::mount_points;
use super::reap;
use super::volumes::{self, Aside, Laid, Noted, VolumeOrder, directory_of};
use super::wire::Failure;
use crate::tree::RootDir;

/// The directory of kiln's own debug image whose shell runs the job: kept, unless the stage has one.
const SHELL: &str = "busybox";

/// Mount points of every container, where nobody expects a stage's files to be seen.
pub(super) const USUAL: [&str; 6] =
    ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// A swap under way.
#[derive(Debug)]
pub(super) struct Swap {
    journal: Journal,
    begin: Begin,
    residual: BTreeMap<PathBuf, Look>,
    mounts: BTreeSet<PathBuf>,
    /// Paths of the stage that a mount hides.
    hidden: Vec<PathBuf>,
    /// Content that mounted files are to have during the step.
    overwrite: Vec<(PathBuf, Vec<u8>)>,
    /// What was laid into mounted file systems.
    laid: Vec<(PathBuf, Part)>,
    /// Where volumes are mounted that show the stage's files.
    showing: BTreeSet<PathBuf>,
    volumes: Vec<Shown>,
    /// The volumes as they were before the step.
    noted: Noted,
    /// The stage's entries in their place, as they were before the step; nothing where the file system's clock does not tell.
    placed: BTreeMap<PathBuf, Stamp>,
    /// Those of them, relative to the stage's root, that are back and were not touched.
    still: Vec<PathBuf>,
    /// Files and directories of kiln's own, and which inodes they are.
    own: Vec<(PathBuf, (u64, u64))>,
    /// All of the container's entries are away.
    away: bool,
}

/// A volume that shows the stage's files.
#[derive(Debug)]
struct Shown {
    aside: Aside,
    /// What it shows; not known to who takes over from another process.
    laid: Option<Laid>,
    /// Its own entries are all aside.
    is_away: bool,
    /// What the stage had in it is gone.
    is_returning: bool,
    has_twins: bool,
}

impl Swap {
    /// Begins a journal in `state_dir` for swapping `root` in; `lent` directories are in it already. Files in
    /// `overwrite` have that content during the step, if they are mounts and so cannot be replaced.
    pub(super) fn new(
        root: &Path,
        state_dir: &Path,
        lent: Vec<(PathBuf, PathBuf)>,
        overwrite: Vec<(PathBuf, Vec<u8>)>,
    ) -> io::Result<Self> {
        let own = |path: &Path| path.components().nth(1).map(|name| name.as_os_str().to_owned());
        let (root_name, state_name) = (own(root), own(state_dir));
        if root_name.is_none() || root_name != state_name {
            let text = format!(
                "`{}` and `{}` are not in the same directory of `/`",
                root.display(),
                state_dir.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut kept: Vec<OsString> = root_name.into_iter().collect();
        if let Some(name) = kept.iter().find(|name| root.join(name).symlink_metadata().is_ok()) {
            let text = format!(
                "the image has a `/{}` of its own, and that is where kiln's own files are: keep those in a top-level \
                 directory that no image has, by `--root /kiln-store`, say",
                name.to_string_lossy()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        if root.join(SHELL).symlink_metadata().is_err() {
            kept.push(SHELL.into());
        }
        let park = state_dir.join("park");
        let lent = lent.into_iter().map(|(source, path)| (source.into(), path.into())).collect();
        let begin = Begin { root: root.to_path_buf(), park, kept, started: reap::started()?, lent };
        let mut journal = Journal::create(state_dir)?;
        journal.write(&Line::Begin(begin.clone()))?;
        let own = journal.path().ancestors().chain(root.ancestors());
        let own = own.filter(|path| *path != Path::new("/"));
        let own = own.map(|path| Ok((path.to_path_buf(), inode(path)?))).collect::<io::Result<_>>()?;
        Ok(Self { overwrite, own, ..Self::with(journal, begin)? })
    }

    /// Puts right what a swap that was cut short left behind; `None` if there was none, else the stage. First `end` is to
    /// end what is left of the step, which began at the time it is told: nothing of it shall go on in what is put back.
    pub(super) fn recover(
        state_dir: &Path,
        end: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<Option<PathBuf>> {
        let Some((journal, lines)) = Journal::take_over(state_dir)? else {
            return Ok(None);
        };
        let mut lines = lines.into_iter();
        let Some(Line::Begin(begin)) = lines.next() else {
            journal.finish()?;
            return Ok(None);
        };
        let root = begin.root.clone();
        let mut swap = Self::with(journal, begin)?;
        for line in lines {
            match line {
                Line::Residual(residual) => {
                    swap.residual.insert(residual.path, residual.look);
                }
                Line::Vacated(path) => drop(swap.residual.remove(Path::new(&path))),
                Line::Laid(path) => swap.laid.push((path.into(), Part::Item)),
                Line::Away => swap.away = true,
                Line::Returning => swap.away = false,
                Line::Volume(note) => {
                    swap.showing.insert(note.point.clone());
                    let aside = Aside::take_over(note)?;
                    swap.volumes.push(Shown::new(aside, false));
                }
                Line::VolumeAway(point) => swap.shown(&point).for_each(|shown| shown.is_away = true),
                Line::VolumeReturning(point) => {
                    swap.shown(&point).for_each(|shown| shown.is_returning = true);
                }
                Line::VolumeBack(point) => {
                    swap.volumes.retain(|shown| shown.aside.point() != point.as_os_str())
                }
                Line::Begin(_) => {}
            }
        }
        swap.forget_laid_in_volumes();
        end(swap.begin.started)?;
        let lent = swap.begin.lent.clone();
        swap.leave().map_err(|failure| io::Error::other(SandboxError::from(failure).to_string()))?;
        for (source, path) in lent {
            let at = root.join(path);
            if at.exists() && !Path::new(&source).exists() && is_straight(&at, &root) {
                std::fs::rename(at, source)?;
            }
        }
        Ok(Some(root))
    }

    fn with(journal: Journal, begin: Begin) -> io::Result<Self> {
        Ok(Self {
            journal,
            begin,
            residual: BTreeMap::new(),
            mounts: mount_points()?,
            hidden: Vec::new(),
            overwrite: Vec::new(),
            laid: Vec::new(),
            showing: BTreeSet::new(),
            volumes: Vec::new(),
            noted: Noted::default(),
            placed: BTreeMap::new(),
            still: Vec::new(),
            own: Vec::new(),
            away: false,
        })
    }

    fn shown(&mut self, point: &OsStr) -> impl Iterator<Item = &mut Shown> {
        self.volumes.iter_mut().filter(move |shown| shown.aside.point() == Path::new(point))
    }

    /// Moves the container's entries away and the stage's into `/`; returns what of the stage's is hidden. What is
    /// mounted at `volumes` will show the stage's files.
    pub(super) fn enter(&mut self, volumes: BTreeSet<PathBuf>) -> io::Result<Vec<PathBuf>> {
        self.showing = volumes;
        let slash = Path::new("/");
        let park = self.begin.park.clone();
        std::fs::create_dir_all(&park)?;
        self.note_residual(slash)?;
        self.take(slash, &park, true)?;
        self.journal.write(&Line::Away)?;
        self.away = true;
        let root = self.begin.root.clone();
        let root_look = look(&root)?;
        self.give(&root, slash, false)?;
        if !tells_every_change(&root)? {
            self.placed.clear();
        }
        set_look(slash, &root_look)?;
        for (path, content) in std::mem::take(&mut self.overwrite) {
            // Its own content comes back with all else that stays in its place.
            if self.mounts.contains(&path) && std::fs::write(&path, &content).is_err() {
                self.hidden.push(path);
            }
        }
        Ok(std::mem::take(&mut self.hidden))
    }

    /// Lays out what the step is to see in mounted file systems.
    pub(super) fn lay(&mut self, laying: &Laying) -> Result<(), Failure> {
        let Self { journal, laid, .. } = self;
        laying.lay(&mut |path, part| {
            laid.push((path.to_path_buf(), part));
            journal.write(&Line::Laid(path.into()))
        })?;
        for Shown { aside, laid: shown, .. } in &mut self.volumes {
            let Some(shown) = shown else { continue };
            let items = self.laid.iter().filter(|(_, part)| *part == Part::Item);
            let covered =
                items.filter_map(|(path, _)| Some(path.strip_prefix(aside.point()).ok()?.to_path_buf()));
            shown
                .note_lent(aside, covered.collect())
                .map_err(|error| volume_failure(aside.point(), &error))?;
        }
        Ok(())
    }

    /// Has the volumes show the stage's files.
    pub(super) fn show(&mut self, orders: &[VolumeOrder]) -> Result<(), Failure> {
        let failed = |error| Failure::setup("put a volume's entries aside", error);
        let stage = RootDir::open(&self.begin.root).map_err(failed)?;
        let mut places = Vec::new();
        for order in orders {
            let point = &order.point;
            let path = directory_of(&stage, point).map_err(|error| volume_failure(point, &error))?;
            for twin in &order.twins {
                let other =
                    directory_of(&stage, Path::new(twin)).map_err(|error| volume_failure(point, &error))?;
                if path.is_some() || other.is_some() {
                    return Err(Failure::Volume { point: point.into(), problem: twin_problem(twin) });
                }
            }
            // One further down may have moved with the directories above it.
            if mount_points().map_err(failed)?.contains(point) {
                self.put_aside(point, !order.twins.is_empty())
                    .map_err(|error| volume_failure(point, &error))?;
                places.push(path);
            }
        }
        let mounts = mount_points().map_err(failed)?;
        for (shown, path) in self.volumes.iter_mut().zip(places) {
            let point = shown.aside.point();
            let inner = mounts.iter().filter_map(|mount| mount.strip_prefix(point).ok());
            let inner = inner.filter(|path| !path.as_os_str().is_empty()).map(Path::to_path_buf).collect();
            let laid = Laid::lay(&stage, &shown.aside, path, inner);
            shown.laid = Some(laid.map_err(|error| volume_failure(point, &error))?);
        }
        Ok(())
    }

    fn state_dir(&self) -> PathBuf {
        self.begin.park.parent().unwrap_or(&self.begin.park).to_path_buf()
    }

    /// Notes a volume that is about to move with the directories above it.
    pub(super) fn note(&mut self, point: &Path) -> io::Result<()> {
        let state_dir = self.state_dir();
        self.noted.add(&state_dir, point, RootDir::open(point)?)
    }

    /// Puts right what the step did to the volumes, before anything is moved back: for who is left when kiln is not. What the
    /// stage has there goes first, it may be what fills them.
    pub(super) fn settle_volumes(&mut self) -> Result<(), Failure> {
        let failed = |error| Failure::setup("put the volumes right", error);
        self.forget_laid_in_volumes();
        let dropped = self.drop_stage().map_err(failed);
        for Shown { aside, .. } in self.volumes.iter().filter(|shown| shown.is_away) {
            // The step may have removed the directory itself: then all of it is missing.
            let waiting = aside.waiting_anew().map_err(failed)?;
            self.noted.wait_in(aside.point(), waiting);
        }
        let unsettled = self.noted.settle();
        volumes::keep_unsettled(&self.state_dir(), &unsettled).map_err(failed)?;
        let Some(first) = unsettled.first() else { return dropped };
        Err(volume_failure(first.point(), &io::Error::other("it is not as it was before the step")))
    }

    /// What was laid into a volume goes with all that the stage has there; later it is the volume's own.
    fn forget_laid_in_volumes(&mut self) {
        let Self { laid, showing, .. } = self;
        laid.retain(|(path, _)| !showing.iter().any(|point| path.starts_with(point)));
    }

    /// Removes what the stage has in the volumes.
    fn drop_stage(&mut self) -> io::Result<()> {
        let Self { volumes, mounts, journal, .. } = self;
        let is_mount = |path: &Path| mounts.contains(path);
        for shown in volumes.iter_mut().rev().filter(|shown| !shown.is_returning) {
            shown.aside.drop_stage(shown.is_away, &is_mount)?;
            journal.write(&Line::VolumeReturning(shown.aside.point().into()))?;
            shown.is_returning = true;
        }
        Ok(())
    }

    fn put_aside(&mut self, point: &Path, has_twins: bool) -> io::Result<()> {
        let aside = Aside::prepare(point)?;
        self.journal.write(&Line::Volume(aside.note().clone()))?;
        self.volumes.push(Shown::new(aside, has_twins));
        let Self { volumes, mounts, journal, .. } = self;
        let Some(shown) = volumes.last_mut() else { return Ok(()) };
        shown.aside.take(&|path| mounts.contains(path))?;
        journal.write(&Line::VolumeAway(point.into()))?;
        shown.is_away = true;
        let waiting = shown.aside.waiting()?;
        let state_dir = self.state_dir();
        self.noted.add(&state_dir, point, waiting)
    }

    /// Takes what the step did in the volumes back into the stage's tree.
    fn take_back(&self) -> Result<(), Failure> {
        let failed = |error| Failure::setup("take back what the step did in the volumes", error);
        let stage = RootDir::open(&self.begin.root).map_err(failed)?;
        // Where it is gone already nobody takes anything.
        for Shown { aside, laid, has_twins, .. } in self.volumes.iter().filter(|shown| !shown.is_returning) {
            let Some(laid) = laid else { continue };
            if laid.take_back(&stage, aside).map_err(failed)? && *has_twins {
                let text = "the step changed files in it, and it is mounted at several places";
                return Err(volume_failure(aside.point(), &io::Error::other(text)));
            }
        }
        Ok(())
    }

    /// Has the volumes as they were before.
    fn give_back_volumes(&mut self) -> io::Result<()> {
        self.drop_stage()?;
        while let Some(shown) = self.volumes.pop() {
            let point = shown.aside.point().to_path_buf();
            shown.aside.give_back()?;
            self.journal.write(&Line::VolumeBack(point.into()))?;
        }
        Ok(())
    }

    /// Moves the stage's entries back into its tree and the container's back into `/`. Returns which of the stage's were moved
    /// there and back and not touched otherwise. If the step has removed or replaced anything of kiln's own, that is the error:
    /// nothing can be relied on.
    pub(super) fn leave(self) -> Result<Vec<PathBuf>, Failure> {
        let gone = self.own.iter().find(|(path, known)| inode(path).ok() != Some(*known));
        let Some((gone, _)) = gone.cloned() else { return self.put_back() };
        // As far as it still goes, whatever comes of it: the step is to blame, and not what follows.
        let _ = std::fs::create_dir_all(&self.begin.root);
        let _ = self.put_back();
        Err(Failure::OwnFiles { path: gone.to_string_lossy().into_owned() })
    }

    fn put_back(mut self) -> Result<Vec<PathBuf>, Failure> {
        let failed = |error| Failure::setup("put the container's files back", error);
        // Whatever became of what the step did, all that is the container's goes back.
        let taken = laid::remove(&self.laid).map_err(failed).and_then(|()| self.take_back());
        self.put_back_files().and_then(|()| self.journal.finish()).map_err(failed)?;
        taken.map(|()| self.still)
    }

    fn put_back_files(&mut self) -> io::Result<()> {
        let slash = Path::new("/");
        let volumes = self.give_back_volumes();
        if self.away {
            let root = self.begin.root.clone();
            let after = look(slash)?;
            self.take(slash, &root, false)?;
            set_look(&root, &after)?;
            self.journal.write(&Line::Returning)?;
        }
        let park = self.begin.park.clone();
        if park.exists() {
            self.give(&park, slash, true)?;
            std::fs::remove_dir(&park)?;
        }
        for (path, look) in self.residual.iter().rev() {
            set_look(path, look)?;
        }
        volumes
    }

    /// Moves what is in the container's directory `from` to `to`. `first` is for the container's own entries: a
    /// directory that cannot be moved becomes residual.
    fn take(&mut self, from: &Path, to: &Path, first: bool) -> io::Result<()> {
        let between = Between::open(from, to)?;
        for name in names(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            if self.stays(&source) {
                continue;
            }
            if self.residual.contains_key(&source) && is_directory(&source) {
                self.take_residual(&source, &target, first)?;
                continue;
            }
            let is_still = self.is_still(&source);
            match between.rename(&name) {
                Ok(()) => {
                    let path = target.strip_prefix(&self.begin.root).ok().filter(|_| is_still);
                    self.still.extend(path.map(Path::to_path_buf));
                }
                Err(Errno::XDEV | Errno::BUSY) if first && is_directory(&source) => {
                    self.note_residual(&source)?;
                    self.take_residual(&source, &target, first)?;
                    self.vacate(&source)?;
                }
                // Something was mounted there a moment ago.
                Err(Errno::BUSY) => {}
                // The stage's own directory of that name waits with what could not be shown.
                Err(Errno::EXIST) if is_directory(&source) && is_directory(&target) => {
                    self.take_residual(&source, &target, first)?
                }
                Err(errno) => return Err(named(&source, errno)),
            }
        }
        Ok(())
    }

    /// Moves the entries of a directory that stays itself; `to` is made when there is something to put into it.
    fn take_residual(&mut self, from: &Path, to: &Path, first: bool) -> io::Result<()> {
        let look = look(from)?;
        let made = !to.exists() && (first || self.has_movable(from)?);
        if made {
            std::fs::create_dir(to).map_err(|error| at(to, error))?;
        }
        if to.exists() {
            self.take(from, to, first)?;
            if made {
                copy_attributes(from, to)?;
            }
            set_look(to, &look)?;
        }
        Ok(())
    }

    /// Removes a directory of the container that could not be moved, now that what was in it is away: the stage's
    /// own takes its place, and a step can do with that whatever it likes. One that holds mounts stays.
    fn vacate(&mut self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir(path) {
            Ok(()) => {
                self.residual.remove(path);
                self.journal.write(&Line::Vacated(path.into()))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) =>
            {
                Ok(())
            }
            Err(error) => Err(at(path, error)),
        }
    }

    fn has_movable(&self, directory: &Path) -> io::Result<bool> {
        for name in names(directory)? {
            let path = directory.join(name);
            if self.stays(&path) {
                continue;
            }
            if !self.residual.contains_key(&path) || self.has_movable(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves what is in `from` into the container's directory `to`. `returning` is for the container's own entries:
    /// nothing may be in their way, and emptied directories are removed.
    fn give(&mut self, from: &Path, to: &Path, returning: bool) -> io::Result<()> {
        let between = Between::open(from, to)?;
        for name in names(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            if self.stays(&target) {
                self.note_hidden(&source, &target)?;
                continue;
            }
            match between.rename(&name) {
                Ok(()) if !returning => drop(self.placed.insert(target.clone(), stamp(&target)?)),
                Ok(()) => {}
                Err(Errno::EXIST) if is_directory(&source) && is_directory(&target) => {
                    let look = look(&source)?;
                    self.give(&source, &target, returning)?;
                    if returning {
                        std::fs::remove_dir(&source).map_err(|error| at(&source, error))?;
                    } else {
                        set_look(&target, &look)?;
                    }
                }
                Err(Errno::EXIST | Errno::BUSY) if !returning => self.note_hidden(&source, &target)?,
                Err(errno) => return Err(named(&source, errno)),
            }
        }
        Ok(())
    }

    /// Tells whether an entry of the container is never moved.
    fn stays(&self, path: &Path) -> bool {
        let top = path.parent() == Some(Path::new("/"));
        let own = top && path.file_name().is_some_and(|name| self.begin.kept.iter().any(|kept| kept == name));
        own || self.mounts.contains(path)
    }

    /// Tells whether an entry of the stage's is as it was when it was put into its place.
    fn is_still(&self, path: &Path) -> bool {
        self.placed.get(path).is_some_and(|placed| stamp(path).is_ok_and(|now| now == *placed))
    }

    fn note_residual(&mut self, path: &Path) -> io::Result<()> {
        let look = look(path)?;
        self.journal.write(&Line::Residual(Residual { path: path.to_path_buf(), look }))?;
        self.residual.insert(path.to_path_buf(), look);
        Ok(())
    }

    fn note_hidden(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let usual = USUAL.iter().any(|usual| Path::new(usual) == target);
        let empty = is_directory(source) && names(source)?.is_empty();
        if !usual && !empty && !self.showing.contains(target) {
            self.hidden.push(target.to_path_buf());
        }
        Ok(())
    }
}

impl Shown {
    fn new(aside: Aside, has_twins: bool) -> Self {
        Self { aside, laid: None, is_away: false, is_returning: false, has_twins }
    }
}

fn volume_failure(point: &Path, error: &io::Error) -> Failure {
    Failure::Volume { point: point.into(), problem: error.to_string() }
}

fn twin_problem(twin: &OsStr) -> String {
    format!("the same is mounted at `{}`, and the image has files there", Path::new(twin).display())
}

/// Two directories between which entries are moved: looking up the paths each time takes as long as that.
struct Between {
    from: OwnedFd,
    to: OwnedFd,
}

impl Between {
    fn open(from: &Path, to: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| named(path, errno))
        };
        Ok(Self { from: open(from)?, to: open(to)? })
    }

    fn rename(&self, name: &OsStr) -> Result<(), Errno> {
        renameat_with(&self.from, name, &self.to, name, RenameFlags::NOREPLACE)
    }
}

/// The inode at a path, and when it was last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    ctime: (i64, i64),
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| at(path, error))?;
    let ctime = (metadata.ctime(), metadata.ctime_nsec());
    Ok(Stamp { inode: (metadata.dev(), metadata.ino()), ctime })
}

/// Tells whether an inode of this file system that was looked at has another ctime after the next change, however soon that
/// comes: so since Linux 6.13 on the usual ones. Elsewhere ctime is no later than the clock that moves with the timer.
pub(super) fn tells_every_change(directory: &Path) -> io::Result<bool> {
    let touch = || {
        let metadata = std::fs::symlink_metadata(directory)?;
        std::fs::set_permissions(directory, metadata.permissions())?;
        stamp(directory)
    };
    touch().map_err(|error| at(directory, error))?;
    let second = touch()?;
    let coarse = clock_gettime(ClockId::RealtimeCoarse);
    Ok(second.ctime > (coarse.tv_sec, coarse.tv_nsec))
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| at(path, error))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(directory).map_err(|error| at(directory, error))?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn named(path: &Path, errno: Errno) -> io::Error {
    at(path, errno.into())
}
