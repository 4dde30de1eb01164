//! Downloads to files, checked against a checksum.

use std::io;
use std::path::{Path, PathBuf};

use url::Url;

use super::Fetch;
use crate::context::ContextError;
use crate::context::git::decoded;
use crate::oci::Digest;
use crate::stream::HashingWriter;
use crate::text::without_credentials;

/// What a file is called whose URL has no path.
const UNNAMED: &str = "__unnamed__";

/// How often a download is begun again after it broke off; requests that are not answered are repeated elsewhere.
const RESTARTS: u32 = 2;

/// Large enough that reads do not count.
const BUFFER_BYTES: usize = 128 * 1024;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub digest: Digest,
    /// How long it is.
    pub size_bytes: u64,
    /// `Last-Modified`, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// What it is to be called: the URL's last path element, `__unnamed__` if there is none.
    pub name: String,
}

/// Downloads `url` to a file of its own in the directory `into`, which is made if need be.
///
/// With a checksum, `sha256:…`, nothing else is accepted; nothing is left behind by a failure.
pub fn download(
    fetch: &dyn Fetch,
    url: &str,
    headers: &[(String, String)],
    into: &Path,
    checksum: Option<&str>,
) -> Result<Download, ContextError> {
    let expected = checksum.map(validate_checksum).transpose()?;
    std::fs::create_dir_all(into).map_err(ContextError::file("create the directory", into))?;
    let mut broken = 0;
    let (file, counted, last_modified) = loop {
        let fetched = fetch.get(url, headers)?;
        let file = tempfile::Builder::new()
            .prefix("download-")
            .tempfile_in(into)
            .map_err(ContextError::file("create a file in", into))?;
        let mut writer = HashingWriter::new(file);
        match copy(fetched.reader, &mut writer) {
            Ok(()) => {
                let (file, counted) = writer.finish();
                break (file, counted, fetched.last_modified);
            }
            Err(Broken::Write(source)) => return Err(ContextError::file("write into", into)(source)),
            // Who has waited in vain does not wait again.
            Err(Broken::Read(error)) if broken == RESTARTS || error.kind() == io::ErrorKind::TimedOut => {
                return Err(ContextError::Download {
                    url: without_credentials(url),
                    reason: error.to_string(),
                });
            }
            Err(Broken::Read(_)) => broken += 1,
        }
    };
    if let Some(expected) = expected.filter(|expected| *expected != counted.digest) {
        return Err(ContextError::ChecksumMismatch {
            found: counted.digest.to_string(),
            expected: expected.to_string(),
        });
    }
    let (_, path) =
        file.keep().map_err(|error| ContextError::file("keep the download in", into)(error.error))?;
    Ok(Download {
        path,
        digest: counted.digest,
        size_bytes: counted.size_bytes,
        last_modified,
        name: name_of(url),
    })
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
}

fn copy(mut from: impl io::Read, to: &mut impl io::Write) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return to.flush().map_err(Broken::Write),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Broken::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken::Read(error)),
        }
    }
}

/// Returns the last element of a URL's path.
fn name_of(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return UNNAMED.to_owned() };
    let path = decoded(url.path());
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => UNNAMED.to_owned(),
        Some(name) => name.replace('\0', "_"),
    }
}

/// Understands the value of `ADD --checksum=` of a download.
pub fn validate_checksum(text: &str) -> Result<Digest, ContextError> {
    let malformed = || ContextError::ChecksumFormat { checksum: text.to_owned() };
    let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
    let is_word = |part: &str, allowed: fn(u8) -> bool| !part.is_empty() && part.bytes().all(allowed);
    if !algorithm
        .split(['.', '+', '_', '-'])
        .all(|part| is_word(part, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
        || !is_word(hex, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-'))
    {
        return Err(malformed());
    }
    if algorithm != "sha256" {
        return Err(ContextError::ChecksumAlgorithm { checksum: text.to_owned() });
    }
    text.parse().map_err(|_| match hex.len() {
        64 => malformed(),
        _ => ContextError::ChecksumLength { checksum: text.to_owned() },
    })
}

#[cfg(test)]
mod tests;
