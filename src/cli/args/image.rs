//! The commands about images that exist.

use std::path::PathBuf;

use clap::Args;

use super::{Format, KeepArgs, RegistryArgs, StoreArgs};

/// Arguments of `kiln images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Show digests alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Show only images whose name begins like this
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Arguments of `kiln inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A name or digest in the store, the path of an OCI layout or archive, or an image in a registry
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Show the image for this platform instead of an index
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Arguments of `kiln diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 the same, 1 different, 2 trouble.")]
pub struct DiffArgs {
    /// A name or digest in the store, the path of an OCI layout or archive, or an image in a registry
    #[arg(value_name = "A")]
    pub first: String,
    /// What it is compared with
    #[arg(value_name = "B")]
    pub second: String,
    /// Show the entries of each layer instead of the files that the layers come to
    #[arg(long)]
    pub layers: bool,
    /// The platform to choose from an index [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// How it is written; JSON has everything
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Arguments of `kiln push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A name or digest in the store, or the path of an OCI layout or archive
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The name to push it under [default: its own]
    #[arg(value_name = "DEST")]
    pub destination: Vec<String>,
    /// Push the image for this platform alone [default: an index is pushed with all its images]
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Push without asking first whether the registry will take the image
    #[arg(long)]
    pub skip_push_permission_check: bool,
    /// Count a tag that exists and may not be moved as pushed
    #[arg(long)]
    pub push_ignore_immutable_tag_errors: bool,
    /// How progress is shown
    #[arg(long, value_enum, value_name = "KIND", default_value_t = super::ProgressArg::Auto)]
    pub progress: super::ProgressArg,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Arguments of `kiln rm`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Names or digests in the store
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Arguments of `kiln prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove images with names too: everything
    #[arg(short, long)]
    pub all: bool,
    /// Which results of steps stay; all go without any of these.
    #[command(flatten)]
    pub limits: KeepArgs,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Arguments of `kiln doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Where kiln keeps its things.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Whose password is saved where.
#[derive(Debug, Args)]
pub struct CredentialArgs {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "HOST[:PORT]")]
    pub host: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub username: String,
    /// Password or token; better read from standard input
    #[arg(short, long, value_name = "TEXT", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Write to this file instead of docker's config.json
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// Arguments of `kiln login`, in all.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// What is saved.
    #[command(flatten)]
    pub credential: CredentialArgs,
    /// Save the password without asking the registry first whether it takes it
    #[arg(long)]
    pub skip_check: bool,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Arguments of `kiln logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry [default: Docker Hub]
    #[arg(value_name = "HOST[:PORT]")]
    pub host: Option<String>,
    /// Change this file instead of docker's config.json
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}
