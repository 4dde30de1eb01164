//! Indexes out of images that were built apart: a build spreads over many machines with nothing but a registry
//! between them, and one of them merges.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::part::Part;
use super::{ImagesError, Origin, is_index, keep, push};
use crate::blob::Store;
use crate::oci::{
    Descriptor, Digest, Platform, Reference, canonical_json, descriptor, descriptor_digest, media_type,
};
use crate::registry::Client;

/// An index may point to indexes, this deep.
const MOST_INDEXES: usize = 8;

/// An index in the making.
#[derive(Default)]
pub struct Merge {
    parts: Vec<Part>,
    annotations: BTreeMap<String, String>,
    /// The index that this is a copy of, until something is changed.
    original: Option<(Descriptor, Vec<u8>)>,
}

/// What an annotation is put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The index.
    Index,
    /// The index's entry of one platform, or all entries.
    Entry(Option<Platform>),
    /// The manifest of one platform, or all: these get new digests.
    Manifest(Option<Platform>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<&'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Merge {
    /// Returns the entries in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Adds an image, or the images of an index. `platform` goes before what an image's config says. An image
    /// for a platform that is there already is an error, unless it is to `replace` it.
    pub fn add(
        &mut self,
        origin: &Origin,
        platform: Option<&Platform>,
        replace: bool,
    ) -> Result<(), ImagesError> {
        if !is_index(&origin.descriptor) {
            let known = match platform {
                Some(platform) => Some(platform.clone()),
                None => origin.platform()?,
            };
            self.original = None;
            return self.insert(Part::new(origin.clone(), known.as_ref()), replace);
        }
        if platform.is_some() {
            return Err(ImagesError::Malformed {
                name: origin.name.clone(),
                what: "platform",
                reason: "it is an index, whose images have platforms of their own".to_owned(),
            });
        }
        let is_first = self.parts.is_empty();
        self.flatten(origin, replace, 0)?;
        if is_first && self.original.is_none() {
            self.take_over(origin)?;
        } else {
            self.original = None;
        }
        Ok(())
    }

    /// Remembers an index that nothing is different from yet.
    fn take_over(&mut self, origin: &Origin) -> Result<(), ImagesError> {
        let bytes = origin.read(&origin.descriptor, "index")?;
        let index: Value = origin.document(&origin.descriptor, "index")?;
        for (key, value) in index["annotations"].as_object().into_iter().flatten() {
            self.annotations.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        let as_it_was =
            index["manifests"].as_array().is_some_and(|entries| {
                entries.len() == self.parts.len()
                    && self.parts.iter().zip(entries).all(|(part, entry)| {
                        entry["digest"] == part.descriptor().digest().to_string().as_str()
                    })
            });
        if as_it_was {
            self.original = Some((origin.descriptor.clone(), bytes));
        }
        Ok(())
    }

    fn flatten(&mut self, origin: &Origin, replace: bool, depth: usize) -> Result<(), ImagesError> {
        if depth == MOST_INDEXES {
            return Err(ImagesError::Malformed {
                name: origin.name.clone(),
                what: "index",
                reason: format!("expected images within {MOST_INDEXES} indexes, found another index"),
            });
        }
        origin.check_complete()?;
        for (descriptor, entry) in origin.entries_as_written()? {
            let part = origin.part(&descriptor);
            if is_index(&descriptor) {
                self.flatten(&part, replace, depth + 1)?;
            } else {
                self.insert(Part { origin: part, entry, rewritten: false }, replace)?;
            }
        }
        Ok(())
    }

    fn insert(&mut self, part: Part, replace: bool) -> Result<(), ImagesError> {
        let platform = part.platform();
        let same = |other: &Part| {
            other.descriptor().digest() == part.descriptor().digest() && other.platform() == platform
        };
        if self.parts.iter().any(same) {
            return Ok(());
        }
        // Attestations have the platform nobody has, and there is one for each image.
        if let Some(platform) = platform.filter(|platform| platform.os != "unknown")
            && let Some(other) =
                self.parts.iter_mut().find(|other| other.platform().as_ref() == Some(&platform))
        {
            if !replace {
                return Err(ImagesError::SamePlatform {
                    platform: Box::new(platform),
                    first: other.origin.name.clone(),
                    second: part.origin.name,
                });
            }
            let gone = other.descriptor().digest().to_string();
            *other = part;
            self.drop_attestations(&gone);
            return Ok(());
        }
        self.parts.push(part);
        Ok(())
    }

    /// Drops what BuildKit attached to an image that is no longer there.
    fn drop_attestations(&mut self, of: &str) {
        self.parts.retain(|part| part.entry["annotations"]["vnd.docker.reference.digest"] != of);
    }

    /// Finds an entry by platform, digest or the beginning of one.
    pub fn find(&mut self, wanted: &str) -> Result<&mut Part, ImagesError> {
        let platform: Option<Platform> = wanted.parse().ok();
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let is_hex = digits.len() >= 6 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let matches = |part: &Part| {
            platform.as_ref().is_some_and(|platform| part.is_for(platform))
                || (is_hex && descriptor_digest(part.descriptor()).hex().starts_with(digits))
        };
        let found: Vec<usize> = (0..self.parts.len()).filter(|at| matches(&self.parts[*at])).collect();
        match found[..] {
            [at] => {
                self.original = None;
                Ok(&mut self.parts[at])
            }
            [] => Err(ImagesError::NoEntry { wanted: wanted.to_owned(), present: self.labels() }),
            _ => Err(ImagesError::SeveralEntries {
                wanted: wanted.to_owned(),
                found: found.iter().map(|at| self.parts[*at].label()).collect(),
            }),
        }
    }

    /// Takes an entry out of the index.
    pub fn remove(&mut self, wanted: &str) -> Result<(), ImagesError> {
        let gone = self.find(wanted)?;
        let (entry, digest) = (gone.entry.clone(), gone.descriptor().digest().to_string());
        self.parts.retain(|part| part.entry != entry);
        self.drop_attestations(&digest);
        Ok(())
    }

    fn labels(&self) -> Vec<String> {
        self.parts.iter().map(Part::label).collect()
    }

    /// Puts annotations on the index, on entries of it, or on manifests; an annotation of that name is replaced.
    pub fn annotate(
        &mut self,
        scope: &Scope,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), ImagesError> {
        self.original = None;
        let (platform, manifest) = match scope {
            Scope::Index => {
                self.annotations.extend(annotations.clone());
                return Ok(());
            }
            Scope::Entry(platform) => (platform, false),
            Scope::Manifest(platform) => (platform, true),
        };
        let mut found = false;
        for part in &mut self.parts {
            // What is attached to images is not an image.
            let is_image = part.platform().is_some_and(|offered| offered.os != "unknown");
            if !is_image || platform.as_ref().is_some_and(|platform| !part.is_for(platform)) {
                continue;
            }
            found = true;
            if manifest {
                part.annotate_manifest(annotations)?;
            } else {
                part.annotate(annotations);
            }
        }
        if found {
            return Ok(());
        }
        let wanted = platform.as_ref().map_or_else(|| "any platform".to_owned(), ToString::to_string);
        Err(ImagesError::NoEntry { wanted, present: self.labels() })
    }

    /// Returns the index. The same parts in the same order have the same digest; an index that nothing was
    /// changed about is the one it was. Docker's media types are used where every part has them and nothing
    /// needs annotations.
    pub fn seal(&self) -> Result<(Descriptor, Vec<u8>), ImagesError> {
        if let Some(original) = &self.original {
            return Ok(original.clone());
        }
        if self.parts.is_empty() {
            return Err(ImagesError::Empty);
        }
        let plain = |part: &Part| {
            part.descriptor().media_type().as_ref() == media_type::DOCKER_MANIFEST
                && part.entry["annotations"].is_null()
        };
        let kind = match self.annotations.is_empty() && self.parts.iter().all(plain) {
            true => media_type::DOCKER_LIST,
            false => media_type::OCI_INDEX,
        };
        let manifests = self.parts.iter().map(|part| &part.entry).collect();
        let annotations = &self.annotations;
        let bytes =
            canonical_json(&IndexJson { schema_version: 2, media_type: kind, manifests, annotations });
        Ok((descriptor(kind, &Digest::of(&bytes), bytes.len() as u64), bytes))
    }

    /// Puts the index under each of `to`, after every manifest it points to and all their blobs are in that
    /// repository: mounted from others of that registry, copied from elsewhere. Tags move last.
    pub fn push(&self, client: &Client, to: &[Reference]) -> Result<Digest, ImagesError> {
        let (sealed, bytes) = self.seal()?;
        let mut repositories: Vec<&Reference> = Vec::new();
        for reference in to {
            if !repositories.iter().any(|other| other.name() == reference.name()) {
                repositories.push(reference);
            }
        }
        for repository in repositories {
            let untagged = repository.untagged();
            for part in &self.parts {
                let home = part.origin.repository.as_ref();
                let is_there = home.is_some_and(|home| home.name() == untagged.name());
                if !is_there || part.rewritten {
                    push(&part.origin, client, std::slice::from_ref(&untagged))?;
                }
            }
        }
        for reference in to {
            client.put_manifest(reference, sealed.media_type().as_ref(), &bytes)?;
        }
        Ok(descriptor_digest(&sealed))
    }

    /// Keeps the index and everything below it in a store, under these names.
    pub fn keep(&self, store: &Store, names: &[Reference]) -> Result<Digest, ImagesError> {
        let (sealed, bytes) = self.seal()?;
        for part in &self.parts {
            keep(&part.origin, store)?;
        }
        let digest = store.put(&bytes)?;
        for name in names {
            store.set_tag(&name.to_string(), &sealed)?;
        }
        Ok(digest)
    }
}
