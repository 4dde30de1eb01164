//! The client behind [`Fetch`](super::Fetch).

use std::time::Duration;

use super::{Fetch, Fetched};
use crate::context::ContextError;
use crate::event::Reporter;

/// Which proxies requests go through, as in `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` URLs.
    pub http: Option<String>,
    /// For `https://` URLs.
    pub https: Option<String>,
    /// Hosts that are asked directly.
    pub no_proxy: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// What the client is told.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Proxies.
    pub proxies: Proxies,
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
pub struct HttpFetch {}

impl HttpFetch {
    /// Sets a client up.
    pub fn new(options: HttpOptions, reporter: Reporter) -> Result<Self, ContextError> {
        let _ = (options, reporter);
        todo!()
    }
}

impl Fetch for HttpFetch {
    fn get(&self, url: &str, headers: &[(String, String)]) -> Result<Fetched, ContextError> {
        let _ = (url, headers);
        todo!()
    }
}
