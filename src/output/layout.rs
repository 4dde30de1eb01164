//! OCI image layout in a directory (image-spec, `image-layout.md`), and the index that names its images.
//!
//! Blobs first, `index.json` last and by rename: a reader sees the image whole or not at all. An existing
//! layout keeps its other images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file::{PendingFile, check_directory, write_file};
use super::{BuildResult, Output, OutputError, Receipt, copy_blob};
use crate::blob::BlobSource;
use crate::oci::{
    Descriptor, Digest, Image, Layer, Reference, annotation, canonical_json, descriptor_digest, media_type,
};
use crate::tree::regular;

/// Content of the file `oci-layout`.
pub(super) const LAYOUT_MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout in a directory.
pub(super) struct LayoutDirectory {
    path: PathBuf,
    names: Vec<Reference>,
}

impl LayoutDirectory {
    /// Creates the directory, or checks the one that is there.
    pub(super) fn open(path: &Path, names: &[Reference]) -> Result<Self, OutputError> {
        check_directory(path)?;
        let read = |source| OutputError::Read { path: path.to_owned(), source };
        if !path.join("oci-layout").exists() && fs::read_dir(path).map_err(read)?.next().is_some() {
            return Err(OutputError::NotLayout { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), names: names.to_vec() })
    }

    /// Returns where a blob is, or would be.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// Copies a blob unless the layout has it, by size, already.
    pub(super) fn put_blob(
        &self,
        source: &dyn BlobSource,
        descriptor: &Descriptor,
    ) -> Result<(), OutputError> {
        let digest = descriptor_digest(descriptor);
        let path = self.blob_path(&digest);
        if fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == descriptor.size()) {
            return Ok(());
        }
        let mut file = PendingFile::create(&path)?;
        copy_blob(source, descriptor, &mut file)?;
        file.finish()
    }

    /// Puts entries into the index, which makes their images appear.
    pub(super) fn add_entries(&self, entries: Vec<Value>) -> Result<(), OutputError> {
        let index = merge_index(self.read_index()?, entries);
        write_file(&self.path.join("oci-layout"), LAYOUT_MARKER)?;
        write_file(&self.path.join("index.json"), &canonical_json(&index))
    }

    /// Reads the index that is there.
    fn read_index(&self) -> Result<Option<Value>, OutputError> {
        let path = self.path.join("index.json");
        let bytes = match regular::read_follow(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OutputError::Read { path, source }),
        };
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(index) if index.is_object() => Ok(Some(index)),
            Ok(_) => Err(OutputError::BadLayout { path, reason: "expected a JSON object".to_owned() }),
            Err(error) => Err(OutputError::BadLayout { path, reason: error.to_string() }),
        }
    }
}

impl Output for LayoutDirectory {
    fn name(&self) -> String {
        format!("oci layout {}", self.path.display())
    }

    fn layer_ready(&self, _layer: &Layer) {}

    fn needs_tree(&self) -> bool {
        false
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        let image = &result.image;
        let blobs = self.path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| OutputError::write(&blobs, source))?;
        for layer in &image.layers {
            self.put_blob(result.blobs.as_ref(), &layer.descriptor)?;
        }
        let config_digest = descriptor_digest(&image.config_descriptor);
        write_file(&self.blob_path(&config_digest), &image.config_bytes)?;
        write_file(&self.blob_path(&image.digest()), &image.manifest)?;
        let names = result.names_or(&self.names);
        self.add_entries(index_entries(image, names))?;
        Ok(Receipt {
            name: "oci layout".to_owned(),
            digest: Some(image.digest()),
            size_bytes: result.size_bytes(),
            tags: names.iter().map(ToString::to_string).collect(),
            location: self.path.display().to_string(),
        })
    }
}

/// Returns one index entry for each name; a nameless image has one without annotations.
pub(super) fn index_entries(image: &Image, names: &[Reference]) -> Vec<Value> {
    named_entries(serde_json::to_value(&image.descriptor).expect("a descriptor is plain JSON"), names)
}

/// The same for what is more, or else, than an image.
pub(super) fn entries_of(top: &Descriptor, names: &[Reference]) -> Vec<Value> {
    named_entries(super::whole::plain_entry(top), names)
}

fn named_entries(plain: Value, names: &[Reference]) -> Vec<Value> {
    if names.is_empty() {
        return vec![plain];
    }
    names
        .iter()
        .map(|name| {
            let mut entry = plain.clone();
            entry["annotations"] = json!({
                annotation::CONTAINERD_NAME: name.to_string(),
                annotation::REF_NAME: name.tag().unwrap_or("latest"),
            });
            entry
        })
        .collect()
}

/// Makes a new index of `entries`.
pub(super) fn new_index(entries: Vec<Value>) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries })
}

/// Puts `entries` into an index in place of those they supersede: of the same full name, or nameless both.
fn merge_index(old: Option<Value>, entries: Vec<Value>) -> Value {
    let Some(mut index) = old else { return new_index(entries) };
    let old = match index["manifests"].take() {
        Value::Array(old) => old,
        _ => Vec::new(),
    };
    let superseded = |there: &Value| entries.iter().any(|new| names_same(new, there));
    let mut manifests: Vec<Value> = old.into_iter().filter(|there| !superseded(there)).collect();
    manifests.extend(entries);
    index["manifests"] = Value::Array(manifests);
    index
}

/// Tells whether two entries have the same name: the full one where both have it, else the tag.
fn names_same(a: &Value, b: &Value) -> bool {
    let get = |entry: &Value, key: &str| entry["annotations"][key].as_str().map(str::to_owned);
    match (get(a, annotation::CONTAINERD_NAME), get(b, annotation::CONTAINERD_NAME)) {
        (Some(a), Some(b)) => a == b,
        _ => get(a, annotation::REF_NAME) == get(b, annotation::REF_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, name: Option<&str>, tag: Option<&str>) -> Value {
        let mut annotations = serde_json::Map::new();
        if let Some(name) = name {
            annotations.insert(annotation::CONTAINERD_NAME.to_owned(), name.into());
        }
        if let Some(tag) = tag {
            annotations.insert(annotation::REF_NAME.to_owned(), tag.into());
        }
        json!({"digest": digest, "annotations": annotations})
    }

    fn digests(index: &Value) -> Vec<&str> {
        index["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_name_moves_and_other_images_stay() {
        let old = new_index(vec![
            entry("old", Some("r/app:1"), Some("1")),
            entry("other repository", Some("r/other:1"), Some("1")),
            entry("other tag", Some("r/app:2"), Some("2")),
            entry("tag only", None, Some("1")),
            entry("nameless", None, None),
        ]);
        let merged = merge_index(Some(old), vec![entry("new", Some("r/app:1"), Some("1"))]);
        assert_eq!(digests(&merged), ["other repository", "other tag", "nameless", "new"]);
    }

    #[test]
    fn a_nameless_image_replaces_a_nameless_one_only() {
        let old = new_index(vec![entry("nameless", None, None), entry("named", None, Some("1"))]);
        let merged = merge_index(Some(old), vec![entry("new", None, None)]);
        assert_eq!(digests(&merged), ["named", "new"]);
    }

    #[test]
    fn unknown_fields_of_an_index_are_kept() {
        let mut old = new_index(vec![]);
        old["annotations"] = json!({"x": "y"});
        assert_eq!(merge_index(Some(old), vec![])["annotations"]["x"], "y");
    }
}
