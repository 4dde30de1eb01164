//! Whether the files of kiln's own container are in their places.
//!
//! During a step in place its stage's files are where the container's own were: a program that kiln would start by its
//! name, or a file that it would read by its path, is the stage's. Whoever starts one or reads one holds
//! [`OwnFiles::present`] meanwhile, and a step in place [`OwnFiles::away`]: each waits for the other.
//!
//! Contents that were read before the first step (certificates, name servers, `config.json`) need neither.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

/// How often a waiting step looks: short beside any program that it could wait for.
const LOOK: Duration = Duration::from_millis(10);

/// One for all parts of a build; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct OwnFiles(Arc<RwLock<()>>);

impl OwnFiles {
    /// Waits until no step is in place, and keeps the next from beginning. Must not be asked again by a thread that
    /// holds it already: the lock is not for that.
    pub fn present(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody uses the container's own files, and keeps them from everybody; nothing if `is_stopped` says
    /// meanwhile that they need not be taken.
    pub fn away(&self, is_stopped: impl Fn() -> bool) -> Option<RwLockWriteGuard<'_, ()>> {
        loop {
            match self.0.try_write() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if is_stopped() => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
