//! Rename-swap: a stage's top-level entries take the place of the container's own in `/`, and give it back.
//!
//! Mount points are never moved: what is mounted in `/` stays, and directories that hold mounts and cannot be moved
//! whole (directories of a lower overlay layer cannot) stay as residual directories whose other entries are moved. What
//! of the stage's cannot be shown because a mount is in its place stays in the stage's tree.
//!
//! This is the container's own file system and not an image's: paths are of this machine, nobody else changes them
//! meanwhile, and renames never follow links.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::journal::{Begin, Journal, Line, Look, Residual};

/// Top-level names of kiln's own image.
const OWN: [&str; 2] = ["kiln", "busybox"];

/// Mount points of every container, where nobody expects a stage's files to be seen.
const USUAL: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

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
    /// Mounted files that have other content than their own, and where that is.
    overwritten: Vec<(PathBuf, PathBuf)>,
    /// All of the container's entries are away.
    away: bool,
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
        let mut kept: Vec<OsString> = OWN.map(OsString::from).to_vec();
        kept.extend(root_name);
        let park = state_dir.join("park");
        let lent = lent.into_iter().map(|(source, path)| (source.into(), path.into())).collect();
        let begin = Begin { root: root.to_path_buf(), park, kept, lent };
        let mut journal = Journal::create(state_dir)?;
        journal.write(&Line::Begin(begin.clone()))?;
        Ok(Self { overwrite, ..Self::with(journal, begin)? })
    }

    /// Puts right what a swap that was cut short left behind; `None` if there was none.
    pub(super) fn recover(state_dir: &Path) -> io::Result<Option<PathBuf>> {
        let Some((journal, lines)) = Journal::take_over(state_dir)? else { return Ok(None) };
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
                Line::Overwritten(path, saved) => swap.overwritten.push((path.into(), saved.into())),
                Line::Away => swap.away = true,
                Line::Returning => swap.away = false,
                Line::Begin(_) => {}
            }
        }
        let lent = swap.begin.lent.clone();
        swap.leave()?;
        for (source, path) in lent {
            let at = root.join(path);
            if at.exists() && !Path::new(&source).exists() {
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
            overwritten: Vec::new(),
            away: false,
        })
    }

    /// Moves the container's entries away and the stage's into `/`; returns what of the stage's is hidden.
    pub(super) fn enter(&mut self) -> io::Result<Vec<PathBuf>> {
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
        set_look(slash, &root_look)?;
        for (path, content) in std::mem::take(&mut self.overwrite) {
            if self.mounts.contains(&path) && self.overwrite_one(&path, &content).is_err() {
                self.hidden.push(path);
            }
        }
        Ok(std::mem::take(&mut self.hidden))
    }

    fn overwrite_one(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let saved = self.begin.park.with_file_name(format!("saved-{}", self.overwritten.len()));
        std::fs::copy(path, &saved)?;
        self.journal.write(&Line::Overwritten(path.into(), saved.clone().into()))?;
        self.overwritten.push((path.to_path_buf(), saved));
        std::fs::write(path, content)
    }

    /// Moves the stage's entries back into its tree and the container's back into `/`.
    pub(super) fn leave(mut self) -> io::Result<()> {
        let slash = Path::new("/");
        for (path, saved) in &self.overwritten {
            if saved.exists() {
                std::fs::write(path, std::fs::read(saved)?).map_err(|error| at(path, error))?;
                std::fs::remove_file(saved)?;
            }
        }
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
        self.journal.finish()
    }

    /// Moves what is in the container's directory `from` to `to`. `first` is for the container's own entries: a
    /// directory that cannot be moved becomes residual.
    fn take(&mut self, from: &Path, to: &Path, first: bool) -> io::Result<()> {
        for name in names(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            if self.stays(&source) {
                continue;
            }
            if self.residual.contains_key(&source) {
                self.take_residual(&source, &target, first)?;
                continue;
            }
            match rename(&source, &target) {
                Ok(()) => {}
                Err(Errno::XDEV | Errno::BUSY) if first && source.is_dir() && !source.is_symlink() => {
                    self.note_residual(&source)?;
                    self.take_residual(&source, &target, first)?;
                }
                // Something was mounted there a moment ago.
                Err(Errno::BUSY) => {}
                // The stage's own directory of that name waits with what could not be shown.
                Err(Errno::EXIST) if source.is_dir() && target.is_dir() => {
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
            set_look(to, &look)?;
        }
        Ok(())
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
        for name in names(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            if self.stays(&target) {
                self.note_hidden(&source, &target)?;
                continue;
            }
            match rename(&source, &target) {
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

    fn note_residual(&mut self, path: &Path) -> io::Result<()> {
        let look = look(path)?;
        self.journal.write(&Line::Residual(Residual { path: path.to_path_buf(), look }))?;
        self.residual.insert(path.to_path_buf(), look);
        Ok(())
    }

    fn note_hidden(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let usual = USUAL.iter().any(|usual| Path::new(usual) == target);
        let empty = is_directory(source) && names(source)?.is_empty();
        if !usual && !empty {
            self.hidden.push(target.to_path_buf());
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
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

fn look(path: &Path) -> io::Result<Look> {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| at(path, error))?;
    Ok(Look {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_seconds: metadata.mtime(),
        mtime_nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    })
}

fn set_look(path: &Path, to: &Look) -> io::Result<()> {
    let set = || -> io::Result<()> {
        let now = look(path)?;
        if (now.uid, now.gid) != (to.uid, to.gid) {
            lchown(path, Some(to.uid), Some(to.gid))?;
        }
        if now.mode != to.mode {
            std::fs::set_permissions(path, PermissionsExt::from_mode(to.mode))?;
        }
        let nanoseconds = Duration::from_nanos(u64::from(to.mtime_nanoseconds));
        let seconds = Duration::from_secs(to.mtime_seconds.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        let whole =
            if to.mtime_seconds < 0 { epoch.checked_sub(seconds) } else { epoch.checked_add(seconds) };
        match whole.and_then(|whole| whole.checked_add(nanoseconds)) {
            Some(mtime) => std::fs::File::open(path)?.set_modified(mtime),
            None => Ok(()),
        }
    };
    set().map_err(|error| at(path, error))
}

/// Returns every mount point but `/` (proc_pid_mountinfo(5)).
fn mount_points() -> io::Result<BTreeSet<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let target =
        |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(|field| PathBuf::from(unescape(field)));
    Ok(text.split(|byte| *byte == b'\n').filter_map(target).filter(|path| path != Path::new("/")).collect())
}

/// Undoes the octal escapes (`\040`) of mountinfo.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

fn named(path: &Path, errno: Errno) -> io::Error {
    at(path, errno.into())
}

/// Adds the path to an error.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\134c"), OsString::from("/a b\\c"));
        assert_eq!(unescape(b"/plain\\"), OsString::from("/plain\\"));
    }

    #[test]
    fn the_proc_mount_is_known() {
        assert!(mount_points().unwrap().contains(Path::new("/proc")));
    }
}
