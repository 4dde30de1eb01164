//! Processes of other users than root, in the container of steps that run beside them.
//!
//! Such a step may become any user, and who is a user may look into all processes of that user's, and take them over: they have
//! no capability that would be in the way. So what the variables of such a process hold is the step's, and what the process may
//! read stays so after the step: it goes on when every process of the step has ended.
//!
//! Processes of root's are not looked into: a step has one capability less than those of the job.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

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
    /// The variables of those that have one of the secrets there.
    pub(super) telling: Vec<PathBuf>,
    /// Whose processes have the container's own root.
    users: BTreeSet<u32>,
}

impl Neighbours {
    /// Looks at all processes that there are, as a step could.
    pub(super) fn look(secrets: &SecretValues) -> io::Result<Self> {
        let found = processes()?;
        if found.is_empty() {
            return Ok(Self::default());
        }
        // Only this thread becomes those users, for what it opens, and ends with that.
        std::thread::scope(|scope| {
            let looking = threads::spawn_in(scope, "neighbours", || look_as_each(&found, secrets));
            Ok(threads::joined(looking.map_err(io::Error::from)?.join()))
        })
    }

    /// Tells whether one of them may read a file.
    pub(super) fn may_read(&self, mode: u32, owner: u32) -> bool {
        !self.users.is_empty() && (mode & 0o077 != 0 || self.users.contains(&owner))
    }
}

/// A process that is one user's altogether.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    path: PathBuf,
    user: u32,
    group: u32,
}

fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // One that has ended meanwhile tells nothing, and neither does what is no process.
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        if let (Some(user), Some(group)) = (the_one(&status, "Uid:"), the_one(&status, "Gid:"))
            && user != 0
        {
            found.push(Process { path, user, group });
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

fn look_as_each(processes: &[Process], secrets: &SecretValues) -> Neighbours {
    let mut neighbours = Neighbours::default();
    let own = std::fs::metadata("/").ok();
    for process in processes {
        // Where these do nothing, a step cannot become that user either.
        setfsgid(Gid::from_raw(process.group));
        setfsuid(Uid::from_raw(process.user));
        let environment = process.path.join("environ");
        let variables = std::fs::read(&environment);
        let root = std::fs::metadata(process.path.join("root/"));
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        if variables.is_ok_and(|variables| has_secret(&variables, secrets)) {
            neighbours.telling.push(environment);
        }
        let inode = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        if root.ok().as_ref().map(inode) == own.as_ref().map(inode) {
            neighbours.users.insert(process.user);
        }
    }
    neighbours
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
        assert!(!Neighbours::default().may_read(0o644, 0), "there is nobody");
        let neighbours = Neighbours { telling: Vec::new(), users: BTreeSet::from([7]) };
        assert_eq!(
            [(0o600, 0), (0o644, 0), (0o600, 7)].map(|(mode, owner)| neighbours.may_read(mode, owner)),
            [false, true, true]
        );
    }
}
