//! The keeper: the process that kiln was started as, where steps have no pid namespace. kiln itself goes on as its child.
//!
//! It has one thread, does next to nothing and so needs next to nothing: it hands signals on, waits for kiln, and ends with
//! kiln's code. When kiln is killed, the keeper is the child subreaper that adopts what a step has running, however
//! many of kiln's processes were killed with it; it ends all of that, puts the container's files back, and does what a
//! [`Successor`] does.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open, set_child_subreaper};
use serde::{Deserialize, Serialize};

use super::cache_files::{CacheFiles, Depth};
use super::guard::KilnFiles;
use super::presence::Presence;
use super::private::{Reach, Record, receive_descriptors, send_descriptors};
use super::reap::{self, Children};
use super::successor::Successor;
use super::surroundings::Surroundings;
use super::swap::Swap;
use super::sys::{self, Fork};
use super::task::Exit;
use super::volumes::{self, Noted};
use super::wire::{Receiver, path, send};
use super::{CacheDirectory, LaunchOptions};
use crate::tree::RootDir;

/// How long a start waits for the processes of a killed kiln to finish what they do.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long the watcher of a killed kiln may take to put things back: it may have gigabytes to move out of a volume.
const PUTTING_BACK: Duration = Duration::from_secs(60);

/// Signals that come this soon after the first are the same: a process group, and the keeper that hands them on, may each give
/// kiln one.
pub const SIGNALS_TOGETHER: Duration = Duration::from_millis(200);

/// How long an answer may take: longer than a loaded machine makes anybody wait, and no longer than a user does.
const ANSWER: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How long it may take to look at all of the volumes and caches.
const LOOKING: Timespec = Timespec { tv_sec: 600, tv_nsec: 0 };

/// What kiln says to its keeper; the descriptors of a charge go before.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// These files are about to be emptied; instead of any charge before.
    Charge(Box<Charge>),
    /// A step begins: how the volumes are is to be noted.
    StepBegins,
    /// kiln has put right what the step did.
    StepEnded,
    /// That could not be done: nothing is to be refilled.
    GiveUp,
    /// The files are as before, there is nothing to refill.
    Discharge,
}

/// What there is to put right if kiln is killed.
#[derive(Debug, Serialize, Deserialize)]
struct Charge {
    #[serde(with = "path")]
    state_dir: PathBuf,
    #[serde(with = "path")]
    secrets_dir: PathBuf,
    records: Vec<Record>,
    kiln_files: KilnFiles,
    caches: Vec<CacheDirectory>,
    /// Steps run in place: what stays in its place beside them is noted before the first.
    is_in_place: bool,
}

/// The same as the keeper has it.
#[derive(Debug)]
struct Held {
    state_dir: PathBuf,
    secrets_dir: PathBuf,
    successor: Successor,
    /// The volumes before the step that is running.
    noted: Noted,
    caches: Vec<CacheDirectory>,
    /// The same, before that step.
    cache_files: Option<CacheFiles>,
    surroundings: Option<Surroundings>,
    /// Where steps are in place.
    #[expect(dead_code, reason = "it is held for its lock")]
    presence: Option<Presence>,
}

/// kiln's connection to its keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    socket: UnixStream,
    receiver: Mutex<Receiver<UnixStream>>,
}

