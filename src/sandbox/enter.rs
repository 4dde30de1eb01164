//! Entering the namespaces that all of kiln runs in.
//!
//! kiln itself moves, and no process is left in between: signals, exit codes and the parent's death are as without.
//! A user namespace's id maps must be written from outside, so a helper is started before and ends right after.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::child::{Role, command};
use super::in_place;
use super::keeper::{self, Keeper};
use super::landlock;
use super::mounting::make_all_private;
use super::wire::{Receiver, send};
use super::{Ground, Isolation, Probes, SandboxError};

/// The file by which kiln's own container image can be told: there, and only there, steps may take over `/`.
pub const OWN_IMAGE_MARKER: &str = "/kiln/own-image";

/// The launches there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LaunchKind {
    /// Mount, pid, ipc and uts namespaces per step.
    Namespaces,
    /// A changed root directory.
    Chroot,
    /// Rename-swap into `/`.
    InPlace,
    /// None: no step can run.
    None,
}

/// What was chosen, and what kiln now runs in.
#[derive(Debug, Clone)]
pub struct Entered {
    /// How steps are run.
    pub launch: LaunchKind,
    /// Whether kiln now runs in a user namespace of its own.
    pub user_namespace: bool,
    /// Whether only one user id is mapped: owners cannot be kept.
    pub single_id: bool,
    /// Whether overlays need the option `userxattr`, if they work at all: a guess until one was mounted.
    pub overlay_userxattr: bool,
    /// Whether a fresh proc file system can be mounted, so that steps get a pid namespace.
    pub fresh_proc: bool,
    /// What was chosen and why, in a sentence.
    pub description: String,
    /// What would be better, and what it takes.
    pub advice: Option<String>,
    /// The process that kiln was started as, where steps have no pid namespace.
    pub(super) keeper: Option<Arc<Keeper>>,
    /// `/`, locked as long as steps of this kiln may take its place: two kilns would move each other's files.
    #[expect(dead_code, reason = "it is held for its lock")]
    pub(super) claim: Option<Arc<File>>,
    /// What kiln's files have to do with steps.
    pub ground: Arc<Ground>,
}

impl Entered {
    /// Says why steps could not work with kiln's files below `directory`, if they could not.
    pub fn refusal(&self, directory: &Path) -> Option<String> {
        (self.launch == LaunchKind::InPlace).then(|| in_place::refusal(directory)).flatten()
    }
}

