//! Files with credentials: empty for the time of a step in place.
//!
//! Such a step is root beside kiln and can read every file of the container. What kiln has been given to read, it holds
//! in memory meanwhile: kiln itself, and the process that watches over the step, so that whichever of the two is killed,
//! the other puts the content back.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::look::at;
use super::mounting::mount_id;

/// A file and what belongs into it.
#[derive(Clone)]
pub(super) struct PrivateFile {
    pub(super) path: PathBuf,
    content: Vec<u8>,
    modified: SystemTime,
}

impl std::fmt::Debug for PrivateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads those of `paths` that are there and can be emptied: files on the container's own file system.
pub(super) fn read(paths: &[PathBuf]) -> io::Result<Vec<PrivateFile>> {
    let mut files: Vec<PrivateFile> = Vec::new();
    for path in paths {
        let Some(path) = emptiable(path)? else { continue };
        if files.iter().any(|known| known.path == path) {
            continue;
        }
        let content = std::fs::read(&path).map_err(|error| at(&path, error))?;
        let modified = std::fs::metadata(&path)?.modified()?;
        files.push(PrivateFile { path, content, modified });
    }
    Ok(files)
}

/// Returns those of `paths` that every step can read, because they are on mounts.
pub(super) fn exposed(paths: &[PathBuf]) -> Vec<&PathBuf> {
    paths.iter().filter(|path| path.is_file() && emptiable(path).is_ok_and(|path| path.is_none())).collect()
}

/// Returns where a file really is; `None` if it is no plain file, or on a mount, which may be another's, or read-only.
fn emptiable(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = match std::fs::canonicalize(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(|error| at(path, error))?,
    };
    let id = |path: &Path| {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        mount_id(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
    };
    let own = path.is_file() && id(&path)? == id(Path::new("/"))?;
    Ok(own.then_some(path))
}

impl PrivateFile {
    /// Returns how long it is.
    pub(super) fn size_bytes(&self) -> u64 {
        self.content.len() as u64
    }

    /// Takes the content out of the file.
    pub(super) fn empty(&self) -> io::Result<()> {
        let opened = OpenOptions::new().write(true).truncate(true).open(&self.path);
        opened.map(drop).map_err(|error| at(&self.path, error))
    }

    /// Puts the content back, whatever became of the file.
    pub(super) fn fill(&self) -> io::Result<()> {
        let fill = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
            let mut file = match options.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(parent) = self.path.parent() {
                        std::fs::create_dir_all(parent)?;
                    }
                    options.create(true).open(&self.path)?
                }
                other => other?,
            };
            file.write_all(&self.content)?;
            file.set_modified(self.modified)
        };
        fill().map_err(|error| at(&self.path, error))
    }
}

/// Tells whether a file that was to be emptied is empty and was not before: its content is gone with two processes
/// that were killed at once.
pub(super) fn is_lost(path: &Path, size_bytes: u64) -> bool {
    size_bytes > 0 && std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_emptied_and_filled_again() {
        let directory = tempfile::tempdir_in("/").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let path = directory.path().join("config.json");
        std::fs::write(&path, "token").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        let files =
            read(&[link, path.clone(), directory.path().join("none"), "/proc/version".into()]).unwrap();
        if files.is_empty() {
            return; // the temporary directory is a mount
        }
        assert_eq!(files.len(), 1);
        assert!(!format!("{files:?}").contains(&format!("{:?}", b"token")));
        files[0].empty().unwrap();
        assert!(is_lost(&path, 5));
        files[0].fill().unwrap();
        assert!(!is_lost(&path, 5));
        assert_eq!(std::fs::read(&path).unwrap(), b"token");
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
        std::fs::remove_file(&path).unwrap();
        files[0].fill().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"token");
    }

    #[test]
    fn files_on_mounts_are_exposed() {
        let version = PathBuf::from("/proc/version");
        assert_eq!(exposed(&[version.clone(), "/nonexistent".into()]), [&version]);
    }
}
