//! What can go wrong around a step, apart from the step itself.

use std::io;
use std::path::PathBuf;

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
    /// Something put into the root for the step's sake cannot be removed.
    #[error("cannot clean up `{}` after the step: {source}", path.display())]
    Cleanup {
        /// Where in the root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The step was ended by [`super::Cancel`].
    #[error("cancelled")]
    Cancelled,
}
