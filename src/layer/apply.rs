//! Unpacking a tar into a tree.
//!
//! The archive may be hostile. Names are brought into a normal form before anything is made of them, and one that would climb out
//! is an error; directories are found by [`Parents`], which never leaves the root; entries are made in an open directory
//! by a single name, following nothing.
//!
//! What a layer says about the root itself (`./`) is left out: no layer of kiln's has it, and which of several layers
//! counts would depend on the kind of storage. So are character devices 0:0 in layers, which mean a removal to an
//! overlay and nothing elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::names::{WHITEOUT_PREFIX, belongs_to_overlay};
use super::parents::{Parent, Parents, apply};
use super::place::{self, Failure, Target};
use super::{LayerError, TarEntry, TarEntryKind, TarReader};
use crate::space::explain;
use crate::tree::{Device, FileKind, RootDir};

/// Four times what Linux takes in one call: a step can make such trees, one directory at a time.
const NAME_LIMIT_BYTES: usize = 4 * 4096;

/// As many as a path that Linux takes in one call can have.
const DEPTH_LIMIT: usize = 2048;

/// Of a name that is too long, this much is shown.
const SHOWN_BYTES: usize = 80;

/// What entries named `.wh.…` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer onto the merged tree of those below it: what they name is removed.
    Apply,
    /// A layer into an empty directory that will be one lower directory of an overlay: they become 0:0 character
    /// devices and opaque attributes.
    Overlay {
        /// The overlay is mounted with `userxattr`.
        userxattr: bool,
    },
    /// Not a layer but a user's archive: they are files like any other.
    Literal,
}

/// Whom the unpacked entries belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says; a failure is an error.
    Keep,
    /// As the archive says where the system lets us: for user namespaces with a single id. Failures become warnings.
    KeepIfPossible,
    /// All to one.
    Set {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyOptions {
    /// What whiteouts mean, and with them whether this is a layer.
    pub whiteouts: Whiteouts,
    /// Whom entries belong to.
    pub owners: Owners,
}

/// Something the archive asked for that could not be done and was left out.
#[derive(Debug)]
pub struct ApplyWarning {
    /// The first entry that it happened to, by its path in the tree.
    pub path: PathBuf,
    /// What was left out: `device node`, `owner`, `attribute security.selinux`.
    pub what: String,
    /// The system's answer.
    pub error: io::Error,
    /// How many entries it happened to.
    pub count: u64,
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many entries.
    pub entries: u64,
    /// How many bytes of file content.
    pub bytes: u64,
    /// Directories that had to be made because entries lie in them that the archive itself does not list.
    pub implied_dirs: Vec<PathBuf>,
    /// Hard links (name, target) whose target is not in this tree: with `Whiteouts::Overlay` it is in a lower one.
    pub dangling_links: Vec<(PathBuf, PathBuf)>,
    /// What could not be done, one for each kind.
    pub warnings: Vec<ApplyWarning>,
}

/// Unpacks `tar`, which nothing was read of, below `dest` of `into`; `dest` is made if it is missing, links in it are followed.
///
/// `tar` is read to its very end. After an error, what was unpacked so far is still there.
pub fn apply_tar(
    tar: TarReader<impl BufRead>,
    into: &RootDir,
    dest: &Path,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    unpack(tar, into, dest, options).map_err(|error| match error {
        LayerError::Apply { action, entry, source } => {
            let source = explain(&into.path().join(&entry), source);
            LayerError::Apply { action, entry, source }
        }
        error => error,
    })
}

fn unpack(
    mut tar: TarReader<impl BufRead>,
    into: &RootDir,
    dest: &Path,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    let dest = into.resolve(dest).map_err(|source| apply("resolve", dest, source))?;
    let mut unpacking = Unpacking {
        parents: Parents::new(into, options.whiteouts, options.owners),
        root: into,
        options: *options,
        dest,
        applied: Applied::default(),
        warnings: BTreeMap::new(),
    };
    let dest = unpacking.dest.clone();
    unpacking.parents.find(&dest, &dest)?;
    while let Some(entry) = tar.next_entry()? {
        unpacking.entry(&entry, &mut tar)?;
    }
    let Unpacking { parents, mut applied, warnings, .. } = unpacking;
    applied.implied_dirs = parents.finish()?;
    applied.warnings = warnings.into_values().collect();
    Ok(applied)
}

/// An archive being unpacked. What it does with whiteouts is in `whiteouts.rs`.
pub(super) struct Unpacking<'a> {
    pub(super) parents: Parents<'a>,
    pub(super) root: &'a RootDir,
    pub(super) options: ApplyOptions,
    dest: PathBuf,
    pub(super) applied: Applied,
    warnings: BTreeMap<String, ApplyWarning>,
}

