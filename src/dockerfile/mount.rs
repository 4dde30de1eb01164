//! The options of `RUN --mount`.

/// A parsed `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Where, as written (relative to the working directory); `None` if not given.
    pub target: Option<String>,
    /// What.
    pub kind: MountKind,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// `type=bind`: part of the context, a stage, a named context or an image.
    Bind {
        /// `from`; `None` is the main context.
        from: Option<String>,
        /// `source`, default the root.
        source: String,
    },
    /// `type=cache`: a directory that persists between builds.
    Cache {
        /// `id`; `None` means the cleaned target.
        id: Option<String>,
        /// Initial content: `from`.
        from: Option<String>,
        /// Directory within it, or within the cache.
        source: String,
        /// How builds at the same time share it.
        sharing: Sharing,
        /// Mode of a new cache directory.
        mode: Option<u32>,
        /// Owner of a new cache directory.
        uid: Option<u32>,
        /// Group of a new cache directory.
        gid: Option<u32>,
    },
    /// `type=tmpfs`
    Tmpfs {
        /// `size`
        size_bytes: Option<u64>,
    },
    /// `type=secret`
    Secret {
        /// The secret's id.
        id: String,
        /// Environment variable to set.
        env: Option<String>,
        /// Whether the secret must be there.
        required: bool,
        /// File mode.
        mode: u32,
        /// File owner.
        uid: u32,
        /// File group.
        gid: u32,
    },
    /// `type=ssh`
    Ssh {
        /// Which agent.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Socket mode.
        mode: u32,
        /// Socket owner.
        uid: u32,
        /// Socket group.
        gid: u32,
    },
}

/// How builds at the same time use one cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Together.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// A `--mount` that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// BuildKit's text.
    pub message: String,
}

/// Parses one `--mount` value; `expand` expands the value of an option (never that of `from`).
pub fn parse_mount(
    _raw: &str,
    _expand: &mut dyn FnMut(&str) -> Result<String, super::ExpandError>,
) -> Result<MountSpec, MountError> {
    todo!()
}
