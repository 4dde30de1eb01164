//! The container's `/dev` beside a step in place: it stays where it is, so it is noted before the step and put back after it.
//!
//! A step may do there what it could in a `/dev` of its own: make directories and links, leave files in `/dev/shm`. Nothing of
//! that is there after it. A device that something else was put in the place of would reach the next step and the job,
//! so that fails the step besides.
//!
//! In `/dev/shm` and `/dev/mqueue` the job's own processes, and other containers of a pod, make files at the same time: what
//! some process that is left has open or mapped stays. What was there before is theirs altogether; it is not looked into.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::SandboxError;
use super::look::at;
use crate::tree::{Device, FileKind, Metadata, RootDir, Walk};

/// File systems of every container that a stage's tree does not take the place of.
const TREES: [&str; 3] = ["/dev", "/dev/shm", "/dev/mqueue"];

/// Those that the job's processes share memory and messages by.
const SHARED: [&str; 2] = ["/dev/shm", "/dev/mqueue"];

/// What was there before a step.
#[derive(Debug)]
pub(super) struct DevEntries {
    slash: RootDir,
    trees: Vec<&'static Path>,
    entries: BTreeMap<PathBuf, Known>,
}

#[derive(Debug)]
struct Known {
    metadata: Metadata,
    /// Where a link leads.
    link: Option<PathBuf>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct DevChanges {
    /// Devices that something else was in the place of.
    pub(super) replaced: Vec<PathBuf>,
    /// What is not as before.
    pub(super) problems: Vec<io::Error>,
}

impl DevEntries {
    /// Takes note of everything; where `/dev` is part of the container's own file system it moves away with that.
    pub(super) fn note(mounts: &BTreeSet<PathBuf>) -> io::Result<Self> {
        let trees = TREES.map(Path::new).into_iter().filter(|tree| mounts.contains(*tree)).collect();
        let mut noted = Self { slash: RootDir::open(Path::new("/"))?, trees, entries: BTreeMap::new() };
        for (path, metadata) in noted.look()? {
            let link = match metadata.kind {
                FileKind::Symlink => Some(noted.slash.read_link(&path)?),
                _ => None,
            };
            noted.entries.insert(path, Known { metadata, link });
        }
        Ok(noted)
    }

    /// Lists the trees with all that is in them; a mount is its directory, whatever is mounted there.
    fn look(&self) -> io::Result<BTreeMap<PathBuf, Metadata>> {
        let mut found = BTreeMap::new();
        for tree in &self.trees {
            found.insert(tree.to_path_buf(), self.slash.metadata(tree)?);
            for entry in Walk::new(&self.slash, tree)?.same_device_only() {
                let entry = entry?;
                found.insert(tree.join(&entry.path), entry.metadata);
            }
        }
        Ok(found)
    }

    /// Makes everything as it was; every process of the step has ended.
    pub(super) fn put_back(&self) -> DevChanges {
        let mut changes = DevChanges::default();
        match self.look() {
            Ok(now) => {
                for (path, known) in &self.entries {
                    if let Err(error) = self.put_back_one(path, known, &now, &mut changes) {
                        changes.problems.push(at(path, error));
                    }
                }
            }
            Err(error) => changes.problems.push(error),
        }
        if let Err(error) = self.remove_new() {
            changes.problems.push(error);
        }
        changes
    }

    fn put_back_one(
        &self,
        path: &Path,
        known: &Known,
        now: &BTreeMap<PathBuf, Metadata>,
        changes: &mut DevChanges,
    ) -> io::Result<()> {
        let was = &known.metadata;
        let found = match self.slash.metadata(path) {
            Err(error) if is_missing(&error) => None,
            other => Some(other?),
        };
        if let Some(found) = &found
            && self.is_equal(path, known, found)?
        {
            // One that the job shares, and made anew meanwhile, is not the step's to undo.
            return match is_shared(path) && !found.same_inode(was) {
                true => Ok(()),
                false => self.dress(path, was, found),
            };
        }
        if is_shared(path) {
            return Ok(());
        }
        let is_device = matches!(was.kind, FileKind::CharDevice(_) | FileKind::BlockDevice(_));
        if is_device && found.is_some() {
            changes.replaced.push(path.to_path_buf());
        }
        self.slash.remove_all(path)?;
        // The same, where the step moved it: there is nothing that has to be made.
        let moved = now.iter().find(|(_, other)| other.same_inode(was) && other.kind == was.kind);
        let is_back = moved.is_some_and(|(from, _)| self.slash.rename(from, path).is_ok());
        match (was.kind, &known.link) {
            _ if is_back => {}
            (_, Some(target)) => self.slash.symlink(target, path)?,
            (FileKind::Directory, _) => self.slash.create_dir(path, 0o700)?,
            (FileKind::CharDevice(_) | FileKind::BlockDevice(_) | FileKind::Fifo, _) => {
                self.slash.mknod(path, was.kind, was.mode)?;
            }
            (FileKind::File | FileKind::Socket | FileKind::Symlink, _) => {
                return Err(io::Error::other(format!("the step removed this {}", was.kind)));
            }
        }
        let made = self.slash.metadata(path)?;
        self.dress(path, was, &made)
    }

