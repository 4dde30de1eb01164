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
    threads::count(MAX_THREADS)
}

struct Task {
    number: usize,
    path: PathBuf,
    kind: FileKind,
}

/// Takes the missing fingerprints of the entries that `wanted` accepts, on several threads if there are many.
pub(super) fn fill(index: &mut Index, root: &RootDir, wanted: impl FnMut(usize) -> bool) -> io::Result<()> {
    let mut batches = Batches { cursor: IndexCursor::at(index, Position::default()), wanted };
    let (first, second) = (batches.next(), batches.next());
    let found = match (first, second) {
        (None, _) => return Ok(()),
        (Some(only), None) => vec![work(root, &mut vec![0; BUFFER_BYTES], &only)?],
        (Some(first), Some(second)) => on_threads(root, [first, second].into_iter().chain(batches))?,
    };
    for (number, fingerprint) in found.into_iter().flatten() {
        index.set_fingerprint(number, fingerprint);
    }
    Ok(())
}

type Found = Vec<(usize, Fingerprint)>;

fn on_threads(root: &RootDir, batches: impl Iterator<Item = Vec<Task>>) -> io::Result<Vec<Found>> {
    let threads = thread_count();
    let (task_sender, task_receiver) = mpsc::sync_channel::<Vec<Task>>(threads * 2);
    let (found_sender, found_receiver) = mpsc::channel::<io::Result<Found>>();
    let task_receiver = Arc::new(Mutex::new(task_receiver));
    std::thread::scope(|scope| {
        let workers = (0..threads).map_while(|_| {
            let (tasks, found) = (Arc::clone(&task_receiver), found_sender.clone());
            let body = move || {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let batch = tasks.lock().expect("nobody panics while receiving").recv();
                    let Ok(batch) = batch else { return };
                    if found.send(work(root, &mut buffer, &batch)).is_err() {
                        return;
                    }
                }
            };
            threads::spawn_in(scope, "fill", body).ok()
        });
        let workers = workers.count();
        drop(task_receiver);
        for batch in batches {
            let goes_on = match workers {
                0 => found_sender.send(work(root, &mut vec![0; BUFFER_BYTES], &batch)).is_ok(),
                // The receiver is gone only if a thread panicked, and then the scope panics, too.
                _ => task_sender.send(batch).is_ok(),
            };
            if !goes_on {
                break;
            }
        }
        drop((found_sender, task_sender));
        found_receiver.iter().collect()
    })
}

/// The entries that have no fingerprint and are wanted.
struct Batches<'a, F> {
    cursor: IndexCursor<'a>,
    wanted: F,
}

impl<F: FnMut(usize) -> bool> Iterator for Batches<'_, F> {
    type Item = Vec<Task>;

    fn next(&mut self) -> Option<Vec<Task>> {
        let Self { cursor, wanted } = self;
        let mut batch = Vec::new();
        while cursor.path().is_some() && batch.len() < BATCH {
            if wanted(cursor.number()) && cursor.fingerprint().is_none() {
                let kind = cursor.metadata().kind;
                batch.push(Task { number: cursor.number(), path: cursor.as_path().to_path_buf(), kind });
            }
            cursor.advance();
        }
        (!batch.is_empty()).then_some(batch)
    }
}

fn work(root: &RootDir, buffer: &mut [u8], batch: &[Task]) -> io::Result<Found> {
    batch.iter().map(|task| take(root, task, buffer)).collect()
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
