//! What changed in a tree: an [`Index`] before against one after, or the upper directory of an overlay.
//!
//! All three ways ([`diff`], [`overlay_changes`] and [`compare_trees`]) say the same about the same change:
//!
//! * An entry has changed if it is new or its type, mode, owner, modification time (to the nanosecond), size, content, link
//!   target or extended attributes are others. What was merely touched is left out.
//! * A changed entry comes after all its ancestor directories, changed or not; the root itself never comes.
//! * What is gone is one `Remove`, however much was below it; `Opaque` is never used. An entry that became another
//!   type is one `Upsert`: it replaces what was there.
//! * Names of one inode are a `File` and `HardLink`s to it. If one of several names has changed, all of them come,
//!   so that they are one inode again wherever the changes are applied.
//! * Overlay's own attributes and whiteouts do not appear, nor do sockets.
//!
//! The one inherent difference: writing through one of several hard links that lie in a lower layer changes all names
//! in a directory, and separates that name from the others on an overlay.

mod compare;
mod diff;
mod emit;
mod fill;
mod index;
mod overlay;
mod scan;
#[cfg(test)]
mod tests;

pub use compare::compare_trees;
pub use diff::diff;
pub use index::Index;
pub use overlay::overlay_changes;
pub use scan::scan;
