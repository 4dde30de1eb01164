//! Everything an image, index or artifact is made of, in the order in which it may be put in place.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::error::RegistryError;
use crate::oci::{Descriptor, Digest, media_type};

/// No index of real images is deeper, or larger.
const MOST_MANIFESTS: usize = 4096;

/// Manifests and all their blobs.
#[derive(Debug, Default)]
pub struct Graph {
    /// Children before the indexes that name them: the top is the last.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
    /// Configs, layers and other files, each once.
    pub blobs: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct AnyManifest {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    /// Artifact manifests of the specification's drafts.
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
}

impl Graph {
    /// Follows `top` down to its blobs; `fetch` gives verified manifests.
    pub fn follow(
        name: &str,
        top: &Descriptor,
        fetch: &dyn Fn(&Descriptor) -> Result<Vec<u8>, RegistryError>,
    ) -> Result<Self, RegistryError> {
        let mut graph = Self::default();
        let mut seen = BTreeSet::new();
        graph.add(name, top, fetch, &mut seen)?;
        Ok(graph)
    }

    fn add(
        &mut self,
        name: &str,
        descriptor: &Descriptor,
        fetch: &dyn Fn(&Descriptor) -> Result<Vec<u8>, RegistryError>,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), RegistryError> {
        let malformed = |reason: String| RegistryError::Malformed {
            reference: name.to_owned(),
            what: "manifest",
            reason,
        };
        if !seen.insert(descriptor.digest().to_string()) {
            return Ok(());
        }
        if seen.len() > MOST_MANIFESTS {
            return Err(malformed(format!("expected at most {MOST_MANIFESTS} manifests, found more")));
        }
        let bytes = fetch(descriptor)?;
        let manifest: AnyManifest =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let blobs = [manifest.layers, manifest.blobs, manifest.config.map(|config| vec![config])];
        for blob in blobs.into_iter().flatten().flatten() {
            check(&blob).map_err(malformed)?;
            if seen.insert(blob.digest().to_string()) {
                self.blobs.push(blob);
            }
        }
        for child in manifest.manifests.into_iter().flatten() {
            check(&child).map_err(malformed)?;
            self.add(name, &child, fetch, seen)?;
        }
        self.manifests.push((descriptor.clone(), bytes));
        Ok(())
    }
}

fn check(descriptor: &Descriptor) -> Result<(), String> {
    let digest = descriptor.digest().to_string();
    digest.parse::<Digest>().map(drop).map_err(|error| error.to_string())
}

/// Whether a media type is an index's.
pub(super) fn is_index(kind: &str) -> bool {
    matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST)
}
