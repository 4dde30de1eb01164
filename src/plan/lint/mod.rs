//! BuildKit's build checks, by their names, with their texts.
//!
//! [`lint`] goes through a Dockerfile as a build would, without running anything: it follows each stage's
//! variables and shell, and looks at every instruction. What it cannot know from the file (the environment
//! and platform of base images, the ignore file) comes through [`LintInputs`]; where the answer is "not
//! known", the rules that need it say nothing rather than something wrong.

mod from;
mod json;
mod options;
mod rules;
mod text;
mod walk;

#[cfg(test)]
mod tests;

use super::stages::Parts;
use super::{PlanError, PlanRequest, Reach, plan_scope};
use crate::dockerfile::{Dockerfile, ParseError, Span};
use crate::oci::Platform;

pub use json::Report;
pub use options::{CheckOptions, check_options};
pub use rules::{RULES, Rule};

/// What the rules need to know of the world; every method may answer "not known".
pub trait LintInputs {
    /// Returns what is known of the image a stage is `FROM`; `reference` is as written, expanded.
    fn base_image(&self, reference: &str, platform: &Platform) -> Option<BaseImage>;
    /// Returns what is known of the image that a named context stands for.
    fn context_image(&self, name: &str, platform: &Platform) -> Option<BaseImage>;
    /// Returns the patterns of the main context's ignore file, as its lines are; empty if there is none.
    fn ignore_patterns(&self) -> &[String];
    /// Tells whether the ignore file's patterns match `path` (clean, as written) or a parent of it.
    fn is_ignored(&self, path: &str) -> bool;
}

/// What the rules need to know of a base image.
#[derive(Debug, Clone, Default)]
pub struct BaseImage {
    /// `Env`
    pub env: Vec<String>,
    /// `Shell`
    pub shell: Vec<String>,
    /// `OnBuild`
    pub on_build: Vec<String>,
    /// Its platform.
    pub platform: Option<Platform>,
}

/// Knows nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoInputs;

impl LintInputs for NoInputs {
    fn base_image(&self, _reference: &str, _platform: &Platform) -> Option<BaseImage> {
        None
    }

    fn context_image(&self, _name: &str, _platform: &Platform) -> Option<BaseImage> {
        None
    }

    fn ignore_patterns(&self) -> &[String] {
        &[]
    }

    fn is_ignored(&self, _path: &str) -> bool {
        false
    }
}

/// Which stages to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them, unless the request names a target: `kiln check`.
    All,
    /// Those the target needs: a build.
    Reachable,
}

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The rule.
    pub rule: &'static Rule,
    /// What the rule has to say here.
    pub detail: String,
    /// Where.
    pub span: Span,
}

/// What the rules found.
#[derive(Debug, Clone, Default)]
pub struct LintReport {
    /// The warnings, in the order BuildKit gives them.
    pub warnings: Vec<Lint>,
    /// Why the Dockerfile cannot be built, if it cannot; the violation, if there is one.
    pub error: Option<LintError>,
    /// Whether `# check=error=true` makes the warnings an error: `lint violation found for rules: …`.
    pub violation: Option<String>,
}

/// An error of the Dockerfile found while looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintError {
    /// Its text.
    pub message: String,
    /// Its lines.
    pub span: Option<Span>,
}

impl From<PlanError> for LintError {
    fn from(error: PlanError) -> Self {
        Self { message: error.message, span: error.span }
    }
}

impl From<ParseError> for LintError {
    fn from(error: ParseError) -> Self {
        Self { message: error.message, span: error.span }
    }
}

/// Takes warnings, and drops those that are switched off where they arise.
struct Sink {
    options: CheckOptions,
    warnings: Vec<Lint>,
}

impl Sink {
    /// Reports under the options of the file.
    fn warn(&mut self, rule: &'static Rule, span: Span, detail: String) {
        if self.options.allows(rule) {
            self.warnings.push(Lint { rule, detail, span });
        }
    }

    /// Reports under the options of the file and of the comments above an instruction.
    fn warn_at(&mut self, comments: &[String], rule: &'static Rule, span: Span, detail: String) {
        if self.options.with_comments(comments).allows(rule) {
            self.warnings.push(Lint { rule, detail, span });
        }
    }
}

/// Checks a Dockerfile.
pub fn lint(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    scope: Scope,
    inputs: &dyn LintInputs,
) -> LintReport {
    check(dockerfile, None, request, scope, inputs)
}

/// Checks a Dockerfile that may not even parse: then the report says what was found before the error.
/// The parsed part comes back for a [`Report`].
pub fn lint_text(
    name: &str,
    bytes: &[u8],
    request: &PlanRequest,
    scope: Scope,
    inputs: &dyn LintInputs,
) -> (Dockerfile, LintReport) {
    let partial = crate::dockerfile::syntax::parse_partial(name, bytes);
    let report = check(&partial.dockerfile, partial.error, request, scope, inputs);
    (partial.dockerfile, report)
}

fn check(
    dockerfile: &Dockerfile,
    parse_error: Option<ParseError>,
    request: &PlanRequest,
    scope: Scope,
    inputs: &dyn LintInputs,
) -> LintReport {
    let options = match check_options(dockerfile, request) {
        Ok(options) => options,
        Err(error) => return LintReport { error: Some(error.into()), ..LintReport::default() },
    };
    let mut sink = Sink { options, warnings: Vec::new() };
    text::empty_continuations(dockerfile, &mut sink);
    text::each_instruction(dockerfile, &mut sink);
    let outcome = match parse_error {
        Some(error) => Err(error.into()),
        None => check_parsed(dockerfile, request, scope, inputs, &mut sink),
    };
    let violation = sink.options.violation(&sink.warnings);
    let error = outcome
        .err()
        .or_else(|| violation.as_ref().map(|message| LintError { message: message.clone(), span: None }));
    LintReport { warnings: sink.warnings, error, violation }
}

fn check_parsed(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    scope: Scope,
    inputs: &dyn LintInputs,
    sink: &mut Sink,
) -> Result<(), LintError> {
    let parts = Parts::of(dockerfile);
    text::stage_names(&parts, sink);
    text::keyword_casing(&parts, sink);
    from::check(&parts, request, dockerfile.directives.escape, sink)?;
    let reach = match scope {
        Scope::All if request.target.as_deref().unwrap_or_default().is_empty() => Reach::All,
        _ => Reach::Target,
    };
    let plan = plan_scope(dockerfile, request, reach)?;
    let mut wanted: Vec<_> = match reach {
        Reach::Target => plan.reachable.clone(),
        Reach::All => plan.stages.iter().map(|stage| stage.id).collect(),
    };
    // Variables flow from base to child, and bases come first in the file.
    wanted.sort();
    walk::Walk::new(&plan, inputs, sink).stages(&wanted)
}
