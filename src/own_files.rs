//! Whether the files of kiln's own container are in their places.
//!
//! During a step in place its stage's files are where the container's own were: a program that kiln would start by its
//! name, or a file that it would read by its path, is the stage's. Whoever starts one or reads one holds
//! [`OwnFiles::present`] meanwhile, and a step in place [`OwnFiles::away`]: each waits for the other.
//!
//! Contents that were read before the first step (certificates, name servers, `config.json`) need neither.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

/// How often a waiting step looks: short beside any program that it could wait for.
const LOOK: Duration = Duration::from_millis(10);

/// One for all parts of a build; clones are the same.
#[derive(Clone, Default)]
pub struct OwnFiles(Arc<Inner>);

#[derive(Default)]
struct Inner {
    turn: RwLock<()>,
    /// What files hold that are empty for the time of the steps, by their paths without links.
    hidden: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
}

impl std::fmt::Debug for OwnFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnFiles").finish_non_exhaustive()
    }
}

impl OwnFiles {
    /// Waits until no step is in place, and keeps the next from beginning. Must not be asked again by a thread that
    /// holds it already: the lock is not for that.
    pub fn present(&self) -> RwLockReadGuard<'_, ()> {
        self.0.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody uses the container's own files, and keeps them from everybody; nothing if `is_stopped` says
    /// meanwhile that they need not be taken.
    pub fn away(&self, is_stopped: impl Fn() -> bool) -> Option<RwLockWriteGuard<'_, ()>> {
        loop {
            match self.0.turn.try_write() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if is_stopped() => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Remembers what files hold that are going to be empty; of none, when they are as before.
    pub fn hide(&self, files: BTreeMap<PathBuf, Vec<u8>>) {
        *self.0.hidden.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Reads a text file, hidden or not; for who holds [`Self::present`].
    pub fn read_to_string(&self, path: &Path) -> io::Result<String> {
        let own = std::fs::canonicalize(path)?;
        let hidden = self.0.hidden.lock().unwrap_or_else(PoisonError::into_inner).get(&own).cloned();
        match hidden {
            Some(content) => String::from_utf8(content).map_err(io::Error::other),
            None => std::fs::read_to_string(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_are_read_from_memory() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let path = directory.join("credentials");
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, directory.join("link")).unwrap();
        let own = OwnFiles::default();
        own.clone().hide(BTreeMap::from([(path.clone(), b"keys".to_vec())]));
        assert_eq!(own.read_to_string(&directory.join("link")).unwrap(), "keys");
        own.hide(BTreeMap::new());
        assert_eq!(own.read_to_string(&path).unwrap(), "");
        assert!(!format!("{own:?}").contains("keys"));
    }

    #[test]
    fn they_are_here_or_away() {
        let own = OwnFiles::default();
        let other = own.clone();
        let users = (own.present(), other.present());
        assert!(own.away(|| true).is_none(), "somebody uses them");
        drop(users);
        let away = other.away(|| true).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(own.present()));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!waiting.is_finished());
            drop(away);
            waiting.join().unwrap();
        });
    }
}
