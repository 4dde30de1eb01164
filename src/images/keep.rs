//! Whole images into a store, a registry or a layout.

use std::io::{BufReader, Write};

use super::{ImagesError, Origin};
use crate::blob::{BlobError, BlobSource, Store};
use crate::oci::{Descriptor, Digest, Reference, descriptor_digest};
use crate::output::{self, LayoutTarget, Whole};
use crate::registry::Client;
use crate::threads;

/// Blobs under way at once.
const PARALLEL_BLOBS: usize = 4;
/// Bytes copied at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Brings everything below an origin into a store. What the store has is not read. Tags are the caller's.
pub fn keep(origin: &Origin, store: &Store) -> Result<(), ImagesError> {
    let graph = origin.graph()?;
    let wanted: Vec<&Descriptor> =
        graph.blobs.iter().filter(|blob| !store.has(&descriptor_digest(blob))).collect();
    threads::try_each("keep", &wanted, PARALLEL_BLOBS, |descriptor| {
        keep_blob(origin.source.as_ref(), descriptor, store)
    })?;
    for (_, bytes) in &graph.manifests {
        store.put(bytes)?;
    }
    Ok(())
}

fn keep_blob(source: &dyn BlobSource, descriptor: &Descriptor, store: &Store) -> Result<(), BlobError> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, source.open(descriptor)?);
    let mut writer = store.writer()?;
    let copied = std::io::copy(&mut reader, &mut writer).and_then(|_| writer.flush());
    copied.map_err(|error| BlobError::Source {
        digest: descriptor_digest(descriptor),
        place: store.path().display().to_string(),
        source: error.into(),
    })?;
    writer.commit(Some(descriptor)).map(drop)
}

/// Pushes everything below an origin under each of `to`; returns its digest. Within a registry blobs are
/// mounted, and within a repository nothing moves but the manifest.
pub fn push(origin: &Origin, client: &Client, to: &[Reference]) -> Result<Digest, ImagesError> {
    origin.check_complete()?;
    let digest = descriptor_digest(&origin.descriptor);
    let is_home = |reference: &&Reference| {
        origin.repository.as_ref().is_some_and(|repository| repository.name() == reference.name())
    };
    let (home, away): (Vec<&Reference>, Vec<&Reference>) = to.iter().partition(is_home);
    let away: Vec<Reference> = away.into_iter().cloned().collect();
    if !away.is_empty() {
        let mount_from: Vec<Reference> = origin.repository.iter().cloned().collect();
        client.upload(&origin.descriptor, origin.source.as_ref(), &away, &mount_from)?;
    }
    if !home.is_empty() {
        let bytes = origin.read(&origin.descriptor, "manifest")?;
        for reference in home {
            client.put_manifest(reference, origin.descriptor.media_type().as_ref(), &bytes)?;
        }
    }
    Ok(digest)
}

/// Writes everything below an origin into a layout, under these names.
pub fn write_layout(
    origin: &Origin,
    target: &LayoutTarget,
    names: &[Reference],
) -> Result<Digest, ImagesError> {
    let graph = origin.graph()?;
    let whole = Whole {
        top: &origin.descriptor,
        manifests: &graph.manifests,
        blobs: &graph.blobs,
        source: origin.source.as_ref(),
    };
    output::write_whole(&whole, target, names)?;
    Ok(descriptor_digest(&origin.descriptor))
}
