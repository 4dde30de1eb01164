//! Images to a registry: blobs first, the manifest last.
//!
//! A blob that is there is not sent; one that another repository of the same registry has is mounted; else
//! it is uploaded. No manifest is put before every blob it names is in place, no tag before its manifest.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use url::Url;

use super::call::{Access, Call};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::pump::Pumped;
use super::session::Session;
use super::upload::{Blob, Upload};
use super::{Client, Inner, OpenBlob, Pushed};
use crate::blob::BlobSource;
use crate::event::TransferKind;
use crate::oci::{Descriptor, Digest, Image, Reference, descriptor_digest};
use crate::threads;

/// How many other repositories are tried as the source of a mount.
const MOST_MOUNTS: usize = 4;

/// A session to upload into, or no need for one.
enum Begun {
    Session(Session),
    Mounted { from: String },
}

/// What became of a blob, for reports: `(digest, how)`.
pub type PushedBlob = (Digest, Pushed);

impl Client {
    /// Pushes an image to each of `references`: its blobs, in parallel, then the manifest under each tag.
    ///
    /// Blobs come from `blobs`, or by mounting them from `mount_from` or from another of the destinations
    /// where these are in the same registry. Layers that must not be distributed are left where they are.
    /// No tag of any destination moves before all destinations have all blobs.
    pub fn push_image(
        &self,
        image: &Image,
        blobs: &dyn BlobSource,
        references: &[Reference],
        mount_from: &[Reference],
    ) -> Result<Vec<PushedBlob>, RegistryError> {
        let mut repositories: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
        for reference in references {
            let of_registry = repositories.entry(reference.registry()).or_default();
            if !of_registry.iter().any(|other| other.repository() == reference.repository()) {
                of_registry.push(reference);
            }
        }
        let pushed = Mutex::new(Vec::new());
        let registries: Vec<_> = repositories.into_values().collect();
        threads::try_each("push", &registries, registries.len(), |of_registry| {
            let mut sources = mount_from.to_vec();
            for repository in of_registry {
                let done = self.push_blobs(image, blobs, repository, &sources)?;
                pushed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(done);
                // The next repository of this registry has only to mount.
                sources.insert(0, (*repository).clone());
            }
            Ok::<_, RegistryError>(())
        })?;
        for reference in references {
            self.put_manifest(reference, image.descriptor.media_type().as_ref(), &image.manifest)?;
        }
        Ok(pushed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Puts the blobs of an image into one repository.
    pub fn push_blobs(
        &self,
        image: &Image,
        blobs: &dyn BlobSource,
        repository: &Reference,
        mount_from: &[Reference],
    ) -> Result<Vec<PushedBlob>, RegistryError> {
        let mut wanted: Vec<&Descriptor> = Vec::new();
        let layers = image.layers.iter().map(|layer| &layer.descriptor).filter(|d| !stays_away(d));
        for descriptor in layers.chain([&image.config_descriptor]) {
            if !wanted.iter().any(|other| other.digest() == descriptor.digest()) {
                wanted.push(descriptor);
            }
        }
        let open = |descriptor: &Descriptor| -> std::io::Result<Box<dyn Read + Send>> {
            if descriptor.digest() == image.config_descriptor.digest() {
                return Ok(Box::new(std::io::Cursor::new(image.config_bytes.clone())));
            }
            blobs.open(descriptor).map_err(std::io::Error::other)
        };
        self.push_descriptors(&wanted, &open, repository, mount_from)
    }
}

/// Layers that must not be distributed (OCI image-spec, `layer.md#non-distributable-layers`) and say where
/// else they are.
pub(super) fn stays_away(descriptor: &Descriptor) -> bool {
    let kind = descriptor.media_type().to_string();
    (kind.contains("nondistributable") || kind.contains(".foreign."))
        && descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty())
}

impl Inner {
    pub(super) fn push_blob(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        open: OpenBlob<'_>,
        mount_from: &[Reference],
    ) -> Result<Pushed, RegistryError> {
        let digest = descriptor_digest(descriptor);
        let done = |how: &str| {
            let (kind, bytes) = (TransferKind::Push, Some(descriptor.size()));
            self.reporter.transfer(kind, digest.short(), bytes).finish(how);
        };
        if let Some(from) = self.mount_noted(to, descriptor, &digest) {
            done(&format!("mounted from {from}"));
            return Ok(Pushed::Mounted { from });
        }
        if self.runtime.wait(self.has(to, &digest))? {
            done("exists");
            return Ok(Pushed::Exists);
        }
        self.send_blob(to, descriptor, open, mount_from)
    }

