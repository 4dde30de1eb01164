//! `SOURCE_DATE_EPOCH`: what its value names.

use super::globals::Globals;
use super::stages::{Part, Parts};
use super::{EpochSource, PlanError, PlanRequest, StageId, contexts, remote};
use crate::dockerfile::{Add, InstructionKind, Source};

/// The argument's name.
pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Finds where the epoch comes from: the build argument, else a global `ARG` with a value. An empty value
/// means no epoch.
pub(super) fn find(
    parts: &Parts<'_>,
    request: &PlanRequest,
    globals: &Globals,
    escape: char,
) -> Result<Option<EpochSource>, PlanError> {
    let global = crate::dockerfile::Variables::get(globals, NAME);
    let value = match request.build_args.get(NAME).map(String::as_str).or(global) {
        None | Some("") => return Ok(None),
        Some(value) => value,
    };
    if let Ok(seconds) = value.parse() {
        return Ok(Some(EpochSource::Seconds(seconds)));
    }
    if value == "context" {
        return Ok(Some(EpochSource::MainContext));
    }
    if let Some(name) = contexts::find(&request.contexts, value, &request.target_platform) {
        return Ok(Some(EpochSource::Context(name)));
    }
    let named = |part: &Part<'_>| part.from.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(value));
    let Some(index) = parts.stages.iter().position(named) else {
        return Err(PlanError {
            message: format!("invalid {NAME}: {value}"),
            span: None,
            hint: Some("expected seconds since 1970, `context`, a named context or a stage".to_owned()),
        });
    };
    let part = &parts.stages[index];
    check_source_only(part, globals.without(NAME), request, escape)
        .map_err(|message| PlanError::new(message, Some(part.span())))?;
    Ok(Some(EpochSource::Stage(StageId(index))))
}

/// Checks that a stage is nothing but one remote source: `FROM scratch`, `ARG`s, one `ADD`.
fn check_source_only(
    part: &Part<'_>,
    mut scope: Globals,
    request: &PlanRequest,
    escape: char,
) -> Result<(), String> {
    if scope.expand(&part.from.image, escape)?.text != "scratch" {
        return Err(format!("{NAME} stage must use FROM scratch"));
    }
    let exactly_one = format!("{NAME} stage must contain exactly one remote ADD");
    let mut found = false;
    for step in part.steps {
        match &step.kind {
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    let value = match (request.build_args.get(&declaration.name), &declaration.default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => scope.expand(default, escape)?.text,
                        (None, None) => continue,
                    };
                    scope.set(&declaration.name, value);
                }
            }
            InstructionKind::Add(_) if found => return Err(exactly_one),
            InstructionKind::Add(add) => {
                check_remote(add, &scope, escape)?;
                found = true;
            }
            _ => {
                return Err(format!(
                    "{NAME} stage does not meet source-only requirements: unsupported {} instruction",
                    step.keyword
                ));
            }
        }
    }
    if found { Ok(()) } else { Err(exactly_one) }
}

fn check_remote(add: &Add, scope: &Globals, escape: char) -> Result<(), String> {
    let [Source::Path(source)] = add.sources.as_slice() else {
        return Err(format!("{NAME} stage must contain exactly one remote ADD source"));
    };
    let source = scope.expand(source, escape)?.text;
    if remote::is_remote(&source) {
        return Ok(());
    }
    Err(format!("{NAME} stage source must be a single HTTP(S) or Git ADD"))
}
