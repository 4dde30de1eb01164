//! Files with holes: where they have data, read without reading what is nothing but zeros.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Returns the next stretch of data in `position..size_bytes`; the whole range where holes cannot be told. Moves the
/// file's own position.
pub fn next_data(file: &File, position: u64, size_bytes: u64) -> io::Result<Option<Range<u64>>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not know: everything is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(position..size_bytes)),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size_bytes);
    Ok((start < size_bytes).then(|| start..end.min(size_bytes)))
}

/// Reads files piece by piece, each as long as the buffer and at a multiple of its length, but for those that lie in
/// holes.
#[derive(Debug)]
pub struct Pieces<'a> {
    file: &'a File,
    size_bytes: u64,
    has_holes: bool,
    position: u64,
}

impl<'a> Pieces<'a> {
    /// Begins at the start of `file`.
    pub fn of(file: &'a File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let size_bytes = metadata.len();
        Ok(Self { file, size_bytes, has_holes: metadata.blocks() * 512 < size_bytes, position: 0 })
    }

    /// Returns how long the file was at the beginning.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Says where the next piece that may have data begins; `None` if there is none any more.
    pub fn next_offset(&self, piece_bytes: usize) -> io::Result<Option<u64>> {
        if self.position >= self.size_bytes || !self.has_holes {
            return Ok((self.position < self.size_bytes).then_some(self.position));
        }
        let data = next_data(self.file, self.position, self.size_bytes)?;
        Ok(data.map(|data| data.start / piece_bytes as u64 * piece_bytes as u64))
    }

    /// Reads the piece at `offset`, with zeros for holes, and goes on behind it. It is shorter than `buffer` at the
    /// file's end only.
    pub fn read<'b>(&mut self, offset: u64, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if offset + filled as u64 >= self.size_bytes {
                break;
            }
        }
        self.position = offset + buffer.len() as u64;
        Ok(&buffer[..filled])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"data", (1 << 30) + 5).unwrap();
        file.write_all_at(b"end", (1 << 40) - 3).unwrap();
        let mut pieces = Pieces::of(&file).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut found = Vec::new();
        while let Some(offset) = pieces.next_offset(buffer.len()).unwrap() {
            let piece = pieces.read(offset, &mut buffer).unwrap();
            if piece.iter().any(|byte| *byte != 0) {
                found.push((offset, piece.len()));
            }
        }
        assert_eq!(found, [(1 << 30, 1 << 20), ((1 << 40) - (1 << 20), 1 << 20)]);
    }
}
