//! Removing whole trees beside other work.
//!
//! A file system that discards freed blocks at once takes a fraction of a millisecond for each file: the tree of one
//! large step would keep a finished build waiting for longer than everything else. So a few threads remove in
//! parallel, beside whatever the build does next, and nobody has to wait for more than a moment: what a build's end
//! leaves is swept by the next build (`workdir`).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::threads;
use crate::tree::RootDir;

/// Threads at once: most of their time is waiting for the disk.
const THREADS: usize = 4;

/// Longer paths are removed step by step, by one thread.
const LONG_PATH: usize = 2000;

/// All removals of this process.
static REMOVER: LazyLock<Remover> = LazyLock::new(Remover::default);

#[derive(Default)]
struct Remover {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The deepest last: it is taken first, so that few wait.
    waiting: Vec<Arc<Node>>,
    threads: usize,
    /// Trees under way, and how many asked for each.
    trees: HashMap<PathBuf, usize>,
}

/// A directory to remove.
struct Node {
    path: PathBuf,
    parent: Option<Arc<Node>>,
    /// Directories in it that are still there.
    children: AtomicUsize,
}

/// Begins to remove a directory and everything in it. What can't be removed stays. No component of `path` is a link, and
/// none is followed that a step puts there meanwhile.
pub(super) fn begin(path: &Path) {
    {
        let mut state = REMOVER.lock();
        *state.trees.entry(path.to_owned()).or_default() += 1;
        let node = Node { path: path.to_owned(), parent: None, children: AtomicUsize::new(0) };
        state.waiting.push(Arc::new(node));
    }
    REMOVER.staff();
}

/// Waits until nothing at or below `path` is being removed; returns false if that takes longer than `most`.
pub(super) fn wait(path: &Path, most: Duration) -> bool {
    let begun = Instant::now();
    let mut state = REMOVER.lock();
    while state.trees.keys().any(|tree| tree.starts_with(path)) {
        let left = most.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return false;
        }
        state = REMOVER.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

impl Remover {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread if there is work for one more; without any, the caller works.
    fn staff(&'static self) {
        let mut state = self.lock();
        if state.threads >= THREADS.min(state.waiting.len() + state.threads) {
            return;
        }
        state.threads += 1;
        let is_alone = state.threads == 1;
        drop(state);
        match threads::spawn("remove", || self.work()) {
            Ok(_) => {}
            Err(_) if is_alone => self.work(),
            Err(_) => self.lock().threads -= 1,
        }
    }

    /// Removes until nothing waits.
    fn work(&'static self) {
        loop {
            let node = {
                let mut state = self.lock();
                match state.waiting.pop() {
                    Some(node) => node,
                    None => {
                        state.threads -= 1;
                        return;
                    }
                }
            };
            self.enter(node);
        }
    }

    /// Removes what is in a directory, but for directories: they wait for their own turn.
    fn enter(&'static self, node: Arc<Node>) {
        let below = if node.path.as_os_str().len() > LONG_PATH { None } else { empty(&node.path).ok() };
        match below {
            Some(below) if below.is_empty() => self.leave(node),
            Some(below) => {
                node.children.store(below.len(), Ordering::Release);
                let nodes = below.into_iter().map(|path| {
                    Arc::new(Node { path, parent: Some(Arc::clone(&node)), children: AtomicUsize::new(0) })
                });
                self.lock().waiting.extend(nodes);
                self.staff();
            }
            None => {
                // Too deep for paths, or there is something in the way, which stays.
                let _ = RootDir::open_exact(&node.path).and_then(|root| root.remove_all(""));
                self.leave(node);
            }
        }
    }

    /// Removes an empty directory, and those above that are empty now.
    fn leave(&'static self, node: Arc<Node>) {
        let mut node = node;
        loop {
            let _ = std::fs::remove_dir(&node.path);
            let Some(parent) = node.parent.clone() else { break };
            if parent.children.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            node = parent;
        }
        let mut state = self.lock();
        if let Some(count) = state.trees.get_mut(&node.path) {
            *count -= 1;
            if *count == 0 {
                state.trees.remove(&node.path);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Removes a directory's files; returns the directories in it.
fn empty(path: &Path) -> io::Result<Vec<PathBuf>> {
    let root = match RootDir::open_exact(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let directories = match root.remove_files() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
            root.remove_files()?
        }
        other => other?,
    };
    Ok(directories.into_iter().map(|name| path.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGES: Duration = Duration::from_secs(60);

    #[test]
    fn everything_goes_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for number in 0..40 {
            let below = tree.join(format!("{}/{}/{number}", number % 3, number % 5));
            std::fs::create_dir_all(&below).unwrap();
            std::fs::write(below.join("file"), "x").unwrap();
            std::os::unix::fs::symlink(dir.path(), below.join("link")).unwrap();
        }
        std::fs::create_dir(tree.join("closed")).unwrap();
        std::fs::write(tree.join("closed/file"), "").unwrap();
        std::fs::set_permissions(tree.join("closed"), PermissionsExt::from_mode(0o000)).unwrap();
        std::fs::write(dir.path().join("beside"), "").unwrap();
        begin(&tree);
        begin(&tree);
        assert!(wait(dir.path(), AGES));
        assert!(!tree.exists() && dir.path().join("beside").exists());
        begin(&tree);
        assert!(wait(&tree, AGES), "what is missing is removed already");
    }

    #[test]
    fn deep_trees_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let tree = RootDir::open(dir.path()).unwrap();
        let mut path = PathBuf::from("tree");
        tree.create_dir(&path, 0o755).unwrap();
        for _ in 0..60 {
            path.push("d".repeat(200));
            tree.create_dir(&path, 0o755).unwrap();
        }
        begin(&dir.path().join("tree"));
        assert!(wait(dir.path(), AGES));
        assert!(!dir.path().join("tree").exists());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("never");
        REMOVER.lock().trees.insert(tree.clone(), 1);
        assert!(!wait(dir.path(), Duration::from_millis(1)));
        assert!(wait(Path::new("/elsewhere"), Duration::ZERO));
        REMOVER.lock().trees.remove(&tree);
    }
}
