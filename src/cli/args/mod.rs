//! The command line as typed: clap's view of it, texts mostly unread.
//!
//! What the texts mean is the request's business (`cli/request`). Names and short forms are
//! `docker buildx build`'s wherever docker has the option.

mod build;
mod cache;
mod image;
mod whole;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use build::{BuildArgs, CheckArgs, Format, OutputArgs, ProgressArg, SourceArgs, StepArgs, TimestampArg};
pub use cache::{
    CacheArgs, CacheCommand, CacheCommandArgs, CacheListArgs, CachePlaceArgs, CachePruneArgs, KeepArgs,
};
pub use image::{
    CredentialArgs, DiffArgs, DoctorArgs, ImagesArgs, InspectArgs, LoginArgs, LogoutArgs, PruneArgs,
    PushArgs, RemoveArgs,
};
pub use whole::{
    ArtifactCommand, ArtifactListArgs, ArtifactPullArgs, ArtifactPushArgs, CopyArgs, IndexAnnotateArgs,
    IndexCommand, IndexCreateArgs, IndexInspectArgs, IndexPushArgs, ListTagsArgs, RemoveTagArgs, TagArgs,
    TransferArgs, WarmArgs,
};

/// Builds container images from Dockerfiles, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    bin_name = "kiln",
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile.
    Build(Box<BuildArgs>),
    /// Look for mistakes in a Dockerfile without building it.
    Check(Box<CheckArgs>),
    /// List the images in kiln's store.
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Show an image's manifest and config: from the store, a layout, an archive or a registry.
    Inspect(InspectArgs),
    /// Show what differs between two images: config, history, layers and files.
    Diff(DiffArgs),
    /// Push an image from the store to a registry.
    Push(PushArgs),
    /// Copy an image or index between registries, OCI layouts and kiln's store, digests unchanged.
    Copy(CopyArgs),
    /// Give an image further names, in the store or in its registry.
    Tag(TagArgs),
    /// List the tags of a repository in a registry.
    LsTags(ListTagsArgs),
    /// Remove tags from a registry.
    RmTag(RemoveTagArgs),
    /// Merge images for several platforms into one index (manifest list).
    #[command(subcommand)]
    Index(IndexCommand),
    /// Push, fetch and list artifacts: files in registries that are not images.
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Fetch images into kiln's store, for builds with --offline.
    Warm(Box<WarmArgs>),
    /// Remove images from the store.
    #[command(visible_alias = "rmi")]
    Rm(RemoveArgs),
    /// Free what no image in the store needs.
    Prune(PruneArgs),
    /// List and remove results of steps in a cache: kiln's own, a registry's, a directory's.
    Cache(Box<CacheCommandArgs>),
    /// Show what this machine or container allows, and what a build would use.
    Doctor(DoctorArgs),
    /// Save a registry's credentials.
    Login(LoginArgs),
    /// Forget a registry's credentials.
    Logout(LogoutArgs),
    /// Show kiln's version.
    Version,
}

/// Where kiln keeps its things.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// kiln's store [default: $KILN_ROOT, else /var/lib/kiln for root, ~/.local/share/kiln for others]
    #[arg(long, value_name = "DIR", help_heading = "kiln")]
    pub root: Option<PathBuf>,
    /// Show what is only worth a line when looking for a fault
    #[arg(long, help_heading = "kiln")]
    pub debug: bool,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Speak plain HTTP to this registry if it has no HTTPS, and accept any certificate; for pulls or for
    /// pushes alone if so said (loopback registries need no such leave)
    #[arg(long, value_name = "HOST[:PORT][=pull|push]")]
    pub insecure_registry: Vec<String>,
    /// Accept any certificate of this registry; for pulls or for pushes alone if so said
    #[arg(long, value_name = "HOST[:PORT][=pull|push]")]
    pub skip_tls_verify_registry: Vec<String>,
    /// Trust the certificate authorities in this PEM file, for all registries or for one
    #[arg(long, value_name = "[HOST=]FILE", alias = "registry-certificate")]
    pub registry_ca: Vec<String>,
    /// Show this client certificate to a registry
    #[arg(long, value_name = "HOST=CERT,KEY", alias = "registry-client-cert")]
    pub registry_cert: Vec<String>,
    /// Send a registry's credential to this token service, too, though it is of another domain
    #[arg(long, value_name = "HOST=TOKENHOST")]
    pub registry_token_service: Vec<String>,
    /// Read credentials from this file in docker's format before all others
    #[arg(long, value_name = "FILE")]
    pub registry_auth: Vec<PathBuf>,
    /// Pull from these places first: a mirror of Docker Hub, or of the registry or prefix named
    #[arg(long, value_name = "[PREFIX=]MIRROR[,MIRROR]")]
    pub registry_mirror: Vec<String>,
    /// The same for several registries or prefixes at once, as kaniko writes it
    #[arg(long, value_name = "PREFIX=MIRROR[;PREFIX=MIRROR]")]
    pub registry_map: Vec<String>,
    /// Give a request up when the server has said nothing for so long: an answer, or the next byte of one (60s)
    #[arg(long, value_name = "TIME")]
    pub registry_timeout: Option<String>,
    /// Do not ask a registry itself when its mirrors do not have an image
    #[arg(long)]
    pub skip_default_registry_fallback: bool,
}
