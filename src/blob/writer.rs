//! Writing one blob.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::growing::Growing;
use super::lock::{Session, StoreLock};
use super::store::touch;
use super::{BlobError, checked_digest};
use crate::oci::Descriptor;
use crate::space::explain;
use crate::stream::{Counted, HashingWriter};
use crate::tree::regular;

/// A blob being written, hashed on the way. Dropped without a commit, it leaves nothing.
///
/// Its [`Write`] has plain `io::Error`s; [`StoreWriter::path`] tells where, for the message.
#[derive(Debug)]
pub struct StoreWriter {
    file: Option<HashingWriter<File>>,
    path: PathBuf,
    store: PathBuf,
    lock: StoreLock,
    /// For who reads while this writes.
    growing: Option<Arc<Growing>>,
    size_bytes: u64,
    _session: Arc<Session>,
}

impl StoreWriter {
    pub(super) fn create(store: &Path, lock: StoreLock, session: Arc<Session>) -> Result<Self, BlobError> {
        let path = session.temporary();
        let file = regular::create_new(&path).map_err(|error| BlobError::io("create", &path, error))?;
        Ok(Self {
            file: Some(HashingWriter::new(file)),
            path,
            store: store.to_owned(),
            lock,
            growing: None,
            size_bytes: 0,
            _session: session,
        })
    }

    /// Lets the blob be read while it is written.
    pub fn growing(&mut self) -> Result<Arc<Growing>, BlobError> {
        if let Some(growing) = &self.growing {
            return Ok(Arc::clone(growing));
        }
        let growing = Growing::open(&self.path)?;
        growing.grow(self.size_bytes);
        self.growing = Some(Arc::clone(&growing));
        Ok(growing)
    }

    /// Returns the path of the temporary file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the blob in its place; with `expected`, only if digest and size are as it says.
    pub fn commit(mut self, expected: Option<&Descriptor>) -> Result<Counted, BlobError> {
        let writer = self.file.take().expect("taken here only");
        let (file, counted) = writer.finish();
        if let Some(expected) = expected {
            let digest = checked_digest(expected)?;
            if digest != counted.digest || expected.size() != counted.size_bytes {
                let problem = format!(
                    "expected {} bytes of `{digest}`, found {} bytes of `{}`",
                    expected.size(),
                    counted.size_bytes,
                    counted.digest
                );
                return Err(BlobError::Damaged { digest, place: self.path.display().to_string(), problem });
            }
        }
        // Content is never changed under its digest; others may read it whatever our umask.
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(|error| BlobError::io("seal", &self.path, error))?;
        let place = self.store.join("blobs/sha256").join(counted.digest.hex());
        let guard = self.lock.shared()?;
        touch(&self.path).map_err(|error| BlobError::io("touch", &self.path, error))?;
        fs::rename(&self.path, &place).map_err(|error| BlobError::io("create", &place, error))?;
        drop(guard);
        if let Some(growing) = &self.growing {
            growing.complete(&counted.digest);
        }
        Ok(counted)
    }

    fn file(&mut self) -> &mut HashingWriter<File> {
        self.file.as_mut().expect("there until the commit, which consumes the writer")
    }
}

impl Write for StoreWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file().write(buf);
        let count = written.map_err(|error| explain(&self.path, error))?;
        self.size_bytes += count as u64;
        if let Some(growing) = &self.growing {
            growing.grow(count as u64);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        // After a commit the name is gone; otherwise the next session sweeps what cannot be removed now.
        let _ = fs::remove_file(&self.path);
        if let Some(growing) = &self.growing {
            growing.give_up();
        }
    }
}
