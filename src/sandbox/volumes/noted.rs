//! The volumes as the process that watches over a step knows them: for the case that kiln, which knows more, is killed.
//!
//! It is noted before the step, in the memory of a process that no step can look into, and looked at when nothing of the
//! step is left and before anything is moved back.

use std::io;
use std::path::Path;

use super::backup::Backup;
use super::{DIRECTORY, Unchecked, Unsettled, unchecked};
use crate::tree::RootDir;

/// Volumes and their copies; those that are put aside, where they wait.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Noted(Vec<Backup>);

impl Noted {
    /// Notes the volume at `point`, whose entries are in `root`, if there is a copy of it.
    pub(in crate::sandbox) fn add(
        &mut self,
        state_dir: &Path,
        point: &Path,
        root: RootDir,
    ) -> io::Result<()> {
        for Unchecked { point: known, copy, left_out } in unchecked(&state_dir.join(DIRECTORY))? {
            if known == point {
                self.0.push(Backup::note(point, root, RootDir::open(&copy)?, left_out)?);
                break;
            }
        }
        Ok(())
    }

    /// Notes all volumes before anything is put aside.
    pub(in crate::sandbox) fn of_all(state_dir: &Path) -> io::Result<Self> {
        let mut noted = Self::default();
        for Unchecked { point, copy, left_out } in unchecked(&state_dir.join(DIRECTORY))? {
            let root = RootDir::open(&point)?;
            noted.0.push(Backup::note(&point, root, RootDir::open(&copy)?, left_out)?);
        }
        Ok(noted)
    }

    /// Says where the entries of the volume at `point` belong now.
    pub(in crate::sandbox) fn wait_in(&mut self, point: &Path, root: RootDir) {
        if let Some(backup) = self.0.iter_mut().find(|backup| backup.point == point) {
            backup.wait_in(root);
        }
    }

    /// Puts right what the step did to the volumes. Returns what of each is not as it was, or of which nobody knows that:
    /// where that could not be done, where its copy was spoilt, too, and where there is none.
    pub(in crate::sandbox) fn settle(&mut self) -> Vec<Unsettled> {
        let settle = |backup: &mut Backup| match backup.check() {
            Ok(damage) => backup.unsettled(&damage),
            // Of nothing is known what became of it.
            Err(_) => Some(backup.all_unsettled()),
        };
        self.0.iter_mut().rev().filter_map(settle).collect()
    }
}
