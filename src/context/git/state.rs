//! What git knows about a context directory.

use std::path::Path;

/// The state of the repository a directory is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitState {
    /// The commit's full hash.
    pub commit: String,
    /// The committer's time, in seconds since 1970.
    pub commit_time: i64,
    /// Whether files differ from the commit, or are not tracked.
    pub dirty: bool,
    /// The remote `origin`, without credentials.
    pub remote_url: Option<String>,
}

/// Returns the state of the repository `dir` is in, if it is in one and `git` is there to ask.
pub fn git_state(dir: &Path) -> Option<GitState> {
    let _ = dir;
    todo!()
}
