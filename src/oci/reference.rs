//! Image references, docker's grammar and defaults (distribution `reference/`).

use std::fmt;
use std::str::FromStr;

use super::{Digest, DigestError};

/// A normalised image reference: `registry/repository[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: `{text}`: {reason}")]
pub struct ReferenceError {
    /// The offending text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The registry of a reference that names none.
const DEFAULT_REGISTRY: &str = "docker.io";

impl Reference {
    /// Builds a reference from checked parts.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, ReferenceError> {
        let mut text = format!("{registry}/{repository}");
        if let Some(tag) = tag {
            text = format!("{text}:{tag}");
        }
        let mut reference: Self = text.parse()?;
        reference.digest = digest;
        Ok(reference)
    }

    /// Returns the registry's host and port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository's path, `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag as written, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns what a registry is asked for: the digest, else the tag, else `latest`.
    pub fn tag_or_digest(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// Returns the same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        Self::new(&self.registry, &self.repository, Some(tag), None)
    }

    /// Returns the same repository and tag, pinned to a digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the repository alone: what is put there goes under its digest.
    pub fn untagged(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// Returns `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the reference with its defaults left out, as docker shows it: `debian:12`. What is left still
    /// means the same: `docker.io/a.b/c` stays as it is.
    pub fn familiar(&self) -> String {
        let text = self.to_string();
        ["docker.io/library/", "docker.io/"]
            .iter()
            .filter_map(|prefix| text.strip_prefix(prefix))
            .find(|short| short.parse::<Self>().is_ok_and(|meant| meant.to_string() == text))
            .unwrap_or(&text)
            .to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (Some(tag), _) => write!(f, ":{tag}")?,
            (None, None) => write!(f, ":latest")?,
            (None, Some(_)) => {}
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: &str| ReferenceError { text: text.to_owned(), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(fail("a bare image id is not a repository name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest: Digest = digest.parse().map_err(|e: DigestError| fail(&e.to_string()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.ends_with(']') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(
                "a tag is 1 to 128 letters, digits, `_`, `.` and `-`, and starts with no `.` or `-`",
            ));
        }
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => (DEFAULT_REGISTRY, rest),
        };
        if !is_host(registry) {
            return Err(fail("the registry is not a host name with an optional port"));
        }
        let registry = if matches!(registry, "index.docker.io" | "registry-1.docker.io") {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail(&format!("repository name ({repository}) must be lowercase")));
        }
        if !repository.split('/').all(is_path_component) {
            return Err(fail(
                "repository names are lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`",
            ));
        }
        if repository.len() > 255 {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && matches!(b, b'.' | b'-')))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", port)
        }
        None => host.split_once(':').map_or((host, ""), |(name, _)| (name, &host[name.len()..])),
    };
    let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    port_ok && (host.starts_with('[') || name.split('.').all(label))
}

/// `path-component := alpha-numeric (separator alpha-numeric)*`; separators are `.`, `_`, `__` and any
/// number of `-`.
fn is_path_component(component: &str) -> bool {
    let alpha_numeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alpha_numeric(*first) || !alpha_numeric(*last) {
        return false;
    }
    let mut separators = bytes.split(|b| alpha_numeric(*b)).filter(|s| !s.is_empty());
    separators.all(|s| s == b"." || s == b"_" || s == b"__" || s.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_dockers_defaults() {
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("r.io/a/b__c/d-e.f:1.0", "r.io/a/b__c/d-e.f:1.0", "r.io/a/b__c/d-e.f:1.0"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("docker.io/library/a.b/c", "docker.io/library/a.b/c:latest", "library/a.b/c:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::of(b"");
        let reference: Reference = format!("r.io/x@{digest}").parse().unwrap();
        assert_eq!(reference.to_string(), format!("r.io/x@{digest}"));
        assert_eq!(reference.tag_or_digest(), digest.as_str());
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "Foo/bar",
            "a//b",
            "a/-b",
            "x:",
            "x:.y",
            "x@sha256:12",
            "http://x/y",
            "a b",
            "[::g]/x",
            "r.io/A",
            "x_-y",
            "/x",
            "x/",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
