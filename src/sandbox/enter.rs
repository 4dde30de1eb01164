//! Entering the namespaces that all of kiln runs in.

use super::{Isolation, Probes, SandboxError};

/// The launches there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaunchKind {
    /// Mount, pid, ipc and uts namespaces per step.
    Namespaces,
    /// A changed root directory.
    Chroot,
    /// Rename-swap into `/`.
    InPlace,
    /// None: no step can run.
    None,
}

/// What was chosen, and what kiln now runs in.
#[derive(Debug, Clone)]
pub struct Entered {
    /// How steps are run.
    pub launch: LaunchKind,
    /// Whether kiln now runs in a user namespace of its own.
    pub user_namespace: bool,
    /// Whether overlays need the `userxattr` option, if they work at all; storage is chosen by `rootfs::choose`.
    pub overlay_userxattr: bool,
    /// Whether only one user id is mapped: owners cannot be kept.
    pub single_id: bool,
    /// Whether a fresh proc file system can be mounted, so that steps get a pid namespace.
    pub fresh_proc: bool,
    /// What was chosen and why, in a sentence.
    pub description: String,
    /// What would be better, and what it takes.
    pub advice: Option<String>,
}

/// Gives this process a mount namespace of its own, by way of a user namespace if need be, and chooses the launch.
///
/// Must be called while the process has one thread.
pub fn enter(isolation: Isolation, probes: &Probes) -> Result<Entered, SandboxError> {
    let _ = (isolation, probes);
    todo!()
}
