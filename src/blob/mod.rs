//! Content-addressed bytes: where they are read from, and the local store they are written to.
//!
//! Whatever comes out of a [`BlobSource`] is verified against its descriptor while it is read. The store is an
//! OCI image layout (image-spec `image-layout.md`), so other tools can read it too.

mod error;
mod gc;
mod growing;
mod index;
mod layout;
mod lock;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::io::Read;

pub use error::BlobError;
pub use gc::{Collected, RECORDS_DIRECTORY};
pub use growing::{Follower, Growing};
pub use index::Tagged;
pub use layout::Layout;
pub use store::Store;
pub use writer::StoreWriter;

use crate::oci::{Descriptor, Digest};

/// What is read into memory at once is manifests and configs; the largest seen in the wild are a few MiB.
const WHOLE_LIMIT_BYTES: u64 = 64 << 20;

/// A place that has blobs.
pub trait BlobSource: Send + Sync {
    /// Opens a blob. The reader checks digest and size and ends in an error if either is wrong.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError>;

    /// Tells whether the blob is there, without reading it.
    fn contains(&self, digest: &Digest) -> Result<bool, BlobError>;
}

/// Returns a descriptor's digest. Descriptors that came from outside may have any.
fn checked_digest(descriptor: &Descriptor) -> Result<Digest, BlobError> {
    let text: &str = descriptor.digest().as_ref();
    text.parse().map_err(|_| BlobError::Digest { digest: text.to_owned() })
}

/// Reads a blob whole, verified; `place` is for messages.
fn read_whole(source: &dyn BlobSource, descriptor: &Descriptor, place: &str) -> Result<Vec<u8>, BlobError> {
    let digest = checked_digest(descriptor)?;
    let size_bytes = descriptor.size();
    if size_bytes > WHOLE_LIMIT_BYTES {
        return Err(BlobError::TooLarge { digest, size_bytes, limit_bytes: WHOLE_LIMIT_BYTES });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).expect("below the limit"));
    match source.open(descriptor)?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(BlobError::Damaged { digest, place: place.to_owned(), problem: error.to_string() })
        }
        Err(error) => Err(BlobError::Source { digest, place: place.to_owned(), source: error.into() }),
    }
}