/// Gives this process a mount namespace of its own, by way of a user namespace if need be, and chooses the launch.
///
/// `force` insists on [`Isolation::InPlace`] in somebody else's container. Must be called while the process has one
/// thread.
pub fn enter(isolation: Isolation, force: bool, probes: &Probes) -> Result<Entered, SandboxError> {
    if isolation == Isolation::InPlace && !force && !Path::new(OWN_IMAGE_MARKER).exists() {
        let reason =
            "this is not kiln's own image, and for the time of a step everything in it would be moved away; \
                      `--force` insists"
                .to_owned();
        return Err(SandboxError::IsolationUnavailable { isolation, reason });
    }
    if let Some(refused) = probes.refused() {
        return Err(refused.into());
    }
    let choice = choose(isolation, probes)?;
    raise_open_files();
    let failed = |action: &str| {
        let action = action.to_owned();
        move |source: io::Error| SandboxError::Setup { action, source }
    };
    let mut single_id = false;
    let context = if choice.kind == Choice::UserNamespaces { &probes.user } else { &probes.own };
    let namespaces = matches!(choice.kind, Choice::Namespaces | Choice::UserNamespaces);
    let fresh_proc = namespaces && context.fresh_proc.works();
    // Held by the keeper as well: what a killed kiln was at is put right before the next one has it.
    let claim = match choice.kind {
        Choice::InPlace => Some(claim_root(Some(keeper::PATIENCE))?),
        // Files with credentials are empty while another kiln's steps run: it is waited for.
        Choice::Chroot => Some(claim_root(None)?),
        Choice::Namespaces | Choice::UserNamespaces | Choice::None => None,
    };
    let keeper = match choice.kind {
        Choice::None => None,
        _ if fresh_proc => None,
        _ => Some(Arc::new(Keeper::stay_behind().map_err(failed("leave a keeper behind"))?)),
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| failed("adopt what steps leave running")(errno.into()))?;
    match choice.kind {
        Choice::Namespaces => {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS)
                .map_err(|errno| failed("make a mount namespace")(errno.into()))?;
            make_all_private().map_err(failed("make mounts private"))?;
        }
        Choice::UserNamespaces => {
            single_id =
                enter_user_namespace().map_err(failed("enter a user namespace"))? == Mapping::SingleId;
        }
        Choice::InPlace | Choice::Chroot | Choice::None => {}
    }
    let user_namespace = choice.kind == Choice::UserNamespaces;
    let launch = match choice.kind {
        Choice::Namespaces | Choice::UserNamespaces => LaunchKind::Namespaces,
        Choice::Chroot => LaunchKind::Chroot,
        Choice::InPlace => LaunchKind::InPlace,
        Choice::None => LaunchKind::None,
    };
    let advice = advice(choice.kind, single_id, fresh_proc);
    Ok(Entered {
        launch,
        user_namespace,
        single_id,
        overlay_userxattr: user_namespace,
        fresh_proc,
        description: choice.why,
        advice,
        keeper,
        claim,
        ground: if choice.kind == Choice::InPlace { Ground::shared() } else { Arc::default() },
    })
}

impl Entered {
    /// Tells whether kiln is not the process that was started, but its child.
    pub fn has_keeper(&self) -> bool {
        self.keeper.is_some()
    }

    /// Returns when the process that was started was killed; at once where that is kiln itself.
    pub fn wait_for_keepers_end(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.wait_for_end();
        }
    }
}

/// Takes `/` for this kiln, or says that another has it for longer than `patience`: one that was killed has it until its
/// processes have put everything right.
fn claim_root(patience: Option<Duration>) -> Result<Arc<File>, SandboxError> {
    let failed =
        |source| SandboxError::Setup { action: "claim `/` for steps without namespaces".to_owned(), source };
    let root = File::open("/").map_err(failed)?;
    let begin = Instant::now();
    let mut is_told = patience.is_some();
    loop {
        if !is_told && begin.elapsed() > keeper::PATIENCE {
            is_told = true;
            // Nobody may be listening.
            let _ = writeln!(
                io::stderr(),
                "kiln: waiting for another kiln that runs steps in a chroot in this container"
            );
        }
        match flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Arc::new(root)),
            Err(Errno::WOULDBLOCK) if patience.is_some_and(|patience| begin.elapsed() > patience) => {
                return Err(SandboxError::Occupied);
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

/// Lets kiln open as many files as it may: an overlay takes a descriptor for each layer. Steps get the usual limit.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised is still enough for most builds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The five ways, as [`Isolation`] without `Auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Namespaces,
    UserNamespaces,
    Chroot,
    InPlace,
    None,
}

#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) kind: Choice,
    pub(super) why: String,
}

