//! `COPY` and `ADD`: from sources and a destination to a list of changes.
//!
//! The semantics are BuildKit's to the letter (`facts` of the file operations: destination rules, links,
//! implicit parents, `--parents`, `--exclude`); see each function. Nothing here writes a file: the result
//! is a list of [`Change`]s that refer to their sources.

mod apply;
mod plan;
mod source;
mod view;

pub(super) use apply::apply;
pub(super) use view::{Below, Pending};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use view::{NewDirectory, View};

use crate::context::{ContextError, Ignore};
use crate::dockerfile::chmod::Chmod;
use crate::layer::Change;
use crate::tree::{RootDir, Timestamp};

/// A tree to copy from.
#[derive(Debug, Clone)]
pub(super) struct CopyRoot {
    /// The tree.
    pub(super) root: Arc<RootDir>,
    /// What of it is left out (`.dockerignore`).
    pub(super) ignore: Option<Arc<Ignore>>,
    /// Whether files keep their owner (copies from stages and images) or become root's (build contexts).
    pub(super) keep_owner: bool,
}

/// One source of a copy.
#[derive(Debug, Clone)]
pub(super) enum CopySource {
    /// A path or pattern in a tree.
    Pattern { from: CopyRoot, pattern: String },
    /// An entry that was found already, whatever its name looks like; nothing stands for all of the tree, the way
    /// `ADD` takes a git repository.
    Found { from: CopyRoot, path: PathBuf },
    /// One file with a name of its own: a download.
    Download { from: CopyRoot, path: PathBuf, name: String, mode: u32, mtime: Timestamp },
    /// A file written in the Dockerfile.
    Inline { name: String, body: Arc<[u8]> },
}

/// One copy, everything expanded and looked up.
#[derive(Debug)]
pub(super) struct CopyRequest<'a> {
    pub(super) sources: Vec<CopySource>,
    /// The destination: absolute, with its trailing slash if it had one.
    pub(super) dest: String,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) chmod: Option<Chmod>,
    pub(super) parents: bool,
    pub(super) exclude: &'a [String],
    /// The time of what has no time of its own: directories made on the way, inline files.
    pub(super) now: Timestamp,
}

/// Why a copy cannot be.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source that is not there.
    #[error("failed to calculate checksum of ref {from}: \"{path}\": not found")]
    NotFound {
        /// What was copied from.
        from: String,
        /// The path asked for.
        path: String,
        /// Whether an ignore file hides it.
        ignored: bool,
    },
    /// A wildcard that matches nothing, in a directory that nothing else is copied from.
    #[error("lstat /{directory}: no such file or directory: nothing matches `{pattern}`")]
    NothingThere {
        /// What is in front of the wildcard.
        directory: String,
        /// The source as it is written.
        pattern: String,
    },
    /// A directory over something else.
    #[error("cannot copy to non-directory: {}", path.display())]
    ToNonDirectory {
        /// The destination.
        path: PathBuf,
    },
    /// Something else over a directory.
    #[error("cannot replace to directory {} with file", path.display())]
    OverDirectory {
        /// The destination.
        path: PathBuf,
    },
    /// A pattern that is none.
    #[error("`{pattern}`: syntax error in pattern")]
    Pattern {
        /// The source as it is written, or the patterns of `--exclude`.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: ContextError,
    },
    /// Something in `--exclude` that is no pattern.
    #[error(transparent)]
    Exclusion(ContextError),
    /// Reading the source failed.
    #[error("cannot read `{}` to copy it: {reason}", path.display())]
    Read {
        /// The path in the source.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The destination cannot take it.
    #[error("cannot copy to `{}`: {reason}", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Plans a copy onto a tree. Returns the changes as a layer has them, and all that was planned, for the
/// next plan to stand on.
pub(super) fn plan(request: &CopyRequest<'_>, below: Below<'_>) -> Result<(Vec<Change>, Pending), CopyError> {
    plan::plan(request, below)
}

/// Plans the directory of a `WORKDIR`: the parents too belong to `owner`; what exists is left alone.
pub(super) fn plan_directory(
    path: &str,
    owner: Option<(u32, u32)>,
    mtime: Timestamp,
    below: Below<'_>,
) -> Result<(Vec<Change>, Pending), CopyError> {
    let mut view = View::new(below);
    let new = NewDirectory { mode: 0o755, owner, mtime };
    let result = view.resolve(relative(path)).and_then(|path| view.make_directories(&path, &new));
    let write_error = |e: std::io::Error| CopyError::Write { path: path.into(), reason: e.to_string() };
    result.map_err(write_error)?;
    view.finish().map_err(write_error)
}

/// Cleans a path of a Dockerfile: absolute, without `.`, `..` and doubled slashes; a trailing slash stays
/// when `keep_slash` says so (Go's `path.Clean`, with BuildKit's exception for destinations).
pub(super) fn clean(path: &str, keep_slash: bool) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let directory = keep_slash && (path.ends_with('/') || path.ends_with("/."));
    let slash = if directory && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/').trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
