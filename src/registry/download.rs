//! Blobs from a registry: verified while they are read, and taken up again where a connection was cut.
//!
//! Whoever reads to the end has the right bytes; a wrong byte or a missing one ends in an error. A cut is
//! answered with a request for the rest (`Range`), a bounded number of times without progress.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use url::Url;

use super::call::{Access, Call, protocol};
use super::error::{RegistryError, Unreachable};
use super::transport::{self, host_of};
use super::{Inner, retry::Backoff};
use crate::blob::{BlobError, BlobSource};
use crate::event::{Transfer, TransferKind};
use crate::oci::{Descriptor, Digest, Reference};

/// A cut after at least this much is a new cut, not the same one again.
const PROGRESS_BYTES: u64 = 64 << 10;
/// A transfer below this rate for as long as `stall_timeout` is no transfer but a way to hold us up.
const SLOWEST_BYTES_PER_SECOND: u64 = 256;

/// The blobs of a repository (and of its mirrors), verified while they are read and resumed when a
/// connection is cut.
pub struct RemoteBlobs {
    inner: Arc<Inner>,
    reference: Reference,
    /// Index of the location that served last: the next blob is probably there too.
    favourite: AtomicUsize,
    /// Blobs known to be there.
    known: Mutex<std::collections::HashSet<Digest>>,
}

impl RemoteBlobs {
    pub(super) fn new(inner: Arc<Inner>, reference: Reference) -> Self {
        Self { inner, reference, favourite: AtomicUsize::new(0), known: Mutex::default() }
    }

    /// Opens a blob; the reader checks digest and size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader, RegistryError> {
        let digest: Digest =
            descriptor.digest().to_string().parse().map_err(|error| RegistryError::Malformed {
                reference: self.reference.to_string(),
                what: "descriptor",
                reason: format!("{error}"),
            })?;
        let places = self.places()?;
        let mut failures = Vec::new();
        for at in order(places.len(), self.favourite.load(Ordering::Relaxed)) {
            let place = places[at].clone();
            let mut reader = BlobReader::new(self.inner.clone(), place, digest.clone(), descriptor.size());
            match reader.connect() {
                Ok(()) => {
                    self.favourite.store(at, Ordering::Relaxed);
                    return Ok(reader);
                }
                Err(error) => failures.push((places[at].name(), error)),
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
        let places = self.places()?;
        let mut failures = Vec::new();
        for at in order(places.len(), self.favourite.load(Ordering::Relaxed)) {
            match self.inner.runtime.wait(self.inner.blob_size(&places[at], digest, Access::Pull)) {
                Ok(Some(_)) => {
                    self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
                    return Ok(true);
                }
                Ok(None) => {}
                Err(error) => failures.push((places[at].name(), error)),
            }
        }
        if failures.is_empty() { Ok(false) } else { Err(collect(&self.reference, failures)) }
    }

    fn places(&self) -> Result<Vec<Reference>, RegistryError> {
        self.inner.config.mirrors.candidates(&self.reference).map_err(|error| RegistryError::Config {
            what: format!("the mirrors of `{}`", self.reference),
            reason: error.to_string(),
        })
    }
}

fn order(count: usize, first: usize) -> impl Iterator<Item = usize> {
    let first = if first < count { first } else { 0 };
    std::iter::once(first).chain((0..count).filter(move |at| *at != first)).take(count)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// All read and verified.
    Done,
    /// An error was returned; there is no going on.
    Failed,
}

/// A blob being downloaded.
pub struct BlobReader {
    inner: Arc<Inner>,
    place: Reference,
    /// Where a foreign layer is.
    foreign: Option<Url>,
    digest: Digest,
    size_bytes: u64,
    offset: u64,
    phase: Phase,
    hash: Sha256,
    response: Option<Response>,
    chunk: Bytes,
    transfer: Option<Transfer>,
    failures: u32,
    failed_at: u64,
    window: (Instant, u64),
}

impl BlobReader {
    fn new(inner: Arc<Inner>, place: Reference, digest: Digest, size_bytes: u64) -> Self {
        Self {
            inner,
            place,
            foreign: None,
            digest,
            size_bytes,
            offset: 0,
            phase: Phase::Reading,
            hash: Sha256::new(),
            response: None,
            chunk: Bytes::new(),
            transfer: None,
            failures: 0,
            failed_at: 0,
            window: (Instant::now(), 0),
        }
    }

    fn what(&self) -> String {
        format!("blob {} of `{}`", self.digest.short(), self.place.repository())
    }

