//! The upper directory of an overlay, read in place of the merged tree.
//!
//! An overlay copies a file up when it is opened for writing or its metadata is set, changed or not: every entry is
//! compared with the view below. Directories that replaced one below (opaque) are compared with it, too, so that the
//! changes are those of the trees, however they came about.

use std::ffi::{OsStr, OsString};
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use super::compare::{same_content, same_metadata};
use super::emit::{Emitter, Finder, changes, read_error};
use crate::layer::{ChangeSet, LayerError, opaque_attribute};
use crate::tree::{Device, Entry, EntryError, FileKind, Metadata, RootDir, Walk};

/// How an overlay marks what is gone.
const WHITEOUT: FileKind = FileKind::CharDevice(Device { major: 0, minor: 0 });

/// Returns what the upper directory `upper` changes in the merged view `below` of everything under it.
///
/// Paths in `exclude` (relative to the root) and what is below them are left out.
pub fn overlay_changes(
    upper: Arc<RootDir>,
    below: Arc<RootDir>,
    userxattr: bool,
    exclude: &[PathBuf],
) -> ChangeSet {
    let finder = UpperFinder {
        upper: Arc::clone(&upper),
        below,
        opaque: OsStr::new(opaque_attribute(userxattr)),
        exclude: exclude.iter().map(|path| path.strip_prefix("/").unwrap_or(path).to_path_buf()).collect(),
        walk: None,
        levels: Vec::new(),
    };
    changes(upper, finder)
}

struct UpperFinder {
    upper: Arc<RootDir>,
    below: Arc<RootDir>,
    opaque: &'static OsStr,
    exclude: Vec<PathBuf>,
    walk: Option<Walk<'static>>,
    /// The directories of the upper tree we are in; the first is the root.
    levels: Vec<Level>,
}

struct Level {
    path: PathBuf,
    /// Whether there is a directory at this path below, reached through directories only.
    in_below: bool,
    /// Whether it hides what is below; then so do all directories in it, marked or not.
    is_opaque: bool,
    /// Names below that this directory hides and that have not been met yet.
    hidden: Peekable<vec::IntoIter<OsString>>,
}

impl UpperFinder {
    /// Leaves the levels that `path` is not in; all of them for `None`.
    fn leave(&mut self, path: Option<&Path>, emitter: &mut Emitter) {
        while let Some(level) = self.levels.last_mut() {
            if path.is_some_and(|path| path.starts_with(&level.path)) {
                return;
            }
            for name in level.hidden.by_ref() {
                let path = level.path.join(name);
                if !self.exclude.contains(&path) {
                    emitter.gone(path);
                }
            }
            self.levels.pop();
        }
    }

    /// Says that what an opaque directory hides before `name` is gone, and takes `name` itself off.
    fn pass_hidden(&mut self, name: &OsStr, emitter: &mut Emitter) {
        let exclude = &self.exclude;
        let level = self.levels.last_mut().expect("the root is never left before the end");
        while let Some(hidden) = level.hidden.next_if(|hidden| hidden.as_os_str() <= name) {
            let path = level.path.join(&hidden);
            if hidden != name && !exclude.contains(&path) {
                emitter.gone(path);
            }
        }
    }

    /// Returns the entry that `path` has below, as long as its parent is the directory we are in.
    fn below(&self, path: &Path) -> io::Result<Option<Metadata>> {
        if !self.levels.last().is_some_and(|level| level.in_below) {
            return Ok(None);
        }
        match self.below.metadata(path) {
            Ok(metadata) => Ok(Some(metadata).filter(|metadata| metadata.kind != FileKind::Socket)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look(&mut self, walk: &mut Walk, emitter: &mut Emitter) -> io::Result<bool> {
        let Some(Entry { path, metadata }) = walk.next().transpose()? else {
            self.leave(None, emitter);
            return Ok(false);
        };
        self.leave(Some(&path), emitter);
        self.pass_hidden(path.file_name().expect("a walk returns named entries"), emitter);
        if self.exclude.contains(&path) {
            walk.skip_subtree();
            return Ok(true);
        }
        self.find(path.clone(), &metadata, emitter).map_err(|error| EntryError::wrap(path, error))?;
        Ok(true)
    }

    fn find(&mut self, path: PathBuf, new: &Metadata, emitter: &mut Emitter) -> io::Result<()> {
        if emitter.passes_over(new) {
            return Ok(());
        }
        let old = self.below(&path)?;
        if new.kind == WHITEOUT || new.kind == FileKind::Socket {
            if old.is_some() {
                emitter.gone(path);
            }
            return Ok(());
        }
        if new.kind.is_dir() {
            let level = self.level(&path, old.as_ref())?;
            self.levels.push(level);
        }
        let changed = emitter.asks_about(new)
            && match &old {
                None => true,
                Some(old) => {
                    !same_metadata(old, new) || !same_content(&self.below, &self.upper, &path, new.kind)?
                }
            };
        emitter.entry(path, new, changed);
        Ok(())
    }

    fn level(&self, path: &Path, old: Option<&Metadata>) -> io::Result<Level> {
        let in_below = old.is_some_and(|old| old.kind.is_dir());
        let parent = self.levels.last().expect("the root is never left before the end");
        let is_opaque = parent.is_opaque || in_below && self.is_opaque(path)?;
        let mut hidden = Vec::new();
        if in_below && is_opaque {
            for name in self.below.read_dir(path)? {
                // Sockets are in no layer, so none can go.
                if self.below.metadata(path.join(&name))?.kind != FileKind::Socket {
                    hidden.push(name);
                }
            }
        }
        Ok(Level { path: path.to_path_buf(), in_below, is_opaque, hidden: hidden.into_iter().peekable() })
    }

    fn is_opaque(&self, path: &Path) -> io::Result<bool> {
        Ok(self.upper.xattrs(path)?.get(self.opaque).is_some_and(|value| value == b"y"))
    }
}

impl Finder for UpperFinder {
    fn restart(&mut self) -> Result<(), LayerError> {
        self.walk = Some(Walk::new(&self.upper, "").map_err(read_error)?);
        self.levels = vec![Level {
            path: PathBuf::new(),
            in_below: true,
            is_opaque: false,
            hidden: Vec::new().into_iter().peekable(),
        }];
        Ok(())
    }

    fn step(&mut self, emitter: &mut Emitter) -> Result<bool, LayerError> {
        let mut walk = self.walk.take().expect("restarted before the first step");
        let more = self.look(&mut walk, emitter).map_err(read_error);
        self.walk = Some(walk);
        more
    }
}
