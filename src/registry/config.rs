//! What the client is told: hosts, certificates, mirrors, retries, proxies. Values only.
//!
//! The library reads neither the environment nor configuration files: the command line reads them and
//! passes what it found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::credential::CredentialSources;
use super::mirror::MirrorRules;
use super::secret::Secret;

/// Everything a [`Client`](super::Client) needs to know.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where credentials come from.
    pub credentials: CredentialSources,
    /// What is special about a registry, by `host[:port]`.
    pub hosts: BTreeMap<String, HostConfig>,
    /// What holds for every registry that `hosts` does not name (kaniko's `--insecure`,
    /// `--skip-tls-verify`).
    pub default_host: HostConfig,
    /// Certificate authorities trusted for every host, PEM bundles, beside the built-in public ones.
    pub extra_authorities: Vec<Vec<u8>>,
    /// Where else images may be pulled from.
    pub mirrors: MirrorRules,
    /// How often and how long requests are repeated.
    pub retries: Retries,
    /// Which proxies requests go through.
    pub proxies: Proxies,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Contents of `/etc/resolv.conf`, if it exists: the name servers to ask.
    pub resolv_conf: Option<Vec<u8>>,
    /// Contents of `/etc/hosts`, if it exists.
    pub hosts_file: Option<Vec<u8>>,
    /// Whether HTTP/2 may be spoken.
    pub http2: bool,
    /// Whether no connection may be opened at all.
    pub offline: bool,
}

/// What is special about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Whether plain HTTP is used (after HTTPS was tried in vain).
    pub insecure: bool,
    /// Whether any certificate is accepted.
    pub skip_tls_verify: bool,
    /// Certificate authorities trusted for this host alone, PEM bundles.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate shown to this host.
    pub client_certificate: Option<ClientCertificate>,
}

/// A client certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain, PEM.
    pub certificate: Vec<u8>,
    /// The private key, PEM.
    pub key: Secret,
}

/// How often and how long requests are repeated; each repetition is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// How many times a request is repeated after its first failure.
    pub count: u32,
    /// The first pause; each further one doubles.
    pub first_pause: Duration,
    /// No pause is longer, except as `Retry-After` asks.
    pub longest_pause: Duration,
    /// How much of a `Retry-After` is honoured.
    pub longest_retry_after: Duration,
    /// Time a connection may take to be established.
    pub connect_timeout: Duration,
    /// Time without a single byte moving, or without an answer, after which a transfer counts as cut.
    pub stall_timeout: Duration,
    /// Time to wait for the answer that ends an upload: registries hash the whole blob first.
    pub answer_timeout: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            count: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
            longest_retry_after: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(300),
        }
    }
}

/// Which proxies requests go through (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` URLs.
    pub http: Option<Secret>,
    /// For `https://` URLs.
    pub https: Option<Secret>,
    /// Hosts that are asked directly, as `NO_PROXY` is written. Loopback hosts always are.
    pub no_proxy: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            credentials: CredentialSources::default(),
            hosts: BTreeMap::new(),
            default_host: HostConfig::default(),
            extra_authorities: Vec::new(),
            mirrors: MirrorRules::default(),
            retries: Retries::default(),
            proxies: Proxies::default(),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            resolv_conf: None,
            hosts_file: None,
            http2: true,
            offline: false,
        }
    }
}

impl RegistryConfig {
    /// Returns what is special about `host` (`name[:port]`).
    pub fn host(&self, host: &str) -> &HostConfig {
        self.hosts.get(host).unwrap_or(&self.default_host)
    }

    /// Returns the entry for `host`, made from the defaults if there is none: for the command line's flags.
    pub fn host_mut(&mut self, host: &str) -> &mut HostConfig {
        let default = self.default_host.clone();
        self.hosts.entry(host.to_owned()).or_insert(default)
    }

    /// Marks `hosts` as insecure.
    pub fn allow_insecure(&mut self, hosts: &BTreeSet<String>) {
        for host in hosts {
            self.host_mut(host).insecure = true;
        }
    }
}
