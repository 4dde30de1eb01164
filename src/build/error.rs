//! Why a build failed, with the place in the Dockerfile.

use std::path::PathBuf;
use std::sync::Arc;

use super::copy::CopyError;
use super::offline::Missing;
use super::user::UserError;
use crate::blob::BlobError;
use crate::context::ContextError;
use crate::dockerfile::{Dockerfile, ExpandError, ParseError, Span};
use crate::layer::LayerError;
use crate::oci::Digest;
use crate::oci::{PlatformError, ReferenceError};
use crate::output::OutputError;
use crate::plan::PlanError;
use crate::registry::RegistryError;
use crate::rootfs::RootfsError;
use crate::sandbox::SandboxError;

/// A failed build.
#[derive(Debug)]
pub struct BuildError {
    /// What went wrong.
    pub problem: Problem,
    /// Where in the Dockerfile.
    pub place: Option<Place>,
}

/// Lines of a Dockerfile to show beside an error.
#[derive(Debug, Clone)]
pub struct Place {
    /// The Dockerfile's name.
    pub name: String,
    /// Its whole text.
    pub source: Arc<str>,
    /// The lines meant.
    pub span: Span,
}

/// What can go wrong in a build.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The Dockerfile cannot be parsed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The Dockerfile cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// There is no Dockerfile.
    #[error("failed to read dockerfile: open {name}: no such file or directory")]
    NoDockerfile {
        /// Its name, or its path.
        name: String,
    },
    /// A variable expansion failed.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An instruction is wrong in itself; the text is BuildKit's.
    #[error("{message}")]
    Instruction {
        /// What is wrong.
        message: String,
    },
    /// Something the Dockerfile or the command line asks for is not in kiln.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// A lint rule with `error=true` was violated.
    #[error("{message}")]
    Lint {
        /// Which rules.
        message: String,
    },
    /// A step's process failed.
    #[error("process {command:?} did not complete successfully: {ending}")]
    Process {
        /// The command line, joined by blanks.
        command: String,
        /// `exit code: N` or the signal.
        ending: String,
        /// The exit code, 128 + N for a signal.
        code: i32,
        /// The last lines it wrote.
        last_output: Vec<String>,
        /// The options that would have brought what its mounts ask for and may go without.
        absent: Vec<String>,
    },
    /// A step's process could not be started.
    #[error("process {command:?} did not complete successfully: exit code: {code}: {reason}")]
    NotStarted {
        /// The command line, joined by blanks.
        command: String,
        /// The exit code a shell has for that.
        code: i32,
        /// What was in the way.
        reason: SandboxError,
    },
    /// A step needs a secret that was not given.
    #[error("secret {id}: not found")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// A secret for git without a host, where nothing says whose it is.
    #[error(
        "the secret `{id}` is for one server, and this build does not say for which: nothing is shown to `{host}`"
    )]
    GitSecret {
        /// Its id.
        id: &'static str,
        /// Whom it was about to be shown to.
        host: String,
    },
    /// A step needs an agent that was not given.
    #[error("no SSH key {id:?} forwarded from the client")]
    NoAgent {
        /// Its id.
        id: String,
    },
    /// A copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A user or group does not exist.
    #[error(transparent)]
    User(#[from] UserError),
    /// A platform is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A context, download or repository cannot be had.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A build without a network lacks something.
    #[error("this build is offline and lacks {}", list(missing))]
    Offline {
        /// What.
        missing: Vec<Missing>,
    },
    /// A build without a network was asked for something elsewhere.
    #[error("this build is offline: `{address}` cannot be fetched")]
    OfflineSource {
        /// Its address.
        address: String,
    },
    /// A registry refused or failed.
    #[error("failed to resolve source metadata for `{reference}`")]
    BaseImage {
        /// The image.
        reference: String,
        /// Why.
        source: RegistryError,
    },
    /// An instruction wants what only the command line may allow.
    #[error("{entitlement} is not allowed")]
    NotAllowed {
        /// Its name for `--allow`.
        entitlement: &'static str,
    },
    /// An image's config is not JSON of that shape.
    #[error("the config of `{reference}` cannot be read")]
    Config {
        /// The image.
        reference: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The registry failed outside of a base image.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A layer could not be written or read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The same, known from another thread.
    #[error("a layer of this image could not be written")]
    SharedLayer(#[source] Arc<LayerError>),
    /// A stage's files could not be handled.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A step could not be started or cleaned up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// An output failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file of the build's own could not be handled.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The gate of the build did not let the image pass.
    #[error("the image was refused before any output had it")]
    Refused,
    /// The user stopped the build.
    #[error("the build was cancelled")]
    Cancelled,
    /// Something that several stages need failed.
    #[error(transparent)]
    Shared(Arc<Problem>),
    /// Another stage failed first; its error is the build's.
    #[error("another stage failed")]
    Elsewhere,
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<ReferenceError> for Problem {
    /// An image's name is no reference: where the plan could not see it, in a trigger of a base image.
    fn from(error: ReferenceError) -> Self {
        Self::Plan(error.into())
    }
}

/// What to do about credentials that steps can read.
const VISIBLE_HINT: &str = "give registry credentials by the variable DOCKER_AUTH_CONFIG (from a Kubernetes secret, say) or in a \
    copy on an emptyDir, secrets by `--secret id=ID,env=NAME`; set `automountServiceAccountToken: false` in pods that need no \
    token; let kiln make namespaces (`kiln doctor`); or accept it with `--allow-visible-credentials`";

impl Problem {
    /// Puts the problem at `span` of `dockerfile`.
    pub(super) fn at(self, dockerfile: &Dockerfile, span: Span) -> BuildError {
        let place = Place { name: dockerfile.name.clone(), source: dockerfile.source.clone(), span };
        BuildError { problem: self, place: Some(place) }
    }

    /// Returns the layer whose content is at fault, if one is: where it came from a cache, its step can run instead.
    pub(super) fn broken_layer(&self) -> Option<&Digest> {
        match self {
            Self::Shared(problem) => problem.broken_layer(),
            Self::Rootfs(
                RootfsError::Read { digest, .. }
                | RootfsError::DiffIdMismatch { digest, .. }
                | RootfsError::DanglingLink { digest, .. },
            ) => Some(digest),
            Self::Rootfs(RootfsError::Unpack { digest, source }) => {
                source.is_content_fault().then_some(digest)
            }
            Self::SharedLayer(error) => match &**error {
                LayerError::OfCache { digest, source } => source.is_content_fault().then_some(digest),
                _ => None,
            },
            _ => None,
        }
    }

    /// Says what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Shared(problem) => problem.hint(),
            Self::Parse(e) => e.hint.clone(),
            Self::Plan(e) => e.hint.clone(),
            Self::Unsupported { hint, .. } => Some(hint.clone()),
            Self::Copy(CopyError::NotFound { ignored: true, .. }) => {
                Some("an ignore file hides it: look into `.dockerignore`".to_owned())
            }
            Self::Copy(CopyError::NothingThere { .. }) => Some(
                "a wildcard may match nothing only where another source is found in the same directory, as with BuildKit".to_owned(),
            ),
            Self::Copy(CopyError::NotFound { .. }) => Some(
                "paths of COPY and ADD are relative to the build context, not to the Dockerfile".to_owned(),
            ),
            Self::NotStarted { code: 127, .. } => Some(
                "there is no such program in the image, or its interpreter is missing; `FROM scratch` has not even a shell".to_owned(),
            ),
            Self::Process { code, absent, .. } => process_hint(*code, absent),
            Self::User(UserError::NoImage) => Some(
                "`--link`, and a copy that is the first step on `scratch`, see no `/etc/passwd`: give numbers"
                    .to_owned(),
            ),
            Self::NoSecret { id } => Some(format!("the step requires it: give it with {}", secret_options(id))),
            Self::GitSecret { id, host } => Some(format!(
                "if it is `{host}`'s, name it for that host: `--secret id={id}.{host},…`"
            )),
            Self::NotAllowed { entitlement } => Some(format!("allow it with `--allow {entitlement}`")),
            Self::NoAgent { id } => {
                Some(format!("the step requires one: give it with `{}`", agent_option(id)))
            }
            Self::Sandbox(SandboxError::NoLaunch { .. } | SandboxError::IsolationUnavailable { .. }) => {
                Some("`kiln doctor` tells what this machine allows, and what to change".to_owned())
            }
            Self::Sandbox(SandboxError::Volume { .. }) => Some(
                "mount the volume elsewhere; where only its size is in the way, allow more by `KILN_VOLUME_BACKUP_LIMIT=10g` \
                 (docs/isolation.md)"
                    .to_owned(),
            ),
            Self::Rootfs(RootfsError::PutAside { .. }) => Some(
                "have the command copy what it needs by name, or mount the volume elsewhere (docs/isolation.md)"
                    .to_owned(),
            ),
            Self::Sandbox(SandboxError::VisibleCredentials { .. }) => Some(VISIBLE_HINT.to_owned()),
            Self::Sandbox(SandboxError::CredentialsLost { .. } | SandboxError::KeeperGone { .. }) => Some(
                "a step did that, or whoever may end processes here; go on in a new container, with new credentials if the \
                 step was not yours"
                    .to_owned(),
            ),
            Self::Sandbox(SandboxError::Limited { .. }) => Some(
                "have the command limit its own processes only (`ulimit`), or use `--ulimit`".to_owned(),
            ),
            Self::Sandbox(SandboxError::Device { .. }) => Some(
                "steps in place have the container's `/dev`: leave its devices out of what the command changes".to_owned(),
            ),
            Self::Sandbox(SandboxError::OwnFiles { .. } | SandboxError::VolumesLost { .. }) => Some(
                "steps in place run beside kiln, and the container's own files are below its directory: leave `/kiln` (elsewhere \
                 the directory of `--root`) and `/busybox` out of what the command changes (`find / -xdev -not -path '/kiln/*'`)"
                    .to_owned(),
            ),
            Self::Rootfs(RootfsError::Foreign { .. }) => Some(
                "steps in place run beside the files of other stages: leave the directory of kiln's store out of what \
                 a command changes (`find / -xdev -not -path …`), or run kiln where it can make namespaces"
                    .to_owned(),
            ),
            Self::Offline { missing } => Some(super::offline::hint(missing)),
            Self::OfflineSource { .. } => Some(
                "fetch it first, and give the build the directory or file; or leave `--offline` out"
                    .to_owned(),
            ),
            Self::BaseImage { source, .. } | Self::Registry(source) => source.hint(),
            Self::Context(e) => e.hint(),
            Self::Output(e) => e.hint(),
            Self::Blob(e) => e.hint().map(str::to_owned),
            Self::Layer(LayerError::Blob(e)) => e.hint().map(str::to_owned),
            Self::NoDockerfile { .. } => {
                Some("name it with `-f`, or run kiln in the directory that has it".to_owned())
            }
            _ => None,
        }
    }
}

fn process_hint(code: i32, absent: &[String]) -> Option<String> {
    let of_code = match code {
        127 => Some("the shell did not find the command in the image".to_owned()),
        137 => Some("the process was killed: most often memory ran out".to_owned()),
        _ => None,
    };
    let of_mounts = (!absent.is_empty())
        .then(|| format!("it mounts what this build was not given: {}", absent.join("; ")));
    let hints: Vec<String> = of_code.into_iter().chain(of_mounts).collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

/// Writes the options that give a secret.
pub(super) fn secret_options(id: &str) -> String {
    format!("`--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`")
}

/// Writes the option that gives an agent.
pub(super) fn agent_option(id: &str) -> String {
    if id == "default" { "--ssh default".to_owned() } else { format!("--ssh {id}=SOCKET_OR_KEY") }
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

impl From<Problem> for BuildError {
    fn from(problem: Problem) -> Self {
        Self { problem, place: None }
    }
}
