//! Writing one blob.

use std::io::{self, Write};

use super::BlobError;
use crate::oci::Descriptor;
use crate::stream::Counted;

/// A blob being written. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct StoreWriter {}

impl StoreWriter {
    /// Puts the blob in its place; with `expected`, only if digest and size are as it says.
    pub fn commit(self, expected: Option<&Descriptor>) -> Result<Counted, BlobError> {
        let _ = expected;
        todo!()
    }
}

impl Write for StoreWriter {
    fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
        todo!()
    }

    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}
