//! Connections: one HTTP client for each set of TLS settings, and failures in our own words.
//!
//! Redirects are not followed here: who follows one decides what may be sent along.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{NoProxy, Proxy};
use url::Url;

use super::config::{HostConfig, RegistryConfig, Side, Waivers};
use super::error::{RegistryError, Unreachable};
use super::tls;
use crate::dns::{NameError, Resolver, SharedResolver};
use crate::event::with_causes;

/// How much of a response one HTTP/2 stream may send ahead of its reader: enough for 1 Gbit/s at 30 ms.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Hands out HTTP clients.
pub(super) struct Transport {
    resolver: Arc<Resolver>,
    clients: Mutex<HashMap<Settings, reqwest::Client>>,
}

/// What makes two hosts need two clients.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Settings {
    /// None of its own.
    Shared { skip_tls_verify: bool },
    /// No TLS at all.
    Plain,
    /// Certificates for this host.
    Own { host: String, skip_tls_verify: bool },
}

impl Transport {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self {
            resolver: Arc::new(Resolver::new(config.resolv_conf.as_deref(), config.hosts_file.as_deref())),
            clients: Mutex::default(),
        }
    }

    /// Returns the client for connections with the settings of `host`.
    pub(super) fn client(
        &self,
        config: &RegistryConfig,
        host: &str,
        settings: &HostConfig,
        side: Side,
    ) -> Result<reqwest::Client, RegistryError> {
        if config.offline {
            return Err(RegistryError::Offline { host: host.to_owned() });
        }
        let host = host.to_owned();
        let Waivers { insecure, skip_tls_verify } = settings.waived;
        let skip_tls_verify = skip_tls_verify.holds(side) || insecure.holds(side);
        let key = if settings.authorities.is_empty() && settings.client_certificate.is_none() {
            Settings::Shared { skip_tls_verify }
        } else {
            Settings::Own { host: host.clone(), skip_tls_verify }
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(config, &host, settings, skip_tls_verify)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Returns the client for a host that is only spoken to without TLS: reading hundreds of authorities' certificates
    /// for it would cost more than its requests.
    pub(super) fn plain_client(
        &self,
        config: &RegistryConfig,
        host: &str,
    ) -> Result<reqwest::Client, RegistryError> {
        if config.offline {
            return Err(RegistryError::Offline { host: host.to_owned() });
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&Settings::Plain) {
            return Ok(client.clone());
        }
        let client = self.build_with(config, host, tls::trusting_nobody())?;
        clients.insert(Settings::Plain, client.clone());
        Ok(client)
    }

    fn build(
        &self,
        config: &RegistryConfig,
        host: &str,
        settings: &HostConfig,
        skip_tls_verify: bool,
    ) -> Result<reqwest::Client, RegistryError> {
        let trust = tls::Trust { extra_authorities: &config.extra_authorities, skip_tls_verify };
        let tls = tls::client_config(host, settings, &trust, config.http2)?;
        self.build_with(config, host, tls)
    }

    fn build_with(
        &self,
        config: &RegistryConfig,
        host: &str,
        tls: rustls::ClientConfig,
    ) -> Result<reqwest::Client, RegistryError> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(SharedResolver(self.resolver.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(config.user_agent.clone())
            .connect_timeout(config.retries.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .no_proxy();
        for proxy in proxies(config)? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| RegistryError::Config {
            what: format!("the HTTP client for `{host}`"),
            reason: with_causes(&error),
        })
    }
}

fn proxies(config: &RegistryConfig) -> Result<Vec<Proxy>, RegistryError> {
    let settings = &config.proxies;
    // Loopback is never asked through a proxy, as in Go's programs, where people know it from; nor are the
    // metadata services of clouds, which are this machine's own.
    let direct = format!("localhost,127.0.0.0/8,::1,169.254.0.0/16,{}", settings.no_proxy);
    let mut proxies = Vec::new();
    for (name, url, make) in [
        ("HTTP_PROXY", &settings.http, Proxy::http as fn(Url) -> reqwest::Result<Proxy>),
        ("HTTPS_PROXY", &settings.https, Proxy::https as fn(Url) -> reqwest::Result<Proxy>),
    ] {
        let Some(url) = url.as_ref().filter(|url| !url.is_empty()) else { continue };
        let bad = |reason: String| RegistryError::Config { what: name.to_owned(), reason };
        // `proxy:3128` is a usual way to write it.
        let text = url.reveal();
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| bad(format!("not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("expected an http or https proxy, found `{}`", url.scheme())));
        }
        let proxy = make(url).map_err(|error| bad(with_causes(&error.without_url())))?;
        proxies.push(proxy.no_proxy(NoProxy::from_string(&direct)));
    }
    Ok(proxies)
}

/// Returns `host[:port]` of a URL, as registries are named.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Returns a URL without what may be secret in it: user, query and fragment.
pub(super) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_of(url), url.path())
}

/// Says what kept a request from being answered. The URL (which may hold a signature) is left out.
pub(super) fn explain(url: &Url, error: reqwest::Error, connect_timeout: Duration) -> RegistryError {
    let host = host_of(url);
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    let mut innermost = error.to_string();
    while let Some(current) = cause {
        if let Some(error) = tls_error(current) {
            let (reason, hint) = tls::explain(&host, error);
            return RegistryError::Tls { host, reason, hint };
        }
        if let Some(name) = current.downcast_ref::<NameError>() {
            return RegistryError::Unreachable { host, reason: Unreachable::Name(name.reason.clone()) };
        }
        if let Some(reason) = current.downcast_ref::<io::Error>().and_then(io_reason) {
            return RegistryError::Unreachable { host, reason };
        }
        innermost = current.to_string();
        // `io::Error` hides its own payload from `source`.
        cause = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    if let Some((reason, hint)) = tls::explain_alert(&host, &innermost) {
        return RegistryError::Tls { host, reason, hint };
    }
    let chain = with_causes(&error).to_ascii_lowercase();
    let reason =
        if error.is_timeout() || chain.contains("timed out") || chain.contains("deadline has elapsed") {
            Unreachable::Timeout(connect_timeout)
        } else if chain.contains("tunnel") || chain.contains("proxy") {
            Unreachable::Proxy(innermost)
        } else if chain.contains("connection closed")
            || chain.contains("incomplete message")
            || chain.contains("end of file before message length reached")
            || chain.contains("unexpected eof")
            || chain.contains("channel closed")
            || chain.contains("connection was not ready")
            || chain.contains("goaway")
        {
            Unreachable::Cut
        } else {
            Unreachable::Failed(innermost)
        };
    RegistryError::Unreachable { host, reason }
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    error
        .downcast_ref::<rustls::Error>()
        .or_else(|| error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>())
}

fn io_reason(error: &io::Error) -> Option<Unreachable> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Unreachable::Cut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Unreachable::NoRoute,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn hosts_keep_their_port_and_brackets() {
        for (url, host) in [
            ("https://r.io/v2/", "r.io"),
            ("https://r.io:443/v2/", "r.io"),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
            ("http://[::1]:5000/v2/", "[::1]:5000"),
        ] {
            assert_eq!(host_of(&url.parse().unwrap()), host);
        }
    }

    #[test]
    fn shown_urls_hold_no_secret() {
        let url: Url = "https://u:p@s3.example/blob?X-Amz-Signature=abc#x".parse().unwrap();
        assert_eq!(shown(&url), "https://s3.example/blob");
    }

    #[test]
    fn a_bad_proxy_is_an_error_without_its_password() {
        let mut config = RegistryConfig::default();
        config.proxies.https = Some(Secret::new("socks5://u:hunter2@proxy:1080"));
        let error = proxies(&config).unwrap_err();
        assert!(error.to_string().contains("socks5") && !error.to_string().contains("hunter2"), "{error}");
        config.proxies.https = Some(Secret::new("proxy:3128"));
        assert_eq!(proxies(&config).unwrap().len(), 1);
    }
}
