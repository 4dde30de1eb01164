//! Manifests to a registry: the last step of a push, and what registries say against it.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::Inner;
use super::call::{Access, Call};
use super::config::Side;
use super::error::RegistryError;
use super::pull::DIGEST_HEADER;
use super::retry::Backoff;
use crate::oci::{Digest, Reference, descriptor_digest};

impl Inner {
    /// Puts a manifest in place. A tag that may not be moved but is already what it should be is no error.
    pub(super) async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        Ok(self.put_manifest_known(reference, media_type, bytes).await?.0)
    }

    /// The same, telling whether the registry noted which manifest this one is about.
    pub(super) async fn put_manifest_known(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Digest, bool), RegistryError> {
        let digest = Digest::of(bytes);
        if let Some(pinned) = reference.digest().filter(|pinned| **pinned != digest) {
            return Err(RegistryError::wrong_digest(
                reference.registry(),
                "the manifest to push",
                pinned,
                &digest,
            ));
        }
        let endpoint = self.destination(reference)?;
        let name = reference.tag().unwrap_or(digest.as_str());
        let path = format!("{}/manifests/{name}", reference.repository());
        let what = format!("manifest `{name}` of `{}`", reference.repository());
        let url = endpoint.url(self, &path).await?;
        let mut call = Call::new(Method::PUT, url, reference.repository(), Access::Push, what)
            .header(CONTENT_TYPE, media_type);
        call.body = Some(Bytes::copy_from_slice(bytes));
        let mut backoff = Backoff::new(&self.retries, &self.reporter);
        let response = loop {
            match self.call(&endpoint, &call, &[201, 200, 202]).await {
                Ok(response) => break response,
                Err(error) if names_missing_blob(&error) => {
                    // Replicas of a registry may take a moment to hear of a blob that was accepted.
                    let pause = backoff.pause_for_lost_session(&call.what, error)?;
                    tokio::time::sleep(pause).await;
                }
                Err(error) => {
                    return Ok((self.perhaps_immutable(reference, &digest, error).await?, false));
                }
            }
        };
        let said = response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
        match said.and_then(|said| said.parse::<Digest>().ok()) {
            Some(said) if said != digest => {
                Err(RegistryError::wrong_digest(&endpoint.registry, &call.what, &digest, &said))
            }
            _ => Ok((digest, response.headers().contains_key(super::artifact::SUBJECT_HEADER))),
        }
    }

    async fn perhaps_immutable(
        &self,
        reference: &Reference,
        digest: &Digest,
        error: RegistryError,
    ) -> Result<Digest, RegistryError> {
        let answer = match &error {
            RegistryError::Refused { answer, .. } | RegistryError::Denied { answer, .. } => answer.clone(),
            _ => return Err(error),
        };
        let says_so = answer.has_code("TAG_IMMUTABLE")
            || answer.has_code("IMMUTABLE")
            || ["immutable", "cannot be overwritten", "immutability", "does not allow updating"]
                .iter()
                .any(|text| answer.says(text));
        if !says_so {
            return Err(error);
        }
        match self.resolve_for_push(reference).await {
            Ok(found) if found == *digest => Ok(found),
            _ => Err(RegistryError::Immutable { reference: reference.to_string(), answer }),
        }
    }

    /// Asks what a tag of a destination is, without mirrors.
    async fn resolve_for_push(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        let fetched = self.manifest_at(reference, Side::Push).await?;
        Ok(descriptor_digest(&fetched.descriptor))
    }
}

fn names_missing_blob(error: &RegistryError) -> bool {
    let (RegistryError::Refused { answer, .. } | RegistryError::NotFound { answer, .. }) = error else {
        return false;
    };
    answer.has_code("MANIFEST_BLOB_UNKNOWN") || answer.has_code("BLOB_UNKNOWN")
}
