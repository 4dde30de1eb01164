//! kiln's side of a running step: starts the watching child, hands on what the step prints, and cleans up after it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use super::child::{Role, command};
use super::limits::LIMITS;
use super::private::send_descriptors;
use super::targets::Held;
use super::wire::{Failure, Order, Receiver, Report, send};
use super::{Ended, Exit, SandboxError, Task, reap};
use crate::event::OutputStream;

/// As much as a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;

type Output<'a> = dyn FnMut(OutputStream, &[u8]) + 'a;

/// Runs one step by the child that `order` describes, which gets the descriptors `handed` for the case that kiln is killed.
pub(super) fn run(
    task: &Task,
    order: &Order,
    handed: &[BorrowedFd<'_>],
    output: &mut Output<'_>,
) -> Result<Ended, SandboxError> {
    let is_limit = |name: &str| LIMITS.iter().any(|(known, _)| *known == name);
    if let Some(limit) = task.ulimits.iter().find(|limit| !is_limit(&limit.name)) {
        return Err(SandboxError::UnknownUlimit { name: limit.name.clone() });
    }
    if task.cancel.is_cancelled() {
        return Err(SandboxError::Cancelled);
    }
    let mut stubs = Held::new(&task.root).map_err(|source| SandboxError::Setup {
        action: format!("open the root `{}`", task.root.display()),
        source,
    })?;
    let (mut hidden, mut still) = (Vec::new(), Vec::new());
    let ended = Running::start(order, handed).and_then(|mut running| {
        let ended = running.follow(task, &mut stubs, output);
        (hidden, still) = (std::mem::take(&mut running.hidden), std::mem::take(&mut running.still));
        running.end(ended)
    });
    let cleaned = stubs.remove().map_err(|(path, source)| SandboxError::Cleanup { path, source });
    let exit = ended?;
    cleaned?;
    if task.cancel.is_cancelled() { Err(SandboxError::Cancelled) } else { Ok(Ended { exit, hidden, still }) }
}

/// A watching child and the ends of its pipes; a closed pipe is `None`.
struct Running {
    child: Child,
    /// When the child was started: what comes from the step is younger.
    started: u64,
    socket: UnixStream,
    receiver: Receiver<UnixStream>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// What the step does not see of its root.
    hidden: Vec<PathBuf>,
    /// What of it the step did not touch.
    still: Vec<PathBuf>,
}

impl Running {
    fn start(order: &Order, handed: &[BorrowedFd<'_>]) -> Result<Self, SandboxError> {
        let failed =
            |source: io::Error| SandboxError::Child { action: "start a process for the step", source };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| failed(errno.into()))?;
        let mut child = command(Role::Step)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let socket = UnixStream::from(ours);
        let receiver = Receiver::new(socket.try_clone().map_err(failed)?);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let started = reap::started_of(child.id()).map_err(failed)?;
        let running = Self {
            child,
            started,
            socket,
            receiver,
            stdout,
            stderr,
            buffer: vec![0; BUFFER_BYTES],
            hidden: Vec::new(),
            still: Vec::new(),
        };
        for pipe in running.stdout.iter().chain(&running.stderr) {
            // Only then can the rest be read without waiting for whoever may still hold the other end.
            rustix::io::ioctl_fionbio(pipe, true).map_err(|errno| failed(errno.into()))?;
        }
        // A child that died meanwhile is reported by how it ended, not by this.
        let _ = send_descriptors(&running.socket, handed).and_then(|()| send(&running.socket, order));
        Ok(running)
    }

    /// Hands on output until the child reports the end.
    fn follow(
        &mut self,
        task: &Task,
        stubs: &mut Held,
        output: &mut Output<'_>,
    ) -> Result<LastWords, SandboxError> {
        let failed = |source: io::Error| SandboxError::Child { action: "talk to the step's process", source };
        let mut last = LastWords::default();
        let mut cancelled = false;
        loop {
            let ready = self.wait(task, cancelled).map_err(failed)?;
            if ready.cancel {
                // The child sees the end of its connection and ends the step.
                shutdown(&self.socket, Shutdown::Write).map_err(|errno| failed(errno.into()))?;
                // If a step has stopped it; it may have ended.
                let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT);
                cancelled = true;
            }
            self.hand_on(output).map_err(failed)?;
            if !ready.socket {
                continue;
            }
            match self.receiver.receive::<Report>().map_err(failed)? {
                Some(Report::Stubs(made)) => {
                    stubs.hold(&made).map_err(failed)?;
                    // If it was cancelled meanwhile the child knows by now.
                    let _ = send(&self.socket, &());
                }
                // It finds out by the answer whether there is somebody who looks after the volumes.
                Some(Report::Over) => drop(send(&self.socket, &())),
                Some(Report::Warning(text)) => {
                    output(OutputStream::Stderr, format!("kiln: warning: {text}\n").as_bytes());
                }
                Some(Report::Hidden(path)) => self.hidden.push(path.into()),
                // The first counts: others follow from it.
                Some(Report::NotStarted(failure) | Report::Failed(failure)) => {
                    last.failure.get_or_insert(failure);
                }
                Some(Report::Ended { exit, still }) => {
                    last.exit = Some(exit);
                    self.still = still.into_iter().map(PathBuf::from).collect();
                }
                None => break,
            }
        }
        // Everybody who wrote is dead: what there is to read is in the pipes.
        while self.hand_on(output).map_err(failed)? {}
        Ok(last)
    }

    fn wait(&self, task: &Task, cancelled: bool) -> io::Result<Ready> {
        let cancel_events = if cancelled { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::from_borrowed_fd(task.cancel.as_fd(), cancel_events),
        ];
        fds.extend(self.stdout.iter().chain(&self.stderr).map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => Ok(Ready {
                socket: !fds[0].revents().is_empty(),
                cancel: !cancelled && fds[1].revents().contains(PollFlags::IN),
            }),
            Err(rustix::io::Errno::INTR) => Ok(Ready { socket: false, cancel: false }),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Hands on one bufferful of each stream that has something, and tells whether any had.
    fn hand_on(&mut self, output: &mut Output<'_>) -> io::Result<bool> {
        let mut any = false;
        for (pipe, stream) in
            [(&mut self.stdout, OutputStream::Stdout), (&mut self.stderr, OutputStream::Stderr)]
        {
            let Some(open) = pipe.as_ref() else { continue };
            match rustix::io::read(open, &mut self.buffer[..]) {
                Ok(0) => *pipe = None,
                Ok(length) => {
                    output(stream, &self.buffer[..length]);
                    any = true;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(any)
    }

    /// Waits for the child itself and makes its last word the result.
    fn end(mut self, followed: Result<LastWords, SandboxError>) -> Result<Exit, SandboxError> {
        // After an error of ours the step still has to end: closing the connection does it.
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.stdout = None;
        self.stderr = None;
        let status = self
            .child
            .wait()
            .map_err(|source| SandboxError::Child { action: "wait for the step's process", source })?;
        let exit = match &followed {
            Ok(LastWords { exit, .. }) if status.success() => *exit,
            _ => None,
        };
        if exit.is_none() {
            // Whoever killed the watcher, or had it fail, did not get away with it: kiln has adopted what it watched over.
            reap::kill_strays(self.started)
                .map_err(|source| SandboxError::Child { action: "end what the step left running", source })?;
        }
        match (followed?.failure, exit) {
            (Some(failure), _) => Err(failure.into()),
            (None, Some(exit)) => Ok(exit),
            (None, None) => Err(SandboxError::ChildVanished { status }),
        }
    }
}

/// What the child said at its end.
#[derive(Debug, Default)]
struct LastWords {
    failure: Option<Failure>,
    /// The step was ended, all of it, and everything was put back.
    exit: Option<Exit>,
}

struct Ready {
    socket: bool,
    cancel: bool,
}
