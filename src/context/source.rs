//! What a source of `ADD` or `COPY` is, told by its text.

use super::git::parse_git_source;

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A path in the context.
    Path,
    /// A file to download.
    Http,
    /// A git repository.
    Git,
}

/// Tells what a source of `ADD` or `COPY` is. A git source with contradictory options is still a git source.
pub fn classify_source(text: &str) -> SourceKind {
    match parse_git_source(text) {
        Ok(Some(_)) | Err(_) => SourceKind::Git,
        Ok(None) if text.starts_with("http://") || text.starts_with("https://") => SourceKind::Http,
        Ok(None) => SourceKind::Path,
    }
}
