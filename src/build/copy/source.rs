//! What a copy reads: patterns resolved and directories walked, with everything that is left out left out.

use std::io;
use std::path::{Path, PathBuf};

use super::{CopyError, CopyRoot, clean, relative};
use crate::context::{Ignore, glob};
use crate::tree::{FileKind, Metadata, Walk};

/// An entry to copy, by its path below the directory that is copied.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// Whether it is a directory that the selection does not take, but something below it.
    pub(super) is_way: bool,
}

/// Which entries of a directory a copy takes. Patterns count from the directory.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Only what matches, and the directories above it (`--parents`).
    pub(super) include: Option<Ignore>,
    /// The part of the include pattern before any wildcard: nothing elsewhere needs a look.
    pub(super) include_prefix: PathBuf,
    /// Not what matches (`--exclude`).
    pub(super) exclude: Option<Ignore>,
}

impl CopyRoot {
    pub(in crate::build) fn read_error(&self, path: &Path, error: &io::Error) -> CopyError {
        CopyError::Read { path: path.to_path_buf(), reason: error.to_string() }
    }

    fn not_found(&self, pattern: &str, ignored: bool) -> CopyError {
        let from = if self.ignore.is_some() { "build context" } else { "source" };
        CopyError::NotFound { from: from.to_owned(), path: clean(pattern, false), ignored }
    }

    /// Tells whether the ignore file hides the entry; a directory below which something is brought back
    /// counts as shown.
    fn is_hidden(&self, path: &Path, is_directory: bool) -> bool {
        let Some(ignore) = &self.ignore else { return false };
        !path.as_os_str().is_empty()
            && ignore.is_ignored(path)
            && !(is_directory && ignore.may_include_below(path))
    }

    /// Tells whether a directory is ignored and nothing below it is brought back after all.
    fn is_emptied(&self, path: &Path) -> Result<bool, CopyError> {
        let ignored = self.ignore.as_ref().is_some_and(|ignore| ignore.is_ignored(path));
        let is_root = path.as_os_str().is_empty();
        Ok(ignored && !is_root && self.walk(path, &Selection::default())?.is_empty())
    }

    /// Resolves a pattern to paths below the root, in byte order. A path without wildcards must exist; a
    /// pattern may match nothing. What matches is not searched further down.
    pub(in crate::build) fn resolve(&self, pattern: &str) -> Result<Vec<PathBuf>, CopyError> {
        let cleaned = clean(pattern, false);
        let parts: Vec<&str> = cleaned.split('/').filter(|part| !part.is_empty()).collect();
        let Some(first) = parts.iter().position(|part| glob::has_wildcard(part)) else {
            let path = relative(&cleaned).to_path_buf();
            self.follow(&path, pattern)?;
            return Ok(vec![path]);
        };
        for part in &parts[first..] {
            glob::check(part).map_err(|e| CopyError::Pattern { pattern: pattern.to_owned(), source: e })?;
        }
        let literal = parts[..first].join("/");
        let base = self.root.resolve(&literal).map_err(|e| self.read_error(Path::new(&literal), &e))?;
        let mut found = Vec::new();
        // A pattern may match nothing, but the directory it is looked for in must be there.
        if first > 0 {
            self.follow(Path::new(&literal), &literal)?;
        }
        self.search(&base, &parts[first..], &mut found)?;
        Ok(found)
    }

    /// Makes sure that `path` below `base` is there, is no name behind a link, and is not left out. Nothing, which
    /// would be all of `base`, is not there for BuildKit.
    pub(super) fn must_take(&self, base: &Path, path: &str, selection: &Selection) -> Result<(), CopyError> {
        let (resolved, _) = self.follow(base, &base.to_string_lossy())?;
        let path = Path::new(path);
        let taken = !path.as_os_str().is_empty()
            && self.walk(&resolved, selection)?.iter().any(|item| item.path.starts_with(path));
        if taken {
            return Ok(());
        }
        let whole = resolved.join(path);
        let hidden = self.ignore.as_ref().is_some_and(|ignore| ignore.is_ignored(&whole));
        Err(self.not_found(&whole.to_string_lossy(), hidden))
    }

