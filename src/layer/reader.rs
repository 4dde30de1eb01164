//! Reading tars of any origin: V7, ustar, GNU, star and PAX, sparse files of all four kinds.
//!
//! Nothing an archive says about itself is believed: what it makes us allocate is limited, and numbers and lengths that cannot
//! be are errors that say where. Names are handed on as written; whoever unpacks decides what is hostile.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use super::LayerError;
use super::entry::{self, Extensions};
use super::fields::{Fields, gnu_sparse_extension};
use super::header::{BLOCK_BYTES, padding};
use super::sparse::{self, SEGMENT_LIMIT, Segments};
use crate::tree::{Device, Timestamp};

/// Extended headers and long names are kept in memory. Linux allows names of 4 KiB and attributes of 64 KiB.
const EXTENSION_LIMIT_BYTES: u64 = 1 << 20;

/// Most files of an image fit, and are then passed on from here without a copy.
const BUFFER_BYTES: usize = 256 * 1024;

/// What kind of entry it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarEntryKind {
    /// A regular file, sparse or not.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: PathBuf,
    },
    /// A further name of an earlier entry.
    HardLink {
        /// The earlier entry's name, as written.
        target: PathBuf,
    },
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
}

/// One entry of a tar, all extensions resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as written, which may be hostile.
    pub path: PathBuf,
    /// The type.
    pub kind: TarEntryKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes by their full names.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Length of a file's content with its holes, zero for all else.
    pub size_bytes: u64,
    /// Where a sparse file has data, as (offset, length) in order; `None` for a plain file.
    pub data: Option<Vec<(u64, u64)>>,
}

/// What is left of the current entry.
#[derive(Debug, Default)]
struct Current {
    /// Bytes of content in the archive that were not read yet, and the zeros behind them.
    stored_bytes: u64,
    padding_bytes: u64,
    /// Position in the file as it will be, and its length.
    position: u64,
    size_bytes: u64,
    holes: Option<std::vec::IntoIter<(u64, u64)>>,
    /// The stretch of data that `position` is in or before.
    data: Option<(u64, u64)>,
}

/// Reads a tar entry by entry; between two entries it reads as the content of the one before, holes as zeros.
///
/// At the end of the archive the input is read to its own end, so that a verifying reader below gets to its verdict.
#[derive(Debug)]
pub struct TarReader<R> {
    inner: R,
    offset: u64,
    current: Current,
    globals: Vec<(Vec<u8>, Vec<u8>)>,
    finished: bool,
}

impl<R: Read> TarReader<BufReader<R>> {
    /// Starts at the beginning of an uncompressed tar.
    pub fn new(inner: R) -> Self {
        Self::buffered(BufReader::with_capacity(BUFFER_BYTES, inner))
    }
}

impl<R: BufRead> TarReader<R> {
    /// The same for a reader that has a large buffer of its own.
    pub fn buffered(inner: R) -> Self {
        Self { inner, offset: 0, current: Current::default(), globals: Vec::new(), finished: false }
    }

