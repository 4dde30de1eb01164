//! Locks between processes, and sessions: who is alive.
//!
//! Two kinds of files are locked (`flock.rs`):
//!
//! * `lock`, for moments: shared to use blobs, exclusive to open or sweep the store and to change its index.
//! * `ingest/ID.lock`, exclusive for as long as a session (one open [`Store`](super::Store)) lives. Its temporary files are in
//!   `ingest/ID/`. When the lock can be had, the session is dead and its files are swept.
//!
//! A session's lock file also tells when the session began, by the file system's own clock: see `gc.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::BlobError;
use super::store::LOCK;
use crate::event::Reporter;
use crate::flock::{self, LockKind, Wait};
use crate::tree::regular::{self, NotRegular};

const LOCK_SUFFIX: &str = "lock";

/// Nobody keeps the store's lock for so long: a collection of a large store on a slow disk takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// The store's lock, held until it is dropped. Every holder opens the file anew: locks belong to open files, so threads
/// of one process exclude each other as well.
#[derive(Debug)]
pub(super) struct Guard {
    _file: File,
}

/// Where the store's lock is, and who hears of a long wait for it.
#[derive(Debug, Clone)]
pub(super) struct StoreLock {
    path: PathBuf,
    reporter: Reporter,
}

impl StoreLock {
    pub(super) fn new(store: &Path, reporter: &Reporter) -> Self {
        Self { path: store.join(LOCK), reporter: reporter.clone() }
    }

    /// Removes what a step has put into the lock's place.
    pub(super) fn make_way(&self) -> Result<(), BlobError> {
        regular::make_way(&self.path).map_err(|error| BlobError::io("remove", &self.path, error))
    }

    /// Waits until nobody changes the store as a whole.
    pub(super) fn shared(&self) -> Result<Guard, BlobError> {
        self.take(LockKind::Shared)
    }

    /// Waits until nobody uses the store.
    pub(super) fn exclusive(&self) -> Result<Guard, BlobError> {
        self.take(LockKind::Exclusive)
    }

    fn take(&self, kind: LockKind) -> Result<Guard, BlobError> {
        let path = &self.path;
        let file = regular::open_or_create(path).map_err(|error| BlobError::io("open", path, error))?;
        let wait = Wait::begin(path, &self.reporter).at_most(PATIENCE);
        flock::lock(&file, kind, wait).map_err(|error| BlobError::io("lock", path, error))?;
        Ok(Guard { _file: file })
    }
}

/// One open store. While it lives, its temporary files stay and collections keep what it may need.
#[derive(Debug)]
pub(super) struct Session {
    _file: File,
    lock_path: PathBuf,
    directory: PathBuf,
    next: AtomicU64,
}

impl Session {
    /// Begins a session. The store must be locked exclusively, or a sweep might take it for a dead one.
    pub(super) fn begin(ingest: &Path, _store: &Guard) -> Result<Self, BlobError> {
        // Process ids are not unique between containers that share a store.
        for attempt in 0..u32::MAX {
            let id = format!("{}-{attempt}", std::process::id());
            let lock_path = ingest.join(format!("{id}.{LOCK_SUFFIX}"));
            let file = match regular::create_new(&lock_path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(BlobError::io("create", &lock_path, error)),
            };
            flock::try_lock(&file, LockKind::Exclusive)
                .map_err(|error| BlobError::io("lock", &lock_path, error.into()))?;
            let directory = ingest.join(id);
            fs::create_dir_all(&directory).map_err(|error| BlobError::io("create", &directory, error))?;
            return Ok(Self { _file: file, lock_path, directory, next: AtomicU64::new(0) });
        }
        unreachable!("four billion sessions of one process")
    }

    /// Returns the path of a new temporary file.
    pub(super) fn temporary(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What is left behind is swept by the next session.
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what dead sessions left, and returns when the oldest living one began.
pub(super) fn sweep(ingest: &Path, _store: &Guard) -> Result<Option<SystemTime>, BlobError> {
    let mut oldest: Option<SystemTime> = None;
    let mut dead = Vec::new();
    let mut living = Vec::new();
    let list = |error| BlobError::io("list", ingest, error);
    for entry in fs::read_dir(ingest).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.extension().is_none_or(|extension| extension != LOCK_SUFFIX) {
            dead.push(path);
            continue;
        }
        match is_alive(&path)? {
            Some(began) => {
                living.push(path.with_extension(""));
                oldest = Some(oldest.map_or(began, |oldest| oldest.min(began)));
            }
            None => dead.push(path),
        }
    }
    for path in dead.into_iter().filter(|path| !living.contains(path)) {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BlobError::io("remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(oldest)
}

/// Tells when a session began; `None` if it is dead.
fn is_alive(lock_path: &Path) -> Result<Option<SystemTime>, BlobError> {
    let file = match regular::open(lock_path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // No session has such a lock.
        Err(error) if NotRegular::is(&error) => return Ok(None),
        Err(error) => return Err(BlobError::io("open", lock_path, error)),
    };
    match flock::try_lock(&file, LockKind::Exclusive) {
        Ok(true) => Ok(None),
        Ok(false) => {
            let began = file.metadata().and_then(|metadata| metadata.modified());
            began.map(Some).map_err(|error| BlobError::io("look at", lock_path, error))
        }
        Err(error) => Err(BlobError::io("lock", lock_path, error.into())),
    }
}
