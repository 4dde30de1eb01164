//! Images out of a registry: index, platform, manifest and config, every byte verified.

use std::collections::BTreeSet;

use super::config::Side;
use super::error::RegistryError;
use super::graph::is_index;
use super::pull::Fetched;
use super::{Inner, RemoteImage};
use crate::oci::{
    Descriptor, DiffId, Digest, Image, ImageConfig, ImageIndex, ImageManifest, Layer, Platform, Reference,
    descriptor_digest, media_type,
};

/// Configs above this are refused.
const CONFIG_LIMIT_BYTES: u64 = 16 << 20;
/// An index may point to indexes, this deep.
const MOST_INDEXES: usize = 4;

impl Inner {
    /// Fetches manifest and config for a platform. A mirror that fails between the two is given up, and the next place
    /// asked for both.
    pub(super) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<RemoteImage, RegistryError> {
        loop {
            let fetched = self.manifest(reference).await?;
            let turn = self.turns(reference)?.into_iter().find(|turn| turn.place == fetched.source);
            let asking = turn.as_ref().map_or_else(|| self.clone(), |turn| self.asking(turn));
            match asking.image_of(fetched, reference, platform).await {
                Err(error) if turn.is_some_and(|turn| self.failed(&turn, &error)) => {}
                done => return done,
            }
        }
    }

    async fn image_of(
        &self,
        mut fetched: Fetched,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<RemoteImage, RegistryError> {
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
            fetched = self.manifest_at(&fetched.source.with_digest(chosen), Side::Pull).await?;
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
        for layer in &layers {
            let digest = layer.digest();
            self.flights.note(name.registry(), &digest, name.repository());
        }
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
                wanted: Box::new(platform.clone()),
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
    use serde_json::Value;

    use super::*;

    fn reference() -> Reference {
        "r.io/app:1".parse().unwrap()
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
