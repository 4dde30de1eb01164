//! Who is at work where a step in place can write: kiln, its keeper and the process that watches over a step, each for as long as
//! it has something to put right.
//!
//! They share a lock on the state directory. Whoever has it alone knows that none of them lives, so what is not as it should be
//! is left for good.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::Signal;

use super::reap;

/// How long between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(10);

/// A share of the lock; the kernel takes it back from who is killed.
#[derive(Debug)]
pub(super) struct Presence(#[expect(dead_code, reason = "it is held for its lock")] File);

impl Presence {
    /// Takes it in a directory that is there. Who is putting right what is left there is waited for.
    pub(super) fn begin(state_dir: &Path) -> io::Result<Self> {
        let directory = directory(state_dir)?;
        flock(&directory, FlockOperation::LockShared)?;
        Ok(Self(directory))
    }
}

/// That nobody else is at work, as long as it lives.
#[derive(Debug)]
pub(super) struct Alone(#[expect(dead_code, reason = "it is held for its lock")] Option<File>);

impl Alone {
    /// `WouldBlock` if somebody is.
    pub(super) fn now(state_dir: &Path) -> io::Result<Self> {
        let directory = match directory(state_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(None)),
            other => other?,
        };
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(Some(directory))),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            // A file system without such locks, where no step in place can have its files.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::BADF | Errno::INVAL) => Ok(Self(None)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same after those are done who take no longer than `patience`.
    pub(super) fn within(state_dir: &Path, patience: Duration) -> io::Result<Self> {
        let begin = Instant::now();
        let mut is_awake = false;
        loop {
            match Self::now(state_dir) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < patience => {
                    if begin.elapsed() > patience / 2 {
                        // Who was stopped again has a step beside it that does that.
                        reap::signal_stopped(Signal::KILL)?;
                    } else if !is_awake {
                        reap::signal_stopped(Signal::CONT)?;
                        is_awake = true;
                    }
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }
}

fn directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_alone_beside_others() {
        let directory = tempfile::tempdir().unwrap();
        let is_alone = || Alone::now(directory.path()).is_ok();
        let both = [Presence::begin(directory.path()).unwrap(), Presence::begin(directory.path()).unwrap()];
        assert!(!is_alone());
        let [one, other] = both;
        drop(one);
        assert!(!is_alone());
        drop(other);
        assert!(is_alone());
        assert!(Alone::now(&directory.path().join("none")).is_ok());
    }
}
