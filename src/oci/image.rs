//! Layers and images as finished values, and the constants of the image-spec.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Descriptor, DiffId, Digest, ImageConfig, MediaType};

/// Media types kiln reads or writes (OCI image-spec `media-types.md`; distribution's schema 2).
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar; `+gzip` and `+zstd` follow it.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// The empty JSON object as a config or blob of an artifact.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Docker manifest, version 2 schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzipped tar.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
}

/// Annotation keys (OCI image-spec `annotations.md`).
pub mod annotation {
    /// Commit the image was built from.
    pub const REVISION: &str = "org.opencontainers.image.revision";
    /// Where the sources are.
    pub const SOURCE: &str = "org.opencontainers.image.source";
    /// When the image was built, RFC 3339.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// Reference of the base image.
    pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
    /// Digest of the base image's manifest.
    pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
    /// Name of a file in an artifact.
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// Tag of a manifest in a layout's index.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// Full reference of a manifest in a layout's index, as containerd writes it.
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
}

/// A finished layer: its blob and what is inside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The blob: media type, digest and size in bytes as a registry has it.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
}

impl Layer {
    /// Returns the digest of the blob, which was checked when the layer was read or made.
    pub fn digest(&self) -> Digest {
        descriptor_digest(&self.descriptor)
    }
}

/// Which family of media types a manifest uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ManifestFormat {
    /// OCI image manifest.
    #[default]
    Oci,
    /// Docker version 2 schema 2.
    Docker,
}

/// A finished image of one platform: manifest and config as bytes, and its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Describes `manifest`.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Describes `config_bytes`.
    pub config_descriptor: Descriptor,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config, read.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<Layer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestJson<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: Vec<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Image {
    /// Seals `config` and `layers` into an image. `config.rootfs` is set from `layers`. Annotations are
    /// written in OCI manifests only: docker's schema 2 has no place for them.
    pub fn seal(
        mut config: ImageConfig,
        layers: Vec<Layer>,
        format: ManifestFormat,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config_bytes = canonical_json(&config);
        let (manifest_type, config_type) = match format {
            ManifestFormat::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            ManifestFormat::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        };
        let config_descriptor =
            descriptor(config_type, &Digest::of(&config_bytes), config_bytes.len() as u64);
        let manifest = canonical_json(&ManifestJson {
            schema_version: 2,
            media_type: manifest_type,
            config: &config_descriptor,
            layers: layers.iter().map(|layer| &layer.descriptor).collect(),
            annotations: if format == ManifestFormat::Oci { annotations } else { BTreeMap::new() },
        });
        let mut manifest_descriptor =
            descriptor(manifest_type, &Digest::of(&manifest), manifest.len() as u64);
        manifest_descriptor.set_platform(Some(config.platform().to_spec()));
        Self { descriptor: manifest_descriptor, manifest, config_descriptor, config_bytes, config, layers }
    }

    /// Returns the manifest's digest: the image's name by content.
    pub fn digest(&self) -> Digest {
        descriptor_digest(&self.descriptor)
    }
}

/// Describes a blob by its media type, digest and size in bytes.
pub fn descriptor(media_type: &str, digest: &Digest, size_bytes: u64) -> Descriptor {
    Descriptor::new(MediaType::from(media_type), size_bytes, oci_spec::image::Digest::from(digest))
}

/// Returns the digest of a descriptor.
///
/// # Panics
/// If the descriptor is not of a sha256 blob. Manifests are checked for that when they are read.
pub fn descriptor_digest(descriptor: &Descriptor) -> Digest {
    descriptor.digest().as_ref().parse().expect("descriptors are checked when a manifest is read")
}

/// Writes `value` as compact JSON with sorted keys: equal values have equal bytes.
pub fn canonical_json<T: Serialize>(value: &T) -> Vec<u8> {
    let sorted = serde_json::to_value(value).expect("image vocabulary is plain JSON");
    serde_json::to_vec(&sorted).expect("a JSON value can be written")
}
