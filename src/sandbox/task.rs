//! What to run, where, and how it ended.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cancel, SandboxError, wire};
use crate::tree::RootDir;

/// How much of the host a step may be kept apart with; `Auto` takes the best that works here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// The first of the following that works.
    #[default]
    Auto,
    /// Namespaces made with the privileges kiln has.
    Namespaces,
    /// Namespaces inside a user namespace of kiln's own.
    UserNamespaces,
    /// A changed root directory and nothing else.
    Chroot,
    /// The stage's files take the place of the container's own for the time of a step.
    InPlace,
    /// No steps at all.
    None,
}

impl Isolation {
    /// Every value and its name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("namespaces", Self::Namespaces),
        ("user-namespaces", Self::UserNamespaces),
        ("chroot", Self::Chroot),
        ("in-place", Self::InPlace),
        ("none", Self::None),
    ];
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, value)| value == self).map_or("auto", |(name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Isolation {
    type Err = SandboxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| SandboxError::UnknownIsolation { name: text.to_owned() })
    }
}

/// The host name of a step that asks for no other: BuildKit's.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// One process to run.
#[derive(Debug, Clone)]
pub struct Task {
    /// The stage's tree on this machine.
    pub root: PathBuf,
    /// The command; the first word is looked up in the `PATH` of `env`, inside the root.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing of kiln's own is added.
    pub env: Vec<(OsString, OsString)>,
    /// Absolute in the root; created if missing.
    pub cwd: PathBuf,
    /// Who runs it.
    pub user: User,
    /// The host name it sees.
    pub hostname: String,
    /// What else is to be seen in the root.
    pub mounts: Vec<Mount>,
    /// Which network it sees.
    pub network: Network,
    /// All capabilities, no filter, nothing masked (`RUN --security=insecure`).
    pub insecure: bool,
    /// Further lines of `/etc/hosts`: name and address.
    pub hosts: Vec<(String, String)>,
    /// The content of `/etc/resolv.conf`; `None` means this machine's.
    pub dns: Option<Vec<u8>>,
    /// Size of `/dev/shm`; `None` means 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// Resource limits; those not named are kiln's own, but for the soft one of open files.
    pub ulimits: Vec<Ulimit>,
    /// Ends the step early.
    pub cancel: Arc<Cancel>,
}

/// Numeric identity of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one included if it is to be listed.
    pub groups: Vec<u32>,
}

/// Something mounted for the time of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute in the root; symbolic links are followed inside it; created if missing, and then removed again.
    #[serde(with = "wire::path")]
    pub target: PathBuf,
    /// What is mounted there.
    pub kind: MountKind,
}

/// A file or directory of this machine, found below a directory that is kiln's own.
///
/// It is looked up once, when the step begins, and what was found is used by its descriptor: others may write below
/// `root` at that moment (two steps share a cache), and whatever they put there leads to nothing outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Absolute and without links: with one it is an error.
    #[serde(with = "wire::path")]
    root: PathBuf,
    /// Links are followed, inside `root`; empty for `root` itself.
    #[serde(with = "wire::path")]
    below: PathBuf,
}

impl Source {
    /// Names what is `below` the directory `root`, no component of which may be a link.
    pub fn new(root: PathBuf, below: impl Into<PathBuf>) -> Self {
        Self { root, below: below.into() }
    }

    /// Names what is `below` a directory to which links may lead now.
    pub fn below(root: &Path, below: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self::new(root.canonicalize()?, below))
    }

    /// Returns a handle (`O_PATH`) of what is there.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        RootDir::open_exact(&self.root)?.open_path(&self.below)
    }

    /// Returns the directory that holds it, and its name there, which may have become a link's.
    pub(super) fn entry(&self) -> io::Result<(RootDir, OsString)> {
        let root = RootDir::open_exact(&self.root)?;
        let path = root.resolve(&self.below)?;
        let entry = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (root.subdir(parent)?, name.to_owned()),
            _ => match (self.root.parent(), self.root.file_name()) {
                (Some(parent), Some(name)) => (RootDir::open_exact(parent)?, name.to_owned()),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "`/` itself cannot be put anywhere",
                    ));
                }
            },
        };
        Ok(entry)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = self.below.strip_prefix("/").unwrap_or(&self.below);
        let path = if below.as_os_str().is_empty() { &self.root } else { &self.root.join(below) };
        path.display().fmt(f)
    }
}

/// The kinds of [`Mount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of this machine.
    Bind {
        /// What is shown.
        source: Source,
        /// Whether the step may not write to it.
        read_only: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its limit; `None` means the kernel's default.
        size_bytes: Option<u64>,
        /// Mode of its root.
        mode: u32,
    },
    /// A directory of this machine that the step may write to without changing it; what it writes is dropped.
    ScratchOverlay {
        /// The directory shown.
        lower: Source,
        /// An existing empty directory that takes the writes; the caller removes it.
        #[serde(with = "wire::path")]
        scratch: PathBuf,
    },
}

/// Which network a step sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The one kiln itself has.
    #[default]
    Default,
    /// Only a loopback interface.
    None,
    /// The one kiln itself has.
    Host,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The name as `ulimit` options of docker have it: `nofile`, `nproc`, …
    pub name: String,
    /// Soft limit; `None` means unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` means unlimited.
    pub hard: Option<u64>,
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How the process ended.
    pub exit: Exit,
    /// What of the root it did not see: what it made may differ from what it makes elsewhere.
    pub hidden: Vec<PathBuf>,
    /// What of the root was moved for the step, so that its ctime is another, and is known not to have been touched by it.
    pub still: Vec<PathBuf>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// Returns the code as a shell shows it: 128 + the signal for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}
