//! Everything about a tree that a later look at it is compared with.
//!
//! An index is one flat list in walking order. Paths are not stored: the entries' depths and names give them to
//! whoever goes through the list from its start. An inode's (device, number, ctime) at one path tells that nothing of
//! it was touched; ctime is exact on current kernels, and on those with a coarse clock because a scan does not
//! return before the clock has moved on.

use std::cmp::Ordering;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::compare::same_metadata;
use super::fill;
use crate::tree::{Device, Entry, FileKind, Fingerprint, Fingerprints, Metadata, RootDir, Timestamp, Walk};

/// The slowest clock tick of any kernel configuration is 10 ms; more means that the clock stands still.
const CLOCK_PATIENCE: Duration = Duration::from_secs(2);

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

/// Scans a tree for the first time, reading all of its files.
pub fn scan(root: &RootDir, exclude: &[PathBuf]) -> io::Result<Index> {
    Index::scan(root, exclude, &Fingerprints::new())
}

impl Index {
    /// Scans a tree for the first time. Files without a `known` fingerprint are read.
    ///
    /// Returns once the file system's clock has moved on, so that no later change can hide in the same tick. Paths in
    /// `exclude` (relative to the root) and what is below them do not exist; mounts are not entered.
    pub fn scan(root: &RootDir, exclude: &[PathBuf], known: &Fingerprints) -> io::Result<Self> {
        let mut index = Self::default();
        let mut entries = Entries::new(root, exclude)?;
        while let Some(entry) = entries.advance()? {
            let fingerprint = match entry.metadata.kind {
                FileKind::File => known.get(&entry.path, entry.metadata.size_bytes),
                _ => None,
            };
            index.push(&entry, fingerprint)?;
        }
        fill::fill(&mut index, root, |_, _| true)?;
        wait_for_clock(root)?;
        Ok(index)
    }

    /// Scans the tree again after a step, when all of the step's processes are gone.
    ///
    /// Reads only files that were touched and look unchanged otherwise. What is excluded is taken to be as it was.
    pub fn rescan(&self, root: &RootDir, exclude: &[PathBuf]) -> io::Result<Self> {
        let mut index = Self::default();
        let mut entries = Entries::new(root, exclude)?;
        let mut before = self.cursor();
        let mut ambiguous = Vec::new();
        let mut next = entries.advance()?;
        loop {
            let order = match (&next, before.path()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Greater,
                (None, Some(_)) => Ordering::Less,
                (Some(entry), Some(path)) => compare_paths(path, entry.path.as_os_str().as_bytes()),
            };
            match (order, next.take()) {
                (Ordering::Less, entry) => {
                    if entries.excludes(before.as_path()) {
                        index.adopt(&before)?;
                    }
                    before.advance();
                    next = entry;
                }
                (Ordering::Equal, Some(entry)) => {
                    let old = before.metadata();
                    let untouched = old.same_inode(&entry.metadata) && old.ctime == entry.metadata.ctime;
                    let inherited = if untouched { before.fingerprint() } else { None };
                    if !untouched && same_metadata(&old, &entry.metadata) {
                        ambiguous.push(index.len());
                    }
                    index.push(&entry, inherited)?;
                    before.advance();
                    next = entries.advance()?;
                }
                (_, entry) => {
                    index.push(&entry.expect("comes after the end of the other"), None)?;
                    next = entries.advance()?;
                }
            }
        }
        let mut ambiguous = ambiguous.into_iter().peekable();
        fill::fill(&mut index, root, |position, _| ambiguous.next_if_eq(&position).is_some())?;
        wait_for_clock(root)?;
        Ok(index)
    }

    /// Reads the files whose fingerprint is not known, which is needed before a further step may change them.
    ///
    /// Without it a file that the next step only touches counts as changed.
    pub fn complete(&mut self, root: &RootDir) -> io::Result<()> {
        fill::fill(self, root, |_, _| true)
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Tells whether the tree is empty.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Stands on the first entry.
    pub(super) fn cursor(&self) -> IndexCursor<'_> {
        IndexCursor::at(self, Position::default())
    }

    /// Notes a fingerprint taken for the entry at `position`.
    pub(super) fn set_fingerprint(&mut self, position: usize, fingerprint: Fingerprint) {
        let record = &mut self.records[position];
        record.fingerprint = fingerprint.to_bytes();
        record.has_fingerprint = true;
    }

    fn push(&mut self, entry: &Entry, fingerprint: Option<Fingerprint>) -> io::Result<()> {
        let path = entry.path.as_os_str().as_bytes();
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let depth = path.iter().filter(|byte| **byte == b'/').count();
        let metadata = &entry.metadata;
        let (kind, size_bytes) = pack_kind(metadata);
        let device = self.device(metadata.dev)?;
        self.records.push(Record {
            size_bytes,
            ino: metadata.ino,
            mtime_seconds: metadata.mtime.seconds,
            ctime_seconds: metadata.ctime.seconds,
            mtime_nanoseconds: metadata.mtime.nanoseconds,
            ctime_nanoseconds: metadata.ctime.nanoseconds,
            uid: metadata.uid,
            gid: metadata.gid,
            nlink: u32::try_from(metadata.nlink).unwrap_or(u32::MAX),
            name_start: narrow(self.names.len())?,
            depth: narrow(depth)?,
            mode: kind | narrow::<u16, _>(metadata.mode)?,
            device,
            name_length: narrow(path.len() - start)?,
            has_fingerprint: fingerprint.is_some(),
            fingerprint: fingerprint.map_or([0; 16], Fingerprint::to_bytes),
        });
        self.names.extend_from_slice(&path[start..]);
        Ok(())
    }

    /// Takes over an entry of an older index, unless its directory is gone.
    fn adopt(&mut self, before: &IndexCursor<'_>) -> io::Result<()> {
        let path = before.as_path().to_path_buf();
        let parent = path.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() && !self.ends_in_directory(parent) {
            return Ok(());
        }
        self.push(&Entry { path, metadata: before.metadata() }, before.fingerprint())
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
        Path::new(std::ffi::OsStr::from_bytes(&self.position.path))
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
        let record = self.record();
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
            dev: self.index.devices[usize::from(record.device)],
            ino: record.ino,
            nlink: record.nlink.into(),
        }
    }
}

/// The entries of a tree without what is excluded and without sockets.
struct Entries {
    walk: Walk,
    exclude: Vec<PathBuf>,
}

impl Entries {
    fn new(root: &RootDir, exclude: &[PathBuf]) -> io::Result<Self> {
        let exclude =
            exclude.iter().map(|path| path.strip_prefix("/").unwrap_or(path).to_path_buf()).collect();
        Ok(Self { walk: Walk::new(root, "")?.same_device_only(), exclude })
    }

    fn advance(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(entry) = self.walk.next().transpose()? else { return Ok(None) };
            if self.exclude.contains(&entry.path) {
                self.walk.skip_subtree();
            } else if entry.metadata.kind != FileKind::Socket {
                return Ok(Some(entry));
            }
        }
    }

    fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|excluded| path.starts_with(excluded))
    }
}

/// Waits until a change made now gets another ctime than everything before.
///
/// Touches nothing but the ctime of the root directory, which is in no index.
fn wait_for_clock(root: &RootDir) -> io::Result<()> {
    let touch = || {
        root.set_mode("", root.metadata("")?.mode)?;
        Ok::<_, io::Error>(root.metadata("")?.ctime)
    };
    let first = touch()?;
    let begin = Instant::now();
    while touch()? == first {
        if begin.elapsed() > CLOCK_PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the file system's clock stands still"));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}
