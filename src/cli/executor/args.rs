//! The executor's command line as typed, with kaniko's names, short forms, defaults and old spellings.
//!
//! Booleans are Go's: `--flag`, `--flag=false`, never `--flag false`.

use std::path::PathBuf;

use clap::builder::{TypedValueParser, ValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::values::parse_bool;

/// Builds an image as kaniko's executor does.
#[derive(Debug, Parser)]
#[command(
    name = "executor",
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub(super) struct ExecutorCli {
    /// A command other than a build.
    #[command(subcommand)]
    pub command: Option<ExecutorCommand>,
    /// The build.
    #[command(flatten)]
    pub build: ExecutorArgs,
}

/// What the executor does besides building.
#[derive(Debug, Subcommand)]
pub(super) enum ExecutorCommand {
    /// Show the version
    Version,
    /// Save a registry's credentials
    Login {
        /// The registry
        #[arg(value_name = "SERVER")]
        server: Option<String>,
        /// User name
        #[arg(short, long)]
        username: String,
        /// Password
        #[arg(short, long)]
        password: Option<String>,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Push an archive or layout
    Push {
        /// Its path
        #[arg(value_name = "PATH")]
        path: String,
        /// Where to
        #[arg(short, long, required = true)]
        destination: Vec<String>,
        /// How registries are reached
        #[command(flatten)]
        registry: Box<RegistryFlags>,
        /// How it logs
        #[command(flatten)]
        log: LogFlags,
    },
}

/// Reads a boolean as Go's `flag` packages do.
fn boolean() -> ValueParser {
    let parser = clap::builder::StringValueParser::new().try_map(|text| {
        parse_bool(&text).ok_or_else(|| format!("`{text}` is not a boolean, expected true or false"))
    });
    ValueParser::from(parser)
}

/// Flags of a build.
#[derive(Debug, Clone, Args)]
pub(super) struct ExecutorArgs {
    /// Path or URL of the Dockerfile
    #[arg(short = 'f', long, default_value = "Dockerfile")]
    pub dockerfile: String,
    /// Build context: a directory (/workspace/ if none is given), or dir://, tar://, git://, s3://, gs://, https://
    #[arg(short = 'c', long)]
    pub context: Option<String>,
    /// Directory inside the context to build from
    #[arg(long, default_value = "")]
    pub context_sub_path: String,
    /// Bucket of the context (object stores)
    #[arg(short = 'b', long, default_value = "", hide = true)]
    pub bucket: String,
    /// Options of a git context: branch=,single-branch=,recurse-submodules=,insecure-skip-tls=,depth=
    #[arg(long, value_delimiter = ',')]
    pub git: Vec<String>,
    /// What to push the image as
    #[arg(short = 'd', long)]
    pub destination: Vec<String>,
    /// Build argument; without a value it is taken from the environment
    #[arg(long)]
    pub build_arg: Vec<String>,
    /// Stage to build
    #[arg(long, value_delimiter = ',')]
    pub target: Vec<String>,
    /// Platform to build for
    #[arg(long, alias = "customPlatform", default_value = "")]
    pub custom_platform: String,
    /// Label of the image
    #[arg(long)]
    pub label: Vec<String>,
    /// Annotation of the manifest
    #[arg(long)]
    pub annotation: Vec<String>,
    /// Secret for steps: id=[,src=][,env=][,type=]
    #[arg(long)]
    pub secret: Vec<String>,
    /// Run steps although they can read credentials that kiln cannot hide (read-only mounts)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub allow_visible_credentials: Option<bool>,
    /// Keep steps from new privileges, and from signals to kiln; sudo and su then fail for others than root
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub hardened: Option<bool>,
    /// Paths that are never part of a layer
    #[arg(long)]
    pub ignore_path: Vec<PathBuf>,
    /// Leave /var/run out of layers
    #[arg(long, alias = "whitelist-var-run", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub ignore_var_run: Option<bool>,
    /// Make equal inputs give equal images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub reproducible: Option<bool>,
    /// Make one layer of all steps
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub single_snapshot: Option<bool>,
    /// Print what would be built
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub dryrun: Option<bool>,
    /// kaniko's directory
    #[arg(long, value_name = "DIR")]
    pub kaniko_dir: Option<PathBuf>,
    /// What comes out
    #[command(flatten)]
    pub output: OutputFlags,
    /// How registries are reached
    #[command(flatten)]
    pub registry: RegistryFlags,
    /// What is cached
    #[command(flatten)]
    pub cache: CacheFlags,
    /// Flags that kiln's design answers
    #[command(flatten)]
    pub moot: MootFlags,
    /// How it logs
    #[command(flatten)]
    pub log: LogFlags,
}

/// What comes out.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputFlags {
    /// Do not push the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub no_push: Option<bool>,
    /// Write the image to a tar that `docker load` reads
    #[arg(long, alias = "tarPath")]
    pub tar_path: Option<PathBuf>,
    /// Write the image to an OCI layout
    #[arg(long)]
    pub oci_layout_path: Option<PathBuf>,
    /// Write the image's digest to a file
    #[arg(long)]
    pub digest_file: Option<String>,
    /// Write name@digest of each destination to a file
    #[arg(long)]
    pub image_name_with_digest_file: Option<String>,
    /// Write name:tag@digest of each destination to a file
    #[arg(long)]
    pub image_name_tag_with_digest_file: Option<String>,
    /// Format of the manifest: docker or oci; that of the base image if not given
    #[arg(long)]
    pub image_format: Option<String>,
    /// Compression of layers: gzip or zstd
    #[arg(long, default_value = "gzip")]
    pub compression: String,
    /// Level of compression
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub compression_level: i64,
    /// Count an immutable tag that exists as pushed
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub push_ignore_immutable_tag_errors: Option<bool>,
    /// Do not ask before the build whether the registry will take the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub skip_push_permission_check: Option<bool>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryFlags {
    /// Push over plain HTTP
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub insecure: Option<bool>,
    /// Pull over plain HTTP
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub insecure_pull: Option<bool>,
    /// Use plain HTTP with this registry
    #[arg(long)]
    pub insecure_registry: Vec<String>,
    /// Accept any certificate
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub skip_tls_verify: Option<bool>,
    /// Accept any certificate when pulling
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub skip_tls_verify_pull: Option<bool>,
    /// Accept any certificate of this registry
    #[arg(long)]
    pub skip_tls_verify_registry: Vec<String>,
    /// Trust these authorities for a registry: HOST=FILE
    #[arg(long, alias = "registry-ca")]
    pub registry_certificate: Vec<String>,
    /// Show a client certificate to a registry: HOST=CERT,KEY
    #[arg(long, alias = "registry-cert")]
    pub registry_client_cert: Vec<String>,
    /// Send a registry's credential to this token service, too: HOST=TOKENHOST
    #[arg(long)]
    pub registry_token_service: Vec<String>,
    /// Give a request up when the server has said nothing for so long (60s)
    #[arg(long)]
    pub registry_timeout: Option<String>,
    /// Mirror of Docker Hub
    #[arg(long)]
    pub registry_mirror: Vec<String>,
    /// Mirrors of registries: HOST=MIRROR[;HOST=MIRROR]
    #[arg(long)]
    pub registry_map: Vec<String>,
    /// Do not ask the registry itself when its mirrors have nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub skip_default_registry_fallback: Option<bool>,
    /// Where credentials may come from besides files: env, google, ecr, acr, gitlab
    #[arg(long, value_delimiter = ',')]
    pub credential_helpers: Option<Vec<String>>,
    /// Repetitions of a failed push
    #[arg(long, default_value_t = 0)]
    pub push_retry: u32,
    /// Repetitions of a failed download
    #[arg(long, default_value_t = 0)]
    pub image_download_retry: u32,
    /// Repetitions of a failed extraction
    #[arg(long, default_value_t = 0)]
    pub image_fs_extract_retry: u32,
    /// Docker config of Azure's helper
    #[arg(long, hide = true)]
    pub azure_container_registry_config: Option<PathBuf>,
}

/// What is cached.
#[derive(Debug, Clone, Args)]
pub(super) struct CacheFlags {
    /// Use a cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub cache: Option<bool>,
    /// Repository of the cache
    #[arg(long)]
    pub cache_repo: Option<String>,
    /// Directory that the warmer put base images into: /cache if none is given
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// How long the cache is good for
    #[arg(long, default_value = "336h")]
    pub cache_ttl: String,
    /// Cache COPY and ADD
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub cache_copy_layers: Option<bool>,
    /// Cache RUN
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub cache_run_layers: Option<bool>,
    /// Do not push to the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub no_push_cache: Option<bool>,
}

/// Flags that kiln's design answers: accepted, and said once what kiln does instead.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct MootFlags {
    /// How changes are found: full, redo or time
    #[arg(long, alias = "snapshotMode", value_enum)]
    pub snapshot_mode: Option<SnapshotMode>,
    /// Another way to find changes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub use_new_run: Option<bool>,
    /// Keep compressed layers in memory
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub compressed_caching: Option<bool>,
    /// Delete the root filesystem at the end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub cleanup: Option<bool>,
    /// Delete the root filesystem before the build
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub pre_cleanup: Option<bool>,
    /// Save the root filesystem and put it back
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub preserve_context: Option<bool>,
    /// Leave the image's files in place
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub materialize: Option<bool>,
    /// Build only what the target needs
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub skip_unused_stages: Option<bool>,
    /// Metadata instructions make layers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub force_build_metadata: Option<bool>,
    /// Run outside of a container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub force: Option<bool>,
}

