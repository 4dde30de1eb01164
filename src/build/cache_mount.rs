//! The directories of cache mounts, which outlive the build, and who may use them now.
//!
//! A lock is the system's: it goes with the process that holds it, however that ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::error::Problem;
use super::mounts::io_problem;
use crate::dockerfile::mount::Sharing;
use crate::oci::Digest;
use crate::sandbox::Cancel;
use crate::tree::RootDir;

/// How often a lock that somebody else holds is tried again.
const PATIENCE: Duration = Duration::from_millis(20);

/// The directory of a cache mount, held until this is dropped.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    lock: File,
    sharing: Sharing,
    is_new: bool,
}

impl Cache {
    /// Takes the cache called `key` below `root`. One that is private is another one if the first is in use.
    pub(super) fn claim(root: &Path, key: &str, sharing: Sharing, cancel: &Cancel) -> Result<Self, Problem> {
        for number in 0.. {
            let name = if number == 0 { key.to_owned() } else { format!("{key}-{number}") };
            let directory = root.join(name);
            std::fs::create_dir_all(&directory).map_err(io_problem("create the cache", &directory))?;
            let path = directory.join("lock");
            let lock = File::create(&path).map_err(io_problem("lock the cache", &path))?;
            let has_lock = match sharing {
                Sharing::Private => try_lock(&lock, FlockOperation::NonBlockingLockExclusive),
                Sharing::Locked => wait(cancel, || try_lock(&lock, FlockOperation::NonBlockingLockExclusive)),
                Sharing::Shared => wait(cancel, || share(&lock, &directory)),
            };
            if has_lock.map_err(io_problem("lock the cache", &path))? {
                let is_new = !directory.join("data").exists();
                return Ok(Self { directory, lock, sharing, is_new });
            }
        }
        unreachable!("some number is free")
    }

    /// Takes the cache called `key` alone, if it has content and everybody else lets go of it within `patience`.
    pub(super) fn claim_alone(
        root: &Path,
        key: &str,
        patience: Duration,
        cancel: &Cancel,
    ) -> Result<Option<Self>, Problem> {
        let directory = root.join(key);
        let path = directory.join("lock");
        let lock = File::create(&path).map_err(io_problem("lock the cache", &path))?;
        let begun = Instant::now();
        while !try_lock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io_problem("lock the cache", &path))?
        {
            if cancel.is_cancelled() || begun.elapsed() > patience {
                return Ok(None);
            }
            std::thread::sleep(PATIENCE);
        }
        let has_content = directory.join("data").exists();
        Ok(has_content.then_some(Self { directory, lock, sharing: Sharing::Locked, is_new: false }))
    }

    /// Returns where the cache and what belongs to it is.
    pub(super) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Returns where the content is.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Tells whether the content is still to be made. Nobody else has the cache then.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Lets others in, if the cache is for all, now that it has content.
    pub(super) fn filled(&mut self) -> Result<(), Problem> {
        self.is_new = false;
        if self.sharing != Sharing::Shared {
            return Ok(());
        }
        let path = self.directory.join("lock");
        rustix::fs::flock(&self.lock, FlockOperation::LockShared)
            .map_err(|e| io_problem("lock the cache", &path)(e.into()))
    }
}

/// Takes an empty cache alone, to fill it, and any other together with others.
fn share(lock: &File, directory: &Path) -> io::Result<bool> {
    if !directory.join("data").exists() {
        return try_lock(lock, FlockOperation::NonBlockingLockExclusive);
    }
    try_lock(lock, FlockOperation::NonBlockingLockShared)
}

