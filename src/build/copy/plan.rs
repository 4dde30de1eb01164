//! The rules of `COPY` and `ADD`, one source after the other.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{Item, Selection};
use super::view::{Below, NewDirectory, Pending, Seen, View};
use super::{CopyError, CopyRequest, CopyRoot, CopySource, clean, relative};
use crate::context::{ContextError, Ignore, glob};
use crate::dockerfile::chmod::Chmod;
use crate::layer::{Change, Content, Node, NodeKind};
use crate::tree::{FileKind, Metadata, Timestamp};

pub(super) fn plan(request: &CopyRequest<'_>, below: Below<'_>) -> Result<(Vec<Change>, Pending), CopyError> {
    let exclude = match request.exclude {
        [] => None,
        patterns => Some(compile(patterns)?),
    };
    let mut copier = Copier {
        request,
        view: View::new(below),
        selection: Selection { exclude, ..Selection::default() },
        names: HashMap::new(),
    };
    for source in &request.sources {
        copier.names.clear();
        match source {
            CopySource::Pattern { from, pattern } if request.parents => copier.copy_parents(from, pattern)?,
            CopySource::Pattern { from, pattern } => {
                for path in from.resolve(pattern)? {
                    copier.names.clear();
                    copier.copy_one(from, &path, &path.to_string_lossy())?;
                }
            }
            CopySource::Found { from, path } => copier.copy_one(from, path, &path.to_string_lossy())?,
            CopySource::Download { from, path, name, mode, mtime } => {
                let (_, metadata) = from.follow(path, name)?;
                let content = Content::of_file(&from.root, path.clone(), &metadata);
                copier.put_single(name, metadata.size_bytes, content, *mode, *mtime)?;
            }
            CopySource::Inline { name, body } => {
                let content = Content::Bytes(body.clone());
                copier.put_single(name, body.len() as u64, content, 0o644, request.now)?;
            }
        }
    }
    copier.view.finish().map_err(|e| write_error(relative(&request.dest), &e))
}

fn compile(patterns: &[String]) -> Result<Ignore, CopyError> {
    Ignore::new(patterns).map_err(|e| match e {
        ContextError::Pattern { .. } => CopyError::Pattern { pattern: patterns.join(" "), source: e },
        other => CopyError::Exclusion(other),
    })
}

fn write_error(path: &Path, error: &io::Error) -> CopyError {
    CopyError::Write { path: Path::new("/").join(path), reason: error.to_string() }
}

struct Copier<'a> {
    request: &'a CopyRequest<'a>,
    view: View<'a>,
    selection: Selection,
    /// First destination of each file of the current source that has several names.
    names: HashMap<(u64, u64), PathBuf>,
}

