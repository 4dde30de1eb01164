//! Everything about a tree that a later look at it is compared with.
//!
//! An index is one flat list in walking order. Paths are not stored: the entries' depths and names give them to
//! whoever goes through the list from its start. How it is made is in `scan.rs`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::tree::{Device, Entry, FileKind, Fingerprint, Metadata, Names, Timestamp};

/// A tree's state: path, inode, metadata and fingerprint of each entry, in about 100 bytes each.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// All names, one after the other.
    names: Vec<u8>,
    records: Vec<Record>,
    /// The few devices that entries lie on.
    devices: Vec<u64>,
}

/// One entry, packed.
#[derive(Debug, Clone)]
struct Record {
    /// A file's or link's length; a device node's numbers.
    size_bytes: u64,
    ino: u64,
    mtime_seconds: i64,
    ctime_seconds: i64,
    mtime_nanoseconds: u32,
    ctime_nanoseconds: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    name_start: u32,
    /// How many directories are above.
    depth: u32,
    /// Type and permissions, as in `st_mode`.
    mode: u16,
    device: u16,
    name_length: u16,
    has_fingerprint: bool,
    fingerprint: [u8; 16],
}

impl Index {
    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Tells whether the tree is empty.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns the path of the first entry whose name is as wanted.
    pub fn find(&self, is_wanted: impl Fn(&OsStr) -> bool) -> Option<PathBuf> {
        let found = self.records.iter().position(|record| is_wanted(OsStr::from_bytes(self.name(record))))?;
        let mut cursor = self.cursor();
        while cursor.number() < found {
            cursor.advance();
        }
        Some(cursor.as_path().to_path_buf())
    }

