//! What can go wrong around a step, apart from the step itself.

use std::io;
use std::path::PathBuf;

use crate::threads::Refused;

/// An error of the sandbox; a step that merely exits with a code is none.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// `--isolation` has a value that does not exist.
    #[error(
        "unknown isolation `{name}`: expected auto, namespaces, user-namespaces, chroot, in-place or none"
    )]
    UnknownIsolation {
        /// What was given.
        name: String,
    },
    /// The isolation asked for does not work here.
    #[error("isolation `{isolation}` does not work here: {reason}")]
    IsolationUnavailable {
        /// What was asked for.
        isolation: super::Isolation,
        /// Which probe failed, and how.
        reason: String,
    },
    /// The system refused a process that is needed to find out what works here.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A step is to run where nothing can run.
    #[error("cannot run commands here: {reason}")]
    NoLaunch {
        /// Why not.
        reason: String,
    },
    /// A ulimit has a name the kernel does not know.
    #[error("unknown ulimit `{name}`")]
    UnknownUlimit {
        /// What was given.
        name: String,
    },
    /// Setting up the sandbox failed.
    #[error("cannot set up the sandbox: {action}: {source}")]
    Setup {
        /// What was being done, with the path or name it was done to.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A mount of the task cannot be made.
    #[error("cannot mount at `{}`: {action}: {source}", target.display())]
    Mount {
        /// Where in the root.
        target: PathBuf,
        /// What was being done.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The step is to run as somebody this machine gives kiln no id for.
    #[error("cannot run as user {uid}, group {gid}: kiln's user namespace has no such id")]
    UnmappedUser {
        /// User id of the step.
        uid: u32,
        /// Group id of the step.
        gid: u32,
    },
    /// The command is no path and in no directory of `PATH`.
    #[error("exec: \"{program}\": executable file not found in $PATH")]
    ExecutableNotFound {
        /// The command's first word.
        program: String,
    },
    /// The command is a path and nothing is there.
    #[error("exec: \"{program}\": stat {program}: no such file or directory")]
    NoSuchExecutable {
        /// The command's first word.
        program: String,
    },
    /// The command is there and may not be executed.
    #[error("exec: \"{program}\": permission denied")]
    NotExecutable {
        /// The command's first word.
        program: String,
    },
    /// The kernel cannot execute the command: another architecture, or an interpreter that is missing.
    #[error("exec {program}: {reason}")]
    Exec {
        /// The file.
        program: String,
        /// What the system said, as C programs put it.
        reason: String,
        /// The same as an error.
        source: io::Error,
    },
    /// kiln could not start or talk to its own child process.
    #[error("cannot {action}: {source}")]
    Child {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The process that watches over a step vanished.
    #[error("the process that watches over the step ended without a word: {status}")]
    ChildVanished {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// Something put into the root for the step's sake cannot be removed.
    #[error("cannot clean up `{}` after the step: {source}", path.display())]
    Cleanup {
        /// Where in the root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A step in place took away what kiln cannot do without.
    #[error("the step removed or replaced {whose} own `{}`{state}", path.display())]
    OwnFiles {
        /// What is gone, or another than before.
        path: PathBuf,
        /// Whose it is.
        whose: Whose,
        /// How many more there are, and what became of them.
        state: String,
    },
    /// Steps would be able to read credentials.
    #[error("steps could read {} here: {}", if files.len() == 1 { "a credential" } else { "credentials" }, listed(files))]
    VisibleCredentials {
        /// The files, and why they cannot be hidden.
        files: Vec<(PathBuf, &'static str)>,
    },
    /// A file that was emptied for the time of the steps cannot be refilled.
    #[error("`{}`, which was hidden from the steps, stays empty: {source}", path.display())]
    CredentialsLost {
        /// Where it was.
        path: PathBuf,
        /// What is in the way.
        source: io::Error,
    },
    /// The process that kiln was started as was killed.
    #[error("the process that watches over kiln was killed: {source}")]
    KeeperGone {
        /// How that was noticed.
        source: io::Error,
    },
    /// A step changed limits of kiln's own processes, which other steps would inherit.
    #[error("a step changed the limits of kiln itself: {what}")]
    Limited {
        /// Which, and whose.
        what: String,
    },
    /// Signals are to be kept from kiln, and cannot be.
    #[error("`--hardened` needs a kernel with Landlock's signal scope (Linux 6.12): {source}")]
    NotHardened {
        /// What the system said.
        source: io::Error,
    },
    /// A volume of the container lies over paths of the image and cannot show the stage's files.
    #[error("a volume of the container at `{}` is in the way: {problem}", point.display())]
    Volume {
        /// Where it is mounted.
        point: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A step removed files of volumes, and the copies of them.
    #[error(
        "the step destroyed files of the container's volumes, which are lost, since it destroyed the copies that kiln made of them, too: {}",
        counted(volumes)
    )]
    VolumesLost {
        /// Where each is mounted, and how many of its files are lost.
        volumes: Vec<(PathBuf, usize)>,
    },
    /// A step in place put something else into the place of a device.
    #[error("the step replaced the container's `{}`, which is as before again", path.display())]
    Device {
        /// Which.
        path: PathBuf,
    },
    /// The null device, which programs are started with, is something else: a FIFO, for one, has them wait for ever.
    #[error("`/dev/null` is a {found} here, expected the null device")]
    NullDevice {
        /// What it is.
        found: crate::tree::FileKind,
    },
    /// Another kiln has the place of `/`.
    #[error(
        "another kiln is building in place in this container, and one can at a time: start this one after it, or in a container of its own"
    )]
    Occupied,
    /// The step was ended by [`super::Cancel`].
    #[error("cancelled")]
    Cancelled,
}

/// Whose files stand beside a step in place, and are none of the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// kiln's, and those of the shell that runs the job.
    Kilns,
    /// All others of the container that kiln runs in.
    Containers,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kilns => "kiln's",
            Self::Containers => "the container's",
        })
    }
}

fn listed(files: &[(PathBuf, &'static str)]) -> String {
    let said: Vec<String> = files.iter().map(|(path, why)| format!("`{}` ({why})", path.display())).collect();
    said.join(", ")
}

fn counted(volumes: &[(PathBuf, usize)]) -> String {
    let said: Vec<String> =
        volumes.iter().map(|(point, count)| format!("{count} in `{}`", point.display())).collect();
    said.join(", ")
}

impl SandboxError {
    /// Returns the exit code a shell would give: 127 if there is no such command, 126 if it cannot be executed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::ExecutableNotFound { .. } | Self::NoSuchExecutable { .. } => Some(127),
            Self::NotExecutable { .. } | Self::Exec { .. } => Some(126),
            _ => None,
        }
    }
}
