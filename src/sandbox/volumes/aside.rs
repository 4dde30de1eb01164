//! A volume's own entries, put aside within the volume for the time of a step, and back.
//!
//! They are in `.kiln-XXXXXXXX-SECONDS-NANOSECONDS.PHASE/own` at the volume's root: the name says how far it went, so that
//! whoever has the journal finishes it, and what time of last change the root had, which the directory itself changes by
//! being made and removed. `look` beside them is locked by the process that put them there for as long as that lives. In another
//! container there is no journal, and nothing of this is believed ([`finish_strays`]).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::super::look::{Look, at};
use super::super::wire::path;
use crate::tree::{Metadata, RootDir, Timestamp};

/// How the names of all that kiln has in a volume begin.
const PREFIX: &str = ".kiln-";

/// How far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The volume's entries are being moved in.
    Taking,
    /// They are all in; what else is in the volume is the stage's.
    Away,
    /// The stage's are gone; the volume's are being moved out.
    Returning,
}

impl Phase {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Taking, ".taking"), (Self::Away, ".away"), (Self::Returning, ".returning")];

    fn suffix(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).map_or("", |(_, suffix)| suffix)
    }
}

/// How the root of a volume looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct RootLook {
    look: Look,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

impl RootLook {
    /// Reads it.
    pub(super) fn of(root: &RootDir, path: &Path) -> io::Result<Self> {
        let metadata = root.metadata(path)?;
        let look = Look {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime_seconds: metadata.mtime.seconds,
            mtime_nanoseconds: metadata.mtime.nanoseconds,
        };
        Ok(Self { look, xattrs: root.xattrs(path)?.into_iter().collect() })
    }

    /// The look of a directory that no image has.
    pub(super) fn plain() -> Self {
        let look = Look { mode: 0o755, uid: 0, gid: 0, mtime_seconds: 0, mtime_nanoseconds: 0 };
        Self { look, xattrs: Vec::new() }
    }

    /// Makes the directory at `path` look like this.
    pub(super) fn set(&self, root: &RootDir, path: &Path) -> io::Result<()> {
        root.set_owner(path, self.look.uid, self.look.gid)?;
        let there = root.xattrs(path)?;
        for name in there.keys().filter(|name| !self.xattrs.iter().any(|(own, _)| own == *name)) {
            root.remove_xattr(path, name)?;
        }
        for (name, value) in self.xattrs.iter().filter(|(name, value)| there.get(name) != Some(value)) {
            root.set_xattr(path, name, value)?;
        }
        // After the access control list, which has a say in the mode.
        root.set_mode(path, self.look.mode)?;
        root.set_mtime(path, self.mtime())
    }

    /// Tells whether all but the time is the same.
    pub(super) fn is_dressed_like(&self, other: &Self) -> bool {
        let dress = |of: &Self| (of.look.mode, of.look.uid, of.look.gid);
        dress(self) == dress(other) && self.xattrs == other.xattrs
    }

    fn mtime(&self) -> Timestamp {
        Timestamp { seconds: self.look.mtime_seconds, nanoseconds: self.look.mtime_nanoseconds }
    }
}

/// What the journal says of a volume before it is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct AsideNote {
    #[serde(with = "path")]
    pub(in crate::sandbox) point: PathBuf,
    name: String,
    look: RootLook,
}

impl AsideNote {
    /// Tells whether the directory's name is one that [`Aside::prepare`] gives.
    pub(in crate::sandbox) fn is_named_by_kiln(&self) -> bool {
        mtime_of(&self.name).is_some()
    }
}

/// A volume whose entries are put aside.
#[derive(Debug)]
pub(in crate::sandbox) struct Aside {
    note: AsideNote,
    volume: RootDir,
    lock: Option<File>,
}

impl Aside {
    /// Prepares to put the entries of the volume at `point` aside; nothing is touched yet.
    pub(in crate::sandbox) fn prepare(point: &Path) -> io::Result<Self> {
        let volume = RootDir::open(point)?;
        let look = RootLook::of(&volume, Path::new(""))?;
        let Timestamp { seconds, nanoseconds } = look.mtime();
        let name = format!("{PREFIX}{:08x}-{seconds:016x}-{nanoseconds:08x}", rand_number()?);
        Ok(Self { note: AsideNote { point: point.to_path_buf(), name, look }, volume, lock: None })
    }

    /// Takes over what a process that died said of a volume.
    pub(in crate::sandbox) fn take_over(note: AsideNote) -> io::Result<Self> {
        let volume = RootDir::open(&note.point).map_err(|error| at(&note.point, error))?;
        Ok(Self { note, volume, lock: None })
    }

    pub(in crate::sandbox) fn note(&self) -> &AsideNote {
        &self.note
    }