fn try_lock(lock: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(lock, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Tries as long as the build is wanted.
fn wait(cancel: &Cancel, mut lock: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    while !lock()? {
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        std::thread::sleep(PATIENCE);
    }
    Ok(true)
}

/// Names a cache by everything that tells it from others, each part with its length.
pub(super) fn frame(parts: &[&str]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Digest::of(&bytes).hex().to_owned()
}

/// Removes the cache mounts below `dir` that no build is using; returns how many.
pub fn prune_cache_mounts(dir: &Path) -> io::Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        let Ok(lock) = File::open(path.join("lock")) else { continue };
        if lock.try_lock().is_ok() && path.join("data").exists() {
            // The lock's file stays: another build may be waiting for it.
            RootDir::open(&path)?.remove_all("data")?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::mpsc;

    use super::*;

    /// Long enough for a thread that could go on to do so.
    const MOMENT: Duration = Duration::from_millis(150);

    fn claim(root: &Path, sharing: Sharing) -> Cache {
        Cache::claim(root, "key", sharing, &Cancel::new().unwrap()).unwrap()
    }

    /// Claims with content.
    fn fill(root: &Path, sharing: Sharing) -> Cache {
        let mut cache = claim(root, sharing);
        if cache.is_new() {
            std::fs::create_dir(cache.data()).unwrap();
        }
        cache.filled().unwrap();
        cache
    }

    /// Claims on a thread of its own, and says when it has the cache.
    fn later(root: &Path, sharing: Sharing) -> mpsc::Receiver<Cache> {
        let (sender, receiver) = mpsc::channel();
        let root = root.to_path_buf();
        std::thread::spawn(move || sender.send(fill(&root, sharing)));
        receiver
    }

    #[test]
    fn the_parts_of_a_name_do_not_run_together() {
        let names = [
            frame(&["", "ab", "c"]),
            frame(&["a", "b", "c"]),
            frame(&["ab", "", "c"]),
            frame(&["ab", "c", ""]),
            frame(&["ab", "c"]),
            frame(&["abc"]),
        ];
        for (index, name) in names.iter().enumerate() {
            assert_eq!(name.len(), 64);
            assert!(!names[index + 1..].contains(name));
        }
        assert_eq!(frame(&["a", "b"]), frame(&["a", "b"]));
    }

    #[test]
    fn private_users_at_the_same_time_get_directories_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let first = fill(root.path(), Sharing::Private);
        let second = fill(root.path(), Sharing::Private);
        assert_ne!(first.directory(), second.directory());
        let place = first.directory();
        drop(first);
        let third = claim(root.path(), Sharing::Private);
        assert_eq!(third.directory(), place);
        assert!(!third.is_new());
    }

    #[test]
    fn locked_users_wait_for_each_other() {
        let root = tempfile::tempdir().unwrap();
        let first = fill(root.path(), Sharing::Locked);
        let second = later(root.path(), Sharing::Locked);
        assert!(second.recv_timeout(MOMENT).is_err());
        let place = first.directory();
        drop(first);
        assert_eq!(second.recv_timeout(Duration::from_secs(20)).unwrap().directory(), place);
    }

    /// Whoever came first kept everybody else out until its step was over.
    #[test]
    fn shared_users_use_a_cache_together_from_the_first_on() {
        let root = tempfile::tempdir().unwrap();
        let mut first = claim(root.path(), Sharing::Shared);
        assert!(first.is_new());
        let second = later(root.path(), Sharing::Shared);
        assert!(second.recv_timeout(MOMENT).is_err(), "it has no content yet");
        std::fs::create_dir(first.data()).unwrap();
        first.filled().unwrap();
        let second = second.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(second.directory(), first.directory());
        let locked = later(root.path(), Sharing::Locked);
        assert!(locked.recv_timeout(MOMENT).is_err());
        drop((first, second));
        locked.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_filler_that_fails_leaves_it_to_the_next() {
        let root = tempfile::tempdir().unwrap();
        drop(claim(root.path(), Sharing::Shared));
        assert!(claim(root.path(), Sharing::Shared).is_new());
    }

    #[test]
    fn waiting_ends_with_the_build() {
        let root = tempfile::tempdir().unwrap();
        let _first = fill(root.path(), Sharing::Locked);
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        for sharing in [Sharing::Locked, Sharing::Shared] {
            assert!(Cache::claim(root.path(), "key", sharing, &cancel).is_err());
        }
    }

    #[test]
    fn a_lock_goes_with_a_killed_holder() {
        let root = tempfile::tempdir().unwrap();
        let cache = fill(root.path(), Sharing::Locked);
        let lock = cache.directory().join("lock");
        drop(cache);
        // flock(1) is of util-linux, which is essential in Debian.
        let mut holder = Command::new("flock")
            .arg("-o")
            .arg(&lock)
            .args(["sleep", "60"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let probe = File::open(&lock).unwrap();
        while probe.try_lock().is_ok() {
            probe.unlock().unwrap();
            assert!(begun.elapsed() < Duration::from_secs(20), "flock never took the lock");
            std::thread::sleep(Duration::from_millis(5));
        }
        let next = later(root.path(), Sharing::Locked);
        assert!(next.recv_timeout(MOMENT).is_err());
        holder.kill().unwrap();
        holder.wait().unwrap();
        next.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
