//! A client for image registries (OCI distribution-spec 1.1, docker's registry API v2).
//!
//! [`Client`] has blocking methods for callers on plain threads and owns the small tokio runtime that
//! carries the requests. Bytes are verified against their digests while they are read; a tag is only moved
//! when everything below it is in place. Concurrency is the caller's: every method may be called from any
//! number of threads.

mod answer;
mod artifact;
mod call;
mod challenge;
pub mod config;
mod copy;
pub mod credential;
mod download;
mod endpoint;
mod error;
mod flight;
mod graph;
mod hashing;
mod image;
mod left_alone;
pub mod mirror;
mod pull;
mod pump;
mod push;
mod put;
mod realm;
mod remote;
mod retry;
mod runtime;
mod secret;
mod session;
mod tags;
mod tls;
mod token;
mod transport;
mod upload;

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

pub use answer::{Answer, AnswerError};
pub use artifact::Artifact;
pub use config::{ClientCertificate, HostConfig, Proxies, RegistryConfig, Retries, Side, Sides, Waivers};
pub use credential::{
    AuthFile, CloudProvider, Credential, CredentialFile, CredentialFileError, CredentialSources, Keeper,
    Scope,
};
pub use download::BlobReader;
pub use error::{RegistryError, Unreachable};
pub use graph::Graph;
pub use mirror::{MirrorError, MirrorLocation, MirrorRule, MirrorRules, PlaceError, PullFrom};
pub use push::PushedBlob;
pub use remote::RemoteBlobs;
pub use secret::Secret;

use call::Access;
use credential::Credentials;
use credential::cloud::Clouds;
use endpoint::Endpoint;
use flight::Flights;
use left_alone::LeftAlone;
use runtime::Runtime;
use session::Parked;
use transport::Transport;

use crate::event::Reporter;
use crate::oci::{Descriptor, Digest, Image, Platform, Reference};

/// A client for any number of registries; clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Registries by name and by which way images go.
type Endpoints = HashMap<(String, Side), Arc<Endpoint>>;

/// What all clones of a client share.
#[derive(Clone)]
struct Inner {
    config: Arc<RegistryConfig>,
    /// Those of the configuration, or fewer ([`Retries::few`]).
    retries: Retries,
    reporter: Reporter,
    runtime: Arc<Runtime>,
    transport: Arc<Transport>,
    credentials: Arc<Credentials>,
    clouds: Arc<Clouds>,
    endpoints: Arc<Mutex<Endpoints>>,
    flights: Arc<Flights>,
    parked: Arc<Parked>,
    left_alone: Arc<LeftAlone>,
}

impl Inner {
    fn impatient(&self) -> Self {
        Self { retries: self.retries.few(), ..self.clone() }
    }

    /// Returns the registry of this name, to pull from it or to push to it: the same unless the settings tell
    /// the two apart.
    fn endpoint(&self, registry: &str, side: Side) -> Arc<Endpoint> {
        let settings = self.config.host(registry);
        let Waivers { insecure, skip_tls_verify } = settings.waived;
        let differ = [insecure, skip_tls_verify].iter().any(|sides| sides.pull != sides.push);
        let key = (registry.to_owned(), if differ { side } else { Side::Pull });
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.entry(key).or_insert_with(|| Arc::new(Endpoint::new(registry, settings, side))).clone()
    }

    /// Returns the registry that something is written to, unless that is forbidden.
    fn destination(&self, to: &Reference) -> Result<Arc<Endpoint>, RegistryError> {
        self.config.mirrors.check(to).map_err(|error| RegistryError::place(to, error))?;
        Ok(self.endpoint(to.registry(), Side::Push))
    }
}

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

/// Opens a blob from its start; called again when an upload has to begin anew.
pub type OpenBlob<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

