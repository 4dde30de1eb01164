//! One index against another.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Index;
use super::compare::same_metadata;
use super::emit::{Emitter, Finder, changes};
use super::index::{IndexCursor, Position, compare_paths};
use crate::layer::{ChangeSet, LayerError};
use crate::tree::RootDir;

/// Returns what changed from `before` to `after` (made of `before` by [`Index::rescan`]), the state `root` is in.
pub fn diff(before: Arc<Index>, after: Arc<Index>, root: Arc<RootDir>) -> ChangeSet {
    changes(root, IndexFinder { before, after, positions: Default::default() })
}

struct IndexFinder {
    before: Arc<Index>,
    after: Arc<Index>,
    positions: (Position, Position),
}

/// An entry is unchanged if its inode was not touched, or if all that a layer records is as it was.
fn differs(old: &IndexCursor<'_>, new: &IndexCursor<'_>) -> bool {
    let (old_metadata, new_metadata) = (old.metadata(), new.metadata());
    if old_metadata.is_untouched(&new_metadata) {
        return false;
    }
    let same_content = old.fingerprint().is_some() && old.fingerprint() == new.fingerprint();
    !same_content || !same_metadata(&old_metadata, &new_metadata)
}

impl Finder for IndexFinder {
    fn restart(&mut self) -> Result<(), LayerError> {
        self.positions = Default::default();
        Ok(())
    }

    fn step(&mut self, emitter: &mut Emitter) -> Result<bool, LayerError> {
        let (old, new) = std::mem::take(&mut self.positions);
        let mut old = IndexCursor::at(&self.before, old);
        let mut new = IndexCursor::at(&self.after, new);
        let order = match (old.path(), new.path()) {
            (None, None) => return Ok(false),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => compare_paths(old, new),
        };
        match order {
            Ordering::Less => {
                emitter.gone(old.as_path().to_path_buf());
                old.advance_past_subtree();
            }
            Ordering::Greater => {
                emitter.entry(new.as_path().to_path_buf(), &new.metadata(), true);
                new.advance();
            }
            Ordering::Equal => {
                let metadata = new.metadata();
                emitter.entry(new.as_path().to_path_buf(), &metadata, differs(&old, &new));
                if metadata.kind.is_dir() {
                    old.advance();
                } else {
                    old.advance_past_subtree();
                }
                new.advance();
            }
        }
        self.positions = (old.into_position(), new.into_position());
        Ok(true)
    }
}
