//! What the processes around kiln may learn of it: nothing.
//!
//! Where a step has no pid namespace it sees kiln in `/proc`, and as root it could look into its environment, its memory
//! and its open files, where registry credentials are.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Makes this process unreadable for others (no `environ`, `mem`, `fd` or tracing without SYS_PTRACE, no core dumps) and
/// takes its arguments out of the process list.
///
/// Whoever needs the arguments has read them by now; children have to do this for themselves.
pub fn conceal() -> io::Result<()> {
    let blanked = blank_arguments();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    blanked
}

/// Overwrites the arguments after the program's name: `/proc/PID/cmdline` is everybody's to read, and build arguments
/// carry tokens.
fn blank_arguments() -> io::Result<()> {
    /// Numbers of `arg_start` and `arg_end` in proc_pid_stat(5), counted behind the program's name.
    const FIELDS: (usize, usize) = (48 - 3, 49 - 3);
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_ascii_whitespace().collect();
    let number = |index: usize| -> Option<u64> { fields.get(index)?.parse().ok() };
    let (Some(start), Some(end)) = (number(FIELDS.0), number(FIELDS.1)) else {
        return Err(io::Error::other("no arguments in /proc/self/stat"));
    };
    let name = std::fs::read("/proc/self/cmdline")?.iter().take_while(|byte| **byte != 0).count() as u64;
    let rest = start + name;
    if start == 0 || rest >= end {
        return Ok(());
    }
    let length = usize::try_from(end - rest).map_err(io::Error::other)?;
    OpenOptions::new().write(true).open("/proc/self/mem")?.write_all_at(&vec![0; length], rest)
}
