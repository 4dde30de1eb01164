//! Compression on all cores with one result.
//!
//! The bytes depend on the input and the level alone: not on the number of threads, not on the sizes of the writes,
//! not on the processor. Memory is bounded by a few blocks per thread, whatever the stream's length.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;

use zstd::stream::raw::{CParameter, Operation as _};

use super::Compression;
use super::gzip::Gzip;
use crate::threads::Refused;

/// zstd's own choice is four windows (8 MiB at level 3, 32 MiB at 19) for each thread and one more. Smaller jobs
/// keep the memory small and are hardly noticed in the ratio, since each begins with the end of the one before.
const ZSTD_JOB_BYTES: u32 = 4 << 20;

/// Compresses what is written to it. Dropped without [`Compressor::finish`], the stream is left incomplete.
pub struct Compressor<W: Write + Send> {
    encoder: Encoder<W>,
}

enum Encoder<W: Write + Send> {
    Plain(W),
    Gzip(Box<Gzip<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write + Send> Compressor<W> {
    /// Starts a stream; `threads` does not change its bytes.
    ///
    /// A level the format does not have is an error of kind `InvalidInput`.
    pub fn new(inner: W, compression: Compression, threads: NonZeroUsize) -> io::Result<Self> {
        let encoder = match compression {
            Compression::None => Encoder::Plain(inner),
            Compression::Gzip { level } => Encoder::Gzip(Box::new(Gzip::new(inner, level, threads)?)),
            Compression::Zstd { level } => Encoder::Zstd(Box::new(zstd_encoder(inner, level, threads)?)),
        };
        Ok(Self { encoder })
    }

    /// Ends the stream and returns the inner writer.
    pub fn finish(self) -> io::Result<W> {
        match self.encoder {
            Encoder::Plain(inner) => Ok(inner),
            Encoder::Gzip(gzip) => gzip.finish(),
            Encoder::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// Without worker threads zstd takes another path and makes other bytes: there is always one at least.
fn zstd_encoder<W: Write>(
    inner: W,
    level: i32,
    threads: NonZeroUsize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    if !(1..=22).contains(&level) {
        let text = format!("zstd level out of range: expected 1 to 22, found {level}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let most = u32::try_from(threads.get()).unwrap_or(u32::MAX).min(64);
    let encoder = zstd_on(level, most)
        .or_else(|_| zstd_on(level, 1))
        .map_err(|source| Refused { what: "threads and memory for zstd".to_owned(), source })?;
    Ok(zstd::stream::write::Encoder::with_encoder(inner, encoder))
}

/// Starts the threads, which zstd does for the first input only, be it empty: all, or none and an error.
fn zstd_on(level: i32, threads: u32) -> io::Result<zstd::stream::raw::Encoder<'static>> {
    let mut encoder = zstd::stream::raw::Encoder::new(level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    encoder.set_parameter(CParameter::NbWorkers(threads))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
    encoder.run_on_buffers(&[], &mut [])?;
    Ok(encoder)
}

impl<W: Write + Send> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::Plain(inner) => inner.write(buf),
            Encoder::Gzip(gzip) => gzip.write(buf),
            Encoder::Zstd(zstd) => zstd.write(buf),
        }
    }

    /// Does not flush: where a block ends must not depend on the writer's habits.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Send> fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.encoder {
            Encoder::Plain(_) => "Compressor::Plain",
            Encoder::Gzip(_) => "Compressor::Gzip",
            Encoder::Zstd(_) => "Compressor::Zstd",
        };
        f.write_str(name)
    }
}
