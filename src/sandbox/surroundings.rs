//! What of the container stays in its place beside a step in place, and so is put back after it: `/dev` and single files.
//!
//! Whoever of kiln, its keeper and the watcher is left when a step is over puts it back; each took its own note before the step.

use std::io;
use std::path::{Path, PathBuf};

use super::SandboxError;
use super::dev_entries::{DevChanges, DevEntries};
use super::mounted_files::{FileChanges, MountedFiles};
use super::mounting::mount_points;
use super::private::Record;
use super::swap::USUAL;

/// All of it as it was.
#[derive(Debug)]
pub(super) struct Surroundings {
    dev: DevEntries,
    files: MountedFiles,
}

/// What a step did there.
#[derive(Debug)]
pub(super) struct Changes {
    dev: DevChanges,
    files: FileChanges,
}

impl Surroundings {
    /// Takes note before a step. Files with credentials are no part of it: `private` has its own rules for who refills them.
    pub(super) fn note(private: &[Record]) -> io::Result<Self> {
        let is_private = |metadata: &std::fs::Metadata| private.iter().any(|record| record.is(metadata));
        let mounts = mount_points()?;
        Ok(Self { dev: DevEntries::note(&mounts)?, files: MountedFiles::note(&mounts, &is_private)? })
    }

    /// Makes everything as it was; every process of the step has ended.
    pub(super) fn put_back(&self) -> Changes {
        Changes { dev: self.dev.put_back(), files: self.files.put_back() }
    }
}

impl Changes {
    /// An error for what is not as before.
    pub(super) fn check(self) -> io::Result<Self> {
        let Self { mut dev, mut files } = self;
        match dev.problems.pop().or_else(|| files.problems.pop()) {
            Some(error) => Err(error),
            None => Ok(Self { dev, files }),
        }
    }

    /// An error for what no step may do: the next one, or the job, would have to do with it, or the layer lacks it.
    pub(super) fn blame(self) -> Result<(), SandboxError> {
        let Self { dev, files } = self.check().map_err(|source| SandboxError::Setup {
            action: "put what the step changed in the container back".to_owned(),
            source,
        })?;
        if let Some(path) = dev.replaced.into_iter().next() {
            return Err(SandboxError::Device { path });
        }
        // What a step writes to the usual ones is in no layer anywhere.
        let is_usual = |path: &PathBuf| USUAL.iter().any(|usual| path.starts_with(Path::new(usual)));
        match files.written.into_iter().find(|path| !is_usual(path)) {
            Some(point) => Err(SandboxError::Volume {
                point,
                problem: "the step wrote to this single file, and that cannot be in a layer".to_owned(),
            }),
            None => Ok(()),
        }
    }
}
