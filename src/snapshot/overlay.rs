//! The upper directory of an overlay.

use std::path::PathBuf;
use std::sync::Arc;

use crate::layer::ChangeSet;
use crate::tree::RootDir;

/// Returns what the upper directory `upper` changes in the merged view `below` of everything under it.
///
/// Paths in `exclude` (relative to the root) and what is below them are left out.
pub fn overlay_changes(
    upper: Arc<RootDir>,
    below: Arc<RootDir>,
    userxattr: bool,
    exclude: &[PathBuf],
) -> ChangeSet {
    let _ = (upper, below, userxattr, exclude);
    todo!()
}
