//! Blobs to a registry: streamed, and taken up again where a connection was cut.
//!
//! A blob of known size goes up in one `PUT` (distribution-spec, "Monolithic upload"). After a cut the
//! registry is asked how much it has, and the rest follows in a `PATCH` with its range; where bodies are
//! limited (413) the blob goes in chunks. A lost session begins anew. The caller's thread reads the blob, a
//! worker sends it: at most a few buffers are in memory.

use std::io::{self, Read};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response};
use url::Url;

use super::call::{Access, Call, location, protocol};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::pump::Pumped;
use super::retry::Backoff;
use super::session::Session;
use super::token::Authorization;
use super::{Inner, OpenBlob};
use crate::event::Transfer;
use crate::oci::Digest;

/// The first size of a chunk where bodies are limited; nginx's usual limits are powers of two.
const FIRST_CHUNK_BYTES: u64 = 16 << 20;
/// Nobody limits bodies to less than this and calls itself a registry.
const SMALLEST_CHUNK_BYTES: u64 = 256 << 10;

/// What is uploaded.
pub(super) struct Blob<'a> {
    pub(super) digest: &'a Digest,
    pub(super) size_bytes: u64,
    pub(super) open: OpenBlob<'a>,
}

/// A blob on its way into a repository.
pub(super) struct Upload<'a> {
    inner: &'a Inner,
    endpoint: &'a Endpoint,
    repository: &'a str,
    blob: Blob<'a>,
    session: Url,
    /// No chunk but the last may be smaller.
    least_chunk_bytes: u64,
    transfer: Transfer,
    authorization: Authorization,
    /// Bytes the registry has.
    offset: u64,
    /// Bytes that were reported as moved.
    reported: u64,
    /// The most that one request may carry, where there is a limit.
    chunk: Option<u64>,
    /// Whether a whole blob in one `PUT` is understood here.
    monolithic: bool,
    renewals: u32,
}

/// A cut after at least this much more is a new cut.
const PROGRESS_BYTES: u64 = 64 << 10;

