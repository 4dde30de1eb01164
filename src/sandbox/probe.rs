//! Finds out what works here, by doing it in throw-away processes.
//!
//! Nothing is inferred from capabilities, versions or configuration: profiles, security modules and mount flags all have
//! a say, and only trying tells.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::child::{Role, command};
use super::enter::{Mapping, enter_user_namespace};
use super::mounting::{attach, change_root, copy_of_path, make_all_private, new_filesystem, restrict};
use super::overlay::Overlay;
use super::sys::{self, Fork};
use super::wire::{Receiver, send};
use super::{Isolation, reap};
use crate::threads::Refused;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Works,
    Fails { action: String, errno: Option<i32>, text: String },
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Fails { action: "probe".to_owned(), errno: None, text: "not probed".to_owned() }
    }
}

impl Outcome {
    /// Tells whether it worked.
    pub(super) fn works(&self) -> bool {
        *self == Self::Works
    }

    /// Returns what the system said if it did not work.
    pub(super) fn problem(&self) -> Option<String> {
        (!self.works()).then(|| self.to_string())
    }

    pub(super) fn from_result(result: Result<(), (&str, io::Error)>) -> Self {
        match result {
            Ok(()) => Self::Works,
            Err((action, error)) => {
                let (errno, text) = (error.raw_os_error(), error.to_string());
                Self::Fails { action: action.to_owned(), errno, text }
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Fails { action, errno: Some(errno), .. } => {
                let errno = nix::errno::Errno::from_raw(*errno);
                write!(f, "{errno:?} ({}) at {action}", errno.desc().to_lowercase())
            }
            Self::Fails { action, errno: None, text } => write!(f, "{text} at {action}"),
        }
    }
}

/// What was found with one set of privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) mount_namespace: Outcome,
    pub(super) fresh_proc: Outcome,
    pub(super) pivot_root: Outcome,
    pub(super) network_namespace: Outcome,
    pub(super) overlay: Outcome,
    pub(super) overlay_userxattr: Outcome,
    /// Which ids the user namespace has; `None` where no user namespace was made.
    pub(super) mapping: Option<Mapping>,
    pub(super) chroot: Outcome,
    pub(super) device_nodes: Outcome,
    /// Whether the machine's disks stay closed to nodes made here.
    pub(super) disks_kept_away: Outcome,
}

/// What every probe found; made once per process.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    /// With the privileges kiln has.
    pub(super) own: Context,
    /// In a user namespace of its own.
    pub(super) user: Context,
    /// Whether the root directory can be changed without namespaces.
    pub(super) chroot: Outcome,
}

impl Probes {
    /// Returns that a process for a probe was refused, if one was: this tells nothing about what works here, and must not
    /// end in a weaker way to run steps.
    pub(super) fn refused(&self) -> Option<Refused> {
        let tried = |context: &Context| [context.mount_namespace.clone(), context.fresh_proc.clone()];
        let mut tried =
            [tried(&self.own), tried(&self.user)].into_iter().flatten().chain([self.chroot.clone()]);
        tried.find_map(|outcome| match outcome {
            Outcome::Fails { errno: Some(errno @ (libc::EAGAIN | libc::ENOMEM)), action, .. } => {
                let source = io::Error::from_raw_os_error(errno);
                Some(Refused { what: format!("a process to {action}"), source })
            }
            Outcome::Fails { .. } | Outcome::Works => None,
        })
    }
}

/// What the probing process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Question {
    user_namespace: bool,
    scope: Scope,
}

/// How much is tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Scope {
    /// What decides how steps are run.
    Launch,
    /// Whether the root directory can be changed.
    Chroot,
    /// All there is; overlays would have their upper directories in `work_dir`.
    All { work_dir: Option<OsString> },
}

/// Probes all that may work here; `work_dir` is where overlays would have their upper directories.
///
/// Takes some 10 to 50 ms. Never fails: what cannot be probed does not work.
pub fn probe(work_dir: Option<&Path>) -> Probes {
    let work_dir = work_dir.map(|dir| dir.as_os_str().to_owned());
    let question =
        |user_namespace| Question { user_namespace, scope: Scope::All { work_dir: work_dir.clone() } };
    let own = ask(&question(false));
    Probes { chroot: own.chroot.clone(), own, user: ask(&question(true)) }
}