    pub(in crate::sandbox) fn point(&self) -> &Path {
        &self.note.point
    }

    pub(super) fn volume(&self) -> &RootDir {
        &self.volume
    }

    /// Tells whether a path below the volume's root is that of the directory where the entries wait.
    pub(super) fn is_own(&self, name: &OsStr) -> bool {
        stem_of(name).is_some_and(|(stem, _)| stem == self.note.name)
    }

    /// Returns where the entries wait, below the volume's root.
    pub(super) fn directory(&self) -> PathBuf {
        self.at_phase(Phase::Away)
    }

    fn at_phase(&self, phase: Phase) -> PathBuf {
        PathBuf::from(format!("{}{}", self.note.name, phase.suffix()))
    }

    fn phase(&self) -> io::Result<Option<Phase>> {
        for (phase, _) in Phase::ALL {
            if self.volume.exists(self.at_phase(phase))? {
                return Ok(Some(phase));
            }
        }
        Ok(None)
    }

    /// Makes the directory that entries are put into. Whoever finds it removes it.
    pub(super) fn begin(&mut self) -> io::Result<PathBuf> {
        let directory = self.at_phase(Phase::Taking);
        self.volume.create_dir(&directory, 0o700)?;
        let mut look = self.volume.create_file(directory.join("look"), 0o600)?;
        look.write_all(&serde_json::to_vec(&self.note.look)?)?;
        flock(&look, FlockOperation::NonBlockingLockExclusive)?;
        self.lock = Some(look);
        Ok(directory)
    }

    /// Moves all entries aside but mount points.
    pub(in crate::sandbox) fn take(&mut self, is_mount: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        let directory = self.begin()?;
        let own = directory.join("own");
        self.volume.create_dir(&own, 0o700)?;
        for name in self.entries(is_mount)? {
            match self.volume.rename(&name, own.join(&name)) {
                // Something was mounted there a moment ago.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                result => result.map_err(|error| at(&self.note.point.join(&name), error))?,
            }
        }
        self.volume.rename(directory, self.at_phase(Phase::Away))
    }

    /// Returns the directory where the entries wait.
    pub(in crate::sandbox) fn waiting(&self) -> io::Result<RootDir> {
        self.volume.subdir(self.directory().join("own"))
    }

    /// The same when a step may have removed or replaced it: what is at its place, a directory in any case.
    pub(in crate::sandbox) fn waiting_anew(&self) -> io::Result<RootDir> {
        let directory = self.phase()?.map_or_else(|| self.directory(), |phase| self.at_phase(phase));
        let own = directory.join("own");
        for path in [&directory, &own] {
            let is_directory = match self.volume.metadata(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                found => found?.kind.is_dir(),
            };
            if !is_directory {
                self.volume.remove_all(path)?;
                self.volume.create_dir(path, 0o700)?;
            }
        }
        self.volume.subdir(own)
    }

    /// Returns the directory where the entries wait, and the entries, by their inodes.
    pub(super) fn inodes(&self) -> io::Result<HashMap<u64, Metadata>> {
        let directory = self.directory();
        let own = directory.join("own");
        let names = self.volume.read_dir(&own)?;
        let paths = names.iter().map(|name| own.join(name)).chain([directory, own.clone()]);
        let metadata = paths.map(|path| self.volume.metadata(path));
        metadata.map(|metadata| metadata.map(|metadata| (metadata.ino, metadata))).collect()
    }

    /// Returns the names in the volume's root but for kiln's and mount points.
    fn entries(&self, is_mount: &dyn Fn(&Path) -> bool) -> io::Result<Vec<OsString>> {
        let mut names = self.volume.read_dir("")?;
        names.retain(|name| {
            !self.is_own(name) && !is_at_work(&self.volume, name) && !is_mount(&self.note.point.join(name))
        });
        Ok(names)
    }

    /// Removes everything in the volume that was not put aside.
    fn clear(&self, is_mount: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        self.entries(is_mount)?.iter().try_for_each(|name| {
            self.volume.remove_all(name).map_err(|error| at(&self.note.point.join(name), error))
        })
    }

    /// Removes what the stage has in the volume; from here on all that is there is the volume's own. `was_away` is what
    /// the journal says, for a step that removed everything.
    pub(in crate::sandbox) fn drop_stage(
        &self,
        was_away: bool,
        is_mount: &dyn Fn(&Path) -> bool,
    ) -> io::Result<()> {
        match self.phase()? {
            Some(Phase::Away) => {
                self.clear(is_mount)?;
                self.volume.rename(self.at_phase(Phase::Away), self.at_phase(Phase::Returning))
            }
            None if was_away => self.clear(is_mount),
            Some(Phase::Taking | Phase::Returning) | None => Ok(()),
        }
    }