/// kaniko's ways to find changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SnapshotMode {
    /// By content.
    Full,
    /// By metadata.
    Redo,
    /// By modification time.
    Time,
}

/// How it logs.
#[derive(Debug, Clone, Args)]
pub(super) struct LogFlags {
    /// What is logged
    #[arg(short = 'v', long, value_enum, default_value_t = Verbosity::Info)]
    pub verbosity: Verbosity,
    /// How it is logged
    #[arg(long, value_enum, default_value_t = LogFormat::Color)]
    pub log_format: LogFormat,
    /// Log the time of day
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub log_timestamp: Option<bool>,
}

/// The levels of kaniko's log, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Verbosity {
    /// Next to nothing.
    Panic,
    /// What ends the build.
    Fatal,
    /// Errors.
    Error,
    /// Warnings.
    #[value(alias = "warning")]
    Warn,
    /// What happens.
    Info,
    /// What happens in detail.
    Debug,
    /// Everything.
    Trace,
}

/// The formats of kaniko's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// `time="…" level=info msg="…"`
    Text,
    /// `INFO[0001] …`
    Color,
    /// One JSON object for each line.
    Json,
}

/// Puts base images where the executor's cache finds them, as kaniko's warmer does.
#[derive(Debug, Parser)]
#[command(name = "warmer", disable_version_flag = true, args_override_self = true, max_term_width = 100)]
pub(super) struct WarmerCli {
    /// Image to fetch
    #[arg(short = 'i', long)]
    pub image: Vec<String>,
    /// Dockerfile whose base images are fetched
    #[arg(short = 'd', long)]
    pub dockerfile: Option<String>,
    /// Build argument
    #[arg(long)]
    pub build_arg: Vec<String>,
    /// Where to
    #[arg(short = 'c', long, default_value = "/cache")]
    pub cache_dir: PathBuf,
    /// How long an image is good for
    #[arg(long, default_value = "336h")]
    pub cache_ttl: String,
    /// Fetch images that are there
    #[arg(short = 'f', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = boolean())]
    pub force: Option<bool>,
    /// Platform to fetch
    #[arg(long = "customPlatform", alias = "custom-platform", default_value = "")]
    pub custom_platform: String,
    /// How registries are reached
    #[command(flatten)]
    pub registry: RegistryFlags,
    /// How it logs
    #[command(flatten)]
    pub log: LogFlags,
}