impl Client {
    /// Makes a client. Nothing is contacted yet.
    pub fn new(config: RegistryConfig, reporter: Reporter) -> Result<Self, RegistryError> {
        let runtime = Runtime::new().map_err(RegistryError::Start)?;
        let transport = Transport::new(&config);
        let credentials = Credentials::new(&config.credentials, reporter.clone());
        let clouds = Clouds::new(&config.credentials, reporter.clone());
        let inner = Inner {
            retries: config.retries.clone(),
            config: Arc::new(config),
            reporter,
            runtime: Arc::new(runtime),
            transport: Arc::new(transport),
            credentials: Arc::new(credentials),
            clouds: Arc::new(clouds),
            endpoints: Arc::default(),
            flights: Arc::default(),
            parked: Arc::default(),
            left_alone: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns a client of the same connections and tokens for what a build can do without, a cache: a request that
    /// fails is repeated once, within a second.
    pub fn impatient(&self) -> Self {
        Self { inner: Arc::new(self.inner.impatient()) }
    }

    /// Asks what `reference` is: media type, digest and size of its manifest or index.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        self.inner.runtime.wait(self.inner.resolve(reference))
    }

    /// Fetches a manifest or index, verified.
    pub fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), RegistryError> {
        let fetched = self.inner.runtime.wait(self.inner.manifest(reference))?;
        Ok((fetched.descriptor, fetched.bytes))
    }

    /// Fetches an image's manifest and config for `platform`; an index is followed. The platform of an
    /// image without index is what its config says: the caller decides whether that will do.
    pub fn image(&self, reference: &Reference, platform: &Platform) -> Result<RemoteImage, RegistryError> {
        self.inner.runtime.wait(self.inner.image(reference, platform))
    }

    /// Returns the blobs of the repository (and of its mirrors) that `reference` is in.
    pub fn blobs(&self, reference: &Reference) -> Arc<RemoteBlobs> {
        Arc::new(RemoteBlobs::new(self.inner.clone(), reference.clone()))
    }

    /// Asks whether the repository has a blob.
    pub fn blob_exists(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let size = self.inner.runtime.wait(self.inner.blob_size(repository, digest, Access::Pull))?;
        Ok(size.is_some())
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
        self.inner.push_blob(repository, descriptor, open, mount_from)
    }

    /// Finds out whether the registry, or a mirror of it, can be reached at all: once, for all who ask.
    pub fn reach(&self, reference: &Reference) -> Result<(), Arc<RegistryError>> {
        let inner = &self.inner;
        let mut last = Ok(());
        for place in inner.places(reference).map_err(Arc::new)? {
            last = inner.runtime.wait(inner.endpoint(place.registry(), Side::Pull).reach(inner));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Notes that a repository has a blob, as one of its manifests says: it is mounted from there first.
    pub fn note_blob(&self, repository: &Reference, digest: &Digest) {
        self.inner.flights.note(repository.registry(), digest, repository.repository());
    }

    /// Uploads a small blob that is new in all likelihood: one question less.
    pub fn push_new_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: OpenBlob<'_>,
    ) -> Result<Pushed, RegistryError> {
        self.inner.send_blob(repository, descriptor, open, &[])
    }

    /// Uploads what `reader` yields, of unknown length; `digest` is asked when it has ended, and the registry checks the
    /// answer. What was read can't be read again, so a cut is the end of it.
    pub fn push_stream(
        &self,
        repository: &Reference,
        reader: &mut dyn Read,
        digest: &dyn Fn() -> Option<Digest>,
    ) -> Result<(), RegistryError> {
        self.inner.push_stream(repository, reader, digest)
    }

    /// Puts a manifest or index under the reference's tag, or under its digest where it has no tag.
    pub fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        self.inner.runtime.wait(self.inner.put_manifest(reference, media_type, bytes))
    }

    /// Checks, without leaving anything behind, that images can be pushed to the repository. The session it was tried
    /// with is given back soon after.
    pub fn check_push(&self, repository: &Reference) -> Result<(), RegistryError> {
        self.inner.check_push(repository)
    }

    /// The same, but the session is kept for the first blob that goes there. [`Client::close_push`] ends that.
    pub fn open_push(&self, repository: &Reference) -> Result<(), RegistryError> {
        self.inner.open_push(repository)
    }

    /// Gives back the session that [`Client::open_push`] opened, if nothing has used it. Waits a moment at most.
    pub fn close_push(&self, repository: &Reference) {
        self.inner.close_push(repository);
    }

    /// Asks a registry whether it takes the credential that there is for it.
    pub fn check_login(&self, registry: &str) -> Result<(), RegistryError> {
        self.inner.runtime.wait(self.inner.check_login(registry))
    }

    /// Lists the tags of a repository, in byte order.
    pub fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        self.inner.runtime.wait(self.inner.list_tags(repository))
    }

    /// Deletes a manifest by digest, or a tag where the registry can.
    pub fn delete(&self, reference: &Reference) -> Result<(), RegistryError> {
        self.inner.runtime.wait(self.inner.delete(reference))
    }
}

#[cfg(test)]
mod tests;