/// Where an entry goes: a name in an open directory, and the path of both without links.
struct Spot {
    parent: Parent,
    name: OsString,
    path: PathBuf,
}

impl Unpacking<'_> {
    fn is_layer(&self) -> bool {
        self.options.whiteouts != Whiteouts::Literal
    }

    /// Brings a name into a normal form. One that would climb out of a layer is refused; out of a user's archive it
    /// stays at the top, as in a root of its own.
    fn normal(&self, name: &Path, entry: &Path, what: &str) -> Result<PathBuf, LayerError> {
        normal(name, entry, what, self.is_layer())
    }

    fn entry<R: BufRead>(&mut self, entry: &TarEntry, tar: &mut TarReader<R>) -> Result<(), LayerError> {
        if !self.is_layer() && entry.path.as_os_str().is_empty() {
            return Ok(());
        }
        let relative = self.normal(&entry.path, &entry.path, "has a name")?;
        let Some(name) = relative.file_name() else {
            if entry.kind != TarEntryKind::Directory {
                return Err(hostile(&entry.path, "would take the place of the root"));
            }
            return Ok(());
        };
        let directory = self.dest.join(relative.parent().unwrap_or(Path::new("")));
        if self.is_layer() && name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(name, &directory, entry);
        }
        if self.is_layer() && entry.kind == TarEntryKind::CharDevice(Device { major: 0, minor: 0 }) {
            self.warn("device node 0:0", &relative, Errno::INVAL.into());
            return Ok(());
        }
        let parent = self.parents.find(&directory, &entry.path)?;
        let path = parent.path.join(name);
        let spot = Spot { parent, name: name.to_owned(), path };
        self.make(&spot, entry, tar)?;
        self.parents.note_written(&spot.path);
        self.applied.entries += 1;
        self.applied.bytes += entry.size_bytes;
        Ok(())
    }

    fn make<R: BufRead>(
        &mut self,
        spot: &Spot,
        entry: &TarEntry,
        tar: &mut TarReader<R>,
    ) -> Result<(), LayerError> {
        let dir = spot.parent.fd.as_fd();
        let name = &spot.name;
        match &entry.kind {
            TarEntryKind::Directory => self.make_directory(spot, entry),
            TarEntryKind::HardLink { target } => self.make_hard_link(spot, entry, target),
            TarEntryKind::File => {
                let mut made = place::make_file(dir, name, entry, tar);
                if matches!(&made, Err(Failure::Tree(error)) if error.kind() == io::ErrorKind::AlreadyExists)
                {
                    self.clear(spot)?;
                    made = place::make_file(dir, name, entry, tar);
                }
                let file = made.map_err(|failure| match failure {
                    Failure::Tree(source) => apply("write", &spot.path, source),
                    Failure::Archive(source) => LayerError::Archive { source },
                })?;
                self.finish_file(spot, entry, &file)
            }
            kind => {
                let mut made = place::make_other(dir, name, kind);
                if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
                    self.clear(spot)?;
                    made = place::make_other(dir, name, kind);
                }
                match made {
                    Ok(()) => self.finish_other(spot, entry),
                    // No user namespace may make devices. A RUN that needs one will say so; most need none.
                    Err(error) if is_refusal(&error) && is_device(kind) => {
                        self.warn("device node", &spot.path, error);
                        Ok(())
                    }
                    Err(source) => Err(apply("create", &spot.path, source)),
                }
            }
        }
    }

    /// Removes what is in an entry's place.
    fn clear(&mut self, spot: &Spot) -> Result<(), LayerError> {
        self.parents.remove(&spot.path).map_err(|source| apply("replace", &spot.path, source))
    }

    fn make_directory(&mut self, spot: &Spot, entry: &TarEntry) -> Result<(), LayerError> {
        let dir = spot.parent.fd.as_fd();
        let failed = |source| apply("create the directory", &spot.path, source);
        match place::make_dir(dir, &spot.name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = place::look(dir, &spot.name).map_err(failed)?;
                if found != Some(FileKind::Directory) {
                    self.clear(spot)?;
                    place::make_dir(dir, &spot.name).map_err(failed)?;
                }
                // The directory is new in this layer, whatever lower ones have by that name.
                if let (Some(FileKind::CharDevice(_)), Whiteouts::Overlay { userxattr }) =
                    (found, self.options.whiteouts)
                {
                    self.parents.set_opaque(&spot.path, userxattr)?;
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let target = Target::Named(dir, &spot.name);
        self.set_owner(spot, entry, target)?;
        self.set_xattrs(spot, entry, None)?;
        place::set_mode(target, entry.mode).map_err(|source| apply("set the mode of", &spot.path, source))?;
        self.parents.note_directory(&spot.path, entry.mtime);
        Ok(())
    }

    fn make_hard_link(&mut self, spot: &Spot, entry: &TarEntry, target: &Path) -> Result<(), LayerError> {
        let relative = self.normal(target, &entry.path, "is a hard link to")?;
        let Some(target_name) = relative.file_name() else {
            return Err(hostile(&entry.path, "is a hard link to the root"));
        };
        let failed = |source| apply("link", &spot.path, source);
        let directory = self.dest.join(relative.parent().unwrap_or(Path::new("")));
        // Links on the way are followed inside the root, but nothing is made.
        let source = self.root.resolve(&directory).and_then(|path| self.root.subdir(path));
        let source = match source {
            Ok(source) => source,
            Err(error) if is_missing(&error) => return self.dangling(spot, &relative, error),
            Err(error) => return Err(failed(error)),
        };
        let from = (source.as_fd(), target_name);
        let same = self.root.resolve(&directory).is_ok_and(|path| path.join(target_name) == spot.path);
        if same {
            return Ok(());
        }
        if !matches!(place::look(from.0, from.1), Ok(Some(_))) {
            return self.dangling(spot, &relative, Errno::NOENT.into());
        }
        let to = (spot.parent.fd.as_fd(), &*spot.name);
        match place::make_link(from, to) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                self.clear(spot)?;
                place::make_link(from, to).map_err(|error| failed(error.into()))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// A link to something that is not in this tree may be in a lower one of the overlay.
    fn dangling(&mut self, spot: &Spot, target: &Path, error: io::Error) -> Result<(), LayerError> {
        match self.options.whiteouts {
            Whiteouts::Overlay { .. } => {
                self.applied.dangling_links.push((spot.path.clone(), target.to_owned()));
                Ok(())
            }
            Whiteouts::Apply | Whiteouts::Literal => Err(apply("link", &spot.path, error)),
        }
    }

    fn finish_file(&mut self, spot: &Spot, entry: &TarEntry, file: &std::fs::File) -> Result<(), LayerError> {
        let target = Target::Open(file);
        self.set_owner(spot, entry, target)?;
        self.set_xattrs(spot, entry, Some(file))?;
        place::set_mode(target, entry.mode).map_err(|source| apply("set the mode of", &spot.path, source))?;
        place::set_mtime(target, entry.mtime).map_err(|source| apply("set the time of", &spot.path, source))
    }

    fn finish_other(&mut self, spot: &Spot, entry: &TarEntry) -> Result<(), LayerError> {
        let target = Target::Named(spot.parent.fd.as_fd(), &spot.name);
        self.set_owner(spot, entry, target)?;
        self.set_xattrs(spot, entry, None)?;
        if !matches!(entry.kind, TarEntryKind::Symlink { .. }) {
            place::set_mode(target, entry.mode)
                .map_err(|source| apply("set the mode of", &spot.path, source))?;
        }
        place::set_mtime(target, entry.mtime).map_err(|source| apply("set the time of", &spot.path, source))
    }

    /// Comes before mode and attributes: a change of owner takes setuid bits and file capabilities away.
    fn set_owner(&mut self, spot: &Spot, entry: &TarEntry, target: Target<'_>) -> Result<(), LayerError> {
        let (uid, gid) = match self.options.owners {
            Owners::Keep | Owners::KeepIfPossible => (entry.uid, entry.gid),
            Owners::Set { uid, gid } => (uid, gid),
        };
        match place::set_owner(target, uid, gid) {
            Ok(()) => Ok(()),
            Err(error) if is_refusal(&error) && self.options.owners == Owners::KeepIfPossible => {
                self.warn("owner", &spot.path, error);
                Ok(())
            }
            Err(source) => Err(apply("set the owner of", &spot.path, source)),
        }
    }

    fn set_xattrs(
        &mut self,
        spot: &Spot,
        entry: &TarEntry,
        file: Option<&std::fs::File>,
    ) -> Result<(), LayerError> {
        let whiteouts = self.options.whiteouts;
        let kept = |name: &OsStr| match whiteouts {
            // Of a user's archive only file capabilities are taken over, as BuildKit does.
            Whiteouts::Literal => name == "security.capability",
            Whiteouts::Apply | Whiteouts::Overlay { .. } => !belongs_to_overlay(name),
        };
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| kept(name)) {
            let result = match file {
                Some(file) => place::set_xattr(file, name, value),
                None => self.root.set_xattr(&spot.path, name, value),
            };
            match result {
                Ok(()) => {}
                Err(error) if is_refusal(&error) || error.kind() == io::ErrorKind::Unsupported => {
                    self.warn(&format!("attribute {}", name.display()), &spot.path, error);
                }
                Err(source) => return Err(apply("set an attribute of", &spot.path, source)),
            }
        }
        Ok(())
    }

    fn warn(&mut self, what: &str, path: &Path, error: io::Error) {
        let warning = self.warnings.entry(what.to_owned()).or_insert_with(|| ApplyWarning {
            path: path.to_owned(),
            what: what.to_owned(),
            error,
            count: 0,
        });
        warning.count += 1;
    }
}

/// Brings a name into a normal form: relative, no `.` and no `..`. `what` is how the entry has it, for the message.
pub(super) fn normal(name: &Path, entry: &Path, what: &str, strict: bool) -> Result<PathBuf, LayerError> {
    let length = name.as_os_str().len();
    if length > NAME_LIMIT_BYTES {
        let problem = format!("{what} of {length} bytes: expected at most {NAME_LIMIT_BYTES}");
        return Err(hostile(entry, &problem));
    }
    let depth = name.components().count();
    if depth > DEPTH_LIMIT {
        let problem = format!("{what} of {depth} components: expected at most {DEPTH_LIMIT}");
        return Err(hostile(entry, &problem));
    }
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                if !path.pop() && strict {
                    return Err(hostile(
                        entry,
                        &format!("{what} that leads out of the archive: `{}`", name.display()),
                    ));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(path)
}

/// Returns the beginning of a name that is too long to be shown.
fn shortened(name: &Path) -> PathBuf {
    let bytes = name.as_os_str().as_bytes();
    match bytes.get(..SHOWN_BYTES) {
        Some(start) => OsString::from_vec([start, "…".as_bytes()].concat()).into(),
        None => name.to_owned(),
    }
}

pub(super) fn hostile(entry: &Path, problem: &str) -> LayerError {
    LayerError::Hostile { entry: shortened(entry), problem: problem.to_owned() }
}

/// The system's answers to what this process may not do: not permitted, or an id that its user namespace does not have.
fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::OVERFLOW))
}

fn is_device(kind: &TarEntryKind) -> bool {
    matches!(kind, TarEntryKind::CharDevice(_) | TarEntryKind::BlockDevice(_))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
