//! The local store.
//!
//! ```text
//! oci-layout  index.json          an OCI image layout (image-spec `image-layout.md`)
//! blobs/sha256/HEX                complete blobs, read only
//! ingest/ID/N  ingest/ID.lock     temporary files of living sessions (`lock.rs`)
//! lock
//! ```
//!
//! A blob is written to `ingest/`, hashed on the way, and renamed into its place: killed at any instant, a process leaves
//! complete blobs and files to sweep. Nothing is synced to the disk, since it can all be fetched or built again;
//! what a power failure damages is noticed when it is read, or by its length, and dropped.
//!
//! A blob that was asked for ([`Store::has`], `open`) or written stays for the life of the [`Store`]: see `gc.rs`.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use super::index::{EMPTY_INDEX, INDEX_FILE, LAYOUT_FILE, LAYOUT_MARKER, read_index};
use super::lock::{Session, StoreLock, sweep};
use super::{BlobError, BlobSource, StoreWriter, checked_digest, read_whole};
use crate::event::Reporter;
use crate::oci::{Descriptor, Digest};
use crate::stream::VerifyReader;
use crate::tree::regular::{self, NotRegular};

/// SHA-256 of nothing: the only blob that may be empty.
const EMPTY_DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) const BLOBS: &str = "blobs/sha256";
pub(super) const INGEST: &str = "ingest";
pub(super) const LOCK: &str = "lock";

/// A local store of blobs in OCI image layout form, safe to share between processes.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    lock: StoreLock,
    session: Arc<Session>,
}

impl Store {
    /// Files that make a directory a store, and name what is in it; [`super::RECORDS_DIRECTORY`] is what else is believed.
    pub const NAMES: [&str; 2] = [INDEX_FILE, LAYOUT_FILE];
    /// What else is in a store, and comes and goes: blobs, which are verified whenever they are read, and what makes them.
    pub const CONTENT: [&str; 3] = ["blobs", INGEST, LOCK];

    /// Opens the store at `dir` as [`Store::open_telling`] does, and waits for others in silence.
    pub fn open(dir: &Path) -> Result<Arc<Self>, BlobError> {
        Self::open_telling(dir, &Reporter::silent())
    }

