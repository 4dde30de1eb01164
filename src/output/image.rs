//! Reading images and blobs back out of a [`BlobSource`].

use std::io::{self, Read, Write};

use serde::Deserialize;

use super::OutputError;
use crate::blob::BlobSource;
use crate::oci::{
    Descriptor, Digest, Image, ImageConfig, ImageIndex, ImageManifest, Layer, MediaType, Platform,
    descriptor_digest,
};

/// Manifests and configs above this size are not documents but an attack (registries refuse manifests
/// above 4 MiB).
const DOCUMENT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Copies a blob, verified, to `out`; returns its size in bytes.
pub fn copy_blob(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    out: &mut dyn Write,
) -> Result<u64, OutputError> {
    let digest = descriptor_digest(descriptor);
    let mut reader =
        blobs.open(descriptor).map_err(|source| OutputError::Blob { digest: digest.clone(), source })?;
    let mut buffer = vec![0; 128 * 1024];
    let mut copied = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(OutputError::Copy { digest, source }),
        };
        out.write_all(&buffer[..count])
            .map_err(|source| OutputError::Copy { digest: digest.clone(), source })?;
        copied += count as u64;
    }
}

/// Reads a small blob whole.
fn read_document(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<Vec<u8>, OutputError> {
    if descriptor.size() > DOCUMENT_BYTES_MAX {
        return Err(OutputError::BadDocument {
            digest: descriptor_digest(descriptor),
            what,
            reason: format!("it has {} bytes, expected at most {DOCUMENT_BYTES_MAX}", descriptor.size()),
        });
    }
    let mut bytes = Vec::new();
    copy_blob(blobs, descriptor, &mut bytes)?;
    Ok(bytes)
}

fn parse<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    digest: &Digest,
    what: &'static str,
) -> Result<T, OutputError> {
    serde_json::from_slice(bytes).map_err(|error| OutputError::BadDocument {
        digest: digest.clone(),
        what,
        reason: error.to_string(),
    })
}

/// Follows an index to the manifest for `platform`; a manifest is returned as it is.
pub fn select_manifest(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<Descriptor, OutputError> {
    if !matches!(descriptor.media_type(), MediaType::ImageIndex)
        && descriptor.media_type().to_string() != crate::oci::media_type::DOCKER_LIST
    {
        return Ok(descriptor.clone());
    }
    let digest = descriptor_digest(descriptor);
    let bytes = read_document(blobs, descriptor, "index")?;
    let index: ImageIndex = parse(&bytes, &digest, "index")?;
    let offered = |entry: &Descriptor| entry.platform().as_ref().map(Platform::from_spec);
    let best = index
        .manifests()
        .iter()
        .filter_map(|entry| Some((platform.accepts(&offered(entry)?)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    match best {
        Some((_, entry)) => {
            // Only sha256 can be verified.
            entry.digest().as_ref().parse::<Digest>().map_err(|error| OutputError::BadDocument {
                digest,
                what: "index",
                reason: error.to_string(),
            })?;
            select_manifest(blobs, entry, platform)
        }
        None => {
            let mut found: Vec<String> =
                index.manifests().iter().filter_map(offered).map(|platform| platform.to_string()).collect();
            found.dedup();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            Err(OutputError::NoPlatform { digest, wanted: platform.to_string(), found })
        }
    }
}

/// Reads the image that `descriptor`, a manifest's, describes.
pub fn read_image(blobs: &dyn BlobSource, descriptor: &Descriptor) -> Result<Image, OutputError> {
    let digest = descriptor_digest(descriptor);
    let manifest = read_document(blobs, descriptor, "manifest")?;
    let parsed: ImageManifest = parse(&manifest, &digest, "manifest")?;
    let config_descriptor = parsed.config().clone();
    let bad = |what, digest: &Digest, reason: String| OutputError::BadDocument {
        digest: digest.clone(),
        what,
        reason,
    };
    // Only sha256 can be verified; everything below this line relies on it.
    for part in std::iter::once(&config_descriptor).chain(parsed.layers()) {
        part.digest().as_ref().parse::<Digest>().map_err(|e| bad("manifest", &digest, e.to_string()))?;
    }
    let config_bytes = read_document(blobs, &config_descriptor, "image config")?;
    let config_digest = descriptor_digest(&config_descriptor);
    let config: ImageConfig = parse(&config_bytes, &config_digest, "image config")?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != parsed.layers().len() {
        let reason = format!("it names {} layers, its manifest {}", diff_ids.len(), parsed.layers().len());
        return Err(bad("image config", &config_digest, reason));
    }
    let layers = parsed
        .layers()
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| Layer { descriptor: descriptor.clone(), diff_id: diff_id.clone() })
        .collect();
    Ok(Image { descriptor: descriptor.clone(), manifest, config_descriptor, config_bytes, config, layers })
}
