//! Sources that are addresses, told from paths by how they look; and paths, cleaned.

/// Tells whether a source of `ADD` is a URL or a git address.
pub(super) fn is_remote(source: &str) -> bool {
    let scheme = ["http://", "https://", "git://", "ssh://"].iter().any(|s| source.starts_with(s));
    // `user@host:path`, as scp and git write it.
    let scp = source.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    scheme || scp
}

/// Cleans a path lexically, as Go's `path.Clean`.
pub(super) fn clean(path: &str) -> String {
    crate::dockerfile::mount::clean(path)
}
