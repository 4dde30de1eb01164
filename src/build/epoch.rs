//! The source epoch: what time it is for a reproducible build.
//!
//! `SOURCE_DATE_EPOCH` may be a number, a context, or a stage that does nothing but fetch one remote source.
//! Where nobody says, it is the time of the commit that the context is made from.

use std::collections::BTreeMap;

use super::error::Problem;
use super::finish::rfc3339;
use super::inputs::Inputs;
use super::offline::refuse_remote;
use super::{ContextSource, EpochChoice, NamedContext, Request, Services};
use crate::context::{SourceKind, classify_source, download};
use crate::dockerfile::{self, InstructionKind, Source};
use crate::plan::{Base, EpochSource, Plan, StageId};

/// Finds the source epoch, in seconds since 1970: what the Dockerfile or its arguments say, else the request.
pub(super) fn find(
    plan: &Plan,
    request: &Request,
    services: &Services,
    inputs: &Inputs,
) -> Result<Option<i64>, Problem> {
    match &plan.source_date_epoch {
        None => Ok(chosen(request, services, inputs)),
        Some(EpochSource::Seconds(seconds)) => Ok(Some(*seconds)),
        Some(EpochSource::MainContext) => Ok(inputs.main().time.or(local_commit(request))),
        Some(EpochSource::Context(name)) => match request.named_contexts.get(name) {
            Some(NamedContext::Files(source)) => services.workbench().time(source, "epoch", request),
            _ => Ok(None),
        },
        Some(EpochSource::Stage(id)) => stage_epoch(plan, *id, services, request),
    }
}

/// Returns what of the epoch is in the keys of caches: an epoch that was asked for as it is, since it is in every
/// layer; of one that is the commit's time only that, for else no layer would outlive a commit.
pub(super) fn for_keys(plan: &Plan, request: &Request, epoch: Option<i64>) -> String {
    match (epoch, request.epoch) {
        (None, _) => "none".to_owned(),
        (Some(seconds), EpochChoice::Commit { otherwise, .. })
            if plan.source_date_epoch.is_none() && otherwise != Some(seconds) =>
        {
            "the commit's time".to_owned()
        }
        (Some(seconds), _) => seconds.to_string(),
    }
}

/// Finds the epoch that the request chose; says so where nobody asked for one.
fn chosen(request: &Request, services: &Services, inputs: &Inputs) -> Option<i64> {
    // An empty build argument means none.
    let refused = request.build_args.get("SOURCE_DATE_EPOCH").is_some_and(String::is_empty);
    let (local, otherwise) = match request.epoch {
        EpochChoice::Given(seconds) if !refused => return Some(seconds),
        EpochChoice::Given(_) | EpochChoice::Now => return None,
        EpochChoice::Commit { otherwise, .. } if refused => return otherwise,
        EpochChoice::Commit { local, otherwise } => (local, otherwise),
    };
    // Only a checkout has a commit; the time of a download or of an archive's newest file is nobody's choice.
    let fetched = inputs.main().commit.as_ref().and(inputs.main().time);
    let commit = fetched.or(local);
    if let Some(seconds) = commit {
        let time = rfc3339(seconds);
        services.reporter.info(format!(
            "source epoch: {time}, the time of the commit; newer times become it (`--timestamp now` keeps them)"
        ));
    }
    commit.or(otherwise)
}

/// Returns the time of the commit that a context directory is a work tree of.
fn local_commit(request: &Request) -> Option<i64> {
    match (&request.context, request.epoch) {
        (ContextSource::Directory(_), EpochChoice::Commit { local, .. }) => local,
        _ => None,
    }
}

/// Finds the time of the only remote source of a stage that has nothing else.
fn stage_epoch(
    plan: &Plan,
    id: StageId,
    services: &Services,
    request: &Request,
) -> Result<Option<i64>, Problem> {
    let unfit = |reason: &str| Problem::Instruction {
        message: format!("SOURCE_DATE_EPOCH stage does not meet source-only requirements: {reason}"),
    };
    let stage = &plan.stages[id.0];
    if stage.base != Base::Scratch {
        return Err(unfit("must use FROM scratch"));
    }
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    let mut remote = Vec::new();
    for step in &stage.steps {
        match &step.kind {
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    let name = &declaration.name;
                    let given = plan.build_args.get(name).or(plan.global_args.get(name)).cloned();
                    let value = match (given, &declaration.default) {
                        (Some(given), _) => Some(given),
                        (None, Some(default)) => {
                            Some(dockerfile::expand(default, &variables, plan.escape)?.text)
                        }
                        (None, None) => None,
                    };
                    if let Some(value) = value {
                        variables.insert(name.clone(), value);
                    }
                }
            }
            InstructionKind::Add(add) => {
                for source in &add.sources {
                    match source {
                        Source::Path(path) => {
                            remote.push(dockerfile::expand(path, &variables, plan.escape)?.text);
                        }
                        Source::Heredoc(_) => return Err(unfit("exactly one remote ADD")),
                    }
                }
            }
            other => return Err(unfit(&format!("unsupported {} instruction", other.name()))),
        }
    }
    let [source] = &remote[..] else { return Err(unfit("exactly one remote ADD")) };
    let into = services.work_dir.join("contexts").join("epoch-stage");
    match classify_source(source) {
        SourceKind::Path => Err(unfit("exactly one remote ADD")),
        SourceKind::Http => {
            refuse_remote(request, source)?;
            let file = download(&*services.fetch, source, &[], &into, None)?;
            if file.last_modified.is_some() {
                return Ok(file.last_modified);
            }
            services.workbench().time(&ContextSource::TarFile(file.path), "epoch-archive", request)
        }
        SourceKind::Git => {
            let context = ContextSource::Git(source.clone());
            services.workbench().time(&context, "epoch-git", request)
        }
    }
}
