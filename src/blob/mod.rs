//! Content-addressed bytes: where they are read from, and the local store they are written to.
//!
//! Whatever comes out of a [`BlobSource`] is verified against its descriptor while it is read. The store is an
//! OCI image layout (image-spec `image-layout.md`), so other tools can read it too.

mod error;
mod gc;
mod index;
mod layout;
mod lock;
mod store;
mod writer;

use std::io::Read;

pub use error::BlobError;
pub use gc::Collected;
pub use index::Tagged;
pub use layout::Layout;
pub use store::Store;
pub use writer::StoreWriter;

use crate::oci::{Descriptor, Digest};

/// A place that has blobs.
pub trait BlobSource: Send + Sync {
    /// Opens a blob. The reader checks digest and size and ends in an error if either is wrong.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError>;

    /// Tells whether the blob is there, without reading it.
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError>;
}
