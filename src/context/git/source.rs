//! The text of a git source, understood.

use crate::context::ContextError;

/// What is to be checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// The repository, as `git fetch` takes it: without fragment and query.
    pub remote: String,
    /// A branch, tag or commit; without one, the remote's `HEAD`.
    pub reference: Option<String>,
    /// The directory of the repository that is meant.
    pub subdir: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; they are unless it says no.
    pub submodules: Option<bool>,
    /// The commit it must be, possibly abbreviated.
    pub checksum: Option<String>,
    /// Whether the commit is fetched by its hash, whatever the reference says.
    pub fetch_by_commit: bool,
    /// Whether files get the commit's time instead of the checkout's.
    pub mtime_commit: bool,
}

/// Understands a source of `ADD`; `None` is no git source.
pub fn parse_git_source(text: &str) -> Result<Option<GitSource>, ContextError> {
    let _ = text;
    todo!()
}

/// Understands a build context, where `github.com/…` is git as well; `None` is no git repository.
pub fn parse_git_context(text: &str) -> Result<Option<GitSource>, ContextError> {
    let _ = text;
    todo!()
}