/// Chooses by what the probes found, in the order of what keeps steps best apart.
pub(super) fn choose(isolation: Isolation, probes: &Probes) -> Result<Chosen, SandboxError> {
    let unavailable = |reason: String| Err(SandboxError::IsolationUnavailable { isolation, reason });
    let chosen = |kind, why: &str| Ok(Chosen { kind, why: why.to_owned() });
    match isolation {
        Isolation::Auto => Ok(choose_best(probes)),
        Isolation::Namespaces => match probes.own.mount_namespace.problem() {
            None => chosen(Choice::Namespaces, "namespaces, as asked for"),
            Some(problem) => unavailable(format!("making a mount namespace fails with {problem}")),
        },
        Isolation::UserNamespaces => match probes.user.mount_namespace.problem() {
            None => chosen(Choice::UserNamespaces, "namespaces inside a user namespace, as asked for"),
            Some(problem) => unavailable(format!("making a user and mount namespace fails with {problem}")),
        },
        Isolation::Chroot => match probes.chroot.problem() {
            None => chosen(Choice::Chroot, "chroot, as asked for"),
            Some(problem) => unavailable(format!("chroot fails with {problem}")),
        },
        Isolation::InPlace if !rustix::process::geteuid().is_root() => {
            unavailable("kiln is not root".to_owned())
        }
        Isolation::InPlace => chosen(Choice::InPlace, "in place, as asked for"),
        Isolation::None => chosen(Choice::None, "no commands can be run, as asked for"),
    }
}

fn choose_best(probes: &Probes) -> Chosen {
    let chosen = |kind, why: String| Chosen { kind, why };
    let Some(own) = probes.own.mount_namespace.problem() else {
        return chosen(Choice::Namespaces, "namespaces: kiln may make them itself".to_owned());
    };
    let Some(user) = probes.user.mount_namespace.problem() else {
        let why = format!("namespaces inside a user namespace: without one they fail with {own}");
        return chosen(Choice::UserNamespaces, why);
    };
    let no_namespaces = format!("no namespaces can be made ({own}; in a user namespace {user})");
    if rustix::process::geteuid().is_root() && Path::new(OWN_IMAGE_MARKER).exists() {
        return chosen(Choice::InPlace, format!("in place: {no_namespaces}, and this is kiln's own image"));
    }
    match probes.chroot.problem() {
        None => chosen(Choice::Chroot, format!("chroot: {no_namespaces}")),
        Some(chroot) => chosen(
            Choice::None,
            format!("no commands can be run: {no_namespaces}, and chroot fails with {chroot}"),
        ),
    }
}

/// Says what would be better than what was found.
pub(super) fn advice(choice: Choice, single_id: bool, fresh_proc: bool) -> Option<String> {
    match choice {
        Choice::Namespaces | Choice::UserNamespaces if single_id => Some(
            "only one user id can be used, so owners of files are lost and changing them only seems to work: install \
             newuidmap (Debian: uidmap) and give this user ranges in /etc/subuid and /etc/subgid"
                .to_owned(),
        ),
        Choice::Namespaces | Choice::UserNamespaces if !fresh_proc => {
            let what = match landlock::is_there() {
                true => "commands see the processes around them",
                false => "commands see and can signal the processes around them, and so run one after the other",
            };
            Some(format!(
                "{what}, because /proc is partly masked: Kubernetes `procMount: Unmasked` or `hostUsers: false` with the \
                 capability SYS_ADMIN, Docker `--security-opt systempaths=unconfined`"
            ))
        }
        Choice::Namespaces | Choice::UserNamespaces => None,
        Choice::Chroot => Some(
            "a chroot keeps files of different stages apart and holds no hostile command: let kiln make user namespaces: \
             Kubernetes `seccompProfile: {type: Unconfined}`, or `hostUsers: false` with the capability SYS_ADMIN; Docker \
             `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
                .to_owned(),
        ),
        Choice::InPlace | Choice::None => Some(
            "let kiln make user namespaces: Kubernetes `seccompProfile: {type: Unconfined}`, or `hostUsers: false` \
             with the capability SYS_ADMIN; Docker `--security-opt seccomp=unconfined --security-opt \
             apparmor=unconfined`"
                .to_owned(),
        ),
    }
}

/// Which ids there are in kiln's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mapping {
    /// All that kiln had before.
    Identity,
    /// kiln's own as 0, and the ranges of /etc/subuid and /etc/subgid.
    SubordinateIds,
    /// Only kiln's own, as 0.
    SingleId,
}

