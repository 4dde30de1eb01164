//! A repository of a registry as a cache.
//!
//! The tag of a record is `key-` and its key; `step-…` points at the newest record of a step. Where the cache's
//! reference has a tag of its own, that goes before both, so that several caches, or a cache and an image, can share
//! a repository. Writing twice is harmless: the same key means the same inputs, and the last writer wins.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::artifact::{self, Header};
use super::{Cache, CacheError, Entry, Found, Key, Record, Removed, SharedCache, StepName};
use crate::blob::BlobSource;
use crate::oci::{Digest, Reference, descriptor, media_type};
use crate::registry::{Client, RegistryError, RemoteBlobs};
use crate::threads;

/// Uses the repository of `reference` as a cache. Layers are mounted from `mount_from` instead of being uploaded,
/// where one of these repositories has them.
pub fn open_registry(client: Client, reference: Reference, mount_from: Vec<Reference>) -> SharedCache {
    let blobs = client.blobs(&reference);
    Arc::new(RegistryCache { client, reference, blobs, mount_from })
}

/// How many records are looked at at once when all of them are listed.
const LOOKS: usize = 8;

struct RegistryCache {
    client: Client,
    reference: Reference,
    blobs: Arc<RemoteBlobs>,
    mount_from: Vec<Reference>,
}

impl std::fmt::Debug for RegistryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryCache({})", self.describe())
    }
}

impl RegistryCache {
    fn tag(&self, kind: &str, name: &str) -> Result<Reference, CacheError> {
        let tag = match self.reference.tag() {
            Some(prefix) => format!("{prefix}-{kind}-{name}"),
            None => format!("{kind}-{name}"),
        };
        self.reference.with_tag(&tag).map_err(|error| CacheError::Refused {
            place: self.describe(),
            name: tag,
            reason: error.reason,
        })
    }

    fn failed(&self, source: RegistryError) -> CacheError {
        CacheError::Registry { place: self.describe(), source: Arc::new(source) }
    }

    /// Fails at once if the registry could not be reached before: many ask at the same time, and more later.
    fn reach(&self) -> Result<(), CacheError> {
        let failed = |source| CacheError::Registry { place: self.describe(), source };
        self.client.reach(&self.reference).map_err(failed)
    }

    fn refused(&self, at: &Reference, reason: String) -> CacheError {
        CacheError::Refused { place: self.describe(), name: at.tag_or_digest().to_owned(), reason }
    }

    /// Fetches what is behind a tag, with the digest of its manifest.
    fn header(&self, at: &Reference) -> Result<Option<(Digest, Header)>, CacheError> {
        let (descriptor, artifact) = match self.client.artifact(at) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(
                error @ (RegistryError::Malformed { .. }
                | RegistryError::Corrupt { .. }
                | RegistryError::Truncated { .. }
                | RegistryError::LegacyManifest { .. }
                | RegistryError::NotAnImage { .. }
                | RegistryError::Protocol { .. }),
            ) => return Err(self.refused(at, error.full())),
            Err(error) => return Err(self.failed(error)),
        };
        let header = artifact::read_header(&artifact).map_err(|reason| self.refused(at, reason))?;
        Ok(Some((crate::oci::descriptor_digest(&descriptor), header)))
    }

    fn record(&self, at: &Reference, header: &Header) -> Result<Record, CacheError> {
        let mut config = Vec::new();
        let reader = self.blobs.open_blob(&header.config).map_err(|error| self.failed(error))?;
        reader
            .take(header.config.size())
            .read_to_end(&mut config)
            .map_err(|error| self.refused(at, format!("its config can't be read: {error}")))?;
        artifact::read_record(header, &config).map_err(|reason| self.refused(at, reason))
    }
}

impl Cache for RegistryCache {
    fn describe(&self) -> String {
        match self.reference.tag() {
            Some(tag) => format!("{}:{tag}", self.reference.name()),
            None => self.reference.name(),
        }
    }

    fn find(&self, key: &Key) -> Result<Option<Found>, CacheError> {
        self.reach()?;
        let at = self.tag("key", &key.to_string())?;
        let Some((_, header)) = self.header(&at)? else { return Ok(None) };
        if header.key != *key {
            return Err(self.refused(&at, format!("it is the record of another key, `{}`", header.key)));
        }
        self.client.note_blob(&self.reference, &header.layer.digest());
        let mut found = header.found(self.describe());
        found.blobs = Some(self.blobs.clone());
        found.repository = Some(self.reference.clone());
        Ok(Some(found))
    }

