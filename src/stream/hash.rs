//! Readers and writers that hash and count what passes through them.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::oci::Digest;

/// What passed through: its SHA-256 and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many bytes there were.
    pub size_bytes: u64,
}

/// Running hash and count.
#[derive(Debug, Clone, Default)]
struct Counter {
    hash: Sha256,
    size_bytes: u64,
}

impl Counter {
    fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    fn finish(self) -> Counted {
        Counted { digest: Digest::from_sha256(self.hash.finalize().into()), size_bytes: self.size_bytes }
    }
}

/// Hashes and counts all that `reader` yields, `buffer.len()` bytes at a time.
pub fn hash_all(mut reader: impl Read, buffer: &mut [u8]) -> io::Result<Counted> {
    let mut counter = Counter::default();
    loop {
        match reader.read(buffer) {
            Ok(0) => return Ok(counter.finish()),
            Ok(count) => counter.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A writer that hashes what its inner writer accepted.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    counter: Counter,
}

impl<W> HashingWriter<W> {
    /// Starts with nothing hashed.
    pub fn new(inner: W) -> Self {
        Self { inner, counter: Counter::default() }
    }

    /// Returns how many bytes were written so far.
    pub fn size_bytes(&self) -> u64 {
        self.counter.size_bytes
    }

    /// Returns the inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns the inner writer; what is written to it directly is not hashed.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Ends the hash.
    pub fn finish(self) -> (W, Counted) {
        (self.inner, self.counter.finish())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.counter.update(&buf[..written]);
        Ok(written)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.inner.write_all(buf)?;
        self.counter.update(buf);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that hashes what was read from it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    counter: Counter,
}

impl<R> HashingReader<R> {
    /// Starts with nothing hashed.
    pub fn new(inner: R) -> Self {
        Self { inner, counter: Counter::default() }
    }

    /// Returns how many bytes were read so far.
    pub fn size_bytes(&self) -> u64 {
        self.counter.size_bytes
    }

    /// Ends the hash.
    pub fn finish(self) -> (R, Counted) {
        (self.inner, self.counter.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.counter.update(&buf[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writer_and_reader_agree_with_one_shot_hashing() {
        let data: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let expected = Counted { digest: Digest::of(&data), size_bytes: 100_000 };
        let mut writer = HashingWriter::new(Vec::new());
        for chunk in data.chunks(777) {
            writer.write_all(chunk).unwrap();
        }
        let (written, counted) = writer.finish();
        assert_eq!((&written, &counted), (&data, &expected));
        let mut reader = HashingReader::new(&data[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().1, expected);
    }

    #[test]
    fn short_writes_count_what_was_accepted() {
        struct OneByte;
        impl Write for OneByte {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                Ok(buf.len().min(1))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = HashingWriter::new(OneByte);
        assert_eq!(writer.write(b"abc").unwrap(), 1);
        assert_eq!(writer.finish().1, Counted { digest: Digest::of(b"a"), size_bytes: 1 });
    }
}
