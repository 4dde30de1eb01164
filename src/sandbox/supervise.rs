//! The child process that watches over one step.
//!
//! It forks the step and stays outside its namespaces. It ends the step when kiln says so or is gone, kills what the
//! step leaves behind, and only then reports.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::SandboxError;
use super::in_place::Occupied;
use super::journal::Journal;
use super::limits::Limits;
use super::placing::Placed;
use super::presence::Presence;
use super::private::{Reach, receive_descriptors};
use super::reap::{self, Children};
use super::successor::Successor;
use super::surroundings::Surroundings;
use super::sys::{self, Fork};
use super::task::{DEFAULT_HOSTNAME, Exit, Mount, MountKind, Network};
use super::wire::{Failure, Order, Receiver, Report, send};
use super::{LaunchKind, chroot, in_place, namespaces, process};

/// How often orphans that have ended are collected while the step runs.
const COLLECT_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// How long a killed process may take to end after it has closed its files: some time on a machine with other work.
const DYING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// kiln's connection: reports go out, answers come in, and its end means that the step must end.
pub(super) struct Connection {
    socket: UnixStream,
    receiver: Receiver<UnixStream>,
}

impl Connection {
    fn take_over_stdin() -> io::Result<Self> {
        let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
        let null = rustix::fs::open(
            "/dev/null",
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::stdio::dup2_stdin(&null)?;
        let receiver = Receiver::new(socket.try_clone()?);
        Ok(Self { socket, receiver })
    }

    /// Says something.
    pub(super) fn report(&self, report: &Report) -> io::Result<()> {
        send(&self.socket, report)
    }

    /// Waits for kiln's answer to a report.
    pub(super) fn wait_for_go(&mut self) -> io::Result<()> {
        self.receiver.receive::<()>()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The `main` of such a process; returns its exit code.
pub(super) fn main() -> i32 {
    // Whoever started this by hand gets an exit code: there is nobody to report to.
    let Ok(mut connection) = Connection::take_over_stdin() else { return 2 };
    let kiln = rustix::process::getppid().and_then(|kiln| pidfd_open(kiln, PidfdFlags::empty()).ok());
    let Ok(Some(descriptors)) = receive_descriptors(&connection.socket) else { return 2 };
    let Ok(Some(order)) = connection.receiver.receive::<Order>() else { return 2 };
    // Before the step, which can take descriptors away.
    let Ok(children) = Children::open().and_then(|children| reap::outlive_limits().map(|()| children)) else {
        return 2;
    };
    let (surroundings, presence) = match order.launch {
        LaunchKind::InPlace => {
            (Surroundings::note(&order.private).ok(), Some(Presence::begin(&order.state_dir)))
        }
        LaunchKind::Chroot | LaunchKind::Namespaces | LaunchKind::None => (None, None),
    };
    // Held to the end of this process.
    let Ok(_presence) = presence.transpose() else { return 2 };
    let successor = match descriptors.is_empty() {
        true => None,
        false => {
            let private = (Reach::of_steps(order.launch == LaunchKind::InPlace), order.private.clone());
            Successor::new(descriptors, &order.state_dir, private, order.kiln_files.clone()).ok()
        }
    };
    let (report, followed) = match prepare(&order, &mut connection) {
        Err(failure) => (Report::Failed(failure), Followed::NotBegun),
        Ok(prepared) => match run(&order, &mut connection, &children, prepared) {
            Ok((exit, still)) => {
                let still = still.into_iter().map(OsString::from).collect();
                (Report::Ended { exit, still }, Followed::ToItsEnd)
            }
            Err(failure) => {
                let why = SandboxError::from(failure.clone()).to_string();
                (Report::Failed(failure), Followed::NotToItsEnd(why))
            }
        },
    };
    let is_told = connection.report(&report).is_ok();
    // If kiln was killed, and maybe its keeper, this is who is left.
    if !is_told
        && kiln.is_none_or(|kiln| has_ended(&kiln))
        && let Some(successor) = successor
    {
        return i32::from(!succeed((successor, surroundings), &order, followed, &children));
    }
    i32::from(!is_told)
}

/// How far a step was followed.
#[derive(Debug)]
enum Followed {
    ToItsEnd,
    /// And why.
    NotToItsEnd(String),
    /// kiln was killed while it was being made ready.
    NotBegun,
}

/// Does what a killed kiln cannot; tells whether all of that could be done. The keeper tells the user, if there is one.
fn succeed(
    (mut successor, surroundings): (Successor, Option<Surroundings>),
    order: &Order,
    followed: Followed,
    children: &Children,
) -> bool {
    let Ok(nobody_left) = reap::kill_all_children(children) else { return false };
    let around = surroundings.map_or(Ok(()), |surroundings| surroundings.put_back().check().map(drop));
    match followed {
        Followed::ToItsEnd => successor.step_begins(),
        // Whoever finds it puts back the rest.
        _ if Journal::exists(&order.state_dir) => return false,
        Followed::NotToItsEnd(why) => successor.give_up(Some(why)),
        Followed::NotBegun => {}
    }
    successor.settle(nobody_left, around.err().map(|error| error.to_string())).is_ok()
}

/// Tells whether a process has ended. One that is being killed closes its files a moment before; one that closed a connection
/// for another reason lives on.
fn has_ended(process: &OwnedFd) -> bool {
    matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&DYING)), Ok(1..))
}

