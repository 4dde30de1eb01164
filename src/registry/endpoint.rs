//! A registry as we reach it: its URL, what it asks for, and the tokens it gave.
//!
//! Which scheme: HTTPS, always, except: a loopback registry is spoken to in plain HTTP if that is what it speaks,
//! unless certificates are configured for it (docker treats loopback as insecure too); an insecure registry is tried
//! with HTTPS whatever its certificate, then with HTTP.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Method;
use reqwest::header::WWW_AUTHENTICATE;
use url::Url;

use super::Inner;
use super::challenge::{self, Challenge};
use super::config::{HostConfig, Side, Waivers};
use super::error::{RegistryError, Unreachable};
use super::retry::Backoff;
use super::token::Token;

/// One registry.
pub(super) struct Endpoint {
    /// Its name in references: `docker.io`.
    pub(super) registry: String,
    /// What is configured for it.
    pub(super) settings: HostConfig,
    /// Which way images go here.
    pub(super) side: Side,
    contact: tokio::sync::OnceCell<Contact>,
    reached: tokio::sync::OnceCell<Result<(), Arc<RegistryError>>>,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<BTreeSet<String>, Token>>,
    /// Held while a token is fetched, so that ten layers do not fetch ten.
    pub(super) fetching: tokio::sync::Mutex<()>,
    /// Whether it was told that a credential is kept from its token service.
    told_withheld: AtomicBool,
}

/// What the first request to a registry showed.
struct Contact {
    base: Url,
    /// Whether `/v2/` was answered as registries answer it.
    like_a_registry: bool,
}

impl Endpoint {
    pub(super) fn new(registry: &str, settings: HostConfig, side: Side) -> Self {
        Self {
            registry: registry.to_owned(),
            settings,
            side,
            contact: tokio::sync::OnceCell::new(),
            reached: tokio::sync::OnceCell::new(),
            challenge: Mutex::default(),
            tokens: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            told_withheld: AtomicBool::new(false),
        }
    }

    /// Returns the host that serves the registry's API.
    pub(super) fn api_host(&self) -> &str {
        if self.registry == "docker.io" { "registry-1.docker.io" } else { &self.registry }
    }

    /// Returns the URL of `path` below `/v2/`; the first call contacts the registry.
    pub(super) async fn url(&self, inner: &Inner, path: &str) -> Result<Url, RegistryError> {
        let contact = self.contact(inner).await?;
        contact.base.join(path).map_err(|error| RegistryError::Protocol {
            host: self.registry.clone(),
            what: path.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Returns whether the registry's first answer looked like one; `true` before it was contacted.
    pub(super) fn looks_like_a_registry(&self) -> bool {
        self.contact.get().is_none_or(|contact| contact.like_a_registry)
    }

    /// Returns whether `url` is on this registry's own host: only there do its credentials go.
    pub(super) fn is_home(&self, url: &Url) -> bool {
        self.contact.get().is_some_and(|contact| contact.base.origin() == url.origin())
    }

    /// Returns whether the registry is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.contact.get().is_some_and(|contact| contact.base.scheme() == "http")
    }

    /// Brings a `Location` on this registry's host back to the scheme and port we reach it by: registries
    /// behind a TLS proxy that does not say so hand out `http://` URLs.
    pub(super) fn repair(&self, mut url: Url) -> Url {
        if let Some(contact) = self.contact.get()
            && contact.base.scheme() == "https"
            && url.scheme() == "http"
            && url.host_str() == contact.base.host_str()
            && matches!(url.port(), None | Some(80))
        {
            // Both can only fail for URLs without a host.
            let _ = url.set_scheme("https");
            let _ = url.set_port(contact.base.port());
        }
        url
    }

    /// Returns what the registry asks for, as far as it is known.
    pub(super) fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what a response asks for.
    pub(super) fn learn(&self, headers: &reqwest::header::HeaderMap) -> Option<Challenge> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenge::select(texts)?;
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.clone());
        Some(challenge)
    }

    /// Notes that a credential is kept from the token service; `true` the first time.
    pub(super) fn note_withheld(&self) -> bool {
        !self.told_withheld.swap(true, Ordering::Relaxed)
    }

