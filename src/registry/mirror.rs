//! Where else an image may be pulled from: mirrors of any registry, by prefix.

/// Rules that lead pulls elsewhere; pushes never follow them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorRules {
    /// The rules; for a repository, the one with the longest matching prefix holds.
    pub rules: Vec<MirrorRule>,
    /// Whether the registry that was named is never asked when a rule matches
    /// (`--skip-default-registry-fallback`).
    pub no_fallback: bool,
}

/// One rule: repositories below `prefix` are looked for at `locations` first, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorRule {
    /// `host[:port][/path]` of what is mirrored; `*.example.com` matches any host below.
    pub prefix: String,
    /// Where to look.
    pub locations: Vec<MirrorLocation>,
}

/// One place to look: `host[:port][/path]` that takes the prefix's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorLocation {
    /// `host[:port][/path]`.
    pub location: String,
    /// Which references may be asked for here.
    pub pull_from: PullFrom,
}

/// Which references a mirror is asked for (containers-registries.conf, `pull-from-mirror`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullFrom {
    /// All.
    #[default]
    All,
    /// Those pinned to a digest.
    DigestOnly,
    /// Those by tag.
    TagOnly,
}
