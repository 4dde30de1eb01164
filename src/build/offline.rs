//! Builds without a network: everything that would be asked for elsewhere, told at once and before the first
//! step.

use super::base::stored_image;
use super::error::{BuildError, Place, Problem};
use super::inputs::{Workbench, plan_request, read_dockerfile};
use super::{ContextSource, DockerfileSource, NamedContext, Request, Services};
use crate::context::{SourceKind, classify_source};
use crate::dockerfile::{self, Dockerfile, InstructionKind, Source, Span};
use crate::oci::{Platform, Reference};
use crate::plan::{Base, FromRef, Plan, Stage, StageId, plan};
use crate::text::without_password;

/// An image that a Dockerfile builds on or copies from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededImage {
    /// What the Dockerfile, or the named context, calls it.
    pub text: String,
    /// For which platform.
    pub platform: Platform,
    /// Where.
    pub span: Span,
}

/// Something that a build without a network cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// An image that is not in the store.
    Image(NeededImage),
    /// A file or repository elsewhere.
    Source {
        /// Its address.
        address: String,
        /// Where it is asked for.
        span: Span,
    },
}

impl Missing {
    fn span(&self) -> Span {
        match self {
            Self::Image(image) => image.span,
            Self::Source { span, .. } => *span,
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(image) if image.span.start_line == 0 => {
                write!(f, "image `{}` for {}", image.text, image.platform)
            }
            Self::Image(image) => {
                write!(f, "image `{}` for {} (line {})", image.text, image.platform, image.span.start_line)
            }
            Self::Source { address, span } => write!(f, "`{address}` (line {})", span.start_line),
        }
    }
}

/// Returns the images that a Dockerfile builds on and copies from: those its target needs, or all if the request
/// has no target.
pub fn needed_images(
    request: &Request,
    bench: &Workbench<'_>,
    build_platform: &Platform,
) -> Result<Vec<NeededImage>, BuildError> {
    let text = read_dockerfile(request, bench)?;
    let dockerfile =
        dockerfile::parse(&text.name, &text.bytes).map_err(|error| BuildError::from(Problem::from(error)))?;
    let platform = request.platform.as_ref().unwrap_or(build_platform);
    let planned = plan_request(request, build_platform, platform);
    let plan = plan(&dockerfile, &planned).map_err(|error| match error.span {
        Some(span) => Problem::from(error).at(&dockerfile, span),
        None => Problem::from(error).into(),
    })?;
    let all: Vec<StageId> = plan.stages.iter().map(|stage| stage.id).collect();
    Ok(images(&plan, if request.target.is_some() { &plan.reachable } else { &all }, request))
}

/// Lists the images of some stages, each once.
fn images(plan: &Plan, stages: &[StageId], request: &Request) -> Vec<NeededImage> {
    let mut found: Vec<NeededImage> = Vec::new();
    for stage in stages.iter().map(|id| &plan.stages[id.0]) {
        for (text, span) in images_of_stage(stage, request) {
            let image = NeededImage { text, platform: stage.platform.clone(), span };
            let same = |other: &NeededImage| other.text == image.text && other.platform == image.platform;
            if !found.iter().any(same) {
                found.push(image);
            }
        }
    }
    found.sort_by_key(|image| image.span.start_line);
    found
}

fn images_of_stage(stage: &Stage, request: &Request) -> Vec<(String, Span)> {
    let of_context = |name: &str| match request.named_contexts.get(name) {
        Some(NamedContext::Image(text)) if text != "scratch" => Some(text.clone()),
        _ => None,
    };
    let base = match &stage.base {
        Base::Image { text } => Some(text.clone()),
        Base::Context { name, .. } => of_context(name),
        Base::Scratch | Base::Stage(_) => None,
    };
    let read = stage.reads.iter().filter_map(|(from, span)| match from {
        FromRef::Image(text) => Some((text.clone(), *span)),
        FromRef::Context(name) => Some((of_context(name)?, *span)),
        FromRef::Stage(_) | FromRef::Scratch => None,
    });
    base.map(|text| (text, stage.from_span)).into_iter().chain(read).collect()
}

/// Checks that a build without a network has all it needs, as far as the Dockerfile tells.
pub(super) fn check(
    dockerfile: &Dockerfile,
    plan: &Plan,
    request: &Request,
    services: &Services,
) -> Result<(), BuildError> {
    let mut missing = Vec::new();
    for image in images(plan, &plan.reachable, request) {
        let reference: Reference = match image.text.parse() {
            Ok(reference) => reference,
            // The step's own error says it better.
            Err(_) => continue,
        };
        let found = stored_image(&services.store, &reference, &image.platform, true);
        if found.map_err(|problem| problem.at(dockerfile, image.span))?.is_none() {
            missing.push(Missing::Image(image));
        }
    }
    for stage in plan.reachable.iter().map(|id| &plan.stages[id.0]) {
        for step in &stage.steps {
            let InstructionKind::Add(add) = &step.kind else { continue };
            for source in &add.sources {
                if let Source::Path(text) = source
                    && classify_source(text) != SourceKind::Path
                {
                    missing.push(Missing::Source { address: without_password(text), span: step.span });
                }
            }
        }
    }
    missing.sort_by_key(|missing| missing.span().start_line);
    let Some(first) = missing.first().map(Missing::span) else { return Ok(()) };
    let place = Place { name: dockerfile.name.clone(), source: dockerfile.source.clone(), span: first };
    Err(BuildError { problem: Problem::Offline { missing }, place: Some(place) })
}

/// Refuses what is elsewhere when there is no network.
pub(super) fn refuse_remote(request: &Request, address: &str) -> Result<(), Problem> {
    if request.offline {
        return Err(Problem::OfflineSource { address: without_password(address) });
    }
    Ok(())
}

/// Refuses a context or Dockerfile that is elsewhere, before anything is read.
pub(super) fn check_inputs(request: &Request) -> Result<(), Problem> {
    if let ContextSource::Url(address) | ContextSource::Git(address) = &request.context {
        refuse_remote(request, address)?;
    }
    if let DockerfileSource::Url(address) = &request.dockerfile {
        refuse_remote(request, address)?;
    }
    Ok(())
}

/// Writes the command that brings what is missing.
pub(super) fn hint(missing: &[Missing]) -> String {
    let mut platforms: Vec<String> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut sources = false;
    for one in missing {
        match one {
            Missing::Image(image) => {
                let platform = image.platform.to_string();
                let name = image.text.clone();
                if !platforms.contains(&platform) {
                    platforms.push(platform);
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Missing::Source { .. } => sources = true,
        }
    }
    let mut parts = Vec::new();
    if !names.is_empty() {
        let platforms = platforms.join(",");
        parts.push(format!(
            "with a network, and the same --root, run `kiln warm --platform {platforms} {}`",
            names.join(" ")
        ));
    }
    if sources {
        parts.push("files from elsewhere go into the build context, to be copied from there".to_owned());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_a_command_that_brings_all() {
        let image = |text: &str, platform: &str| {
            Missing::Image(NeededImage {
                text: text.to_owned(),
                platform: platform.parse().unwrap(),
                span: Span { start_line: 1, end_line: 1 },
            })
        };
        let missing = [image("a", "linux/amd64"), image("b:1", "linux/amd64"), image("a", "linux/arm64")];
        assert_eq!(
            hint(&missing),
            "with a network, and the same --root, run `kiln warm --platform linux/amd64,linux/arm64 a b:1`"
        );
    }
}
