//! The commands about whole images, in registries and elsewhere: copied, tagged, merged; artifacts; the
//! warmer.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, ProgressArg, RegistryArgs, StoreArgs};

/// What every command that moves images has.
#[derive(Debug, Clone, Args)]
pub struct TransferArgs {
    /// How progress is shown
    #[arg(long, value_enum, value_name = "KIND", default_value_t = ProgressArg::Auto)]
    pub progress: ProgressArg,
    /// Show nothing but errors and the result
    #[arg(short, long)]
    pub quiet: bool,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Where images may be, for the help of each command.
const PLACES: &str = "An IMAGE is looked for as the path of an OCI layout or archive (PATH[:TAG|@DIGEST]), then in \
kiln's store (name or digest), then in its registry. To be sure which: docker://NAME is in a registry, \
store://NAME in the store, oci:PATH[:TAG] a layout in a directory and oci-archive:PATH[:TAG] one in a tar.";

/// Commands about indexes (manifest lists): one name for the images of several platforms.
#[derive(Debug, Subcommand)]
pub enum IndexCommand {
    /// Merge images for several platforms into one index.
    #[command(after_help = PLACES)]
    Create(IndexCreateArgs),
    /// Change what an index says of its entries, or its annotations.
    #[command(after_help = PLACES)]
    Annotate(IndexAnnotateArgs),
    /// Push an index and everything it points to, its tags last.
    #[command(after_help = PLACES)]
    Push(IndexPushArgs),
    /// Show an index and its entries.
    #[command(after_help = PLACES)]
    Inspect(IndexInspectArgs),
}

/// Arguments of `kiln index create`.
#[derive(Debug, Args)]
pub struct IndexCreateArgs {
    /// The images, or indexes whose images are taken
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Name the index; without a tag it is tagged with the git commit
    #[arg(short, long, value_name = "NAME[:TAG]", required_unless_present = "dry_run")]
    pub tag: Vec<String>,
    /// Push it to the registries its names say, instead of keeping it in kiln's store
    #[arg(long)]
    pub push: bool,
    /// Begin with the entries that the first name has already
    #[arg(long, visible_alias = "amend")]
    pub append: bool,
    /// Let an image replace an earlier one of its platform
    #[arg(long)]
    pub replace: bool,
    /// Say what an image is for, whatever its config says; IMAGE as on the command line
    #[arg(long, value_name = "[IMAGE=]OS/ARCH[/VARIANT]")]
    pub platform: Vec<String>,
    /// Put an annotation on the index (`index:`, the default), on its entries (`manifest-descriptor:`) or
    /// on the manifests themselves, which get new digests (`manifest:`); `manifest[linux/arm64]:` is one of them
    #[arg(long, value_name = "[SCOPE[PLATFORM]:]NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Show the index instead of keeping or pushing it
    #[arg(long, conflicts_with = "push")]
    pub dry_run: bool,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln index annotate`.
#[derive(Debug, Args)]
pub struct IndexAnnotateArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    pub index: String,
    /// The entry to change: its platform, its digest, or a name of the image; without one, the index itself
    #[arg(value_name = "ENTRY")]
    pub entry: Option<String>,
    /// The entry's platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with_all = ["os", "arch", "variant"])]
    pub platform: Option<String>,
    /// The entry's operating system
    #[arg(long, value_name = "OS")]
    pub os: Option<String>,
    /// The entry's architecture
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// The variant of the entry's architecture; empty for none
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<String>,
    /// The version of the entry's operating system; empty for none
    #[arg(long, value_name = "VERSION")]
    pub os_version: Option<String>,
    /// What the entry's operating system must have
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    pub os_features: Vec<String>,
    /// Put an annotation on the entry, or on the index where no entry is named
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Take the entry out of the index
    #[arg(long, requires = "entry")]
    pub remove: bool,
    /// Push the changed index under its name, instead of keeping it in kiln's store
    #[arg(long)]
    pub push: bool,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln index push`.
#[derive(Debug, Args)]
pub struct IndexPushArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    pub index: String,
    /// The names to push it under [default: its own]
    #[arg(value_name = "DEST")]
    pub destination: Vec<String>,
    /// Take its name out of the store when it is pushed
    #[arg(short, long)]
    pub purge: bool,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln index inspect`.
#[derive(Debug, Args)]
pub struct IndexInspectArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    pub index: String,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Write the index as it is, byte for byte
    #[arg(long, conflicts_with = "format")]
    pub raw: bool,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln tag`.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct TagArgs {
    /// What to name
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Further names: in the store if IMAGE is there, else in the registry it is in
    #[arg(value_name = "NAME[:TAG]", required = true)]
    pub names: Vec<String>,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln ls-tags`.
#[derive(Debug, Args)]
pub struct ListTagsArgs {
    /// The repository, `registry.example.com/team/app`
    #[arg(value_name = "REPOSITORY")]
    pub repository: String,
    /// Ask for the digest behind each tag, too
    #[arg(long)]
    pub digests: bool,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Arguments of `kiln rm-tag`.
#[derive(Debug, Args)]
pub struct RemoveTagArgs {
    /// Tags in registries: `registry.example.com/team/app:1.0`
    #[arg(value_name = "NAME:TAG", required = true)]
    pub references: Vec<String>,
    /// Remove the image even if other tags or indexes lose it with that
    #[arg(long)]
    pub force: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Arguments of `kiln copy`.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub struct CopyArgs {
    /// What to copy
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Where to: names in registries, store://NAME, PATH or oci:PATH[:TAG], PATH.tar or oci-archive:PATH[:TAG];
    /// a name without a tag takes the image's
    #[arg(value_name = "DEST", required = true)]
    pub destination: Vec<String>,
    /// Copy an index with all its images: what is done anyway unless a platform is named
    #[arg(short, long, conflicts_with = "platform")]
    pub all: bool,
    /// Copy the image for this platform alone
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Commands about artifacts: files in registries that are not images.
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Push files as an artifact, perhaps about an image.
    Push(ArtifactPushArgs),
    /// Fetch an artifact's files.
    Pull(ArtifactPullArgs),
    /// List the artifacts about an image (its referrers).
    Ls(ArtifactListArgs),
}

/// Arguments of `kiln artifact push`.
#[derive(Debug, Args)]
pub struct ArtifactPushArgs {
    /// The name of the artifact; without a tag it has only its digest
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
    /// Its files with their media types [default: application/octet-stream]; a directory is archived
    #[arg(value_name = "FILE[:MEDIA-TYPE]")]
    pub files: Vec<String>,
    /// What the artifact is, `application/vnd.example.sbom`
    #[arg(long, value_name = "TYPE", default_value = "application/vnd.unknown.artifact.v1")]
    pub artifact_type: String,
    /// Its config; without one it is empty
    #[arg(long, value_name = "FILE[:MEDIA-TYPE]")]
    pub config: Option<String>,
    /// Put an annotation on it; FILE: before the name puts it on that file
    #[arg(long, value_name = "[FILE:]NAME=VALUE")]
    pub annotation: Vec<String>,
    /// The image it is about: a tag or digest of the same repository, or its full name
    #[arg(long, value_name = "IMAGE")]
    pub subject: Option<String>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln artifact pull`.
#[derive(Debug, Args)]
pub struct ArtifactPullArgs {
    /// The artifact
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub name: String,
    /// Where its files go
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// Leave files alone that are there already, and fail
    #[arg(short, long)]
    pub keep_old_files: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Arguments of `kiln artifact ls`.
#[derive(Debug, Args)]
pub struct ArtifactListArgs {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub subject: String,
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    pub artifact_type: Option<String>,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Arguments of `kiln warm`.
#[derive(Debug, Args)]
pub struct WarmArgs {
    /// Images to fetch into kiln's store
    #[arg(value_name = "IMAGE", required_unless_present = "file")]
    pub images: Vec<String>,
    /// Fetch all images that this Dockerfile is built from: FROM, COPY --from and RUN --mount=from
    #[arg(short, long, value_name = "PATH")]
    pub file: Vec<PathBuf>,
    /// Set a build argument for the Dockerfile; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A named context of the build: what it replaces is not fetched, docker-image:// is
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,
    /// Only what this stage of the Dockerfile needs [default: what any stage needs]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// The platforms to fetch images for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Fetch the images of all platforms that there are
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How images are moved.
    #[command(flatten)]
    pub transfer: TransferArgs,
}
