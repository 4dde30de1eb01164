//! Rules about `FROM`.

use std::collections::BTreeMap;

use super::{LintError, Sink, rules};
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{Expanded, Variables, quote};
use crate::oci::Reference;
use crate::plan::globals::Globals;
use crate::plan::stages::{self, Evaluated, Part, Parts};
use crate::plan::{PlanRequest, epoch, platform};

/// Looks at the global scope and every `FROM`; the error is the first that a build would meet.
pub(super) fn check(
    parts: &Parts<'_>,
    request: &PlanRequest,
    escape: char,
    sink: &mut Sink,
) -> Result<(), LintError> {
    let mut globals = Globals::defaults(request, parts.target_name(request));
    default_values(parts, &globals, escape, sink);
    globals.evaluate(&parts.globals, &request.build_args, escape)?;
    epoch::find(parts, request, &globals, escape)?;
    for part in &parts.stages {
        undefined_in_base(part, &globals, escape, sink);
        let Evaluated { platform, .. } = stages::evaluate(part, &globals, escape)?;
        if let Some((expanded, parsed)) = platform {
            undefined(part, &expanded, &globals, sink);
            redundant_platform(part, &expanded, &globals, sink);
            constant_platform(part, &expanded, sink);
            parsed?;
        }
    }
    Ok(())
}

/// `InvalidDefaultArgInFrom`: would every base have a name if no build arguments were given?
fn default_values(parts: &Parts<'_>, defaults: &Globals, escape: char, sink: &mut Sink) {
    let mut globals = defaults.clone();
    if globals.evaluate(&parts.globals, &BTreeMap::new(), escape).is_err() {
        return;
    }
    for part in &parts.stages {
        let Ok(base) = stages::evaluate_base(part, &globals, escape) else { return };
        if base.text.parse::<Reference>().is_err() {
            let detail = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                part.from.image
            );
            sink.warn(&rules::INVALID_DEFAULT_ARG_IN_FROM, part.span(), detail);
        }
    }
}

fn undefined_in_base(part: &Part<'_>, globals: &Globals, escape: char, sink: &mut Sink) {
    if let Ok(base) = stages::evaluate_base(part, globals, escape) {
        undefined(part, &base, globals, sink);
    }
}

/// `UndefinedArgInFrom`
fn undefined(part: &Part<'_>, expanded: &Expanded, globals: &Globals, sink: &mut Sink) {
    for name in expanded.undefined.iter().filter(|name| !globals.is_known(name)) {
        let mut detail = format!("FROM argument '{name}' is not declared");
        if let Some(known) = nearest(name, globals.known_names(), true) {
            detail.push_str(&format!(" (did you mean {known}?)"));
        }
        let comments = &part.from_instruction.comments;
        sink.warn_at(comments, &rules::UNDEFINED_ARG_IN_FROM, part.span(), detail);
    }
}

/// `RedundantTargetPlatform`: the platform is `$TARGETPLATFORM` and nothing else.
fn redundant_platform(part: &Part<'_>, expanded: &Expanded, globals: &Globals, sink: &mut Sink) {
    let alone = expanded.undefined.is_empty() && expanded.used == ["TARGETPLATFORM"];
    if alone && Variables::get(globals, "TARGETPLATFORM") == Some(expanded.text.as_str()) {
        let written = part.from.platform.as_deref().unwrap_or_default();
        let detail = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        let comments = &part.from_instruction.comments;
        sink.warn_at(comments, &rules::REDUNDANT_TARGET_PLATFORM, part.span(), detail);
    }
}

/// `FromPlatformFlagConstDisallowed`, unless the stage's name says that it is for that platform.
fn constant_platform(part: &Part<'_>, expanded: &Expanded, sink: &mut Sink) {
    if !expanded.used.is_empty() || !expanded.undefined.is_empty() {
        return;
    }
    let Ok(platform) = platform::parse(&expanded.text) else { return };
    let name = part.from.name.as_deref().unwrap_or_default();
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return;
    }
    let detail = format!("FROM --platform flag should not use constant value {}", quote::go(&expanded.text));
    let comments = &part.from_instruction.comments;
    sink.warn_at(comments, &rules::FROM_PLATFORM_FLAG_CONST_DISALLOWED, part.span(), detail);
}
