//! One index against another.

use std::sync::Arc;

use super::Index;
use crate::layer::ChangeSet;
use crate::tree::RootDir;

/// Returns what changed from `before` to `after`, which is the state `root` is in.
pub fn diff(before: Arc<Index>, after: Arc<Index>, root: Arc<RootDir>) -> ChangeSet {
    let _ = (before, after, root);
    todo!()
}
