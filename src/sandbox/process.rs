//! The last stretch of a step's child: limits, filter, capabilities, user, and the program itself.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode, accessat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::LaunchKind;
use super::landlock;
use super::limits::LIMITS;
use super::seccomp::{self, Profile};
use super::supervise::Watcher;
use super::sys;
use super::task::Network;
use super::wire::{Cause, Failure, Order};

/// The capabilities that Docker and BuildKit leave to a container's root.
pub(super) const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// What steps without namespaces have to do without, beside the job's own processes: who has one capability less than
/// they cannot look into them in /proc. The first of these that the container has: podman's and CRI-O's lack some. Nothing that
/// a step starts gets it back, so by this it is known when nobody is left who watched over it.
const MARKS: [CapabilitySet; 3] =
    [CapabilitySet::AUDIT_WRITE, CapabilitySet::NET_BIND_SERVICE, CapabilitySet::NET_RAW];

/// Soft limit of open files unless the task says otherwise: programs that close every possible descriptor, or size
/// tables by the limit, take minutes or gigabytes with the millions that daemons hand down.
const OPEN_FILES_SOFT: u64 = 1024;

/// Becomes the step: never returns unless it cannot be started. The root, the namespaces and stdio are in place.
pub(super) fn become_step(order: &Order, watcher: &Watcher) -> Failure {
    match prepare(order, watcher) {
        Ok(()) => execute(order),
        Err(failure) => failure,
    }
}

fn prepare(order: &Order, watcher: &Watcher) -> Result<(), Failure> {
    enter_directory(&order.cwd)?;
    set_limits(order)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    give_stdio_to(order.user.uid);
    if order.network == Network::None && order.launch != LaunchKind::Namespaces {
        seccomp::refuse_network()
            .map_err(|error| Failure::setup("cut the step off the network by a filter", error))?;
    }
    if !order.insecure {
        let profile = if order.single_id { Profile::SingleId } else { Profile::Default };
        match seccomp::install(profile) {
            // Without SYS_ADMIN there is no filter of ours; the container that withholds it has one, or wants none.
            Err(error)
                if order.launch != LaunchKind::Namespaces && error.raw_os_error() == Some(libc::EACCES) => {}
            other => other.map_err(|error| Failure::setup("install the system call filter", error))?,
        }
    }
    leave_kiln_alone(order)?;
    become_user(order)?;
    watcher.die_with().map_err(|error| Failure::setup("tie the step to its watcher", error))?;
    sys::reset_signals();
    sys::close_on_exec_from(3).map_err(|error| Failure::setup("close descriptors", error))
}

/// Keeps signals, and limits that end a process, away from kiln where the step sees it. Without SYS_ADMIN that takes
/// `no_new_privs`, under which setuid programs give nothing: only who asks for it gets it, and everybody else's kiln can be killed,
/// which gains a step nothing.
fn leave_kiln_alone(order: &Order) -> Result<(), Failure> {
    if order.hardened {
        rustix::thread::set_no_new_privs(true)
            .map_err(|errno| Failure::setup("refuse new privileges", errno))?;
    }
    if order.has_pid_namespace() {
        return Ok(());
    }
    match landlock::keep_signals_inside().and(seccomp::keep_limits_inside()) {
        Err(error) if order.hardened => Err(Failure::NotHardened { cause: error.into() }),
        _ => Ok(()),
    }
}

/// Changes to the working directory, which is made if it is missing.
fn enter_directory(cwd: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::setup(format!("enter directory `{}`", cwd.display()), error);
    rustix::process::umask(Mode::empty());
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::NOENT) => {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
            builder.recursive(true).create(cwd).map_err(failed)?;
            rustix::process::chdir(cwd).map_err(|errno| failed(errno.into()))
        }
        other => other.map_err(|errno| failed(errno.into())),
    }
}

