//! Turning a path into a file descriptor without ever leaving the root.
//!
//! The kernel does it in one call (`openat2` with `RESOLVE_IN_ROOT`). Where that call is missing or forbidden, for
//! paths longer than `PATH_MAX`, and where the canonical path is wanted, [`Resolution`] goes component by component:
//! it opens every directory with `O_NOFOLLOW` and reads links itself, so it cannot be led out of the root, not even
//! by a tree that changes meanwhile. It keeps names, not descriptors, for the way back up: any depth needs one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many symbolic links as the kernel follows in one path (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// `openat2` answers `EAGAIN` when anything on the machine was renamed while it crossed `..`.
const OPENAT2_ATTEMPTS: usize = 32;

pub(super) const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory descriptor: the root's own or one opened for the occasion.
#[derive(Debug)]
pub(super) enum DirFd<'root> {
    Root(BorrowedFd<'root>),
    Opened(OwnedFd),
}

impl AsFd for DirFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Tells whether `openat2` can be used on `root`.
pub(super) fn openat2_works(root: BorrowedFd<'_>) -> bool {
    openat2(root, OsStr::new("."), HANDLE).is_ok()
}

fn openat2(root: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Opens `path` below `root` with `flags` (never creating), all links followed.
pub(super) fn open(
    root: BorrowedFd<'_>,
    use_openat2: bool,
    path: &Path,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    if use_openat2 {
        let text = if components(path.as_os_str()).is_empty() { OsStr::new(".") } else { path.as_os_str() };
        for _ in 0..OPENAT2_ATTEMPTS {
            match openat2(root, text, flags) {
                Err(Errno::AGAIN) => {}
                Err(Errno::NAMETOOLONG | Errno::XDEV | Errno::NOSYS) => break,
                result => return Ok(result?),
            }
        }
    }
    Resolution::of(root, path).open(flags)
}

/// Opens the directory `path` below `root` as a handle for `*at` calls, all links followed.
pub(super) fn open_dir<'root>(
    root: BorrowedFd<'root>,
    use_openat2: bool,
    path: &Path,
) -> io::Result<DirFd<'root>> {
    if path.as_os_str().is_empty() || path == Path::new("/") {
        return Ok(DirFd::Root(root));
    }
    open(root, use_openat2, path, HANDLE).map(DirFd::Opened)
}