impl Keeper {
    /// Makes this process, which has one thread, the keeper, and goes on as its child: only there does this return.
    pub(super) fn stay_behind() -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match sys::fork()? {
            Fork::Child => {
                drop(theirs);
                let socket = UnixStream::from(ours);
                let receiver = Mutex::new(Receiver::new(socket.try_clone()?));
                Ok(Self { socket, receiver })
            }
            Fork::Parent(kiln) => {
                drop(ours);
                std::process::exit(keep(kiln, UnixStream::from(theirs)).unwrap_or(1))
            }
        }
    }

    /// Tells what is to be put right if kiln is killed, by which descriptors.
    pub(super) fn charge(
        &self,
        options: &LaunchOptions,
        records: Vec<Record>,
        descriptors: &[BorrowedFd<'_>],
        is_in_place: bool,
    ) -> io::Result<()> {
        let charge = Charge {
            state_dir: options.state_dir.clone(),
            secrets_dir: options.secrets_dir.clone(),
            records,
            kiln_files: options.kiln_files.clone(),
            caches: options.cache_directories.clone(),
            is_in_place,
        };
        self.say(&Word::Charge(Box::new(charge)), descriptors)
    }

    /// Tells that a step begins. Like all of these an error if the keeper is not there any more.
    pub(super) fn step_begins(&self) -> io::Result<()> {
        self.say(&Word::StepBegins, &[])
    }

    /// Tells that what it did has been put right.
    pub(super) fn step_ended(&self) -> io::Result<()> {
        self.say(&Word::StepEnded, &[])
    }

    /// Tells that this could not be done.
    pub(super) fn give_up(&self) -> io::Result<()> {
        self.say(&Word::GiveUp, &[])
    }

    /// Tells that the files are as before.
    pub(super) fn discharge(&self) -> io::Result<()> {
        self.say(&Word::Discharge, &[])
    }

    /// Returns when the keeper has ended.
    pub(super) fn wait_for_end(&self) {
        while !matches!(poll(&mut [PollFd::new(&self.socket, PollFlags::RDHUP)], None), Ok(1..)) {}
    }

    fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        send_descriptors(&self.socket, descriptors)?;
        send(&self.socket, word)?;
        let patience = match word {
            Word::StepBegins => LOOKING,
            Word::Charge(_) | Word::StepEnded | Word::GiveUp | Word::Discharge => ANSWER,
        };
        if poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        receiver.receive::<()>()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Waits until nobody holds `/` for steps without namespaces, or for a while: a killed kiln's processes may be at work. Tells
/// whether nobody does; a kiln that lives holds it, too.
pub(super) fn wait() -> io::Result<bool> {
    let root = std::fs::File::open("/")?;
    let begin = Instant::now();
    loop {
        match flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tells whether somebody holds `/` now.
pub(super) fn is_claimed() -> io::Result<bool> {
    match flock(&std::fs::File::open("/")?, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// The keeper's life; returns its exit code.
fn keep(kiln: Pid, socket: UnixStream) -> io::Result<i32> {
    // As in kiln: what cannot be hidden is no reason to end.
    let _ = super::conceal();
    let children = Children::open()?;
    reap::outlive_limits()?;
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signals = SignalFd::new(&signals)?;
    let ended = pidfd_open(kiln, PidfdFlags::empty())?;
    let mut receiver = Receiver::new(socket.try_clone()?);
    let mut held: Option<Held> = None;
    let mut is_talking = true;
    let mut handed_on: Option<Instant> = None;
    let mut deadline: Option<Instant> = None;
    loop {
        let mut fds = vec![
            PollFd::new(&ended, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        fds.extend(is_talking.then(|| PollFd::new(&socket, PollFlags::IN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, left.as_ref()) {
            // Asked twice it ends at once, unless somebody stops it.
            Ok(0) => {
                deadline = None;
                give(Signal::SIGKILL, kiln);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.get(2) == Some(&true) {
            is_talking = listen(&socket, &mut receiver, &mut held).unwrap_or(false);
        }
        if ready[1]
            && let Some(signal) = signals.read_signal()?
        {
            let number = i32::try_from(signal.ssi_signo).ok();
            if let Some(signal) = number.and_then(|number| Signal::try_from(number).ok()) {
                give(signal, kiln);
            }
            // A step may have stopped it.
            give(Signal::SIGCONT, kiln);
            let is_second = handed_on.is_some_and(|first| first.elapsed() > SIGNALS_TOGETHER);
            deadline = deadline.or(is_second.then(|| Instant::now() + PATIENCE));
            handed_on.get_or_insert_with(Instant::now);
        }
        if ready[0] {
            let exit = reap::wait_for(kiln)?;
            // What was said last counts, too.
            while is_talking && listen(&socket, &mut receiver, &mut held).unwrap_or(false) {}
            return Ok(settle(exit, held, &children));
        }
    }
}

/// Gives a signal to kiln.
fn give(signal: Signal, kiln: Pid) {
    // It may have ended this moment.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(kiln.as_raw_nonzero().get()), signal);
}

/// Hears what kiln says; `false` if that was the last.
fn listen(
    socket: &UnixStream,
    receiver: &mut Receiver<UnixStream>,
    held: &mut Option<Held>,
) -> io::Result<bool> {
    let Some(descriptors) = receive_descriptors(socket)? else { return Ok(false) };
    let Some(word) = receiver.receive()? else { return Ok(false) };
    match (word, held.as_mut()) {
        (Word::Charge(charge), _) => {
            let Charge { state_dir, secrets_dir, records, kiln_files, caches, is_in_place } = *charge;
            let surroundings = is_in_place.then(|| Surroundings::note(&records)).transpose()?;
            let presence = is_in_place.then(|| Presence::begin(&state_dir)).transpose()?;
            let successor =
                Successor::new(descriptors, &state_dir, (Reach::of_steps(is_in_place), records), kiln_files)?;
            let (noted, cache_files) = (Noted::default(), None);
            *held = Some(Held {
                state_dir,
                secrets_dir,
                successor,
                noted,
                caches,
                cache_files,
                surroundings,
                presence,
            });
        }
        (Word::StepBegins, Some(held)) => {
            held.successor.step_begins();
            held.noted = Noted::of_all(&held.state_dir)?;
            held.cache_files = Some(CacheFiles::note(&held.caches, Depth::Looks)?);
        }
        (Word::StepEnded, Some(held)) => {
            held.successor.step_ended();
            (held.noted, held.cache_files) = (Noted::default(), None);
        }
        (Word::GiveUp, Some(held)) => held.successor.give_up(None),
        (Word::StepBegins | Word::StepEnded | Word::GiveUp, None) => {}
        (Word::Discharge, _) => *held = None,
    }
    send(socket, &())?;
    Ok(true)
}

/// No component of the path may have become a link.
fn remove_secrets(directory: &Path) -> io::Result<()> {
    match (directory.parent(), directory.file_name()) {
        (Some(parent), Some(name)) => RootDir::open_exact(parent)?.remove_all(name),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Puts right what kiln left; returns the exit code.
fn settle(exit: Exit, held: Option<Held>, children: &Children) -> i32 {
    let code = exit.code();
    let tell = |text: String| {
        // Nobody may be listening any more.
        let _ = writeln!(std::io::stderr(), "kiln: {text}");
        if code == 0 { 1 } else { code }
    };
    let nobody_left = match reap::end_all(children, PUTTING_BACK) {
        Ok(nobody_left) => nobody_left,
        Err(error) => return tell(format!("{error}: credentials that were hidden from steps stay empty")),
    };
    let Some(Held { state_dir, secrets_dir, successor, surroundings, mut noted, mut cache_files, .. }) = held
    else {
        return code;
    };
    if let Err(error) = Swap::recover(&state_dir, |_| Ok(())) {
        return tell(format!("cannot put the container's own files back: {error}"));
    }
    let around = surroundings.map_or(Ok(()), |surroundings| surroundings.put_back().check().map(drop));
    let around = around.err().map(|error| error.to_string());
    // The watcher may have done this before, and has left word of what it could not do.
    let kept = volumes::keep_unsettled(&state_dir, &noted.settle());
    let unsettled = kept.and_then(|()| {
        let unsettled = volumes::unsettled_paths(&state_dir)?;
        volumes::clear_for_dead(&state_dir).map(|()| unsettled)
    });
    let named = |paths: Vec<PathBuf>| (!paths.is_empty()).then(|| volumes::few(&paths));
    let of_volumes = unsettled.map_or_else(|error| Some(format!("the volumes: {error}")), named);
    let caches = cache_files.as_mut().map_or(Ok(Vec::new()), CacheFiles::settle);
    let of_caches = caches.err().map(|error| format!("the local caches: {error}"));
    // What was lent to the step that ran; the rest of the build's directory waits for the next start.
    match remove_secrets(&secrets_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return tell(format!("cannot remove the secrets in `{}`: {error}", secrets_dir.display()));
        }
        _ => {}
    }
    match successor.settle(nobody_left, around.or(of_volumes).or(of_caches)) {
        Ok(()) => code,
        Err(text) => tell(text),
    }
}
