//! What a rename-swap has to know to be undone by another process: begun, and how far.
//!
//! One JSON line each, written before what it tells of. Within a phase nothing needs to be noted: a phase moves whatever is
//! still there to move, so doing it again from anywhere finishes it. The kernel's page cache survives the death of
//! a process, which is all this is for: nothing is synced.
//!
//! The file lies where the step was root. So what is read back is believed only as far as a swap of kiln's can have
//! written it: it names the places that such a swap uses, without links, and nothing else is moved, written or removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::look::{Look, at};
use super::mounting::mount_points;
use super::volumes::AsideNote;
use super::wire::path;

/// The journal's name in the state directory.
const NAME: &str = "in-place.journal";

/// No journal is larger: it has a line for each directory that cannot be moved whole.
const MOST_BYTES: u64 = 64 << 20;

/// A swap's parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// The stage's tree.
    #[serde(with = "path")]
    pub(super) root: PathBuf,
    /// Where the container's own entries wait.
    #[serde(with = "path")]
    pub(super) park: PathBuf,
    /// Top-level names that are never moved.
    pub(super) kept: Vec<std::ffi::OsString>,
    /// When the process that swaps was started (`starttime` of proc_pid_stat(5)): the step is younger.
    #[serde(default)]
    pub(super) started: u64,
    /// Directories of the container that are in the stage's tree for now: where they belong, and where they are.
    pub(super) lent: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

/// A directory of the container that could not be moved: its entries were, and it has others during the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Residual {
    #[serde(with = "path")]
    pub(super) path: PathBuf,
    pub(super) look: Look,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Line {
    /// The container's entries begin to be moved away.
    Begin(Begin),
    Residual(Residual),
    /// What could not be moved was removed, when everything in it was away: it was not residual after all.
    Vacated(std::ffi::OsString),
    /// This is about to be laid into a file system that is mounted in the container.
    Laid(std::ffi::OsString),
    /// They are all away; from here on what is in `/` is the stage's.
    Away,
    /// The entries of a volume begin to be put aside.
    Volume(AsideNote),
    /// They all are, in the volume mounted there; what is in it from here on is the stage's.
    VolumeAway(std::ffi::OsString),
    /// What is in the volume mounted there is its own again, as far as it is back.
    VolumeReturning(std::ffi::OsString),
    /// The volume mounted there is as before.
    VolumeBack(std::ffi::OsString),
    /// The stage's entries are all back in its tree; the container's begin to return.
    Returning,
}

/// What a journal in a state directory can name.
struct Trust<'a> {
    state_dir: &'a Path,
    mounts: BTreeSet<PathBuf>,
}

impl<'a> Trust<'a> {
    fn new(state_dir: &'a Path) -> io::Result<Self> {
        Ok(Self { state_dir, mounts: mount_points()? })
    }

    /// Fails with what of the line cannot be believed.
    fn check(&self, line: &Line) -> Result<(), String> {
        let believe = |is_so: bool, path: &Path| {
            if is_so { Ok(()) } else { Err(format!("`{}`", path.display())) }
        };
        match line {
            Line::Begin(begin) => {
                believe(self.is_own(&begin.root), &begin.root)?;
                believe(begin.park == self.state_dir.join("park") && self.is_own(&begin.park), &begin.park)?;
                let top = self.state_dir.components().nth(1).map(|name| name.as_os_str().to_owned());
                let keeps_own = begin.kept.iter().any(|name| Some(name) == top.as_ref());
                believe(keeps_own, Path::new("no directory of its own among those that stay"))?;
                for (source, path) in &begin.lent {
                    let (source, inside) = (Path::new(source), begin.root.join(path));
                    believe(self.is_own(source), source)?;
                    believe(inside.starts_with(&begin.root) && self.is_own(&inside), &inside)?;
                }
                Ok(())
            }
            Line::Residual(residual) => believe(
                is_straight(&residual.path, Path::new("/")) && !self.is_below_own(&residual.path),
                &residual.path,
            ),
            Line::Laid(path) => {
                let path = Path::new(path);
                let in_mount = path
                    .ancestors()
                    .skip(1)
                    .any(|above| above != Path::new("/") && self.mounts.contains(above));
                believe(in_mount && is_straight(path, Path::new("/")) && !self.is_below_own(path), path)
            }
            Line::Volume(note) => {
                let point = &note.point;
                let is_volume =
                    self.mounts.contains(point) && !self.is_below_own(point) && note.is_named_by_kiln();
                believe(is_volume && is_straight(point, Path::new("/")), point)
            }
            // They name a volume that was noted before, or nothing.
            Line::VolumeAway(_) | Line::VolumeReturning(_) | Line::VolumeBack(_) => Ok(()),
            Line::Vacated(_) | Line::Away | Line::Returning => Ok(()),
        }
    }

