//! Changes into a blob of the store, in one pass.
//!
//! The calling thread walks, reads, frames and hashes the tar, hands blocks to the compressing threads, and hashes and
//! stores what comes back. Each file is read once; nothing is kept but a few blocks, whatever the layer's size.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{ChangeSet, LayerError, TarOptions, write_tar};
use crate::blob::{BlobError, Growing, Store, StoreWriter};
use crate::oci::{DiffId, Layer, ManifestFormat, descriptor, media_type};
use crate::stream::{Compression, Compressor, Counted, HashingWriter};

/// How a layer becomes a blob.
#[derive(Debug, Clone, Copy)]
pub struct LayerOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// How many threads compress; does not change the bytes.
    pub threads: NonZeroUsize,
    /// How the tar is written.
    pub tar: TarOptions,
    /// Whose media types the descriptor uses.
    pub format: ManifestFormat,
}

/// Returns the media type of a layer (OCI image-spec `layer.md`; for docker with zstd, containerd's).
pub fn layer_media_type(format: ManifestFormat, compression: Compression) -> String {
    let (plain, gzip, zstd) = match format {
        ManifestFormat::Oci => (media_type::OCI_LAYER, "+gzip", "+zstd"),
        ManifestFormat::Docker => (media_type::DOCKER_LAYER, ".gzip", ".zstd"),
    };
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip { .. } => gzip,
        Compression::Zstd { .. } => zstd,
    };
    format!("{plain}{suffix}")
}

/// A layer that is larger than this when it is half written is shown to who wants to read along: less would not be
/// worth a request.
pub const LARGE_BYTES: u64 = 16 << 20;

/// Hears of a layer that grows large.
pub type Watch<'a> = &'a mut (dyn FnMut(Arc<Growing>) + Send);

/// Writes `changes` into `store`; `watch` is told once the blob has grown to [`LARGE_BYTES`].
pub fn write_layer(
    changes: ChangeSet,
    options: &LayerOptions,
    store: &Store,
    watch: Option<Watch<'_>>,
) -> Result<Layer, LayerError> {
    write_blob(options, store, watch, |tar| write_tar(changes, &options.tar, tar))
}

/// Where the tar goes on its way into the store.
type TarSink<'a, 'w> = HashingWriter<Compressor<&'a mut Watched<'w>>>;

/// Writes the tar that `write` makes into `store`.
pub(super) fn write_blob(
    options: &LayerOptions,
    store: &Store,
    watch: Option<Watch<'_>>,
    write: impl FnOnce(&mut TarSink<'_, '_>) -> Result<(), LayerError>,
) -> Result<Layer, LayerError> {
    let blob = store.writer()?;
    let path = blob.path().to_owned();
    let mut out = Watched { blob, watch, left_bytes: LARGE_BYTES };
    let diff_id = compress(write, options, &mut out).map_err(|error| match error {
        LayerError::Write { source } => BlobError::io("write", &path, source).into(),
        error => error,
    })?;
    let counted = out.blob.commit(None)?;
    let media_type = layer_media_type(options.format, options.compression);
    Ok(Layer {
        descriptor: descriptor(&media_type, &counted.digest, counted.size_bytes),
        diff_id: DiffId::new(diff_id.digest),
    })
}

fn compress(
    write: impl FnOnce(&mut TarSink<'_, '_>) -> Result<(), LayerError>,
    options: &LayerOptions,
    out: &mut Watched<'_>,
) -> Result<Counted, LayerError> {
    let failed = |source| LayerError::Write { source };
    let compressor = Compressor::new(out, options.compression, options.threads).map_err(failed)?;
    let mut tar = HashingWriter::new(compressor);
    write(&mut tar)?;
    let (compressor, counted) = tar.finish();
    compressor.finish().map_err(failed)?;
    Ok(counted)
}

/// The blob, and who may read it while it grows.
pub(super) struct Watched<'a> {
    blob: StoreWriter,
    watch: Option<Watch<'a>>,
    /// How much is to come before it is large.
    left_bytes: u64,
}

impl Write for Watched<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.blob.write(buf)?;
        if self.watch.is_some() {
            self.left_bytes = self.left_bytes.saturating_sub(count as u64);
            if self.left_bytes == 0
                && let Some(watch) = self.watch.take()
                && let Ok(growing) = self.blob.growing()
            {
                watch(growing);
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}
