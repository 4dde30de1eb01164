//! What can go wrong between here and a registry, in people's words.
//!
//! Every error names the host or the image; none ever holds a credential.

/// A failed request or transfer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The image, manifest, blob or repository is not there.
    #[error("`{what}` was not found in `{host}`")]
    NotFound {
        /// The image or blob.
        what: String,
        /// The registry's host.
        host: String,
    },
}

impl RegistryError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        None
    }
}
