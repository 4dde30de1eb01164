//! From what was typed to what is meant: [`BuildArgs`] and [`Environment`] to an [`Invocation`].
//!
//! All reading of texts ends here. What the mapping learns on the way and the user should hear is
//! collected in `warnings`; nothing is printed.

mod caches;
mod certificates;
mod epoch;
mod lend;
mod outputs;
mod registries_conf;
mod registry;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use caches::{CacheSetup, cache_setup};
pub(crate) use epoch::of_environment as epoch_of_environment;
pub use lend::git_server;
pub use outputs::{Delivery, delivery, writes_stdout};
pub use registries_conf::RegistriesConfError;
pub use registry::{
    ambient_config, auth_warnings, client_certificate, deadline, docker_config_file, mirror_error, pem,
    registry_config, search_path, token_service,
};
pub use source::{context_source, dockerfile_source, is_git, is_remote};

use super::args::{BuildArgs, CheckArgs, ProgressArg, SourceArgs, StepArgs};
use super::environment::{Environment, OwnPaths};
use super::tags::Commit;
use super::values::{ValueError, key_value, parse_add_host, parse_size_bytes, parse_ulimit};
use crate::build::{Entitlement, EpochChoice, Explain, NetworkMode, Request};
use crate::oci::{Platform, PlatformError, ReferenceError, annotation};
use crate::output::OutputSpec;
use crate::registry::RegistryConfig;
use crate::sandbox::{DEFAULT_VOLUME_LIMIT_BYTES, Isolation, SandboxError};
use crate::stream::Compression;

/// A build with everything around it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// What to build.
    pub request: Request,
    /// Where the image goes.
    pub outputs: Vec<OutputSpec>,
    /// Which caches it has.
    pub caches: CacheSetup,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// The socket of the ssh agent around kiln (`SSH_AUTH_SOCK`), lent to steps or not.
    pub ssh_agent: Option<PathBuf>,
    /// The machine's own files that commands like this read.
    pub own_paths: OwnPaths,
    /// Variables for the `git` program.
    pub git_environment: Vec<(OsString, OsString)>,
    /// How steps are kept apart.
    pub isolation: Isolation,
    /// What else is demanded, or waived, of that.
    pub sandbox: SandboxRules,
    /// Whether it is built twice before anything goes out.
    pub verify: bool,
    /// Files to write about the result.
    pub reports: Reports,
    /// How progress is shown.
    pub progress: ProgressArg,
    /// Whether fault-finding lines are shown.
    pub debug: bool,
    /// What the user should hear before the build.
    pub warnings: Vec<String>,
}

/// What is demanded, or waived, of the sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxRules {
    /// `--allow-visible-credentials`: steps may run where they can read credentials.
    pub allow_visible_credentials: bool,
    /// `--hardened`: no new privileges, and no signals to kiln.
    pub hardened: bool,
}

/// Files to write about the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// `--iidfile`.
    pub image_id: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata: Option<PathBuf>,
}

/// Arguments that are well-formed but mean nothing, or contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// An option's value cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A name is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A platform is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An isolation is none.
    #[error(transparent)]
    Isolation(#[from] SandboxError),
    /// Several platforms.
    #[error("`--platform {value}` names several platforms: kiln builds one at a time")]
    Platforms {
        /// What was typed.
        value: String,
    },
    /// Context and Dockerfile both from standard input.
    #[error("standard input cannot be both the build context and the Dockerfile")]
    StdinTwice,
    /// A push of an image without a name.
    #[error("nothing to push to: the image has no name")]
    PushWithoutName,
    /// A push without a network.
    #[error("`--offline` opens no connection, and pushing needs one")]
    OfflinePush,
    /// A question to registries without a network.
    #[error("`--offline` opens no connection, and `--pull` asks the registries")]
    OfflinePull,
    /// Two outputs to standard output.
    #[error("only one output can go to standard output")]
    StdoutTwice,
    /// An archive on a terminal.
    #[error("refusing to write an archive to the terminal")]
    StdoutTerminal,
    /// Outputs disagree about the image.
    #[error("the outputs ask for different images: `{option}` differs")]
    Disagree {
        /// About what.
        option: &'static str,
    },
    /// `force-compression`, which needs layers of the base image written anew.
    #[error("`force-compression` is not supported: layers of base images are kept byte for byte")]
    ForceCompression,
    /// A file that an option names cannot be read.
    #[error("cannot read `{path}` for `{option}`")]
    File {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A `registries.conf` that can't be used.
    #[error(transparent)]
    RegistriesConf(#[from] RegistriesConfError),
    /// `--ssh` without an agent.
    #[error("`--ssh {id}` names no socket or key, and `SSH_AUTH_SOCK` is not set")]
    NoAgent {
        /// The id.
        id: String,
    },
    /// An epoch in the environment that is no number.
    #[error("invalid SOURCE_DATE_EPOCH: `{value}` is not a number of seconds since 1970")]
    Epoch {
        /// The value.
        value: String,
    },
}

impl RequestError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::PushWithoutName => "name it with `-t registry.example.com/app`",
            Self::OfflinePush => {
                "keep the image in the store (or write it with `--output type=oci,dest=FILE`) and push it later \
                 with `kiln push`"
            }
            Self::OfflinePull => "bring newer base images into the store with `kiln warm`",
            Self::StdoutTerminal => "redirect standard output, or name a file with `dest=FILE`",
            Self::Platforms { .. } => "build each platform on its own",
            Self::StdinTwice => "name a file with `-f`, or a directory as the context",
            Self::RegistriesConf(_) => {
                "correct the file, or name another one with CONTAINERS_REGISTRIES_CONF (/dev/null for none)"
            }
            Self::NoAgent { .. } => "start an agent, or give a key: `--ssh default=~/.ssh/id_ed25519`",
            Self::Disagree { .. } => "build once for each of them",
            _ => return None,
        })
    }
}

