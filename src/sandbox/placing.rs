//! Mounts for launches that cannot mount: what is to be seen somewhere is put there, and taken away again.
//!
//! Read-only things are copied, directories that the step may write to are lent (renamed there and back, or copied
//! both ways between file systems), and what stood in the way waits beside the root. Everything is found again by
//! an open descriptor, wherever the step moved it: a secret that was put into a directory does not stay in the layer
//! because the directory was renamed. That a bind is read-only is not enforced here.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, linkat, renameat, renameat_with};

use super::mounting::open_in_root;
use super::targets::{Held, TargetKind, Targets, depth};
use super::task::{Mount, MountKind};
use super::wire::{Cause, Failure, Order, Stub};
use crate::tree::{Device, FileKind, RootDir, copy_tree};

/// Device nodes of Linux's devices.txt that every step has.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Whatever was put into a root, until it is taken away.
#[derive(Debug)]
pub(super) struct Placed {
    root: RootDir,
    held: Held,
    targets: Targets,
    /// Beside the root, on the same file system: what stood in the way.
    aside: PathBuf,
    items: Vec<Item>,
}

/// One thing in its place.
#[derive(Debug)]
struct Item {
    placed: OwnedFd,
    /// Where it goes back to; else it is removed.
    lent: Option<Lent>,
    /// What stood there: its name aside, and where it belongs.
    aside: Option<(OsString, OwnedFd, OsString)>,
}

#[derive(Debug)]
struct Lent {
    /// As the task has it.
    named: PathBuf,
    /// Without links.
    source: PathBuf,
    /// It was copied there, and has to be copied back.
    copied: bool,
}

