//! What can go wrong between here and a registry, in people's words.
//!
//! Every error names the host or the image, and what the registry itself said. None ever holds a
//! credential: URLs are shown without their queries, answers without what was sent.

use std::io;
use std::time::Duration;

use super::answer::Answer;
use super::mirror::PlaceError;
use crate::oci::{Digest, Platform, Reference};

/// A failed request or transfer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The configuration can't be used.
    #[error("{what}: {reason}")]
    Config {
        /// The setting.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine's configuration forbids it.
    #[error("`{reference}` can't be used: {reason}")]
    Blocked {
        /// What was to be pulled or pushed.
        reference: String,
        /// The prefix, and where it is blocked.
        reason: String,
    },
    /// The client's own machinery could not be started.
    #[error("can't start the registry client")]
    Start(#[source] io::Error),
    /// No connection, or one that broke.
    #[error("can't reach `{host}`: {reason}")]
    Unreachable {
        /// The host that was called.
        host: String,
        /// What happened.
        reason: Unreachable,
    },
    /// A connection, but not a trusted one.
    #[error("can't speak TLS with `{host}`: {reason}")]
    Tls {
        /// The host that was called.
        host: String,
        /// What is wrong.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Something answers, but it is no registry.
    #[error("`{host}` does not answer like a registry: {found} from {url}")]
    NotARegistry {
        /// The host that was called.
        host: String,
        /// What was asked for.
        url: String,
        /// What came.
        found: String,
    },
    /// The registry wants to know who asks, or does not accept who does.
    #[error("not authorized by `{host}` for {what}: {answer}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// What was asked for, as a noun: a manifest, a blob, an upload.
        what: String,
        /// Where the credential that was used came from; none if there was none.
        credential: Option<String>,
        /// The registry's answer.
        answer: Answer,
    },
    /// The registry knows who asks, and says no.
    #[error("access denied by `{host}` to {what}: {answer}")]
    Denied {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Where the credential that was used came from; none if there was none.
        credential: Option<String>,
        /// The registry's answer.
        answer: Answer,
    },
    /// The image, manifest, blob or repository is not there.
    #[error("{what} was not found in `{host}`: {answer}")]
    NotFound {
        /// The registry.
        host: String,
        /// The image or blob.
        what: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// Too many requests.
    #[error("`{host}` limits the rate of requests: {answer}")]
    RateLimited {
        /// The registry.
        host: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// The registry's answer.
        answer: Answer,
    },
    /// The tag exists and the registry lets no one move it.
    #[error("`{reference}` already exists and its registry does not let tags be moved: {answer}")]
    Immutable {
        /// What was to be written.
        reference: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// Any other refusal.
    #[error("`{host}` refused {what}: {answer}")]
    Refused {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// The registry is not well.
    #[error("`{host}` failed on {what}: {answer}")]
    Server {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// The registry's answer.
        answer: Answer,
    },
    /// The token service did not give a token.
    #[error("can't get a token for `{host}` from {realm}: {reason}")]
    Token {
        /// The registry.
        host: String,
        /// The token service, without its query.
        realm: String,
        /// What happened.
        reason: String,
    },
    /// An answer that no registry should give.
    #[error("`{host}` gave an answer that can't be right to {what}: {reason}")]
    Protocol {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not those that were asked for.
    #[error("{what} from `{host}` is corrupt: expected {expected}, found {found}")]
    Corrupt {
        /// The host the bytes came from.
        host: String,
        /// The manifest or blob.
        what: String,
        /// Digest or size that was promised.
        expected: String,
        /// Digest or size that came.
        found: String,
    },
    /// The connection ended too early, again and again.
    #[error("{what} from `{host}` ended after {found_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// The host the bytes came from.
        host: String,
        /// The blob.
        what: String,
        /// Its size.
        expected_bytes: u64,
        /// What came of it.
        found_bytes: u64,
    },
    /// The image has no manifest for the platform.
    #[error("`{reference}` has no image for {wanted}; it has {}", list(available))]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// A manifest from before 2016.
    #[error(
        "`{reference}` is in docker's schema 1, which can't be verified and which no current registry serves"
    )]
    LegacyManifest {
        /// The image.
        reference: String,
    },
    /// A manifest that is not of a container image.
    #[error("`{reference}` is not a container image: {found}")]
    NotAnImage {
        /// The reference.
        reference: String,
        /// What it is.
        found: String,
    },
    /// A manifest or config that can't be read.
    #[error("the {what} of `{reference}` can't be read: {reason}")]
    Malformed {
        /// The image.
        reference: String,
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What was to be uploaded can't be read.
    #[error("can't read blob {digest} to upload it")]
    Source {
        /// The blob.
        digest: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was downloaded can't be kept.
    #[error("can't keep blob {digest}")]
    Keep {
        /// The blob.
        digest: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There was to be no connection.
    #[error("`{host}` is not asked: no connection may be opened")]
    Offline {
        /// Who would have been asked.
        host: String,
    },
    /// The same request failed too often.
    #[error("gave up after {tries} tries in {} s", elapsed.as_secs())]
    GaveUp {
        /// How often it was tried.
        tries: u32,
        /// How long that took.
        elapsed: Duration,
        /// The last failure.
        #[source]
        last: Box<RegistryError>,
    },
    /// Neither the mirrors nor the registry had it.
    #[error("`{reference}` can't be had from any of its locations: {}", locations(failures))]
    Everywhere {
        /// The image.
        reference: String,
        /// What each location said, in the order asked.
        failures: Vec<(String, RegistryError)>,
    },
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The name has no address.
    #[error("the name can't be resolved: {0}")]
    Name(String),
    /// No connection in time.
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It took the request and said nothing.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// Bytes came or went more slowly than any network in working order would carry them.
    #[error("the transfer stalled")]
    Stalled,
    /// The other side cut the connection.
    #[error("the connection was cut")]
    Cut,
    /// No way there.
    #[error("no route to it")]
    NoRoute,
    /// The proxy did not let us through.
    #[error("the proxy refused: {0}")]
    Proxy(String),
    /// Something else.
    #[error("{0}")]
    Failed(String),
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn locations(failures: &[(String, RegistryError)]) -> String {
    failures.iter().map(|(place, error)| format!("{place}: {}", error.full())).collect::<Vec<_>>().join("; ")
}

impl RegistryError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { host, reason } => reason.hint(host),
            Self::Tls { hint, .. } => hint.clone(),
            Self::NotARegistry { host, url, found }
                if url.starts_with("http://") && found.contains("HTTPS") =>
            {
                Some(format!(
                    "it speaks TLS, and loopback registries are spoken to in plain HTTP unless told otherwise: name \
                     the certificate of its authority with `--registry-ca {host}=FILE`"
                ))
            }
            Self::NotARegistry { .. } => {
                Some("check the image's name: its first part is the registry's host".to_owned())
            }
            Self::Unauthorized { host, credential, .. } => Some(match credential {
                None => format!("no credential for `{host}` was found: log in with `kiln login {host}`"),
                Some(origin) => format!(
                    "the credential from {origin} was not accepted, or may not do this: check it, or log in \
                     again with `kiln login {host}`"
                ),
            }),
            Self::Denied { host, credential, .. } => Some(match credential {
                None => format!("no credential for `{host}` was found: log in with `kiln login {host}`"),
                Some(origin) => {
                    format!(
                        "the credential from {origin} is not allowed to do this; the repository may also not exist"
                    )
                }
            }),
            Self::NotFound { .. } => Some("check the spelling of the repository and of the tag".to_owned()),
            Self::RateLimited { host, .. } if host.ends_with("docker.io") => Some(
                "Docker Hub counts pulls by account or address: log in with `kiln login`, or pull through a \
                 mirror with `--registry-mirror`"
                    .to_owned(),
            ),
            Self::RateLimited { .. } => {
                Some("wait, or log in: most registries allow accounts more".to_owned())
            }
            Self::Immutable { .. } => {
                Some("push under another tag, or pass `--push-ignore-immutable-tag-errors`".to_owned())
            }
            Self::NoPlatform { .. } => Some("choose one of these with `--platform`".to_owned()),
            Self::LegacyManifest { .. } => {
                Some("pull and push the image once with a current docker to convert it".to_owned())
            }
            Self::GaveUp { last, .. } => last.hint(),
            Self::Everywhere { failures, .. } => failures.last().and_then(|(_, error)| error.hint()),
            _ => None,
        }
    }

    /// Returns the message with those of its causes.
    pub fn full(&self) -> String {
        crate::event::with_causes(self)
    }

    /// Returns the error behind retries.
    pub fn last(&self) -> &Self {
        match self {
            Self::GaveUp { last, .. } => last.last(),
            other => other,
        }
    }

    /// Returns whether the registry was reached and says that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        match self.last() {
            Self::NotFound { .. } => true,
            Self::Everywhere { failures, .. } => failures.iter().all(|(_, error)| error.is_not_found()),
            _ => false,
        }
    }

    /// Returns whether asking again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { reason, .. } => !matches!(reason, Unreachable::Proxy(_)),
            Self::RateLimited { .. } | Self::Truncated { .. } => true,
            // 501 and 505 are statements about the server, not about its health.
            Self::Server { answer, .. } => !matches!(answer.status, 501 | 505),
            Self::Refused { answer, .. } => answer.status == 408,
            _ => false,
        }
    }

    /// Says that there is no place to look for a reference.
    pub(super) fn place(reference: &Reference, error: PlaceError) -> Self {
        match error {
            PlaceError::Blocked { .. } => {
                Self::Blocked { reference: reference.to_string(), reason: error.to_string() }
            }
            PlaceError::Reference(error) => {
                Self::Config { what: format!("the mirrors of `{reference}`"), reason: error.to_string() }
            }
        }
    }

    /// Returns how long the server asked to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Describes bytes that do not have the digest they should have.
    pub(super) fn wrong_digest(host: &str, what: &str, expected: &Digest, found: &Digest) -> Self {
        Self::Corrupt {
            host: host.to_owned(),
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl Unreachable {
    fn hint(&self, host: &str) -> Option<String> {
        match self {
            Self::Refused => Some(format!("check that a registry is listening at `{host}`, and its port")),
            Self::Name(_) => Some(
                "check the registry's name, and the name servers in /etc/resolv.conf of the place kiln runs in"
                    .to_owned(),
            ),
            Self::Timeout(_) | Self::NoRoute => Some(
                "check the network, and whether a proxy is needed (HTTPS_PROXY, NO_PROXY)".to_owned(),
            ),
            Self::Silent(_) | Self::Stalled => Some(
                "check the registry; `--registry-timeout` (KILN_REGISTRY_TIMEOUT) says how long kiln waits".to_owned(),
            ),
            Self::Proxy(_) => Some("check HTTP_PROXY, HTTPS_PROXY and NO_PROXY".to_owned()),
            _ => None,
        }
    }
}

impl From<RegistryError> for io::Error {
    fn from(error: RegistryError) -> Self {
        let kind = match error.last() {
            RegistryError::Corrupt { .. } => io::ErrorKind::InvalidData,
            RegistryError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            RegistryError::NotFound { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