/// Makes everything ready for the step; after an error nothing has begun.
fn prepare(order: &Order, connection: &mut Connection) -> Result<Prepared, Failure> {
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))
        .map_err(|errno| Failure::setup("become the reaper of the step's processes", errno))?;
    if order.has_pid_namespace() {
        nix::sched::unshare(CloneFlags::CLONE_NEWPID)
            .map_err(|errno| Failure::setup("make a pid namespace", errno))?;
    }
    for text in shortcomings(order) {
        connection
            .report(&Report::Warning(text.to_owned()))
            .map_err(|error| Failure::setup("talk to kiln", error))?;
    }
    Ok(match order.launch {
        LaunchKind::InPlace => Prepared::Occupied(Box::new(in_place::occupy(order, connection)?)),
        LaunchKind::Chroot => Prepared::Furnished(Box::new(chroot::furnish(order)?)),
        LaunchKind::Namespaces | LaunchKind::None => Prepared::Nothing,
    })
}

/// Runs the step, and puts everything back. Returns how it ended, and what of the stage it is known not to have touched.
fn run(
    order: &Order,
    connection: &mut Connection,
    children: &Children,
    prepared: Prepared,
) -> Result<(Exit, Vec<PathBuf>), Failure> {
    let (alive, watching) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::setup("make a pipe", errno))?;
    let exit = match sys::fork() {
        Ok(Fork::Child) => {
            drop(watching);
            start(order, connection, &Watcher { alive })
        }
        Ok(Fork::Parent(pid)) => {
            let children = (!order.has_pid_namespace()).then_some(children);
            // Beside what may be left of the step nothing is put back: kiln ends that, and does it.
            let exit = watch(pid, children, &connection.socket)
                .map_err(|error| Failure::setup("watch over the step", error))?;
            Ok(exit)
        }
        Err(error) => Err(Failure::setup("fork", error)),
    };
    let kiln_is_there = order.launch != LaunchKind::InPlace
        || (connection.report(&Report::Over).is_ok() && connection.wait_for_go().is_ok());
    let undone = prepared.undo(kiln_is_there);
    exit.and_then(|exit| undone.map(|still| (exit, still)))
}