fn set_limits(order: &Order) -> Result<(), Failure> {
    let files = getrlimit(Resource::Nofile);
    let soft = files.maximum.map_or(OPEN_FILES_SOFT, |hard| hard.min(OPEN_FILES_SOFT));
    let default = Rlimit { current: Some(soft), maximum: files.maximum };
    setrlimit(Resource::Nofile, default)
        .map_err(|errno| Failure::setup("set the limit of open files", errno))?;
    for limit in &order.ulimits {
        let Some((_, resource)) = LIMITS.iter().find(|(name, _)| *name == limit.name) else {
            return Err(Failure::Ulimit { name: limit.name.clone() });
        };
        setrlimit(*resource, Rlimit { current: limit.soft, maximum: limit.hard })
            .map_err(|errno| Failure::setup(format!("set ulimit `{}`", limit.name), errno))?;
    }
    Ok(())
}

/// Lets the step's user reopen its own output by `/dev/stdout`, which leads to the pipes and checks their owner.
fn give_stdio_to(uid: u32) {
    let uid = rustix::fs::Uid::from_raw(uid);
    // A pipe that cannot be given away still works by its descriptor.
    let _ = rustix::fs::fchown(rustix::stdio::stdout(), Some(uid), None);
    let _ = rustix::fs::fchown(rustix::stdio::stderr(), Some(uid), None);
}

fn become_user(order: &Order) -> Result<(), Failure> {
    let user = &order.user;
    let keep = capabilities(order);
    drop_bounding(keep).map_err(|error| Failure::setup("drop capabilities", error))?;
    let groups: Vec<_> = user.groups.iter().map(|gid| rustix::fs::Gid::from_raw(*gid)).collect();
    let unmapped = |errno: rustix::io::Errno, action: &str| match errno {
        rustix::io::Errno::INVAL => Failure::UnmappedUser { uid: user.uid, gid: user.gid },
        errno => Failure::setup(action, errno),
    };
    // With a single id setgroups is denied by the kernel, and pretended to work by the filter.
    if !order.single_id {
        rustix::thread::set_thread_groups(&groups).map_err(|errno| unmapped(errno, "set groups"))?;
    } else if (user.uid, user.gid) != (0, 0) {
        return Err(Failure::UnmappedUser { uid: user.uid, gid: user.gid });
    }
    let gid = rustix::fs::Gid::from_raw(user.gid);
    let uid = rustix::fs::Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| unmapped(errno, "set the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| unmapped(errno, "set the user"))?;
    set_capabilities(keep, user.uid).map_err(|error| Failure::setup("set capabilities", error))
}

/// Returns what the step's root may.
fn capabilities(order: &Order) -> CapabilitySet {
    let mark = if order.launch == LaunchKind::Namespaces { CapabilitySet::empty() } else { own_mark() };
    if order.insecure {
        return CapabilitySet::all().difference(mark);
    }
    let mut lost = mark;
    if order.launch == LaunchKind::Chroot {
        // With it a root leaves its root in two lines.
        lost |= CapabilitySet::SYS_CHROOT;
    }
    if order.disks_are_open {
        lost |= CapabilitySet::MKNOD;
    }
    DEFAULT_CAPABILITIES.difference(lost)
}

/// Returns the capability that steps beside kiln lack of those that a process passes on; none if it has none of them.
pub(super) fn mark(bounding: CapabilitySet) -> CapabilitySet {
    MARKS.into_iter().find(|mark| bounding.contains(*mark)).unwrap_or(CapabilitySet::empty())
}

/// The same of this process.
fn own_mark() -> CapabilitySet {
    let has = |mark: &CapabilitySet| rustix::thread::capability_is_in_bounding_set(*mark).unwrap_or(false);
    mark(MARKS.into_iter().filter(has).collect())
}

/// Takes from this thread what no step beside kiln may, and nothing else, for good.
pub(super) fn become_as_able_as_steps() -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let passes_all_on = !now.effective.contains(CapabilitySet::SETPCAP);
    // Who cannot take capabilities away hands down all.
    let keep = if passes_all_on { now.permitted } else { now.permitted.intersection(DEFAULT_CAPABILITIES) };
    let keep = if passes_all_on { keep } else { keep.difference(own_mark()) };
    let sets = CapabilitySets { permitted: keep, effective: keep, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Takes from this process and its descendants, for good, what is not in `keep`.
fn drop_bounding(keep: CapabilitySet) -> io::Result<()> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => match rustix::thread::remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Who lacks SETPCAP was given few capabilities to begin with, and cannot get more.
                Err(rustix::io::Errno::PERM) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            },
            Ok(false) => {}
            // The kernel knows no capability of this number, nor any higher.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Sets what root may; everybody else has lost all with the change of user.
fn set_capabilities(keep: CapabilitySet, uid: u32) -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let held = if uid == 0 { now.permitted & keep } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Finds the program and becomes it.
fn execute(order: &Order) -> Failure {
    let Some(name) = order.argv.first() else {
        return Failure::NotInPath { program: String::new() };
    };
    let shown = name.to_string_lossy().into_owned();
    let program = match find(name, &order.env) {
        Ok(program) => program,
        Err(Missing::NotFound) if name.as_bytes().contains(&b'/') => {
            return Failure::NoSuchFile { program: shown };
        }
        Err(Missing::NotFound) => return Failure::NotInPath { program: shown },
        Err(Missing::Forbidden) => return Failure::NotExecutable { program: shown },
    };
    let argv: Option<Vec<CString>> =
        order.argv.iter().map(|word| CString::new(word.as_bytes()).ok()).collect();
    let env: Option<Vec<CString>> = order
        .env
        .iter()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect();
    let (Some(argv), Some(env), Ok(path)) = (argv, env, CString::new(program.as_bytes())) else {
        return Failure::setup(
            "run a command with a NUL byte in it",
            io::Error::from(io::ErrorKind::InvalidInput),
        );
    };
    let argv: Vec<_> = argv.iter().map(CString::as_c_str).collect();
    let env: Vec<_> = env.iter().map(CString::as_c_str).collect();
    let error = sys::exec(&path, &argv, &env);
    Failure::Exec { program: program.to_string_lossy().into_owned(), cause: Cause::from(error) }
}

/// Why there is no program of a name.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    NotFound,
    Forbidden,
}

