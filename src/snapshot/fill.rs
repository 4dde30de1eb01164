//! Reading what an index does not know yet: content, link targets and extended attributes.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};

use super::compare::image_xattrs;
use super::index::{Index, IndexCursor, Position};
use crate::tree::{ContentHasher, EntryError, FileKind, Fingerprint, RootDir};

/// Enough to keep threads from waiting for each other over small files.
const BATCH: usize = 64;

/// More threads than this find nothing left to do but to wait for the kernel's locks.
const MAX_THREADS: usize = 8;

const BUFFER_BYTES: usize = 128 * 1024;

/// Returns how many threads to use.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
}

struct Task {
    number: usize,
    path: PathBuf,
    kind: FileKind,
}

/// Takes the missing fingerprints of the entries that `wanted` accepts, on several threads.
pub(super) fn fill(
    index: &mut Index,
    root: &RootDir,
    mut wanted: impl FnMut(usize) -> bool,
) -> io::Result<()> {
    let threads = threads();
    let (task_sender, task_receiver) = mpsc::sync_channel::<Vec<Task>>(threads * 2);
    let (found_sender, found_receiver) = mpsc::channel::<io::Result<Vec<(usize, Fingerprint)>>>();
    let task_receiver = Mutex::new(task_receiver);
    let found = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tasks, found) = (&task_receiver, found_sender.clone());
            scope.spawn(move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let batch = tasks.lock().expect("nobody panics while receiving").recv();
                    let Ok(batch) = batch else { return };
                    let result = batch.iter().map(|task| take(root, task, &mut buffer)).collect();
                    if found.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(found_sender);
        deal(index, &mut wanted, &task_sender);
        drop(task_sender);
        found_receiver.iter().collect::<io::Result<Vec<_>>>()
    })?;
    for (number, fingerprint) in found.into_iter().flatten() {
        index.set_fingerprint(number, fingerprint);
    }
    Ok(())
}

/// Hands out the work in batches.
fn deal(index: &Index, wanted: &mut impl FnMut(usize) -> bool, tasks: &mpsc::SyncSender<Vec<Task>>) {
    let mut batch = Vec::new();
    let mut cursor = IndexCursor::at(index, Position::default());
    while cursor.path().is_some() {
        if wanted(cursor.number()) && cursor.fingerprint().is_none() {
            let kind = cursor.metadata().kind;
            batch.push(Task { number: cursor.number(), path: cursor.as_path().to_path_buf(), kind });
        }
        if batch.len() == BATCH && tasks.send(std::mem::take(&mut batch)).is_err() {
            return;
        }
        cursor.advance();
    }
    // The receiver is gone only if a thread panicked, and then the scope panics, too.
    let _ = tasks.send(batch);
}

fn take(root: &RootDir, task: &Task, buffer: &mut [u8]) -> io::Result<(usize, Fingerprint)> {
    let fingerprint =
        fingerprint(root, task, buffer).map_err(|error| EntryError::wrap(task.path.clone(), error))?;
    Ok((task.number, fingerprint))
}

fn fingerprint(root: &RootDir, task: &Task, buffer: &mut [u8]) -> io::Result<Fingerprint> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut hasher = ContentHasher::new();
    match task.kind {
        FileKind::File => {
            let mut file = root.open_nofollow(&task.path)?;
            loop {
                match file.read(buffer) {
                    Ok(0) => break,
                    Ok(length) => hasher.update(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        FileKind::Symlink => hasher.update(root.read_link(&task.path)?.as_os_str().as_bytes()),
        _ => {}
    }
    Ok(hasher.finish(&image_xattrs(root, &task.path)?))
}
