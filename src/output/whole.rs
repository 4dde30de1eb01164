//! Whole images as they are, indexes and artifacts included, into OCI layouts: nothing is read into, nothing
//! is changed.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::archive::{Entries, blob_name};
use super::file::{Sink, write_file};
use super::layout::{LAYOUT_MARKER, LayoutDirectory, entries_of, new_index};
use super::{Destination, OpenStdout, OutputError};
use crate::blob::BlobSource;
use crate::oci::{Descriptor, Reference, canonical_json, descriptor_digest};

/// Everything an image, index or artifact is made of.
pub struct Whole<'a> {
    /// What it is.
    pub top: &'a Descriptor,
    /// Its manifests, `top`'s own the last.
    pub manifests: &'a [(Descriptor, Vec<u8>)],
    /// Its blobs.
    pub blobs: &'a [Descriptor],
    /// Has the blobs.
    pub source: &'a dyn BlobSource,
}

/// An OCI layout to write to.
pub enum LayoutTarget {
    /// A directory; images in it with other names stay.
    Directory(PathBuf),
    /// A tar.
    Archive(Destination, OpenStdout),
}

/// Writes an image whole: blobs, manifests, and then its names.
pub fn write_whole(whole: &Whole<'_>, target: &LayoutTarget, names: &[Reference]) -> Result<(), OutputError> {
    let entries = entries_of(whole.top, names);
    match target {
        LayoutTarget::Directory(path) => {
            let layout = LayoutDirectory::open(path, names)?;
            let blobs = path.join("blobs/sha256");
            fs::create_dir_all(&blobs).map_err(|source| OutputError::write(&blobs, source))?;
            for blob in whole.blobs {
                layout.put_blob(whole.source, blob)?;
            }
            for (descriptor, bytes) in whole.manifests {
                write_file(&layout.blob_path(&descriptor_digest(descriptor)), bytes)?;
            }
            layout.add_entries(entries)
        }
        LayoutTarget::Archive(destination, stdout) => {
            destination.check()?;
            let sink = Sink::open(destination, stdout)?;
            archive(whole, entries, destination, sink)
        }
    }
}

fn archive(
    whole: &Whole<'_>,
    entries: Vec<Value>,
    destination: &Destination,
    mut sink: Sink,
) -> Result<(), OutputError> {
    let mut tar = Entries { out: &mut sink, destination };
    tar.file("oci-layout", LAYOUT_MARKER)?;
    tar.file("index.json", &canonical_json(&new_index(entries)))?;
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    for (descriptor, bytes) in whole.manifests.iter().rev() {
        tar.file(&blob_name(descriptor), bytes)?;
    }
    for blob in whole.blobs {
        tar.blob(&blob_name(blob), blob, whole.source)?;
    }
    tar.end()?;
    sink.finish()
}

/// Describes an image in `index.json`, without what its origin's layout said of it.
pub(super) fn plain_entry(top: &Descriptor) -> Value {
    let mut entry = json!({
        "mediaType": top.media_type().to_string(),
        "digest": top.digest().to_string(),
        "size": top.size(),
    });
    if let Some(platform) = top.platform() {
        entry["platform"] = json!({"os": platform.os(), "architecture": platform.architecture()});
        if let Some(variant) = platform.variant() {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    if let Some(kind) = top.artifact_type() {
        entry["artifactType"] = json!(kind.to_string());
    }
    entry
}
