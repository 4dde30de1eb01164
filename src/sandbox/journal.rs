//! What a rename-swap has to know to be undone by another process: begun, and how far.
//!
//! One JSON line each, written before what it tells of. Within a phase nothing needs to be noted: a phase moves whatever is
//! still there to move, so doing it again from anywhere finishes it. The kernel's page cache survives the death of
//! a process, which is all this is for: nothing is synced.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::look::Look;
use super::wire::path;

/// The journal's name in the state directory.
const NAME: &str = "in-place.journal";

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
    /// A mounted file of the container is to have other content: where it is, and where its own is kept.
    Overwritten(std::ffi::OsString, std::ffi::OsString),
    /// This is about to be laid into a file system that is mounted in the container.
    Laid(std::ffi::OsString),
    /// They are all away; from here on what is in `/` is the stage's.
    Away,
    /// The stage's entries are all back in its tree; the container's begin to return.
    Returning,
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
        state_dir.join(NAME).exists()
    }

    /// Takes over the journal of a process that died; `None` if there is none. `WouldBlock` if its process lives.
    pub(super) fn take_over(state_dir: &Path) -> io::Result<Option<(Self, Vec<Line>)>> {
        let path = state_dir.join(NAME);
        let file = match File::options().append(true).read(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let text = std::fs::read_to_string(&path)?;
        // A last line cut short tells of something that was not begun.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
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
