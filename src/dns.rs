//! Names to addresses, without the C library: a static binary in an empty container has to find hosts too.
//!
//! The contents of `/etc/resolv.conf` and `/etc/hosts` are given, read by the command line before the first step: while
//! a step runs in place, `/etc` is its stage's. Where there is no resolv.conf no public name server is asked in
//! its stead: names then simply do not resolve, and the error says why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why a name has no address; kept apart from other failures to connect.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NameError {
    /// What was found out.
    pub reason: String,
}

/// Resolves names with what the system's files said when kiln started.
pub struct Resolver {
    settings: Result<(ResolverConfig, ResolverOpts), String>,
    hosts: Arc<Hosts>,
    resolver: OnceLock<Result<TokioResolver, String>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Understands the contents of resolv.conf and hosts; files that do not exist are not given.
    pub fn new(resolv_conf: Option<&[u8]>, hosts_file: Option<&[u8]>) -> Self {
        let settings = match resolv_conf {
            Some(bytes) => hickory_resolver::system_conf::parse_resolv_conf(bytes)
                .map_err(|error| format!("/etc/resolv.conf is of no use: {error}")),
            None => Err("there is no /etc/resolv.conf that names a name server".to_owned()),
        };
        let mut hosts = Hosts::default();
        if let Some(bytes) = hosts_file {
            // A line that is not understood is passed over, as the C library does.
            let _ = hosts.read_hosts_conf(bytes);
        }
        Self { settings, hosts: Arc::new(hosts), resolver: OnceLock::new() }
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        let made = self.resolver.get_or_init(|| {
            // Without name servers /etc/hosts still counts.
            let (config, mut options) = match &self.settings {
                Ok(settings) => settings.clone(),
                Err(_) => (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default()),
            };
            // IPv4 first: networks of containers often have IPv6 addresses and no IPv6 route.
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            options.use_hosts_file = ResolveHosts::Never;
            let mut resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options)
                .build()
                .map_err(|error| error.to_string())?;
            resolver.set_hosts(self.hosts.clone());
            Ok(resolver)
        });
        made.as_ref().map_err(Clone::clone)
    }

    async fn lookup(&self, name: &str) -> Result<Vec<SocketAddr>, NameError> {
        let at = |ip: IpAddr| SocketAddr::new(ip, 0);
        if is_localhost(name) {
            // RFC 6761, section 6.3: this name is not a matter for name servers.
            return Ok(vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]);
        }
        let resolver = self.resolver().map_err(|reason| NameError { reason })?;
        match resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().map(at).collect()),
            Err(error) => Err(NameError {
                reason: match &self.settings {
                    Err(reason) => reason.clone(),
                    Ok(_) if error.is_nx_domain() => "there is no such name".to_owned(),
                    Ok(_) if error.is_no_records_found() => "the name has no address".to_owned(),
                    Ok(_) => format!("the name servers do not answer: {error}"),
                },
            }),
        }
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A handle that reqwest can own.
pub struct SharedResolver(pub Arc<Resolver>);

impl Resolve for SharedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let found = resolver.lookup(name.as_str()).await?;
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(resolver: &Resolver, name: &str) -> Result<Vec<SocketAddr>, String> {
        tokio::runtime::Runtime::new().unwrap().block_on(resolver.lookup(name)).map_err(|e| e.reason)
    }

    #[test]
    fn localhost_needs_no_files() {
        let resolver = Resolver::new(Some(b""), Some(b""));
        assert_eq!(lookup(&resolver, "localhost").unwrap()[0].ip().to_string(), "127.0.0.1");
        assert_eq!(lookup(&resolver, "registry.localhost").unwrap().len(), 2);
    }

    #[test]
    fn the_hosts_file_counts_without_name_servers() {
        let resolver = Resolver::new(Some(b""), Some(b"10.1.2.3 registry.internal\n"));
        assert_eq!(lookup(&resolver, "registry.internal").unwrap()[0].ip().to_string(), "10.1.2.3");
        assert!(lookup(&resolver, "other.internal").unwrap_err().contains("/etc/resolv.conf"));
    }
}
