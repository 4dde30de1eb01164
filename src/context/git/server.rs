//! The server that a repository is on: whom its credentials may be shown to.

use std::fmt;

use url::{Origin, Url};

/// Scheme, host and port of a git server, as HTTP reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitServer(Origin);

impl GitServer {
    /// Returns the server of a repository. One that is reached by `ssh` or `git://` has its HTTP service where such
    /// servers have it: at `https` on the same host.
    pub fn of(remote: &str) -> Option<Self> {
        if let Some(server) = Self::over_http(remote) {
            return Some(server);
        }
        let host = match remote.split_once("://") {
            Some(("ssh" | "git", _)) => Url::parse(remote).ok()?.host_str()?.to_owned(),
            Some(_) => return None,
            // `user@host:path`
            None => remote.split_once(':')?.0.rsplit_once('@')?.1.to_owned(),
        };
        Self::over_http(&format!("https://{host}/"))
    }

    /// Returns the server of a repository that is reached by HTTP.
    pub(super) fn over_http(remote: &str) -> Option<Self> {
        let url = Url::parse(remote).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        Some(Self(url.origin()))
    }

    /// Returns `host[:port]`, what stands behind `GIT_AUTH_TOKEN.` in the name of a secret for this server alone.
    pub fn host(&self) -> String {
        let text = self.to_string();
        text.split_once("://").map_or(text.as_str(), |(_, host)| host).to_owned()
    }
}

impl fmt::Display for GitServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.ascii_serialization())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_scheme_host_and_port() {
        for (remote, server, host) in [
            ("https://u:p@Example.com:443/a.git", "https://example.com", "example.com"),
            ("http://example.com:8080/a.git", "http://example.com:8080", "example.com:8080"),
            ("http://[::1]:80/a.git", "http://[::1]", "[::1]"),
            ("ssh://git@example.com:2222/a", "https://example.com", "example.com"),
            ("git://example.com/a", "https://example.com", "example.com"),
            ("git@example.com:a/b.git", "https://example.com", "example.com"),
        ] {
            let found = GitServer::of(remote).unwrap();
            assert_eq!((found.to_string().as_str(), found.host().as_str()), (server, host));
        }
        for remote in ["file:///a", "/srv/a.git", "../a", "host:path", "https://"] {
            assert_eq!(GitServer::of(remote), None, "{remote}");
        }
    }
}
