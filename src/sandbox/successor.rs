//! What the keeper and the process that watches over a step do when kiln is killed: whichever of them is left.
//!
//! kiln's own files are put right as kiln would have done it. A step that touched them, and had kiln killed, is to gain nothing
//! by that: nothing is refilled then, and a note tells so to whoever comes next. It is written when no process of any step
//! is left, which could remove it.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::guard::{KilnFiles, Notes};
use super::private::{Private, Reach, Record};
use super::reap::NobodyLeft;
use crate::tree::RootDir;

/// The note in the state directory.
const NOTE: &str = "touched";

/// As much of it is read.
const MOST_BYTES: u64 = 4096;

/// Where what a step planted is moved to, in the state directory.
pub(super) const PLANTED: &str = "planted";

/// Why a step's doing is not known.
const NOT_FOLLOWED: &str = "a step was not followed to its end";

/// How far the steps are.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// What the last of them did was put right.
    Between,
    Running,
    /// What one did could not be put right: why, as far as that is known.
    GivenUp(Option<String>),
}

/// What a process holds to be able to do what a killed kiln cannot.
#[derive(Debug)]
pub(super) struct Successor {
    state_dir: PathBuf,
    private: Private,
    notes: Notes,
    phase: Phase,
}

impl Successor {
    /// Takes over what kiln handed over: the guard's descriptors, and those of the files with credentials.
    pub(super) fn new(
        descriptors: Vec<OwnedFd>,
        state_dir: &Path,
        (reach, records): (Reach, Vec<Record>),
        kiln_files: KilnFiles,
    ) -> io::Result<Self> {
        let mut descriptors = descriptors.into_iter();
        let known = (kiln_files, records.clone());
        let notes = Notes::take_over(known, state_dir.join(PLANTED), &mut descriptors)?;
        let private = Private::take_over(descriptors, reach, records)?;
        Ok(Self { state_dir: state_dir.to_owned(), private, notes, phase: Phase::Between })
    }

    /// A step begins: kiln's own files are as they were noted.
    pub(super) fn step_begins(&mut self) {
        self.phase = Phase::Running;
    }

    /// kiln has put right what the step did.
    pub(super) fn step_ended(&mut self) {
        self.phase = Phase::Between;
    }

    /// That could not be done: nothing is to be refilled.
    pub(super) fn give_up(&mut self, why: Option<String>) {
        self.phase = Phase::GivenUp(why);
    }

    /// Puts kiln's own files right, and refills the credentials if that was not needed, and nothing else was `touched`; the
    /// container's own are back. An error says what there is to tell the user.
    pub(super) fn settle(mut self, nobody_left: NobodyLeft, touched: Option<String>) -> Result<(), String> {
        let given_up = match &self.phase {
            Phase::GivenUp(why) if self.private.give_up() => {
                Some(why.iter().fold(NOT_FOLLOWED.to_owned(), |text, why| format!("{text}: {why}")))
            }
            _ => None,
        };
        let touched = match self.phase {
            Phase::Between => touched,
            Phase::Running | Phase::GivenUp(_) => {
                let noted = noted(&self.state_dir);
                // As far as it goes, whatever somebody else has found before.
                let found = first_touched(self.notes);
                let found = found.unwrap_or_else(|error| Some(format!("kiln's own files: {error}")));
                touched.or(noted).or(found).or(given_up)
            }
        };
        let Some(what) = touched else {
            return self.private.fill(nobody_left).map_err(|lost| lost.to_string());
        };
        let told = tell(&what);
        match note(&self.state_dir, &what) {
            Ok(()) => Err(told),
            Err(error) => Err(format!("{told}; cannot note that in `{}`: {error}", self.state_dir.display())),
        }
    }
}

/// Puts right what a step did to what it shares with the job, and returns the first that there was.
fn first_touched(notes: Notes) -> io::Result<Option<String>> {
    Ok(notes.settle()?.first_touched())
}

/// Says what was found, to the user.
fn tell(what: &str) -> String {
    let found = match what {
        _ if what.starts_with(NOT_FOLLOWED) => what.to_owned(),
        _ => format!("{what}: not as it was before a step that kiln did not follow to its end"),
    };
    format!("{found}; credentials that were hidden from steps stay empty, go on in a new container")
}

fn note(state_dir: &Path, what: &str) -> io::Result<()> {
    let directory = RootDir::open_exact(state_dir)?;
    match directory.remove_all(NOTE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    directory.create_file(NOTE, 0o600)?.write_all(what.as_bytes())
}

/// Returns what somebody else has found before.
fn noted(state_dir: &Path) -> Option<String> {
    let directory = RootDir::open_exact(state_dir).ok()?;
    let mut text = String::new();
    match directory.open_nofollow(NOTE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // Whatever is there was put there by somebody.
        Err(_) => Some(NOT_FOLLOWED.to_owned()),
        Ok(file) => {
            let _ = io::Read::read_to_string(&mut io::Read::take(file, MOST_BYTES), &mut text);
            // A step may have written it before.
            text.retain(|character| !character.is_control());
            Some(text)
        }
    }
}

/// Tells whether there is a note, whoever wrote it.
pub(super) fn is_noted(state_dir: &Path) -> bool {
    state_dir.join(NOTE).symlink_metadata().is_ok()
}

/// Removes the note, and says what it told.
pub(super) fn take_note(state_dir: &Path) -> io::Result<Option<String>> {
    let Some(what) = noted(state_dir) else { return Ok(None) };
    RootDir::open_exact(state_dir)?.remove_all(NOTE)?;
    Ok(Some(tell(&what)))
}