/// Moves this process, which has one thread, into a new user and mount namespace, as its root.
pub(super) fn enter_user_namespace() -> io::Result<Mapping> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // It has to exist before: afterwards it would be inside as well.
    let mut helper = command(Role::MapIds).stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn()?;
    let socket = UnixStream::from(ours);
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    send(&socket, &rustix::process::getpid().as_raw_nonzero().get())?;
    let mapped = Receiver::new(&socket).receive::<Option<Mapping>>();
    helper.wait()?;
    let mapping = match mapped? {
        Some(Some(mapping)) => mapping,
        _ => {
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
            std::fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
            Mapping::SingleId
        }
    };
    let (root_uid, root_gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(root_gid, root_gid, root_gid)?;
    rustix::thread::set_thread_res_uid(root_uid, root_uid, root_uid)?;
    make_all_private()?;
    Ok(mapping)
}

/// The `main` of the helper: writes the id maps of the process it is told, and says which; returns its exit code.
pub(super) fn map_ids_main() -> i32 {
    let Ok(stdin) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return 2 };
    let socket = UnixStream::from(stdin);
    let Ok(Some(pid)) = Receiver::new(&socket).receive::<i32>() else { return 2 };
    let mapping = map_ids(pid).ok().flatten();
    i32::from(send(&socket, &mapping).is_err())
}

fn map_ids(pid: i32) -> io::Result<Option<Mapping>> {
    let capabilities = rustix::thread::capabilities(None)?.effective;
    if capabilities.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        let write = |name: &str| -> io::Result<()> {
            let map = identity(&std::fs::read_to_string(format!("/proc/self/{name}"))?);
            std::fs::write(format!("/proc/{pid}/{name}"), map)
        };
        // The user map first: if that is refused, the process can still map its own id by itself.
        if write("uid_map").is_ok() {
            return write("gid_map").map(|()| Some(Mapping::Identity));
        }
    }
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let names = [user_name(uid), Some(uid.to_string())];
    let (uids, gids) = (subordinate("/etc/subuid", &names), subordinate("/etc/subgid", &names));
    if uids.is_empty() || gids.is_empty() {
        return Ok(None);
    }
    let done = run_mapper("newuidmap", pid, uid, &uids)? && run_mapper("newgidmap", pid, gid, &gids)?;
    Ok(done.then_some(Mapping::SubordinateIds))
}

/// Returns a map that gives every id this process has the same number inside.
fn identity(own_map: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    own_map.lines().filter_map(line).collect()
}

/// Returns the login name of `uid` by this machine's own /etc/passwd.
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// Returns the ranges (first id, count) that a file like /etc/subuid (subuid(5)) gives to one of `names`.
fn subordinate(path: &str, names: &[Option<String>]) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0 && names.iter().flatten().any(|known| known == name)).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// Runs newuidmap(1) or newgidmap(1): the caller's own id becomes 0, the ranges follow from 1.
fn run_mapper(program: &str, pid: i32, own: u32, ranges: &[(u64, u64)]) -> io::Result<bool> {
    let mut arguments = vec![pid.to_string(), "0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1;
    for (first, count) in ranges {
        arguments.extend([inside.to_string(), first.to_string(), count.to_string()]);
        inside += count;
    }
    for directory in ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"] {
        let path = Path::new(directory).join(program);
        if path.exists() {
            let status =
                Command::new(path).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            return Ok(status.success());
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_maps_keep_every_range() {
        assert_eq!(identity("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(identity(""), "");
    }

    #[test]
    fn subordinate_ids_are_found_by_name_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subuid");
        std::fs::write(&path, "me:100000:65536\nother:1:2\n1000:300000:10\nme:5:0\nme:x:1\n").unwrap();
        let names = [Some("me".to_owned()), Some("1000".to_owned())];
        assert_eq!(subordinate(path.to_str().unwrap(), &names), [(100_000, 65536), (300_000, 10)]);
        assert_eq!(subordinate("/nonexistent", &names), []);
    }
}