    /// Tells whether a path is below kiln's own directory, and leads there.
    fn is_own(&self, path: &Path) -> bool {
        self.is_below_own(path) && is_straight(path, self.own())
    }

    fn is_below_own(&self, path: &Path) -> bool {
        path.starts_with(self.own()) && path != self.own()
    }

    /// Returns kiln's own directory, which may be reached by a link.
    fn own(&self) -> &Path {
        self.state_dir.parent().unwrap_or(self.state_dir)
    }
}

/// Tells whether a path is absolute, and nothing that is there of it below `trusted` is a link.
pub(super) fn is_straight(path: &Path, trusted: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let below = path.ancestors().take_while(|above| *above != trusted);
    path.is_absolute() && path.components().all(plain) && !below.into_iter().any(is_link)
}

/// An open journal, locked by the process that swaps.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Begins a journal; there must be none.
    pub(super) fn create(state_dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(state_dir)?;
        let path = state_dir.join(NAME);
        let file = File::options().append(true).create_new(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, file })
    }

    /// Tells whether a swap has begun and not ended.
    pub(super) fn exists(state_dir: &Path) -> bool {
        state_dir.join(NAME).symlink_metadata().is_ok()
    }

    /// Takes over the journal of a process that died; `None` if there is none. `WouldBlock` if its process lives.
    pub(super) fn take_over(state_dir: &Path) -> io::Result<Option<(Self, Vec<Line>)>> {
        let path = state_dir.join(NAME);
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = match File::options().append(true).read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| at(&path, error))?,
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut text = String::new();
        if file.metadata()?.is_file() {
            (&mut file).take(MOST_BYTES).read_to_string(&mut text)?;
        }
        // A last line cut short tells of something that was not begun.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines: Vec<Line> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        let trust = Trust::new(state_dir)?;
        for line in &lines {
            trust.check(line).map_err(|what| {
                let text = format!(
                    "`{}` names {what}, which no swap of kiln's does: a step may have written it, and nothing is put back; \
                     start a new container",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
        }
        Ok(Some((Self { path, file }, lines)))
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line.
    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }

    /// Ends it: everything is where it was.
    pub(super) fn finish(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(dir: &Path) -> Begin {
        Begin {
            root: dir.join("work/1/root"),
            park: dir.join("state/park"),
            kept: vec![dir.components().nth(1).unwrap().as_os_str().to_owned()],
            lent: vec![(dir.join("mounts/a").into(), "root/.cache".into())],
            started: 0,
        }
    }

    fn believed(dir: &Path, line: &Line) -> bool {
        Trust::new(&dir.join("state")).unwrap().check(line).is_ok()
    }

    #[test]
    fn what_a_swap_writes_is_believed() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        assert!(believed(&dir, &Line::Begin(begin(&dir))));
        assert!(believed(&dir, &Line::Laid("/proc/laid".into())));
        let look = super::super::look::look(Path::new("/")).unwrap();
        assert!(believed(&dir, &Line::Residual(Residual { path: "/".into(), look })));
    }

    #[test]
    fn nothing_else_is() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().canonicalize().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.join("out")).unwrap();
        let own = begin(&dir);
        let strange = [
            Begin { root: outside.path().join("root"), ..own.clone() },
            Begin { root: dir.join("out/root"), ..own.clone() },
            Begin { root: dir.join("work/../../root"), ..own.clone() },
            Begin { root: dir.clone(), ..own.clone() },
            Begin { park: outside.path().join("park"), ..own.clone() },
            Begin { kept: Vec::new(), ..own.clone() },
            Begin { lent: vec![("/etc".into(), "x".into())], ..own.clone() },
            Begin { lent: vec![(dir.join("mounts/a").into(), "/etc".into())], ..own.clone() },
            Begin { lent: vec![(dir.join("mounts/a").into(), "../../../x".into())], ..own },
        ];
        for begin in strange {
            assert!(!believed(&dir, &Line::Begin(begin.clone())), "{begin:?}");
        }
        for line in [
            Line::Laid("/home/job".into()),
            Line::Laid("/proc".into()),
            Line::Laid("/proc/../home".into()),
            Line::Laid(dir.join("state/park").into()),
        ] {
            assert!(!believed(&dir, &line), "{line:?}");
        }
    }
}
