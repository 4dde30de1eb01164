//! Waiting for locks between processes, and saying who is waited for.
//!
//! All locks are `flock`s: the kernel drops them when a process dies, however it dies. A lock that is not had at once
//! is waited for as long as it takes, or as long as such locks are held at most; after a moment, and ever more seldom, the
//! user hears which file it is, who has locked it, and for how long it has been waited for.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::event::{Event, Reporter};

/// Shorter waits are everyday's.
const FIRST_NEWS: Duration = Duration::from_secs(2);

/// Each is twice as long as the one before, up to this.
const MOST_NEWS: Duration = Duration::from_secs(60);

/// How often a lock is tried again: at first, and later.
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// With others who share it.
    Shared,
    /// With nobody.
    Exclusive,
}

/// Locks `file`, as `wait` says.
pub fn lock(file: &File, kind: LockKind, mut wait: Wait) -> io::Result<()> {
    let mut pause = SHORTEST_PAUSE;
    while !try_lock(file, kind)? {
        wait.goes_on(file)?;
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Locks `file` if that is possible at once.
pub fn try_lock(file: &File, kind: LockKind) -> Result<bool, Errno> {
    let operation = match kind {
        LockKind::Shared => FlockOperation::NonBlockingLockShared,
        LockKind::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match retry(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn retry(mut lock: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match lock() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A wait for a lock, by whoever tries it again and again.
#[derive(Debug)]
pub struct Wait {
    path: PathBuf,
    reporter: Reporter,
    begun: Instant,
    told: Instant,
    pause: Duration,
    limit: Option<Duration>,
}

impl Wait {
    /// Begins to wait for the lock at `path`.
    pub fn begin(path: &Path, reporter: &Reporter) -> Self {
        let now = Instant::now();
        Self {
            path: path.to_owned(),
            reporter: reporter.clone(),
            begun: now,
            told: now,
            pause: FIRST_NEWS,
            limit: None,
        }
    }

    /// Has it be an error if it takes longer.
    pub fn at_most(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Says that `file` is still locked, if it is time to.
    pub fn goes_on(&mut self, file: &File) -> io::Result<()> {
        let inode = || file.metadata().map_or(0, |metadata| metadata.ino());
        if self.limit.is_some_and(|limit| self.begun.elapsed() >= limit) {
            let text = format!(
                "for {} s it was held by {}",
                self.begun.elapsed().as_secs(),
                named(&holders(inode()))
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        if self.told.elapsed() >= self.pause {
            self.tell(&holders(inode()));
        }
        Ok(())
    }

    fn tell(&mut self, holders: &[String]) {
        let hint = match holders {
            [] => "another container or machine may be using the same directory",
            _ => "the work goes on as soon as that process lets go or ends",
        };
        let text = format!(
            "waiting for {} s for the lock `{}`, which is held by {}",
            self.begun.elapsed().as_secs(),
            self.path.display(),
            named(holders)
        );
        self.reporter.report(Event::Warning { text, hint: Some(hint.to_owned()) });
        self.told = Instant::now();
        self.pause = (self.pause * 2).min(MOST_NEWS);
    }
}

fn named(holders: &[String]) -> String {
    match holders {
        [] => "a process that cannot be seen from here".to_owned(),
        _ => holders.join(", "),
    }
}

/// Lists who has locked a file, by `/proc/locks`. The device there is not always the one that `stat` gives.
fn holders(inode: u64) -> Vec<String> {
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut pids: Vec<u32> = locks.lines().filter_map(|line| holder(line, inode)).collect();
    pids.dedup();
    pids.into_iter()
        .map(|pid| {
            let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let command: String = command.chars().filter(|letter| !letter.is_control()).collect();
            if command.is_empty() { format!("process {pid}") } else { format!("process {pid} (`{command}`)") }
        })
        .collect()
}

/// Reads a line as `1: FLOCK  ADVISORY  WRITE 812 fd:01:5243 0 EOF`; `1: -> FLOCK …` is one who waits (`proc_locks(5)`).
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid != 0)?;
    let found = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
    (found == inode).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_from_who_waits() {
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 812 fd:01:5243 0 EOF", 5243), Some(812));
        assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 812 fd:01:5243 0 EOF", 524), None);
        assert_eq!(holder("1: -> FLOCK  ADVISORY  READ 813 fd:01:5243 0 EOF", 5243), None);
        assert_eq!(holder("2: POSIX  ADVISORY  WRITE 812 fd:01:5243 0 EOF", 5243), None);
        assert_eq!(holder("2: FLOCK  ADVISORY  WRITE 0 fd:01:5243 0 EOF", 5243), None);
    }

    #[test]
    fn a_lock_of_this_process_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(try_lock(file.as_file(), LockKind::Exclusive).unwrap());
        let found = holders(file.as_file().metadata().unwrap().ino());
        assert!(found.iter().any(|who| who.contains(&std::process::id().to_string())), "{found:?}");
        let second = File::open(file.path()).unwrap();
        assert!(!try_lock(&second, LockKind::Shared).unwrap());
        let wait = Wait::begin(file.path(), &Reporter::silent()).at_most(Duration::from_millis(5));
        let error = lock(&second, LockKind::Shared, wait).unwrap_err().to_string();
        assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    }
}
