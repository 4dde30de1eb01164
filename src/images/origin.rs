//! Something that can be read whole, wherever it is: every byte verified, manifests and blobs alike.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ImagesError;
use crate::blob::{BlobError, BlobSource};
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageManifest, Platform, Reference, descriptor_digest, media_type,
};
use crate::output::select_manifest;
use crate::registry::{Client, Graph, RegistryError, RemoteBlobs};

/// Manifests, indexes and configs above this are none.
const DOCUMENT_LIMIT_BYTES: u64 = 16 << 20;

/// An image, index or artifact, open for reading.
#[derive(Clone)]
pub struct Origin {
    /// What it is called in messages.
    pub name: String,
    /// What it is.
    pub descriptor: Descriptor,
    /// Has its manifests and blobs.
    pub source: Arc<dyn BlobSource>,
    /// The repository it is in, if it is in a registry: other repositories there can take blobs from it.
    pub repository: Option<Reference>,
}

/// Whether a media type is an index's.
pub fn is_index(descriptor: &Descriptor) -> bool {
    let kind: &str = descriptor.media_type().as_ref();
    matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

impl Origin {
    /// Opens what a reference stands for in its registry (or in a mirror of it).
    pub fn registry(client: &Client, reference: &Reference) -> Result<Self, ImagesError> {
        let (descriptor, bytes) = client.manifest(reference)?;
        let digest = descriptor_digest(&descriptor);
        let source = RegistrySource {
            client: client.clone(),
            reference: reference.clone(),
            blobs: client.blobs(reference),
            manifests: Mutex::new(BTreeMap::from([(digest, bytes)])),
        };
        Ok(Self {
            name: reference.to_string(),
            descriptor,
            source: Arc::new(source),
            repository: Some(reference.clone()),
        })
    }

    /// Opens what is on this machine: in the store or in a layout.
    pub fn local(name: &str, descriptor: &Descriptor, source: Arc<dyn BlobSource>) -> Self {
        let mut descriptor = descriptor.clone();
        // A name is the layout's business, not the image's.
        descriptor.set_annotations(None);
        Self { name: name.to_owned(), descriptor, source, repository: None }
    }

    /// Returns one manifest of this index as an origin of its own.
    pub fn part(&self, descriptor: &Descriptor) -> Self {
        let digest = descriptor.digest();
        Self {
            name: format!("{}@{digest}", self.name.split('@').next().unwrap_or(&self.name)),
            descriptor: descriptor.clone(),
            source: Arc::clone(&self.source),
            repository: self.repository.clone(),
        }
    }

    /// Returns the image for a platform; an image without index is taken as it is.
    pub fn choose(&self, platform: &Platform) -> Result<Self, ImagesError> {
        if !is_index(&self.descriptor) {
            return Ok(self.clone());
        }
        let descriptor = select_manifest(self.source.as_ref(), &self.descriptor, platform)?;
        Ok(Self { name: self.name.clone(), descriptor, ..self.clone() })
    }

    /// Reads a manifest, index or config.
    pub fn read(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImagesError> {
        let malformed = |reason: String| self.malformed(what, reason);
        if descriptor.size() > DOCUMENT_LIMIT_BYTES {
            return Err(malformed(format!("it has {} bytes", descriptor.size())));
        }
        let mut bytes = Vec::new();
        let mut reader = self.source.open(descriptor)?;
        reader.read_to_end(&mut bytes).map_err(|error| malformed(error.to_string()))?;
        Ok(bytes)
    }

    /// Reads and parses a manifest, index or config.
    pub fn document<T: DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &'static str,
    ) -> Result<T, ImagesError> {
        let bytes = self.read(descriptor, what)?;
        serde_json::from_slice(&bytes).map_err(|error| self.malformed(what, error.to_string()))
    }

    /// Returns what an index points to, each with a digest that can be verified; nothing for all else.
    pub fn entries(&self) -> Result<Vec<Descriptor>, ImagesError> {
        Ok(self.entries_as_written()?.into_iter().map(|(entry, _)| entry).collect())
    }

    /// The same with each entry as it is written: a descriptor does not have all that may be said there.
    pub fn entries_as_written(&self) -> Result<Vec<(Descriptor, Value)>, ImagesError> {
        if !is_index(&self.descriptor) {
            return Ok(Vec::new());
        }
        let mut index: Value = self.document(&self.descriptor, "index")?;
        let Value::Array(entries) = index["manifests"].take() else { return Ok(Vec::new()) };
        let read = |value: Value| -> Result<(Descriptor, Value), String> {
            let entry: Descriptor =
                serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
            let digest: Result<Digest, _> = entry.digest().to_string().parse();
            digest.map_err(|error| error.to_string())?;
            Ok((entry, value))
        };
        entries
            .into_iter()
            .map(|value| read(value).map_err(|reason| self.malformed("index", reason)))
            .collect()
    }

    /// Returns the platform that the image's config names; `None` for what is no image.
    pub fn platform(&self) -> Result<Option<Platform>, ImagesError> {
        let manifest: ImageManifest = self.document(&self.descriptor, "manifest")?;
        let kind = manifest.config().media_type().to_string();
        if !matches!(kind.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            return Ok(None);
        }
        let config: ImageConfig = self.document(manifest.config(), "config")?;
        Ok(Some(config.platform()))
    }

    /// Checks that all images of an index on this machine are on this machine.
    pub fn check_complete(&self) -> Result<(), ImagesError> {
        if self.repository.is_some() {
            return Ok(());
        }
        for entry in self.entries()? {
            if !self.source.contains(&descriptor_digest(&entry))? {
                let platform = entry.platform().as_ref().map(Platform::from_spec);
                return Err(ImagesError::Incomplete {
                    name: self.name.clone(),
                    platform: platform.map_or_else(|| entry.digest().to_string(), |p| p.to_string()),
                });
            }
        }
        Ok(())
    }

    /// Follows it down to its blobs.
    pub fn graph(&self) -> Result<Graph, ImagesError> {
        self.check_complete()?;
        Ok(Graph::follow(&self.name, &self.descriptor, &|descriptor| {
            let failed = |source| RegistryError::Source { digest: descriptor.digest().to_string(), source };
            let mut bytes = Vec::new();
            let reader =
                self.source.open(descriptor).map_err(|error| failed(std::io::Error::other(error)))?;
            reader.take(DOCUMENT_LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        })?)
    }

    fn malformed(&self, what: &'static str, reason: String) -> ImagesError {
        ImagesError::Malformed { name: self.name.clone(), what, reason }
    }
}

/// A repository's manifests and blobs under one roof; manifests are asked for once.
struct RegistrySource {
    client: Client,
    reference: Reference,
    blobs: Arc<RemoteBlobs>,
    manifests: Mutex<BTreeMap<Digest, Vec<u8>>>,
}

impl RegistrySource {
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let pinned = self.reference.with_digest(digest.clone());
        let (_, bytes) = self.client.manifest(&pinned).map_err(|source| BlobError::Source {
            digest: digest.clone(),
            place: self.reference.name(),
            source: Box::new(source),
        })?;
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.insert(digest.clone(), bytes.clone());
        Ok(bytes)
    }
}

impl BlobSource for RegistrySource {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let kind: &str = descriptor.media_type().as_ref();
        let is_manifest = matches!(kind, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
        if is_manifest || is_index(descriptor) {
            return Ok(Box::new(Cursor::new(self.manifest(&descriptor_digest(descriptor))?)));
        }
        self.blobs.open(descriptor)
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        let known = self.manifests.lock().unwrap_or_else(PoisonError::into_inner).contains_key(digest);
        if known { Ok(true) } else { self.blobs.contains(digest) }
    }
}
