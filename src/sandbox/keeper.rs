//! The keeper of credentials: a process apart from all of kiln's others that puts everything back, the content of emptied
//! files included, when every one of those was killed at once.
//!
//! It is nobody's child (so whoever kills kiln with its children misses it), waits for kiln to end, and then for the
//! journal of the step that ran, which is locked as long as somebody watches over it.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::child::{Role, command};
use super::private;
use super::swap::Swap;
use super::sys::{self, Fork};
use super::wire::{Receiver, path, send};

/// In the state directory: locked by every keeper as long as it lives.
const LOCK: &str = "keeper.lock";

/// How long a start waits for the processes of a killed kiln to finish what they do.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a keeper is told.
#[derive(Debug, Serialize, Deserialize)]
struct Charge {
    kiln: i32,
    #[serde(with = "path")]
    state_dir: PathBuf,
    files: Vec<std::ffi::OsString>,
}

/// Starts a keeper for this process; returns when it has read the files.
pub(super) fn start(state_dir: &Path, files: &[PathBuf]) -> io::Result<()> {
    std::fs::create_dir_all(state_dir)?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut child =
        command(Role::Keep).stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let socket = UnixStream::from(ours);
    let charge = Charge {
        kiln: rustix::process::getpid().as_raw_nonzero().get(),
        state_dir: state_dir.to_path_buf(),
        files: files.iter().map(Into::into).collect(),
    };
    send(&socket, &charge)?;
    let ready = Receiver::new(&socket).receive::<()>();
    child.wait()?;
    ready?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The `main` of a keeper; returns its exit code.
pub(super) fn main() -> i32 {
    match sys::fork() {
        // Whose parent ends is adopted by the container's first process.
        Ok(Fork::Parent(_)) => 0,
        Ok(Fork::Child) => i32::from(keep().is_err()),
        Err(_) => 2,
    }
}

fn keep() -> io::Result<()> {
    rustix::process::setsid()?;
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let charge: Charge = Receiver::new(&socket).receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let lock = lock_file(&charge.state_dir)?;
    flock(&lock, FlockOperation::LockShared)?;
    let pid = Pid::from_raw(charge.kiln).ok_or(io::ErrorKind::InvalidInput)?;
    let kiln = pidfd_open(pid, PidfdFlags::empty())?;
    let files: Vec<PathBuf> = charge.files.into_iter().map(PathBuf::from).collect();
    let files = private::read(&files)?;
    // Whoever started this is waiting, so it lives, and the descriptor is its own.
    send(&socket, &())?;
    drop(socket);
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    while let Err(rustix::io::Errno::INTR) = poll(&mut [PollFd::new(&kiln, PollFlags::IN)], None) {}
    let begin = Instant::now();
    loop {
        match Swap::recover(&charge.state_dir, &files) {
            Ok(_) => return Ok(()),
            // The watcher is putting everything back.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits, for a while, until no keeper is at work.
pub(super) fn wait(state_dir: &Path) -> io::Result<()> {
    let lock = lock_file(state_dir)?;
    let begin = Instant::now();
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            // A kiln that lives has one, too: then the journal tells.
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn lock_file(state_dir: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(state_dir.join(LOCK))
}
