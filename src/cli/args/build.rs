//! `kiln build` and `kiln check`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::{CacheArgs, RegistryArgs, StoreArgs};

/// Arguments of `kiln build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// What is built.
    #[command(flatten)]
    pub source: SourceArgs,
    /// How steps run.
    #[command(flatten)]
    pub steps: StepArgs,
    /// What comes out.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which caches it uses.
    #[command(flatten)]
    pub cache: CacheArgs,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Open no connection: have base images from kiln's store (see `kiln warm`), and say what is missing
    #[arg(long, help_heading = "Registries")]
    pub offline: bool,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How steps are kept apart from this machine: auto, namespaces, user-namespaces, chroot, in-place or
    /// none (see `kiln doctor`)
    #[arg(long, value_name = "KIND", default_value = "auto", help_heading = "kiln")]
    pub isolation: String,
    /// With --isolation=in-place: also where this is not kiln's own image
    #[arg(long, help_heading = "kiln")]
    pub force: bool,
    /// Run steps although they can read credentials that kiln cannot hide where they run without namespaces: those on
    /// read-only mounts, a Kubernetes service account's token for one
    #[arg(long, help_heading = "kiln")]
    pub allow_visible_credentials: bool,
    /// Keep steps from new privileges, and from signals to kiln where they see it; sudo, su and other setuid programs
    /// then fail for users other than root
    #[arg(long, help_heading = "kiln")]
    pub hardened: bool,
    /// How many stages are built at once [default: the number of CPUs]
    #[arg(long, value_name = "N", help_heading = "kiln")]
    pub jobs: Option<usize>,
}

/// Arguments of `kiln check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What is checked.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Accepted so that a build's own command line can be checked; none of them changes a finding.
    #[command(flatten)]
    pub steps: StepArgs,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is built.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The build context: a directory, a git repository, a URL, or `-` for a tar or Dockerfile on
    /// standard input
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub context: String,
    /// The Dockerfile: a path, a URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Add a named context: a directory, docker-image://, oci-layout://, a git repository or a URL
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// The platform to build for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
}

/// How steps run.
#[derive(Debug, Clone, Default, Args)]
pub struct StepArgs {
    /// Put a label on the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Ask the registries for newer base images
    #[arg(long)]
    pub pull: bool,
    /// Take no step's result from a cache
    #[arg(long)]
    pub no_cache: bool,
    /// The network of RUN steps: default, host or none
    #[arg(long, value_name = "MODE", help_heading = "Steps")]
    pub network: Option<String>,
    /// Add a name to the steps' /etc/hosts
    #[arg(long, value_name = "NAME:IP", help_heading = "Steps")]
    pub add_host: Vec<String>,
    /// Size of the steps' /dev/shm
    #[arg(long, value_name = "SIZE", help_heading = "Steps")]
    pub shm_size: Option<String>,
    /// Limit a resource of the steps
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Steps")]
    pub ulimit: Vec<String>,
    /// Lend steps a secret: id=ID[,src=FILE|env=NAME]
    #[arg(long, value_name = "SPEC", help_heading = "Steps")]
    pub secret: Vec<String>,
    /// Lend steps an ssh agent or keys: default or ID[=SOCKET|KEY,...]
    #[arg(long, value_name = "SPEC", help_heading = "Steps")]
    pub ssh: Vec<String>,
    /// How much of the container's volumes may be copied where steps run in place [default: 1g]
    #[arg(long, value_name = "SIZE", help_heading = "Steps")]
    pub volume_backup_limit: Option<String>,
    /// Grant steps what they ask for: network.host or security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', help_heading = "Steps")]
    pub allow: Vec<String>,
}

/// What comes out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Name the image; without a tag it is tagged with the git commit
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Put an annotation on the manifest
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Push the image to the registries its names say (short for --output type=registry)
    #[arg(long)]
    pub push: bool,
    /// Push without asking first whether the registries will take the image
    #[arg(long)]
    pub skip_push_permission_check: bool,
    /// Count a tag that exists and may not be moved as pushed, with a warning
    #[arg(long)]
    pub push_ignore_immutable_tag_errors: bool,
    /// The manifest's media types: oci or docker [default: the base image's]
    #[arg(long, value_name = "FORMAT")]
    pub image_format: Option<String>,
    /// Where the image goes [default: kiln's store]: type=registry|oci|docker|tar|local[,dest=PATH]...
    #[arg(short, long, value_name = "SPEC")]
    pub output: Vec<String>,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built to a JSON file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Make this, in seconds since 1970, the image's time and of all that is newer; `now` leaves times as
    /// they are [default: $SOURCE_DATE_EPOCH, else the git commit's time]
    #[arg(long, value_name = "SECONDS|now", allow_negative_numbers = true)]
    pub timestamp: Option<TimestampArg>,
    /// Make equal inputs give equal images also outside of git: without any time given it is 0
    #[arg(long)]
    pub reproducible: bool,
    /// Build twice, the second time without any cache, and fail without pushing or tagging anything if the two
    /// images differ: says where, and why they usually do
    #[arg(long)]
    pub verify: bool,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "KIND", default_value_t = ProgressArg::Auto)]
    pub progress: ProgressArg,
    /// Show nothing but errors, and the digest at the end
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

/// `--timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampArg {
    /// Seconds since 1970.
    Seconds(i64),
    /// The time of the build.
    Now,
}

impl std::str::FromStr for TimestampArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("now", _) => Ok(Self::Now),
            (_, Ok(seconds)) => Ok(Self::Seconds(seconds)),
            _ => Err("expected seconds since 1970, or `now`".to_owned()),
        }
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressArg {
    /// tty on a terminal, else plain.
    #[default]
    Auto,
    /// One line after the other.
    Plain,
    /// A live view.
    Tty,
    /// Nothing but errors.
    Quiet,
}
