//! Single files that are mounted in the container: a stage's tree does not take their place, so what a step writes to them is
//! undone after it.
//!
//! Every container of an engine has `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, and many have more. They are held
//! by descriptors from before the step and their content is in memory: nothing that a step can reach says what they are to be.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstatvfs, open};

use super::look::at;

/// How much of them is kept in all: what engines and clusters mount is text.
const MOST_BYTES: u64 = 16 << 20;

/// Where what looks like a mounted file is the kernel's.
const KERNELS: [&str; 2] = ["/proc", "/sys"];

/// The files as they were before a step.
#[derive(Debug)]
pub(super) struct MountedFiles {
    files: Vec<MountedFile>,
}

#[derive(Debug)]
struct MountedFile {
    path: PathBuf,
    file: File,
    was: std::fs::Metadata,
    /// Unless it is too large to be kept.
    content: Option<Vec<u8>>,
}

/// What became of one of them.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    /// It had other content, or another time.
    Written,
}

/// What a step did to them.
#[derive(Debug, Default)]
pub(super) struct FileChanges {
    /// Which were written to; they are as before.
    pub(super) written: Vec<PathBuf>,
    /// What is not as before.
    pub(super) problems: Vec<io::Error>,
}

impl MountedFiles {
    /// Takes note of all that can be written, but for those of which `is_left_out` says that others look after them.
    pub(super) fn note(
        mounts: &BTreeSet<PathBuf>,
        is_left_out: &dyn Fn(&std::fs::Metadata) -> bool,
    ) -> io::Result<Self> {
        let mut left = MOST_BYTES;
        let mut files = Vec::new();
        for path in mounts {
            if KERNELS.iter().any(|kernels| path.starts_with(kernels)) {
                continue;
            }
            if let Some(file) = MountedFile::note(path, is_left_out, left).map_err(|error| at(path, error))? {
                left -= file.content.as_ref().map_or(0, |content| content.len() as u64);
                files.push(file);
            }
        }
        Ok(Self { files })
    }

    /// Makes them as they were.
    pub(super) fn put_back(&self) -> FileChanges {
        let mut changes = FileChanges::default();
        for file in &self.files {
            match file.put_back() {
                Ok(Fate::Untouched) => {}
                Ok(Fate::Written) => changes.written.push(file.path.clone()),
                Err(error) => changes.problems.push(at(&file.path, error)),
            }
        }
        changes
    }
}

impl MountedFile {
    fn note(
        path: &Path,
        is_left_out: &dyn Fn(&std::fs::Metadata) -> bool,
        left: u64,
    ) -> io::Result<Option<Self>> {
        // Looked at first, without opening it: a FIFO would wait for somebody who writes.
        let found = match open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            // Something else is mounted above it.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                return Ok(None);
            }
            other => File::from(other?),
        };
        let was = found.metadata()?;
        if !was.is_file() || is_left_out(&was) {
            return Ok(None);
        }
        if fstatvfs(&found)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(None);
        }
        // For reading only: a program that is open for writing cannot be run.
        let file = File::from(reopen(&found, OFlags::RDONLY)?);
        let mut content = None;
        if was.len() <= left {
            let mut bytes = Vec::new();
            (&file).take(left).read_to_end(&mut bytes)?;
            content = Some(bytes);
        }
        Ok(Some(Self { path: path.to_path_buf(), file, was, content }))
    }

    fn put_back(&self) -> io::Result<Fate> {
        let now = self.file.metadata()?;
        let is_as_before = self.has_content(&now)?;
        let time = |metadata: &std::fs::Metadata| (metadata.mtime(), metadata.mtime_nsec());
        if !is_as_before {
            let Some(content) = &self.content else {
                return Err(io::Error::other("the step wrote to this file, which is too large to be kept"));
            };
            let mut writer = File::from(reopen(&self.file, OFlags::WRONLY | OFlags::TRUNC)?);
            writer.write_all(content)?;
        }
        if (now.uid(), now.gid()) != (self.was.uid(), self.was.gid()) {
            std::os::unix::fs::fchown(&self.file, Some(self.was.uid()), Some(self.was.gid()))?;
        }
        if (now.mode(), now.uid(), now.gid()) != (self.was.mode(), self.was.uid(), self.was.gid()) {
            self.file.set_permissions(std::fs::Permissions::from_mode(self.was.mode() & 0o7777))?;
        }
        if is_as_before && time(&now) == time(&self.was) {
            return Ok(Fate::Untouched);
        }
        self.file.set_modified(self.was.modified()?)?;
        Ok(Fate::Written)
    }

    /// A time of last change cannot be set back: without the content it tells.
    fn has_content(&self, now: &std::fs::Metadata) -> io::Result<bool> {
        let changed = |metadata: &std::fs::Metadata| (metadata.ctime(), metadata.ctime_nsec());
        match &self.content {
            _ if now.len() != self.was.len() => Ok(false),
            None => Ok(changed(now) == changed(&self.was)),
            Some(content) => {
                let mut bytes = vec![0; content.len()];
                self.file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes == *content)
            }
        }
    }
}

/// Opens the very file again, wherever it is now.
fn reopen(file: &File, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
