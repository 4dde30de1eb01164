//! What kiln does when it is started by itself.
//!
//! Steps, probes and the writer of id maps are the same program started again with an internal argument: a process
//! with one thread, in which forking and entering namespaces is safe. This is the one place below `cli/` that reads
//! arguments and exits, because there such a process has its `main`.

use std::ffi::OsStr;
use std::process::Command;

use super::{enter, probe, supervise};

/// The argument that tells kiln that it was started by kiln.
const INTERNAL: &str = "--internal-child";

/// What a child process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Sets up a sandbox, runs a step in it and cleans up.
    Step,
    /// Finds out what works.
    Probe,
    /// Writes the id maps of kiln's user namespace from outside it.
    MapIds,
}

impl Role {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Step, "step"), (Self::Probe, "probe"), (Self::MapIds, "map-ids")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    fn of(name: &OsStr) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(role, _)| *role)
    }
}

/// Prepares to start this program again in `role`.
pub(super) fn command(role: Role) -> Command {
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "kiln");
    // In a process group of its own, ctrl-C reaches kiln only, which then ends its children in good order.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.arg(INTERNAL).arg(role.name()).env_clear();
    command
}

/// Never returns if this process was started by kiln as a step, a probe or a helper; else does nothing.
///
/// The first call of every `main` that uses this library, before any thread is started.
pub fn child_main_if_requested() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(INTERNAL)) {
        return;
    }
    let role = arguments.next();
    // Not by who started it: that is fast only as long as nothing is asked for that needs a fork.
    if std::env::set_current_dir("/").is_err() {
        std::process::exit(2);
    }
    if matches!(role.as_deref().and_then(Role::of), Some(Role::Step)) {
        // What cannot be hidden does not keep a step from running: it is kiln's own processes that matter most.
        let _ = super::conceal();
    }
    let code = match role.as_deref().and_then(Role::of) {
        Some(Role::Step) => supervise::main(),
        Some(Role::Probe) => probe::main(),
        Some(Role::MapIds) => enter::map_ids_main(),
        None => 2,
    };
    std::process::exit(code)
}
