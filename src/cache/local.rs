//! A directory as a cache: kiln's own store, or any other one.
//!
//! ```text
//! blobs/sha256/HEX      layers and configs; with `index.json` and `oci-layout` an image layout
//! records/KK/KEY        the manifest of a record: what a registry has under its tag
//! records/steps/ID      the key of the newest record of a step
//! ```
//!
//! A record's time of modification is when it was used last. Collections of the store's garbage keep what the
//! manifests below `records/` refer to. Records are put in place by renaming, after their blobs: killed at any instant, a
//! build leaves whole records.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::artifact::{self, Header};
use super::{Cache, CacheError, Entry, Found, Key, Record, Removed, SharedCache, StepName};
use crate::blob::{BlobError, BlobSource, Layout, RECORDS_DIRECTORY, Store};
use crate::oci::{Descriptor, Digest};
use crate::registry::Artifact;
use crate::sandbox::{Anchor, Ground};
use crate::tree::regular;

/// No manifest of a record is larger.
const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;

/// The directory of the names of steps, beside those of records.
const STEPS: &str = "steps";
/// How files begin that are being written.
const TEMPORARY: &str = ".new-";
/// Files that are being written are there for moments; after an hour nobody is writing them.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Keeps records in `store`; `is_own` tells whether that is the store the build works with. While a step runs that could
/// reach it, no record is read or written.
pub fn open_store(store: Arc<Store>, is_own: bool, ground: &Arc<Ground>) -> SharedCache {
    let root = store.path().to_owned();
    let (shown, blobs, ground) = (root.clone(), Blobs::Store(store), Arc::clone(ground));
    Arc::new(LocalCache { shown, root, anchor: None, blobs, is_own, ground })
}

/// Keeps records in the directory `path`, which is made if need be.
pub fn open_local(path: &Path, ground: &Arc<Ground>) -> Result<SharedCache, CacheError> {
    fs::create_dir_all(path).map_err(|error| CacheError::io("create", path, error))?;
    let anchor = ground.anchor(path).map_err(|error| CacheError::io("open", path, error))?;
    let store = Store::open(anchor.path()).map_err(|error| blob_error(path, error))?;
    Ok(anchored(path, anchor, Blobs::Store(store), ground))
}

/// Reads the records of the directory `path`, which may be read-only.
pub fn open_local_source(path: &Path, ground: &Arc<Ground>) -> Result<SharedCache, CacheError> {
    if !path.join("oci-layout").exists() {
        let missing =
            io::Error::new(io::ErrorKind::NotFound, "it is no cache directory: it has no `oci-layout`");
        return Err(CacheError::io("read", path, missing));
    }
    let anchor = ground.anchor(path).map_err(|error| CacheError::io("open", path, error))?;
    let blobs = match Store::open(anchor.path()) {
        Ok(store) => Blobs::Store(store),
        Err(_) => {
            let layout = Layout::open(anchor.path()).map_err(|error| blob_error(path, error))?;
            Blobs::Layout(Arc::new(layout))
        }
    };
    Ok(anchored(path, anchor, blobs, ground))
}

fn anchored(path: &Path, anchor: Anchor, blobs: Blobs, ground: &Arc<Ground>) -> SharedCache {
    let (shown, root, ground) = (path.to_owned(), anchor.path().to_owned(), Arc::clone(ground));
    Arc::new(LocalCache { shown, root, anchor: Some(Arc::new(anchor)), blobs, is_own: false, ground })
}

fn blob_error(place: &Path, source: BlobError) -> CacheError {
    CacheError::Blob { place: place.display().to_string(), source }
}

struct LocalCache {
    /// What people call it.
    shown: PathBuf,
    /// Where it is, wherever steps move it: on a volume it is put aside with the rest.
    root: PathBuf,
    anchor: Option<Arc<Anchor>>,
    blobs: Blobs,
    is_own: bool,
    ground: Arc<Ground>,
}

/// Blobs of a directory that is reached by an anchor.
struct Lasting {
    source: Arc<dyn BlobSource>,
    _anchor: Arc<Anchor>,
}

impl BlobSource for Lasting {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn io::Read + Send>, BlobError> {
        self.source.open(descriptor)
    }

    fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.source.contains(digest)
    }
}

enum Blobs {
    Store(Arc<Store>),
    /// A directory that cannot be written to.
    Layout(Arc<Layout>),
}

