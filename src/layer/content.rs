//! The bytes of files on their way into a tar: few system calls for small files, no reading of holes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Content, LayerError, open_seen};
use crate::tree::next_data;

/// Headers and small files gather here before they are passed on.
const BUFFER_BYTES: usize = 256 * 1024;

/// Files below this are read in one call, straight into the buffer.
const SMALL_BYTES: u64 = 64 * 1024;

/// A buffer before a writer, open for headers and files to be put into it directly.
pub(super) struct Buffered<'a, W> {
    out: &'a mut W,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Buffered<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self { out, buffer: Vec::with_capacity(2 * BUFFER_BYTES) }
    }

    /// Returns the buffer to append to; it is passed on first if it is full.
    pub(super) fn space(&mut self) -> Result<&mut Vec<u8>, LayerError> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(&mut self.buffer)
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        self.out.write_all(&self.buffer).map_err(|source| LayerError::Write { source })?;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), LayerError> {
        self.flush()
    }

    /// Passes on up to `length` bytes of `input`; returns how many there were.
    pub(super) fn pump(&mut self, input: &mut impl Read, length: u64) -> Result<u64, LayerError> {
        let mut done = 0;
        while done < length {
            let buffer = self.space()?;
            let start = buffer.len();
            let wanted = usize::try_from(length - done).unwrap_or(usize::MAX).min(SMALL_BYTES as usize);
            buffer.resize(start + wanted, 0);
            let read = input.read(&mut buffer[start..]);
            buffer.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(count) => done += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(LayerError::Archive { source }),
            }
        }
        Ok(done)
    }

    fn zeros(&mut self, mut length: u64) -> Result<(), LayerError> {
        while length > 0 {
            let buffer = self.space()?;
            let part = length.min((2 * BUFFER_BYTES - buffer.len()) as u64);
            buffer.resize(buffer.len() + usize::try_from(part).expect("below the buffer's size"), 0);
            length -= part;
        }
        Ok(())
    }
}

/// Writes a file's content, which must be `size_bytes` long.
pub(super) fn copy_content(
    path: &Path,
    content: &Content,
    size_bytes: u64,
    out: &mut Buffered<'_, impl Write>,
) -> Result<(), LayerError> {
    let changed =
        |found_bytes| LayerError::Changed { path: path.to_owned(), expected_bytes: size_bytes, found_bytes };
    let found_bytes = match content {
        Content::Bytes(bytes) => {
            if bytes.len() as u64 != size_bytes {
                return Err(changed(bytes.len() as u64));
            }
            for part in bytes.chunks(BUFFER_BYTES) {
                out.space()?.extend_from_slice(part);
            }
            size_bytes
        }
        Content::File { root, path: source, seen } => {
            let read = |source| LayerError::Read { path: path.to_owned(), source };
            let file = open_seen(root, source, *seen).map_err(read)?;
            let found_bytes = if size_bytes < SMALL_BYTES {
                read_part(&file, size_bytes, out, &read)?
            } else {
                read_large(&file, size_bytes, out, &read)?
            };
            seen.map_or(Ok(()), |seen| seen.check(&file)).map_err(read)?;
            found_bytes
        }
    };
    if found_bytes == size_bytes { Ok(()) } else { Err(changed(found_bytes)) }
}

/// Reads up to `limit` bytes and says how many there were; one more than `limit` if there are more.
///
/// The byte too many is asked for in the same call: a file of the right length costs one call and not two.
fn read_part(
    file: &File,
    limit: u64,
    out: &mut Buffered<'_, impl Write>,
    error: &impl Fn(io::Error) -> LayerError,
) -> Result<u64, LayerError> {
    let mut file = file;
    let wanted = usize::try_from(limit).expect("small") + 1;
    let buffer = out.space()?;
    let start = buffer.len();
    buffer.resize(start + wanted, 0);
    let mut filled = 0;
    while filled < wanted {
        match file.read(&mut buffer[start + filled..start + wanted]) {
            Ok(0) => break,
            // Regular files are read short at their end only.
            Ok(length) => {
                filled += length;
                if filled + 1 == wanted {
                    break;
                }
            }
            Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
            Err(failure) => return Err(error(failure)),
        }
    }
    buffer.truncate(start + filled.min(wanted - 1));
    Ok(filled as u64)
}

fn read_large(
    mut file: &File,
    size_bytes: u64,
    out: &mut Buffered<'_, impl Write>,
    error: &impl Fn(io::Error) -> LayerError,
) -> Result<u64, LayerError> {
    let metadata = file.metadata().map_err(error)?;
    if metadata.len() != size_bytes {
        return Ok(metadata.len());
    }
    let has_holes = metadata.blocks() * 512 < size_bytes;
    let mut position = 0;
    while position < size_bytes {
        let data = if has_holes {
            next_data(file, position, size_bytes).map_err(error)?.unwrap_or(size_bytes..size_bytes)
        } else {
            position..size_bytes
        };
        out.zeros(data.start - position)?;
        position = data.start;
        if has_holes {
            file.seek(SeekFrom::Start(position)).map_err(error)?;
        }
        while position < data.end {
            let buffer = out.space()?;
            let start = buffer.len();
            let part = (data.end - position).min((2 * BUFFER_BYTES - start) as u64);
            buffer.resize(start + usize::try_from(part).expect("below the buffer's size"), 0);
            let read = loop {
                match file.read(&mut buffer[start..]) {
                    Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                    result => break result.map_err(error)?,
                }
            };
            buffer.truncate(start + read);
            if read == 0 {
                return Ok(position);
            }
            position += read as u64;
        }
    }
    Ok(position)
}
