//! The entries of an index in the making: a manifest somewhere, and what the index says of it.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{ImagesError, Origin};
use crate::blob::{BlobError, BlobSource};
use crate::oci::{Descriptor, Digest, Platform, canonical_json, descriptor, descriptor_digest, media_type};

/// One manifest of an index.
pub struct Part {
    /// What it is, and where.
    pub origin: Origin,
    /// What the index will say of it.
    pub(super) entry: Value,
    /// Whether its manifest was written anew here.
    pub(super) rewritten: bool,
}

/// What to change about an entry's platform; an empty text takes a field away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlatformChange {
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// What the operating system must have.
    pub os_features: Vec<String>,
}

/// Reads the platform of an index's entry, normalised (image-spec, `image-index.md`).
pub fn platform_of(entry: &Value) -> Option<Platform> {
    let field = |key: &str| entry["platform"][key].as_str().map(str::to_owned);
    let platform = Platform {
        os: field("os")?,
        architecture: field("architecture")?,
        variant: field("variant"),
        os_version: field("os.version"),
    };
    Some(platform.normalised())
}

impl Part {
    /// Makes an entry of what is no index; `known` is what it is for.
    pub(super) fn new(origin: Origin, known: Option<&Platform>) -> Self {
        let descriptor = &origin.descriptor;
        let mut entry = json!({
            "mediaType": descriptor.media_type().to_string(),
            "digest": descriptor.digest().to_string(),
            "size": descriptor.size(),
        });
        if let Some(kind) = descriptor.artifact_type() {
            entry["artifactType"] = json!(kind.to_string());
        }
        let mut part = Self { origin, entry, rewritten: false };
        if let Some(known) = known {
            part.change_platform(&PlatformChange {
                os: Some(known.os.clone()),
                architecture: Some(known.architecture.clone()),
                variant: known.variant.clone(),
                os_version: known.os_version.clone(),
                os_features: Vec::new(),
            });
        }
        part
    }

    /// Returns what it is.
    pub fn descriptor(&self) -> &Descriptor {
        &self.origin.descriptor
    }

    /// Returns the platform the index will say it is for.
    pub fn platform(&self) -> Option<Platform> {
        platform_of(&self.entry)
    }

    /// Tells whether it is for a platform; a version counts only if one is asked for.
    pub fn is_for(&self, wanted: &Platform) -> bool {
        self.platform().is_some_and(|mut offered| {
            if wanted.os_version.is_none() {
                offered.os_version = None;
            }
            offered == *wanted
        })
    }

    /// Names it for people: platform and digest.
    pub fn label(&self) -> String {
        let digest = descriptor_digest(self.descriptor());
        match self.platform() {
            Some(platform) => format!("{platform} ({})", digest.short()),
            None => digest.short().to_owned(),
        }
    }

    /// Changes what the index says about the platform.
    pub fn change_platform(&mut self, change: &PlatformChange) {
        if !self.entry["platform"].is_object() {
            let host = Platform::host();
            self.entry["platform"] = json!({"os": host.os, "architecture": host.architecture});
        }
        let Some(platform) = self.entry["platform"].as_object_mut() else { return };
        for (key, value) in [
            ("os", &change.os),
            ("architecture", &change.architecture),
            ("variant", &change.variant),
            ("os.version", &change.os_version),
        ] {
            match value.as_deref() {
                None => {}
                Some("") => drop(platform.remove(key)),
                Some(value) => drop(platform.insert(key.to_owned(), json!(value))),
            }
        }
        if !change.os_features.is_empty() {
            platform.insert("os.features".to_owned(), json!(change.os_features));
        }
    }

    /// Puts annotations on the index's entry.
    pub fn annotate(&mut self, annotations: &BTreeMap<String, String>) {
        for (key, value) in annotations {
            self.entry["annotations"][key] = json!(value);
        }
    }

    /// Writes the manifest anew with more annotations.
    pub(super) fn annotate_manifest(
        &mut self,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), ImagesError> {
        let old = self.descriptor().clone();
        if old.media_type().as_ref() != media_type::OCI_MANIFEST {
            return Err(ImagesError::NoAnnotations { name: self.origin.name.clone() });
        }
        let mut manifest: Value = self.origin.document(&old, "manifest")?;
        for (key, value) in annotations {
            manifest["annotations"][key] = json!(value);
        }
        let bytes = canonical_json(&manifest);
        let new = descriptor(media_type::OCI_MANIFEST, &Digest::of(&bytes), bytes.len() as u64);
        self.entry["digest"] = json!(Digest::of(&bytes));
        self.entry["size"] = json!(bytes.len());
        let under = Arc::clone(&self.origin.source);
        self.origin.source = Arc::new(Rewritten { digest: Digest::of(&bytes), bytes, under });
        self.origin.descriptor = new;
        self.rewritten = true;
        Ok(())
    }
}

/// A manifest that was written anew, and all else as it was.
struct Rewritten {
    digest: Digest,
    bytes: Vec<u8>,
    under: Arc<dyn BlobSource>,
}

impl BlobSource for Rewritten {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        if descriptor_digest(descriptor) == self.digest {
            return Ok(Box::new(Cursor::new(self.bytes.clone())));
        }
        self.under.open(descriptor)
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        if *digest == self.digest { Ok(true) } else { self.under.contains(digest) }
    }
}