    /// Goes to the next entry; what is left of the current one is skipped.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, LayerError> {
        if self.finished {
            return Ok(None);
        }
        let left = self.current.stored_bytes + self.current.padding_bytes;
        self.current = Current::default();
        self.skip(left)?;
        let mut extensions = Extensions::default();
        let mut budget_bytes = EXTENSION_LIMIT_BYTES;
        loop {
            let offset = self.offset;
            let Some(block) = self.header_block()? else {
                if !extensions.is_empty() {
                    return Err(malformed(offset)("extended header without an entry".to_owned()));
                }
                self.finish()?;
                return Ok(None);
            };
            let fields = Fields::parse(&block).map_err(malformed(offset))?;
            let size_bytes = fields.size_bytes().map_err(malformed(offset))?;
            match fields.type_flag() {
                b'x' | b'X' => extensions
                    .add_pax(&self.extension(size_bytes, &mut budget_bytes)?)
                    .map_err(malformed(offset))?,
                b'g' => {
                    let data = self.extension(size_bytes, &mut budget_bytes)?;
                    entry::merge_globals(&mut self.globals, &data).map_err(malformed(offset))?;
                }
                b'L' => extensions.long_name = Some(c_string(self.extension(size_bytes, &mut budget_bytes)?)),
                b'K' => extensions.long_link = Some(c_string(self.extension(size_bytes, &mut budget_bytes)?)),
                // A label of the whole archive.
                b'V' => {
                    let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
                    self.skip(size_bytes + padding(size_bytes) as u64)?;
                }
                _ => return self.entry(offset, &fields, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        offset: u64,
        fields: &Fields<'_>,
        mut extensions: Extensions,
    ) -> Result<TarEntry, LayerError> {
        extensions.set_globals(&self.globals);
        let (mut entry, stored_bytes) = extensions.resolve(fields).map_err(malformed(offset))?;
        self.current.stored_bytes = stored_bytes;
        self.current.padding_bytes = padding(stored_bytes) as u64;
        let map = if fields.type_flag() == b'S' {
            let (segments, size_bytes, more) = fields.gnu_sparse().map_err(malformed(offset))?;
            Some((self.gnu_segments(segments, more)?, size_bytes))
        } else {
            match extensions.sparse().map_err(malformed(offset))? {
                None => None,
                Some((Some(segments), size_bytes)) => Some((segments, size_bytes)),
                Some((None, size_bytes)) => Some((self.leading_map()?, size_bytes)),
            }
        };
        if let Some((segments, size_bytes)) = map {
            let segments =
                sparse::check(segments, size_bytes, self.current.stored_bytes).map_err(malformed(offset))?;
            entry.size_bytes = size_bytes;
            let mut holes = segments.clone().into_iter();
            self.current.data = holes.next();
            self.current.holes = Some(holes);
            entry.data = Some(segments);
        }
        self.current.size_bytes = entry.size_bytes;
        Ok(entry)
    }

    /// Reads the blocks of further segments behind an old GNU sparse header. They are not part of the entry's size.
    fn gnu_segments(&mut self, mut segments: Segments, mut more: bool) -> Result<Segments, LayerError> {
        while more {
            let offset = self.offset;
            let mut block = [0; BLOCK_BYTES];
            self.read_exact_at(&mut block)?;
            let (further, again) = gnu_sparse_extension(&block).map_err(malformed(offset))?;
            segments.extend(further);
            more = again;
            if segments.len() > SEGMENT_LIMIT {
                return Err(malformed(offset)(format!("sparse file of more than {SEGMENT_LIMIT} parts")));
            }
        }
        Ok(segments)
    }

    /// Reads the map in front of the data of a PAX 1.0 sparse file. It is part of the entry's size.
    ///
    /// The data begins with the block after the map's last line, so blocks are taken one by one until it is there.
    fn leading_map(&mut self) -> Result<Segments, LayerError> {
        let offset = self.offset;
        let mut text = Vec::new();
        let mut lines = 0;
        let mut wanted_lines = 1;
        while self.current.stored_bytes >= BLOCK_BYTES as u64 {
            let mut block = [0; BLOCK_BYTES];
            self.read_exact_at(&mut block)?;
            self.current.stored_bytes -= BLOCK_BYTES as u64;
            text.extend_from_slice(&block);
            lines += block.iter().filter(|byte| **byte == b'\n').count();
            if lines < wanted_lines {
                continue;
            }
            if let Some(segments) = sparse::parse_lines(&text).map_err(malformed(offset))? {
                return Ok(segments);
            }
            // Not to parse it all again for every block.
            wanted_lines = sparse::lines_of(&text).map_err(malformed(offset))?;
        }
        Err(malformed(offset)("sparse map without an end".to_owned()))
    }

    /// Reads one header block; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, LayerError> {
        // Many archives lack the two blocks of zeros; an end between two entries is an end.
        if self.inner.fill_buf().map_err(archive)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES];
        self.read_exact_at(&mut block)?;
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        self.finished = true;
        loop {
            let length = self.inner.fill_buf().map_err(archive)?.len();
            if length == 0 {
                return Ok(());
            }
            self.inner.consume(length);
        }
    }

