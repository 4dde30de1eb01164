//! Who works with files that a step in place can reach: either one step, or any number of kiln's own threads.
//!
//! A step in place is root on the file system where kiln keeps the trees of other stages, its records and its tags.
//! While such a step runs kiln makes nothing there that it would have to believe later, and what it read beforehand
//! counts only as long as no further step began: their number tells. Where steps are kept from kiln's files all of this
//! is nothing: nobody waits, and the number stays 0.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};

/// What steps in place and kiln share.
#[derive(Debug, Default)]
pub struct Ground {
    is_shared: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holders: usize,
    is_occupied: bool,
    steps: u64,
}

/// No step in place runs while it lives. One thread may have several.
#[derive(Debug)]
#[must_use]
pub struct Hold(Option<Arc<Ground>>);

/// A directory that is reached by a path of its own for as long as this lives.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl Anchor {
    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The right to run one step; kiln's other threads leave the files alone meanwhile.
#[derive(Debug)]
#[must_use]
pub struct Occupation(Option<Arc<Ground>>);

impl Ground {
    /// Shares the file system of `/` with steps in place.
    pub(super) fn shared() -> Arc<Self> {
        Arc::new(Self { is_shared: true, ..Self::default() })
    }

    /// Tells whether steps can reach kiln's files at all.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Returns how the directory at `path` is reached wherever a step moves it to: in place, by a descriptor.
    pub fn anchor(&self, path: &Path) -> io::Result<Anchor> {
        if !self.is_shared() {
            return Ok(Anchor { path: path.to_owned(), _directory: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        Ok(Anchor { path, _directory: Some(directory) })
    }

    /// Returns how many steps have begun that could reach kiln's files.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Waits until no step is running; none begins while the result lives. Never wait for another stage with it.
    pub fn hold(self: &Arc<Self>) -> Hold {
        if !self.is_shared() {
            return Hold(None);
        }
        let mut state = self.lock();
        // Steps that wait are passed over: whoever holds the ground may need to hold it once more.
        while state.is_occupied {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.holders += 1;
        Hold(Some(Arc::clone(self)))
    }

    /// Waits for the turn of a step, for which everything was made ready when `steps` had begun; `None` if further ones
    /// have begun since: they may have changed it.
    pub fn occupy(self: &Arc<Self>, steps: u64) -> Option<Occupation> {
        if !self.is_shared() {
            return Some(Occupation(None));
        }
        let mut state = self.lock();
        while state.is_occupied || state.holders > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.steps != steps {
            return None;
        }
        state.steps += 1;
        state.is_occupied = true;
        Some(Occupation(Some(Arc::clone(self))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(ground) = &self.0 {
            ground.lock().holders -= 1;
            ground.changed.notify_all();
        }
    }
}

impl Drop for Occupation {
    fn drop(&mut self) {
        if let Some(ground) = &self.0 {
            ground.lock().is_occupied = false;
            ground.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_and_kilns_own_work_exclude_each_other() {
        let ground = Ground::shared();
        let first = ground.hold();
        let second = ground.hold();
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let step = scope.spawn(|| {
                let occupied = ground.occupy(0).unwrap();
                begun.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(30));
                begun.store(false, Ordering::SeqCst);
                drop(occupied);
            });
            std::thread::sleep(Duration::from_millis(30));
            // A step that waits is in nobody's way.
            drop((ground.hold(), first));
            assert!(!begun.load(Ordering::SeqCst));
            drop(second);
            while ground.steps() == 0 {
                std::thread::yield_now();
            }
            let held = ground.hold();
            assert!(!begun.load(Ordering::SeqCst));
            drop(held);
            step.join().unwrap();
        });
    }

    #[test]
    fn what_was_made_ready_before_another_step_is_made_ready_again() {
        let ground = Ground::shared();
        let ready = ground.steps();
        drop(ground.occupy(ready).unwrap());
        assert!(ground.occupy(ready).is_none());
        assert!(ground.occupy(ground.steps()).is_some());
    }

    #[test]
    fn where_steps_are_kept_away_nobody_waits() {
        let ground = Arc::new(Ground::default());
        let _held = ground.hold();
        let _first = ground.occupy(0).unwrap();
        let _second = ground.occupy(0).unwrap();
        assert_eq!((ground.steps(), ground.is_shared()), (0, false));
    }
}
