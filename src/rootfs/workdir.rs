//! A build's directory: locked as long as the build lives, swept by a later one if it was killed.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{RootfsError, removal};
use crate::event::Reporter;
use crate::flock::{LockKind, try_lock};
use crate::threads;
use crate::tree::RootDir;
use crate::tree::regular::{self, NotRegular};

/// Names of builds' directories begin with it; nothing else beside them is touched.
const PREFIX: &str = "build-";

/// In each of them; the kernel drops the lock with the process, however that ends.
const LOCK: &str = "lock";

/// How long a build that is done waits for its files to go.
const PATIENCE: Duration = Duration::from_secs(1);

/// One build's directory; removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl WorkDir {
    /// Makes a directory for this build in `parent`, which is made if missing, and begins to remove those of builds that were
    /// killed.
    pub fn create(parent: &Path, reporter: &Reporter) -> Result<Self, RootfsError> {
        let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        create(parent).map_err(RootfsError::io("create", parent))?;
        regular::check_directory(parent).map_err(RootfsError::io("use", parent))?;
        // What is removed below is found again without following links.
        let parent = &parent.canonicalize().map_err(RootfsError::io("use", parent))?;
        sweep(parent, reporter.clone());
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(parent)
                .map_err(RootfsError::io("create a directory in", parent))?
                .keep();
            let lock =
                regular::create_new(&path.join(LOCK)).map_err(RootfsError::io("create", &path.join(LOCK)))?;
            let is_ours = try_lock(&lock, LockKind::Shared)
                .map_err(|errno| RootfsError::io("lock", &path.join(LOCK))(errno.into()))?;
            // A sweep that looked before it was locked may have taken it: then another one.
            if is_ours && path.join(LOCK).exists() {
                return Ok(Self { path, next: AtomicU64::new(0), _lock: lock });
            }
        }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything in it; returns what is in the way. What takes too long is left to a later build's sweep.
    pub fn remove(&self) -> Result<(), PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with(LOCK)) {
            match path.is_dir() && !path.is_symlink() {
                true => removal::begin(&path),
                false => drop(std::fs::remove_file(path)),
            }
        }
        if !removal::wait(&self.path, PATIENCE) {
            return Ok(());
        }
        match try_remove_tree(&self.path) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.path.clone()),
        }
    }

    /// Makes a directory in it under a new name.
    pub(super) fn subdir(&self) -> Result<PathBuf, RootfsError> {
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&path).map_err(RootfsError::io("create", &path))?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Begins to remove a directory with everything in it; what cannot be removed is left to the next sweep.
pub(super) fn remove_tree(path: &Path) {
    removal::begin(path);
}

fn try_remove_tree(path: &Path) -> io::Result<()> {
    let root = match RootDir::open_exact(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    root.remove_all("")?;
    std::fs::remove_dir(path)
}

/// Removes in the background what killed builds left; a build that runs holds its lock.
fn sweep(parent: &Path, reporter: Reporter) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let stale: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)))
        // A link is no directory of a build's, and what it leads to nobody's to remove.
        .filter(|entry| entry.file_type().is_ok_and(|file_type| file_type.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| claim(path))
        .collect();
    if stale.is_empty() {
        return;
    }
    let work = move || {
        for path in stale {
            removal::begin(&path);
            removal::wait(&path, Duration::MAX);
            match try_remove_tree(&path) {
                Ok(()) => reporter.debug(format!("removed `{}`, which a killed build left", path.display())),
                Err(error) => reporter.warning(format!(
                    "cannot remove `{}`, which a killed build left: {error}",
                    path.display()
                )),
            }
        }
    };
    // Without a thread it waits for a later sweep.
    let _ = threads::spawn("sweep", work);
}

/// Takes a directory that no build holds.
fn claim(path: &Path) -> bool {
    let lock = path.join(LOCK);
    let file = match regular::open(&lock) {
        Ok(file) => file,
        // No build has such a lock.
        Err(error) if NotRegular::is(&error) => return regular::remove(&lock).is_ok(),
        // Made this instant, or half removed: only the latter is there for longer.
        Err(_) => {
            return std::fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age.as_secs() > 60));
        }
    };
    try_lock(&file, LockKind::Exclusive) == Ok(true) && std::fs::remove_file(&lock).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killed_builds_are_swept_and_running_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let running = WorkDir::create(dir.path(), &Reporter::silent()).unwrap();
        let killed = dir.path().join("build-killed");
        std::fs::create_dir_all(killed.join("a/b")).unwrap();
        std::fs::write(killed.join("lock"), "").unwrap();
        std::fs::set_permissions(killed.join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
            .unwrap();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        let second = WorkDir::create(dir.path(), &Reporter::silent()).unwrap();
        for _ in 0..200 {
            if !killed.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!killed.exists() && dir.path().join("other").exists());
        assert!(running.path.exists() && second.path.exists());
        let path = second.path.clone();
        drop(second);
        assert!(!path.exists());
    }
}
