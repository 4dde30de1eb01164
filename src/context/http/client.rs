//! The client behind [`Fetch`](super::Fetch).

use std::error::Error as _;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderMap, LAST_MODIFIED, RETRY_AFTER};
use reqwest::{NoProxy, Proxy, Response, StatusCode};
use rustix::io::Errno;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::runtime::Runtime;
use url::Url;

use super::answer::{disposition_name, parse_http_date};
use super::{Fetch, Fetched};
use crate::context::ContextError;
use crate::context::object::{self, ObjectSource};
use crate::dns::{Resolver, SharedResolver};
use crate::event::{Reporter, Transfer, TransferKind};
use crate::stream::Pace;
use crate::text::without_credentials;
use crate::threads;

/// No pause is longer, whatever a server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Which proxies requests go through, as in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` URLs.
    pub http: Option<String>,
    /// For `https://` URLs.
    pub https: Option<String>,
    /// Hosts that are asked directly. Loopback hosts always are.
    pub no_proxy: String,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// What the client is told.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Proxies.
    pub proxies: Proxies,
    /// Names to addresses.
    pub resolver: Arc<Resolver>,
    /// Certificate authorities trusted beside the built-in public ones, PEM bundles.
    pub extra_authorities: Vec<Vec<u8>>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Time a connection may take to be established.
    pub connect_timeout: Duration,
    /// Time without a single byte moving after which a download counts as cut.
    pub stall_timeout: Duration,
    /// How often a request is repeated after its first failure.
    pub retries: u32,
    /// The first pause before a repetition; each further one doubles.
    pub first_pause: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            proxies: Proxies::default(),
            resolver: Arc::new(Resolver::new(None, None)),
            extra_authorities: Vec::new(),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            retries: 4,
            first_pause: Duration::from_millis(500),
        }
    }
}

/// Downloads with HTTP/1.1 and HTTP/2, through proxies, following redirects, with bounded retries.
///
/// For plain threads: its methods block.
///
/// Made ready by the first download: most builds have none, and reading all certificate authorities takes longer than a
/// small build.
pub struct HttpFetch {
    options: HttpOptions,
    ready: Mutex<Option<Ready>>,
    reporter: Reporter,
}

/// The client and what it runs on.
#[derive(Clone)]
struct Ready {
    client: reqwest::Client,
    runtime: Arc<Runtime>,
}

impl Ready {
    fn new(options: &HttpOptions) -> Result<Self, ContextError> {
        let setup = |reason: String| ContextError::Client { reason };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&options.extra_authorities)?)
            .dns_resolver(SharedResolver(Arc::clone(&options.resolver)))
            .user_agent(options.user_agent.clone())
            .referer(false)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.stall_timeout)
            .no_proxy();
        for proxy in proxies(&options.proxies)? {
            builder = builder.proxy(proxy);
        }
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).thread_name("download").enable_all();
        // It panics where its thread is refused.
        let runtime = threads::refusable("a thread for downloads", Errno::AGAIN, || runtime.build())?
            .map_err(|error| setup(error.to_string()))?;
        Ok(Self {
            client: builder.build().map_err(|error| setup(causes(error)))?,
            runtime: Arc::new(runtime),
        })
    }
}

impl HttpFetch {
    /// Sets a client up. Nothing is contacted yet, and bad options show when something is.
    pub fn new(options: HttpOptions, reporter: Reporter) -> Self {
        Self { options, ready: Mutex::default(), reporter }
    }

    fn ready(&self) -> Result<Ready, ContextError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = &*ready {
            return Ok(ready.clone());
        }
        let made = Ready::new(&self.options)?;
        *ready = Some(made.clone());
        Ok(made)
    }

    /// Sends a request again while that may help.
    fn send(&self, runtime: &Runtime, request: &Attempt<'_>) -> Result<Response, ContextError> {
        for attempt in 0.. {
            // Timers are armed when the request is made, which takes the runtime.
            let (error, asked) = match runtime.block_on(async { (request.make)().send().await }) {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status();
                    let error = (request.refused)(status.as_u16());
                    if !is_temporary(status) {
                        return Err(error);
                    }
                    (error, retry_after(response.headers()))
                }
                Err(error) => {
                    // The deadline is what the user would wait: not several times that.
                    let is_silent = error.is_timeout() && !error.is_connect();
                    let is_final = error.is_builder() || error.is_redirect() || is_silent;
                    let error = (request.failed)(causes(error));
                    if is_final {
                        return Err(error);
                    }
                    (error, None)
                }
            };
            if attempt == self.options.retries {
                return Err(error);
            }
            let pause =
                asked.unwrap_or(self.options.first_pause * 2_u32.saturating_pow(attempt)).min(LONGEST_PAUSE);
            self.reporter.warning(format!(
                "{error}; trying again in {pause:?} ({} of {})",
                attempt + 1,
                self.options.retries
            ));
            std::thread::sleep(pause);
        }
        unreachable!("the last attempt returns")
    }
}

/// A request that can be made several times, and what its failures are called.
struct Attempt<'a> {
    make: &'a dyn Fn() -> reqwest::RequestBuilder,
    refused: &'a dyn Fn(u16) -> ContextError,
    failed: &'a dyn Fn(String) -> ContextError,
}

/// Understands a URL that is asked by HTTP.
fn http_url(url: &str) -> Result<Url, ContextError> {
    let bad = |reason: String| ContextError::Url { url: without_credentials(url), reason };
    let parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(parsed),
        other => Err(bad(format!("expected http or https, found `{other}`"))),
    }
}

