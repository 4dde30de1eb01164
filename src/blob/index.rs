//! `index.json`: the tags of a layout.

use super::{BlobError, Store};
use crate::oci::Descriptor;

/// A manifest or index that has a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged {
    /// The full reference, or whatever name the layout gives.
    pub reference: String,
    /// What it names.
    pub descriptor: Descriptor,
}

impl Store {
    /// Returns the tags in byte order.
    pub fn tags(&self) -> Result<Vec<Tagged>, BlobError> {
        todo!()
    }

    /// Points the tag `reference` at `descriptor`, which must be in the store.
    pub fn set_tag(&self, reference: &str, descriptor: &Descriptor) -> Result<(), BlobError> {
        let _ = (reference, descriptor);
        todo!()
    }

    /// Removes a tag; `false` if there was none.
    pub fn remove_tag(&self, reference: &str) -> Result<bool, BlobError> {
        let _ = reference;
        todo!()
    }
}
