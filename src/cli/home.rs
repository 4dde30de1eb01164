//! kiln's own directory below `--root`, which nobody else may look into.
//!
//! Layout: `store` is an OCI image layout, `trees` unpacked layers, `mounts` what `RUN --mount=type=cache` keeps,
//! `sandbox` the sandbox's state, `work` one directory for each running build.
//!
//! Layers and cache mounts hold other people's setuid files, and the store private images: the directory is 0700 and
//! this user's, and nothing in it is a link to somewhere else. `--root` itself may be anybody's, a link or a volume;
//! it is never changed. Whoever may rename entries of `--root` can take the directory away: that is not held here.
//!
//! A step in place could write to all of it. So nobody gets the directory before what a kiln left that was killed beside such a
//! step is put right.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::fail::Failure;
use crate::blob::{RECORDS_DIRECTORY, Store};
use crate::event::Reporter;
use crate::sandbox::{self, Entered};

/// What it is called.
const NAME: &str = "kiln";

/// Where in it the sandbox keeps its state.
const SANDBOX: &str = "sandbox";

/// Its owner's alone.
const PRIVATE: Mode = Mode::RWXU;

/// Everybody else's permission bits.
const OTHERS: u32 = 0o077;

/// kiln's own directory, found to be private, and put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

/// A build's directory, and what it runs in: both stay what they are while it runs.
pub struct Site {
    /// kiln's own directory.
    pub home: Home,
    /// What was entered.
    pub entered: Entered,
}

/// Why a directory cannot be kiln's own.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A link could lead anywhere.
    #[error("`{}` is a link: expected a directory of kiln's own", path.display())]
    Link {
        /// What was found.
        path: PathBuf,
    },
    /// Its owner could change everything below it.
    #[error("`{}` belongs to user {found}: expected user {expected}, whom kiln runs as", path.display())]
    Foreign {
        /// What was found.
        path: PathBuf,
        /// Who owns it.
        found: u32,
        /// Who runs kiln.
        expected: u32,
    },
    /// The file system knows no permissions.
    #[error("`{}` is open to other users: expected mode 0700, found {mode:04o} after setting it", path.display())]
    Open {
        /// What was found.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl HomeError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } => match Errno::from_io_error(source) {
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                    Some("choose a writable directory with `--root`")
                }
                _ => None,
            },
            Self::Link { .. } | Self::Foreign { .. } => {
                Some("remove it if it is not needed, or choose another directory with `--root`")
            }
            Self::Open { .. } => {
                Some("choose a directory with `--root` on a file system that has owners and modes")
            }
        }
    }
}

impl Home {
    /// Opens, or makes, the directory below `root`. What had to be put right is told to `reporter`.
    pub fn open(root: &Path, reporter: &Reporter) -> Result<Self, Failure> {
        let home = Self::find(root)?;
        if let Some(told) = home.put_right()? {
            reporter.warning(told);
        }
        Ok(home)
    }

    /// The same at a build's start, which looks for more; returns what to warn of.
    pub fn begin(root: &Path) -> Result<(Self, Option<String>), Failure> {
        let home = Self::find(root)?;
        let repaired = sandbox::recover(&home.sandbox(), &home.names())?;
        Ok((home, repaired))
    }

    /// Puts right what is left in the directory below `root`, if there is one: for who believes or writes anything else in the
    /// container. Returns what to warn of.
    pub fn put_right_at(root: &Path) -> Result<Option<String>, Failure> {
        // One that is somebody else's is none of theirs.
        match sandbox::needs_recovery(&root.join(NAME).join(SANDBOX)) {
            true => Self::find(root)?.put_right(),
            false => Ok(None),
        }
    }

    fn put_right(&self) -> Result<Option<String>, Failure> {
        match sandbox::needs_recovery(&self.sandbox()) {
            true => Ok(sandbox::recover(&self.sandbox(), &self.names())?),
            false => Ok(None),
        }
    }

