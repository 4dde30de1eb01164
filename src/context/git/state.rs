//! What git knows about a context directory.

use std::path::Path;
use std::sync::Mutex;

use super::program::Git;
use crate::event::Reporter;
use crate::own_files::OwnFiles;
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

/// Returns the state of the repository `dir` is in, if it is in one and `git` is there to ask.
pub fn git_state(dir: &Path) -> Option<GitState> {
    // What git would look for; three processes for nothing cost as much as a small build.
    let real = dir.canonicalize().ok()?;
    if !real.ancestors().any(|above| above.join(".git").exists()) {
        return None;
    }
    let reporter = Reporter::silent();
    let git = Git {
        url: "",
        directory: dir,
        environment: vec![("GIT_OPTIONAL_LOCKS".into(), "0".into())],
        // Its own settings could name a program to run.
        settings: vec![("core.fsmonitor".to_owned(), "false".to_owned())],
        moved: Mutex::default(),
        own_files: OwnFiles::default(),
        reporter: &reporter,
    };
    let ask = |arguments: &[&str]| git.attempt(arguments).ok()?.ok();
    let (head, status, remote) = std::thread::scope(|scope| {
        let head = Beside::start_in(scope, "git", || ask(&["log", "-1", "--format=%H %ct", "HEAD"]));
        let remote = Beside::start_in(scope, "git", || ask(&["config", "--get", "remote.origin.url"]));
        let status = ask(&["status", "--porcelain", "--ignore-submodules=none"]);
        (head.join(), status, remote.join())
    });
    let (head, status) = (head?, status?);
    let (commit, time) = head.trim().split_once(' ')?;
    Some(GitState {
        commit: commit.to_owned(),
        commit_time: time.parse().ok()?,
        dirty: !status.trim().is_empty(),
        remote_url: remote.map(|url| without_credentials(url.trim())).filter(|url| !url.is_empty()),
    })
}
