//! System calls that no crate of ours wraps safely: the only `unsafe` code of kiln.
//!
//! Everything here is called in single-threaded processes that kiln started for the purpose.
#![expect(unsafe_code, reason = "the one place for it")]

use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old process, with the new one's id.
    Parent(Pid),
}

/// Duplicates this process, which must have one thread only: then the child may do anything the parent may.
pub(super) fn fork() -> io::Result<Fork> {
    debug_assert_eq!(thread_count(), Some(1), "fork of a process with threads");
    // SAFETY: with one thread no lock can be held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// Returns how many threads this process has, where /proc is mounted.
pub(super) fn thread_count() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes attributes of a mount, and of everything mounted below if `recursive` (Linux 5.12).
pub(super) fn mount_setattr(
    mount: impl AsFd,
    set: MountAttrFlags,
    clear: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    let attributes = MountAttributes {
        set: u64::from(set.bits()),
        clear: u64::from(clear.bits()),
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid empty C string, and the size given is that of the live structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            mem::size_of::<MountAttributes>(),
        )
    };
    check(result)
}

/// Gives every signal its default action and unblocks all, as a program expects to find them.
pub(super) fn reset_signals() {
    /// Signals of every architecture of ours, and how many bytes the kernel's set of them has.
    const SIGNALS: c_int = 64;
    const SET_BYTES: usize = 8;
    // All zero is SIG_DFL without flags and with an empty mask, whatever the order of the fields.
    let default = [0u64; 4];
    for signal in 1..=SIGNALS {
        // Not `signal()`: the C library keeps 32 and 33 to itself, and they may have been ignored by whoever
        // started kiln.
        // SAFETY: the kernel reads a struct sigaction, which is not larger than `default`.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<libc::c_void>(),
                SET_BYTES,
            )
        };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on to be closed by the next exec.
pub(super) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: marking descriptors does not close any that is owned elsewhere.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one.
    let listed: Vec<c_int> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| u32::try_from(*fd).is_ok_and(|fd| fd >= first))
        .collect();
    for fd in listed {
        // SAFETY: F_SETFD takes an integer; a descriptor closed meanwhile (the listing's own) gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Installs a seccomp filter for this process and its descendants, leaving `no_new_privs` as it is.
pub(super) fn install_filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fprog = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `len` instructions from the live slice.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as c_ulong, &raw const fprog)
    };
    check(result)
}

/// The Landlock version that knows scopes: Linux 6.12.
pub(super) const LANDLOCK_SCOPES_VERSION: i64 = 6;

/// `struct landlock_ruleset_attr` of linux/landlock.h.
#[repr(C)]
struct LandlockRules {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Returns the version of Landlock that the kernel has and uses.
pub(super) fn landlock_version() -> io::Result<i64> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes no attributes.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<LandlockRules>(), 0usize, VERSION)
    };
    if version < 0 { Err(io::Error::last_os_error()) } else { Ok(version) }
}

/// Keeps signals of this process and its descendants among them (landlock(7), LANDLOCK_SCOPE_SIGNAL).
pub(super) fn restrict_signals() -> io::Result<()> {
    const SCOPE_SIGNAL: u64 = 1 << 1;
    if landlock_version()? < LANDLOCK_SCOPES_VERSION {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let rules = LandlockRules { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
    // SAFETY: the size given is that of the live structure.
    let ruleset = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const rules,
            mem::size_of::<LandlockRules>(),
            0u32,
        )
    };
    let ruleset = c_int::try_from(ruleset).map_err(io::Error::other)?;
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    // SAFETY: takes a descriptor and no flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) })
}

/// Brings the loopback interface of this network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket: OwnedFd = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is a valid value: names and flags are plain integers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads a struct ifreq, which outlives the call.
    check(i64::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }))
}

/// Replaces this process's program; returns only on failure.
pub(super) fn exec(program: &CStr, argv: &[&CStr], env: &[&CStr]) -> io::Error {
    match nix::unistd::execve(program, argv, env) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

fn check(result: i64) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs before the test harness's `main`, when there is one thread: unit tests re-execute the test binary as kiln
/// re-executes itself, and run inside what `enter` makes.
#[cfg(test)]
mod before_main {
    extern "C" fn start() {
        super::super::child_main_if_requested();
        super::super::tests::support::enter_for_tests();
    }

    // SAFETY: glibc calls the functions listed in this section with the process set up and one thread; `start`
    // either returns or exits.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static START: extern "C" fn() = start;
}
