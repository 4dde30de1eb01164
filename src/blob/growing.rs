//! A blob that is read while it is still written.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::BlobError;
use crate::oci::Digest;
use crate::tree::regular;

/// A blob on its way into the store. Whoever follows it never holds up who writes it.
#[derive(Debug)]
pub struct Growing {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written_bytes: u64,
    end: Option<End>,
    /// Nobody needs the rest.
    is_abandoned: bool,
}

#[derive(Debug, Clone)]
enum End {
    Whole(Digest),
    Broken,
}

impl Growing {
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, BlobError> {
        let file = regular::open(path).map_err(|error| BlobError::io("open", path, error))?;
        Ok(Arc::new(Self { file, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Returns a reader of the whole blob, from its start. It waits for bytes that are not written yet, and ends in an
    /// error if the blob is given up.
    pub fn follow(self: &Arc<Self>) -> Follower {
        Follower { growing: Arc::clone(self), offset: 0 }
    }

    /// Returns the blob's digest once it is complete.
    pub fn digest(&self) -> Option<Digest> {
        match &self.lock().end {
            Some(End::Whole(digest)) => Some(digest.clone()),
            Some(End::Broken) | None => None,
        }
    }

    /// Ends all followers with an error.
    pub fn abandon(&self) {
        self.lock().is_abandoned = true;
        self.changed.notify_all();
    }

    pub(super) fn grow(&self, count: u64) {
        self.lock().written_bytes += count;
        self.changed.notify_all();
    }

    pub(super) fn complete(&self, digest: &Digest) {
        self.end(End::Whole(digest.clone()));
    }

    /// The writer is gone; a complete blob stays complete.
    pub(super) fn give_up(&self) {
        self.end(End::Broken);
    }

    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a blob while it grows.
#[derive(Debug)]
pub struct Follower {
    growing: Arc<Growing>,
    offset: u64,
}

impl Read for Follower {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let growing = &self.growing;
        let mut state = growing.lock();
        let there = loop {
            if state.is_abandoned || matches!(state.end, Some(End::Broken)) {
                return Err(io::Error::other("the blob was given up"));
            }
            let there = state.written_bytes - self.offset;
            if there > 0 || state.end.is_some() {
                break there;
            }
            state = growing.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let most = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let count = growing.file.read_at(&mut buf[..most], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::blob::Store;

    #[test]
    fn a_follower_gets_what_is_written_and_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Store::open(directory.path()).unwrap().writer().unwrap();
        writer.write_all(b"begun, ").unwrap();
        let growing = writer.growing().unwrap();
        let mut follower = growing.follow();
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            follower.read_to_string(&mut text).map(|_| text)
        });
        for part in ["and ", "done"] {
            std::thread::sleep(std::time::Duration::from_millis(5));
            writer.write_all(part.as_bytes()).unwrap();
            assert_eq!(growing.digest(), None);
        }
        let counted = writer.commit(None).unwrap();
        assert_eq!(read.join().unwrap().unwrap(), "begun, and done");
        assert_eq!(growing.digest(), Some(counted.digest));
        // The file has another name by now.
        let mut again = String::new();
        growing.follow().read_to_string(&mut again).unwrap();
        assert_eq!(again, "begun, and done");
    }

    #[test]
    fn what_is_given_up_has_no_end_but_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        for abandon in [true, false] {
            let mut writer = store.writer().unwrap();
            let growing = writer.growing().unwrap();
            let mut follower = growing.follow();
            let read = std::thread::spawn(move || follower.read_to_end(&mut Vec::new()));
            writer.write_all(b"half").unwrap();
            if abandon {
                growing.abandon();
            } else {
                drop(writer);
            }
            assert!(read.join().unwrap().is_err());
        }
    }
}
