//! What a launch without namespaces keeps from its steps, from the first of them to the last: credentials, and kiln's own files.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guard::Guard;
use super::keeper::Keeper;
use super::limits::{Limits, OfKiln};
use super::neighbours::Neighbours;
use super::private::{Private, Reach, Record, Visible};
use super::wire::Order;
use super::{Ended, Entered, LaunchKind, LaunchOptions, SandboxError, Task, reap, step, successor};
use crate::event::OutputStream;

/// The files with credentials and those of kiln's own, and who puts them right.
#[derive(Debug)]
pub(super) struct Hiding {
    options: LaunchOptions,
    held: Mutex<Held>,
    visible: Vec<Visible>,
    keeper: Option<Arc<Keeper>>,
    is_in_place: bool,
    limits: Limits,
    of_kiln: OfKiln,
}

#[derive(Debug)]
struct Held {
    private: Private,
    /// From the first step on.
    guard: Option<Guard>,
}

impl Hiding {
    /// Opens the files; nothing is emptied yet.
    pub(super) fn open(entered: &Entered, mut options: LaunchOptions) -> Result<Self, SandboxError> {
        let is_in_place = entered.launch == LaunchKind::InPlace;
        let reach = Reach::of_steps(is_in_place);
        let (private, mut visible) = Private::open(&options.state_dir, reach, &options.private_files)
            .map_err(|source| SandboxError::Setup { action: "open the credentials".to_owned(), source })?;
        let neighbours = Neighbours::look(&options.secret_values).map_err(|source| SandboxError::Setup {
            action: "look at the processes around kiln".to_owned(),
            source,
        })?;
        let telling = neighbours.telling.iter();
        visible.extend(telling.map(|(path, why)| Visible { path: path.clone(), why }));
        visible.extend(private.readable_for(&neighbours));
        options.kiln_files.follow_links();
        if entered.launch == LaunchKind::Chroot {
            // Other kilns of this machine may be writing these.
            let names = std::mem::take(&mut options.kiln_files.names);
            options.kiln_files.work.extend(names);
        }
        let held = Mutex::new(Held { private, guard: None });
        let keeper = entered.keeper.clone();
        let noted = Limits::note().and_then(|limits| Ok((limits, OfKiln::note(keeper.is_some())?)));
        let (limits, of_kiln) = noted
            .map_err(|source| SandboxError::Setup { action: "look at kiln's limits".to_owned(), source })?;
        Ok(Self { options, held, visible, keeper, is_in_place, limits, of_kiln })
    }

    /// Returns the limits that steps begin with.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns what the launch was told.
    pub(super) fn options(&self) -> &LaunchOptions {
        &self.options
    }

    /// Returns where the files are that are going to be empty, without links.
    pub(super) fn private_paths(&self) -> Vec<PathBuf> {
        self.held().private.records().into_iter().map(|record| record.path).collect()
    }

    /// An error if steps can read credentials and nobody has said that they may.
    pub(super) fn check(&self) -> Result<(), SandboxError> {
        match self.options.allow_visible_credentials {
            false if !self.visible.is_empty() => Err(SandboxError::VisibleCredentials {
                files: self.visible.iter().map(|file| (file.path.clone(), file.why)).collect(),
            }),
            _ => Ok(()),
        }
    }

    /// Says what steps can read.
    pub(super) fn warn(&self, output: &mut dyn FnMut(OutputStream, &[u8])) {
        for Visible { path, why } in &self.visible {
            let text = format!("kiln: warning: steps can read `{}`: {why}\n", path.display());
            output(OutputStream::Stderr, text.as_bytes());
        }
    }

    /// Takes note of kiln's own files, and empties those with credentials if that has not been done; the keeper knows of it
    /// before.
    pub(super) fn begin(&self) -> Result<Turn<'_>, SandboxError> {
        self.check()?;
        let mut held = self.held();
        let Held { private, guard } = &mut *held;
        let guard = self.note(guard, private)?;
        if !private.is_emptied() {
            if let Some(keeper) = &self.keeper {
                keeper
                    .charge(&self.options, private.records(), &descriptors(guard, private), self.is_in_place)
                    .map_err(|source| SandboxError::KeeperGone { source })?;
            }
            let emptied = private.contents().and_then(|contents| {
                self.options.own_files.hide(contents);
                private.empty()
            });
            emptied.map_err(|source| SandboxError::Setup {
                action: "hide the credentials from the steps".to_owned(),
                source,
            })?;
        }
        Ok(Turn { hiding: self, held, phase: Phase::Ready })
    }

    /// Of what nobody changes while kiln runs only before the first step.
    fn note<'a>(
        &self,
        slot: &'a mut Option<Guard>,
        private: &Private,
    ) -> Result<&'a mut Guard, SandboxError> {
        let failed = |source| SandboxError::Setup { action: "look at kiln's own files".to_owned(), source };
        let guard = match slot {
            Some(guard) => guard,
            None => {
                let state_dir = &self.options.state_dir;
                std::fs::create_dir_all(state_dir).map_err(failed)?;
                let planted = state_dir.join(successor::PLANTED);
                let guard = Guard::new(&self.options.kiln_files, private.records(), planted);
                slot.insert(guard.map_err(failed)?)
            }
        };
        guard.begin().map_err(failed)?;
        Ok(guard)
    }

    /// Refills the files, when everything is ended that a step has left running.
    pub(super) fn end(&self) -> Result<(), SandboxError> {
        let mut held = self.held();
        if !held.private.is_emptied() {
            return Ok(());
        }
        let nobody_left =
            reap::kill_strays(0).inspect_err(|_| self.give_up(&mut held)).map_err(left_running)?;
        let has_given_up = held.private.has_given_up();
        let filled = held.private.fill(nobody_left);
        self.options.own_files.hide(BTreeMap::new());
        // One that is gone has nothing to refill either.
        let discharged = if has_given_up { Ok(()) } else { self.tell(Keeper::discharge) };
        filled.map_err(|lost| SandboxError::CredentialsLost { path: lost.path, source: lost.source })?;
        // One that a step has planted.
        let _ = successor::take_note(&self.options.state_dir);
        discharged
    }

    /// Leaves the files empty for good, and whatever there is to be put right to the keeper.
    fn give_up(&self, held: &mut Held) {
        held.private.give_up();
        // One that is gone refills nothing.
        let _ = self.tell(Keeper::give_up);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if the keeper has been killed: whoever did that is to gain nothing by it.
    fn tell(&self, word: impl FnOnce(&Keeper) -> std::io::Result<()>) -> Result<(), SandboxError> {
        match &self.keeper {
            Some(keeper) => word(keeper).map_err(|source| SandboxError::KeeperGone { source }),
            None => Ok(()),
        }
    }
}

