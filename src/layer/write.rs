//! Changes into a blob of the store, in one pass.
//!
//! The calling thread walks, reads, frames and hashes the tar, hands blocks to the compressing threads, and hashes and
//! stores what comes back. Each file is read once; nothing is kept but a few blocks, whatever the layer's size.

use std::io::{self, Write};
use std::num::NonZeroUsize;

use super::{ChangeSet, LayerError, TarOptions, write_tar};
use crate::blob::{BlobError, Store, StoreWriter};
use crate::oci::{DiffId, Layer, ManifestFormat, descriptor, media_type};
use crate::stream::{Compression, Compressor, Counted, HashingWriter, PipeWriter};

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

/// Writes `changes` into `store`, and the same bytes into `tee` for as long as somebody reads them there.
///
/// A tee whose reader leaves is not an error: the blob is in the store in any case, and whoever left knows why. If
/// the layer fails, the tee's reader gets an error too, never an end.
pub fn write_layer(
    changes: ChangeSet,
    options: &LayerOptions,
    store: &Store,
    tee: Option<PipeWriter>,
) -> Result<Layer, LayerError> {
    write_blob(options, store, tee, |tar| write_tar(changes, &options.tar, tar))
}

/// Where the tar goes on its way into the store.
type TarSink<'a> = HashingWriter<Compressor<&'a mut Tee>>;

/// Writes the tar that `write` makes into `store`, and the same bytes into `tee`.
pub(super) fn write_blob(
    options: &LayerOptions,
    store: &Store,
    tee: Option<PipeWriter>,
    write: impl FnOnce(&mut TarSink<'_>) -> Result<(), LayerError>,
) -> Result<Layer, LayerError> {
    let blob = store.writer()?;
    let path = blob.path().to_owned();
    let mut out = Tee { blob, tee };
    let (diff_id, out) = match compress(write, options, &mut out) {
        Ok(diff_id) => (diff_id, out),
        Err(error) => {
            out.fail(&error);
            return Err(match error {
                LayerError::Write { source } => BlobError::io("write", &path, source).into(),
                error => error,
            });
        }
    };
    let counted = match out.blob.commit(None) {
        Ok(counted) => counted,
        Err(error) => {
            if let Some(tee) = out.tee {
                tee.fail(io::Error::other(error.to_string()));
            }
            return Err(error.into());
        }
    };
    if let Some(tee) = out.tee {
        // Its reader left between the last byte and the end.
        let _ = tee.finish();
    }
    let media_type = layer_media_type(options.format, options.compression);
    Ok(Layer {
        descriptor: descriptor(&media_type, &counted.digest, counted.size_bytes),
        diff_id: DiffId::new(diff_id.digest),
    })
}

fn compress(
    write: impl FnOnce(&mut TarSink<'_>) -> Result<(), LayerError>,
    options: &LayerOptions,
    out: &mut Tee,
) -> Result<Counted, LayerError> {
    let failed = |source| LayerError::Write { source };
    let compressor = Compressor::new(out, options.compression, options.threads).map_err(failed)?;
    let mut tar = HashingWriter::new(compressor);
    write(&mut tar)?;
    let (compressor, counted) = tar.finish();
    compressor.finish().map_err(failed)?;
    Ok(counted)
}

/// The blob, which must be written, and the tee, which may.
pub(super) struct Tee {
    blob: StoreWriter,
    tee: Option<PipeWriter>,
}

impl Tee {
    fn fail(self, error: &LayerError) {
        if let Some(tee) = self.tee {
            tee.fail(io::Error::other(error.to_string()));
        }
    }
}

impl Write for Tee {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.blob.write_all(buf)?;
        if self.tee.as_mut().is_some_and(|tee| tee.write_all(buf).is_err()) {
            self.tee = None;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blob.flush()
    }
}
