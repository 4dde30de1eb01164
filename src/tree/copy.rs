//! Copying file content and whole trees.

use std::fs::File;
use std::io;
use std::path::Path;

use super::RootDir;

/// Copies the first `size` bytes of `from` to the start of the empty file `to`, holes kept, and returns how many
/// there were (fewer when `from` is shorter).
pub fn copy_file_data(from: &File, to: &File, size: u64) -> io::Result<u64> {
    todo!()
}

/// Copies what is at `from_path` to `to_path`, which must not exist or be a directory like the source: modes, owners,
/// modification times, extended attributes, hard links within the tree, devices and holes.
pub fn copy_tree(
    from: &RootDir,
    from_path: impl AsRef<Path>,
    to: &RootDir,
    to_path: impl AsRef<Path>,
) -> io::Result<()> {
    todo!()
}
