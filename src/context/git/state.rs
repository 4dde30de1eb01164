//! What git knows about a context directory.

use std::ffi::OsString;
use std::path::Path;

use super::borrowed::Borrowed;
use crate::text::without_credentials;
use crate::threads::Beside;

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

/// How the index marks a submodule.
const LINK: &str = "160000 ";

/// Submodules of submodules are looked into this far: nobody nests them deeper.
const MOST_NESTED: usize = 16;

/// Returns the state of the repository `dir` is in, if it is in one and `git` is there to ask.
///
/// `environment` says where git is. Nothing that the repository names is run, whosever it is. A bare one is none.
pub fn git_state(dir: &Path, environment: &[(OsString, OsString)]) -> Option<GitState> {
    let real = dir.canonicalize().ok()?;
    let (work_tree, repository) =
        real.ancestors().find_map(|above| Some((above, Borrowed::open(above, environment)?)))?;
    let (head, is_dirty) = std::thread::scope(|scope| {
        let ask = || repository.ask(&["log", "-1", "--format=%H %ct", "HEAD"]);
        let head = Beside::start_in(scope, "git", ask);
        let is_dirty = is_dirty(&repository, work_tree, MOST_NESTED);
        (head.join(), is_dirty)
    });
    let (head, dirty) = (head?, is_dirty?);
    let (commit, time) = head.trim().split_once(' ')?;
    Some(GitState {
        commit: commit.to_owned(),
        commit_time: time.parse().ok()?,
        dirty,
        remote_url: repository
            .origin
            .map(|url| without_credentials(url.trim()))
            .filter(|url| !url.is_empty()),
    })
}

/// Tells whether files differ from the commit, submodules' among them. git only finds out which commits those
/// are at: it would believe their configurations.
fn is_dirty(repository: &Borrowed, work_tree: &Path, most_nested: usize) -> Option<bool> {
    let status = repository.ask(&["status", "--porcelain", "--no-renames", "--ignore-submodules=dirty"])?;
    if !status.trim().is_empty() || !work_tree.join(".gitmodules").exists() {
        return Some(!status.trim().is_empty());
    }
    let nested = most_nested.checked_sub(1)?;
    let listing = repository.ask(&["ls-files", "--stage", "-z"])?;
    let links = listing.split('\0').filter_map(|line| line.strip_prefix(LINK)?.split_once('\t'));
    for (_, path) in links {
        let path = work_tree.join(path);
        // One that was not fetched is as it was committed.
        let Some(submodule) = repository.submodule(&path) else { continue };
        if is_dirty(&submodule, &path, nested)? {
            return Some(true);
        }
    }
    Some(false)
}