/// Opens the directory `names` below `root`, where no component is a link.
pub(super) fn open_names<'root, 'a>(
    root: BorrowedFd<'root>,
    names: impl IntoIterator<Item = &'a OsStr>,
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let mut dir = DirFd::Root(root);
    for name in names {
        dir = DirFd::Opened(rustix::fs::openat(&dir, name, HANDLE | OFlags::NOFOLLOW, Mode::empty())?);
    }
    Ok(rustix::fs::openat(&dir, ".", flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Splits a path into its names and `..`s; a final `.` stands for "must be a directory".
fn components(path: &OsStr) -> Vec<OsString> {
    let bytes = path.as_bytes();
    let mut parts: Vec<OsString> = bytes
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect();
    let ends_open = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    if ends_open && parts.last().is_some_and(|last| last != "..") {
        parts.push(OsString::from("."));
    }
    parts
}

/// A walk along a path, one component at a time.
pub(super) struct Resolution<'root> {
    root: BorrowedFd<'root>,
    pending: VecDeque<OsString>,
    /// The canonical path so far; its last `missing` names do not exist.
    names: Vec<OsString>,
    missing: usize,
    /// The directory `names`; `None` after a way up, until it is needed.
    dir: Option<DirFd<'root>>,
    links: usize,
}

/// What the next component turned out to be.
enum Step {
    /// A directory, or a way up, or nothing more to do.
    Onward,
    /// The last component, which is there and is not a link: its parent is `dir`.
    Last(OsString),
    /// Nothing has this name.
    Missing(OsString),
}

impl<'root> Resolution<'root> {
    pub(super) fn of(root: BorrowedFd<'root>, path: &Path) -> Self {
        Self {
            root,
            pending: components(path.as_os_str()).into(),
            names: Vec::new(),
            missing: 0,
            dir: Some(DirFd::Root(root)),
            links: 0,
        }
    }

    /// Opens what the path leads to.
    fn open(mut self, flags: OFlags) -> io::Result<OwnedFd> {
        while let Some(name) = self.pending.pop_front() {
            match self.step(name)? {
                Step::Onward => {}
                Step::Missing(_) => return Err(Errno::NOENT.into()),
                Step::Last(name) => {
                    let flags = flags | OFlags::NOFOLLOW;
                    return Ok(rustix::fs::openat(self.dir()?, &name, flags, Mode::empty())?);
                }
            }
        }
        Ok(rustix::fs::openat(self.dir()?, ".", flags, Mode::empty())?)
    }

    /// Returns the canonical path. Names below something missing are kept, `..` takes one away again.
    pub(super) fn canonical(mut self) -> io::Result<PathBuf> {
        while let Some(name) = self.pending.pop_front() {
            if self.missing > 0 && name != ".." {
                if name != "." {
                    self.names.push(name);
                    self.missing += 1;
                }
                continue;
            }
            match self.step(name)? {
                Step::Onward => {}
                Step::Last(name) => self.names.push(name),
                Step::Missing(name) => {
                    self.names.push(name);
                    self.missing += 1;
                }
            }
        }
        Ok(join(&self.names))
    }

    /// Creates the directories of a canonical path that are missing, reporting each; nothing on it may be a link.
    pub(super) fn create(
        root: BorrowedFd<'_>,
        canonical: &Path,
        create: &mut dyn FnMut(BorrowedFd<'_>, &OsStr, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut dir = DirFd::Root(root);
        let mut path = PathBuf::new();
        for name in canonical {
            path.push(name);
            let open = || rustix::fs::openat(&dir, name, HANDLE | OFlags::NOFOLLOW, Mode::empty());
            let next = match open() {
                Err(Errno::NOENT) => {
                    create(dir.as_fd(), name, &path)?;
                    open()?
                }
                result => result?,
            };
            dir = DirFd::Opened(next);
        }
        Ok(())
    }

    fn step(&mut self, name: OsString) -> io::Result<Step> {
        if name == ".." {
            self.names.pop();
            if self.missing > 0 {
                self.missing -= 1;
            } else {
                self.dir = None;
            }
            return Ok(Step::Onward);
        }
        let is_last = self.pending.is_empty();
        let dir = self.dir()?;
        if !is_last || name == "." {
            match rustix::fs::openat(dir, &name, HANDLE | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(next) => {
                    if name != "." {
                        self.names.push(name);
                    }
                    self.dir = Some(DirFd::Opened(next));
                    return Ok(Step::Onward);
                }
                Err(Errno::NOENT) => return Ok(Step::Missing(name)),
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::readlinkat(dir, &name, Vec::new()) {
            Ok(target) => self.follow(OsStr::from_bytes(target.as_bytes())),
            Err(Errno::NOENT) => Ok(Step::Missing(name)),
            Err(Errno::INVAL) if is_last => Ok(Step::Last(name)),
            Err(Errno::INVAL) => Err(Errno::NOTDIR.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn follow(&mut self, target: &OsStr) -> io::Result<Step> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.as_bytes().starts_with(b"/") {
            self.names.clear();
            self.dir = Some(DirFd::Root(self.root));
        }
        for part in components(target).into_iter().rev() {
            self.pending.push_front(part);
        }
        Ok(Step::Onward)
    }

    /// Returns the directory reached so far, opening it again by its names after a way up.
    fn dir(&mut self) -> io::Result<BorrowedFd<'_>> {
        if self.dir.is_none() {
            let reached = if self.names.is_empty() {
                DirFd::Root(self.root)
            } else {
                let names = self.names.iter().map(OsString::as_os_str);
                DirFd::Opened(open_names(self.root, names, HANDLE)?)
            };
            self.dir = Some(reached);
        }
        Ok(self.dir.as_ref().expect("was opened above").as_fd())
    }
}

fn join(names: &[OsString]) -> PathBuf {
    PathBuf::from(names.join(OsStr::new("/")))
}
