//! Checking out with the `git` program.

use std::path::{Path, PathBuf};

use super::GitSource;
use crate::context::ContextError;
use crate::event::Reporter;

/// A commit's files on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The tree, or the subdirectory asked for.
    pub directory: PathBuf,
    /// The commit's full hash.
    pub commit: String,
    /// The committer's time, in seconds since 1970.
    pub commit_time: i64,
}

/// How to check out.
#[derive(Debug, Clone, Default)]
pub struct CheckoutOptions<'a> {
    /// Whether `.git` stays, where the source itself does not say.
    pub keep_git_dir: bool,
    /// `ADD --checksum`.
    pub checksum: Option<&'a str>,
    /// The agent with the keys for `ssh`.
    pub ssh_auth_sock: Option<&'a Path>,
}

/// Checks `source` out below `work_dir`.
pub fn checkout(
    source: &GitSource,
    keep_git_dir: bool,
    checksum: Option<&str>,
    ssh_auth_sock: Option<&Path>,
    work_dir: &Path,
    reporter: &Reporter,
) -> Result<Checkout, ContextError> {
    checkout_with(source, &CheckoutOptions { keep_git_dir, checksum, ssh_auth_sock }, work_dir, reporter)
}

/// Checks `source` out below `work_dir`.
pub fn checkout_with(
    source: &GitSource,
    options: &CheckoutOptions<'_>,
    work_dir: &Path,
    reporter: &Reporter,
) -> Result<Checkout, ContextError> {
    let _ = (source, options, work_dir, reporter);
    todo!()
}
