//! Changes into a blob of the store, in one pass.

use std::num::NonZeroUsize;

use super::{ChangeSet, LayerError, TarOptions};
use crate::blob::Store;
use crate::oci::{Layer, ManifestFormat};
use crate::stream::{Compression, PipeWriter};

/// How a layer becomes a blob.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// How many threads compress; does not change the bytes.
    pub threads: NonZeroUsize,
    /// How the tar is written.
    pub tar: TarOptions,
    /// Whose media types the descriptor uses.
    pub format: ManifestFormat,
}

/// Writes `changes` into `store`, and as far as it keeps up without failing, the same bytes into `tee`.
pub fn write_layer(
    changes: ChangeSet,
    options: &LayerOptions,
    store: &Store,
    tee: Option<PipeWriter>,
) -> Result<Layer, LayerError> {
    let _ = (changes, options, store, tee);
    todo!()
}
