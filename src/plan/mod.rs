//! Syntax tree to build graph: stages, ARG scopes, platforms, targets, pruning.
//!
//! Pure. What an image is, whether it exists, and what its `ONBUILD` triggers add, the engine learns later;
//! [`Plan::resolve_from`] answers for those triggers too.

pub mod lint;

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{Dockerfile, Instruction, Span};
use crate::oci::Platform;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// `--build-arg`
    pub build_args: BTreeMap<String, String>,
    /// `--target`
    pub target: Option<String>,
    /// The platform kiln runs on.
    pub build_platform: Platform,
    /// The platform to build for.
    pub target_platform: Platform,
    /// The names of `--build-context`, as given (`name`, `name::linux/amd64`).
    pub contexts: BTreeSet<String>,
}

/// A Dockerfile that cannot be planned; the text is BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// The message.
    pub message: String,
    /// The lines it is about.
    pub span: Option<Span>,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

/// Identifies a stage: its position in the Dockerfile, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageId(pub usize);

/// The build graph of a Dockerfile.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All stages, in order, reachable or not: `stages[id.0].id == id`.
    pub stages: Vec<Stage>,
    /// The stage to build.
    pub target: StageId,
    /// The evaluated global scope with the platform arguments: what a stage's bare `ARG x` may see.
    pub global_args: BTreeMap<String, String>,
    /// The build arguments as given.
    pub build_args: BTreeMap<String, String>,
    /// The stages the target needs, every stage after those it depends on.
    pub reachable: Vec<StageId>,
    /// Build arguments that no `ARG` of the file declares and that mean nothing by themselves.
    pub unused_build_args: Vec<String>,
    /// The escape character.
    pub escape: char,
    /// Where the source epoch comes from, if the file or the build arguments say so.
    pub source_date_epoch: Option<EpochSource>,
    /// The names of the request's contexts.
    pub contexts: BTreeSet<String>,
}

/// What `SOURCE_DATE_EPOCH` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// Seconds since 1970.
    Seconds(i64),
    /// `context`: the time of the main context.
    MainContext,
    /// The time of the named context.
    Context(String),
    /// The time of the only remote source of a source-only stage.
    Stage(StageId),
}

/// A stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Which.
    pub id: StageId,
    /// Its name, lower-cased.
    pub name: Option<String>,
    /// Its name, or its index as text: for showing.
    pub display: String,
    /// What it starts from.
    pub base: Base,
    /// The platform it is built for.
    pub platform: Platform,
    /// Whether `--platform` says so.
    pub explicit_platform: bool,
    /// The lines of its `FROM`.
    pub from_span: Span,
    /// Its instructions after `FROM`.
    pub steps: Vec<Instruction>,
    /// The stages it needs, by `FROM`, `--from` and mounts.
    pub depends_on: Vec<StageId>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(StageId),
    /// An image.
    Image {
        /// The reference, expanded.
        text: String,
    },
    /// A named context.
    Context {
        /// Its name in [`PlanRequest::contexts`].
        name: String,
        /// Whether it stands for the whole stage: then the stage's steps are empty.
        replaces_stage: bool,
    },
}

/// What `--from=` of a `COPY` or `from=` of a mount means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromRef {
    /// A stage.
    Stage(StageId),
    /// A named context, by its name in [`PlanRequest::contexts`].
    Context(String),
    /// Nothing: `scratch`.
    Scratch,
    /// An image reference.
    Image(String),
}

/// Plans the build of a Dockerfile.
pub fn plan(_dockerfile: &Dockerfile, _request: &PlanRequest) -> Result<Plan, PlanError> {
    todo!()
}

impl Plan {
    /// Resolves `--from=text` as written in stage `current`, also in a trigger that came with its base.
    pub fn resolve_from(&self, _text: &str, _current: StageId) -> Result<FromRef, PlanError> {
        todo!()
    }
}
