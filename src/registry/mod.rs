//! A client for image registries (OCI distribution-spec 1.1, docker's registry API v2).
//!
//! [`Client`] has blocking methods for callers on plain threads and owns the small tokio runtime that
//! carries the requests. Bytes are verified against their digests while they are read; a tag is only moved
//! when everything below it is in place. Concurrency is the caller's: every method may be called from any
//! number of threads.

mod answer;
pub mod config;
pub mod credential;
mod dns;
mod error;
pub mod mirror;
mod runtime;
mod secret;
mod tls;
mod transport;

use std::io::{self, Read};
use std::sync::Arc;

pub use config::{ClientCertificate, HostConfig, Proxies, RegistryConfig, Retries};
pub use credential::{AuthFile, CloudProvider, Credential, CredentialSources};
pub use error::RegistryError;
pub use secret::Secret;

use crate::event::Reporter;
use crate::oci::{Descriptor, Digest, Image, Platform, Reference};

/// A client for any number of registries; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner;

/// An image of one platform as a registry has it, verified; its layers are not yet downloaded.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// What was asked for, pinned to the manifest's digest.
    pub reference: Reference,
    /// Digest of the index that led to the manifest.
    pub index_digest: Option<Digest>,
    /// Manifest, config and layers.
    pub image: Image,
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository, `team/app`.
        from: String,
    },
    /// It was uploaded.
    Uploaded,
}

/// The digest and size of what was streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// Opens a blob from its start; called again when an upload has to begin anew.
pub type OpenBlob<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

#[expect(unused_variables, clippy::todo, reason = "skeleton: bodies follow")]
impl Client {
    /// Makes a client. Nothing is contacted yet.
    pub fn new(config: RegistryConfig, reporter: Reporter) -> Result<Self, RegistryError> {
        todo!()
    }

    /// Asks what `reference` is: media type, digest and size of its manifest or index.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        todo!()
    }

    /// Fetches a manifest or index, verified.
    pub fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        todo!()
    }

    /// Fetches an image's manifest and config for `platform`; an index is followed.
    pub fn image(&self, reference: &Reference, platform: &Platform) -> Result<RemoteImage, RegistryError> {
        todo!()
    }

    /// Returns the blobs of the repository (and of its mirrors) that `reference` is in.
    pub fn blobs(&self, reference: &Reference) -> Arc<RemoteBlobs> {
        todo!()
    }

    /// Asks whether the repository has a blob.
    pub fn blob_exists(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        todo!()
    }

    /// Asks the registry to take a blob from another of its repositories; `false` if it does not.
    pub fn mount_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        from: &Reference,
    ) -> Result<bool, RegistryError> {
        todo!()
    }

    /// Puts a blob into the repository: nothing if it is there, a mount if one of `mount_from` (others
    /// than of the same registry are ignored) has it, else an upload.
    pub fn push_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: OpenBlob<'_>,
        mount_from: &[Reference],
    ) -> Result<Pushed, RegistryError> {
        todo!()
    }

    /// Uploads what `reader` yields, of unknown length and digest, hashing it on the way.
    pub fn push_stream(
        &self,
        repository: &Reference,
        reader: &mut dyn Read,
    ) -> Result<Streamed, RegistryError> {
        todo!()
    }

    /// Puts a manifest or index under the reference's tag, or under its digest where it has no tag.
    pub fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        todo!()
    }

    /// Checks, without leaving anything behind, that images can be pushed to the repository.
    pub fn check_push(&self, repository: &Reference) -> Result<(), RegistryError> {
        todo!()
    }

    /// Lists the tags of a repository, in byte order.
    pub fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        todo!()
    }

    /// Deletes a manifest by digest, or a tag where the registry can.
    pub fn delete(&self, reference: &Reference) -> Result<(), RegistryError> {
        todo!()
    }
}

/// The blobs of a repository, verified while they are read and resumed when a connection is cut.
pub struct RemoteBlobs {
    _client: Client,
}

impl crate::blob::BlobSource for RemoteBlobs {
    fn open(
        &self,
        _d: &crate::oci::Descriptor,
    ) -> Result<Box<dyn std::io::Read + Send>, crate::blob::BlobError> {
        todo!()
    }
    fn contains(&self, _digest: &crate::oci::Digest) -> Result<bool, crate::blob::BlobError> {
        todo!()
    }
}