impl Copier<'_> {
    /// Copies one resolved source: a directory's contents, or a file.
    fn copy_one(&mut self, from: &CopyRoot, path: &Path, pattern: &str) -> Result<(), CopyError> {
        let (resolved, metadata) = from.follow(path, pattern)?;
        let is_directory = metadata.kind == FileKind::Directory;
        let name = path.file_name().unwrap_or(OsStr::new(""));
        let dest = self.prepare(is_directory, name)?;
        if !is_directory {
            return self.put(from, &resolved, &metadata, dest);
        }
        match self.view.look(&dest).map_err(|e| write_error(&dest, &e))? {
            Some(Seen::Directory) => self.view.touch_new_directory(&dest, metadata.mtime),
            _ => return Err(CopyError::ToNonDirectory { path: Path::new("/").join(dest) }),
        }
        for item in from.walk(&resolved, &self.selection)? {
            self.put_item(from, &resolved, item, &dest)?;
        }
        Ok(())
    }

    /// Copies what matches `pattern` with the directories above it; `a/./b` keeps only what is behind the dot.
    fn copy_parents(&mut self, from: &CopyRoot, pattern: &str) -> Result<(), CopyError> {
        let (pivot, pattern) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let include = clean(pattern, false);
        let include = include.trim_start_matches('/');
        let literal = include.split('/').take_while(|part| !glob::has_wildcard(part));
        let has_wildcard = glob::has_wildcard(pivot) || glob::has_wildcard(include);
        self.selection.include_prefix = literal.collect();
        self.selection.include = match include {
            "" => None,
            include => Some(compile(&[include.to_owned()])?),
        };
        for pivot in from.resolve(pivot)? {
            self.names.clear();
            if !has_wildcard {
                from.must_take(&pivot, include, &self.selection)?;
            }
            self.copy_one(from, &pivot, pattern)?;
        }
        self.selection.include = None;
        self.selection.include_prefix = PathBuf::new();
        Ok(())
    }

    /// Finds where the source called `name` goes, and makes the directories on the way.
    fn prepare(&mut self, is_directory: bool, name: &OsStr) -> Result<PathBuf, CopyError> {
        let dest = self.request.dest.as_str();
        let above = if dest.ends_with('/') { dest } else { &dest[..dest.rfind('/').unwrap_or(0)] };
        self.make_directories(relative(above))?;
        let mut path = self.view.resolve(relative(dest)).map_err(|e| write_error(relative(dest), &e))?;
        let existing = self.view.look(&path).map_err(|e| write_error(&path, &e))?;
        match (is_directory, &existing) {
            (true, None) => self.make_directories(&path)?,
            (false, Some(Seen::Directory)) => path.push(name),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            self.make_directories(parent)?;
        }
        Ok(path)
    }

    fn make_directories(&mut self, path: &Path) -> Result<(), CopyError> {
        let mode = match self.request.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        };
        let new = NewDirectory { mode, owner: self.request.owner, mtime: self.request.now };
        let path = self.view.resolve(path).map_err(|e| write_error(path, &e))?;
        self.view.make_directories(&path, &new).map_err(|e| write_error(&path, &e))
    }

    /// Puts an entry found inside a copied directory.
    fn put_item(&mut self, from: &CopyRoot, base: &Path, item: Item, dest: &Path) -> Result<(), CopyError> {
        let source = base.join(&item.path);
        let target = dest.join(&item.path);
        if item.metadata.kind != FileKind::Directory {
            return self.put(from, &source, &item.metadata, target);
        }
        match self.view.look(&target).map_err(|e| write_error(&target, &e))? {
            None | Some(Seen::Directory) => {}
            Some(_) => return Err(CopyError::ToNonDirectory { path: Path::new("/").join(target) }),
        }
        // BuildKit: a directory on the way to what is taken gets the source's mode (not that of `--chmod`) if it is
        // there, and keeps its owner.
        let write_error = |e| write_error(&target, &e);
        if item.is_way && self.view.set_directory_mode(&target, item.metadata.mode).map_err(write_error)? {
            return Ok(());
        }
        let node = self.node(from, NodeKind::Directory, &item.metadata);
        self.view.put(target.clone(), node).map_err(write_error)
    }

    /// Puts a file, link, device or pipe at `target`, over anything but a directory.
    fn put(
        &mut self,
        from: &CopyRoot,
        source: &Path,
        metadata: &Metadata,
        target: PathBuf,
    ) -> Result<(), CopyError> {
        if self.view.look(&target).map_err(|e| write_error(&target, &e))? == Some(Seen::Directory) {
            return Err(CopyError::OverDirectory { path: Path::new("/").join(target) });
        }
        let read_error = |e: io::Error| from.read_error(source, &e);
        let kind = match metadata.kind {
            FileKind::File => match self.first_name(metadata, &target) {
                Some(first) => NodeKind::HardLink { target: first },
                None => NodeKind::File {
                    size_bytes: metadata.size_bytes,
                    content: Content::of_file(&from.root, source.to_path_buf(), metadata),
                },
            },
            FileKind::Symlink => {
                NodeKind::Symlink { target: from.root.read_link(source).map_err(read_error)? }
            }
            FileKind::CharDevice(device) => NodeKind::CharDevice(device),
            FileKind::BlockDevice(device) => NodeKind::BlockDevice(device),
            FileKind::Fifo => NodeKind::Fifo,
            // No archive can hold a socket; BuildKit makes it an empty file.
            FileKind::Socket => NodeKind::File { size_bytes: 0, content: Content::Bytes(Arc::from([])) },
            FileKind::Directory => unreachable!("directories are walked, not put"),
        };
        let mut node = self.node(from, kind, metadata);
        if metadata.kind == FileKind::File {
            let mut xattrs = from.root.xattrs(source).map_err(|e| from.read_error(source, &e))?;
            xattrs.retain(|name, _| name == "security.capability");
            node.xattrs = xattrs;
        }
        self.view.put(target.clone(), node).map_err(|e| write_error(&target, &e))
    }

    /// Returns the destination of an earlier name of the same file, and remembers the first.
    fn first_name(&mut self, metadata: &Metadata, target: &Path) -> Option<PathBuf> {
        if metadata.nlink < 2 {
            return None;
        }
        let inode = (metadata.dev, metadata.ino);
        if let Some(first) = self.names.get(&inode) {
            return Some(first.clone());
        }
        self.names.insert(inode, target.to_path_buf());
        None
    }

    /// Puts a file that comes with a name of its own: a heredoc or a download.
    fn put_single(
        &mut self,
        name: &str,
        size_bytes: u64,
        content: Content,
        mode: u32,
        mtime: Timestamp,
    ) -> Result<(), CopyError> {
        let target = self.prepare(false, OsStr::new(name))?;
        if self.view.look(&target).map_err(|e| write_error(&target, &e))? == Some(Seen::Directory) {
            return Err(CopyError::OverDirectory { path: Path::new("/").join(target) });
        }
        let (uid, gid) = self.request.owner.unwrap_or((0, 0));
        let node = Node {
            kind: NodeKind::File { size_bytes, content },
            mode: self.request.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, false)),
            uid,
            gid,
            mtime,
            xattrs: BTreeMap::new(),
        };
        self.view.put(target.clone(), node).map_err(|e| write_error(&target, &e))
    }

    fn node(&self, from: &CopyRoot, kind: NodeKind, metadata: &Metadata) -> Node {
        let own = if from.keep_owner { (metadata.uid, metadata.gid) } else { (0, 0) };
        let (uid, gid) = self.request.owner.unwrap_or(own);
        let is_directory = metadata.kind == FileKind::Directory;
        let mode = match (&self.request.chmod, metadata.kind) {
            (Some(chmod), kind) if kind != FileKind::Symlink => chmod.apply(metadata.mode, is_directory),
            _ => metadata.mode,
        };
        Node { kind, mode, uid, gid, mtime: metadata.mtime, xattrs: BTreeMap::new() }
    }
}