/// Says what of the order is not done as asked where there are no namespaces.
fn shortcomings(order: &Order) -> Vec<&'static str> {
    if order.launch == LaunchKind::Namespaces {
        return Vec::new();
    }
    let tmpfs = |mount: &Mount| matches!(mount.kind, MountKind::Tmpfs { size_bytes: Some(_), .. });
    let said = [
        (
            order.network == Network::None,
            "`--network=none` is a filter here: sockets other than Unix ones cannot be opened, the loopback interface \
             is out of reach too, and setuid programs give nothing to other users than root",
        ),
        (order.insecure, "`--security=insecure` gives no capability that the container around kiln has not"),
        (order.hostname != DEFAULT_HOSTNAME, "the host name is the container's: another needs namespaces"),
        (
            order.shm_size_bytes.is_some(),
            "the size of /dev/shm is the container's: `--shm-size` needs mounts",
        ),
        (order.mounts.iter().any(tmpfs), "the size of a tmpfs mount is not limited: that needs mounts"),
    ];
    said.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect()
}

/// What was done to the file system for a step.
enum Prepared {
    Nothing,
    Furnished(Box<Placed>),
    Occupied(Box<Occupied>),
}

impl Prepared {
    fn undo(self, kiln_is_there: bool) -> Result<Vec<PathBuf>, Failure> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Furnished(mut placed) => placed.undo().map(|()| Vec::new()),
            Self::Occupied(occupied) => occupied.leave(kiln_is_there),
        }
    }
}

/// Who watches over the step, as the step's first process knows it.
pub(super) struct Watcher {
    /// The reading end of a pipe whose other end the watcher has, and nobody else.
    alive: OwnedFd,
}

impl Watcher {
    /// Lets this process die with its watcher: that hastens the step's end, and whoever adopts the rest sees to it. To be
    /// done again after each change of user, which clears it.
    pub(super) fn die_with(&self) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let mut fds = [PollFd::new(&self.alive, PollFlags::empty())];
        // The signal does not come if the watcher was gone before.
        match poll(&mut fds, Some(&Timespec::default()))? {
            0 => Ok(()),
            _ => Err(io::Error::other("it has ended")),
        }
    }
}

/// The forked side: becomes the step, or says why it cannot.
fn start(order: &Order, connection: &mut Connection, watcher: &Watcher) -> ! {
    let failure = become_step(order, connection, watcher);
    let code = i32::from(connection.report(&Report::NotStarted(failure)).is_err());
    std::process::exit(code)
}

fn become_step(order: &Order, connection: &mut Connection, watcher: &Watcher) -> Failure {
    // First of all: by their session kiln knows what a step has started.
    if let Err(errno) = rustix::process::setsid() {
        return Failure::setup("start a session", errno);
    }
    if let Err(error) = watcher.die_with() {
        return Failure::setup("tie the step to its watcher", error);
    }
    // Before the root changes: it takes /proc.
    if let Some(Err(failure)) = order.limits.as_ref().map(Limits::take_on) {
        return failure;
    }
    let ready = match order.launch {
        LaunchKind::Namespaces => namespaces::set_up(order, connection),
        LaunchKind::Chroot => chroot::change_root(&order.root),
        LaunchKind::InPlace => Ok(()),
        LaunchKind::None => Err(Failure::setup("start a step", io::Error::from(io::ErrorKind::Unsupported))),
    };
    match ready {
        Ok(()) => process::become_step(order, watcher),
        Err(failure) => failure,
    }
}

/// Waits until the step ends or must end, and leaves nothing of it alive: where it has no pid namespace, whose end does that,
/// `children` are killed.
fn watch(pid: Pid, children: Option<&Children>, socket: &UnixStream) -> io::Result<Exit> {
    let exit = wait_or_end(pid, &pidfd_open(pid, PidfdFlags::empty())?, socket)?;
    if let Some(children) = children {
        reap::kill_all_children(children)?;
    }
    Ok(exit)
}

fn wait_or_end(pid: Pid, pidfd: &OwnedFd, socket: &UnixStream) -> io::Result<Exit> {
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(socket, PollFlags::RDHUP)];
        match poll(&mut fds, Some(&COLLECT_EVERY)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !fds[1].revents().is_empty() {
            kill_process(pid, Signal::KILL)?;
            // What it has started may be killed after it: nothing is put back before.
            return reap::wait_for(pid);
        }
        if let Some(exit) = reap::collect(pid)? {
            return Ok(exit);
        }
    }
}
