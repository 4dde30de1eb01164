//! Who writes to files besides steps: when no process of a step is left, a file that is open for writing is the job's own.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use crate::tree::{FileKind, Metadata};

/// The files that processes have open for writing, found out when they are first asked for.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Writers(Option<HashSet<(u64, u64)>>);

impl Writers {
    /// Tells whether a process has the file open for writing.
    pub(in crate::sandbox) fn write(&mut self, metadata: &Metadata) -> io::Result<bool> {
        if metadata.kind != FileKind::File {
            return Ok(false);
        }
        if self.0.is_none() {
            self.0 = Some(files_being_written()?);
        }
        Ok(self.0.as_ref().is_some_and(|writers| writers.contains(&(metadata.dev, metadata.ino))))
    }
}

/// Returns device and inode of every file that a process this one may look into has open for writing.
fn files_being_written() -> io::Result<HashSet<(u64, u64)>> {
    let mut found = HashSet::new();
    for process in std::fs::read_dir("/proc")? {
        let process = process?.path();
        let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            // The link's own mode tells how the file is open.
            let writes = descriptor.path().symlink_metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
            if let Some(metadata) = writes.then(|| std::fs::metadata(descriptor.path()).ok()).flatten() {
                found.insert((metadata.dev(), metadata.ino()));
            }
        }
    }
    Ok(found)
}
