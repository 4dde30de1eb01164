//! Indexes out of images that were built apart: what lets a build spread over many machines with nothing
//! but a registry between them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::copy::untagged;
use super::error::RegistryError;
use super::graph::is_index;
use super::{Client, RemoteBlobs};
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, ManifestFormat, Platform, Reference,
    canonical_json, descriptor_digest, media_type,
};

/// An index in the making.
#[derive(Debug, Clone, Default)]
pub struct IndexDraft {
    /// What it points to, in order.
    pub entries: Vec<IndexEntry>,
    /// Its own annotations; docker's manifest lists have none.
    pub annotations: BTreeMap<String, String>,
    /// Which family of media types it is of.
    pub format: ManifestFormat,
}

/// One manifest of an index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Where the manifest is, pinned.
    pub source: Reference,
    /// Its descriptor, with its platform.
    pub descriptor: Descriptor,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl IndexDraft {
    /// Returns the media type and the bytes: the same draft has the same digest.
    pub fn seal(&self) -> (&'static str, Vec<u8>) {
        let none = BTreeMap::new();
        let (kind, annotations) = match self.format {
            ManifestFormat::Oci => (media_type::OCI_INDEX, &self.annotations),
            ManifestFormat::Docker => (media_type::DOCKER_LIST, &none),
        };
        let manifests = self.entries.iter().map(|entry| &entry.descriptor).collect();
        (kind, canonical_json(&IndexJson { schema_version: 2, media_type: kind, manifests, annotations }))
    }

    /// Returns the entry for a platform.
    pub fn entry_mut(&mut self, platform: &Platform) -> Option<&mut IndexEntry> {
        self.entries.iter_mut().find(|entry| platform_of(&entry.descriptor).as_ref() == Some(platform))
    }

    /// Adds an entry; another of the same platform in its place is an error.
    pub fn add(&mut self, entry: IndexEntry) -> Result<(), RegistryError> {
        let digest = entry.descriptor.digest();
        if self.entries.iter().any(|other| other.descriptor.digest() == digest) {
            return Ok(());
        }
        // Attestations have the platform nobody has, and there is one for each image.
        if let Some(platform) = platform_of(&entry.descriptor).filter(|platform| platform.os != "unknown")
            && let Some(other) = self.entry_mut(&platform)
        {
            return Err(RegistryError::SamePlatform {
                platform: Box::new(platform),
                first: other.source.to_string(),
                second: entry.source.to_string(),
            });
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    descriptor.platform().as_ref().map(Platform::from_spec)
}

impl Client {
    /// Begins an index of `sources`: images with the platforms that their configs name, and the entries of
    /// other indexes.
    pub fn draft_index(&self, sources: &[Reference]) -> Result<IndexDraft, RegistryError> {
        let mut draft = IndexDraft::default();
        let mut only_docker = !sources.is_empty();
        for source in sources {
            let (descriptor, bytes) = self.manifest(source)?;
            let kind = descriptor.media_type().to_string();
            only_docker &= matches!(kind.as_str(), media_type::DOCKER_MANIFEST | media_type::DOCKER_LIST);
            if is_index(&kind) {
                let index: ImageIndex = parse(source, "index", &bytes)?;
                for entry in index.manifests() {
                    let digest: Digest =
                        entry.digest().to_string().parse().map_err(|error| RegistryError::Malformed {
                            reference: source.to_string(),
                            what: "index",
                            reason: format!("{error}"),
                        })?;
                    let entry = IndexEntry { source: source.with_digest(digest), descriptor: entry.clone() };
                    draft.add(entry)?;
                }
            } else {
                let descriptor = self.with_platform(source, descriptor, &bytes)?;
                let source = source.with_digest(descriptor_digest(&descriptor));
                draft.add(IndexEntry { source, descriptor })?;
            }
        }
        if only_docker {
            draft.format = ManifestFormat::Docker;
        }
        Ok(draft)
    }

    fn with_platform(
        &self,
        source: &Reference,
        mut descriptor: Descriptor,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let manifest: ImageManifest = parse(source, "manifest", bytes)?;
        let kind = manifest.config().media_type().to_string();
        if matches!(kind.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            let config = read_config(&self.blobs(source), manifest.config(), source)?;
            descriptor.set_platform(Some(config.platform().to_spec()));
        }
        Ok(descriptor)
    }

    /// Puts an index under each of `to`, after every manifest it points to is in that repository: those of
    /// other repositories are copied, their blobs mounted where possible.
    pub fn push_index(&self, draft: &IndexDraft, to: &[Reference]) -> Result<Digest, RegistryError> {
        let (kind, bytes) = draft.seal();
        for reference in to {
            for entry in &draft.entries {
                if entry.source.name() != reference.name() {
                    self.copy(&entry.source, &[untagged(reference)], None)?;
                }
            }
        }
        for reference in to {
            self.put_manifest(reference, kind, &bytes)?;
        }
        Ok(Digest::of(&bytes))
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    source: &Reference,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Malformed {
        reference: source.to_string(),
        what,
        reason: error.to_string(),
    })
}

fn read_config(
    blobs: &RemoteBlobs,
    descriptor: &Descriptor,
    source: &Reference,
) -> Result<ImageConfig, RegistryError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let mut reader = blobs.open_blob(descriptor)?;
    reader.read_to_end(&mut bytes).map_err(|error| RegistryError::Malformed {
        reference: source.to_string(),
        what: "config",
        reason: error.to_string(),
    })?;
    parse(source, "config", &bytes)
}