    /// Mounts a blob from a repository that is said to have it: one request, whether it is there already or not.
    fn mount_noted(&self, to: &Reference, descriptor: &Descriptor, digest: &Digest) -> Option<String> {
        let noted = self.flights.noted(to.registry(), digest);
        if noted.iter().any(|repository| repository == to.repository()) {
            return None;
        }
        let from = Reference::new(to.registry(), noted.first()?, None, None).ok()?;
        match self.runtime.wait(self.mount_only(to, descriptor, &from)) {
            Ok(true) => Some(from.repository().to_owned()),
            Ok(false) => None,
            // What else there is to do may well succeed.
            Err(error) => {
                self.reporter.debug(format!("no mount from `{}`: {}", from.repository(), error.full()));
                None
            }
        }
    }

    /// Mounts or uploads a blob without asking whether it is there.
    pub(super) fn send_blob(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        open: OpenBlob<'_>,
        mount_from: &[Reference],
    ) -> Result<Pushed, RegistryError> {
        let digest = descriptor_digest(descriptor);
        let endpoint = self.destination(to)?;
        let (ticket, landed) = self.flights.board(to.registry(), &digest);
        if landed.iter().any(|repository| repository == to.repository()) {
            let transfer =
                self.reporter.transfer(TransferKind::Push, digest.short(), Some(descriptor.size()));
            transfer.finish("exists");
            return Ok(Pushed::Exists);
        }
        let sent = landed.iter().filter_map(|name| Reference::new(to.registry(), name, None, None).ok());
        let mount_from: Vec<Reference> = sent.chain(mount_from.iter().cloned()).collect();
        match self.runtime.wait(self.begin_or_mount(&endpoint, to, &digest, &mount_from))? {
            Begun::Mounted { from } => {
                let transfer =
                    self.reporter.transfer(TransferKind::Push, digest.short(), Some(descriptor.size()));
                transfer.finish(format!("mounted from {from}"));
                ticket.landed(to.repository());
                Ok(Pushed::Mounted { from })
            }
            Begun::Session(session) => {
                let transfer =
                    self.reporter.transfer(TransferKind::Push, digest.short(), Some(descriptor.size()));
                let blob = Blob { digest: &digest, size_bytes: descriptor.size(), open };
                Upload::new(self, &endpoint, to.repository(), blob, session, transfer).run()?;
                ticket.landed(to.repository());
                Ok(Pushed::Uploaded)
            }
        }
    }

