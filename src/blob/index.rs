//! `index.json`: the tags of a layout.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{BlobError, Store, checked_digest};
use crate::oci::{Descriptor, annotation, canonical_json, media_type};
use crate::tree::regular;

pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const INDEX_FILE: &str = "index.json";
pub(super) const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
pub(super) const EMPTY_INDEX: &[u8] =
    br#"{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}"#;

/// A manifest or index that has a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged {
    /// The full reference, or whatever name the layout gives.
    pub reference: String,
    /// What it names, the layout's annotations included.
    pub descriptor: Descriptor,
}

/// Returns the name of an entry of an index: containerd's full one, else the plain tag.
pub(super) fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    let name = annotations.get(annotation::CONTAINERD_NAME).or_else(|| annotations.get(annotation::REF_NAME));
    name.map(String::as_str)
}

/// Returns what is behind the last `:` that is not a port: the tag of a reference.
fn tag_of(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => reference,
    }
}

impl Store {
    /// Returns the tags in byte order.
    pub fn tags(&self) -> Result<Vec<Tagged>, BlobError> {
        let guard = self.lock().shared()?;
        let manifests = read_index(self.path())?.1;
        drop(guard);
        let mut tags: Vec<Tagged> = manifests
            .into_iter()
            .filter_map(|descriptor| {
                let reference = name_of(&descriptor)?.to_owned();
                Some(Tagged { reference, descriptor })
            })
            .collect();
        tags.sort_by(|one, other| one.reference.cmp(&other.reference));
        Ok(tags)
    }

    /// Points the tag `reference` at `descriptor`, which must be in the store.
    pub fn set_tag(&self, reference: &str, descriptor: &Descriptor) -> Result<(), BlobError> {
        self.open_file(&checked_digest(descriptor)?)?;
        let mut descriptor = descriptor.clone();
        let mut annotations = descriptor.annotations().clone().unwrap_or_default();
        annotations.insert(annotation::CONTAINERD_NAME.to_owned(), reference.to_owned());
        annotations.insert(annotation::REF_NAME.to_owned(), tag_of(reference).to_owned());
        descriptor.set_annotations(Some(annotations));
        let entry = serde_json::to_value(&descriptor).expect("a descriptor is plain JSON");
        self.change_index(|entries| {
            entries.retain(|(name, _)| name.as_deref() != Some(reference));
            entries.push((Some(reference.to_owned()), entry.clone()));
        })
    }

    /// Removes a tag; `false` if there was none.
    pub fn remove_tag(&self, reference: &str) -> Result<bool, BlobError> {
        let mut removed = false;
        self.change_index(|entries| {
            let before = entries.len();
            entries.retain(|(name, _)| name.as_deref() != Some(reference));
            removed = entries.len() != before;
        })?;
        Ok(removed)
    }

    /// Rewrites the index in one step, entries by name; what kiln does not know in it stays.
    fn change_index(&self, change: impl FnOnce(&mut Vec<(Option<String>, Value)>)) -> Result<(), BlobError> {
        let _guard = self.lock().exclusive()?;
        let (mut index, descriptors) = read_index(self.path())?;
        let values = match index.remove("manifests") {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        };
        let names = descriptors.iter().map(|descriptor| name_of(descriptor).map(str::to_owned));
        let mut entries: Vec<(Option<String>, Value)> = names.zip(values).collect();
        change(&mut entries);
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        let values: Vec<Value> = entries.into_iter().map(|(_, value)| value).collect();
        index.insert("manifests".to_owned(), Value::Array(values));
        index.entry("schemaVersion").or_insert_with(|| json!(2));
        index.entry("mediaType").or_insert_with(|| json!(media_type::OCI_INDEX));
        self.replace_file(INDEX_FILE, &canonical_json(&index))
    }
}

/// Reads the store's index: as JSON, and its entries.
pub(super) fn read_index(store: &Path) -> Result<(Map<String, Value>, Vec<Descriptor>), BlobError> {
    let path = store.join(INDEX_FILE);
    let bytes = regular::read(&path).map_err(|error| BlobError::io("read", &path, error))?;
    parse_index(&bytes).map_err(|error| BlobError::BrokenIndex { path, problem: error.to_string() })
}

/// Parses an index.
pub(super) fn parse_index(bytes: &[u8]) -> Result<(Map<String, Value>, Vec<Descriptor>), serde_json::Error> {
    let index: Map<String, Value> = serde_json::from_slice(bytes)?;
    let descriptors = match index.get("manifests") {
        None => Vec::new(),
        Some(manifests) => serde_json::from_value(manifests.clone())?,
    };
    Ok((index, descriptors))
}
