//! From kaniko's flags to the same [`Invocation`] that `kiln build` has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::args::{ExecutorArgs, OutputFlags};
use super::registry::{insecure_cache, registry_config, retries};
use super::results::Results;
use super::{cache, context};
use crate::build::{ContextSource, DockerfileSource, EpochChoice, Request};
use crate::cli::args::{ProgressArg, SourceArgs, StepArgs};
use crate::cli::environment::Environment;
use crate::cli::request::{
    Invocation, Reports, RequestError, SandboxRules, base_request, epoch_of_environment, git_server, platform,
};
use crate::cli::values::{self, ValueError, key_value};
use crate::oci::{ManifestFormat, Reference};
use crate::output::{Destination, OutputSpec, PushOptions};
use crate::sandbox::{Isolation, SandboxError};

/// A build in kaniko's terms.
#[derive(Debug)]
pub(super) struct Execution {
    /// The build.
    pub invocation: Invocation,
    /// The directory inside a context that has to be unpacked first.
    pub sub_path: Option<PathBuf>,
    /// Further stages that are built first and go nowhere.
    pub also: Vec<String>,
    /// What later jobs read.
    pub results: Results,
}

/// Flags that cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// A value that the shared options refuse too.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Nowhere to put the image.
    #[error("you must provide --destination, or use --no-push")]
    NoDestination,
    /// A cache, and nowhere to put it.
    #[error("`--cache` without a destination needs `--cache-repo`")]
    NoCacheRepository,
    /// An object store's credentials are missing or of no use.
    #[error("no credentials for `{what}`: {reason}")]
    Credentials {
        /// The context, or the file they were to come from.
        what: String,
        /// What is wrong.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
}

impl From<ValueError> for ExecutorError {
    fn from(error: ValueError) -> Self {
        Self::Request(error.into())
    }
}

impl From<SandboxError> for ExecutorError {
    fn from(error: SandboxError) -> Self {
        Self::Request(error.into())
    }
}

impl ExecutorError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Request(error) => error.hint(),
            Self::NoDestination => None,
            Self::Credentials { hint, .. } => Some(hint),
            Self::NoCacheRepository => {
                Some("name a repository, or a directory: `--cache-repo oci:/cache/layers`")
            }
        }
    }
}

/// Reads everything the executor was given.
pub(super) fn execution(args: &ExecutorArgs, environment: &Environment) -> Result<Execution, ExecutorError> {
    let mut warnings = Vec::new();
    let place = context::context(args, environment)?;
    let mut request = request(args, &place.source, environment, &mut warnings)?;
    request.names = destinations(&args.destination)?;
    let no_push = args.output.no_push.unwrap_or_else(|| environment_bool(environment, "KANIKO_NO_PUSH"));
    if request.names.is_empty() && !no_push {
        return Err(ExecutorError::NoDestination);
    }
    shape_image(&mut request, args, environment)?;
    let mut registry = registry_config(&args.registry, environment)?;
    retries(&mut registry, &args.registry);
    if args.cache.cache == Some(true) {
        let named = args.cache.cache_repo.as_deref().and_then(|text| text.parse().ok());
        for repository in named.iter().chain(&request.names) {
            insecure_cache(&mut registry, &args.registry, repository);
        }
    }
    let isolation = match environment.set_var("KILN_ISOLATION") {
        Some(text) => text.parse()?,
        None => Isolation::Auto,
    };
    let mut git_environment = environment.for_git();
    if place.git_skips_tls {
        git_environment.push(("GIT_SSL_NO_VERIFY".into(), "true".into()));
    }
    let invocation = Invocation {
        ssh_agent: environment.ssh_agent(),
        own_paths: environment.own_paths.clone(),
        git_environment,
        outputs: outputs(&args.output, no_push, environment),
        caches: cache::cache_setup(&args.cache, &request.names, environment)?,
        registry,
        isolation,
        sandbox: SandboxRules {
            allow_visible_credentials: args.allow_visible_credentials == Some(true),
            hardened: args.hardened == Some(true),
        },
        verify: false,
        reports: Reports::default(),
        // The executor has a log of its own.
        progress: ProgressArg::Plain,
        debug: false,
        warnings,
        request,
    };
    let also = args.target.iter().skip(1).filter(|target| !target.is_empty()).cloned().collect();
    let results = Results::of(&args.output, environment);
    Ok(Execution { invocation, sub_path: place.sub_path, also, results })
}

/// Returns kiln's root directory: kaniko's own directory where one is named.
pub(super) fn root(args: &ExecutorArgs, environment: &Environment) -> PathBuf {
    let named = args.kaniko_dir.clone().or_else(|| environment.set_var("KANIKO_DIR").map(PathBuf::from));
    environment.store_root(named.filter(|_| environment.set_var("KILN_ROOT").is_none()).as_ref())
}