impl std::fmt::Debug for LocalCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalCache({})", self.shown.display())
    }
}

impl LocalCache {
    fn record_path(&self, key: &Key) -> PathBuf {
        self.file_path(&key.to_string())
    }

    /// Returns where the record with this file name lies. Names of strange files may be anything.
    fn file_path(&self, name: &str) -> PathBuf {
        self.records().join(name.get(..2).unwrap_or(name)).join(name)
    }

    fn step_path(&self, step: &StepName) -> PathBuf {
        self.records().join(STEPS).join(step.id())
    }

    fn source(&self) -> Arc<dyn BlobSource> {
        match &self.blobs {
            Blobs::Store(store) => store.clone(),
            Blobs::Layout(layout) => layout.clone(),
        }
    }

    /// The same for readers that may outlive this.
    fn lasting_source(&self) -> Arc<dyn BlobSource> {
        match &self.anchor {
            Some(anchor) => Arc::new(Lasting { source: self.source(), _anchor: Arc::clone(anchor) }),
            None => self.source(),
        }
    }

    fn refused(&self, path: &Path, reason: String) -> CacheError {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        CacheError::Refused { place: self.describe(), name, reason }
    }

    /// Reads a record's manifest.
    fn header(&self, key: &Key) -> Result<Option<Header>, CacheError> {
        let path = self.record_path(key);
        let Some(bytes) = read(&path, MANIFEST_LIMIT_BYTES)? else { return Ok(None) };
        let header = Artifact::parse(&bytes)
            .map_err(|error| format!("its manifest can't be read: {error}"))
            .and_then(|artifact| artifact::read_header(&artifact))
            .map_err(|reason| self.refused(&path, reason))?;
        if header.key != *key {
            return Err(self.refused(&path, format!("it is the record of another key, `{}`", header.key)));
        }
        Ok(Some(header))
    }

    /// Tells whether a blob is there with the size it should have.
    fn has(&self, descriptor: &Descriptor) -> Result<bool, CacheError> {
        // Opening checks the size, and keeps the blob for as long as the store is open.
        match self.source().open(descriptor) {
            Ok(_) => Ok(true),
            Err(BlobError::NotFound { .. }) => Ok(false),
            Err(error) => Err(blob_error(&self.shown, error)),
        }
    }

    /// Puts a file in its place in one step.
    fn place(&self, path: &Path, content: &[u8]) -> Result<(), CacheError> {
        let directory = path.parent().expect("records are below the root");
        fs::create_dir_all(directory).map_err(|error| CacheError::io("create", directory, error))?;
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory)?;
            file.write_all(content)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| CacheError::io("write", path, error))
    }
}

/// Reads a small file; `None` if it is not there.
fn read(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, CacheError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        regular::open(path)?.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CacheError::io("read", path, error)),
    }
}

