//! What kiln and its child processes say to each other: JSON lines over a Unix socket.
//!
//! The child gets one [`Order`], says what it put into the root ([`Report::Stubs`], answered by a line), and at the
//! end how the step went. When kiln's end of the socket closes, the child ends the step.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::guard::KilnFiles;
use super::limits::Limits;
use super::private::Record;
use super::task::{Exit, Mount, Network, Task, Ulimit, User};
use super::volumes::VolumeOrder;
use super::{CacheDirectory, LaunchKind, SandboxError, Whose};

/// A task as the child gets it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) launch: LaunchKind,
    /// Mount a new proc file system and make a pid namespace.
    pub(super) fresh_proc: bool,
    /// Only one id is mapped: changes of owner are made to look as if they worked.
    pub(super) single_id: bool,
    /// Overlays need the option `userxattr`.
    pub(super) overlay_userxattr: bool,
    #[serde(with = "path")]
    pub(super) root: PathBuf,
    /// Where the launch keeps its own files, the journal for one.
    #[serde(with = "path")]
    pub(super) state_dir: PathBuf,
    /// Files with credentials, whose descriptors came before the order.
    pub(super) private: Vec<Record>,
    /// What has to be as it is for these to be refilled by somebody else than kiln.
    pub(super) kiln_files: KilnFiles,
    /// No new privileges, and no signals to processes outside of the step.
    pub(super) hardened: bool,
    /// Volumes that are to show the stage's files.
    pub(super) volumes: Vec<VolumeOrder>,
    /// Where volumes are mounted that are somewhere else during the step.
    pub(super) moving: Vec<OsString>,
    /// Where volumes are mounted that steps see as they are.
    pub(super) staying: Vec<OsString>,
    /// kiln's caches.
    pub(super) caches: Vec<CacheDirectory>,
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    #[serde(with = "path")]
    pub(super) cwd: PathBuf,
    pub(super) user: User,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Mount>,
    pub(super) network: Network,
    pub(super) insecure: bool,
    /// Nothing but lost capabilities keeps the step off this machine's disks.
    pub(super) disks_are_open: bool,
    /// Content of `/etc/hosts`.
    pub(super) hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub(super) dns: Vec<u8>,
    /// The task itself asks for hosts.
    pub(super) own_hosts: bool,
    /// The task itself asks for name servers.
    pub(super) own_dns: bool,
    pub(super) shm_size_bytes: Option<u64>,
    pub(super) ulimits: Vec<Ulimit>,
    /// What the step begins with, where a step can change what it would inherit.
    pub(super) limits: Option<Limits>,
}

impl Order {
    /// Tells whether the step's processes have numbers of their own.
    pub(super) fn has_pid_namespace(&self) -> bool {
        self.launch == LaunchKind::Namespaces && self.fresh_proc
    }

    /// Writes `task` down for a child that runs it by `launch`.
    pub(super) fn new(launch: LaunchKind, task: &Task) -> Self {
        Self {
            launch,
            fresh_proc: false,
            single_id: false,
            overlay_userxattr: false,
            root: task.root.clone(),
            state_dir: PathBuf::new(),
            private: Vec::new(),
            kiln_files: KilnFiles::default(),
            hardened: false,
            volumes: Vec::new(),
            moving: Vec::new(),
            staying: Vec::new(),
            caches: Vec::new(),
            argv: task.argv.clone(),
            env: task.env.clone(),
            cwd: task.cwd.clone(),
            user: task.user.clone(),
            hostname: task.hostname.clone(),
            mounts: task.mounts.clone(),
            network: task.network,
            insecure: task.insecure,
            disks_are_open: false,
            hosts: hosts_file(&sandbox_hosts(&task.hostname), task),
            dns: Vec::new(),
            own_hosts: !task.hosts.is_empty(),
            own_dns: task.dns.is_some(),
            shm_size_bytes: task.shm_size_bytes,
            ulimits: task.ulimits.clone(),
            limits: None,
        }
    }
}