    /// Tells whether what is found does the same; a device made anew is the same device.
    fn is_equal(&self, path: &Path, known: &Known, found: &Metadata) -> io::Result<bool> {
        let was = &known.metadata;
        Ok(match was.kind {
            FileKind::Symlink => found.kind == was.kind && Some(self.slash.read_link(path)?) == known.link,
            FileKind::File | FileKind::Socket => found.same_inode(was),
            FileKind::Directory | FileKind::CharDevice(_) | FileKind::BlockDevice(_) | FileKind::Fifo => {
                found.kind == was.kind
            }
        })
    }

    fn dress(&self, path: &Path, was: &Metadata, now: &Metadata) -> io::Result<()> {
        if (now.uid, now.gid) != (was.uid, was.gid) {
            self.slash.set_owner(path, was.uid, was.gid)?;
        }
        match now.kind {
            FileKind::Symlink => Ok(()),
            // A change of owner may have cleared bits.
            _ if (now.mode, now.uid, now.gid) != (was.mode, was.uid, was.gid) => {
                self.slash.set_mode(path, was.mode)
            }
            _ => Ok(()),
        }
    }

    fn remove_new(&self) -> io::Result<()> {
        let is_new = |path: &Path, metadata: &Metadata| match self.entries.get(path) {
            None => true,
            Some(known) => is_shared(path) && !metadata.same_inode(&known.metadata),
        };
        let new: Vec<_> = self.look()?.into_iter().filter(|(path, now)| is_new(path, now)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let used = InUse::look()?;
        // What is deepest comes last in byte order, and goes first: a directory with something in use stays.
        for (path, metadata) in new.into_iter().rev() {
            if is_shared(&path) && used.has(&metadata) {
                continue;
            }
            let removed = match metadata.kind {
                FileKind::Directory => self.slash.remove_dir(&path),
                _ => self.slash.remove_file(&path),
            };
            match removed {
                Err(error) if is_missing(&error) => {}
                Err(error) if is_shared(&path) && error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => other.map_err(|error| at(&path, error))?,
            }
        }
        Ok(())
    }
}

/// An error if the null device is another: a step of a kiln that was killed with all of its processes may have done that.
pub(super) fn check_null() -> Result<(), SandboxError> {
    const NULL: FileKind = FileKind::CharDevice(Device { major: 1, minor: 3 });
    match RootDir::open(Path::new("/")).and_then(|slash| slash.metadata("/dev/null")) {
        Ok(Metadata { kind: found, .. }) if found != NULL => Err(SandboxError::NullDevice { found }),
        // Who has none may need none.
        _ => Ok(()),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Tells whether an entry is below one of [`SHARED`].
fn is_shared(path: &Path) -> bool {
    SHARED.iter().any(|tree| path.starts_with(tree) && path != Path::new(tree))
}

/// Which files the processes of this container use.
struct InUse {
    inodes: BTreeSet<(u64, u64)>,
    /// Whose processes do not say: all that belongs to these users may be in use.
    silent: BTreeSet<u32>,
}

impl InUse {
    fn look() -> io::Result<Self> {
        let mut used = Self { inodes: BTreeSet::new(), silent: BTreeSet::new() };
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let process = entry.path();
            // One that ends meanwhile uses nothing.
            let Ok(owner) = entry.metadata().map(|metadata| metadata.uid()) else { continue };
            match std::fs::read_dir(process.join("fd")) {
                Ok(open) => {
                    let files = open.filter_map(|file| std::fs::metadata(file.ok()?.path()).ok());
                    used.inodes.extend(files.map(|file| (file.dev(), file.ino())));
                }
                // Of root's own only kiln's processes are closed to root.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && owner != 0 => {
                    used.silent.insert(owner);
                }
                Err(_) => {}
            }
            let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
            used.inodes.extend(maps.lines().filter_map(mapped_inode));
        }
        Ok(used)
    }

    fn has(&self, metadata: &Metadata) -> bool {
        self.inodes.contains(&(metadata.dev, metadata.ino)) || self.silent.contains(&metadata.uid)
    }
}

/// Reads a line of proc_pid_maps(5): range, mode, offset, device, inode, path.
fn mapped_inode(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let inode = fields.next()?.parse().ok().filter(|inode| *inode != 0)?;
    Some((rustix::fs::makedev(number(major)?, number(minor)?), inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_mapped_is_read_from_its_maps() {
        let line = "7f6c2a1d0000-7f6c2a1f2000 r--p 00000000 00:1b 42                         /dev/shm/x";
        assert_eq!(mapped_inode(line), Some((rustix::fs::makedev(0, 0x1b), 42)));
        assert_eq!(mapped_inode("7ffd1c9e0000-7ffd1ca01000 rw-p 00000000 00:00 0 [stack]"), None);
        assert!(InUse::look().unwrap().inodes.len() > 2);
    }
}