/// Marks a record as used now. That it cannot be marked in a read-only directory does no harm.
fn touch(path: &Path) {
    if let Ok(file) = regular::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

impl Cache for LocalCache {
    fn describe(&self) -> String {
        if self.is_own { "the local cache".to_owned() } else { self.shown.display().to_string() }
    }

    fn find(&self, key: &Key) -> Result<Option<Found>, CacheError> {
        let _held = self.ground.hold();
        let Some(header) = self.header(key)? else { return Ok(None) };
        // Pruned since, or lost in a power failure.
        if !self.has(&header.layer.descriptor)? {
            return Ok(None);
        }
        touch(&self.record_path(key));
        let mut found = header.found(self.describe());
        found.blobs = (!self.is_own).then(|| self.lasting_source());
        found.file = self.is_own.then(|| self.record_path(key));
        Ok(Some(found))
    }

    fn newest(&self, step: &StepName) -> Result<Option<Record>, CacheError> {
        let _held = self.ground.hold();
        let path = self.step_path(step);
        let Some(name) = read(&path, 256)? else { return Ok(None) };
        let name = String::from_utf8_lossy(&name);
        let key: Key = name.trim().parse().map_err(|error| self.refused(&path, format!("{error}")))?;
        let Some(header) = self.header(&key)? else { return Ok(None) };
        let mut config = Vec::new();
        let read = match self.source().open(&header.config) {
            Ok(reader) => reader.take(header.config.size()).read_to_end(&mut config),
            Err(BlobError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(blob_error(&self.shown, error)),
        };
        read.map_err(|error| self.refused(&path, format!("its config can't be read: {error}")))?;
        let record = artifact::read_record(&header, &config).map_err(|reason| self.refused(&path, reason))?;
        Ok(Some(record).filter(|record| record.step == *step))
    }

    fn put(&self, record: &Record, layer: &dyn BlobSource) -> Result<(), CacheError> {
        let Blobs::Store(store) = &self.blobs else {
            return Err(CacheError::io("write", &self.shown, io::ErrorKind::ReadOnlyFilesystem.into()));
        };
        let _held = self.ground.hold();
        let failed = |error| blob_error(&self.shown, error);
        let digest: Digest = record.layer.digest();
        if !store.has(&digest) {
            let mut reader = layer.open(&record.layer.descriptor).map_err(failed)?;
            let mut writer = store.writer().map_err(failed)?;
            let path = writer.path().to_owned();
            io::copy(&mut reader, &mut writer).map_err(|error| CacheError::io("write", &path, error))?;
            writer.commit(Some(&record.layer.descriptor)).map_err(failed)?;
        }
        let (artifact, config) = artifact::seal(record);
        store.put(&config).map_err(failed)?;
        self.place(&self.record_path(&record.key), &artifact.seal().1)?;
        self.place(&self.step_path(&record.step), record.key.to_string().as_bytes())
    }

    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let mut entries = Vec::new();
        for (path, metadata) in self.record_files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let used = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let used = used.and_then(|since| i64::try_from(since.as_secs()).ok());
            let read = name
                .parse()
                .map_err(|error| self.refused(&path, format!("{error}")))
                .and_then(|key| self.header(&key));
            match read {
                Ok(Some(header)) => entries.push(header.entry(name, None, used)),
                Ok(None) => {}
                Err(CacheError::Refused { reason, .. }) => {
                    entries.push(Entry::unreadable(name, None, &reason));
                }
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn remove(&self, entries: &[Entry]) -> Result<Removed, CacheError> {
        let Blobs::Store(store) = &self.blobs else {
            return Err(CacheError::io(
                "remove records in",
                &self.shown,
                io::ErrorKind::ReadOnlyFilesystem.into(),
            ));
        };
        let mut removed = Removed::default();
        for entry in entries {
            let path = self.file_path(&entry.name);
            match fs::remove_file(&path) {
                Ok(()) => removed.records += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CacheError::io("remove", &path, error)),
            }
        }
        self.sweep()?;
        let collected =
            store.collect_garbage(Duration::ZERO).map_err(|error| blob_error(&self.shown, error))?;
        (removed.bytes, removed.blobs) = (collected.bytes, collected.blobs);
        Ok(removed)
    }
}

impl LocalCache {
    fn records(&self) -> PathBuf {
        self.root.join(RECORDS_DIRECTORY)
    }

    /// Lists the files of records.
    fn record_files(&self) -> Result<Vec<(PathBuf, fs::Metadata)>, CacheError> {
        let mut files = Vec::new();
        for directory in list(&self.records())? {
            if directory.file_name().is_some_and(|name| name == STEPS) {
                continue;
            }
            for path in list(&directory)? {
                if is_temporary(&path) {
                    continue;
                }
                match fs::metadata(&path) {
                    Ok(metadata) => files.push((path, metadata)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(CacheError::io("look at", &path, error)),
                }
            }
        }
        Ok(files)
    }

    /// Removes names of steps whose record is gone, and files that killed builds left half written.
    fn sweep(&self) -> Result<(), CacheError> {
        for directory in list(&self.records())? {
            let is_steps = directory.file_name().is_some_and(|name| name == STEPS);
            for path in list(&directory)? {
                let goes = if is_temporary(&path) {
                    let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
                    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
                } else if is_steps {
                    let key = read(&path, 256)?
                        .and_then(|name| String::from_utf8_lossy(&name).trim().parse::<Key>().ok());
                    key.is_none_or(|key| !self.record_path(&key).exists())
                } else {
                    false
                };
                if goes {
                    // Whoever else sweeps may have been first.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(())
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

/// Lists what is in a directory; nothing if there is none, or if it is a file.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let fail = |error| CacheError::io("list", directory, error);
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path()).map_err(fail)).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(fail(error)),
    }
}
