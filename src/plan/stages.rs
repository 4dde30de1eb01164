//! From instructions to stages: expanding `FROM`, finding bases and platforms.

use std::collections::BTreeMap;

use super::globals::{GlobalArg, Globals};
use super::{Base, PlanError, PlanRequest, Stage, StageId, contexts, platform};
use crate::dockerfile::suggest::{did_you_mean, nearest};
use crate::dockerfile::{Dockerfile, Expanded, From, Instruction, InstructionKind, Span};
use crate::oci::{Platform, Reference};

/// A Dockerfile, cut at its `FROM`s.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) globals: Vec<GlobalArg<'a>>,
    pub(super) stages: Vec<Part<'a>>,
}

/// A `FROM` and what follows it.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) from: &'a From,
    pub(super) from_instruction: &'a Instruction,
    pub(super) steps: &'a [Instruction],
}

impl Part<'_> {
    pub(super) fn span(&self) -> Span {
        self.from_instruction.span
    }
}

impl<'a> Parts<'a> {
    pub(super) fn of(dockerfile: &'a Dockerfile) -> Self {
        let is_from = |instruction: &Instruction| matches!(instruction.kind, InstructionKind::From(_));
        let instructions = dockerfile.instructions.as_slice();
        let first = instructions.iter().position(is_from).unwrap_or(instructions.len());
        let (before, mut rest) = instructions.split_at(first);
        let globals = before.iter().filter_map(|instruction| match &instruction.kind {
            InstructionKind::Arg(declarations) => Some(GlobalArg { declarations, span: instruction.span }),
            _ => None,
        });
        let globals = globals.collect();
        let mut stages = Vec::new();
        while let [from_instruction, after @ ..] = rest {
            let end = after.iter().position(is_from).unwrap_or(after.len());
            let (steps, next) = after.split_at(end);
            if let InstructionKind::From(from) = &from_instruction.kind {
                stages.push(Part { from, from_instruction, steps });
            }
            rest = next;
        }
        Self { globals, stages }
    }

    /// Returns the name that `TARGETSTAGE` stands for.
    pub(super) fn target_name<'b>(&'b self, request: &'b PlanRequest) -> Option<&'b str> {
        let given = request.target.as_deref().filter(|target| !target.is_empty());
        given.or_else(|| self.stages.last()?.from.name.as_deref())
    }
}

/// What the texts of a `FROM` come to in the global scope.
pub(super) struct Evaluated {
    pub(super) base: Expanded,
    /// The text and what it says, if there is a `--platform`.
    pub(super) platform: Option<(Expanded, Result<Platform, PlanError>)>,
}

/// Expands the base of a `FROM`.
pub(super) fn evaluate_base(part: &Part<'_>, globals: &Globals, escape: char) -> Result<Expanded, PlanError> {
    let image = &part.from.image;
    globals.expand(image, escape).map_err(|message| PlanError::new(message, Some(part.span())))
}

/// Expands and parses what a `FROM` says.
pub(super) fn evaluate(part: &Part<'_>, globals: &Globals, escape: char) -> Result<Evaluated, PlanError> {
    let fail = |message: String| PlanError::new(message, Some(part.span()));
    let base = evaluate_base(part, globals, escape)?;
    if base.text.is_empty() {
        let message = format!("base name ({}) should not be blank", part.from.image);
        let mut error = fail(message);
        error.hint = undeclared_hint(&base, globals);
        return Err(error);
    }
    let Some(written) = &part.from.platform else { return Ok(Evaluated { base, platform: None }) };
    let expanded = globals
        .expand(written, escape)
        .map_err(|message| fail(format!("failed to process arguments for platform : {message}")))?;
    let names = globals.known_names();
    // The first unknown name that resembles a known one.
    let suggest = |message: String| {
        let suggestion =
            expanded.undefined.iter().find_map(|name| nearest(name, names.iter().copied(), true));
        match suggestion {
            Some(suggestion) => fail(format!("{message} (did you mean {suggestion}?)")),
            None => fail(message),
        }
    };
    let parsed = if expanded.text.is_empty() {
        Err(suggest(format!("empty platform value from expression {written}")))
    } else {
        platform::parse(&expanded.text)
            .map_err(|error| suggest(format!("failed to parse platform {written}: {error}")))
    };
    Ok(Evaluated { base, platform: Some((expanded, parsed)) })
}

