//! Images as one tar file: an OCI layout, and docker's archive, which is a layout with a `manifest.json`.
//!
//! The bytes are a function of the image and its names: fixed order, no times, no owners. Documents come
//! first so that a reader knows what is ahead, then the blobs in the image's own order.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::json;

use super::file::Sink;
use super::layout::{LAYOUT_MARKER, index_entries, new_index};
use super::{BuildResult, Destination, OpenStdout, Output, OutputError, OutputParts, Receipt, copy_blob};
use crate::blob::BlobSource;
use crate::oci::{Descriptor, Image, Layer, Reference, canonical_json, descriptor_digest};

/// Which readers the archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Readers of OCI layouts.
    Oci,
    /// `docker load`, old and new, and everything that reads `docker-archive:`.
    Docker,
}

/// An image in a tar.
pub(super) struct ImageArchive {
    kind: Kind,
    destination: Destination,
    names: Vec<Reference>,
    stdout: OpenStdout,
}

impl ImageArchive {
    /// Checks the destination.
    pub(super) fn open(
        kind: Kind,
        destination: &Destination,
        names: &[Reference],
        parts: &OutputParts,
    ) -> Result<Self, OutputError> {
        destination.check()?;
        Ok(Self {
            kind,
            destination: destination.clone(),
            names: names.to_vec(),
            stdout: parts.stdout.clone(),
        })
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Oci => "oci archive",
            Kind::Docker => "docker archive",
        }
    }

    fn write_documents(
        &self,
        tar: &mut Entries<'_>,
        image: &Image,
        names: &[Reference],
    ) -> Result<(), OutputError> {
        tar.file("oci-layout", LAYOUT_MARKER)?;
        let index = new_index(index_entries(image, names));
        tar.file("index.json", &canonical_json(&index))?;
        if self.kind == Kind::Docker {
            tar.file("manifest.json", &docker_manifest(image, names))?;
        }
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        tar.file(&blob_name(&image.descriptor), &image.manifest)?;
        tar.file(&blob_name(&image.config_descriptor), &image.config_bytes)
    }
}

impl Output for ImageArchive {
    fn name(&self) -> String {
        format!("{} {}", self.kind_name(), self.destination.display())
    }

    fn layer_ready(&self, _layer: &Layer) {}

    fn needs_tree(&self) -> bool {
        false
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        let names = result.names_or(&self.names);
        let mut sink = Sink::open(&self.destination, &self.stdout)?;
        let mut tar = Entries { out: &mut sink, destination: &self.destination };
        self.write_documents(&mut tar, &result.image, names)?;
        // Two layers may be equal (two empty ones): a blob is stored once.
        let mut written = BTreeSet::new();
        for layer in &result.image.layers {
            let name = blob_name(&layer.descriptor);
            if !written.insert(name.clone()) {
                continue;
            }
            tar.blob(&name, &layer.descriptor, result.blobs.as_ref())?;
        }
        tar.end()?;
        sink.finish()?;
        Ok(Receipt {
            name: self.kind_name().to_owned(),
            digest: Some(result.image.digest()),
            size_bytes: result.size_bytes(),
            tags: names.iter().map(ToString::to_string).collect(),
            location: self.destination.display(),
        })
    }
}

/// Returns a blob's path in the archive.
pub(super) fn blob_name(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor_digest(descriptor).hex())
}

/// Writes docker's `manifest.json` (moby `image/spec/v1.2.md`): one image, its config, names and layers.
fn docker_manifest(image: &Image, names: &[Reference]) -> Vec<u8> {
    let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_name(&layer.descriptor)).collect();
    canonical_json(&json!([{
        "Config": blob_name(&image.config_descriptor),
        "RepoTags": if tags.is_empty() { json!(null) } else { json!(tags) },
        "Layers": layers,
    }]))
}

/// A tar under construction: regular files and directories of root, from 1970.
pub(super) struct Entries<'a> {
    pub(super) out: &'a mut Sink,
    pub(super) destination: &'a Destination,
}

impl Entries<'_> {
    fn header(&mut self, name: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<(), OutputError> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(|e| self.destination.write_error(e))?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.out.write_all(bytes).map_err(|e| self.destination.write_error(e))
    }

    fn pad(&mut self, size: u64) -> Result<(), OutputError> {
        let tail = (size % 512) as usize;
        if tail == 0 { Ok(()) } else { self.write(&[0; 512][tail..]) }
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), OutputError> {
        self.header(name, tar::EntryType::Directory, 0o755, 0)
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        self.header(name, tar::EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    pub(super) fn blob(
        &mut self,
        name: &str,
        blob: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<(), OutputError> {
        self.header(name, tar::EntryType::Regular, 0o644, blob.size())?;
        copy_blob(source, blob, self.out)?;
        self.pad(blob.size())
    }

    pub(super) fn end(&mut self) -> Result<(), OutputError> {
        self.write(&[0; 1024])
    }
}