/// Looks a command up as a shell does: names with a slash are paths, others are in a directory of `PATH`.
fn find(name: &OsStr, env: &[(OsString, OsString)]) -> Result<OsString, Missing> {
    if name.as_bytes().contains(&b'/') {
        return usable(name).map(|()| name.to_owned());
    }
    if name.is_empty() {
        return Err(Missing::NotFound);
    }
    let path =
        env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone()).unwrap_or_default();
    for directory in std::env::split_paths(&path) {
        let candidate =
            if directory.as_os_str().is_empty() { Path::new(".").join(name) } else { directory.join(name) };
        if usable(candidate.as_os_str()).is_ok() {
            return Ok(candidate.into_os_string());
        }
    }
    Err(Missing::NotFound)
}

fn usable(path: &OsStr) -> Result<(), Missing> {
    let file_type = match rustix::fs::stat(path) {
        Ok(stat) => rustix::fs::FileType::from_raw_mode(stat.st_mode),
        Err(rustix::io::Errno::ACCESS) => return Err(Missing::Forbidden),
        Err(_) => return Err(Missing::NotFound),
    };
    if !file_type.is_file() || accessat(CWD, path, Access::EXEC_OK, AtFlags::empty()).is_err() {
        return Err(Missing::Forbidden);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_path_given() {
        let env = [(OsString::from("PATH"), OsString::from("/nowhere:/bin"))];
        assert_eq!(find(OsStr::new("sh"), &env), Ok(OsString::from("/bin/sh")));
        assert_eq!(find(OsStr::new("no-such-thing"), &env), Err(Missing::NotFound));
        assert_eq!(find(OsStr::new("sh"), &[]), Err(Missing::NotFound));
        assert_eq!(find(OsStr::new("/bin/sh"), &[]), Ok(OsString::from("/bin/sh")));
        assert_eq!(find(OsStr::new("/bin"), &[]), Err(Missing::Forbidden));
        assert_eq!(find(OsStr::new("/etc/passwd"), &[]), Err(Missing::Forbidden));
        assert_eq!(find(OsStr::new(""), &env), Err(Missing::NotFound));
    }

    #[test]
    fn the_default_capabilities_are_dockers() {
        assert_eq!(DEFAULT_CAPABILITIES.bits(), 0xa804_25fb);
    }
}
