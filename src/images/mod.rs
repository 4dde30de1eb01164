//! Images wherever they are, taken whole: an index with all its images, one image, an artifact.
//!
//! An [`Origin`] is something open for reading, be it in a registry, in kiln's store or in an OCI layout;
//! from there it can be kept in a store, pushed, or written into a layout, and origins can be merged into an
//! index ([`Merge`]). Bytes are never changed on the way, so digests stay, and names move last. Nothing here
//! builds; what a build makes goes through `output`.

mod artifact;
mod error;
mod keep;
mod merge;
mod origin;
mod part;
mod untag;
mod warm;

#[cfg(test)]
mod tests;

pub use artifact::{Files, Unpacking, write_file};
pub use error::ImagesError;
pub use keep::{keep, push, write_layout};
pub use merge::{Merge, Scope};
pub use origin::{Origin, is_index};
pub use part::{Part, PlatformChange, platform_of};
pub use untag::{Removed, remove_tag};
pub use warm::{Platforms, warm};