    /// Stands on the first entry.
    pub(super) fn cursor(&self) -> IndexCursor<'_> {
        IndexCursor::at(self, Position::default())
    }

    /// Notes a fingerprint taken of the entry at `position`.
    pub(super) fn set_fingerprint(&mut self, position: usize, fingerprint: Fingerprint) {
        let record = &mut self.records[position];
        record.fingerprint = fingerprint.to_bytes();
        record.has_fingerprint = true;
    }

    /// Adds an entry whose path has `above` more directories in front of it.
    pub(super) fn push(&mut self, entry: &Entry, above: usize) -> io::Result<()> {
        let path = entry.path.as_os_str().as_bytes();
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let depth = above + path.iter().filter(|byte| **byte == b'/').count();
        let metadata = &entry.metadata;
        let (kind, size_bytes) = pack_kind(metadata);
        let device = self.device(metadata.dev)?;
        self.add(
            &path[start..],
            Record {
                size_bytes,
                ino: metadata.ino,
                mtime_seconds: metadata.mtime.seconds,
                ctime_seconds: metadata.ctime.seconds,
                mtime_nanoseconds: metadata.mtime.nanoseconds,
                ctime_nanoseconds: metadata.ctime.nanoseconds,
                uid: metadata.uid,
                gid: metadata.gid,
                nlink: u32::try_from(metadata.nlink).unwrap_or(u32::MAX),
                name_start: 0,
                depth: narrow(depth)?,
                mode: kind | narrow::<u16, _>(metadata.mode)?,
                device,
                name_length: 0,
                has_fingerprint: false,
                fingerprint: [0; 16],
            },
        )
    }

    fn add(&mut self, name: &[u8], mut record: Record) -> io::Result<()> {
        record.name_start = narrow(self.names.len())?;
        record.name_length = narrow(name.len())?;
        self.names.extend_from_slice(name);
        self.records.push(record);
        Ok(())
    }

    fn copy(&mut self, from: &Self, record: &Record) -> io::Result<()> {
        let device = self.device(from.devices[usize::from(record.device)])?;
        self.add(from.name(record), Record { device, ..record.clone() })
    }

    /// Adds a range of another index's entries.
    pub(super) fn append(&mut self, from: &Self, range: Range<usize>) -> io::Result<()> {
        from.records[range].iter().try_for_each(|record| self.copy(from, record))
    }

    /// Returns this index with those entries of `older` that `wanted` accepts in between, if their directory is still
    /// there. None of them may be in this index.
    pub(super) fn adopt(&self, older: &Self, wanted: impl Fn(&Path) -> bool) -> io::Result<Self> {
        let mut index = Self::default();
        let (mut own, mut old) = (self.cursor(), older.cursor());
        loop {
            let order = match (own.path(), old.path()) {
                (None, None) => return Ok(index),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(own), Some(old)) => compare_paths(own, old),
            };
            if order != Ordering::Greater {
                index.copy(self, own.record())?;
                own.advance();
            }
            if order != Ordering::Less {
                let parent = old.as_path().parent().unwrap_or(Path::new(""));
                let fits = parent.as_os_str().is_empty() || index.ends_in_directory(parent);
                if order == Ordering::Greater && wanted(old.as_path()) && fits {
                    index.copy(older, old.record())?;
                }
                old.advance();
            }
        }
    }

    /// Tells whether `parent` is a directory on the way to the last entry, or that entry.
    fn ends_in_directory(&self, parent: &Path) -> bool {
        let mut depth = u32::try_from(parent.components().count()).unwrap_or(u32::MAX);
        for record in self.records.iter().rev() {
            if record.depth + 1 != depth {
                if record.depth + 1 < depth {
                    return false;
                }
                continue;
            }
            let names: Vec<_> = parent.components().collect();
            let name = names[depth as usize - 1].as_os_str().as_bytes();
            if self.name(record) != name || unpack_kind(record) != FileKind::Directory {
                return false;
            }
            depth -= 1;
            if depth == 0 {
                return true;
            }
        }
        false
    }

    fn metadata(&self, record: &Record) -> Metadata {
        let kind = unpack_kind(record);
        Metadata {
            kind,
            mode: u32::from(record.mode & 0o7777),
            uid: record.uid,
            gid: record.gid,
            size_bytes: match kind {
                FileKind::File | FileKind::Symlink => record.size_bytes,
                _ => 0,
            },
            mtime: Timestamp { seconds: record.mtime_seconds, nanoseconds: record.mtime_nanoseconds },
            ctime: Timestamp { seconds: record.ctime_seconds, nanoseconds: record.ctime_nanoseconds },
            dev: self.devices[usize::from(record.device)],
            ino: record.ino,
            nlink: record.nlink.into(),
        }
    }

    /// Returns where each directory stands, by device and inode.
    pub(super) fn directories(&self) -> HashMap<(u64, u64), usize> {
        let records = self.records.iter().enumerate();
        let directories = records.filter(|(_, record)| unpack_kind(record) == FileKind::Directory);
        directories
            .map(|(number, record)| ((self.devices[usize::from(record.device)], record.ino), number))
            .collect()
    }

    /// Returns what is in the directory at `position` if nothing was added to it or taken away since.
    pub(super) fn names_in(&self, position: usize, now: &Metadata) -> Option<Names> {
        let directory = &self.records[position];
        if !self.metadata(directory).is_untouched(now) {
            return None;
        }
        let below = self.records[position + 1..].iter().take_while(|record| record.depth > directory.depth);
        let inside = below.filter(|record| record.depth == directory.depth + 1);
        Some(Names::of(inside.map(|record| self.name(record))))
    }

    fn name(&self, record: &Record) -> &[u8] {
        let start = record.name_start as usize;
        &self.names[start..start + usize::from(record.name_length)]
    }

    fn device(&mut self, dev: u64) -> io::Result<u16> {
        let position = self.devices.iter().position(|known| *known == dev).unwrap_or_else(|| {
            self.devices.push(dev);
            self.devices.len() - 1
        });
        narrow(position)
    }
}

