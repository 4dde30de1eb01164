//! The blobs of a repository as a [`BlobSource`], with its mirrors and with the addresses of foreign layers.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;
use reqwest::header::ACCEPT_ENCODING;
use url::Url;

use super::call::{Access, Call};
use super::config::Side;
use super::download::BlobReader;
use super::error::RegistryError;
use super::left_alone::Turn;
use super::retry::Backoff;
use super::{Inner, transport};
use crate::blob::{BlobError, BlobSource};
use crate::oci::{Descriptor, Digest, Reference};

/// The blobs of a repository (and of its mirrors), verified while they are read and resumed when a
/// connection is cut.
pub struct RemoteBlobs {
    inner: Arc<Inner>,
    reference: Reference,
    /// The location that served last: the next blob is probably there too.
    favourite: Mutex<Option<Reference>>,
    /// Blobs known to be there.
    known: Mutex<std::collections::HashSet<Digest>>,
}

impl RemoteBlobs {
    pub(super) fn new(inner: Arc<Inner>, reference: Reference) -> Self {
        Self { inner, reference, favourite: Mutex::default(), known: Mutex::default() }
    }

    /// Opens a blob; the reader checks digest and size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader, RegistryError> {
        let digest: Digest =
            descriptor.digest().to_string().parse().map_err(|error| RegistryError::Malformed {
                reference: self.reference.to_string(),
                what: "descriptor",
                reason: format!("{error}"),
            })?;
        let turns = self.inner.turns(&self.reference)?;
        let mut failures = Vec::new();
        for at in self.order(&turns) {
            let turn = &turns[at];
            let asking = Arc::new(self.inner.asking(turn));
            let mut reader = BlobReader::new(asking, turn.place.clone(), digest.clone(), descriptor.size());
            match reader.connect() {
                Ok(()) => {
                    self.serves(&turn.place);
                    // What has begun goes on with patience: there is no changing the place.
                    reader.inner = self.inner.clone();
                    return Ok(reader);
                }
                Err(error) => {
                    self.inner.failed(turn, &error);
                    failures.push((turn.place.name(), error));
                }
            }
        }
        // A foreign layer: its bytes are where its descriptor says, not in the registry.
        for url in descriptor.urls().iter().flatten() {
            let Ok(url) = Url::parse(url) else { continue };
            let mut reader = BlobReader::new(
                self.inner.clone(),
                self.reference.clone(),
                digest.clone(),
                descriptor.size(),
            );
            reader.foreign = Some(url.clone());
            match reader.connect() {
                Ok(()) => return Ok(reader),
                Err(error) => failures.push((transport::shown(&url), error)),
            }
        }
        Err(collect(&self.reference, failures))
    }

    /// Asks whether one of the locations has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(digest) {
            return Ok(true);
        }
        let turns = self.inner.turns(&self.reference)?;
        let mut failures = Vec::new();
        for at in self.order(&turns) {
            let (turn, asking) = (&turns[at], self.inner.asking(&turns[at]));
            match asking.runtime.wait(asking.blob_size(&turn.place, digest, Access::Pull)) {
                Ok(Some(_)) => {
                    self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) => {
                    self.inner.failed(turn, &error);
                    failures.push((turn.place.name(), error));
                }
            }
        }
        if failures.is_empty() { Ok(false) } else { Err(collect(&self.reference, failures)) }
    }

    /// Returns the order in which places are asked.
    fn order(&self, turns: &[Turn]) -> impl Iterator<Item = usize> + use<> {
        let favourite = self.favourite.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = turns.iter().position(|turn| Some(&turn.place) == favourite.as_ref()).unwrap_or(0);
        let count = turns.len();
        std::iter::once(first).chain((0..count).filter(move |at| *at != first)).take(count)
    }

    fn serves(&self, place: &Reference) {
        *self.favourite.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
    }
}

fn collect(reference: &Reference, mut failures: Vec<(String, RegistryError)>) -> RegistryError {
    match failures.len() {
        1 => failures.remove(0).1,
        _ => RegistryError::Everywhere { reference: reference.to_string(), failures },
    }
}

impl BlobSource for RemoteBlobs {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        match self.open_blob(descriptor) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(error) => Err(self.blob_error(descriptor.digest().to_string().parse().ok(), error)),
        }
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.has_blob(digest).map_err(|error| self.blob_error(Some(digest.clone()), error))
    }
}

impl RemoteBlobs {
    fn blob_error(&self, digest: Option<Digest>, error: RegistryError) -> BlobError {
        let place = self.reference.name();
        match digest {
            None => BlobError::Digest { digest: error.to_string() },
            Some(digest) if error.is_not_found() => BlobError::NotFound { digest, place },
            Some(digest) => BlobError::Source { digest, place, source: Box::new(error) },
        }
    }
}

impl Inner {
    /// Asks for the size of a blob; nothing if it is not there.
    pub(super) async fn blob_size(
        &self,
        place: &Reference,
        digest: &Digest,
        access: Access,
    ) -> Result<Option<u64>, RegistryError> {
        let endpoint = self.endpoint(place.registry(), access.side());
        let url = endpoint.url(self, &format!("{}/blobs/{digest}", place.repository())).await?;
        let what = format!("blob {} of `{}`", digest.short(), place.repository());
        let mut call = Call::new(Method::HEAD, url, place.repository(), access, what);
        call.verified = true;
        match self.call(&endpoint, &call, &[200]).await {
            Ok(response) => {
                let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
                Ok(Some(length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches a small blob whole, verified; a corrupt one is asked for again.
    pub(super) async fn small_blob(
        &self,
        place: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let endpoint = self.endpoint(place.registry(), Side::Pull);
        let digest = crate::oci::descriptor_digest(descriptor);
        let url = endpoint.url(self, &format!("{}/blobs/{digest}", place.repository())).await?;
        let what = format!("blob {} of `{}`", digest.short(), place.repository());
        let mut call = Call::new(Method::GET, url, place.repository(), Access::Pull, what)
            .header(ACCEPT_ENCODING, "identity");
        call.verified = true;
        let mut backoff = Backoff::new(&self.retries, &self.reporter);
        loop {
            let response = self.call(&endpoint, &call, &[200]).await?;
            let url = response.url().clone();
            let limit = usize::try_from(descriptor.size()).unwrap_or(usize::MAX);
            let error = match self.limited_body(response, &url, limit).await {
                Ok((bytes, whole)) => {
                    let found = Digest::of(&bytes);
                    if whole && found == digest {
                        return Ok(bytes);
                    }
                    if whole && bytes.len() < limit {
                        RegistryError::Truncated {
                            host: endpoint.registry.clone(),
                            what: call.what.clone(),
                            expected_bytes: descriptor.size(),
                            found_bytes: bytes.len() as u64,
                        }
                    } else {
                        return Err(RegistryError::wrong_digest(
                            &endpoint.registry,
                            &call.what,
                            &digest,
                            &found,
                        ));
                    }
                }
                Err(error) => error,
            };
            backoff.wait(&call.what, error).await?;
        }
    }
}
