//! Changes to a tree, and layer blobs: the one turned into the other, both ways.
//!
//! Writing is canonical: equal changes make equal bytes, on every machine and with any number of threads.
//! Reading trusts nothing: an archive is hostile until its entries have proven otherwise.

mod apply;
mod change;
mod check;
mod content;
mod entry;
mod error;
mod fields;
mod header;
mod names;
mod parents;
mod pax;
mod place;
mod reader;
mod rewrite;
mod sparse;
mod tar;
#[cfg(test)]
mod tests;
mod whiteouts;
mod write;

pub use apply::{Applied, ApplyOptions, ApplyWarning, Owners, Whiteouts, apply_tar};
pub use change::{Change, ChangeSet, Content, Node, NodeKind, SeenInode, open_seen};
pub use check::{check_layer, recompress_layer};
pub use error::LayerError;
pub use names::opaque_attribute;
pub use reader::{TarEntry, TarEntryKind, TarReader};
pub use rewrite::{is_newer, rewrite_layer};
pub use tar::{TarOptions, write_tar};
pub use write::{LARGE_BYTES, LayerOptions, Watch, layer_media_type, write_layer};
