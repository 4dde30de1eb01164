//! The Dockerfile and the ignore file of a context.

use std::path::Path;

use super::{ContextError, Ignore};
use crate::tree::RootDir;

/// Reads the Dockerfile of a context: `name`, or else `Dockerfile`, or else `dockerfile`. Returns the name it has.
pub fn find_dockerfile(
    root: &RootDir,
    name: Option<&str>,
) -> Result<Option<(String, Vec<u8>)>, ContextError> {
    let _ = (root, name);
    todo!()
}

/// Reads the ignore file that goes with a Dockerfile: `<Dockerfile>.dockerignore` beside it, which may lie outside
/// of the context, or else the context's own `.dockerignore`.
///
/// `dockerfile` is the directory the Dockerfile is in and its path there; a Dockerfile from elsewhere has none.
pub fn find_ignore(context: &RootDir, dockerfile: Option<(&RootDir, &Path)>) -> Result<Ignore, ContextError> {
    let _ = (context, dockerfile);
    todo!()
}
