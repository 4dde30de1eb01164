//! Two trees, compared in full: the model for the quicker ways, and what they compare single entries with.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::emit::{Emitter, Finder, changes, read_error};
use crate::layer::{ChangeSet, LayerError};
use crate::tree::{Entry, FileKind, Metadata, Pieces, RootDir, Walk, Xattrs};

/// Large enough that two files are read in turns without much seeking.
const BUFFER_BYTES: usize = 64 * 1024;

/// Returns what turns `before` into `after`, by reading both.
pub fn compare_trees(before: Arc<RootDir>, after: Arc<RootDir>) -> ChangeSet {
    let finder = TreeFinder { before, after: Arc::clone(&after), cursors: None };
    changes(after, finder)
}

/// Tells whether two entries look alike without their content: what a layer records of an inode.
pub(super) fn same_metadata(a: &Metadata, b: &Metadata) -> bool {
    let sized = matches!(a.kind, FileKind::File | FileKind::Symlink);
    a.kind == b.kind
        && (a.mode, a.uid, a.gid, a.mtime) == (b.mode, b.uid, b.gid, b.mtime)
        && (!sized || a.size_bytes == b.size_bytes)
}

/// Tells whether two entries of the same kind have the same content, link target and extended attributes.
pub(super) fn same_content(a: &RootDir, b: &RootDir, path: &Path, kind: FileKind) -> io::Result<bool> {
    let same = match kind {
        FileKind::File => same_bytes(a, b, path)?,
        FileKind::Symlink => a.read_link(path)? == b.read_link(path)?,
        _ => true,
    };
    Ok(same && image_xattrs(a, path)? == image_xattrs(b, path)?)
}

fn same_bytes(a: &RootDir, b: &RootDir, path: &Path) -> io::Result<bool> {
    let (a, b) = (a.open_nofollow(path)?, b.open_nofollow(path)?);
    let (mut a, mut b) = (Pieces::of(&a)?, Pieces::of(&b)?);
    if a.size_bytes() != b.size_bytes() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        let (next, other) = (a.next_offset(BUFFER_BYTES)?, b.next_offset(BUFFER_BYTES)?);
        let Some(offset) = next.into_iter().chain(other).min() else { return Ok(true) };
        if a.read(offset, &mut left)? != b.read(offset, &mut right)? {
            return Ok(false);
        }
    }
}

/// Returns an entry's extended attributes without those that overlay keeps for itself.
pub(super) fn image_xattrs(root: &RootDir, path: &Path) -> io::Result<Xattrs> {
    let mut xattrs = root.xattrs(path)?;
    xattrs.retain(|name, _| !belongs_to_overlay(name));
    Ok(xattrs)
}

/// Tells whether an attribute is one by which overlay keeps its own accounts.
pub(super) fn belongs_to_overlay(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// A walk that stands on an entry, sockets left out.
struct Cursor {
    walk: Walk<'static>,
    entry: Option<Entry>,
}

impl Cursor {
    fn new(root: &RootDir) -> io::Result<Self> {
        let mut cursor = Self { walk: Walk::new(root, "")?, entry: None };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> io::Result<()> {
        loop {
            self.entry = self.walk.next().transpose()?;
            if self.entry.as_ref().is_none_or(|entry| entry.metadata.kind != FileKind::Socket) {
                return Ok(());
            }
        }
    }

    fn advance_past_subtree(&mut self) -> io::Result<()> {
        self.walk.skip_subtree();
        self.advance()
    }
}

struct TreeFinder {
    before: Arc<RootDir>,
    after: Arc<RootDir>,
    cursors: Option<(Cursor, Cursor)>,
}

impl TreeFinder {
    fn compare(
        &self,
        emitter: &mut Emitter,
        path: PathBuf,
        old: &Metadata,
        new: &Metadata,
    ) -> io::Result<()> {
        let changed = emitter.asks_about(new)
            && (!same_metadata(old, new) || !same_content(&self.before, &self.after, &path, new.kind)?);
        emitter.entry(path, new, changed);
        Ok(())
    }

    fn look(&self, cursors: &mut (Cursor, Cursor), emitter: &mut Emitter) -> io::Result<bool> {
        let (before, after) = cursors;
        let order = match (&before.entry, &after.entry) {
            (None, None) => return Ok(false),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        match order {
            Ordering::Less => {
                emitter.gone(before.entry.take().expect("is there").path);
                before.advance_past_subtree()?;
            }
            Ordering::Greater => {
                let new = after.entry.take().expect("is there");
                emitter.entry(new.path, &new.metadata, true);
                after.advance()?;
            }
            Ordering::Equal => {
                let old = before.entry.take().expect("is there");
                let new = after.entry.take().expect("is there");
                self.compare(emitter, new.path, &old.metadata, &new.metadata)?;
                if new.metadata.kind.is_dir() {
                    before.advance()?;
                } else {
                    before.advance_past_subtree()?;
                }
                after.advance()?;
            }
        }
        Ok(true)
    }
}

impl Finder for TreeFinder {
    fn restart(&mut self) -> Result<(), LayerError> {
        let cursor = |root: &RootDir| Cursor::new(root).map_err(read_error);
        self.cursors = Some((cursor(&self.before)?, cursor(&self.after)?));
        Ok(())
    }

    fn step(&mut self, emitter: &mut Emitter) -> Result<bool, LayerError> {
        let mut cursors = self.cursors.take().expect("restarted before the first step");
        let more = self.look(&mut cursors, emitter).map_err(read_error);
        self.cursors = Some(cursors);
        more
    }
}
