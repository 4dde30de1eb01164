//! A reader that lets no wrong byte count as a whole stream.
//!
//! The check lives inside the reader so that no caller can forget it: the end of the stream is only
//! reported after length and digest were found right. Bytes before the end are handed out unverified, so whoever
//! acts on them must be able to throw the result away.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::oci::Digest;

/// Checks a stream against its digest and its length in bytes.
#[derive(Debug)]
pub struct VerifyReader<R> {
    inner: R,
    hash: Sha256,
    expected: Digest,
    size_bytes: u64,
    read_bytes: u64,
    verdict: Option<Result<(), String>>,
}

impl<R> VerifyReader<R> {
    /// Expects exactly `size_bytes` bytes that hash to `expected`.
    pub fn new(inner: R, expected: Digest, size_bytes: u64) -> Self {
        Self { inner, hash: Sha256::new(), expected, size_bytes, read_bytes: 0, verdict: None }
    }

    fn fail(&mut self, text: String) -> io::Error {
        self.verdict = Some(Err(text.clone()));
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.verdict {
            Some(Ok(())) => return Ok(0),
            Some(Err(text)) => return Err(io::Error::new(io::ErrorKind::InvalidData, text.clone())),
            None if buf.is_empty() => return Ok(0),
            None => {}
        }
        let read = self.inner.read(buf)?;
        self.read_bytes += read as u64;
        if self.read_bytes > self.size_bytes {
            let text = format!(
                "size mismatch: expected {} bytes of `{}`, found more",
                self.size_bytes, self.expected
            );
            return Err(self.fail(text));
        }
        self.hash.update(&buf[..read]);
        if read > 0 {
            return Ok(read);
        }
        if self.read_bytes < self.size_bytes {
            let text = format!(
                "truncated: expected {} bytes of `{}`, found {} bytes",
                self.size_bytes, self.expected, self.read_bytes
            );
            return Err(self.fail(text));
        }
        let found = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if found != self.expected {
            let text = format!("digest mismatch: expected `{}`, found `{found}`", self.expected);
            return Err(self.fail(text));
        }
        self.verdict = Some(Ok(()));
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8], expected: &[u8], size_bytes: u64) -> Result<Vec<u8>, String> {
        let mut reader = VerifyReader::new(data, Digest::of(expected), size_bytes);
        let mut out = Vec::new();
        match reader.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let again = reader.read(&mut [0; 1]).unwrap_err();
                assert_eq!(again.to_string(), error.to_string(), "a bad stream stays bad");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn right_bytes_pass() {
        assert_eq!(read(b"hello", b"hello", 5).unwrap(), b"hello");
        assert_eq!(read(b"", b"", 0).unwrap(), b"");
    }

    #[test]
    fn wrong_bytes_do_not() {
        assert!(
            read(b"hellO", b"hello", 5).unwrap_err().starts_with("digest mismatch: expected `sha256:2cf2")
        );
        assert!(read(b"hell", b"hello", 5).unwrap_err().starts_with("truncated: expected 5 bytes"));
        assert!(read(b"hello!", b"hello", 5).unwrap_err().starts_with("size mismatch: expected 5 bytes"));
    }
}