    /// Asks for the blob from where we are.
    fn connect(&mut self) -> Result<(), RegistryError> {
        let inner = self.inner.clone();
        let response = inner.runtime.wait(self.request())?;
        self.response = Some(response);
        self.window = (Instant::now(), self.offset);
        if self.transfer.is_none() {
            self.transfer =
                Some(inner.reporter.transfer(TransferKind::Pull, self.digest.short(), Some(self.size_bytes)));
        }
        Ok(())
    }

    async fn request(&self) -> Result<Response, RegistryError> {
        let endpoint = self.inner.endpoint(self.place.registry(), Access::Pull);
        let repository = self.place.repository();
        let url = match &self.foreign {
            Some(url) => url.clone(),
            None => endpoint.url(&self.inner, &format!("{repository}/blobs/{}", self.digest)).await?,
        };
        // The bytes as they are: a proxy that compresses them would change what we hash.
        let mut call = Call::new(Method::GET, url, repository, Access::Pull, self.what())
            .header(ACCEPT_ENCODING, "identity");
        call.verified = true;
        if self.offset > 0 {
            call = call.header(RANGE, format!("bytes={}-", self.offset));
        }
        let response = self.inner.call(&endpoint, &call, &[200, 206]).await?;
        if response.status() == 206 {
            let start =
                response.headers().get(CONTENT_RANGE).and_then(|value| range_start(value.to_str().ok()?));
            if start != Some(self.offset) {
                let reason = format!("expected a range from byte {}, found another", self.offset);
                return Err(protocol(&endpoint, &call.what, reason));
            }
            return Ok(response);
        }
        if let Some(length) = response.content_length()
            && length != self.size_bytes
        {
            return Err(self.wrong_size(format!("{length} bytes")));
        }
        self.skip(response).await
    }

    /// Reads over what we have, where the server does not know ranges.
    async fn skip(&self, mut response: Response) -> Result<Response, RegistryError> {
        if self.offset == 0 {
            return Ok(response);
        }
        let rest = self.skip_bytes(&mut response).await?;
        Ok(join(rest, response))
    }

    async fn skip_bytes(&self, response: &mut Response) -> Result<Bytes, RegistryError> {
        let mut left = self.offset;
        loop {
            let Some(mut chunk) = self.next_chunk(response).await? else {
                return Err(self.truncated(self.offset - left));
            };
            if chunk.len() as u64 > left {
                chunk.advance(usize::try_from(left).expect("less than a chunk"));
                return Ok(chunk);
            }
            left -= chunk.len() as u64;
            if left == 0 {
                return Ok(Bytes::new());
            }
        }
    }

    async fn next_chunk(&self, response: &mut Response) -> Result<Option<Bytes>, RegistryError> {
        let patience = self.inner.config.retries.stall_timeout;
        let url = response.url().clone();
        match timeout(patience, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(transport::explain(&url, error, self.inner.config.retries.connect_timeout)),
            Err(_) => Err(RegistryError::Unreachable { host: host_of(&url), reason: Unreachable::Stalled }),
        }
    }

    fn truncated(&self, found_bytes: u64) -> RegistryError {
        RegistryError::Truncated {
            host: self.place.registry().to_owned(),
            what: self.what(),
            expected_bytes: self.size_bytes,
            found_bytes,
        }
    }

    /// Gets the next bytes into `chunk`; leaves it empty at the end. The last bytes are only handed out when
    /// the digest of all is right.
    fn fill(&mut self) -> Result<(), RegistryError> {
        while self.chunk.is_empty() {
            match self.phase {
                Phase::Done => return Ok(()),
                Phase::Failed => return Err(self.truncated(self.offset)),
                Phase::Reading if self.offset == self.size_bytes => self.end()?,
                Phase::Reading => {
                    if let Err(error) = self.step() {
                        self.response = None;
                        self.resume(error)?;
                    }
                }
            }
        }
        if self.offset == self.size_bytes && self.phase == Phase::Reading {
            self.end()?;
        }
        Ok(())
    }

    /// Checks that nothing follows and that the digest is right.
    fn end(&mut self) -> Result<(), RegistryError> {
        let (phase, outcome, result) = match self.check_end() {
            Ok(()) => (Phase::Done, "done".to_owned(), Ok(())),
            Err(error) => (Phase::Failed, format!("failed: {error}"), Err(error)),
        };
        self.phase = phase;
        self.response = None;
        if result.is_err() {
            self.chunk = Bytes::new();
        }
        if let Some(transfer) = self.transfer.take() {
            transfer.finish(outcome);
        }
        result
    }

