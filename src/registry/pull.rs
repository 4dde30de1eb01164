//! Manifests from a registry, verified.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use serde_json::Value;

use super::Inner;
use super::call::{Access, Call, protocol};
use super::config::Side;
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::graph::is_index;
use crate::oci::{Descriptor, Digest, Reference, descriptor, media_type};

/// Manifests above this are refused: registries take no more than 4 MiB (distribution-spec).
const MANIFEST_LIMIT_BYTES: usize = 8 << 20;

/// The digest of the content, said by the registry.
pub(super) const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

const ACCEPTED: &str = concat!(
    "application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    // Asked for last, so that an old image is named as one instead of being `not found`.
    "application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1, ",
    "application/vnd.docker.distribution.manifest.v1+json;q=0.1"
);

/// A manifest or index with the endpoint it came from.
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    /// The location that had it.
    pub(super) source: Reference,
}

impl Inner {
    /// Returns where to look for `reference`, best first.
    pub(super) fn places(&self, reference: &Reference) -> Result<Vec<Reference>, RegistryError> {
        let found = self.config.mirrors.candidates(reference);
        found.map_err(|error| RegistryError::place(reference, error))
    }

    /// Runs `work` on the locations of `reference` until one of them succeeds.
    pub(super) async fn anywhere<T, F>(&self, reference: &Reference, work: F) -> Result<T, RegistryError>
    where
        F: AsyncFn(&Inner, Reference) -> Result<T, RegistryError>,
    {
        let turns = self.turns(reference)?;
        let only = turns.len() == 1;
        let mut failures = Vec::new();
        for turn in turns {
            match work(&self.asking(&turn), turn.place.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) if only => return Err(error),
                Err(error) => {
                    self.reporter.debug(format!("`{}`: {}", turn.place.name(), error.full()));
                    self.failed(&turn, &error);
                    failures.push((turn.place.name(), error));
                }
            }
        }
        Err(RegistryError::Everywhere { reference: reference.to_string(), failures })
    }

    /// Asks for a manifest's descriptor.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        self.anywhere(reference, async |inner, place| {
            let endpoint = inner.endpoint(place.registry(), Side::Pull);
            let call = manifest_call(inner, &endpoint, &place, Method::HEAD, Access::Pull).await?;
            let response = match inner.call(&endpoint, &call, &[200]).await {
                Ok(response) => response,
                // Some registries do not know HEAD.
                Err(RegistryError::Refused { answer, .. } | RegistryError::Server { answer, .. })
                    if matches!(answer.status, 400 | 405 | 501) =>
                {
                    return Ok(inner.manifest_at(&place, Side::Pull).await?.descriptor);
                }
                Err(error) => return Err(error),
            };
            let header = |name: HeaderName| {
                response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let found = (header(DIGEST_HEADER), header(CONTENT_TYPE), header(CONTENT_LENGTH));
            if let (Some(digest), Some(kind), Some(length)) = found
                && let (Ok(digest), Ok(length)) = (digest.parse::<Digest>(), length.parse::<u64>())
                && is_known(bare_type(&kind))
                && place.digest().is_none_or(|wanted| *wanted == digest)
            {
                return Ok(descriptor(bare_type(&kind), &digest, length));
            }
            Ok(inner.manifest_at(&place, Side::Pull).await?.descriptor)
        })
        .await
    }

    /// Fetches a manifest or index from the first location that has it.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        self.anywhere(reference, async |inner, place| inner.manifest_at(&place, Side::Pull).await).await
    }

    /// Fetches a manifest or index from one location.
    pub(super) async fn manifest_at(&self, place: &Reference, side: Side) -> Result<Fetched, RegistryError> {
        let endpoint = self.endpoint(place.registry(), side);
        let mut call = manifest_call(self, &endpoint, place, Method::GET, Access::Pull).await?;
        call.verified = place.digest().is_some();
        let mut backoff = super::retry::Backoff::new(&self.retries, &self.reporter);
        loop {
            let response = self.call(&endpoint, &call, &[200]).await?;
            match self.read_manifest(&endpoint, place, &call.what, response).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => backoff.wait(&call.what, error).await?,
            }
        }
    }

    async fn read_manifest(
        &self,
        endpoint: &Endpoint,
        place: &Reference,
        what: &str,
        response: reqwest::Response,
    ) -> Result<Fetched, RegistryError> {
        let url = response.url().clone();
        let header = |name: HeaderName| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (said, kind) = (header(DIGEST_HEADER), header(CONTENT_TYPE).unwrap_or_default());
        let (bytes, whole) = self.limited_body(response, &url, MANIFEST_LIMIT_BYTES).await?;
        if !whole {
            let reason = format!("it is larger than {} MiB", MANIFEST_LIMIT_BYTES >> 20);
            return Err(protocol(endpoint, what, reason));
        }
        let digest = Digest::of(&bytes);
        // What was asked for counts; by tag, what the registry says it sends. Digests by other algorithms
        // can't be compared.
        let expected = place.digest().cloned().or_else(|| said?.parse().ok());
        let kind = kind_of(&bytes, bare_type(&kind));
        if let Some(expected) = expected
            && expected != digest
        {
            // A registry names a schema 1 manifest by what it signed, not by its bytes.
            if kind == Kind::Legacy {
                return Err(RegistryError::LegacyManifest { reference: place.to_string() });
            }
            return Err(RegistryError::wrong_digest(&endpoint.registry, what, &expected, &digest));
        }
        let kind = match kind {
            Kind::Known(kind) => kind,
            Kind::Legacy => return Err(RegistryError::LegacyManifest { reference: place.to_string() }),
            Kind::Unknown(_) if !endpoint.looks_like_a_registry() => {
                return Err(RegistryError::NotARegistry {
                    host: endpoint.registry.clone(),
                    url: super::transport::shown(&url),
                    found: "a page".to_owned(),
                });
            }
            Kind::Unknown(found) => {
                return Err(RegistryError::NotAnImage { reference: place.to_string(), found });
            }
        };
        Ok(Fetched {
            descriptor: descriptor(&kind, &digest, bytes.len() as u64),
            bytes,
            source: place.clone(),
        })
    }
}

