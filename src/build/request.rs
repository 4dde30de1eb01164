//! What the user wants built: every choice made, nothing left to parse.
//!
//! `cli/` turns arguments and environment into a [`Request`]; the engine reads nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::context::{GitServer, ObjectSource};
use crate::oci::{ManifestFormat, Platform, Reference};
use crate::sandbox::Ulimit;
use crate::stream::Compression;

/// One build.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// Where the main build context is.
    pub context: ContextSource,
    /// `--build-context`: further contexts by name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--build-arg`: values that are set.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: the stage to build; the last one by default.
    pub target: Option<String>,
    /// `--platform`: what the image is for; the host's by default.
    pub platform: Option<Platform>,
    /// `--label`: put on the final image, over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--annotation` and kiln's own (`revision`, `source`): put on the manifest.
    pub annotations: BTreeMap<String, String>,
    /// `--tag`: what the image is called.
    pub names: Vec<Reference>,
    /// `--pull`: ask the registry even for a base image the store has.
    pub pull: bool,
    /// `--offline`: have everything from the store, and open no connection.
    pub offline: bool,
    /// `--no-cache`.
    pub no_cache: bool,
    /// Whether it is found out why the steps that run are in no cache.
    pub explain: Explain,
    /// `--network`: for RUN steps that do not say.
    pub network: NetworkMode,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--shm-size`: size of `/dev/shm` in bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--secret`: by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Whose repositories the secrets `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER` are for, if that is known.
    pub git_server: Option<GitServer>,
    /// `--ssh`: by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// `--allow`.
    pub allow: BTreeSet<Entitlement>,
    /// `--volume-backup-limit`: how much a copy of the container's volumes may take, for steps in place.
    pub volume_limit_bytes: u64,
    /// How layers are compressed.
    pub compression: Compression,
    /// The manifest's media types; `None` is the base image's, OCI from scratch.
    pub format: Option<ManifestFormat>,
    /// What time it is for the image, unless a build argument or a global `ARG` `SOURCE_DATE_EPOCH` says.
    pub epoch: EpochChoice,
    /// `rewrite-timestamp=true`: times in the base image's layers are clamped to the epoch too, which makes
    /// other layers of them.
    pub rewrite_timestamp: bool,
    /// `--single-snapshot`: all new layers as one.
    pub single_layer: bool,
    /// `--cache-dir`: OCI layouts whose blobs spare a registry the downloads of base layers.
    pub base_layouts: Vec<PathBuf>,
    /// `--ignore-path`: never part of a layer.
    pub ignore_paths: Vec<PathBuf>,
    /// How many stages work at once.
    pub jobs: NonZeroUsize,
    /// How many threads compress one layer.
    pub compression_threads: NonZeroUsize,
}

/// Where the source epoch comes from if `SOURCE_DATE_EPOCH` is not among the build's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochChoice {
    /// These seconds since 1970, from an option or the environment.
    Given(i64),
    /// The time of the commit that the context is made from.
    Commit {
        /// That of the work tree that the context directory is in, in seconds since 1970. A context from git
        /// brings its own.
        local: Option<i64>,
        /// What counts if there is no commit: 0 for `--reproducible`.
        otherwise: Option<i64>,
    },
    /// There is none (`--timestamp now`): times are those of the build.
    Now,
}

/// Whether it is found out why a step is in no cache. That costs a request for each step that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Explain {
    /// It is not.
    #[default]
    No,
    /// Only for what the build returns (`--metadata-file`).
    Report,
    /// It is said at once, too (`--explain`).
    Aloud,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` (or `dockerfile`) at the top of the context.
    Default,
    /// A file on this machine; inside a remote context, a path in it.
    Path(PathBuf),
    /// Its bytes, from standard input.
    Bytes(Vec<u8>),
    /// An http(s) URL.
    Url(String),
}

/// Where a build context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory on this machine.
    Directory(PathBuf),
    /// A tar (or a lone Dockerfile) on standard input.
    Stdin,
    /// A tar in a file on this machine.
    TarFile(PathBuf),
    /// An http(s) URL of a tar or of a lone Dockerfile.
    Url(String),
    /// A tar in an object store.
    Object(Box<ObjectSource>),
    /// A git repository, in any of the forms of `docker build`.
    Git(String),
}

/// `--build-context name=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, git repository or URL.
    Files(ContextSource),
    /// `docker-image://REF`.
    Image(String),
    /// `oci-layout://PATH[:tag][@digest]`.
    Layout(String),
}

/// The network of a RUN step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// Whatever kiln itself has.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// Where a secret's value comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file on this machine.
    File(PathBuf),
    /// A value that was in the environment.
    Value(Vec<u8>),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Value(_) => f.write_str("Value([redacted])"),
        }
    }
}

/// Where an ssh agent comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshSource {
    /// The socket of an agent.
    Agent(PathBuf),
    /// Files with private keys, served by an agent of kiln's own.
    KeyFiles(Vec<PathBuf>),
    /// The same, read.
    Keys(Vec<SshKey>),
}

/// A private key for an ssh agent.
#[derive(Clone, PartialEq, Eq)]
pub struct SshKey {
    /// Where it is from.
    pub path: PathBuf,
    /// What is in the file.
    pub text: Vec<u8>,
    /// What is in the file beside it that ends in `-cert.pub`.
    pub certificate: Option<Vec<u8>>,
}

impl SshKey {
    /// Reads a key, with its certificate if it has one.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-cert.pub");
        let certificate = match std::fs::read(beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other?),
        };
        Ok(Self { path: path.to_owned(), text: std::fs::read(path)?, certificate })
    }
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshKey({})", self.path.display())
    }
}

/// What `--allow` grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// `network.host`: `RUN --network=host`.
    NetworkHost,
    /// `security.insecure`: `RUN --security=insecure`.
    SecurityInsecure,
}