fn request(
    args: &ExecutorArgs,
    context: &ContextSource,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Request, ExecutorError> {
    let source = SourceArgs {
        build_arg: args.build_arg.clone(),
        target: args.target.first().cloned(),
        ..SourceArgs::default()
    };
    let steps = StepArgs { label: args.label.clone(), secret: args.secret.clone(), ..StepArgs::default() };
    let mut request = base_request(&source, &steps, environment, &mut std::io::empty(), warnings)?;
    request.context = context.clone();
    request.git_server = git_server(&request.secrets, context, environment);
    request.dockerfile = dockerfile(&args.dockerfile, context, environment);
    if !args.custom_platform.is_empty() {
        request.platform = Some(platform(&args.custom_platform)?);
    }
    for text in &args.annotation {
        let (key, value) = key_value("--annotation", text)?;
        request.annotations.insert(key.to_owned(), value.to_owned());
    }
    request.ignore_paths.clone_from(&args.ignore_path);
    request.base_layouts = cache::base_layouts(&args.cache, environment);
    request.single_layer = args.single_snapshot == Some(true);
    Ok(request)
}

/// Finds the Dockerfile as kaniko does: in the working directory, then in the context.
fn dockerfile(text: &str, context: &ContextSource, environment: &Environment) -> DockerfileSource {
    if crate::cli::request::is_remote(text) {
        return DockerfileSource::Url(text.to_owned());
    }
    let here = environment.directory.join(text);
    if here.is_file() {
        return DockerfileSource::Path(here);
    }
    match context {
        ContextSource::Directory(directory) if text != "Dockerfile" => {
            DockerfileSource::Path(directory.join(text))
        }
        _ if text == "Dockerfile" => DockerfileSource::Default,
        _ => DockerfileSource::Path(text.into()),
    }
}

/// Reads `--destination`: without a tag it is `latest`, as for kaniko.
fn destinations(texts: &[String]) -> Result<Vec<Reference>, RequestError> {
    let mut names: Vec<Reference> = Vec::new();
    for text in texts {
        let name: Reference = text.parse()?;
        let name =
            if name.tag().is_none() && name.digest().is_none() { name.with_tag("latest")? } else { name };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Sets what the image is to be like.
fn shape_image(
    request: &mut Request,
    args: &ExecutorArgs,
    environment: &Environment,
) -> Result<(), ExecutorError> {
    // Only levels above 0 count, as kaniko has it.
    let level = Some(args.output.compression_level).filter(|level| *level > 0);
    let name = Some(args.output.compression.as_str()).filter(|name| !name.is_empty());
    let compression = values::compression(name, level)
        .map_err(|reason| ValueError::new("--compression", &args.output.compression, reason))?;
    request.compression = compression.unwrap_or_default();
    request.format = match args.output.image_format.as_deref() {
        None | Some("") => None,
        Some("docker") => Some(ManifestFormat::Docker),
        Some("oci") => Some(ManifestFormat::Oci),
        Some(other) => {
            return Err(ValueError::new("--image-format", other, "expected docker or oci").into());
        }
    };
    // kaniko's times are those of the build unless it is told otherwise; a commit's is `kiln build`'s default.
    let reproducible = (args.reproducible == Some(true)).then_some(0);
    let given = epoch_of_environment(environment)?.or(reproducible);
    request.epoch = given.map_or(EpochChoice::Now, EpochChoice::Given);
    request.jobs = NonZeroUsize::new(environment.cpus).unwrap_or(NonZeroUsize::MIN);
    Ok(())
}

fn outputs(flags: &OutputFlags, no_push: bool, environment: &Environment) -> Vec<OutputSpec> {
    let mut outputs = Vec::new();
    if let Some(path) = &flags.tar_path {
        let destination = Destination::File(environment.directory.join(path));
        outputs.push(OutputSpec::DockerArchive { destination, names: Vec::new() });
    }
    if let Some(path) = &flags.oci_layout_path {
        outputs.push(OutputSpec::OciDirectory { path: environment.directory.join(path), names: Vec::new() });
    }
    if !no_push {
        outputs.push(OutputSpec::Registry {
            names: Vec::new(),
            options: PushOptions {
                by_digest: false,
                check: flags.skip_push_permission_check != Some(true),
                keep_immutable: flags.push_ignore_immutable_tag_errors == Some(true),
            },
        });
    }
    outputs
}

/// Reads a variable as kaniko reads its booleans: anything Go takes for true.
pub(super) fn environment_bool(environment: &Environment, name: &str) -> bool {
    environment.var(name).and_then(values::parse_bool).unwrap_or(false)
}

/// Reads Go's durations (`336h`, `1h30m`, `-1s`), in seconds.
pub(super) fn parse_duration_seconds(option: &'static str, text: &str) -> Result<f64, ValueError> {
    let fail = || ValueError::new(option, text, "expected a duration such as `336h` or `1h30m`");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let number: f64 = rest[..end].parse().map_err(|_| fail())?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        seconds += number
            * match &rest[end..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(fail()),
            };
        rest = &rest[unit_end..];
    }
    Ok(sign * seconds)
}