/// Probes what [`enter`](super::enter) asks about for this isolation, and nothing else: what was not tried counts as
/// not working. Takes a millisecond where kiln may make namespaces itself.
pub fn probe_for(isolation: Isolation) -> Probes {
    let launch = |user_namespace| ask(&Question { user_namespace, scope: Scope::Launch });
    let chroot = || ask(&Question { user_namespace: false, scope: Scope::Chroot }).chroot;
    let mut probes = Probes::default();
    match isolation {
        Isolation::Auto => {
            probes.own = launch(false);
            if !probes.own.mount_namespace.works() {
                probes.user = launch(true);
                probes.chroot = chroot();
            }
        }
        Isolation::Namespaces => probes.own = launch(false),
        Isolation::UserNamespaces => probes.user = launch(true),
        Isolation::Chroot => probes.chroot = chroot(),
        Isolation::InPlace | Isolation::None => {}
    }
    probes
}

/// Finds the answer in throw-away processes: forked ones where this process has one thread, as at kiln's start.
fn ask(question: &Question) -> Context {
    let asked = match (sys::thread_count(), question.user_namespace) {
        (Some(1), false) => Ok(answer(question)),
        (Some(1), true) => in_child(|| answer(question)),
        _ => Probing::start(question).and_then(Probing::finish),
    };
    asked.unwrap_or_else(|error| {
        let failed = Outcome::from_result(Err(("start the probe", error)));
        Context { mount_namespace: failed.clone(), chroot: failed, ..Context::default() }
    })
}

struct Probing {
    child: Child,
    socket: UnixStream,
}

impl Probing {
    fn start(question: &Question) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let child = command(Role::Probe)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let socket = UnixStream::from(ours);
        send(&socket, question)?;
        Ok(Self { child, socket })
    }

    fn finish(mut self) -> io::Result<Context> {
        let answer = Receiver::new(&self.socket).receive();
        self.child.wait()?;
        answer?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The `main` of a probing process; returns its exit code.
pub(super) fn main() -> i32 {
    let Ok(stdin) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return 2 };
    let socket = UnixStream::from(stdin);
    let Ok(Some(question)) = Receiver::new(&socket).receive::<Question>() else { return 2 };
    i32::from(send(&socket, &answer(&question)).is_err())
}

fn answer(question: &Question) -> Context {
    let mut context = Context::default();
    if question.user_namespace {
        match enter_user_namespace() {
            Ok(mapping) => context.mapping = Some(mapping),
            Err(error) => {
                let failed = Outcome::from_result(Err(("make a user namespace", error)));
                return Context {
                    mount_namespace: failed.clone(),
                    fresh_proc: failed.clone(),
                    pivot_root: failed.clone(),
                    network_namespace: failed.clone(),
                    overlay: failed.clone(),
                    overlay_userxattr: failed,
                    ..context
                };
            }
        }
    }
    let chroot = || rustix::process::chroot(c"/").map_err(|errno| ("chroot", errno.into()));
    let Scope::All { work_dir } = &question.scope else {
        match question.scope {
            Scope::Chroot => context.chroot = attempt(chroot),
            _ => probe_launch(&mut context),
        }
        return context;
    };
    probe_launch(&mut context);
    context.pivot_root = attempt(pivot);
    context.network_namespace = attempt(network_namespace);
    context.chroot = attempt(chroot);
    if let Some(work_dir) = work_dir.as_ref().map(PathBuf::from) {
        context.overlay = attempt(|| private_mounts().and_then(|()| overlay_in(&work_dir, false)));
        context.overlay_userxattr = attempt(|| private_mounts().and_then(|()| overlay_in(&work_dir, true)));
        context.device_nodes = attempt(|| make_device_node(&work_dir));
        context.disks_kept_away = attempt(|| super::devices::are_kept_away(&work_dir));
    }
    context
}

fn probe_launch(context: &mut Context) {
    context.mount_namespace = attempt(mount_something);
    context.fresh_proc = match &context.mount_namespace {
        Outcome::Works => attempt(mount_fresh_proc),
        failed => failed.clone(),
    };
}

pub(super) type Tried = Result<(), (&'static str, io::Error)>;

/// Runs `probe` in a process of its own and returns what came of it.
fn attempt(probe: impl FnOnce() -> Tried) -> Outcome {
    let tried = in_child(|| Outcome::from_result(probe()));
    tried.unwrap_or_else(|error| Outcome::from_result(Err(("run the probe", error))))
}

/// Runs `work` in a forked process and returns its result.
fn in_child<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> T) -> io::Result<T> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Child => {
            let told = send(&theirs, &work());
            std::process::exit(i32::from(told.is_err()))
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let result = Receiver::new(ours).receive();
            reap::wait_for(pid)?;
            result?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
    }
}