fn undeclared_hint(base: &Expanded, globals: &Globals) -> Option<String> {
    let name = base.undefined.first()?;
    Some(if globals.is_known(name) {
        format!("ARG {name} has no value: give it a default or pass --build-arg {name}=…")
    } else {
        format!("declare `ARG {name}` before the first FROM to use it in FROM")
    })
}

/// Builds the stages; what they need of each other by `--from` and mounts comes later.
pub(super) fn build(
    parts: &Parts<'_>,
    request: &PlanRequest,
    globals: &Globals,
    escape: char,
) -> Result<Vec<Stage>, PlanError> {
    let mut builder = Builder { request, stages: Vec::new(), names: BTreeMap::new() };
    for part in &parts.stages {
        let Evaluated { base, platform } = evaluate(part, globals, escape)?;
        let explicit = match platform {
            Some((_, parsed)) => Some(parsed?),
            None => None,
        };
        builder.add(part, &base.text, explicit);
    }
    Ok(builder.stages)
}

/// The stages so far.
struct Builder<'a> {
    request: &'a PlanRequest,
    stages: Vec<Stage>,
    /// Of several stages of a name, the last one.
    names: BTreeMap<String, StageId>,
}

impl Builder<'_> {
    /// Adds the next stage, with its base's name and its own platform expanded.
    fn add(&mut self, part: &Part<'_>, base: &str, explicit: Option<Platform>) {
        let id = StageId(self.stages.len());
        let name = part.from.name.clone();
        let explicit_platform = explicit.is_some();
        let own = explicit.unwrap_or_else(|| self.request.target_platform.clone());
        let contexts = &self.request.contexts;
        let replaced = name.as_deref().and_then(|name| contexts::find(contexts, name, &own));
        let parent = self.names.get(base).and_then(|parent| self.stages.get(parent.0));
        let mut steps = part.steps.to_vec();
        let (base, platform, explicit_platform) = if let Some(context) = replaced {
            steps.clear();
            (Base::Context { name: context, replaces_stage: true }, own, explicit_platform)
        } else if let Some(parent) = parent {
            (Base::Stage(parent.id), parent.platform.clone(), parent.explicit_platform)
        } else if base == "scratch" {
            (Base::Scratch, self.request.target_platform.clone(), false)
        } else if let Some(context) = contexts::find(contexts, base, &own) {
            (Base::Context { name: context, replaces_stage: false }, own, explicit_platform)
        } else {
            (Base::Image { text: base.to_owned() }, own, explicit_platform)
        };
        if let Some(name) = &name {
            self.names.insert(name.clone(), id);
        }
        self.stages.push(Stage {
            id,
            display: name.clone().unwrap_or_else(|| format!("stage-{}", id.0)),
            name,
            base,
            platform,
            explicit_platform,
            from_span: part.span(),
            steps,
            depends_on: Vec::new(),
            reads: Vec::new(),
        });
    }
}

/// Refuses a base that is neither a stage nor a reference, reachable or not.
pub(super) fn check_reference(text: &str, span: Span) -> Result<(), PlanError> {
    match text.parse::<Reference>() {
        Ok(_) => Ok(()),
        Err(error) => Err(PlanError { span: Some(span), ..error.into() }),
    }
}

/// Finds a stage by name, in any case; of several, the last.
pub(super) fn by_name(stages: &[Stage], name: &str) -> Option<StageId> {
    let name = name.to_lowercase();
    stages.iter().rev().find(|stage| stage.name.as_ref() == Some(&name)).map(|stage| stage.id)
}

/// Finds the stage to build: the last one, or the one asked for, by name or (as in kaniko) by index.
pub(super) fn target(stages: &[Stage], request: &PlanRequest) -> Result<StageId, PlanError> {
    let Some(target) = request.target.as_deref().filter(|target| !target.is_empty()) else {
        return Ok(StageId(stages.len().saturating_sub(1)));
    };
    let by_index = || target.parse::<usize>().ok().filter(|index| *index < stages.len()).map(StageId);
    by_name(stages, target).or_else(by_index).ok_or_else(|| {
        let message = format!("target stage {} could not be found", crate::dockerfile::quote::go(target));
        let names = stages.iter().map(|stage| stage.display.as_str());
        PlanError::new(did_you_mean(message, target, names, true), None)
    })
}