impl Drop for Hiding {
    fn drop(&mut self) {
        // Who wanted to know whether it works has called `end`.
        let _ = self.end();
    }
}

/// Returns what a [`successor::Successor`] needs.
fn descriptors<'a>(guard: &'a Guard, private: &'a Private) -> Vec<BorrowedFd<'a>> {
    guard.descriptors().into_iter().chain(private.descriptors()).collect()
}

fn left_running(source: std::io::Error) -> SandboxError {
    SandboxError::Child { action: "end what the step left running", source }
}

/// The time of one step, during which no other has the files. What is not put right until its end is given up.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    hiding: &'a Hiding,
    held: MutexGuard<'a, Held>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Begun,
    PutRight,
}

impl Turn<'_> {
    /// Returns what the files with credentials were like.
    pub(super) fn records(&self) -> Vec<Record> {
        self.held.private.records()
    }

    /// Runs the step. When this returns without an error of its own, nothing of the step is alive, however it ended.
    pub(super) fn run(
        &mut self,
        task: &Task,
        order: &Order,
        output: &mut dyn FnMut(OutputStream, &[u8]),
    ) -> Result<Result<Ended, SandboxError>, SandboxError> {
        self.hiding.tell(Keeper::step_begins)?;
        self.phase = Phase::Begun;
        let Held { private, guard } = &*self.held;
        let handed = guard.as_ref().map(|guard| descriptors(guard, private)).unwrap_or_default();
        let ended = step::run(task, order, &handed, output);
        if ended.is_err() {
            // The process that watched over it may have failed at that.
            reap::kill_strays(0).map_err(left_running)?;
        }
        Ok(ended)
    }

    /// Makes kiln's own files as they were before the step, or says what was done to them, or to kiln's limits. Everything else
    /// has been put right.
    pub(super) fn settle(
        &mut self,
        ended: &Result<Ended, SandboxError>,
        output: &mut dyn FnMut(OutputStream, &[u8]),
    ) -> Result<(), SandboxError> {
        let limited = self.hiding.of_kiln.check();
        let Some(guard) = &mut self.held.guard else { return limited };
        let found = guard.settle().map_err(|source| SandboxError::Setup {
            action: "look at kiln's own files after the step".to_owned(),
            source,
        })?;
        if found.problems.is_empty() {
            self.phase = Phase::PutRight;
        }
        if let Some(first) = found.put_back.first() {
            let text = format!(
                "kiln: warning: the step changed modes, owners or times of kiln's own files (`{}` and {} more), which \
                 are put back\n",
                first.display(),
                found.put_back.len() - 1
            );
            output(OutputStream::Stderr, text.as_bytes());
        }
        if !found.dropped.is_empty() {
            let text = format!(
                "kiln: warning: the step changed {} records of the local cache, which are not used any more\n",
                found.dropped.len()
            );
            output(OutputStream::Stderr, text.as_bytes());
        }
        let Some(first) = found.offences.first() else { return limited };
        let (path, whose) = match ended {
            Err(SandboxError::OwnFiles { path, whose, .. }) => (path, *whose),
            _ => (&first.path, first.whose),
        };
        Err(SandboxError::OwnFiles { path: path.clone(), whose, state: found.state() })
    }

    /// Says that something else could not be put right.
    pub(super) fn give_up(&mut self) {
        self.phase = Phase::Begun;
    }

    /// Ends it; an error if the keeper has been killed meanwhile.
    pub(super) fn end(mut self) -> Result<(), SandboxError> {
        if self.phase == Phase::PutRight {
            self.phase = Phase::Ready;
            return self.hiding.tell(Keeper::step_ended);
        }
        Ok(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.phase != Phase::Ready {
            self.hiding.give_up(&mut self.held);
        }
    }
}
