//! One layer blob into a directory, verified.

use std::error::Error;
use std::io::{self, Read, Write as _};
use std::path::Path;

use super::RootfsError;
use crate::blob::BlobSource;
use crate::event::{Reporter, Transfer, TransferKind};
use crate::layer::{Applied, ApplyOptions, Owners, TarReader, Whiteouts, apply_tar};
use crate::oci::Layer;
use crate::stream::{Counted, HashingWriter, PipeWriter, auto_decoder, pipe};
use crate::threads::{self, Refused};
use crate::tree::RootDir;

/// How far decompressing may be ahead of writing.
const PIPE_BYTES: usize = 4 << 20;

/// How often progress is reported.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Unpacks `layer` over the files of `root`, and checks its diff id.
pub fn unpack_over(
    layer: &Layer,
    blobs: &dyn BlobSource,
    root: &RootDir,
    reporter: &Reporter,
) -> Result<(), RootfsError> {
    unpack(layer, blobs, root, Whiteouts::Apply, reporter).map(drop)
}

/// Unpacks `layer` into `into` and checks its diff id.
pub(super) fn unpack(
    layer: &Layer,
    blobs: &dyn BlobSource,
    into: &RootDir,
    whiteouts: Whiteouts,
    reporter: &Reporter,
) -> Result<Applied, RootfsError> {
    let digest = layer.digest();
    let unreadable = |source: Box<dyn Error + Send + Sync>| unreadable(layer, source);
    let progress = open(layer, blobs, reporter)?;
    let options = ApplyOptions { whiteouts, owners: owners() };
    // Reading, decompressing and hashing on one thread, writing files on the other.
    let (counted, applied) = std::thread::scope(|scope| {
        let (to, tar) = pipe(PIPE_BYTES);
        let decoding = threads::spawn_in(scope, "decode", move || decode(progress, to))?;
        let applied = apply_tar(TarReader::buffered(tar), into, Path::new(""), &options);
        Ok((threads::joined(decoding.join()), applied))
    })
    .map_err(|refused: Refused| unreadable(refused.into()))?;
    // A blob that cannot be read is also an archive that ends too soon: the cause comes first.
    let counted = match (counted, &applied) {
        (Ok(counted), _) => Some(counted),
        (Err(error), Err(_)) if error.kind() == io::ErrorKind::BrokenPipe => None,
        (Err(error), _) => return Err(unreadable(error.into())),
    };
    let applied =
        applied.map_err(|source| RootfsError::Unpack { digest: digest.clone(), source: Box::new(source) })?;
    let counted = counted.ok_or_else(|| unreadable(io::Error::from(io::ErrorKind::BrokenPipe).into()))?;
    compare(layer, counted)?;
    for warning in &applied.warnings {
        reporter.warning(format!(
            "base layer {}: `{}`: left out {}: {}",
            digest.short(),
            warning.path.display(),
            warning.what,
            warning.error
        ));
    }
    Ok(applied)
}

/// Reads `layer` without unpacking it, and checks its diff id.
pub(super) fn check(layer: &Layer, blobs: &dyn BlobSource, reporter: &Reporter) -> Result<(), RootfsError> {
    let read = |blob| -> io::Result<Counted> {
        let (_, mut tar) = auto_decoder(blob)?;
        let mut hash = HashingWriter::new(io::sink());
        io::copy(&mut tar, &mut hash)?;
        Ok(hash.finish().1)
    };
    let counted = read(open(layer, blobs, reporter)?).map_err(|error| unreadable(layer, error.into()))?;
    compare(layer, counted)
}

fn open(
    layer: &Layer,
    blobs: &dyn BlobSource,
    reporter: &Reporter,
) -> Result<Progress<Box<dyn Read + Send>>, RootfsError> {
    let inner = blobs.open(&layer.descriptor).map_err(|error| unreadable(layer, error.into()))?;
    let size = layer.descriptor.size();
    let transfer = reporter.transfer(TransferKind::Extract, layer.digest().short(), Some(size));
    Ok(Progress { inner, transfer: Some(transfer), pending: 0 })
}

fn unreadable(layer: &Layer, source: Box<dyn Error + Send + Sync>) -> RootfsError {
    RootfsError::Read { digest: layer.digest(), source }
}

fn compare(layer: &Layer, counted: Counted) -> Result<(), RootfsError> {
    if counted.digest == *layer.diff_id.digest() {
        return Ok(());
    }
    let expected = layer.diff_id.clone();
    Err(RootfsError::DiffIdMismatch { digest: layer.digest(), expected, found: counted.digest })
}

/// Sends the uncompressed content of `blob` through `to`, and says what it was.
fn decode(blob: impl Read + Send, mut to: PipeWriter) -> io::Result<Counted> {
    let copy = |to: &mut PipeWriter| -> io::Result<Counted> {
        let (_, mut tar) = auto_decoder(blob)?;
        let mut hash = HashingWriter::new(io::sink());
        loop {
            let bytes = to.fill(&mut tar)?;
            if bytes.is_empty() {
                return Ok(hash.finish().1);
            }
            hash.write_all(bytes)?;
        }
    };
    match copy(&mut to) {
        Ok(counted) => to.finish().map(|()| counted),
        Err(error) => {
            to.fail(io::Error::new(error.kind(), error.to_string()));
            Err(error)
        }
    }
}

/// Owners are kept where there are more ids than one to choose from.
fn owners() -> Owners {
    let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let count: u64 =
        ids.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if count > 1 && rustix::process::geteuid().is_root() { Owners::Keep } else { Owners::KeepIfPossible }
}

/// Reports how much was read, and that it was all.
struct Progress<R> {
    inner: R,
    transfer: Option<Transfer>,
    pending: u64,
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.pending += length as u64;
        if let Some(transfer) = &mut self.transfer
            && (length == 0 || self.pending >= PROGRESS_BYTES)
        {
            transfer.advance(std::mem::take(&mut self.pending));
        }
        if length == 0
            && !buffer.is_empty()
            && let Some(transfer) = self.transfer.take()
        {
            transfer.finish("done");
        }
        Ok(length)
    }
}