/// What one request of an upload came to.
enum Step {
    /// The blob is in place.
    Done,
    /// The registry has everything up to the offset.
    Further,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        inner: &'a Inner,
        endpoint: &'a Endpoint,
        repository: &'a str,
        blob: Blob<'a>,
        session: Session,
        transfer: Transfer,
    ) -> Self {
        Self {
            inner,
            endpoint,
            repository,
            blob,
            session: session.url,
            least_chunk_bytes: session.least_chunk_bytes,
            transfer,
            authorization: Authorization::default(),
            offset: 0,
            reported: 0,
            chunk: None,
            monolithic: true,
            renewals: 0,
        }
    }

    fn what(&self) -> String {
        format!("the upload of blob {} to `{}`", self.blob.digest.short(), self.repository)
    }

    /// Uploads the blob, come what may within bounds.
    pub(super) fn run(mut self) -> Result<(), RegistryError> {
        let inner = self.inner;
        let mut backoff = Backoff::new(&inner.retries, &inner.reporter);
        let (mut farthest, mut in_vain) = (0, 0);
        let result = loop {
            let before = self.offset;
            match self.step() {
                Ok(Step::Done) => break Ok(()),
                Ok(Step::Further) if self.offset > before => {}
                Ok(Step::Further) => {
                    in_vain += 1;
                    if in_vain > inner.retries.count {
                        break Err(protocol(self.endpoint, &self.what(), "it takes no bytes".to_owned()));
                    }
                }
                Err(failure) => {
                    if let Err(error) = self.recover(failure, &mut backoff) {
                        break Err(error);
                    }
                }
            }
            // Only what the registry says it has counts: a new cut, not the same one again.
            if self.offset >= farthest + PROGRESS_BYTES {
                farthest = self.offset;
                backoff.progressed();
                self.renewals = 0;
            }
        };
        self.transfer.finish(match &result {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("failed: {error}"),
        });
        result
    }

    /// Sends as much as one request may carry.
    fn step(&mut self) -> Result<Step, Failure> {
        let inner = self.inner;
        let scopes = self.call(Method::PUT).scopes();
        self.authorization = inner.runtime.wait(inner.authorize(self.endpoint, self.repository, &scopes))?;
        if self.offset == 0 && self.chunk.is_none() && self.monolithic {
            return self.put(self.blob.size_bytes);
        }
        if self.offset == self.blob.size_bytes {
            return self.put(0);
        }
        let left = self.blob.size_bytes - self.offset;
        let length = self.chunk.map_or(left, |chunk| chunk.min(left));
        let response = self.send(Method::PATCH, self.session.clone(), length)?;
        match response.status().as_u16() {
            202 | 201 | 204 => {
                self.follow_location(response.headers())?;
                self.offset = range_end(response.headers()).map_or(self.offset + length, |end| {
                    // Never more than was sent: the digest would not match, much later.
                    end.min(self.offset + length)
                });
                Ok(Step::Further)
            }
            _ => Err(Failure::Answer(Box::new(response))),
        }
    }

    /// Ends the upload with the last `length` bytes, which are all or none.
    fn put(&mut self, length: u64) -> Result<Step, Failure> {
        let mut url = self.session.clone();
        url.query_pairs_mut().append_pair("digest", self.blob.digest.as_str());
        let response = self.send(Method::PUT, url, length)?;
        match response.status().as_u16() {
            200 | 201 | 204 => {
                let said = response.headers().get(super::pull::DIGEST_HEADER).and_then(|d| d.to_str().ok());
                let said = said.and_then(|text| text.parse::<Digest>().ok());
                if let Some(said) = said.filter(|said| said != self.blob.digest) {
                    let registry = &self.endpoint.registry;
                    return Err(
                        RegistryError::wrong_digest(registry, &self.what(), self.blob.digest, &said).into()
                    );
                }
                Ok(Step::Done)
            }
            // 202 to a PUT: some registries take the bytes and want the end said separately.
            202 if length > 0 => {
                self.follow_location(response.headers())?;
                self.offset = self.blob.size_bytes;
                Ok(Step::Further)
            }
            _ => Err(Failure::Answer(Box::new(response))),
        }
    }

    fn call(&self, method: Method) -> Call<'a> {
        Call::new(method, self.session.clone(), self.repository, Access::Push, self.what())
    }

    fn follow_location(&mut self, headers: &HeaderMap) -> Result<(), RegistryError> {
        if headers.contains_key(reqwest::header::LOCATION) {
            let next = location(&self.endpoint.registry, &self.what(), &self.session, headers)?;
            self.session = self.endpoint.repair(next);
        }
        Ok(())
    }

    fn send(&mut self, method: Method, url: Url, length: u64) -> Result<Response, Failure> {
        let client = self.inner.client_for(self.endpoint, &url)?;
        let mut request = client.request(method.clone(), url.clone()).header(CONTENT_LENGTH, length);
        if length > 0 {
            request = request.header(CONTENT_TYPE, "application/octet-stream");
        }
        if method == Method::PATCH {
            request = request.header(CONTENT_RANGE, format!("{}-{}", self.offset, self.offset + length - 1));
        }
        let header = self.authorization.header.as_ref().filter(|_| self.endpoint.is_home(&url));
        if let Some(header) = header {
            request = request.header(AUTHORIZATION, header.reveal());
        }
        let source =
            |source: io::Error| RegistryError::Source { digest: self.blob.digest.to_string(), source };
        let mut reader: Box<dyn Read + Send> = Box::new(io::empty());
        if length > 0 {
            reader = (self.blob.open)().map_err(source)?;
            skip(&mut reader, self.offset).map_err(source)?;
        }
        let (transfer, reported, offset) = (&mut self.transfer, &mut self.reported, self.offset);
        let mut sent = offset;
        let pumped = self.inner.pump(request, &url, &mut reader, Some(length), &mut |bytes| {
            sent += bytes.len() as u64;
            if sent > *reported {
                transfer.advance(sent - *reported);
                *reported = sent;
            }
        });
        match pumped {
            Ok(response) => Ok(response),
            Err(Pumped::Connection(error)) => Err(Failure::Error(error)),
            Err(Pumped::Source(error)) => Err(Failure::Fatal(source(error))),
        }
    }

    /// Finds out how to go on after a failure, or gives up.
    fn recover(&mut self, failure: Failure, backoff: &mut Backoff<'_>) -> Result<(), RegistryError> {
        let inner = self.inner;
        let what = self.what();
        match failure {
            Failure::Fatal(error) => Err(error),
            Failure::Error(error) => {
                inner.runtime.wait(backoff.wait(&what, error))?;
                self.realign()
            }
            Failure::Answer(response) => self.recover_from(*response, &what, backoff),
        }
    }

    fn recover_from(
        &mut self,
        response: Response,
        what: &str,
        backoff: &mut Backoff<'_>,
    ) -> Result<(), RegistryError> {
        let inner = self.inner;
        let status = response.status().as_u16();
        if matches!(status, 307 | 308) {
            self.renewals += 1;
            if self.renewals > 4 {
                return Err(protocol(self.endpoint, what, "it redirects again and again".to_owned()));
            }
            return self.follow_location(response.headers());
        }
        if matches!(status, 401 | 403) && self.renewals < 2 && self.renew(&response)? {
            self.renewals += 1;
            return self.realign();
        }
        let refused = inner.refused(self.endpoint, what, response, &self.authorization);
        let error = inner.runtime.wait(refused);
        match status {
            413 => self.smaller_chunks(error),
            // The session is gone, or its state and ours differ.
            404 | 410 | 416 => {
                inner.reporter.debug(format!("{what}: {error}"));
                let pause = backoff.pause_for_lost_session(what, error)?;
                std::thread::sleep(pause);
                if status == 416 { self.realign() } else { self.begin_again() }
            }
            // What we resumed does not add up: from the start, once more.
            400 if self.offset > 0 => {
                let pause = backoff.pause_for_lost_session(what, error)?;
                std::thread::sleep(pause);
                self.begin_again()
            }
            // It does not understand a body here; every registry understands what docker sends.
            400 | 405 | 411 | 415 | 501 if self.monolithic && !is_about_content(&error) => {
                inner.reporter.debug(format!("{what}: not in one piece: {error}"));
                self.monolithic = false;
                self.begin_again()
            }
            _ => {
                inner.runtime.wait(backoff.wait(what, error))?;
                // May be all that it means by it is that it does not know this way.
                self.monolithic &= status != 500;
                self.realign()
            }
        }
    }

    fn renew(&mut self, response: &Response) -> Result<bool, RegistryError> {
        let inner = self.inner;
        let call = self.call(Method::PUT);
        let mut scopes = call.scopes();
        let mut authorization = std::mem::take(&mut self.authorization);
        let renewed = inner.runtime.wait(inner.renewed(
            self.endpoint,
            &call,
            response,
            &mut scopes,
            &mut authorization,
        ));
        self.authorization = authorization;
        renewed
    }

    fn smaller_chunks(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let next = match self.chunk {
            Some(chunk) if chunk <= SMALLEST_CHUNK_BYTES => return Err(error),
            Some(chunk) => chunk / 2,
            None if self.blob.size_bytes <= SMALLEST_CHUNK_BYTES => return Err(error),
            None => FIRST_CHUNK_BYTES.min(self.blob.size_bytes / 2),
        };
        let next = next.max(SMALLEST_CHUNK_BYTES).max(self.least_chunk_bytes);
        if self.chunk.is_some_and(|chunk| chunk <= next) {
            // Smaller ones are not allowed, and these are too large.
            return Err(error);
        }
        self.chunk = Some(next);
        self.inner.reporter.debug(format!("{}: in chunks of {next} bytes: {error}", self.what()));
        self.realign()
    }

    /// Asks the registry how much it has, and goes on from there; from the start in a new session if it
    /// does not say.
    fn realign(&mut self) -> Result<(), RegistryError> {
        let inner = self.inner;
        let call = self.call(Method::GET);
        if !self.endpoint.is_home(&self.session) {
            return self.begin_again();
        }
        match inner.runtime.wait(inner.call_once(self.endpoint, &call, &[204, 200, 202])) {
            Ok(response) => match range_end(response.headers()) {
                // `0-0` means one byte to some and none to others.
                Some(end) if end > 1 && end <= self.blob.size_bytes => {
                    self.follow_location(response.headers())?;
                    self.offset = end;
                    Ok(())
                }
                _ => self.begin_again(),
            },
            Err(error) => {
                inner.reporter.debug(format!("{}: the session is lost: {}", self.what(), error.full()));
                self.begin_again()
            }
        }
    }

    fn begin_again(&mut self) -> Result<(), RegistryError> {
        self.offset = 0;
        let session = self.inner.runtime.wait(self.inner.begin(self.endpoint, self.repository))?;
        self.least_chunk_bytes = session.least_chunk_bytes;
        self.session = session.url;
        Ok(())
    }
}

