//! What a build takes from caches and leaves in them, and `kiln cache`.

use clap::{Args, Subcommand};

use super::{Format, RegistryArgs, StoreArgs};

/// Caches of a build.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheArgs {
    /// Take results of steps from here too, besides kiln's store: type=registry,ref=REPOSITORY or
    /// type=local,src=DIR; type=none leaves the store out
    #[arg(long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Keep results of steps here too, besides kiln's store: type=registry,ref=REPOSITORY[,mode=min|max] or
    /// type=local,dest=DIR; type=none leaves the store out
    #[arg(long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Use no result that was made longer ago than this: 36h, 7d, 2w [default: any]
    #[arg(long, value_name = "AGE")]
    pub cache_ttl: Option<String>,
    /// Say for each step that runs which of its inputs changed since it last did; --metadata-file has it always
    #[arg(long)]
    pub explain: bool,
    /// Begin cache mounts that are not here yet with what was saved: type=registry,ref=REPOSITORY or
    /// type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    pub cache_mounts_from: Vec<String>,
    /// Save the cache mounts that changed after the build: type=registry,ref=REPOSITORY[,max-size=SIZE] or
    /// type=local,dest=DIR[,max-size=SIZE]
    #[arg(long, value_name = "SPEC")]
    pub cache_mounts_to: Vec<String>,
}

/// Arguments of `kiln cache`.
#[derive(Debug, Args)]
pub struct CacheCommandArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What can be done with a cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List the results of steps in a cache.
    Ls(CacheListArgs),
    /// Show how much there is in a cache.
    Du(CacheListArgs),
    /// Remove results of steps from a cache: all of them, or those beyond limits.
    Prune(CachePruneArgs),
}

/// Arguments of `kiln cache ls` and `du`.
#[derive(Debug, Args)]
pub struct CacheListArgs {
    /// The cache.
    #[command(flatten)]
    pub place: CachePlaceArgs,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Arguments of `kiln cache prune`.
#[derive(Debug, Args)]
pub struct CachePruneArgs {
    /// The cache.
    #[command(flatten)]
    pub place: CachePlaceArgs,
    /// What stays.
    #[command(flatten)]
    pub limits: KeepArgs,
    /// Only show what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Which results of steps stay when others are removed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct KeepArgs {
    /// Remove what was made longer ago than this: 36h, 7d, 2w
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<String>,
    /// Remove what was not used for this long; registries do not know, there it is as --older-than
    #[arg(long, value_name = "AGE")]
    pub unused_since: Option<String>,
    /// Remove what was not used for longest until the rest takes no more than this: 500m, 10GB
    #[arg(long, visible_alias = "max-used-space", value_name = "SIZE")]
    pub keep_storage: Option<String>,
}

/// Which cache, and the way to it.
#[derive(Debug, Args)]
pub struct CachePlaceArgs {
    /// The cache: type=registry,ref=REPOSITORY, a repository alone, or type=local,src=DIR [default: the one
    /// in kiln's store]
    #[arg(value_name = "CACHE")]
    pub cache: Option<String>,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}
