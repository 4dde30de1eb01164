//! The names in one directory, read at once and kept compactly.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, RawDir};

/// Holds about 1,000 names per system call, and the longest name many times over.
const BUFFER_BYTES: usize = 32 * 1024;

/// One buffer for reading many directories.
#[derive(Debug)]
pub(super) struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(BUFFER_BYTES))
    }
}

/// The names of a directory in byte order, without `.` and `..`.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Every name with its NUL.
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    /// Without the NUL; at most 255 on Linux's file systems.
    length: u16,
    file_type: FileType,
}

impl Names {
    /// Takes names that are in order.
    pub(crate) fn of<'a>(known: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut names = Self::default();
        for name in known {
            let start = names.bytes.len();
            names.bytes.extend_from_slice(name);
            names.bytes.push(0);
            let length = u16::try_from(name.len()).expect("a name comes from a directory");
            names.spans.push(Span { start, length, file_type: FileType::Unknown });
        }
        names
    }

    /// Reads the directory `dir`, which must be open for reading and at its start.
    pub(super) fn read(dir: impl AsFd, buffer: &mut ReadBuffer) -> io::Result<Self> {
        let mut names = Self::default();
        let mut entries = RawDir::new(dir, buffer.0.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let length = name.count_bytes();
            let start = names.bytes.len();
            names.bytes.extend_from_slice(name.to_bytes_with_nul());
            let length = u16::try_from(length).map_err(|_| io::ErrorKind::InvalidFilename)?;
            names.spans.push(Span { start, length, file_type: entry.file_type() });
        }
        let Self { bytes, spans } = &mut names;
        spans.sort_unstable_by(|a, b| name_of(bytes, a).cmp(name_of(bytes, b)));
        Ok(names)
    }

    /// Returns how many names there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns a name for system calls, and its type if the file system told it for free.
    pub(super) fn get(&self, index: usize) -> (&CStr, FileType) {
        let span = self.spans[index];
        let bytes = &self.bytes[span.start..=span.start + usize::from(span.length)];
        (CStr::from_bytes_with_nul(bytes).expect("names are stored with their NUL"), span.file_type)
    }

    /// Returns the names as text.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OsStr> {
        self.spans.iter().map(|span| OsStr::from_bytes(name_of(&self.bytes, span)))
    }
}

fn name_of<'a>(bytes: &'a [u8], span: &Span) -> &'a [u8] {
    &bytes[span.start..span.start + usize::from(span.length)]
}
