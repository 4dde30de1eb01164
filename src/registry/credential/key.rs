//! What a credential is for: a registry, or a part of its repositories.

use std::fmt;

/// `host[:port][/path]`: a registry, or the repositories below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `host[:port]`, lower case; `docker.io` for all of Docker Hub's names.
    registry: String,
    /// Path components that the repository must begin with.
    path: Vec<String>,
}

/// Names under which people and programs know Docker Hub.
const DOCKER_HUB: &[&str] =
    &["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// The name docker gives Docker Hub in its files, and helpers with it.
pub(super) const HUB: &str = "https://index.docker.io/v1/";

impl Scope {
    /// Reads a key of docker's `auths`: a host, a URL as old dockers wrote it
    /// (`https://index.docker.io/v1/`), or a host and a path.
    pub fn parse(key: &str) -> Self {
        let rest = key.trim();
        let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut path: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        // `/v1/` and `/v2/` are the API's, not a repository's.
        if path.len() == 1 && matches!(path[0].as_str(), "v1" | "v2") {
            path.clear();
        }
        Self { registry: canonical_registry(host), path }
    }

    /// Returns `host[:port]`; `docker.io` for all of Docker Hub's names.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Tells whether this is for all repositories of a registry.
    pub(super) fn is_whole_registry(&self) -> bool {
        self.path.is_empty()
    }

    /// Returns the key under which docker writes this into a file.
    pub(super) fn key(&self) -> String {
        let text = self.to_string();
        if text == "docker.io" { HUB.to_owned() } else { text }
    }

    /// Returns how specific this is for a repository (1 for the whole registry, one more for each component
    /// of the path), or nothing if it is for others.
    pub fn matches(&self, registry: &str, repository: &str) -> Option<usize> {
        if self.registry != canonical_registry(registry) {
            return None;
        }
        let mut parts = repository.split('/');
        self.path.iter().all(|wanted| parts.next() == Some(wanted)).then_some(1 + self.path.len())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        self.path.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

/// Gives Docker Hub its one name; the default ports of `http` and `https` say nothing and go.
pub(super) fn canonical_registry(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    if DOCKER_HUB.contains(&host) { "docker.io".to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_many_names_are_one() {
        for key in [
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "https://registry-1.docker.io/v2/",
            "http://index.docker.io/v1",
        ] {
            assert_eq!(Scope::parse(key).matches("docker.io", "library/x"), Some(1), "{key}");
        }
    }

    #[test]
    fn a_path_matches_whole_components() {
        let scope = Scope::parse("r.io:5000/team/app");
        assert_eq!(scope.matches("r.io:5000", "team/app"), Some(3));
        assert_eq!(scope.matches("r.io:5000", "team/app/sub"), Some(3));
        assert_eq!(scope.matches("r.io:5000", "team/apple"), None);
        assert_eq!(scope.matches("r.io:5000", "team"), None);
        assert_eq!(scope.matches("r.io", "team/app"), None);
    }

    #[test]
    fn a_lookalike_host_does_not_match() {
        let scope = Scope::parse("azurecr.io");
        for host in ["evil-azurecr.io", "x.azurecr.io", "azurecr.io.evil.com", "azurecr.io:5000"] {
            assert_eq!(scope.matches(host, "x"), None, "{host}");
        }
    }

    #[test]
    fn the_default_port_and_case_do_not_matter() {
        assert_eq!(Scope::parse("https://R.io:443/").matches("r.io", "x"), Some(1));
        assert_eq!(Scope::parse("[::1]:5000").matches("[::1]:5000", "x"), Some(1));
    }
}