    fn search(&self, directory: &Path, parts: &[&str], found: &mut Vec<PathBuf>) -> Result<(), CopyError> {
        let names = match self.root.read_dir(directory) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(()),
            Err(e) => return Err(self.read_error(directory, &e)),
        };
        for name in names {
            if !glob::match_component(parts[0], &name) {
                continue;
            }
            let path = directory.join(&name);
            let metadata = self.root.metadata(&path).map_err(|e| self.read_error(&path, &e))?;
            let is_directory = metadata.kind == FileKind::Directory;
            if self.is_hidden(&path, is_directory) {
                continue;
            }
            match &parts[1..] {
                [] => found.push(path),
                rest if is_directory => self.search(&path, rest, found)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Follows the links of a source path to the entry that is copied.
    pub(in crate::build) fn follow(
        &self,
        path: &Path,
        pattern: &str,
    ) -> Result<(PathBuf, Metadata), CopyError> {
        let missing =
            |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        let resolved = self.root.resolve(path).map_err(|e| match missing(&e) {
            true => self.not_found(pattern, false),
            false => self.read_error(path, &e),
        })?;
        let metadata = self.root.metadata(&resolved).map_err(|e| match missing(&e) {
            true => self.not_found(pattern, false),
            false => self.read_error(path, &e),
        })?;
        let is_directory = metadata.kind == FileKind::Directory;
        if self.is_hidden(&resolved, is_directory) || is_directory && self.is_emptied(&resolved)? {
            return Err(self.not_found(pattern, true));
        }
        Ok((resolved, metadata))
    }

    /// Lists what of `directory` is to be copied, parents first. A directory that is itself left out comes
    /// along when something below it is taken.
    pub(super) fn walk(&self, directory: &Path, selection: &Selection) -> Result<Vec<Item>, CopyError> {
        let mut walk = Walk::new(&self.root, directory).map_err(|e| self.read_error(directory, &e))?;
        let mut items = Vec::new();
        // Directories on the way down that are not taken yet.
        let mut waiting: Vec<Item> = Vec::new();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|e| self.read_error(directory, &e))?;
            let in_root = directory.join(&entry.path);
            waiting.retain(|above| entry.path.starts_with(&above.path));
            let is_directory = entry.metadata.kind == FileKind::Directory;
            let ignored = self.ignore.as_ref().is_some_and(|ignore| ignore.is_ignored(&in_root));
            let excluded = selection.exclude.as_ref().is_some_and(|e| e.is_ignored(&entry.path));
            let included = selection.include.as_ref().is_none_or(|i| i.is_ignored(&entry.path));
            let taken = !ignored && !excluded && included;
            if is_directory
                && !taken
                && !self.may_take_below(&in_root, &entry.path, selection, ignored, excluded)
            {
                walk.skip_subtree();
                continue;
            }
            let is_way = excluded || !included;
            let item = Item { path: entry.path, metadata: entry.metadata, is_way };
            if taken {
                items.append(&mut waiting);
                items.push(item);
            } else if is_directory {
                waiting.push(item);
            }
        }
        Ok(items)
    }

    fn may_take_below(
        &self,
        in_root: &Path,
        path: &Path,
        selection: &Selection,
        ignored: bool,
        excluded: bool,
    ) -> bool {
        let ignore_allows =
            !ignored || self.ignore.as_ref().is_some_and(|ignore| ignore.may_include_below(in_root));
        let exclude_allows =
            !excluded || selection.exclude.as_ref().is_some_and(|e| e.may_include_below(path));
        let prefix = &selection.include_prefix;
        ignore_allows && exclude_allows && (prefix.starts_with(path) || path.starts_with(prefix))
    }
}