fn narrow<T: TryFrom<N>, N>(number: N) -> io::Result<T> {
    T::try_from(number).map_err(|_| io::Error::other("the tree is larger than an index can hold"))
}

/// Returns the type as in `st_mode`, and what stands in the size's place.
fn pack_kind(metadata: &Metadata) -> (u16, u64) {
    let number = |device: Device| u64::from(device.major) << 32 | u64::from(device.minor);
    match metadata.kind {
        FileKind::File => (0o100_000, metadata.size_bytes),
        FileKind::Directory => (0o040_000, 0),
        FileKind::Symlink => (0o120_000, metadata.size_bytes),
        FileKind::CharDevice(device) => (0o020_000, number(device)),
        FileKind::BlockDevice(device) => (0o060_000, number(device)),
        FileKind::Fifo => (0o010_000, 0),
        FileKind::Socket => (0o140_000, 0),
    }
}

fn unpack_kind(record: &Record) -> FileKind {
    #[expect(clippy::cast_possible_truncation, reason = "two halves of one number")]
    let device = Device { major: (record.size_bytes >> 32) as u32, minor: record.size_bytes as u32 };
    match record.mode & 0o170_000 {
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Symlink,
        0o020_000 => FileKind::CharDevice(device),
        0o060_000 => FileKind::BlockDevice(device),
        0o010_000 => FileKind::Fifo,
        0o140_000 => FileKind::Socket,
        _ => FileKind::File,
    }
}

/// Orders paths component by component: a separator comes before every byte of a name.
pub(super) fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rank = |path: &[u8]| match path.get(shared) {
        None => -2,
        Some(b'/') => -1,
        Some(byte) => i32::from(*byte),
    };
    rank(a).cmp(&rank(b))
}

/// A place in an index and the path there; kept apart from the index so that whoever owns both can go on.
#[derive(Debug, Default, Clone)]
pub(super) struct Position {
    next: usize,
    path: Vec<u8>,
    /// Where the names on the path end.
    ends: Vec<usize>,
    arrived: bool,
}

/// A way through an index from its start.
pub(super) struct IndexCursor<'index> {
    index: &'index Index,
    position: Position,
}

impl<'index> IndexCursor<'index> {
    /// Goes on where `position` was.
    pub(super) fn at(index: &'index Index, position: Position) -> Self {
        let mut cursor = Self { index, position };
        if !cursor.position.arrived {
            cursor.arrive();
        }
        cursor
    }

    /// Leaves the index and keeps the place.
    pub(super) fn into_position(self) -> Position {
        self.position
    }

    fn arrive(&mut self) {
        let Position { next, path, ends, arrived } = &mut self.position;
        *arrived = true;
        let Some(record) = self.index.records.get(*next) else { return };
        ends.truncate(record.depth as usize);
        path.truncate(ends.last().copied().unwrap_or(0));
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.index.name(record));
        ends.push(path.len());
    }

    fn record(&self) -> &'index Record {
        &self.index.records[self.position.next]
    }

    /// Returns the position in the index's list.
    pub(super) fn number(&self) -> usize {
        self.position.next
    }

    /// Returns the entry's path, `None` at the end.
    pub(super) fn path(&self) -> Option<&[u8]> {
        (self.position.next < self.index.len()).then_some(&self.position.path)
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.position.path))
    }

    pub(super) fn advance(&mut self) {
        self.position.next += 1;
        self.arrive();
    }

    pub(super) fn advance_past_subtree(&mut self) {
        let depth = self.record().depth;
        let rest = &self.index.records[self.position.next + 1..];
        self.position.next += 1 + rest.iter().take_while(|record| record.depth > depth).count();
        self.arrive();
    }

    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        let record = self.record();
        record.has_fingerprint.then(|| Fingerprint::from_bytes(record.fingerprint))
    }

    pub(super) fn metadata(&self) -> Metadata {
        self.index.metadata(self.record())
    }
}
