//! The directories of cache mounts, which outlive the build, and who may use them now.
//!
//! A lock is the system's: it goes with the process that holds it, however that ends. Steps write to what is in `data`, and
//! where they have no namespaces to everything here: no link is followed out of a cache's directory, or into it.

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
    directory: RootDir,
    lock: File,
    sharing: Sharing,
    is_new: bool,
}

impl Cache {
    /// Takes the cache called `key` below `root`. One that is private is another one if the first is in use.
    pub(super) fn claim(root: &Path, key: &str, sharing: Sharing, cancel: &Cancel) -> Result<Self, Problem> {
        let root = &canonical(root).map_err(io_problem("create the caches", root))?;
        for number in 0.. {
            let name = if number == 0 { key.to_owned() } else { format!("{key}-{number}") };
            let (directory, lock) = open(root, &name)?;
            let path = directory.path().join("lock");
            let has_lock = match sharing {
                Sharing::Private => try_lock(&lock, FlockOperation::NonBlockingLockExclusive),
                Sharing::Locked => wait(cancel, || try_lock(&lock, FlockOperation::NonBlockingLockExclusive)),
                Sharing::Shared => wait(cancel, || share(&lock, &directory)),
            };
            if has_lock.map_err(io_problem("lock the cache", &path))? {
                let is_new = !has_content(&directory).map_err(io_problem("open the cache", &path))?;
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
        let root = &canonical(root).map_err(io_problem("create the caches", root))?;
        let (directory, lock) = open(root, key)?;
        let path = directory.path().join("lock");
        let begun = Instant::now();
        while !try_lock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io_problem("lock the cache", &path))?
        {
            if cancel.is_cancelled() || begun.elapsed() > patience {
                return Ok(None);
            }
            std::thread::sleep(PATIENCE);
        }
        let has_content = has_content(&directory).map_err(io_problem("open the cache", &path))?;
        Ok(has_content.then_some(Self { directory, lock, sharing: Sharing::Locked, is_new: false }))
    }

    /// Returns the directory of the cache and of what belongs to it.
    pub(super) fn directory(&self) -> &RootDir {
        &self.directory
    }

    /// Returns where the content is, without links.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Opens the content.
    pub(super) fn content(&self) -> Result<RootDir, Problem> {
        let data = self.data();
        RootDir::open_exact(&data).map_err(io_problem("open the cache", &data))
    }

    /// Lets go of the cache, but not of its directory.
    pub(super) fn let_go(self) -> RootDir {
        self.directory
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
        let path = self.directory.path().join("lock");
        rustix::fs::flock(&self.lock, FlockOperation::LockShared)
            .map_err(|e| io_problem("lock the cache", &path)(e.into()))
    }
}

/// Makes the directory of all caches, and returns where it is without links: only the directory around it may be behind one.
fn canonical(root: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(root)?;
    match (root.parent(), root.file_name()) {
        (Some(around), Some(name)) => Ok(around.canonicalize()?.join(name)),
        _ => root.canonicalize(),
    }
}

/// Opens a cache's directory, which is made if it is missing, and its lock.
fn open(root: &Path, name: &str) -> Result<(RootDir, File), Problem> {
    let path = root.join(name);
    let make = || match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => RootDir::open_exact(&path),
    };
    let directory = make().map_err(io_problem("create the cache", &path))?;
    let lock = directory.open_or_create("lock", 0o644);
    Ok((directory, lock.map_err(io_problem("lock the cache", &path.join("lock")))?))
}

fn has_content(directory: &RootDir) -> io::Result<bool> {
    directory.exists("data")
}

/// Takes an empty cache alone, to fill it, and any other together with others.
fn share(lock: &File, directory: &RootDir) -> io::Result<bool> {
    if !has_content(directory)? {
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
    let entries = match dir.canonicalize().and_then(std::fs::read_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut removed = 0;
    for entry in entries {
        let Ok(directory) = RootDir::open_exact(&entry?.path()) else { continue };
        let Ok(lock) = directory.open_nofollow("lock") else { continue };
        if lock.try_lock().is_ok() && has_content(&directory)? {
            // The lock's file stays: another build may be waiting for it.
            directory.remove_all("data")?;
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
        assert_ne!(first.data(), second.data());
        let place = first.data();
        drop(first);
        let third = claim(root.path(), Sharing::Private);
        assert_eq!(third.data(), place);
        assert!(!third.is_new());
    }

    #[test]
    fn locked_users_wait_for_each_other() {
        let root = tempfile::tempdir().unwrap();
        let first = fill(root.path(), Sharing::Locked);
        let second = later(root.path(), Sharing::Locked);
        assert!(second.recv_timeout(MOMENT).is_err());
        let place = first.data();
        drop(first);
        assert_eq!(second.recv_timeout(Duration::from_secs(20)).unwrap().data(), place);
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
        assert_eq!(second.data(), first.data());
        let locked = later(root.path(), Sharing::Locked);
        assert!(locked.recv_timeout(MOMENT).is_err());
        drop((first, second));
        locked.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    /// Steps without namespaces can write here: an emptied file of kiln's user, or a cache of all of `/`, would be the least.
    #[test]
    fn links_in_the_place_of_what_is_kilns_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let precious = root.path().join("precious");
        std::fs::write(&precious, "precious").unwrap();
        let cache = fill(root.path(), Sharing::Shared);
        let (directory, data) = (cache.directory().path().to_path_buf(), cache.data());
        drop(cache);
        let replace = |path: &Path, to: &Path| {
            std::fs::rename(path, root.path().join("old")).unwrap();
            std::os::unix::fs::symlink(to, path).unwrap();
        };
        let put_back = |path: &Path| {
            std::fs::remove_file(path).unwrap();
            std::fs::rename(root.path().join("old"), path).unwrap();
        };
        let try_claim = || Cache::claim(root.path(), "key", Sharing::Shared, &Cancel::new().unwrap());
        replace(&directory.join("lock"), &precious);
        assert!(try_claim().is_err());
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
        put_back(&directory.join("lock"));
        replace(&data, Path::new("/"));
        assert!(try_claim().unwrap().content().is_err());
        assert_eq!(prune_cache_mounts(root.path()).unwrap(), 1, "the link goes, and nothing else");
        std::fs::rename(root.path().join("old"), &data).unwrap();
        replace(&directory, Path::new("/"));
        assert!(try_claim().is_err());
        put_back(&directory);
        let all = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), all.path().join("mounts")).unwrap();
        let cancel = Cancel::new().unwrap();
        assert!(Cache::claim(&all.path().join("mounts"), "key", Sharing::Shared, &cancel).is_err());
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
        let lock = cache.directory().path().join("lock");
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