impl Placed {
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let parent = root.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let aside = parent.join("aside");
        match std::fs::create_dir(&aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Self {
            root: RootDir::open(root)?,
            held: Held::new(root)?,
            targets: Targets::open(root)?,
            aside,
            items: Vec::new(),
        })
    }

    /// Returns the root.
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Puts what the order asks for and `mounts` into the root; `nodes` are the devices, where there is no real `/dev`.
    pub(super) fn place_all(&mut self, order: &Order, mounts: &[Mount], nodes: bool) -> Result<(), Failure> {
        if nodes {
            self.place_devices()?;
        }
        self.place_file("/etc/resolv.conf", &order.dns)?;
        self.place_file("/etc/hosts", order.hosts.as_bytes())?;
        let mut mounts: Vec<_> = mounts.iter().collect();
        mounts.sort_by_key(|mount| depth(&mount.target));
        for mount in mounts {
            let target = &mount.target;
            at(target, self.place(target, &mount.kind))?;
        }
        Ok(())
    }

    /// Returns the directories of this machine that are in the root for now, and where in the root.
    pub(super) fn lent(&self) -> Vec<(PathBuf, PathBuf)> {
        let entry = |item: &Item| {
            let lent = item.lent.as_ref().filter(|lent| !lent.copied)?;
            Some((lent.source.clone(), self.held.path_of(&item.placed)?))
        };
        self.items.iter().filter_map(entry).collect()
    }

    /// Takes everything away again; goes on after an error, and returns the first.
    pub(super) fn undo(&mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some(item) = self.items.pop() {
            let undone = self.undo_one(&item);
            first = first
                .and(undone.map_err(|error| Failure::setup("take away what was put into the root", error)));
        }
        if let Err((path, error)) = self.held.remove() {
            first = first.and(at(&path, Err(error)));
        }
        first
    }

    fn undo_one(&self, item: &Item) -> io::Result<()> {
        if let Some(path) = self.held.path_of(&item.placed) {
            let parent = path.parent().unwrap_or(Path::new(""));
            let mtime = self.root.metadata(parent)?.mtime;
            match &item.lent {
                Some(lent) => self.give_back(lent, &path)?,
                None => self.root.remove_all(&path)?,
            }
            self.root.set_mtime(parent, mtime)?;
        }
        if let Some((name_aside, parent, name)) = &item.aside {
            let keep = KeepTime::of(parent)?;
            renameat_with(directory(&self.aside)?, name_aside, parent, name, RenameFlags::NOREPLACE)?;
            keep.restore()?;
        }
        Ok(())
    }

    fn give_back(&self, lent: &Lent, path: &Path) -> io::Result<()> {
        if lent.copied {
            let source = RootDir::open(&lent.source)?;
            source.remove_all("")?;
            copy_tree(&self.root, path, &source, "")?;
            return self.root.remove_all(path);
        }
        let (parent, name) = split(path)?;
        Ok(renameat(open_in_root(self.held.root_fd(), parent)?, name, rustix::fs::CWD, &lent.source)?)
    }

    fn place(&mut self, target: &Path, kind: &MountKind) -> io::Result<()> {
        match kind {
            MountKind::Bind { source, read_only } => self.place_copy(target, source, !read_only),
            MountKind::Device { source } => self.place_node(target, source),
            MountKind::Tmpfs { mode, .. } => self.put(target, |root, path| root.create_dir(path, *mode)),
            MountKind::ScratchOverlay { lower, .. } => self.place_copy(target, lower, false),
        }
    }

    /// Makes room at `target`, has `make` fill it, and takes hold of the result.
    fn put(&mut self, target: &Path, make: impl FnOnce(&RootDir, &Path) -> io::Result<()>) -> io::Result<()> {
        let resolved = self.root.resolve(target)?;
        let (parent_path, name) = split(&resolved)?;
        self.targets.ensure(parent_path, TargetKind::Directory)?;
        let stubs: Vec<Stub> = self.targets.take_stubs();
        self.held.hold(&stubs)?;
        let parent = open_in_root(self.held.root_fd(), parent_path)?;
        let keep = KeepTime::of(&parent)?;
        let aside = if self.root.exists(&resolved)? {
            let name_aside = OsString::from(format!("{}-{}", std::process::id(), self.items.len()));
            renameat(&parent, name, directory(&self.aside)?, &name_aside)?;
            Some((name_aside, parent.try_clone()?, name.to_owned()))
        } else {
            None
        };
        let made = make(&self.root, &resolved);
        let opened = self.held.open(&resolved);
        keep.restore()?;
        match (made, opened) {
            (Ok(()), Ok(placed)) => {
                self.items.push(Item { placed, lent: None, aside });
                Ok(())
            }
            (made, opened) => {
                self.root.remove_all(&resolved)?;
                if let Some((name_aside, parent, name)) = &aside {
                    renameat(directory(&self.aside)?, name_aside, parent, name)?;
                }
                made.and(opened.map(drop))
            }
        }
    }

    fn place_file(&mut self, target: &str, content: &[u8]) -> Result<(), Failure> {
        let target = Path::new(target);
        let placed = self.put(target, |root, path| root.create_file(path, 0o644)?.write_all(content));
        at(target, placed)
    }

    fn place_copy(&mut self, target: &Path, source: &Path, writable: bool) -> io::Result<()> {
        if let Some(path) = self.lent_path(source) {
            // It is in the root already: the same directory under two names, or a copy of it.
            return self.put(target, |root, to| match writable {
                true => root.symlink(&Path::new("/").join(&path), to),
                false => copy_tree(root, &path, root, to),
            });
        }
        let named = source;
        let metadata = std::fs::metadata(named)?;
        let source = std::fs::canonicalize(named)?;
        if FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata)).is_socket() {
            // Another name for the same socket; between file systems there is no way.
            return self.put(target, |root, path| {
                let (parent, name) = split(path)?;
                let to = open_in_root(directory(root.path())?, parent)?;
                Ok(linkat(rustix::fs::CWD, &source, to, name, rustix::fs::AtFlags::empty())?)
            });
        }
        let mut lent = None;
        self.put(target, |root, path| {
            if writable {
                let (parent, name) = split(path)?;
                let to = open_in_root(directory(root.path())?, parent)?;
                match renameat(rustix::fs::CWD, &source, to, name) {
                    Ok(()) => {
                        lent =
                            Some(Lent { named: named.to_path_buf(), source: source.clone(), copied: false });
                        return Ok(());
                    }
                    Err(rustix::io::Errno::XDEV | rustix::io::Errno::BUSY) => {
                        lent =
                            Some(Lent { named: named.to_path_buf(), source: source.clone(), copied: true });
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            let (parent, name) = split(&source)?;
            copy_tree(&RootDir::open(parent)?, name, root, path)
        })?;
        if let Some(item) = self.items.last_mut() {
            item.lent = lent;
        }
        Ok(())
    }

    /// Returns where in the root a lent directory is.
    fn lent_path(&self, source: &Path) -> Option<PathBuf> {
        let is_it = |item: &&Item| item.lent.as_ref().is_some_and(|lent| lent.named == source);
        self.items.iter().find(is_it).and_then(|item| self.held.path_of(&item.placed))
    }

    fn place_node(&mut self, target: &Path, source: &Path) -> io::Result<()> {
        let stat = rustix::fs::stat(source)?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => FileKind::CharDevice(Device { major, minor }),
            FileType::BlockDevice => FileKind::BlockDevice(Device { major, minor }),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        self.put(target, |root, path| root.mknod(path, kind, stat.st_mode & 0o7777))
    }

    fn place_devices(&mut self) -> Result<(), Failure> {
        let dev = Path::new("/dev");
        for (name, major, minor) in NODES {
            let target = dev.join(name);
            let kind = FileKind::CharDevice(Device { major, minor });
            if self.root.metadata_follow(&target).is_ok_and(|metadata| metadata.kind == kind) {
                continue;
            }
            at(&target, self.put(&target, |root, path| root.mknod(path, kind, 0o666)))?;
        }
        for (name, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            let target = dev.join(name);
            // A link in the image would lead on to where it points to.
            if !at(&target, self.root.exists(&target))? {
                at(&target, self.put(&target, |root, path| root.symlink(Path::new(to), path)))?;
            }
        }
        let shm = dev.join("shm");
        at(&shm, self.put(&shm, |root, path| root.create_dir(path, 0o1777)))
    }
}

/// A directory's modification time, to be set again after entries were added or removed.
struct KeepTime {
    path: String,
    mtime: std::time::SystemTime,
}

impl KeepTime {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(directory));
        let mtime = std::fs::metadata(&path)?.modified()?;
        Ok(Self { path, mtime })
    }

    fn restore(self) -> io::Result<()> {
        std::fs::File::open(&self.path)?.set_modified(self.mtime)
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Splits a path into its directory and its name.
fn split(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    path.parent().zip(path.file_name()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn at<T>(target: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Mount {
        target: target.to_string_lossy().into_owned(),
        action: "place".to_owned(),
        cause: Cause::from(error),
    })
}
