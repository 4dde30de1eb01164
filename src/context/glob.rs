//! Wildcards in the sources of `COPY` and `ADD`, one path component at a time, as Go's `filepath.Match` has them.

use std::ffi::OsStr;

use super::ContextError;

/// Tells whether `part` holds a `*`, `?` or `[` that is not behind a backslash.
pub fn has_wildcard(part: &str) -> bool {
    let _ = part;
    todo!()
}

/// Checks that `part` is well formed.
pub fn check(part: &str) -> Result<(), ContextError> {
    let _ = part;
    todo!()
}

/// Tells whether `name`, one component of a path, matches `pattern`; a malformed pattern matches nothing.
pub fn match_component(pattern: &str, name: &OsStr) -> bool {
    let _ = (pattern, name);
    todo!()
}
