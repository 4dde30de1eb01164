//! Reading what an index does not know yet: content, link targets and extended attributes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use super::compare::image_xattrs;
use super::index::{Index, IndexCursor, Position};
use crate::threads;
use crate::tree::{ContentHasher, EntryError, FileKind, Fingerprint, Pieces, RootDir};

/// Enough to keep threads from waiting for each other over small files.
const BATCH: usize = 64;

/// More threads than this find nothing left to do but to wait for the kernel's locks.
const MAX_THREADS: usize = 8;

const BUFFER_BYTES: usize = 128 * 1024;

/// Returns how many threads to use.
pub(super) fn thread_count() -> usize {
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
    let threads = thread_count();
    let (task_sender, task_receiver) = mpsc::sync_channel::<Vec<Task>>(threads * 2);
    let (found_sender, found_receiver) = mpsc::channel::<io::Result<Vec<(usize, Fingerprint)>>>();
    let task_receiver = Arc::new(Mutex::new(task_receiver));
    let found = std::thread::scope(|scope| {
        let mut buffer = vec![0; BUFFER_BYTES];
        let work =
            |buffer: &mut [u8], batch: &[Task]| batch.iter().map(|task| take(root, task, buffer)).collect();
        let workers = (0..threads).map_while(|_| {
            let (tasks, found) = (Arc::clone(&task_receiver), found_sender.clone());
            let body = move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let batch = tasks.lock().expect("nobody panics while receiving").recv();
                    let Ok(batch) = batch else { return };
                    if found.send(work(&mut buffer, &batch)).is_err() {
                        return;
                    }
                }
            };
            threads::spawn_in(scope, "fill", body).ok()
        });
        let workers = workers.count();
        drop(task_receiver);
        if workers > 0 {
            drop(found_sender);
            // The receiver is gone only if a thread panicked, and then the scope panics, too.
            deal(index, &mut wanted, &mut |batch| task_sender.send(batch).is_ok());
        } else {
            deal(index, &mut wanted, &mut |batch| found_sender.send(work(&mut buffer, &batch)).is_ok());
            drop(found_sender);
        }
        drop(task_sender);
        found_receiver.iter().collect::<io::Result<Vec<_>>>()
    })?;
    for (number, fingerprint) in found.into_iter().flatten() {
        index.set_fingerprint(number, fingerprint);
    }
    Ok(())
}

/// Hands out the work in batches, for as long as `give` returns true.
fn deal(index: &Index, wanted: &mut impl FnMut(usize) -> bool, give: &mut dyn FnMut(Vec<Task>) -> bool) {
    let mut batch = Vec::new();
    let mut cursor = IndexCursor::at(index, Position::default());
    while cursor.path().is_some() {
        if wanted(cursor.number()) && cursor.fingerprint().is_none() {
            let kind = cursor.metadata().kind;
            batch.push(Task { number: cursor.number(), path: cursor.as_path().to_path_buf(), kind });
        }
        if batch.len() == BATCH && !give(std::mem::take(&mut batch)) {
            return;
        }
        cursor.advance();
    }
    give(batch);
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
            let file = root.open_nofollow(&task.path)?;
            let mut pieces = Pieces::of(&file)?;
            // What is zeros counts by what is around it: a hole, however large, costs nothing, and is like zeros.
            while let Some(offset) = pieces.next_offset(buffer.len())? {
                let piece = pieces.read(offset, buffer)?;
                if piece.iter().any(|byte| *byte != 0) {
                    hasher.update(&offset.to_le_bytes());
                    hasher.update(piece);
                }
            }
            hasher.update(&pieces.size_bytes().to_le_bytes());
        }
        FileKind::Symlink => hasher.update(root.read_link(&task.path)?.as_os_str().as_bytes()),
        _ => {}
    }
    Ok(hasher.finish(&image_xattrs(root, &task.path)?))
}