/// Returns what `/etc/hosts` has where a step has a host name of its own.
fn sandbox_hosts(hostname: &str) -> String {
    format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// Returns the content of `/etc/hosts`: `base` and what the task adds.
pub(super) fn hosts_file(base: &str, task: &Task) -> String {
    let mut text = base.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in &task.hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// A file or directory made in the root so that something can be mounted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stub {
    /// Relative to the root, without links.
    #[serde(with = "path")]
    pub(super) path: PathBuf,
}

/// What the child says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Report {
    /// These were made in the root; the child waits for a line before it starts the step.
    Stubs(Vec<Stub>),
    /// The user should know this.
    Warning(String),
    /// The step does not see what the image has here.
    Hidden(OsString),
    /// Nothing of the step is left; whoever watched over it waits for a line before it puts things back.
    Over,
    /// The step could not be started; how it ended follows.
    NotStarted(Failure),
    /// The process that watches over the step is at its end, and maybe nothing was ended or put back.
    Failed(Failure),
    /// The step ended, and nothing of it is left; these paths of the root it did not touch.
    Ended { exit: Exit, still: Vec<OsString> },
}

/// Why a step could not be started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Failure {
    Setup { action: String, cause: Cause },
    Mount { target: String, action: String, cause: Cause },
    Ulimit { name: String },
    OwnFiles { path: String },
    Volume { point: OsString, problem: String },
    UnmappedUser { uid: u32, gid: u32 },
    NotInPath { program: String },
    NoSuchFile { program: String },
    NotExecutable { program: String },
    Exec { program: String, cause: Cause },
    NotHardened { cause: Cause },
    Limited { what: String },
}

/// An [`io::Error`] on its way from one process to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cause {
    errno: Option<i32>,
    text: String,
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error(), text: error.to_string() }
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        cause.errno.map_or_else(|| Self::other(cause.text), Self::from_raw_os_error)
    }
}

impl Failure {
    /// Says that `action` failed.
    pub(super) fn setup(action: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Setup { action: action.into(), cause: Cause::from(error.into()) }
    }
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Setup { action, cause } => Self::Setup { action, source: cause.into() },
            Failure::Mount { target, action, cause } => {
                Self::Mount { target: target.into(), action, source: cause.into() }
            }
            Failure::OwnFiles { path } => {
                Self::OwnFiles { path: path.into(), whose: Whose::Kilns, state: String::new() }
            }
            Failure::Volume { point, problem } => Self::Volume { point: point.into(), problem },
            Failure::Ulimit { name } => Self::UnknownUlimit { name },
            Failure::UnmappedUser { uid, gid } => Self::UnmappedUser { uid, gid },
            Failure::NotInPath { program } => Self::ExecutableNotFound { program },
            Failure::NoSuchFile { program } => Self::NoSuchExecutable { program },
            Failure::NotExecutable { program } => Self::NotExecutable { program },
            Failure::Limited { what } => Self::Limited { what },
            Failure::NotHardened { cause } => Self::NotHardened { source: cause.into() },
            Failure::Exec { program, cause } => {
                Self::Exec { program, reason: errno_text(&cause), source: cause.into() }
            }
        }
    }
}

/// Names an error the way C programs do, in lower case: `exec format error`.
fn errno_text(cause: &Cause) -> String {
    match cause.errno {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
        None => cause.text.clone(),
    }
}

/// Writes one message.
pub(super) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads messages, one a line.
#[derive(Debug)]
pub(super) struct Receiver<R: Read>(BufReader<R>);

impl<R: Read> Receiver<R> {
    pub(super) fn new(from: R) -> Self {
        Self(BufReader::new(from))
    }

    /// Returns the next message; `None` when the other side has closed its end.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// Several paths as bytes.
pub(super) mod paths {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::sandbox) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        paths.iter().map(|path| path.as_os_str()).collect::<Vec<_>>().serialize(to)
    }

    pub(in crate::sandbox) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        Ok(Vec::<OsString>::deserialize(from)?.into_iter().map(PathBuf::from).collect())
    }
}

/// Paths as bytes: serde's own refuses those that are not UTF-8.
pub(super) mod path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::sandbox) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub(in crate::sandbox) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}
