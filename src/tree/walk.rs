//! Walking a tree in component-wise byte order.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::descent::Descent;
use super::metadata::look;
use super::names::{Names, ReadBuffer};
use super::{EntryError, Metadata, RootDir};

/// One entry met by a [`Walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path relative to where the walk started, never empty.
    pub path: PathBuf,
    /// The entry's own metadata.
    pub metadata: Metadata,
}

/// A pre-order walk: a directory comes before its entries, names of one directory in byte order.
///
/// Entries that disappear meanwhile are left out. After an error the walk goes on with the next entry.
pub struct Walk<'known> {
    descent: Descent,
    /// The names of each directory from the start to the current one, and which comes next.
    frames: Vec<(Names, usize)>,
    /// The current directory's path, with a final `/` unless empty.
    path: Vec<u8>,
    /// The directory returned last, to be entered next.
    entering: Option<Entering>,
    same_device_only: bool,
    known: Option<&'known KnownNames<'known>>,
    buffer: ReadBuffer,
}

/// Tells what is in a directory that looks like this, from a time when it was read; `None` if that is not known.
pub(crate) type KnownNames<'a> = dyn Fn(&Metadata) -> Option<Names> + Sync + 'a;

#[derive(Debug, Clone, Copy)]
enum Entering {
    /// Where the walk begins, and what that looks like if somebody asks.
    Start(Option<Metadata>),
    /// The name with this index in the last frame.
    Name(usize, Metadata),
}

impl<'known> Walk<'known> {
    /// Starts below the directory `start` (links followed), which itself is not returned.
    pub fn new(root: &RootDir, start: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            descent: Descent::new(root.handle(start.as_ref())?)?,
            frames: Vec::new(),
            path: Vec::new(),
            entering: Some(Entering::Start(None)),
            same_device_only: false,
            known: None,
            buffer: ReadBuffer::new(),
        })
    }

    /// Leaves out what is below the directory returned last.
    pub fn skip_subtree(&mut self) {
        if let Some(Entering::Name(..)) = self.entering {
            self.entering = None;
        }
    }

    /// Tells whether the entry returned last is a directory that the walk enters next.
    pub(crate) fn enters_next(&self) -> bool {
        matches!(self.entering, Some(Entering::Name(..)))
    }

    /// Returns mount points but not what is mounted there.
    pub fn same_device_only(mut self) -> Self {
        self.same_device_only = true;
        self
    }

    /// Reads only directories of which `known` does not tell what is in them. `start` is what the walk's own looks like.
    pub(crate) fn knowing(mut self, known: &'known KnownNames<'known>, start: Option<Metadata>) -> Self {
        self.known = Some(known);
        self.entering = Some(Entering::Start(start));
        self
    }

    /// Returns the directory that holds the entry returned last, while it was not entered yet.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.descent.current()
    }

    fn enter(&mut self, entering: Entering) -> io::Result<()> {
        let metadata = match entering {
            Entering::Start(metadata) => metadata,
            Entering::Name(_, metadata) => Some(metadata),
        };
        if let Entering::Name(index, _) = entering {
            let (names, _) = self.frames.last().expect("a name comes from a frame");
            let name = OsStr::from_bytes(names.get(index).0.to_bytes());
            match self.descent.enter(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(EntryError::wrap(bytes_path(&self.path).join(name), error)),
                Ok(()) => {}
            }
            self.path.extend_from_slice(name.as_bytes());
            self.path.push(b'/');
        }
        let known = metadata.zip(self.known).and_then(|(metadata, known)| known(&metadata));
        // A directory that cannot be read counts as empty after its error was reported.
        let names = known.map_or_else(|| Names::read(self.descent.current(), &mut self.buffer), Ok);
        let (names, result) = match names {
            Ok(names) => (names, Ok(())),
            Err(error) => (Names::default(), Err(EntryError::wrap(bytes_path(&self.path), error))),
        };
        self.frames.push((names, 0));
        result
    }

    fn leave(&mut self) -> io::Result<()> {
        self.frames.pop();
        if let Some(name) = self.descent.leave()? {
            self.path.truncate(self.path.len() - name.len() - 1);
        }
        Ok(())
    }

    fn examine(&mut self, index: usize) -> io::Result<Option<Entry>> {
        let (names, _) = self.frames.last().expect("a name comes from a frame");
        let (name, _) = names.get(index);
        let found = match look(self.descent.current(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(|error| EntryError::wrap(self.path_of(name), error))?,
        };
        if found.metadata.kind.is_dir() && !(self.same_device_only && self.is_mount(&found)?) {
            self.entering = Some(Entering::Name(index, found.metadata));
        }
        Ok(Some(Entry { path: self.path_of(name), metadata: found.metadata }))
    }

    fn path_of(&self, name: &CStr) -> PathBuf {
        let mut path = Vec::with_capacity(self.path.len() + name.count_bytes());
        path.extend_from_slice(&self.path);
        path.extend_from_slice(name.to_bytes());
        PathBuf::from(OsString::from_vec(path))
    }

    fn is_mount(&self, found: &super::metadata::Found) -> io::Result<bool> {
        match found.mount_root {
            Some(answer) => Ok(answer),
            None => Ok(Metadata::of(self.descent.current())?.dev != found.metadata.dev),
        }
    }
}

fn bytes_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

impl Iterator for Walk<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entering) = self.entering.take()
                && let Err(error) = self.enter(entering)
            {
                return Some(Err(error));
            }
            let (names, next) = self.frames.last_mut()?;
            if *next < names.len() {
                let index = *next;
                *next += 1;
                if let Some(entry) = self.examine(index).transpose() {
                    return Some(entry);
                }
            } else if let Err(error) = self.leave() {
                // The way back is lost: nothing more can be read.
                self.frames.clear();
                return Some(Err(EntryError::wrap(bytes_path(&self.path), error)));
            }
        }
    }
}
