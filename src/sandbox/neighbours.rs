//! Processes that a step beside them may trace, in the container or the pod of steps that run beside the job's.
//!
//! A step may become any user, and has all of a container's capabilities but one. So it may look into, and take over, what is
//! one user's altogether and has no capability that it lacks: processes of other users than root, and those of root's that
//! gave capabilities away, as daemons do. What the variables of such a process hold is the step's, and what the process may
//! read stays so after the step: it goes on when every process of the step has ended, and a step can hand it descriptors of
//! directories of this container.
//!
//! Whether it may is the kernel's to say (ptrace_may_access, and what Yama and AppArmor add): a thread that is as able as a
//! step asks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::process::become_as_able_as_steps;
use crate::threads;

/// A variable that is known to hold credentials, whatever kiln itself was given.
const KNOWN: &[u8] = b"DOCKER_AUTH_CONFIG";

/// Values that no step is to know.
#[derive(Clone, Default)]
pub struct SecretValues(pub Vec<Vec<u8>>);

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretValues({})", self.0.len())
    }
}

/// What there is of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// The variables of those that have one of the secrets there, and why a step can read them.
    pub(super) telling: Vec<(PathBuf, &'static str)>,
    /// Whose processes can be taken over.
    users: BTreeSet<u32>,
}

impl Neighbours {
    /// Looks at all processes that there are, as a step could.
    pub(super) fn look(secrets: &SecretValues) -> io::Result<Self> {
        let found = tasks()?;
        if found.is_empty() {
            return Ok(Self::default());
        }
        // Only this thread loses capabilities and becomes those users, and ends with that.
        std::thread::scope(|scope| {
            let looking = threads::spawn_in(scope, "neighbours", || look_as_a_step(&found, secrets));
            threads::joined(looking.map_err(io::Error::from)?.join())
        })
    }

    /// Says why one of them may read a file, if one may.
    pub(super) fn may_read(&self, mode: u32, owner: u32) -> Option<&'static str> {
        if self.users.contains(&0) {
            return Some(
                "a process of root's runs here that has no capability that steps lack: they can take it over, and it goes \
                 on after them: end it",
            );
        }
        let may = !self.users.is_empty() && (mode & 0o077 != 0 || self.users.contains(&owner));
        may.then_some(
            "it is not root's alone, and steps can take over processes of other users here, which go on after them: \
             `chmod 600` it, or end them",
        )
    }
}

/// A thread of a process, that is one user's altogether and has memory.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    process: PathBuf,
    path: PathBuf,
    user: u32,
    group: u32,
}

/// Lists those of all processes but this one.
fn tasks() -> io::Result<Vec<Task>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if number.is_none_or(|number| number == std::process::id()) {
            continue;
        }
        // One that has ended meanwhile tells nothing, and neither does what is no process.
        for task in std::fs::read_dir(entry.path().join("task")).into_iter().flatten().flatten() {
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
            let ids = (the_one(&status, "Uid:"), the_one(&status, "Gid:"));
            if let (Some(user), Some(group), true) = (ids.0, ids.1, status.contains("\nVmSize:")) {
                found.push(Task { process: entry.path(), path: task.path(), user, group });
            }
        }
    }
    Ok(found)
}

/// Returns the id in a line of proc_pid_status(5) whose real, effective and saved one are the same.
fn the_one(status: &str, name: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let ids: Vec<u32> = line.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    match ids[..] {
        [real, effective, saved, _] if real == effective && effective == saved => Some(real),
        _ => None,
    }
}

fn look_as_a_step(tasks: &[Task], secrets: &SecretValues) -> io::Result<Neighbours> {
    let mut neighbours = Neighbours::default();
    become_as_able_as_steps()?;
    let able = rustix::thread::capabilities(None)?.permitted;
    for task in tasks {
        // Where these do nothing, a step cannot become that user either.
        setfsgid(Gid::from_raw(task.group));
        setfsuid(Uid::from_raw(task.user));
        // A step can keep its capabilities when it becomes another user.
        let sets = CapabilitySets { permitted: able, effective: able, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        let environment = task.process.join("environ");
        let is_known = neighbours.telling.iter().any(|(path, _)| *path == environment);
        let variables = std::fs::read(task.path.join("environ")).unwrap_or_default();
        if !is_known && has_secret(&variables, secrets) {
            let why = match task.user {
                0 => "a process of root's that has no capability that steps lack has it in its variables",
                _ => {
                    "a process of another user than root has it in its variables, and steps can become that user"
                }
            };
            neighbours.telling.push((environment, why));
        }
        if may_take_over(&task.path) {
            neighbours.users.insert(task.user);
        }
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
    Ok(neighbours)
}

/// Asks for what tracing asks for, without any consequence.
fn may_take_over(task: &Path) -> bool {
    File::open(task.join("mem")).is_ok()
}

fn has_secret(variables: &[u8], secrets: &SecretValues) -> bool {
    let mut variables = variables.split(|byte| *byte == 0).filter_map(|variable| {
        let equals = variable.iter().position(|byte| *byte == b'=')?;
        Some((&variable[..equals], &variable[equals + 1..]))
    });
    variables.any(|(name, value)| {
        !value.is_empty() && (name == KNOWN || secrets.0.iter().any(|secret| secret == value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_by_name_and_by_value() {
        let secrets = SecretValues(vec![b"t0ken".to_vec()]);
        for (variables, expected) in [
            (&b"PATH=/bin\0DOCKER_AUTH_CONFIG={}\0"[..], true),
            (b"PATH=/bin\0OTHER=t0ken\0", true),
            (b"PATH=/bin\0OTHER=t0ken2\0DOCKER_AUTH_CONFIG=\0", false),
            (b"", false),
        ] {
            assert_eq!(has_secret(variables, &secrets), expected, "{}", variables.escape_ascii());
        }
        assert!(!format!("{secrets:?}").contains("116"));
    }

    #[test]
    fn whoever_is_several_users_is_none() {
        let status = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t1\t2\t1\t1\n";
        assert_eq!((the_one(status, "Uid:"), the_one(status, "Gid:")), (Some(7), None));
    }

    #[test]
    fn files_that_another_user_can_read() {
        assert_eq!(Neighbours::default().may_read(0o644, 0), None, "there is nobody");
        let neighbours = Neighbours { telling: Vec::new(), users: BTreeSet::from([7]) };
        assert_eq!(
            [(0o600, 0), (0o644, 0), (0o600, 7)]
                .map(|(mode, owner)| neighbours.may_read(mode, owner).is_some()),
            [false, true, true]
        );
        let neighbours = Neighbours { telling: Vec::new(), users: BTreeSet::from([0]) };
        assert!(neighbours.may_read(0o600, 0).is_some());
    }
}
