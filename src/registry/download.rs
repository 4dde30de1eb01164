//! One blob from a registry: verified while it is read, and taken up again where a connection was cut.
//!
//! Whoever reads to the end has the right bytes; a wrong byte or a missing one ends in an error. A cut is
//! answered with a request for the rest (`Range`), a bounded number of times without progress.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response};
use tokio::sync::mpsc;
use url::Url;

use super::call::{Access, Call, protocol};
use super::config::Side;
use super::error::{RegistryError, Unreachable};
use super::hashing::Hashing;
use super::transport::{self, host_of};
use super::{Inner, retry::Backoff};
use crate::event::{Transfer, TransferKind};
use crate::oci::{Digest, Reference};
use crate::stream::Pace;

/// Chunks between socket and reader; HTTP hands out at most some 400 KiB at once.
const READ_AHEAD_CHUNKS: usize = 8;
/// A cut after at least this much is a new cut, not the same one again.
const PROGRESS_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// All read and verified.
    Done,
    /// An error was returned; there is no going on.
    Failed,
}

/// The body of a response, read ahead by a worker while the consumer hashes and unpacks.
struct Incoming {
    url: Url,
    chunks: mpsc::Receiver<reqwest::Result<Bytes>>,
}

impl Incoming {
    fn start(inner: &Inner, mut response: Response) -> Self {
        let (sender, chunks) = mpsc::channel(READ_AHEAD_CHUNKS);
        let url = response.url().clone();
        // Ends with the body, or when the reader is dropped.
        drop(inner.runtime.spawn(async move {
            while let Some(chunk) = response.chunk().await.transpose() {
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    break;
                }
            }
        }));
        Self { url, chunks }
    }
}

/// A blob being downloaded.
pub struct BlobReader {
    pub(super) inner: Arc<Inner>,
    place: Reference,
    /// Where a foreign layer is.
    pub(super) foreign: Option<Url>,
    digest: Digest,
    size_bytes: u64,
    offset: u64,
    phase: Phase,
    /// Taken at the end.
    hash: Option<Hashing>,
    incoming: Option<Incoming>,
    /// Bytes to be read over, where the server does not know ranges.
    to_skip: u64,
    chunk: Bytes,
    transfer: Option<Transfer>,
    failures: u32,
    failed_at: u64,
    /// Time spent waiting for bytes that are not counted yet.
    waited: Duration,
    pace: Pace,
}

impl BlobReader {
    pub(super) fn new(inner: Arc<Inner>, place: Reference, digest: Digest, size_bytes: u64) -> Self {
        let pace = Pace::new(inner.retries.stall_timeout);
        Self {
            inner,
            place,
            foreign: None,
            digest,
            size_bytes,
            offset: 0,
            phase: Phase::Reading,
            hash: Some(Hashing::new(size_bytes)),
            incoming: None,
            to_skip: 0,
            chunk: Bytes::new(),
            transfer: None,
            failures: 0,
            failed_at: 0,
            waited: Duration::ZERO,
            pace,
        }
    }

    fn what(&self) -> String {
        format!("blob {} of `{}`", self.digest.short(), self.place.repository())
    }

    /// Asks for the blob from where we are.
    pub(super) fn connect(&mut self) -> Result<(), RegistryError> {
        let inner = self.inner.clone();
        let (response, to_skip) = inner.runtime.wait(self.request())?;
        self.incoming = Some(Incoming::start(&inner, response));
        self.to_skip = to_skip;
        self.waited = Duration::ZERO;
        self.pace = Pace::new(self.inner.retries.stall_timeout);
        if self.transfer.is_none() {
            self.transfer =
                Some(inner.reporter.transfer(TransferKind::Pull, self.digest.short(), Some(self.size_bytes)));
        }
        Ok(())
    }

    /// Returns the response and how many of its bytes we have already.
    async fn request(&self) -> Result<(Response, u64), RegistryError> {
        let endpoint = self.inner.endpoint(self.place.registry(), Side::Pull);
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
        let mut response = self.inner.call(&endpoint, &call, &[200, 206, 416]).await?;
        if response.status() == 416 {
            // Ranges mean something else to it: all of it once more, and what we have is read over.
            call.headers.retain(|(name, _)| name != RANGE);
            response = self.inner.call(&endpoint, &call, &[200]).await?;
        }
        if response.status() == 206 {
            let start =
                response.headers().get(CONTENT_RANGE).and_then(|value| range_start(value.to_str().ok()?));
            if start != Some(self.offset) {
                let reason = format!("expected a range from byte {}, found another", self.offset);
                return Err(protocol(&endpoint, &call.what, reason));
            }
            return Ok((response, 0));
        }
        match response.content_length() {
            Some(length) if length != self.size_bytes => Err(self.wrong_size(format!("{length} bytes"))),
            _ => Ok((response, self.offset)),
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let patience = self.inner.retries.stall_timeout;
        let Some(incoming) = &mut self.incoming else { return Ok(None) };
        let began = Instant::now();
        let received = self.inner.runtime.wait_at_most(patience, incoming.chunks.recv());
        self.waited += began.elapsed();
        match received {
            Some(Some(Ok(chunk))) => Ok(Some(chunk)),
            Some(Some(Err(error))) => {
                Err(transport::explain(&incoming.url, error, self.inner.retries.connect_timeout))
            }
            Some(None) => Ok(None),
            None => {
                let host = host_of(&incoming.url);
                Err(RegistryError::Unreachable { host, reason: Unreachable::Stalled })
            }
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
                        self.incoming = None;
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
        self.incoming = None;
        if result.is_err() {
            self.chunk = Bytes::new();
        }
        if let Some(transfer) = self.transfer.take() {
            transfer.finish(outcome);
        }
        result
    }

    fn check_end(&mut self) -> Result<(), RegistryError> {
        // All bytes are here and their digest decides: how the connection ends does not matter.
        while let Ok(Some(chunk)) = self.next_chunk() {
            if !chunk.is_empty() {
                return Err(self.wrong_size("more".to_owned()));
            }
        }
        let found = self.hash.take().map(Hashing::finish);
        let found = found.expect("the end is reached once: the phase changes with it");
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
        if self.incoming.is_none() {
            return self.connect();
        }
        let Some(mut chunk) = self.next_chunk()? else { return Err(self.truncated(self.offset)) };
        let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(chunk.len());
        self.to_skip -= skipped as u64;
        chunk.advance(skipped);
        self.check_pace((chunk.len() + skipped) as u64)?;
        self.accept(chunk)
    }

    fn accept(&mut self, chunk: Bytes) -> Result<(), RegistryError> {
        if self.offset + chunk.len() as u64 > self.size_bytes {
            return Err(self.wrong_size("more".to_owned()));
        }
        self.offset += chunk.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&chunk);
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.advance(chunk.len() as u64);
        }
        self.chunk = chunk;
        Ok(())
    }

    /// Fails if bytes trickle. Time in which nobody asked for any does not count.
    fn check_pace(&mut self, more: u64) -> Result<(), RegistryError> {
        if self.pace.goes_on(std::mem::take(&mut self.waited), more) {
            return Ok(());
        }
        let host = self.place.registry().to_owned();
        Err(RegistryError::Unreachable { host, reason: Unreachable::Stalled })
    }

    /// Waits before another try, or gives up.
    fn resume(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        if self.offset >= self.failed_at + PROGRESS_BYTES {
            self.failures = 0;
        }
        self.failed_at = self.offset;
        let inner = self.inner.clone();
        let mut backoff = Backoff::resumed(&inner.retries, &inner.reporter, self.failures);
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
