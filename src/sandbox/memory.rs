//! A directory in memory, for what must never reach a disk: the secrets of steps.
//!
//! Where kiln has a mount namespace of its own this is a tmpfs that nobody outside sees and that goes with kiln, however
//! kiln ends. Elsewhere it is an ordinary directory, closed to others; steps in place are root beside it, so nothing is written
//! there but through a descriptor that was open before the first of them.

use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mount::MountAttrFlags;

use super::mounting::{attach, new_filesystem};
use super::overlay::{open_directory, unmount_at};
use super::{Entered, LaunchKind, Source};
use crate::tree::RootDir;

/// The directory; dropping it takes it away with all it holds.
#[derive(Debug)]
pub struct MemoryDir {
    /// Without links.
    path: PathBuf,
    directory: RootDir,
    /// How many secrets were written.
    written: AtomicU64,
    is_mounted: bool,
}

/// A secret in a [`MemoryDir`]; dropping it removes it.
#[derive(Debug)]
pub struct LentSecret {
    directory: RootDir,
    source: Source,
}

/// The name of the file, in a directory of its own.
const FILE: &str = "file";

impl MemoryDir {
    /// Makes the directory `path`.
    pub fn create(path: PathBuf, entered: &Entered) -> io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let is_mounted = entered.launch == LaunchKind::Namespaces && mount(&path).is_ok();
        let path = path.canonicalize()?;
        let directory = RootDir::open_exact(&path)?;
        Ok(Self { path, directory, written: AtomicU64::new(0), is_mounted })
    }

    /// Writes a secret into a file with that mode and owner.
    pub fn lend(&self, value: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<LentSecret> {
        let is_at_its_place = RootDir::open_exact(&self.path)
            .and_then(|found| Ok(found.metadata("")?.same_inode(&self.directory.metadata("")?)));
        if !is_at_its_place.unwrap_or(false) {
            let text = "an earlier step removed or replaced kiln's directory for secrets";
            return Err(io::Error::other(text));
        }
        let name = self.written.fetch_add(1, Ordering::Relaxed).to_string();
        self.directory.create_dir(&name, 0o700)?;
        let directory = self.directory.subdir(&name)?;
        let mut file = directory.create_file(FILE, 0o600)?;
        let lent = LentSecret { directory, source: Source::new(self.path.join(name), FILE) };
        file.write_all(value)?;
        lent.directory.set_owner(FILE, owner.0, owner.1)?;
        lent.directory.set_mode(FILE, mode)?;
        Ok(lent)
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

impl LentSecret {
    /// Returns the file as something to be mounted.
    pub fn source(&self) -> Source {
        self.source.clone()
    }
}

impl Drop for LentSecret {
    fn drop(&mut self) {
        // The directory itself goes at the end of the build; this only makes it sooner.
        let _ = self.directory.remove_file(FILE);
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
