//! Ending what a step leaves behind.
//!
//! Where a step has no pid namespace, its supervisor is the subreaper of everything the step starts, however often it
//! forks and whatever sessions it makes: orphans become the supervisor's children, and are killed as long as there
//! are any.
//!
//! If the supervisor itself is killed, they are known by a capability that they can never have again.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait, waitpid};

use super::process::{DEFAULT_CAPABILITIES, MARK};
use super::task::Exit;

/// How long the end of killed processes is waited for. One in the middle of a read from a dead disk may take any time.
const DEATH: Duration = Duration::from_secs(10);

/// Waits for one child to end.
pub(super) fn wait_for(pid: Pid) -> io::Result<Exit> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(exit) = exit_of(status) {
                    return Ok(exit);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Collects `pid` if it has ended, and every other child that has.
pub(super) fn collect(pid: Pid) -> io::Result<Option<Exit>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended == pid => found = exit_of(status).or(found),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills children, and those they leave, until there are none.
pub(super) fn kill_all_children() -> io::Result<()> {
    loop {
        for child in children()? {
            match kill_process(child, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // At least one child was killed, or there is none: waiting for one cannot take long.
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// Returns the children of this process.
fn children() -> io::Result<Vec<Pid>> {
    let parse = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(parse).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => children_by_status(),
        Err(error) => Err(error),
    }
}

/// The same on kernels that do not list children: by asking every process for its parent.
fn children_by_status() -> io::Result<Vec<Pid>> {
    let me = format!("PPid:\t{}", rustix::process::getpid().as_raw_nonzero());
    by_status(|status| status.lines().any(|line| line == me))
}

/// Kills what steps in place left behind whose supervisor was killed, and waits until it is gone.
///
/// However they forked, such processes see this one's mounts and lack a capability that it and the job's own processes
/// have. Where nobody has that they cannot be told apart, and nothing is killed.
pub(super) fn kill_left_behind() -> io::Result<()> {
    let bounding = |status: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let own = bounding(&std::fs::read_to_string("/proc/self/status")?).unwrap_or(0);
    let unmarked = own & !MARK.bits();
    if unmarked == own {
        return Ok(());
    }
    let mounts = std::fs::read_link("/proc/self/ns/mnt")?;
    let is_step = |status: &str| {
        // Zombies do no harm any more; who should collect them may be long in doing so.
        let alive = !status.contains("\nState:\tZ");
        let marked = [unmarked, unmarked & DEFAULT_CAPABILITIES.bits()];
        alive && bounding(status).is_some_and(|set| marked.contains(&set))
    };
    let begin = Instant::now();
    loop {
        let mut left = by_status(is_step)?;
        left.retain(|pid| {
            std::fs::read_link(format!("/proc/{}/ns/mnt", pid.as_raw_nonzero()))
                .is_ok_and(|other| other == mounts)
        });
        if left.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > DEATH {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of a step do not end"));
        }
        for pid in left {
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the processes whose `/proc/PID/status` is as `wanted`.
fn by_status(wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())) else {
            continue;
        };
        if wanted(&status) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
