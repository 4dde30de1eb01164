//! Syntax tree to build graph: stages, ARG scopes, platforms, targets, pruning.
//!
//! Pure. What an image is, whether it exists, and what its `ONBUILD` triggers add, the engine learns later;
//! [`Plan::resolve_from`] answers for those triggers too.

mod contexts;
mod epoch;
mod globals;
mod graph;
pub mod lint;
mod platform;
mod remote;
mod stages;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{Dockerfile, Instruction, ParseError, Span, quote};
use crate::oci::{Platform, ReferenceError};

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

impl From<ParseError> for PlanError {
    fn from(error: ParseError) -> Self {
        Self { message: error.message, span: error.span, hint: error.hint }
    }
}

impl From<ReferenceError> for PlanError {
    fn from(ReferenceError { text, reason }: ReferenceError) -> Self {
        let message = format!("failed to parse stage name {}: invalid reference format", quote::go(&text));
        // The one reason that BuildKit has a text for.
        if reason.ends_with("must be lowercase") {
            return Self::new(format!("{message}: {reason}"), None);
        }
        Self { hint: Some(reason), ..Self::new(message, None) }
    }
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
    /// The build arguments as given, but for `SOURCE_DATE_EPOCH`: see [`Plan::set_source_date_epoch`].
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
    /// Its name, or `stage-N` counted from 0: for showing.
    pub display: String,
    /// What it starts from.
    pub base: Base,
    /// The platform it is built for: that of its base stage; the target platform on `scratch`, whatever
    /// `--platform` says; else `--platform`, else the target platform.
    pub platform: Platform,
    /// Whether `--platform` decided the platform.
    pub explicit_platform: bool,
    /// The lines of its `FROM`.
    pub from_span: Span,
    /// Its instructions after `FROM`.
    pub steps: Vec<Instruction>,
    /// The stages it needs, in order: by `FROM`, `--from` and mounts, also in the `ONBUILD` triggers of the
    /// stage it is `FROM`. Triggers of an image are not known here.
    pub depends_on: Vec<StageId>,
    /// What its steps read from by `--from` and mounts, as in `depends_on`.
    pub reads: Vec<(FromRef, Span)>,
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
pub fn plan(dockerfile: &Dockerfile, request: &PlanRequest) -> Result<Plan, PlanError> {
    plan_scope(dockerfile, request, Reach::Target)
}

/// Which stages must be sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those the target needs.
    Target,
    /// All of them.
    All,
}

fn plan_scope(dockerfile: &Dockerfile, request: &PlanRequest, reach: Reach) -> Result<Plan, PlanError> {
    let escape = dockerfile.directives.escape;
    let parts = stages::Parts::of(dockerfile);
    let mut globals = globals::Globals::defaults(request, parts.target_name(request));
    globals.evaluate(&parts.globals, &request.build_args, escape)?;
    let epoch = epoch::find(&parts, request, &globals, escape)?;
    let stages = stages::build(&parts, request, &globals, escape)?;
    let target = stages::target(&stages, request)?;
    let mut plan = Plan {
        target,
        reachable: Vec::new(),
        unused_build_args: globals::unused(dockerfile, &request.build_args),
        global_args: globals.into_values(),
        build_args: request.build_args.clone(),
        escape,
        source_date_epoch: epoch.clone(),
        contexts: request.contexts.clone(),
        stages,
    };
    match epoch {
        Some(EpochSource::Seconds(seconds)) => plan.set_source_date_epoch(Some(seconds)),
        None if request.build_args.contains_key("SOURCE_DATE_EPOCH") => plan.set_source_date_epoch(None),
        _ => {}
    }
    graph::connect(&mut plan, reach)?;
    Ok(plan)
}

impl Plan {
    /// Resolves `--from=text` as written in stage `current`, also in a trigger that came with its base.
    ///
    /// Stages come first, by name (in any case; of several, the last in the file) or by index (any integer
    /// is one), then named contexts, then images.
    pub fn resolve_from(&self, text: &str, current: StageId) -> Result<FromRef, PlanError> {
        graph::resolve_copy(self, text, current)
    }

    /// Resolves `from=text` of a mount in stage `current`; `target` is only for the message. Mounts know no
    /// stage indexes.
    pub fn resolve_mount_from(
        &self,
        text: &str,
        target: &str,
        current: StageId,
    ) -> Result<FromRef, PlanError> {
        graph::resolve_mount(self, text, target, current)
    }

    /// Tells which stages `stage` needs, directly or not, itself included: every stage after those it
    /// depends on.
    pub fn closure(&self, stage: StageId) -> Vec<StageId> {
        graph::closure(&self.stages, &[stage])
    }

    /// Puts the resolved source epoch where stages' `ARG SOURCE_DATE_EPOCH` will find it; `None` takes the
    /// unresolved value away. To be called before any step if [`Plan::source_date_epoch`] is not in seconds.
    pub fn set_source_date_epoch(&mut self, seconds: Option<i64>) {
        for arguments in [&mut self.build_args, &mut self.global_args] {
            if let Some(value) = arguments.get_mut(epoch::NAME) {
                match seconds {
                    Some(seconds) => *value = seconds.to_string(),
                    None => {
                        arguments.remove(epoch::NAME);
                    }
                }
            }
        }
    }
}

impl PlanError {
    fn new(message: impl Into<String>, span: Option<Span>) -> Self {
        Self { message: message.into(), span, hint: None }
    }
}