/// Reads everything `kiln build` was given. `commit` is the one that CONTEXT is a work tree of; standard
/// input is read if the Dockerfile comes from there.
pub fn invocation(
    args: &BuildArgs,
    environment: &Environment,
    commit: Option<&Commit>,
    stdin: &mut dyn std::io::Read,
) -> Result<Invocation, RequestError> {
    let mut warnings = Vec::new();
    let mut request = base_request(&args.source, &args.steps, environment, stdin, &mut warnings)?;
    let delivery = delivery(&args.output, environment, commit)?;
    request.names = delivery.names;
    request.offline = args.offline;
    if args.offline {
        refuse_network(&delivery.outputs, &args.steps)?;
    }
    request.annotations = annotations(&args.output.annotation, &delivery.image.annotations, commit)?;
    request.compression = delivery.image.compression.unwrap_or_default();
    request.format = delivery.image.format;
    epoch::choose(&mut request, &args.output, environment, delivery.image.source_date_epoch, commit)?;
    request.rewrite_timestamp = delivery.image.rewrite_timestamp;
    request.explain = match (args.cache.explain, &args.output.metadata_file) {
        (true, _) => Explain::Aloud,
        (false, Some(_)) => Explain::Report,
        (false, None) => Explain::No,
    };
    if let Some(jobs) = args.jobs {
        request.jobs = NonZeroUsize::new(jobs)
            .ok_or_else(|| ValueError::new("--jobs", "0", "expected a number from 1"))?;
    }
    Ok(Invocation {
        ssh_agent: environment.ssh_agent(),
        own_paths: environment.own_paths.clone(),
        git_environment: environment.for_git(),
        request,
        outputs: delivery.outputs,
        caches: cache_setup(&args.cache, args.steps.no_cache, environment)?,
        registry: RegistryConfig { offline: args.offline, ..registry_config(&args.registry, environment)? },
        isolation: args.isolation.parse()?,
        sandbox: SandboxRules {
            allow_visible_credentials: args.allow_visible_credentials,
            hardened: args.hardened,
        },
        verify: args.output.verify,
        reports: Reports {
            image_id: args.output.iidfile.as_ref().map(|path| environment.directory.join(path)),
            metadata: args.output.metadata_file.as_ref().map(|path| environment.directory.join(path)),
        },
        progress: if args.output.quiet { ProgressArg::Quiet } else { args.output.progress },
        debug: args.store.debug,
        warnings,
    })
}

/// Refuses what cannot be had without a network.
fn refuse_network(outputs: &[OutputSpec], steps: &StepArgs) -> Result<(), RequestError> {
    if outputs.iter().any(|output| matches!(output, OutputSpec::Registry { .. })) {
        return Err(RequestError::OfflinePush);
    }
    if steps.pull { Err(RequestError::OfflinePull) } else { Ok(()) }
}

/// Reads what `kiln check` was given.
pub fn check_request(
    args: &CheckArgs,
    environment: &Environment,
    stdin: &mut dyn std::io::Read,
) -> Result<Request, RequestError> {
    base_request(&args.source, &args.steps, environment, stdin, &mut Vec::new())
}