impl Fetch for HttpFetch {
    fn get(&self, url: &str, headers: &[(String, String)]) -> Result<Fetched, ContextError> {
        let bad = |reason: String| ContextError::Url { url: without_credentials(url), reason };
        let parsed = http_url(url)?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName =
                name.parse().map_err(|_| bad(format!("`{name}` is no name of a header")))?;
            let mut value: reqwest::header::HeaderValue =
                value.parse().map_err(|_| bad(format!("the value of the header `{name}` is malformed")))?;
            value.set_sensitive(true);
            map.append(name, value);
        }
        let shown = without_credentials(parsed.as_str());
        let Ready { client, runtime } = self.ready()?;
        let request = Attempt {
            make: &|| client.get(parsed.clone()).headers(map.clone()),
            refused: &|status| ContextError::Status { url: shown.clone(), status },
            failed: &|reason| ContextError::Download { url: shown.clone(), reason },
        };
        let response = self.send(&runtime, &request)?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let last_modified = text(LAST_MODIFIED).and_then(parse_http_date);
        let content_type = text(CONTENT_TYPE).map(str::to_owned);
        let file_name = text(CONTENT_DISPOSITION).and_then(disposition_name);
        let size_bytes = response.content_length();
        let final_url = response.url().to_string();
        let transfer = self.reporter.transfer(TransferKind::Fetch, without_credentials(url), size_bytes);
        let body = Body { response, runtime, chunk: bytes::Bytes::new() };
        let body = Shown { body, transfer: Some(transfer), pace: Pace::new(self.options.stall_timeout) };
        Ok(Fetched { reader: Box::new(body), final_url, last_modified, content_type, file_name, size_bytes })
    }

    fn put(&self, url: &str, content_type: &'static str, body: &[u8]) -> Result<(), ContextError> {
        let parsed = http_url(url)?;
        // A signed URL's signature is in its query.
        let shown = without_credentials(parsed.as_str().split('?').next().unwrap_or_default());
        let Ready { client, runtime } = self.ready()?;
        let request = Attempt {
            make: &|| client.put(parsed.clone()).header(CONTENT_TYPE, content_type).body(body.to_vec()),
            refused: &|status| ContextError::Upload {
                url: shown.clone(),
                reason: format!("invalid response status {status}"),
            },
            failed: &|reason| ContextError::Upload { url: shown.clone(), reason },
        };
        self.send(&runtime, &request)?;
        Ok(())
    }

    fn object(&self, source: &ObjectSource) -> Result<Fetched, ContextError> {
        let Ready { client, runtime } = self.ready()?;
        let opened = object::open(source, &client, &runtime, self.options.retries)?;
        let size_bytes = Some(opened.size_bytes);
        let transfer = self.reporter.transfer(TransferKind::Fetch, source.url.clone(), size_bytes);
        Ok(Fetched {
            reader: Box::new(Shown {
                body: opened.reader,
                transfer: Some(transfer),
                pace: Pace::new(self.options.stall_timeout),
            }),
            final_url: source.url.clone(),
            last_modified: opened.last_modified,
            content_type: None,
            file_name: None,
            size_bytes,
        })
    }
}

/// A body whose progress is shown, and which has to make some.
struct Shown<R> {
    body: R,
    transfer: Option<Transfer>,
    pace: Pace,
}

impl<R: Read> Read for Shown<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let count = self.body.read(buffer)?;
        if !self.pace.goes_on(began.elapsed(), count as u64) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the transfer stalled"));
        }
        if count == 0 && !buffer.is_empty() {
            if let Some(transfer) = self.transfer.take() {
                transfer.finish("done");
            }
        } else if let Some(transfer) = &mut self.transfer {
            transfer.advance(count as u64);
        }
        Ok(count)
    }
}

/// A body, read as it arrives.
struct Body {
    response: Response,
    runtime: Arc<Runtime>,
    chunk: bytes::Bytes,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !buffer.is_empty() {
            match self.runtime.block_on(async { self.response.chunk().await }) {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) if error.is_timeout() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, causes(error)));
                }
                Err(error) => return Err(io::Error::other(causes(error))),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Trusts the public authorities, built in, and those of the user: no certificates on disk are needed.
fn tls(extra_authorities: &[Vec<u8>]) -> Result<rustls::ClientConfig, ContextError> {
    let setup = |reason: String| ContextError::Client { reason };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    for bundle in extra_authorities {
        let known = roots.len();
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            let certificate =
                certificate.map_err(|error| setup(format!("certificate authority: {error}")))?;
            roots.add(certificate).map_err(|error| setup(format!("certificate authority: {error}")))?;
        }
        if roots.len() == known {
            return Err(setup("there is no certificate in a bundle of certificate authorities".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn proxies(proxies: &Proxies) -> Result<Vec<Proxy>, ContextError> {
    // Addresses of a machine's own services in the clouds (credentials for object stores) are never a proxy's.
    let direct =
        format!("localhost,127.0.0.0/8,::1,169.254.0.0/16,metadata.google.internal,{}", proxies.no_proxy);
    let mut made = Vec::new();
    for (name, text, make) in [
        ("HTTP_PROXY", &proxies.http, Proxy::http as fn(Url) -> reqwest::Result<Proxy>),
        ("HTTPS_PROXY", &proxies.https, Proxy::https as fn(Url) -> reqwest::Result<Proxy>),
    ] {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
        let bad = |reason: String| ContextError::Client { reason: format!("{name}: {reason}") };
        // `proxy:3128` is a usual way to write it.
        let text = if text.contains("://") { text.clone() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("expected an http or https proxy, found `{}`", url.scheme())));
        }
        let proxy = make(url).map_err(|error| bad(causes(error)))?;
        made.push(proxy.no_proxy(NoProxy::from_string(&direct)));
    }
    Ok(made)
}

/// Says what went wrong in one line. URLs are left out: one behind a redirect may hold a signature.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