    /// Returns a token for exactly these scopes that is still good.
    pub(super) fn token(&self, scopes: &BTreeSet<String>) -> Option<Token> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(scopes).filter(|token| token.is_fresh()).cloned()
    }

    pub(super) fn keep_token(&self, scopes: BTreeSet<String>, token: Token) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(scopes, token);
    }

    /// Drops the token for these scopes if it is still the one that was refused.
    pub(super) fn drop_token(&self, scopes: &BTreeSet<String>, refused: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(scopes).is_some_and(|token| token.value.reveal() == refused) {
            tokens.remove(scopes);
        }
    }

    /// Contacts the registry, if nobody has; one that could not be reached then is not tried again.
    pub(super) async fn reach(&self, inner: &Inner) -> Result<(), Arc<RegistryError>> {
        let contact = || async { self.contact(inner).await.map(drop).map_err(Arc::new) };
        self.reached.get_or_init(contact).await.clone()
    }

    async fn contact(&self, inner: &Inner) -> Result<&Contact, RegistryError> {
        self.contact
            .get_or_try_init(|| async {
                let schemes = self.schemes();
                let last = schemes.len() - 1;
                for scheme in &schemes[..last] {
                    match self.ping(inner, scheme).await {
                        Ok(contact) => return Ok(contact),
                        Err(error) => inner.reporter.debug(format!(
                            "`{}` is insecure; not {scheme}: {}",
                            self.registry,
                            error.full()
                        )),
                    }
                }
                let mut backoff = Backoff::new(&inner.retries, &inner.reporter);
                loop {
                    match self.ping(inner, schemes[last]).await {
                        // On this machine HTTP comes first; what does not answer it like a registry may be one
                        // that speaks TLS.
                        Ok(contact) if schemes == ["http"] && !contact.like_a_registry => {
                            return Ok(self.ping(inner, "https").await.unwrap_or(contact));
                        }
                        Ok(contact) => return Ok(contact),
                        Err(error) => {
                            let waited = backoff.wait(&self.registry, error).await;
                            waited.map_err(|error| self.suspect_certificate(schemes[last], error))?;
                        }
                    }
                }
            })
            .await
    }

    /// A server that wants a client certificate may cut the connection before its alert is read (TLS 1.3
    /// asks after the client has begun to speak).
    fn suspect_certificate(&self, scheme: &str, error: RegistryError) -> RegistryError {
        let cut = matches!(error.last(), RegistryError::Unreachable { reason: Unreachable::Cut, .. });
        if !cut || scheme != "https" || self.settings.client_certificate.is_some() {
            return error;
        }
        let reason = "it cuts the connection right after the handshake".to_owned();
        let hint = format!(
            "if it wants a client certificate, pass one with `--registry-client-cert {}=CERT,KEY`",
            self.registry
        );
        RegistryError::Tls { host: self.registry.clone(), reason, hint: Some(hint) }
    }

    fn schemes(&self) -> &'static [&'static str] {
        let loopback = is_loopback(&self.registry);
        let certificates =
            !self.settings.authorities.is_empty() || self.settings.client_certificate.is_some();
        let Waivers { insecure, skip_tls_verify } = self.settings.waived;
        match (loopback, insecure.holds(self.side)) {
            (true, _) if !certificates && !skip_tls_verify.holds(self.side) => &["http"],
            (_, true) => &["https", "http"],
            (true, false) if !certificates => &["https", "http"],
            _ => &["https"],
        }
    }

    /// Asks for `/v2/` and notes what the registry wants.
    async fn ping(&self, inner: &Inner, scheme: &str) -> Result<Contact, RegistryError> {
        let text = format!("{scheme}://{}/v2/", self.api_host());
        let base = Url::parse(&text).map_err(|error| RegistryError::Config {
            what: format!("the registry's name `{}`", self.registry),
            reason: error.to_string(),
        })?;
        let client = self.client_speaking(inner, scheme)?;
        let request = client.request(Method::GET, base.clone());
        let response = inner.execute(request, &base).await?;
        let status = response.status().as_u16();
        let version = response.headers().contains_key("docker-distribution-api-version");
        let challenge = if status == 401 { self.learn(response.headers()) } else { None };
        let like_a_registry = version || status == 200 || challenge.is_some();
        Ok(Contact { base, like_a_registry })
    }

    /// Returns the HTTP client with this registry's settings, as it is reached.
    pub(super) fn client(&self, inner: &Inner) -> Result<reqwest::Client, RegistryError> {
        // Before the first answer it is not asked for: that comes by `ping`.
        self.client_speaking(inner, if self.is_plain() { "http" } else { "https" })
    }

    /// Returns the HTTP client with this registry's settings, for URLs of a scheme.
    pub(super) fn client_speaking(
        &self,
        inner: &Inner,
        scheme: &str,
    ) -> Result<reqwest::Client, RegistryError> {
        if scheme == "http" && self.schemes() == ["http"] {
            return inner.transport.plain_client(&inner.config, self.api_host());
        }
        inner.transport.client(&inner.config, self.api_host(), &self.settings, self.side)
    }
}

/// Returns whether `host[:port]` is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => IpAddr::V6(ip).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Sides;
    use super::*;

    #[test]
    fn loopback_is_recognised() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "r.localhost:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.com", "127.0.0.1.nip.io", "r.io", "10.0.0.1", "[::2]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn schemes_follow_the_settings() {
        let schemes =
            |registry: &str, settings: HostConfig| Endpoint::new(registry, settings, Side::Pull).schemes();
        let authority = || HostConfig { authorities: vec![b"x".to_vec()], ..HostConfig::default() };
        let waived = |insecure, skip_tls_verify| HostConfig {
            waived: Waivers { insecure, skip_tls_verify },
            ..HostConfig::default()
        };
        let insecure = || waived(Sides::BOTH, Sides::default());
        let unverified = || waived(Sides::default(), Sides::BOTH);
        assert_eq!(schemes("r.io", HostConfig::default()), ["https"]);
        assert_eq!(schemes("r.io", insecure()), ["https", "http"]);
        assert_eq!(schemes("r.io", unverified()), ["https"]);
        assert_eq!(schemes("localhost:5000", HostConfig::default()), ["http"]);
        assert_eq!(schemes("localhost:5000", insecure()), ["http"]);
        assert_eq!(schemes("localhost:5000", authority()), ["https"]);
        assert_eq!(schemes("localhost:5000", unverified()), ["https", "http"]);
        // What is said of pushes does not hold for pulls.
        assert_eq!(schemes("r.io", waived(Sides::PUSH, Sides::PUSH)), ["https"]);
        assert_eq!(schemes("r.io", waived(Sides::PULL, Sides::default())), ["https", "http"]);
    }
}