/// Reads what builds and checks share.
pub(crate) fn base_request(
    source: &SourceArgs,
    steps: &StepArgs,
    environment: &Environment,
    stdin: &mut dyn std::io::Read,
    warnings: &mut Vec<String>,
) -> Result<Request, RequestError> {
    let context = context_source(&source.context, environment);
    let dockerfile = dockerfile_source(source.file.as_deref(), &context, environment, stdin)?;
    let cpus = NonZeroUsize::new(environment.cpus).unwrap_or(NonZeroUsize::MIN);
    let secrets = lend::secrets(&steps.secret, environment, warnings)?;
    Ok(Request {
        dockerfile,
        git_server: git_server(&secrets, &context, environment),
        context,
        named_contexts: source::named_contexts(&source.build_context, environment)?,
        build_args: build_args(&source.build_arg, environment),
        target: source.target.clone().filter(|target| !target.is_empty()),
        platform: source.platform.as_deref().filter(|p| !p.is_empty()).map(platform).transpose()?,
        labels: labels(&steps.label),
        annotations: BTreeMap::new(),
        names: Vec::new(),
        pull: steps.pull,
        offline: false,
        no_cache: steps.no_cache,
        explain: Explain::No,
        network: network(steps.network.as_deref())?,
        add_hosts: add_hosts(&steps.add_host)?,
        shm_size_bytes: steps.shm_size.as_deref().map(shm_size).transpose()?,
        ulimits: steps.ulimit.iter().map(|text| parse_ulimit(text)).collect::<Result<_, _>>()?,
        secrets,
        ssh: lend::ssh(&steps.ssh, environment)?,
        allow: entitlements(&steps.allow)?,
        volume_limit_bytes: volume_limit(steps.volume_backup_limit.as_deref(), environment)?,
        compression: Compression::default(),
        format: None,
        epoch: EpochChoice::Now,
        rewrite_timestamp: false,
        single_layer: false,
        base_layouts: Vec::new(),
        ignore_paths: Vec::new(),
        jobs: cpus,
        compression_threads: cpus,
    })
}

/// Reads `--volume-backup-limit`, or its variable, which the executor's users have.
fn volume_limit(option: Option<&str>, environment: &Environment) -> Result<u64, ValueError> {
    let variable = environment.set_var("KILN_VOLUME_BACKUP_LIMIT");
    match (option, variable) {
        (Some(text), _) => parse_size_bytes("--volume-backup-limit", text),
        (None, Some(text)) => parse_size_bytes("KILN_VOLUME_BACKUP_LIMIT", text),
        (None, None) => Ok(DEFAULT_VOLUME_LIMIT_BYTES),
    }
}

/// Reads `--build-arg`: without a value it is the environment's, and left out where that has none.
pub fn build_args(texts: &[String], environment: &Environment) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) => {
                args.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Some(value) = environment.var(text) {
                    args.insert(text.clone(), value.to_owned());
                }
            }
        }
    }
    args
}

/// Reads `--label`: without a value it is empty.
pub fn labels(texts: &[String]) -> BTreeMap<String, String> {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    texts.iter().map(split).collect()
}

/// Reads a single platform.
pub fn platform(text: &str) -> Result<Platform, RequestError> {
    if text.contains(',') {
        return Err(RequestError::Platforms { value: text.to_owned() });
    }
    Ok(text.parse()?)
}

fn network(text: Option<&str>) -> Result<NetworkMode, ValueError> {
    match text {
        None | Some("default" | "") => Ok(NetworkMode::Default),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => Err(ValueError::new("--network", other, "expected default, host or none")),
    }
}

fn add_hosts(texts: &[String]) -> Result<Vec<(String, String)>, ValueError> {
    let entry = |text: &String| parse_add_host(text).map(|(name, address)| (name, address.to_string()));
    texts.iter().map(entry).collect()
}

fn shm_size(text: &str) -> Result<u64, ValueError> {
    match parse_size_bytes("--shm-size", text)? {
        0 => Err(ValueError::new("--shm-size", text, "expected more than 0")),
        bytes => Ok(bytes),
    }
}

fn entitlements(texts: &[String]) -> Result<BTreeSet<Entitlement>, ValueError> {
    let one = |text: &String| match text.as_str() {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        other => Err(ValueError::new(
            "--allow",
            other,
            "expected network.host or security.insecure; kiln knows no other entitlement",
        )),
    };
    texts.iter().map(one).collect()
}

/// Puts the manifest's annotations together: kiln's own of the commit, then the outputs', then the user's.
fn annotations(
    texts: &[String],
    of_outputs: &BTreeMap<String, String>,
    commit: Option<&Commit>,
) -> Result<BTreeMap<String, String>, ValueError> {
    let mut annotations = BTreeMap::new();
    if let Some(commit) = commit {
        let revision = if commit.dirty { format!("{}-dirty", commit.id) } else { commit.id.clone() };
        annotations.insert(annotation::REVISION.to_owned(), revision);
        if let Some(source) = &commit.source {
            annotations.insert(annotation::SOURCE.to_owned(), source.clone());
        }
    }
    annotations.extend(of_outputs.clone());
    for text in texts {
        let (key, value) = key_value("--annotation", text)?;
        // docker's scopes; a single image has no index to put anything on.
        let name = match key.split_once(':') {
            Some(("manifest", name)) if !name.is_empty() => name,
            Some(("index" | "index-descriptor" | "manifest-descriptor", _)) => {
                return Err(ValueError::new(
                    "--annotation",
                    text,
                    "kiln puts annotations on the manifest only: leave the prefix out, or use `manifest:`",
                ));
            }
            _ => key,
        };
        annotations.insert(name.to_owned(), value.to_owned());
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests;
