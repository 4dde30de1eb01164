//! Which paths a `.dockerignore` file or `--exclude` hides.

use std::path::Path;

use super::ContextError;

/// Patterns of paths, of which the last that matches decides.
#[derive(Debug, Default)]
pub struct Ignore {}

impl Ignore {
    /// Compiles patterns as they are written behind `--exclude`.
    pub fn new(patterns: &[String]) -> Result<Self, ContextError> {
        let _ = patterns;
        Ok(Self {})
    }

    /// Reads an ignore file.
    pub fn parse(text: &[u8]) -> Result<Self, ContextError> {
        let _ = text;
        Ok(Self {})
    }

    /// Hides nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Tells whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Tells whether `path`, relative to the context's root, is hidden.
    pub fn is_ignored(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// Tells whether something below `directory`, which is hidden, may be brought back by a `!` pattern.
    pub fn may_include_below(&self, directory: &Path) -> bool {
        let _ = directory;
        false
    }
}
