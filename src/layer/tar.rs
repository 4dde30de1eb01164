//! The canonical tar writer.

use std::io::Write;

use super::{ChangeSet, LayerError};

/// What a layer's bytes depend on besides the changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TarOptions {
    /// Modification times after this, in seconds since 1970, become this.
    pub epoch: Option<i64>,
}

/// Writes `changes` as a canonical tar.
pub fn write_tar(changes: ChangeSet, options: &TarOptions, out: &mut impl Write) -> Result<(), LayerError> {
    let _ = (changes, options, out);
    todo!()
}
