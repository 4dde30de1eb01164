//! Turning findings about entries into canonical changes.
//!
//! A [`Finder`] walks two states of a tree side by side and tells an [`Emitter`] what it finds at each path. The
//! emitter holds unchanged directories back until something below them has changed, and links names of one inode. As
//! a name may come before the one that shows the inode has changed, finders with hard links look twice: the first
//! look only notes which inodes changed.

use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::belongs_to_overlay;
use crate::layer::{Change, ChangeSet, LayerError, Node, NodeKind};
use crate::tree::{EntryError, Metadata, RootDir};

/// Something that compares two states of a tree in component-wise byte order.
pub(super) trait Finder: Send {
    /// Goes back to the start.
    fn restart(&mut self) -> Result<(), LayerError>;

    /// Looks at the next path; `false` at the end.
    fn step(&mut self, emitter: &mut Emitter) -> Result<bool, LayerError>;
}

/// Takes findings in order and makes changes of them.
#[derive(Debug)]
pub(super) struct Emitter {
    /// The tree whose entries are the new state.
    root: Arc<RootDir>,
    looking: Look,
    ready: VecDeque<Result<Change, LayerError>>,
    /// Unchanged directories above the current path that were not emitted.
    held: Vec<(PathBuf, Metadata)>,
    changed_inodes: HashSet<(u64, u64)>,
    first_names: HashMap<(u64, u64), PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    AtInodes,
    AtEverything,
}

impl Emitter {
    fn new(root: Arc<RootDir>) -> Self {
        Self {
            root,
            looking: Look::AtInodes,
            ready: VecDeque::new(),
            held: Vec::new(),
            changed_inodes: HashSet::new(),
            first_names: HashMap::new(),
        }
    }

    /// Tells whether it matters if the entry has changed: not during the first look, or if all its names come anyway.
    pub(super) fn asks_about(&self, metadata: &Metadata) -> bool {
        match inode_of(metadata) {
            Some(inode) => !self.changed_inodes.contains(&inode),
            None => self.looking == Look::AtEverything,
        }
    }

    /// Tells whether the entry is of no interest at all: the first look is at inodes with several names.
    pub(super) fn passes_over(&self, metadata: &Metadata) -> bool {
        self.looking == Look::AtInodes && !metadata.kind.is_dir() && inode_of(metadata).is_none()
    }

    /// Takes the entry at `path` of the new state, and whether it differs from the old state's.
    pub(super) fn entry(&mut self, path: PathBuf, metadata: &Metadata, changed: bool) {
        let inode = inode_of(metadata);
        match self.looking {
            Look::AtInodes => {
                if changed && let Some(inode) = inode {
                    self.changed_inodes.insert(inode);
                }
            }
            Look::AtEverything => {
                self.release_up_to(&path);
                if changed || inode.is_some_and(|inode| self.changed_inodes.contains(&inode)) {
                    self.emit_held();
                    self.emit(path, metadata);
                } else if metadata.kind.is_dir() {
                    self.held.push((path, *metadata));
                }
            }
        }
    }

    /// Takes a path where only the old state has an entry.
    pub(super) fn gone(&mut self, path: PathBuf) {
        if self.looking == Look::AtEverything {
            self.release_up_to(&path);
            self.emit_held();
            self.ready.push_back(Ok(Change::Remove { path }));
        }
    }

    /// Drops held directories that `path` is not in.
    fn release_up_to(&mut self, path: &Path) {
        while self.held.last().is_some_and(|(held, _)| !path.starts_with(held)) {
            self.held.pop();
        }
    }

    fn emit_held(&mut self) {
        for (path, metadata) in std::mem::take(&mut self.held) {
            self.emit(path, &metadata);
        }
    }

    fn emit(&mut self, path: PathBuf, metadata: &Metadata) {
        let change =
            self.node(&path, metadata).transpose().map(|node| node.map(|node| Change::Upsert { path, node }));
        self.ready.extend(change);
    }

    fn node(&mut self, path: &Path, metadata: &Metadata) -> Result<Option<Node>, LayerError> {
        let Some(mut node) = Node::from_tree(&self.root, path.to_path_buf(), metadata)? else {
            return Ok(None);
        };
        node.xattrs.retain(|name, _| !belongs_to_overlay(name));
        if let Some(inode) = inode_of(metadata) {
            match self.first_names.entry(inode) {
                hash_map::Entry::Occupied(first) => {
                    node.kind = NodeKind::HardLink { target: first.get().clone() }
                }
                hash_map::Entry::Vacant(vacant) => drop(vacant.insert(path.to_path_buf())),
            }
        }
        Ok(Some(node))
    }
}

/// Returns the inode of an entry that may have several names.
fn inode_of(metadata: &Metadata) -> Option<(u64, u64)> {
    (metadata.nlink > 1 && !metadata.kind.is_dir()).then_some((metadata.dev, metadata.ino))
}

/// Names the entry that could not be read, if the error knows it.
pub(super) fn read_error(error: io::Error) -> LayerError {
    match error.downcast::<EntryError>() {
        Ok(EntryError { path, source }) => LayerError::Read { path, source },
        Err(source) => LayerError::Read { path: PathBuf::from("."), source },
    }
}

/// Makes the changes that `finder` finds in `root`, while they are asked for.
pub(super) fn changes(root: Arc<RootDir>, finder: impl Finder + 'static) -> ChangeSet {
    Box::new(Changes { finder, emitter: Emitter::new(root), state: State::Begin })
}

struct Changes<F> {
    finder: F,
    emitter: Emitter,
    state: State,
}

enum State {
    Begin,
    Looking,
    End,
}

impl<F: Finder> Changes<F> {
    fn advance(&mut self) -> Result<(), LayerError> {
        if let State::Begin = self.state {
            self.finder.restart()?;
            while self.finder.step(&mut self.emitter)? {}
            self.finder.restart()?;
            self.emitter.looking = Look::AtEverything;
            self.state = State::Looking;
        }
        if !self.finder.step(&mut self.emitter)? {
            self.state = State::End;
        }
        Ok(())
    }
}

impl<F: Finder> Iterator for Changes<F> {
    type Item = Result<Change, LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(change) = self.emitter.ready.pop_front() {
                return Some(change);
            }
            if let State::End = self.state {
                return None;
            }
            if let Err(error) = self.advance() {
                self.state = State::End;
                self.emitter.ready.clear();
                return Some(Err(error));
            }
        }
    }
}