    /// Reads the content of an entry that extends the next one, on the budget that all before an entry share.
    fn extension(&mut self, size_bytes: i64, budget_bytes: &mut u64) -> Result<Vec<u8>, LayerError> {
        let offset = self.offset;
        let size_bytes = u64::try_from(size_bytes).unwrap_or(u64::MAX);
        if size_bytes > *budget_bytes {
            return Err(malformed(offset)(format!(
                "extended header of {size_bytes} bytes: expected at most {EXTENSION_LIMIT_BYTES}"
            )));
        }
        *budget_bytes -= size_bytes;
        let mut data = vec![0; usize::try_from(size_bytes).expect("below the limit")];
        self.read_exact_at(&mut data)?;
        self.skip(padding(size_bytes) as u64)?;
        Ok(data)
    }

    fn read_exact_at(&mut self, buf: &mut [u8]) -> Result<(), LayerError> {
        let offset = self.offset;
        match self.inner.read_exact(buf) {
            Ok(()) => self.offset += buf.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() => {
                return Err(malformed(offset)("the archive ends in the middle of an entry".to_owned()));
            }
            Err(error) => return Err(archive(error)),
        }
        Ok(())
    }

    fn skip(&mut self, mut length: u64) -> Result<(), LayerError> {
        while length > 0 {
            let available = self.inner.fill_buf().map_err(archive)?.len();
            if available == 0 {
                return Err(malformed(self.offset)("the archive ends in the middle of an entry".to_owned()));
            }
            let part = usize::try_from(length).unwrap_or(usize::MAX).min(available);
            self.inner.consume(part);
            self.offset += part as u64;
            length -= part as u64;
        }
        Ok(())
    }

    /// Returns some of the content that is in the archive, holes left out, at most `limit` bytes; then
    /// [`TarReader::consume_stored`] says how much of it was used. Empty at the end of the content.
    pub(super) fn stored(&mut self, limit: u64) -> io::Result<&[u8]> {
        let limit = usize::try_from(self.current.stored_bytes.min(limit)).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(&[]);
        }
        let available = self.inner.fill_buf()?;
        if available.is_empty() {
            let text = "the archive ends in the middle of a file";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(&available[..limit.min(available.len())])
    }

    pub(super) fn consume_stored(&mut self, length: usize) {
        self.inner.consume(length);
        self.offset += length as u64;
        self.current.stored_bytes -= length as u64;
    }
}

impl<R: BufRead> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let limit = (buf.len() as u64).min(self.current.size_bytes - self.current.position);
        if limit == 0 {
            return Ok(0);
        }
        let data_end = if let Some(rest) = &mut self.current.holes {
            while self.current.data.is_some_and(|(offset, length)| self.current.position >= offset + length) {
                self.current.data = rest.next();
            }
            let (start, end) = match self.current.data {
                Some((offset, length)) => (offset, offset + length),
                None => (self.current.size_bytes, self.current.size_bytes),
            };
            if self.current.position < start {
                let length = limit.min(start - self.current.position);
                buf[..usize::try_from(length).expect("within the buffer")].fill(0);
                self.current.position += length;
                return Ok(usize::try_from(length).expect("within the buffer"));
            }
            end
        } else {
            self.current.size_bytes
        };
        let available = self.stored(limit.min(data_end - self.current.position))?;
        let length = available.len();
        buf[..length].copy_from_slice(available);
        self.consume_stored(length);
        self.current.position += length as u64;
        Ok(length)
    }
}

fn malformed(offset: u64) -> impl Fn(String) -> LayerError {
    move |problem| LayerError::Malformed { offset, problem }
}

fn archive(source: io::Error) -> LayerError {
    LayerError::Archive { source }
}

/// GNU's long names end in a zero.
fn c_string(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}
