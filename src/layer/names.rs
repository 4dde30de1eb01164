//! Names and attributes with a meaning of their own in layers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A file of this prefix removes what its name says next (OCI image-spec `layer.md#whiteouts`).
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// A file of this name hides everything older in its directory.
pub(super) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// Names of this prefix are AUFS's own bookkeeping; layers of old builders have them.
pub(super) const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// File capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

const CAPABILITY_V2: u32 = 0x0200_0000;
const CAPABILITY_V3: u32 = 0x0300_0000;
const CAPABILITY_REVISION_MASK: u32 = 0xff00_0000;
const CAPABILITY_V2_BYTES: usize = 20;
const CAPABILITY_V3_BYTES: usize = 24;

/// Returns the attribute by which an overlay knows that a directory hides what lower ones have in theirs.
pub fn opaque_attribute(userxattr: bool) -> &'static str {
    if userxattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Tells whether a name means something to whoever unpacks a layer, so that no file of a tree may have it.
pub(super) fn is_reserved(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT_PREFIX))
}

/// Tells whether an attribute belongs to the overlay that a tree is kept on, not to the tree.
pub(super) fn belongs_to_overlay(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Returns a file capability without the user namespace it was set in: what was `setcap` in a build is to hold
/// wherever the image runs. Everything else is returned as it is.
pub(super) fn portable_capability(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if value.len() == CAPABILITY_V3_BYTES {
        let magic = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        if magic & CAPABILITY_REVISION_MASK == CAPABILITY_V3 {
            let magic = magic & !CAPABILITY_REVISION_MASK | CAPABILITY_V2;
            value[..4].copy_from_slice(&magic.to_le_bytes());
            value.truncate(CAPABILITY_V2_BYTES);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_their_namespace() {
        let v3 = [1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 8, 8, 8, 8, 0xe8, 3, 0, 0];
        let v2 = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 8, 8, 8, 8];
        assert_eq!(portable_capability(&v3), v2);
        assert_eq!(portable_capability(&v2), v2);
        assert_eq!(portable_capability(b"\n"), b"\n");
    }

    #[test]
    fn reserved_names_are_told_by_the_last_component() {
        assert!(is_reserved(Path::new("a/.wh.b")));
        assert!(is_reserved(Path::new(".wh..wh..opq")));
        assert!(!is_reserved(Path::new("a.wh./wh.b")));
    }
}
