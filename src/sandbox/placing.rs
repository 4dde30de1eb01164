//! Mounts for launches that cannot mount: what is to be seen somewhere is put there, and taken away again.
//!
//! Read-only things are copied, directories that the step may write to are lent (renamed there and back, or copied
//! both ways between file systems), and what stood in the way waits beside the root. Everything is found again by
//! an open descriptor, wherever the step moved it: a secret that was put into a directory does not stay in the layer
//! because the directory was renamed. That a bind is read-only is not enforced here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::targets::{Held, TargetKind, Targets, depth};
use super::task::{Mount, MountKind, Source};
use super::wire::{Cause, Failure, Order, Stub};
use crate::tree::{Device, FileKind, RootDir, Timestamp, Walk, copy_tree};

/// Device nodes of Linux's devices.txt that every step has.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Whatever was put into a root, until it is taken away.
#[derive(Debug)]
pub(super) struct Placed {
    held: Held,
    targets: Targets,
    /// Beside the root, on the same file system: what stood in the way.
    aside: RootDir,
    items: Vec<Item>,
}

/// One thing in its place.
#[derive(Debug)]
struct Item {
    placed: OwnedFd,
    /// Where it goes back to; else it is removed.
    lent: Option<Lent>,
    /// What stood there: its name aside, and where it belongs.
    aside: Option<(OsString, RootDir, OsString)>,
    /// What is aside shares the fate of what is in its place: the step may move or remove it.
    is_cover: bool,
}

/// Where a lent directory belongs.
#[derive(Debug)]
struct Lent {
    source: Source,
    directory: RootDir,
    name: OsString,
    /// The directory itself, which was copied into the root and has to be copied back.
    copied: Option<RootDir>,
}

impl Placed {
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let parent = root.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let aside = parent.join("aside");
        match std::fs::create_dir(&aside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let held = Held::new(root)?;
        let targets = Targets::open(held.root().open_path("")?, root)?;
        let aside = RootDir::from_fd(RootDir::open(parent)?.open_entry("aside")?, &aside);
        Ok(Self { held, targets, aside, items: Vec::new() })
    }

    /// Returns the root.
    pub(super) fn root(&self) -> &RootDir {
        self.held.root()
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
        if order.disks_are_open && !order.insecure {
            self.cover_devices().map_err(|error| Failure::setup("cover device nodes", error))?;
        }
        Ok(())
    }

    /// Puts empty files over the device nodes of the image and of caches.
    fn cover_devices(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in Walk::new(self.root(), "")? {
            let entry = entry?;
            let (FileKind::CharDevice(device) | FileKind::BlockDevice(device)) = entry.metadata.kind else {
                continue;
            };
            let is_harmless = entry.metadata.kind == FileKind::CharDevice(device)
                && NODES.iter().any(|(_, major, minor)| (*major, *minor) == (device.major, device.minor));
            if !is_harmless {
                found.push(entry.path);
            }
        }
        for path in found {
            self.put(&path, |to, name| to.create_file(name, 0o600).map(drop))?;
            if let Some(item) = self.items.last_mut() {
                item.is_cover = true;
            }
        }
        Ok(())
    }

    /// Returns where in the root something was put.
    pub(super) fn paths(&self) -> BTreeSet<PathBuf> {
        self.items.iter().filter_map(|item| self.held.path_of(&item.placed)).collect()
    }