    /// Opens the store at `dir`, creating it if needed, and sweeps what killed processes left. Who keeps its lock for
    /// long is told to `reporter`, now and later.
    pub fn open_telling(dir: &Path, reporter: &Reporter) -> Result<Arc<Self>, BlobError> {
        for sub in [BLOBS, INGEST] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(|error| BlobError::io("create", &path, error))?;
        }
        check_directories(dir)?;
        let lock = StoreLock::new(dir, reporter);
        lock.make_way()?;
        let guard = lock.exclusive()?;
        let ingest = dir.join(INGEST);
        sweep(&ingest, &guard)?;
        let session = Arc::new(Session::begin(&ingest, &guard)?);
        let store = Self { path: dir.to_owned(), lock, session };
        for (name, content) in [(LAYOUT_FILE, LAYOUT_MARKER), (INDEX_FILE, EMPTY_INDEX)] {
            if !dir.join(name).exists() {
                store.replace_file(name, content)?;
            }
        }
        // Every build ends with a name in the index: better to know now that it cannot have one.
        read_index(dir)?;
        drop(guard);
        Ok(Arc::new(store))
    }

    /// Returns the directory the store is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(BLOBS).join(digest.hex())
    }

    /// Tells whether the blob is there; if so it stays for as long as this `Store` is open.
    pub fn has(&self, digest: &Digest) -> bool {
        self.keep(digest).is_ok()
    }

    /// Opens a blob's file for reading, unverified; it stays for as long as this `Store` is open.
    pub fn open_file(&self, digest: &Digest) -> Result<File, BlobError> {
        self.keep(digest)
    }

    /// Reads a blob whole (64 MiB at most), verified.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, BlobError> {
        read_whole(self, descriptor, &self.path.display().to_string())
    }

    /// Starts a blob; nothing shows before [`StoreWriter::commit`].
    pub fn writer(&self) -> Result<StoreWriter, BlobError> {
        StoreWriter::create(&self.path, self.lock.clone(), Arc::clone(&self.session))
    }

    /// Keeps `bytes`.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = Digest::of(bytes);
        if self.has(&digest) {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        let path = writer.path().to_owned();
        writer.write_all(bytes).map_err(|error| BlobError::io("write", &path, error))?;
        Ok(writer.commit(None)?.digest)
    }

    /// Opens a blob and marks it as in use now. The shared lock keeps a collection from removing it in between.
    fn keep(&self, digest: &Digest) -> Result<File, BlobError> {
        let path = self.blob_path(digest);
        let guard = self.lock.shared()?;
        let file = match regular::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing(digest)),
            Err(error) if NotRegular::is(&error) => {
                // As for all that is damaged: it is being reported, or made anew.
                let _ = regular::remove(&path);
                let (digest, place) = (digest.clone(), self.path.display().to_string());
                return Err(BlobError::Damaged { digest, place, problem: error.to_string() });
            }
            Err(error) => return Err(BlobError::io("open", &path, error)),
        };
        // A power failure can leave a name without its bytes.
        let length = file.metadata().map_err(|error| BlobError::io("look at", &path, error))?.len();
        if length == 0 && digest.as_str() != EMPTY_DIGEST {
            return Err(self.missing(digest));
        }
        touch(&path).map_err(|error| BlobError::io("touch", &path, error))?;
        drop(guard);
        Ok(file)
    }

    pub(super) fn lock(&self) -> &StoreLock {
        &self.lock
    }

    fn missing(&self, digest: &Digest) -> BlobError {
        BlobError::NotFound { digest: digest.clone(), place: self.path.display().to_string() }
    }

    /// Replaces one of the layout's own files in one step.
    pub(super) fn replace_file(&self, name: &str, content: &[u8]) -> Result<(), BlobError> {
        let temporary = self.session.temporary();
        let path = self.path.join(name);
        regular::create_new(&temporary)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| BlobError::io("write", &temporary, error))?;
        fs::rename(&temporary, &path).map_err(|error| BlobError::io("replace", &path, error))
    }
}

/// An error if anything would be removed from a store that is in another place: whoever can write to it may put links there.
pub(super) fn check_directories(store: &Path) -> Result<(), BlobError> {
    ["blobs", BLOBS, INGEST].map(|sub| store.join(sub)).iter().try_for_each(|path| {
        regular::check_directory(path).map_err(|error| BlobError::io("use", path, error))
    })
}

/// Sets a file's modification time to now by the file system's clock, and leaves the access time.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
}

/// Removes a damaged blob, so that the next build fetches or makes it anew, unless somebody has done so already.
fn drop_damaged(path: &Path, seen: &File) {
    let same = |seen: fs::Metadata, now: fs::Metadata| (seen.dev(), seen.ino()) == (now.dev(), now.ino());
    if seen.metadata().is_ok_and(|seen| fs::metadata(path).is_ok_and(|now| same(seen, now))) {
        // The damage itself is being reported; a blob that cannot be removed will be again.
        let _ = fs::remove_file(path);
    }
}

/// Reads a blob, and removes it if it turns out to be damaged.
#[derive(Debug)]
struct DroppingReader {
    reader: VerifyReader<File>,
    seen: File,
    path: PathBuf,
}

impl Read for DroppingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.reader.read(buf);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            drop_damaged(&self.path, &self.seen);
        }
        result
    }
}

impl BlobSource for Store {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, BlobError> {
        let digest = checked_digest(descriptor)?;
        let file = self.keep(&digest)?;
        let path = self.blob_path(&digest);
        let found = file.metadata().map_err(|error| BlobError::io("look at", &path, error))?.len();
        if found != descriptor.size() {
            drop_damaged(&path, &file);
            return Err(BlobError::Damaged {
                digest,
                place: self.path.display().to_string(),
                problem: format!("expected {} bytes, found {found}", descriptor.size()),
            });
        }
        let seen = file.try_clone().map_err(|error| BlobError::io("open", &path, error))?;
        let reader = VerifyReader::new(file, digest, descriptor.size());
        Ok(Box::new(DroppingReader { reader, seen, path }))
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self.keep(digest) {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound { .. } | BlobError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
