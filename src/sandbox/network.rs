//! A network with nothing but a loopback interface that works.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sched::CloneFlags;
use rustix::process::{DumpableBehavior, PidfdFlags, pidfd_open, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::reap;
use super::sys::{self, Fork};

/// Moves this process, which has one thread, into a new network namespace with its loopback interface up.
///
/// Bringing an interface up takes NET_ADMIN over the namespace. Where kiln has SYS_ADMIN but not that one, a child makes
/// the namespace inside a user namespace of its own, where it has every capability.
pub(super) fn enter_empty() -> io::Result<()> {
    let own = nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .and_then(|()| sys::loopback_up());
    match own {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => borrow().map_err(|_| error),
        other => other,
    }
}

fn borrow() -> io::Result<()> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Fork::Child => {
            drop(ours);
            let made = nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| sys::loopback_up())
                // kiln's processes are nobody's to look into; this one's namespace has to be reached by its parent.
                .and_then(|()| Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?))
                .and_then(|()| theirs.write_all(b"!"));
            if made.is_ok() {
                // The namespace lives until the other side has moved in.
                let _ = theirs.read(&mut [0]);
            }
            std::process::exit(i32::from(made.is_err()))
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let entered = ours.read_exact(&mut [0]).and_then(|()| {
                // By descriptor (Linux 5.8): in a new pid namespace the old /proc knows the child by another number.
                let child = pidfd_open(pid, PidfdFlags::empty())?;
                Ok(move_into_thread_name_spaces(child.as_fd(), ThreadNameSpaceType::NETWORK)?)
            });
            drop(ours);
            reap::wait_for(pid)?;
            entered
        }
    }
}
