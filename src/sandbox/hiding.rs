//! What a launch without namespaces keeps from its steps, from the first of them to the last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::keeper::Keeper;
use super::neighbours::Neighbours;
use super::private::{Private, Visible};
use super::{Entered, LaunchKind, LaunchOptions, SandboxError};
use crate::event::OutputStream;

/// The files with credentials, and who refills them.
#[derive(Debug)]
pub(super) struct Hiding {
    options: LaunchOptions,
    private: Mutex<Private>,
    visible: Vec<Visible>,
    keeper: Option<Arc<Keeper>>,
    is_in_place: bool,
}

impl Hiding {
    /// Opens the files; nothing is emptied yet.
    pub(super) fn open(entered: &Entered, options: LaunchOptions) -> Result<Self, SandboxError> {
        let (private, mut visible) = Private::open(&options.state_dir, &options.private_files)
            .map_err(|source| SandboxError::Setup { action: "open the credentials".to_owned(), source })?;
        let neighbours = Neighbours::look(&options.secret_values).map_err(|source| SandboxError::Setup {
            action: "look at the processes of other users".to_owned(),
            source,
        })?;
        visible.extend(neighbours.telling.iter().map(|path| Visible {
            path: path.clone(),
            why: "a process of another user than root has it in its variables, and steps can become that user",
        }));
        visible.extend(private.readable_for(&neighbours));
        Ok(Self {
            options,
            private: Mutex::new(private),
            visible,
            keeper: entered.keeper.clone(),
            is_in_place: entered.launch == LaunchKind::InPlace,
        })
    }

    /// Returns what the launch was told.
    pub(super) fn options(&self) -> &LaunchOptions {
        &self.options
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

    /// Empties the files, if that has not been done; the keeper knows of it before.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, Private>, SandboxError> {
        self.check()?;
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if !private.is_emptied() {
            if let Some(keeper) = &self.keeper {
                keeper
                    .charge(&self.options, &private, self.is_in_place)
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
        Ok(private)
    }

    /// Tells the keeper that a step begins, or has ended, and what it did has been put right.
    pub(super) fn tell_of_step(&self, begins: bool) -> Result<(), SandboxError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let told = if begins { keeper.step_begins() } else { keeper.step_ended() };
        told.map_err(|source| SandboxError::KeeperGone { source })
    }

    /// An error if the keeper has been killed: whoever did that is to gain nothing by it.
    pub(super) fn check_keeper(&self) -> Result<(), SandboxError> {
        match &self.keeper {
            Some(keeper) => keeper.ping().map_err(|source| SandboxError::KeeperGone { source }),
            None => Ok(()),
        }
    }

    /// Refills the files; no step may be running.
    pub(super) fn end(&self) -> Result<(), SandboxError> {
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        if !private.is_emptied() {
            return Ok(());
        }
        let filled = private.fill();
        self.options.own_files.hide(BTreeMap::new());
        // A keeper that is gone has nothing to refill either.
        let discharged = self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.discharge());
        filled.map_err(|lost| SandboxError::CredentialsLost { path: lost.path, source: lost.source })?;
        discharged.map_err(|source| SandboxError::KeeperGone { source })
    }
}

impl Drop for Hiding {
    fn drop(&mut self) {
        // Who wanted to know whether it works has called `end`.
        let _ = self.end();
    }
}