    fn newest(&self, step: &StepName) -> Result<Option<Record>, CacheError> {
        self.reach()?;
        let at = self.tag("step", &step.id())?;
        let Some((_, header)) = self.header(&at)? else { return Ok(None) };
        let record = self.record(&at, &header)?;
        if record.step != *step {
            return Err(self.refused(&at, format!("expected {step}, found {}", record.step)));
        }
        Ok(Some(record))
    }

    fn put(&self, record: &Record, layer: &dyn BlobSource) -> Result<(), CacheError> {
        self.reach()?;
        let (artifact, config) = artifact::seal(record);
        let failed = |error| self.failed(error);
        let open_layer = || -> io::Result<Box<dyn Read + Send>> {
            layer.open(&record.layer.descriptor).map_err(io::Error::other)
        };
        let push =
            |descriptor, open| self.client.push_blob(&self.reference, descriptor, open, &self.mount_from);
        push(&record.layer.descriptor, &open_layer).map_err(failed)?;
        let config_descriptor = descriptor(media_type::OCI_CONFIG, &Digest::of(&config), config.len() as u64);
        let open_config =
            || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(config.clone()))) };
        push(&config_descriptor, &open_config).map_err(failed)?;
        let (sealed, manifest) = artifact.seal();
        for at in [self.tag("key", &record.key.to_string())?, self.tag("step", &record.step.id())?] {
            match self.client.put_manifest(&at, sealed.media_type().as_ref(), &manifest) {
                // Another run was first: the same key means the same inputs, so its record will do.
                Ok(_) | Err(RegistryError::Immutable { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let tags = match self.client.list_tags(&self.reference) {
            Ok(tags) => tags,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let prefix = self.prefix();
        let ours = |tag: &String| {
            tag.strip_prefix(&prefix)
                .is_some_and(|rest| rest.starts_with("key-") || rest.starts_with("step-"))
        };
        let tags: Vec<String> = tags.into_iter().filter(ours).collect();
        // Removing a manifest removes all its tags: the step's tag is only of interest where it stands alone.
        let found = self.look_at(&tags)?;
        let is_key =
            |entry: &Entry| entry.name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with("key-"));
        let keys: BTreeSet<Digest> =
            found.iter().filter(|entry| is_key(entry)).filter_map(|entry| entry.manifest.clone()).collect();
        let is_double = |entry: &Entry| {
            !is_key(entry) && entry.manifest.as_ref().is_some_and(|manifest| keys.contains(manifest))
        };
        Ok(found.into_iter().filter(|entry| !is_double(entry)).collect())
    }

    fn remove(&self, entries: &[Entry]) -> Result<Removed, CacheError> {
        let mut removed = Removed::default();
        let mut gone = BTreeSet::new();
        for entry in entries {
            let Some(manifest) = entry.manifest.clone().filter(|manifest| gone.insert(manifest.clone()))
            else {
                continue;
            };
            match self.client.delete(&self.reference.untagged().with_digest(manifest)) {
                Ok(()) => removed.records += 1,
                // Another prune was first.
                Err(error) if error.is_not_found() => {}
                Err(RegistryError::Refused { answer, .. }) if answer.status == 405 => {
                    return Err(CacheError::NoDeletion { place: self.describe() });
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(removed)
    }
}

impl RegistryCache {
    fn prefix(&self) -> String {
        self.reference.tag().map(|tag| format!("{tag}-")).unwrap_or_default()
    }

    /// Fetches what is behind tags, a few at a time, in their order.
    fn look_at(&self, tags: &[String]) -> Result<Vec<Entry>, CacheError> {
        let found = threads::try_each("cache list", tags, LOOKS, |tag| self.entry(tag))?;
        let mut found: Vec<Entry> = found.into_iter().flatten().collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn entry(&self, tag: &str) -> Result<Option<Entry>, CacheError> {
        let at = self.reference.with_tag(tag).map_err(|error| CacheError::Refused {
            place: self.describe(),
            name: tag.to_owned(),
            reason: error.reason,
        })?;
        match self.header(&at) {
            Ok(Some((manifest, header))) => Ok(Some(header.entry(tag.to_owned(), Some(manifest), None))),
            Ok(None) => Ok(None),
            Err(CacheError::Refused { reason, .. }) => {
                let manifest = match self.client.resolve(&at) {
                    Ok(descriptor) => Some(crate::oci::descriptor_digest(&descriptor)),
                    Err(_) => None,
                };
                Ok(Some(Entry::unreadable(tag.to_owned(), manifest, &reason)))
            }
            Err(error) => Err(error),
        }
    }
}
