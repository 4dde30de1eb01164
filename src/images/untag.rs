//! Tags out of a registry, without losing what others need.

use super::ImagesError;
use crate::oci::{Descriptor, Digest, ImageIndex, Reference, descriptor_digest};
use crate::registry::{Client, RegistryError};

/// What was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// What was asked for.
    pub reference: Reference,
    /// The manifest, where it went with its tag: the registry removes manifests only.
    pub digest: Option<Digest>,
    /// Other tags that went with it.
    pub also: Vec<String>,
}

/// Removes a tag, or a manifest by its digest. Where a registry cannot remove a tag, the manifest behind it is
/// removed, but only if no other tag stands for it and no index of another tag points to it, unless `force`d.
pub fn remove_tag(client: &Client, reference: &Reference, force: bool) -> Result<Removed, ImagesError> {
    let removed = |digest, also| Removed { reference: reference.clone(), digest, also };
    let digest = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.clone(),
        (None, Some(_)) => match client.delete(reference) {
            Ok(()) => return Ok(removed(None, Vec::new())),
            Err(error) if cannot_delete_tags(&error) => descriptor_digest(&client.resolve(reference)?),
            Err(error) => return Err(error.into()),
        },
        (None, None) => return Err(ImagesError::NoTag { name: reference.name() }),
    };
    let users = users(client, reference, &digest)?;
    if !force && (!users.tags.is_empty() || !users.indexes.is_empty()) {
        return Err(ImagesError::Shared {
            name: reference.to_string(),
            digest,
            tags: users.tags,
            indexes: users.indexes,
        });
    }
    client.delete(&reference.untagged().with_digest(digest.clone()))?;
    Ok(removed(Some(digest), users.tags))
}

/// Who else needs a manifest.
#[derive(Default)]
struct Users {
    /// Tags that stand for it.
    tags: Vec<String>,
    /// Tags of indexes that point to it.
    indexes: Vec<String>,
}

fn users(client: &Client, reference: &Reference, digest: &Digest) -> Result<Users, ImagesError> {
    let mut users = Users::default();
    for tag in client.list_tags(reference)? {
        if reference.digest().is_none() && reference.tag() == Some(&tag) {
            continue;
        }
        let Ok(other) = reference.with_tag(&tag) else { continue };
        let found = match client.resolve(&other) {
            Ok(found) => found,
            // Removed since it was listed.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        if descriptor_digest(&found) == *digest {
            users.tags.push(tag);
        } else if points_to(client, &other, &found, digest)? {
            users.indexes.push(tag);
        }
    }
    Ok(users)
}

fn points_to(
    client: &Client,
    name: &Reference,
    found: &Descriptor,
    digest: &Digest,
) -> Result<bool, ImagesError> {
    if !super::is_index(found) {
        return Ok(false);
    }
    let (_, bytes) = client.manifest(&name.with_digest(descriptor_digest(found)))?;
    let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| ImagesError::Malformed {
        name: name.to_string(),
        what: "index",
        reason: error.to_string(),
    })?;
    Ok(index.manifests().iter().any(|entry| entry.digest().as_ref() == digest.as_str()))
}

/// Registries that delete manifests only say so in several ways.
fn cannot_delete_tags(error: &RegistryError) -> bool {
    match error.last() {
        RegistryError::Refused { answer, .. } => {
            matches!(answer.status, 400 | 405 | 501)
                || answer.has_code("UNSUPPORTED")
                || answer.has_code("DIGEST_INVALID")
        }
        RegistryError::Server { answer, .. } => answer.status == 501,
        _ => false,
    }
}
