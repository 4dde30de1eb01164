//! A directory in memory, for what must never reach a disk: the secrets of steps.
//!
//! Where kiln has a mount namespace of its own this is a tmpfs that nobody outside sees and that goes with kiln, however
//! kiln ends. Elsewhere it is an ordinary directory, closed to others.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::mounting::{attach, new_filesystem};
use super::overlay::{open_directory, unmount_at};
use super::{Entered, LaunchKind};

/// The directory; dropping it takes it away with all it holds.
#[derive(Debug)]
pub struct MemoryDir {
    path: PathBuf,
    is_mounted: bool,
}

impl MemoryDir {
    /// Makes the directory `path`.
    pub fn create(path: PathBuf, entered: &Entered) -> io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let is_mounted = entered.launch == LaunchKind::Namespaces && mount(&path).is_ok();
        Ok(Self { path, is_mounted })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether what is written there stays in memory.
    pub fn is_in_memory(&self) -> bool {
        self.is_mounted
    }
}

impl Drop for MemoryDir {
    fn drop(&mut self) {
        // What is left behind goes with the directory above, or with kiln's mount namespace.
        let _ = match self.is_mounted {
            true => unmount_at(&self.path).and_then(|()| std::fs::remove_dir(&self.path)),
            false => std::fs::remove_dir_all(&self.path),
        };
    }
}

fn mount(path: &Path) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(new_filesystem("tmpfs", &[("mode", "0700")], attributes)?, open_directory(path)?)
}