async fn manifest_call<'a>(
    inner: &Inner,
    endpoint: &Endpoint,
    place: &'a Reference,
    method: Method,
    access: Access,
) -> Result<Call<'a>, RegistryError> {
    let path = format!("{}/manifests/{}", place.repository(), place.tag_or_digest());
    let what = format!("manifest `{}` of `{}`", place.tag_or_digest(), place.repository());
    let url = endpoint.url(inner, &path).await?;
    Ok(Call::new(method, url, place.repository(), access, what).header(ACCEPT, ACCEPTED))
}

/// Strips `; charset=…` from a media type.
fn bare_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

fn is_known(kind: &str) -> bool {
    is_index(kind) || matches!(kind, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST)
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Known(String),
    Legacy,
    Unknown(String),
}

/// Decides what a manifest is, by itself first: the header is not covered by the digest, so two readers
/// could be told two things about the same bytes (CVE-2021-41190). For the same reason a document with
/// both layers and manifests is neither.
fn kind_of(bytes: &[u8], header: &str) -> Kind {
    let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(bytes) else {
        return Kind::Unknown("it is not JSON".to_owned());
    };
    if map.get("schemaVersion") == Some(&Value::from(1)) || map.contains_key("fsLayers") {
        return Kind::Legacy;
    }
    let (layers, manifests) =
        (map.contains_key("layers") || map.contains_key("config"), map.contains_key("manifests"));
    if layers && manifests {
        return Kind::Unknown("it is both a manifest and an index".to_owned());
    }
    let said = map.get("mediaType").and_then(Value::as_str);
    let fallback = if manifests { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let kind = said.unwrap_or(if is_known(header) { header } else { fallback });
    if !is_known(kind) {
        return Kind::Unknown(format!("its media type is `{kind}`"));
    }
    if is_index(kind) != manifests || (!is_index(kind) && !layers) {
        return Kind::Unknown(format!("it is called `{kind}`, which it is not"));
    }
    Kind::Known(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_what_it_says_and_looks_like() {
        let known = |kind: &str| Kind::Known(kind.to_owned());
        let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(kind_of(manifest, ""), known(media_type::OCI_MANIFEST));
        assert_eq!(kind_of(manifest, media_type::DOCKER_MANIFEST), known(media_type::DOCKER_MANIFEST));
        assert_eq!(kind_of(br#"{"manifests":[]}"#, "text/plain"), known(media_type::OCI_INDEX));
        assert_eq!(kind_of(br#"{"schemaVersion":1,"fsLayers":[]}"#, ""), Kind::Legacy);
        for bytes in [
            &b"<html>"[..],
            b"[]",
            b"{}",
            br#"{"layers":[],"manifests":[]}"#,
            br#"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#,
            br#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            br#"{"mediaType":"application/x","layers":[]}"#,
        ] {
            assert!(matches!(kind_of(bytes, ""), Kind::Unknown(_)), "{}", String::from_utf8_lossy(bytes));
        }
        // The header can't turn a manifest into an index.
        assert!(matches!(kind_of(manifest, media_type::OCI_INDEX), Kind::Unknown(_)));
    }
}