    fn find(root: &Path) -> Result<Self, HomeError> {
        let path = root.join(NAME);
        std::fs::create_dir_all(root).map_err(failed("create", root))?;
        match rustix::fs::mkdirat(rustix::fs::CWD, &path, PRIVATE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create", &path)(error.into())),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(HomeError::Link { path }),
            // Somebody else's is closed to us, and that is what is to be said.
            Err(error) => {
                let look = rustix::fs::statat(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW);
                look.map_or(Ok(()), |found| check_owner(&path, &found))?;
                return Err(failed("open", &path)(error.into()));
            }
        };
        let look = || rustix::fs::fstat(&directory).map_err(|error| failed("look at", &path)(error.into()));
        let found = look()?;
        check_owner(&path, &found)?;
        if found.st_mode & OTHERS != 0 {
            rustix::fs::fchmod(&directory, PRIVATE).map_err(|error| failed("close", &path)(error.into()))?;
            let mode = look()?.st_mode;
            if mode & OTHERS != 0 {
                return Err(HomeError::Open { path, mode: mode & 0o7777 });
            }
        }
        check_entries(&path, &directory)?;
        Ok(Self { path })
    }

    /// Returns what of the store says what is in it: names, and records of the local cache.
    pub fn names(&self) -> Vec<PathBuf> {
        Store::NAMES.into_iter().chain([RECORDS_DIRECTORY]).map(|name| self.store().join(name)).collect()
    }

    /// Returns where the store is.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Returns where unpacked layers are kept.
    pub fn trees(&self) -> PathBuf {
        self.path.join("trees")
    }

    /// Returns where cache mounts are kept.
    pub fn mounts(&self) -> PathBuf {
        self.path.join("mounts")
    }

    /// Returns where the sandbox keeps its state.
    pub fn sandbox(&self) -> PathBuf {
        self.path.join(SANDBOX)
    }

    /// Returns where builds have their directories.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }
}

/// Makes a directory of this user's alone for what is downloaded. An image with nothing in it, as kiln's own, has no
/// `/tmp`; then it is in kiln's own directory below `root`.
pub fn temporary_directory(root: &Path, reporter: &Reporter) -> Result<tempfile::TempDir, Failure> {
    let mut private = tempfile::Builder::new();
    private.permissions(Permissions::from_mode(PRIVATE.as_raw_mode()));
    match private.tempdir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let home = Home::open(root, reporter)?;
            Ok(private.tempdir_in(&home.path).map_err(failed("create a directory in", &home.path))?)
        }
        made => Ok(made.map_err(failed("create a directory in", &std::env::temp_dir()))?),
    }
}

/// Refuses entries that lead elsewhere or are somebody else's, whatever kiln would use them for.
fn check_entries(path: &Path, directory: &OwnedFd) -> Result<(), HomeError> {
    let list = |error: Errno| failed("list", path)(error.into());
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let name = OsStr::from_bytes(entry.map_err(list)?.file_name().to_bytes()).to_owned();
        if name == "." || name == ".." {
            continue;
        }
        let path = path.join(&name);
        let found = match rustix::fs::statat(directory.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            // Another kiln has removed it.
            Err(Errno::NOENT) => continue,
            found => found.map_err(|error| failed("look at", &path)(error.into()))?,
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            return Err(HomeError::Link { path });
        }
        check_owner(&path, &found)?;
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Stat) -> Result<(), HomeError> {
    let expected = rustix::process::geteuid().as_raw();
    match found.st_uid {
        owner if owner == expected => Ok(()),
        found => Err(HomeError::Foreign { path: path.to_owned(), found, expected }),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError + use<> {
    let path = path.to_owned();
    move |source| HomeError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_is_private_below_any_root() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, link) = (scratch.path().join("volume"), scratch.path().join("link"));
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink(&root, &link).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        Home::find(&link).unwrap();
        assert_eq!((mode(&root), mode(&root.join("kiln"))), (0o1777, 0o700));
        fs::set_permissions(root.join("kiln"), fs::Permissions::from_mode(0o755)).unwrap();
        Home::find(&root).unwrap();
        assert_eq!(mode(&root.join("kiln")), 0o700, "opened by a step's `chmod`, and closed again");
    }

    #[test]
    fn links_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let refused = |root: &Path| matches!(Home::find(root), Err(HomeError::Link { .. }));
        let itself = scratch.path().join("itself");
        fs::create_dir(&itself).unwrap();
        symlink("/etc", itself.join("kiln")).unwrap();
        assert!(refused(&itself));
        let entry = scratch.path().join("entry");
        for name in ["store", "anything"] {
            let home = Home::find(&entry).unwrap();
            symlink("/etc", home.path.join(name)).unwrap();
            assert!(refused(&entry), "{name}");
            fs::remove_file(home.path.join(name)).unwrap();
        }
    }
}
