//! What the client is told: hosts, certificates, mirrors, retries, proxies. Values only.
//!
//! The library reads neither the environment nor configuration files: the command line reads them and
//! passes what it found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::credential::CredentialSources;
use super::mirror::MirrorRules;
use super::secret::Secret;

/// Everything a [`Client`](super::Client) needs to know.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where credentials come from.
    pub credentials: CredentialSources,
    /// What is special about a registry, by `host[:port]`; of `*.example.com`, what is waived counts for
    /// every host below.
    pub hosts: BTreeMap<String, HostConfig>,
    /// What is waived for every registry, named in `hosts` or not (kaniko's `--insecure`,
    /// `--skip-tls-verify-pull`).
    pub waived: Waivers,
    /// Certificate authorities trusted for every host, PEM bundles, beside the built-in public ones.
    pub extra_authorities: Vec<Vec<u8>>,
    /// Where else images may be pulled from.
    pub mirrors: MirrorRules,
    /// How often and how long requests are repeated.
    pub retries: Retries,
    /// The files with the keys of client certificates, shown to a host or not.
    pub key_files: Vec<PathBuf>,
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
    /// The checks that are waived for it.
    pub waived: Waivers,
    /// Certificate authorities trusted for this host alone, PEM bundles.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate shown to this host.
    pub client_certificate: Option<ClientCertificate>,
    /// Hosts whose token services may have this registry's credential, beside those of its own domain.
    pub token_services: Vec<String>,
}

/// Which way an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// From the registry.
    Pull,
    /// To the registry.
    Push,
}

/// Which checks of a registry's connection are waived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waivers {
    /// When plain HTTP is used (after HTTPS was tried in vain, whatever its certificate).
    pub insecure: Sides,
    /// When any certificate is accepted.
    pub skip_tls_verify: Sides,
}

/// Pulls, pushes, both or neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sides {
    /// Whether pulls are meant.
    pub pull: bool,
    /// Whether pushes are meant.
    pub push: bool,
}

impl Sides {
    /// Pulls and pushes.
    pub const BOTH: Self = Self { pull: true, push: true };
    /// Pulls alone.
    pub const PULL: Self = Self { pull: true, push: false };
    /// Pushes alone.
    pub const PUSH: Self = Self { pull: false, push: true };

    /// Returns whether `side` is meant.
    pub fn holds(self, side: Side) -> bool {
        match side {
            Side::Pull => self.pull,
            Side::Push => self.push,
        }
    }
}

impl std::ops::BitOrAssign for Sides {
    fn bitor_assign(&mut self, other: Self) {
        self.pull |= other.pull;
        self.push |= other.push;
    }
}

impl std::ops::BitOrAssign for Waivers {
    fn bitor_assign(&mut self, other: Self) {
        self.insecure |= other.insecure;
        self.skip_tls_verify |= other.skip_tls_verify;
    }
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

impl Retries {
    /// Returns those for what can be done without, a cache or a mirror: one repetition, soon or not at all.
    pub(super) fn few(&self) -> Self {
        Self {
            count: self.count.min(1),
            first_pause: self.first_pause.min(Duration::from_millis(500)),
            longest_retry_after: self.longest_retry_after.min(Duration::from_secs(2)),
            ..self.clone()
        }
    }

    /// Sets how long a silent server is waited for: `deadline` for an answer and between two bytes. The answer that ends
    /// an upload may take five times that: registries hash the whole blob first.
    pub fn wait_for(&mut self, deadline: Duration) {
        self.stall_timeout = deadline;
        self.connect_timeout = deadline.min(Self::default().connect_timeout);
        self.answer_timeout = deadline.saturating_mul(5);
    }
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
            waived: Waivers::default(),
            extra_authorities: Vec::new(),
            mirrors: MirrorRules::default(),
            retries: Retries::default(),
            key_files: Vec::new(),
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
    /// Returns what is special about `host` (`name[:port]`), with what is waived for all.
    pub fn host(&self, host: &str) -> HostConfig {
        let mut settings = self.hosts.get(host).cloned().unwrap_or_default();
        settings.waived |= self.waived;
        for (name, below) in &self.hosts {
            if name.strip_prefix('*').is_some_and(|domain| domain.starts_with('.') && host.ends_with(domain))
            {
                settings.waived |= below.waived;
            }
        }
        settings
    }

    /// Returns the entry for `host`, to be changed.
    pub fn host_mut(&mut self, host: &str) -> &mut HostConfig {
        self.hosts.entry(host.to_owned()).or_default()
    }
}