    fn check_end(&mut self) -> Result<(), RegistryError> {
        if let Some(mut response) = self.response.take() {
            let inner = self.inner.clone();
            // All bytes are here and their digest decides: how the connection ends does not matter.
            while let Ok(Some(chunk)) = inner.runtime.wait(self.next_chunk(&mut response)) {
                if !chunk.is_empty() {
                    return Err(self.wrong_size("more".to_owned()));
                }
            }
        }
        let found = Digest::from_sha256(self.hash.finalize_reset().into());
        if found == self.digest {
            Ok(())
        } else {
            Err(RegistryError::wrong_digest(self.place.registry(), &self.what(), &self.digest, &found))
        }
    }

    fn wrong_size(&self, found: String) -> RegistryError {
        RegistryError::Corrupt {
            host: self.place.registry().to_owned(),
            what: self.what(),
            expected: format!("{} bytes", self.size_bytes),
            found,
        }
    }

    /// Takes one chunk from the connection, or notes that the connection ended too early.
    fn step(&mut self) -> Result<(), RegistryError> {
        let inner = self.inner.clone();
        let Some(mut response) = self.response.take() else { return self.connect() };
        let chunk = inner.runtime.wait(self.next_chunk(&mut response))?;
        let Some(chunk) = chunk else { return Err(self.truncated(self.offset)) };
        self.response = Some(response);
        self.check_pace(chunk.len() as u64)?;
        self.accept(chunk)
    }

    fn accept(&mut self, chunk: Bytes) -> Result<(), RegistryError> {
        if self.offset + chunk.len() as u64 > self.size_bytes {
            return Err(self.wrong_size("more".to_owned()));
        }
        self.offset += chunk.len() as u64;
        self.hash.update(&chunk);
        if let Some(transfer) = &mut self.transfer {
            transfer.advance(chunk.len() as u64);
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Fails if bytes trickle.
    fn check_pace(&mut self, more: u64) -> Result<(), RegistryError> {
        let limit = self.inner.config.retries.stall_timeout;
        let (since, from) = self.window;
        let elapsed = since.elapsed();
        if elapsed < limit {
            return Ok(());
        }
        let bytes = self.offset + more - from;
        let least = elapsed.as_secs_f64() * SLOWEST_BYTES_PER_SECOND as f64;
        self.window = (Instant::now(), self.offset + more);
        if (bytes as f64) < least {
            return Err(RegistryError::Unreachable {
                host: self.place.registry().to_owned(),
                reason: Unreachable::Stalled,
            });
        }
        Ok(())
    }

    /// Waits before another try, or gives up.
    fn resume(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.offset >= self.failed_at + PROGRESS_BYTES {
            self.failures = 0;
        }
        self.failed_at = self.offset;
        let inner = self.inner.clone();
        let mut backoff = Backoff::resumed(&inner.config.retries, &inner.reporter, self.failures);
        let what = format!("{} at byte {}", self.what(), self.offset);
        let pause: Duration = match backoff.pause(&what, error) {
            Ok(pause) => pause,
            Err(error) => {
                self.phase = Phase::Failed;
                if let Some(transfer) = self.transfer.take() {
                    transfer.finish(format!("failed: {error}"));
                }
                return Err(error);
            }
        };
        self.failures += 1;
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Puts bytes back in front of a response's body.
fn join(front: Bytes, response: Response) -> Response {
    if front.is_empty() {
        return response;
    }
    let (status, url) = (response.status(), response.url().clone());
    let body = futures_util::stream::unfold((Some(front), response), |(front, mut response)| async move {
        if let Some(front) = front {
            return Some((Ok(front), (None, response)));
        }
        match response.chunk().await {
            Ok(Some(chunk)) => Some((Ok(chunk), (None, response))),
            Ok(None) => None,
            Err(error) => Some((Err(error), (None, response))),
        }
    });
    use reqwest::ResponseBuilderExt as _;
    let joined = http::Response::builder().status(status).url(url).body(reqwest::Body::wrap_stream(body));
    Response::from(joined.expect("a status and a URL make a response"))
}

/// Reads the start of `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.trim().parse().ok()
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let count = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
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
        let endpoint = self.endpoint(place.registry(), access);
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
        let endpoint = self.endpoint(place.registry(), Access::Pull);
        let digest = crate::oci::descriptor_digest(descriptor);
        let url = endpoint.url(self, &format!("{}/blobs/{digest}", place.repository())).await?;
        let what = format!("blob {} of `{}`", digest.short(), place.repository());
        let mut call = Call::new(Method::GET, url, place.repository(), Access::Pull, what)
            .header(ACCEPT_ENCODING, "identity");
        call.verified = true;
        let mut backoff = Backoff::new(&self.config.retries, &self.reporter);
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