    /// Asks whether the blob is there. A robot that may only push can't see: then it is sent.
    async fn has(&self, to: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        match self.blob_size(to, digest, Access::Push).await {
            Ok(found) => Ok(found.is_some()),
            Err(
                error @ (RegistryError::Unauthorized { .. }
                | RegistryError::Denied { .. }
                | RegistryError::Refused { .. }),
            ) => {
                self.reporter.debug(format!("`{}`: {error}", to.name()));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin_or_mount(
        &self,
        endpoint: &Endpoint,
        to: &Reference,
        digest: &Digest,
        mount_from: &[Reference],
    ) -> Result<Begun, RegistryError> {
        let mut session: Option<Session> = None;
        let mut tried: Vec<&str> = Vec::new();
        for from in mount_from {
            let source = from.repository();
            if from.registry() != to.registry() || source == to.repository() || tried.contains(&source) {
                continue;
            }
            if tried.len() == MOST_MOUNTS {
                break;
            }
            tried.push(source);
            match self.mount(endpoint, to, digest, source).await {
                Ok(Begun::Mounted { from }) => {
                    if let Some(left) = session {
                        self.cancel(endpoint, to.repository(), left.url).await;
                    }
                    return Ok(Begun::Mounted { from });
                }
                // A miss opens a session; one is enough.
                Ok(Begun::Session(opened)) => {
                    if let Some(left) = session.replace(opened) {
                        self.cancel(endpoint, to.repository(), left.url).await;
                    }
                }
                // May be no right to read the source, or no mounts at all: uploading remains.
                Err(error) => self.reporter.debug(format!("no mount from `{source}`: {}", error.full())),
            }
        }
        match session {
            Some(session) => Ok(Begun::Session(session)),
            None => Ok(Begun::Session(self.begin(endpoint, to.repository()).await?)),
        }
    }

    async fn mount(
        &self,
        endpoint: &Endpoint,
        to: &Reference,
        digest: &Digest,
        source: &str,
    ) -> Result<Begun, RegistryError> {
        let mut url = endpoint.url(self, &format!("{}/blobs/uploads/", to.repository())).await?;
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", source);
        let what = format!("the mount of blob {} from `{source}` in `{}`", digest.short(), to.repository());
        let mut call = Call::new(Method::POST, url, to.repository(), Access::Push, what);
        call.also_pull = Some(source);
        let response = self.call(endpoint, &call, &[201, 202]).await?;
        if response.status() == 201 {
            return Ok(Begun::Mounted { from: source.to_owned() });
        }
        self.session(endpoint, &call, &response).map(Begun::Session)
    }

    /// Mounts a blob or leaves everything as it was.
    async fn mount_only(
        &self,
        to: &Reference,
        descriptor: &Descriptor,
        from: &Reference,
    ) -> Result<bool, RegistryError> {
        if from.registry() != to.registry() {
            return Ok(false);
        }
        let endpoint = self.destination(to)?;
        let digest = descriptor_digest(descriptor);
        match self.mount(&endpoint, to, &digest, from.repository()).await? {
            Begun::Mounted { .. } => Ok(true),
            Begun::Session(session) => {
                self.cancel(&endpoint, to.repository(), session.url).await;
                Ok(false)
            }
        }
    }

    /// Uploads a body of unknown length: POST, one PATCH, PUT with the digest that is known by then.
    pub(super) fn push_stream(
        &self,
        to: &Reference,
        reader: &mut dyn Read,
        digest: &dyn Fn() -> Option<Digest>,
    ) -> Result<(), RegistryError> {
        let endpoint = self.destination(to)?;
        let session = self.runtime.wait(self.open_session(&endpoint, to.repository()))?.url;
        let what = format!("an upload to `{}`", to.repository());
        let call = Call::new(Method::PATCH, session.clone(), to.repository(), Access::Push, what);
        let authorization = self.runtime.wait(self.authorize(&endpoint, to.repository(), &call.scopes()))?;
        let client = self.client_for(&endpoint, &session)?;
        let mut request =
            client.request(Method::PATCH, session.clone()).header(CONTENT_TYPE, "application/octet-stream");
        if let Some(header) = authorization.header.as_ref().filter(|_| endpoint.is_home(&session)) {
            request = request.header(AUTHORIZATION, header.reveal());
        }
        let mut transfer = self.reporter.transfer(TransferKind::Push, "layer", None);
        let pumped = self.pump(request, &session, reader, None, &mut |chunk| {
            transfer.advance(chunk.len() as u64);
        });
        let known = |response| match digest() {
            Some(digest) => Ok((response, digest)),
            None => Err(Pumped::Source(std::io::ErrorKind::UnexpectedEof.into())),
        };
        let (response, digest) = match pumped.and_then(known) {
            Ok(done) => done,
            Err(Pumped::Connection(error)) => return Err(error),
            Err(Pumped::Source(source)) => {
                transfer.finish("not needed any more");
                self.runtime.wait(self.cancel(&endpoint, to.repository(), session));
                return Err(RegistryError::Source { digest: "of a stream".to_owned(), source });
            }
        };
        if !matches!(response.status().as_u16(), 202 | 201 | 204) {
            let refused = self.refused(&endpoint, &call.what, response, &authorization);
            return Err(self.runtime.wait(refused));
        }
        let session = if response.headers().contains_key(reqwest::header::LOCATION) {
            self.session(&endpoint, &call, &response)?.url
        } else {
            session
        };
        self.runtime.wait(self.commit(&endpoint, to.repository(), session, &digest))?;
        transfer.finish("done");
        Ok(())
    }

    /// Ends an upload whose bytes are all there.
    async fn commit(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        mut session: Url,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        session.query_pairs_mut().append_pair("digest", digest.as_str());
        let what = format!("the upload of blob {} to `{repository}`", digest.short());
        let call = Call::new(Method::PUT, session, repository, Access::Push, what);
        self.call(endpoint, &call, &[201, 204, 200]).await.map(drop)
    }
}
