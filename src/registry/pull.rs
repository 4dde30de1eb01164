//! Manifests and images from a registry, verified.

use std::collections::BTreeSet;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use serde_json::Value;

use super::call::{Access, Call, protocol};
use super::endpoint::Endpoint;
use super::error::RegistryError;
use super::{Inner, RemoteImage};
use crate::oci::{
    Descriptor, DiffId, Digest, Image, ImageConfig, ImageIndex, ImageManifest, Layer, Platform, Reference,
    descriptor, descriptor_digest, media_type,
};

/// Manifests above this are refused: registries take no more than 4 MiB (distribution-spec).
const MANIFEST_LIMIT_BYTES: usize = 8 << 20;
/// Configs above this are refused.
const CONFIG_LIMIT_BYTES: u64 = 16 << 20;
/// An index may point to indexes, this deep.
const MOST_INDEXES: usize = 4;

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
    /// Runs `work` on the locations of `reference` until one of them succeeds.
    pub(super) async fn anywhere<T, F>(&self, reference: &Reference, work: F) -> Result<T, RegistryError>
    where
        F: AsyncFn(Reference) -> Result<T, RegistryError>,
    {
        let candidates = self.config.mirrors.candidates(reference).map_err(|error| {
            RegistryError::Config { what: format!("the mirrors of `{reference}`"), reason: error.to_string() }
        })?;
        let only = candidates.len() == 1;
        let mut failures = Vec::new();
        for candidate in candidates {
            match work(candidate.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) if only => return Err(error),
                Err(error) => {
                    self.reporter.debug(format!("`{}`: {}", candidate.name(), error.full()));
                    failures.push((candidate.name(), error));
                }
            }
        }
        Err(RegistryError::Everywhere { reference: reference.to_string(), failures })
    }

    /// Asks for a manifest's descriptor.
    pub(super) async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        self.anywhere(reference, async |place| {
            let endpoint = self.endpoint(place.registry());
            let call = manifest_call(self, &endpoint, &place, Method::HEAD, Access::Pull).await?;
            let response = match self.call(&endpoint, &call, &[200]).await {
                Ok(response) => response,
                // Some registries do not know HEAD.
                Err(RegistryError::Refused { answer, .. } | RegistryError::Server { answer, .. })
                    if matches!(answer.status, 400 | 405 | 501) =>
                {
                    return Ok(self.manifest_at(&place).await?.descriptor);
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
            Ok(self.manifest_at(&place).await?.descriptor)
        })
        .await
    }

    /// Fetches a manifest or index from the first location that has it.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        self.anywhere(reference, async |place| self.manifest_at(&place).await).await
    }

    /// Fetches a manifest or index from one location.
    pub(super) async fn manifest_at(&self, place: &Reference) -> Result<Fetched, RegistryError> {
        let endpoint = self.endpoint(place.registry());
        let mut call = manifest_call(self, &endpoint, place, Method::GET, Access::Pull).await?;
        call.verified = place.digest().is_some();
        let mut backoff = super::retry::Backoff::new(&self.config.retries, &self.reporter);
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

    /// Fetches manifest and config for a platform.
    pub(super) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<RemoteImage, RegistryError> {
        let mut fetched = self.manifest(reference).await?;
        let mut index_digest = None;
        let mut seen = BTreeSet::new();
        while is_index(fetched.descriptor.media_type().as_ref()) {
            let digest = descriptor_digest(&fetched.descriptor);
            if seen.len() == MOST_INDEXES || !seen.insert(digest.clone()) {
                let reason = format!("expected an image within {MOST_INDEXES} indexes, found another index");
                return Err(RegistryError::Malformed {
                    reference: reference.to_string(),
                    what: "index",
                    reason,
                });
            }
            let chosen = choose(reference, &fetched.bytes, platform)?;
            index_digest.get_or_insert(digest);
            // From where the index came: a mirror may lag behind.
            fetched = self.manifest_at(&fetched.source.with_digest(chosen)).await?;
        }
        let name = fetched.source.clone();
        let manifest = read_manifest_json(reference, &fetched.bytes)?;
        let config_descriptor = manifest.config().clone();
        let config_type = config_descriptor.media_type().to_string();
        if !matches!(config_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Err(RegistryError::NotAnImage {
                reference: reference.to_string(),
                found: format!("its config is a `{config_type}`"),
            });
        }
        let config_bytes = self.config_bytes(reference, &name, &config_descriptor).await?;
        let config: ImageConfig =
            serde_json::from_slice(&config_bytes).map_err(|error| RegistryError::Malformed {
                reference: reference.to_string(),
                what: "config",
                reason: error.to_string(),
            })?;
        let layers = pair_layers(reference, &manifest, &config)?;
        let mut descriptor = fetched.descriptor;
        descriptor.set_platform(Some(config.platform().to_spec()));
        let digest = descriptor_digest(&descriptor);
        Ok(RemoteImage {
            reference: reference.with_digest(digest),
            index_digest,
            image: Image {
                descriptor,
                manifest: fetched.bytes,
                config_descriptor,
                config_bytes,
                config,
                layers,
            },
        })
    }

    async fn config_bytes(
        &self,
        reference: &Reference,
        place: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size() > CONFIG_LIMIT_BYTES {
            return Err(RegistryError::Malformed {
                reference: reference.to_string(),
                what: "config",
                reason: format!("it is larger than {} MiB", CONFIG_LIMIT_BYTES >> 20),
            });
        }
        self.small_blob(place, descriptor).await
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

fn is_index(kind: &str) -> bool {
    matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST)
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

/// Picks the manifest for a platform out of an index: the best, the first of equals.
fn choose(reference: &Reference, bytes: &[u8], platform: &Platform) -> Result<Digest, RegistryError> {
    let malformed =
        |reason: String| RegistryError::Malformed { reference: reference.to_string(), what: "index", reason };
    let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let mut available = Vec::new();
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in index.manifests() {
        // Attestations and artifacts are in indexes too, under a platform nobody has.
        let Some(offered) = entry.platform().as_ref().map(Platform::from_spec) else { continue };
        if offered.os == "unknown" {
            continue;
        }
        if let Some(rank) = platform.accepts(&offered)
            && best.is_none_or(|(rank_before, _)| rank < rank_before)
        {
            best = Some((rank, entry));
        }
        available.push(offered);
    }
    let chosen = match (best, index.manifests().as_slice()) {
        (Some((_, entry)), _) => entry,
        // An index around one image that does not say what it is for.
        (None, [only]) if only.platform().is_none() => only,
        (None, _) => {
            available.dedup();
            return Err(RegistryError::NoPlatform {
                reference: reference.to_string(),
                wanted: platform.clone(),
                available,
            });
        }
    };
    let digest = chosen.digest().to_string();
    digest.parse().map_err(|error: crate::oci::DigestError| malformed(error.to_string()))
}

/// Reads a manifest and checks that every digest in it is one that can be verified.
fn read_manifest_json(reference: &Reference, bytes: &[u8]) -> Result<ImageManifest, RegistryError> {
    let malformed = |reason: String| RegistryError::Malformed {
        reference: reference.to_string(),
        what: "manifest",
        reason,
    };
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
        let digest = descriptor.digest().to_string();
        digest.parse::<Digest>().map_err(|error| malformed(error.to_string()))?;
    }
    Ok(manifest)
}

fn pair_layers(
    reference: &Reference,
    manifest: &ImageManifest,
    config: &ImageConfig,
) -> Result<Vec<Layer>, RegistryError> {
    let diff_ids: &[DiffId] = &config.rootfs.diff_ids;
    if manifest.layers().len() != diff_ids.len() {
        return Err(RegistryError::Malformed {
            reference: reference.to_string(),
            what: "config",
            reason: format!("expected {} diff ids, found {}", manifest.layers().len(), diff_ids.len()),
        });
    }
    let pairs = manifest.layers().iter().zip(diff_ids);
    Ok(pairs.map(|(d, id)| Layer { descriptor: d.clone(), diff_id: id.clone() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        "r.io/app:1".parse().unwrap()
    }

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

    fn index(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let manifests: Vec<Value> = entries
            .iter()
            .map(|(content, platform)| {
                let mut entry = serde_json::json!({
                    "mediaType": media_type::OCI_MANIFEST,
                    "digest": Digest::of(content.as_bytes()).as_str(),
                    "size": 1,
                });
                if let Some(platform) = platform {
                    let parts: Vec<&str> = platform.split('/').collect();
                    entry["platform"] = serde_json::json!({"os": parts[0], "architecture": parts[1]});
                    if let Some(variant) = parts.get(2) {
                        entry["platform"]["variant"] = Value::from(*variant);
                    }
                }
                entry
            })
            .collect();
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let bytes = index(&[
            ("attestation", Some("unknown/unknown")),
            ("amd", Some("linux/amd64")),
            ("v6", Some("linux/arm/v6")),
            ("v7", Some("linux/arm/v7")),
            ("arm64", Some("linux/arm64/v8")),
        ]);
        for (platform, expected) in
            [("linux/amd64", "amd"), ("linux/arm/v7", "v7"), ("linux/arm/v6", "v6"), ("linux/arm64", "arm64")]
        {
            let chosen = choose(&reference(), &bytes, &platform.parse().unwrap()).unwrap();
            assert_eq!(chosen, Digest::of(expected.as_bytes()), "{platform}");
        }
        let error = choose(&reference(), &bytes, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`r.io/app:1` has no image for linux/s390x; it has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64"
        );
    }

    #[test]
    fn a_lone_manifest_without_platform_is_taken() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        assert!(choose(&reference(), &index(&[("x", None)]), &platform).is_ok());
        assert!(choose(&reference(), &index(&[("x", None), ("y", None)]), &platform).is_err());
        assert!(choose(&reference(), &index(&[]), &platform).is_err());
    }

    #[test]
    fn other_digests_are_refused_in_words() {
        let manifest = br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha512:00","size":1},"layers":[]}"#;
        let error = read_manifest_json(&reference(), manifest).unwrap_err();
        assert!(matches!(error, RegistryError::Malformed { what: "manifest", .. }), "{error}");
    }
}