    /// Returns the directories of this machine that are in the root for now, and where in the root.
    pub(super) fn lent(&self) -> Vec<(PathBuf, PathBuf)> {
        let entry = |item: &Item| {
            let lent = item.lent.as_ref().filter(|lent| lent.copied.is_none())?;
            Some((lent.directory.path().join(&lent.name), self.held.path_of(&item.placed)?))
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
        let root = self.root();
        if let Some(path) = self.held.path_of(&item.placed) {
            let keep = KeepTime::of(root.subdir(path.parent().unwrap_or(Path::new("")))?)?;
            match (&item.lent, &item.aside) {
                (Some(lent), _) => self.give_back(lent, &path)?,
                (None, Some((name, ..))) if item.is_cover => self.aside.rename_to(name, root, &path)?,
                (None, _) => root.remove_all(&path)?,
            }
            keep.restore()?;
        } else if let Some((name, ..)) = item.aside.as_ref().filter(|_| item.is_cover) {
            self.aside.remove_file(name)?;
        }
        if let Some((name_aside, parent, name)) = item.aside.as_ref().filter(|_| !item.is_cover) {
            let keep = KeepTime::of(parent.subdir("")?)?;
            if parent.exists(name)? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.aside.rename_to(name_aside, parent, name)?;
            keep.restore()?;
        }
        Ok(())
    }

    fn give_back(&self, lent: &Lent, path: &Path) -> io::Result<()> {
        let Some(source) = &lent.copied else {
            return self.root().rename_to(path, &lent.directory, &lent.name);
        };
        source.remove_all("")?;
        copy_tree(self.root(), path, source, "")?;
        self.root().remove_all(path)
    }

    fn place(&mut self, target: &Path, kind: &MountKind) -> io::Result<()> {
        match kind {
            MountKind::Bind { source, read_only } => self.place_copy(target, source, !read_only),
            MountKind::Tmpfs { mode, .. } => self.put(target, |root, path| root.create_dir(path, *mode)),
            MountKind::ScratchOverlay { lower, .. } => self.place_copy(target, lower, false),
        }
    }

    /// Makes room at `target`, has `make` fill it, given the directory and the name there, and takes hold of the result.
    fn put(&mut self, target: &Path, make: impl FnOnce(&RootDir, &Path) -> io::Result<()>) -> io::Result<()> {
        let resolved = self.root().resolve(target)?;
        let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = RootDir::from_fd(self.targets.ensure(parent, TargetKind::Directory)?, parent);
        let stubs: Vec<Stub> = self.targets.take_stubs();
        self.held.hold(&stubs)?;
        let keep = KeepTime::of(parent.subdir("")?)?;
        let aside = if parent.exists(name)? {
            let name_aside = OsString::from(format!("{}-{}", std::process::id(), self.items.len()));
            parent.rename_to(name, &self.aside, &name_aside)?;
            Some(name_aside)
        } else {
            None
        };
        let made = make(&parent, Path::new(name));
        let opened = parent.open_entry(name);
        keep.restore()?;
        match (made, opened) {
            (Ok(()), Ok(placed)) => {
                let aside = aside.map(|name_aside| (name_aside, parent, name.to_owned()));
                self.items.push(Item { placed, lent: None, aside, is_cover: false });
                Ok(())
            }
            (made, opened) => {
                parent.remove_all(name)?;
                if let Some(name_aside) = aside {
                    self.aside.rename_to(name_aside, &parent, name)?;
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

    fn place_copy(&mut self, target: &Path, source: &Source, writable: bool) -> io::Result<()> {
        if let Some(path) = self.lent_path(source) {
            // It is in the root already: the same directory under two names, or a copy of it.
            let root = self.root().subdir("")?;
            return self.put(target, |to, name| match writable {
                true => to.symlink(&Path::new("/").join(&path), name),
                false => copy_tree(&root, &path, to, name),
            });
        }
        let (directory, from) = source.entry()?;
        if directory.metadata(&from)?.kind == FileKind::Socket {
            // Another name for the same socket; between file systems there is no way.
            return self.put(target, |to, name| directory.hard_link_to(&from, to, name));
        }
        if !writable {
            return self.put(target, |to, name| copy_tree(&directory, &from, to, name));
        }
        let mut copied = None;
        self.put(target, |to, name| match directory.rename_to(&from, to, name) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::ResourceBusy) =>
            {
                copied = Some(RootDir::from_fd(directory.open_entry(&from)?, Path::new(&from)));
                copy_tree(&directory, &from, to, name)
            }
            other => other,
        })?;
        if let Some(item) = self.items.last_mut() {
            item.lent = Some(Lent { source: source.clone(), directory, name: from, copied });
        }
        Ok(())
    }

    /// Returns where in the root a lent directory is.
    fn lent_path(&self, source: &Source) -> Option<PathBuf> {
        let is_it = |item: &&Item| item.lent.as_ref().is_some_and(|lent| lent.source == *source);
        self.items.iter().find(is_it).and_then(|item| self.held.path_of(&item.placed))
    }

    fn place_devices(&mut self) -> Result<(), Failure> {
        let dev = Path::new("/dev");
        for (name, major, minor) in NODES {
            let target = dev.join(name);
            let kind = FileKind::CharDevice(Device { major, minor });
            if self.root().metadata_follow(&target).is_ok_and(|metadata| metadata.kind == kind) {
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
            if !at(&target, self.root().exists(&target))? {
                at(&target, self.put(&target, |root, path| root.symlink(Path::new(to), path)))?;
            }
        }
        let shm = dev.join("shm");
        at(&shm, self.put(&shm, |root, path| root.create_dir(path, 0o1777)))
    }
}

/// A directory's modification time, to be set again after entries were added or removed.
struct KeepTime {
    directory: RootDir,
    mtime: Timestamp,
}

impl KeepTime {
    fn of(directory: RootDir) -> io::Result<Self> {
        let mtime = directory.metadata("")?.mtime;
        Ok(Self { directory, mtime })
    }

    fn restore(self) -> io::Result<()> {
        self.directory.set_mtime("", self.mtime)
    }
}

fn at<T>(target: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Mount {
        target: target.to_string_lossy().into_owned(),
        action: "place".to_owned(),
        cause: Cause::from(error),
    })
}