fn private_mounts() -> Tried {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| ("make a mount namespace", errno.into()))?;
    make_all_private().map_err(|error| ("make mounts private", error))
}

pub(super) fn directory(path: &str) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Namespaces may be allowed and mounts in them not: AppArmor's docker-default does that.
fn mount_something() -> Tried {
    private_mounts()?;
    let tmpfs =
        new_filesystem("tmpfs", &[], MountAttrFlags::empty()).map_err(|error| ("mount tmpfs", error))?;
    directory("/dev").and_then(|dev| attach(&tmpfs, dev)).map_err(|error| ("mount tmpfs", error))?;
    restrict(&tmpfs, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(|error| ("mount_setattr, which takes Linux 5.12", error))
}

fn mount_fresh_proc() -> Tried {
    private_mounts()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| ("make a pid namespace", errno.into()))?;
    let outcome = attempt(|| {
        let proc =
            new_filesystem("proc", &[], MountAttrFlags::empty()).map_err(|error| ("mount proc", error))?;
        directory("/proc").and_then(|at| attach(proc, at)).map_err(|error| ("mount proc", error))
    });
    match outcome {
        Outcome::Works => Ok(()),
        Outcome::Fails { errno: Some(errno), .. } => Err(("mount proc", io::Error::from_raw_os_error(errno))),
        Outcome::Fails { text, .. } => Err(("mount proc", io::Error::other(text))),
    }
}

fn pivot() -> Tried {
    private_mounts()?;
    let failed = |error| ("change the root", error);
    let copy = copy_of_path(Path::new("/")).map_err(failed)?;
    // Not on `/` itself: where it has to be moved there, it would be moved onto itself. Every container has this one.
    attach(copy, directory("/proc").map_err(failed)?).map_err(failed)?;
    change_root(directory("/proc").map_err(failed)?).map_err(failed)
}

fn network_namespace() -> Tried {
    super::network::enter_empty().map_err(|error| ("make an empty network", error))
}

fn make_device_node(work_dir: &Path) -> Tried {
    use rustix::fs::{FileType, makedev, mknodat};
    let at = |error: io::Error| ("make a device node", error);
    std::fs::create_dir_all(work_dir).map_err(at)?;
    let dir = tempfile::Builder::new().prefix("probe-").tempdir_in(work_dir).map_err(at)?;
    let path = dir.path().join("null");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, mode, makedev(1, 3))
        .map_err(|errno| at(errno.into()))?;
    std::fs::write(&path, "x").map_err(|error| ("use a device node", error))
}

/// Mounts an overlay with its upper directory below `work_dir` in the current mount namespace, and uses it.
///
/// Mounting alone proves little: without `userxattr` in a user namespace only removing a directory fails. The error says
/// what failed, and how.
pub fn try_overlay(work_dir: &Path, userxattr: bool) -> Result<(), String> {
    let outcome = Outcome::from_result(overlay_in(work_dir, userxattr));
    outcome.problem().map_or(Ok(()), Err)
}

fn overlay_in(work_dir: &Path, userxattr: bool) -> Tried {
    let at = |error: io::Error| ("use the work directory", error);
    std::fs::create_dir_all(work_dir).map_err(at)?;
    let dir = tempfile::Builder::new().prefix("probe-").tempdir_in(work_dir).map_err(at)?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dir.path().join(name));
    for path in [&lower.join("directory"), &upper, &work, &merged] {
        std::fs::create_dir_all(path).map_err(at)?;
    }
    std::fs::write(lower.join("directory/file"), "x").map_err(at)?;
    let overlay = Overlay { lowers: &[&lower], upper: Some((&upper, &work)), userxattr };
    overlay.mount(&merged).map_err(|error| ("mount overlay", error))?;
    let used = use_overlay(&merged.join("directory"));
    let unmounted = super::overlay::unmount_at(&merged).map_err(|error| ("unmount overlay", error));
    used.and(unmounted)
}

fn use_overlay(directory: &Path) -> Tried {
    let at = |error: io::Error| ("remove a directory of the overlay", error);
    std::fs::remove_file(directory.join("file")).map_err(at)?;
    std::fs::remove_dir(directory).map_err(at)?;
    std::fs::create_dir(directory).map_err(at)?;
    match std::fs::read_dir(directory).map_err(at)?.next() {
        None => Ok(()),
        Some(_) => Err(at(io::Error::other("removed files reappear"))),
    }
}