/// How a request of an upload failed.
enum Failure {
    /// No answer.
    Error(RegistryError),
    /// An answer that is not success.
    Answer(Box<Response>),
    /// Nothing to be tried again.
    Fatal(RegistryError),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        if error.is_transient() { Self::Error(error) } else { Self::Fatal(error) }
    }
}

/// Whether a refusal is about what was sent, not about how.
fn is_about_content(error: &RegistryError) -> bool {
    let RegistryError::Refused { answer, .. } = error else { return false };
    ["DIGEST_INVALID", "NAME_INVALID", "SIZE_INVALID", "DENIED"].iter().any(|code| answer.has_code(code))
}

/// Reads `Range: 0-9` (also `bytes=0-9`): how many bytes that is.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let (start, end) = text.split_once('-')?;
    (start.trim() == "0").then(|| end.trim().parse::<u64>().ok())?.map(|end| end.saturating_add(1))
}

fn skip(reader: &mut dyn Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_both_forms() {
        let end = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            range_end(&headers)
        };
        assert_eq!(end("0-9"), Some(10));
        assert_eq!(end("bytes=0-9"), Some(10));
        assert_eq!(end("0-0"), Some(1));
        assert_eq!(end("5-9"), None);
        assert_eq!(end("x"), None);
        assert_eq!(range_end(&HeaderMap::new()), None);
    }
}