    /// Moves the entries back and makes the root look as before.
    pub(in crate::sandbox) fn give_back(self) -> io::Result<()> {
        if let Some(phase) = self.phase()? {
            let directory = self.at_phase(phase);
            let own = directory.join("own");
            let names = match self.volume.read_dir(&own) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    Vec::new()
                }
                other => other?,
            };
            let source = if names.is_empty() { None } else { Some(self.volume.subdir(&own)?) };
            for name in &names {
                let source = source.as_ref().expect("opened for its names");
                move_into(source, &self.volume, name)
                    .map_err(|error| at(&self.note.point.join(name), error))?;
            }
            self.volume.remove_all(&directory)?;
        }
        self.note.look.set(&self.volume, Path::new("")).map_err(|error| at(&self.note.point, error))
    }
}

/// Renames an entry without replacing one, where the file system can promise that.
fn move_into(from: &RootDir, to: &RootDir, name: &OsStr) -> io::Result<()> {
    match renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists(name)? => {
            Ok(rustix::fs::renameat(from, name, to, name)?)
        }
        result => Ok(result?),
    }
}

fn rand_number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// What [`finish_strays`] found.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// How many entries came back.
    pub(super) back: usize,
    /// Directories with entries that did not: others of their names are there.
    pub(super) left: Vec<PathBuf>,
}

/// Puts back what killed kilns of other containers left aside in the volume at `point`; `WouldBlock` if one lives.
///
/// A name in a volume proves nothing: a repository may have such a directory, or a step have made one. So nothing is removed or
/// replaced, and what `look` says of the root is not believed: entries come back where there are none of their names, and the
/// root's time is what the name says.
pub(super) fn finish_strays(point: &Path) -> io::Result<Strays> {
    let mut strays = Strays::default();
    // What cannot be listed has nothing put aside.
    let Ok(volume) = RootDir::open(point) else { return Ok(strays) };
    let Ok(names) = volume.read_dir("") else { return Ok(strays) };
    for name in &names {
        let Some((_, mtime)) = stem_of(name) else { continue };
        if is_at_work(&volume, name) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let own = Path::new(name).join("own");
        // It may be a link, or a file.
        let waiting = volume.metadata(&own).is_ok_and(|own| own.kind.is_dir());
        let waiting = waiting.then(|| volume.subdir(&own)).transpose()?;
        for entry in waiting.iter().flat_map(|own| own.read_dir("")).flatten() {
            let back = waiting.as_ref().map(|own| move_into(own, &volume, &entry));
            strays.back += usize::from(back.is_some_and(|back| back.is_ok()));
        }
        // As far as there is nothing else in it.
        let _ = volume.remove_dir(&own);
        let is_left = volume.exists(&own).unwrap_or(true);
        if !is_left {
            let _ = volume.remove_file(Path::new(name).join("look"));
        }
        match volume.remove_dir(name) {
            Ok(()) => volume.set_mtime("", mtime)?,
            Err(_) => strays.left.push(point.join(name)),
        }
    }
    Ok(strays)
}

/// Tells whether a directory in a volume's root is where a kiln that lives has put entries aside: it holds `look` locked.
pub(super) fn is_at_work(volume: &RootDir, name: &OsStr) -> bool {
    stem_of(name).is_some()
        && volume
            .open_nofollow(Path::new(name).join("look"))
            .is_ok_and(|look| flock(&look, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

/// Returns the name without its phase, and the time that it tells, if it is that of a directory in which a volume's entries
/// wait.
fn stem_of(name: &OsStr) -> Option<(&str, Timestamp)> {
    let name = name.to_str()?;
    let stem = Phase::ALL.iter().find_map(|(_, suffix)| name.strip_suffix(suffix))?;
    Some((stem, mtime_of(stem)?))
}

/// Returns the time that a name without its phase tells, if it is one that [`Aside::prepare`] gives.
fn mtime_of(stem: &str) -> Option<Timestamp> {
    let numbers: Vec<&str> = stem.strip_prefix(PREFIX)?.split('-').collect();
    let [number, seconds, nanoseconds] = numbers[..] else { return None };
    let hex = |text: &str, length: usize| match text.len() == length
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        true => u64::from_str_radix(text, 16).ok(),
        false => None,
    };
    hex(number, 8)?;
    // Of a time before 1970 it is the two's complement.
    let seconds = hex(seconds, 16)?.cast_signed();
    let nanoseconds = u32::try_from(hex(nanoseconds, 8)?).ok().filter(|number| *number < 1_000_000_000)?;
    Some(Timestamp { seconds, nanoseconds })
}

/// Tells whether a directory has the name of one in which a volume's entries wait.
pub fn is_put_aside(name: &OsStr) -> bool {
    stem_of(name).is_some()
}
