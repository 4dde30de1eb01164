//! OCI artifacts: files in a registry that are not images, and what refers to what
//! (distribution-spec, "Listing Referrers"; image-spec, "Guidelines for Artifact Usage").

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};

use super::call::{Access, Call, protocol};
use super::config::Side;
use super::error::RegistryError;
use super::tags::next_page;
use super::{Client, Inner};
use crate::blob::BlobSource;
use crate::oci::{Descriptor, Digest, Reference, canonical_json, descriptor, descriptor_digest, media_type};

/// Said by registries that keep the list of referrers themselves.
pub(super) const SUBJECT_HEADER: HeaderName = HeaderName::from_static("oci-subject");
/// Pages of referrers.
const MOST_PAGES: usize = 1000;
/// No page of referrers is larger.
const PAGE_LIMIT_BYTES: usize = 8 << 20;

/// An artifact: typed files, perhaps about an image.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    /// What it is, `application/vnd.example.sbom`.
    pub artifact_type: String,
    /// Its config; the empty object if there is none.
    pub config: Option<Descriptor>,
    /// Its files.
    pub layers: Vec<Descriptor>,
    /// The manifest it is about.
    pub subject: Option<Descriptor>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactJson {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ReferrersJson {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// The blob behind an empty config.
const EMPTY: &[u8] = b"{}";

fn empty_descriptor() -> Descriptor {
    descriptor(media_type::OCI_EMPTY, &Digest::of(EMPTY), EMPTY.len() as u64)
}

impl Artifact {
    /// Reads a manifest.
    pub fn parse(manifest: &[u8]) -> Result<Self, serde_json::Error> {
        let json: ArtifactJson = serde_json::from_slice(manifest)?;
        let empty = empty_descriptor();
        // Artifacts from before `artifactType` say what they are by their config.
        let kind = json.artifact_type.unwrap_or_else(|| json.config.media_type().to_string());
        Ok(Self {
            artifact_type: kind,
            config: Some(json.config).filter(|config| config.digest() != empty.digest()),
            layers: json
                .layers
                .into_iter()
                .filter(|layer| layer.media_type() != empty.media_type())
                .collect(),
            subject: json.subject,
            annotations: json.annotations.unwrap_or_default(),
        })
    }

    /// Returns the manifest's descriptor and bytes.
    pub fn seal(&self) -> (Descriptor, Vec<u8>) {
        let empty = empty_descriptor();
        let bytes = canonical_json(&ArtifactJson {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(self.artifact_type.clone()).filter(|kind| !kind.is_empty()),
            config: self.config.clone().unwrap_or_else(|| empty.clone()),
            // An artifact without files still has one layer (image-spec).
            layers: if self.layers.is_empty() { vec![empty] } else { self.layers.clone() },
            subject: self.subject.clone(),
            annotations: Some(self.annotations.clone()).filter(|map| !map.is_empty()),
        });
        let mut sealed = descriptor(media_type::OCI_MANIFEST, &Digest::of(&bytes), bytes.len() as u64);
        if !self.artifact_type.is_empty() {
            sealed.set_artifact_type(Some(self.artifact_type.as_str().into()));
        }
        if !self.annotations.is_empty() {
            sealed.set_annotations(Some(self.annotations.clone().into_iter().collect()));
        }
        (sealed, bytes)
    }
}

impl Client {
    /// Pushes an artifact whose files `source` has, and enters it into the list of its subject's referrers
    /// where the registry does not do that itself.
    pub fn push_artifact(
        &self,
        artifact: &Artifact,
        source: &dyn BlobSource,
        to: &Reference,
    ) -> Result<Descriptor, RegistryError> {
        let (sealed, bytes) = artifact.seal();
        let empty = empty_descriptor();
        let config = artifact.config.as_ref().unwrap_or(&empty);
        let mut wanted: Vec<&Descriptor> = vec![config];
        for layer in if artifact.layers.is_empty() { std::slice::from_ref(&empty) } else { &artifact.layers }
        {
            if !wanted.iter().any(|other| other.digest() == layer.digest()) {
                wanted.push(layer);
            }
        }
        let open = |descriptor: &Descriptor| -> std::io::Result<Box<dyn std::io::Read + Send>> {
            if descriptor.digest() == empty.digest() {
                return Ok(Box::new(EMPTY));
            }
            source.open(descriptor).map_err(std::io::Error::other)
        };
        self.push_descriptors(&wanted, &open, to, &[])?;
        let known =
            self.inner.runtime.wait(self.inner.put_manifest_known(to, media_type::OCI_MANIFEST, &bytes))?.1;
        if let Some(subject) = artifact.subject.as_ref().filter(|_| !known) {
            self.enter_referrer(to, &descriptor_digest(subject), &sealed)?;
        }
        Ok(sealed)
    }

    /// Fetches an artifact's manifest; its files are the blobs of the same repository.
    pub fn artifact(&self, from: &Reference) -> Result<(Descriptor, Artifact), RegistryError> {
        let (descriptor, bytes) = self.manifest(from)?;
        let artifact = Artifact::parse(&bytes).map_err(|error| RegistryError::Malformed {
            reference: from.to_string(),
            what: "manifest",
            reason: error.to_string(),
        })?;
        Ok((descriptor, artifact))
    }

    /// Lists what refers to a manifest, all of it or what is of one type.
    pub fn referrers(
        &self,
        subject: &Reference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let digest = match subject.digest() {
            Some(digest) => digest.clone(),
            None => descriptor_digest(&self.resolve(subject)?),
        };
        let mut found = self.inner.runtime.wait(self.inner.referrers(subject, &digest))?;
        if let Some(wanted) = artifact_type {
            found.retain(|entry| {
                entry.artifact_type().as_ref().is_some_and(|kind| kind.to_string() == wanted)
            });
        }
        Ok(found)
    }

    /// Keeps the list of referrers under the tag that stands in for the API.
    fn enter_referrer(
        &self,
        to: &Reference,
        subject: &Digest,
        entry: &Descriptor,
    ) -> Result<(), RegistryError> {
        let place = fallback(to, subject);
        let mut list = self.inner.runtime.wait(self.inner.fallback_list(&place))?;
        if list.iter().any(|other| other.digest() == entry.digest()) {
            return Ok(());
        }
        list.push(entry.clone());
        let bytes = canonical_json(&ReferrersJson {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: list,
        });
        self.put_manifest(&place, media_type::OCI_INDEX, &bytes).map(drop)
    }
}

/// `sha256-<hex>`: the tag schema of the specification.
fn fallback(place: &Reference, subject: &Digest) -> Reference {
    place.with_tag(&subject.as_str().replace(':', "-")).expect("a digest makes a tag")
}

impl Inner {
    async fn referrers(&self, place: &Reference, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let endpoint = self.endpoint(place.registry(), Side::Pull);
        let name = place.repository();
        let what = format!("the referrers of {} in `{name}`", subject.short());
        let mut url = endpoint.url(self, &format!("{name}/referrers/{subject}")).await?;
        let mut found = Vec::new();
        for _ in 0..MOST_PAGES {
            let call = Call::new(Method::GET, url.clone(), name, Access::Pull, what.clone());
            let response = match self.call(&endpoint, &call, &[200]).await {
                Ok(response) => response,
                // No such API: some say so with 404, some with 400 or 405.
                Err(RegistryError::NotFound { .. } | RegistryError::Refused { .. }) => {
                    return self.fallback_list(&fallback(place, subject)).await;
                }
                Err(error) => return Err(error),
            };
            let (from, next) = (response.url().clone(), next_page(response.url(), response.headers()));
            let (body, whole) = self.limited_body(response, &from, PAGE_LIMIT_BYTES).await?;
            let page: ReferrersJson = match serde_json::from_slice(&body) {
                Ok(page) if whole => page,
                _ => return Err(protocol(&endpoint, &what, "expected an index".to_owned())),
            };
            found.extend(page.manifests);
            match next.map(|next| endpoint.repair(next)) {
                Some(next) if endpoint.is_home(&next) && next != url => url = next,
                _ => break,
            }
        }
        Ok(found)
    }

    async fn fallback_list(&self, place: &Reference) -> Result<Vec<Descriptor>, RegistryError> {
        match self.manifest_at(place, Side::Pull).await {
            Ok(fetched) => {
                let list: ReferrersJson = serde_json::from_slice(&fetched.bytes).unwrap_or_default();
                Ok(list.manifests)
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
