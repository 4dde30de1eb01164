//! Whole images between registries and stores: by digest, every byte verified, mounts where possible.

use std::io::{self, Read};
use std::sync::Mutex;

use super::error::RegistryError;
use super::graph::Graph;
use super::{Client, Pushed, PushedBlob};
use crate::blob::{BlobSource, Store};
use crate::oci::{Descriptor, Digest, Platform, Reference, descriptor_digest};
use crate::threads;

/// Blobs under way at once.
const PARALLEL_BLOBS: usize = 4;
/// Manifests above this are no manifests.
const MANIFEST_LIMIT_BYTES: u64 = 8 << 20;

/// Opens the blob of a descriptor.
pub(super) type OpenDescriptor<'a> = &'a (dyn Fn(&Descriptor) -> io::Result<Box<dyn Read + Send>> + Sync);

impl Client {
    /// Copies an image, index or artifact to other places, all of it or the image of one platform, and
    /// returns its digest. Blobs are mounted within a registry and stream through otherwise.
    pub fn copy(
        &self,
        from: &Reference,
        to: &[Reference],
        platform: Option<&Platform>,
    ) -> Result<Digest, RegistryError> {
        let top = self.top(from, platform)?;
        let graph = self.graph(from, &top)?;
        let blobs = self.blobs(from);
        let open = |descriptor: &Descriptor| -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(blobs.open_blob(descriptor)?))
        };
        self.put_graph(&graph, &open, to, std::slice::from_ref(from))
    }

    /// Downloads an image, index or artifact into a store, all of it or the image of one platform, and
    /// returns its descriptor. What the store has is not asked for. The store's tags are the caller's.
    pub fn download(
        &self,
        from: &Reference,
        platform: Option<&Platform>,
        store: &Store,
    ) -> Result<Descriptor, RegistryError> {
        let top = self.top(from, platform)?;
        let graph = self.graph(from, &top)?;
        let source = self.blobs(from);
        let wanted: Vec<&Descriptor> =
            graph.blobs.iter().filter(|blob| !store.has(&descriptor_digest(blob))).collect();
        threads::try_each("download", &wanted, PARALLEL_BLOBS, |descriptor| {
            let failed = |error: io::Error| RegistryError::Keep {
                digest: descriptor.digest().to_string(),
                source: error,
            };
            let mut reader = source.open_blob(descriptor)?;
            let mut writer = store.writer().map_err(|error| failed(io::Error::other(error)))?;
            copy_blob(&mut reader, &mut writer).map_err(|error| from_io(error, failed))?;
            writer.commit(Some(descriptor)).map_err(|error| failed(io::Error::other(error)))?;
            Ok(())
        })?;
        for (descriptor, bytes) in &graph.manifests {
            store.put(bytes).map_err(|error| RegistryError::Keep {
                digest: descriptor.digest().to_string(),
                source: io::Error::other(error),
            })?;
        }
        Ok(top)
    }

    /// Uploads an image, index or artifact out of a store or layout and returns its digest.
    pub fn upload(
        &self,
        top: &Descriptor,
        source: &dyn BlobSource,
        to: &[Reference],
        mount_from: &[Reference],
    ) -> Result<Digest, RegistryError> {
        let name = to.first().map_or_else(|| top.digest().to_string(), ToString::to_string);
        let open = |descriptor: &Descriptor| source.open(descriptor).map_err(io::Error::other);
        let graph = Graph::follow(&name, top, &|descriptor| {
            let failed = |source| RegistryError::Source { digest: descriptor.digest().to_string(), source };
            let mut bytes = Vec::new();
            let reader = open(descriptor).map_err(failed)?;
            reader.take(MANIFEST_LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        })?;
        self.put_graph(&graph, &open, to, mount_from)
    }

    /// Finds what a reference is, or its image for a platform.
    fn top(&self, from: &Reference, platform: Option<&Platform>) -> Result<Descriptor, RegistryError> {
        match platform {
            None => Ok(self.manifest(from)?.0),
            Some(platform) => Ok(self.image(from, platform)?.image.descriptor),
        }
    }

    fn graph(&self, from: &Reference, top: &Descriptor) -> Result<Graph, RegistryError> {
        Graph::follow(&from.to_string(), top, &|descriptor| {
            Ok(self.manifest(&from.with_digest(descriptor_digest(descriptor)))?.1)
        })
    }

    /// Puts everything in place: blobs, then manifests by digest from the bottom up, then the tags.
    fn put_graph(
        &self,
        graph: &Graph,
        open: OpenDescriptor<'_>,
        to: &[Reference],
        mount_from: &[Reference],
    ) -> Result<Digest, RegistryError> {
        let Some(((top, top_bytes), children)) = graph.manifests.split_last() else {
            unreachable!("a graph has the manifest it was followed from")
        };
        let mut sources = mount_from.to_vec();
        for reference in to {
            let same = |source: &Reference| source.name() == reference.name();
            if !sources.iter().any(same) || mount_from.iter().any(same) {
                let wanted: Vec<&Descriptor> =
                    graph.blobs.iter().filter(|d| !super::push::stays_away(d)).collect();
                self.push_descriptors(&wanted, open, reference, &sources)?;
                for (descriptor, bytes) in children {
                    let pinned = reference.untagged();
                    self.put_manifest(&pinned, descriptor.media_type().as_ref(), bytes)?;
                }
                sources.insert(0, reference.clone());
            }
        }
        for reference in to {
            self.put_manifest(reference, top.media_type().as_ref(), top_bytes)?;
        }
        Ok(descriptor_digest(top))
    }

    /// Puts blobs into one repository, several at once.
    pub(super) fn push_descriptors(
        &self,
        wanted: &[&Descriptor],
        open: OpenDescriptor<'_>,
        repository: &Reference,
        mount_from: &[Reference],
    ) -> Result<Vec<PushedBlob>, RegistryError> {
        // The largest first: it decides how long all take.
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|descriptor| std::cmp::Reverse(descriptor.size()));
        let pushed: Mutex<Vec<PushedBlob>> = Mutex::default();
        threads::try_each("push", &wanted, PARALLEL_BLOBS, |descriptor| {
            let how: Pushed = self.push_blob(repository, descriptor, &|| open(descriptor), mount_from)?;
            let mut pushed = pushed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            pushed.push((descriptor_digest(descriptor), how));
            Ok(())
        })?;
        Ok(pushed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn copy_blob(reader: &mut dyn Read, writer: &mut dyn io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..count])?;
    }
}

/// Takes our own error out of the `io::Error` that carried it through a reader.
fn from_io(error: io::Error, otherwise: impl FnOnce(io::Error) -> RegistryError) -> RegistryError {
    error.downcast::<RegistryError>().unwrap_or_else(otherwise)
}
