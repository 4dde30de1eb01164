//! BuildKit's build checks, by their names, with their texts.

use crate::dockerfile::{Dockerfile, Span};
use crate::oci::Platform;

use super::PlanRequest;

/// What the rules need to know of the world; every method may answer "do not know".
pub trait LintInputs {
    /// Returns what is known of a base image.
    fn base_image(&self, reference: &str, platform: &Platform) -> Option<BaseImage>;
    /// Tells whether the ignore file leaves `path` (relative, clean) out of the main context.
    fn is_ignored(&self, path: &str) -> bool;
}

/// What the rules need to know of a base image.
#[derive(Debug, Clone, Default)]
pub struct BaseImage {
    /// `Env`
    pub env: Vec<String>,
    /// `Shell`
    pub shell: Vec<String>,
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

    fn is_ignored(&self, _path: &str) -> bool {
        false
    }
}

/// Which stages to look at.
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
    /// The rule's name.
    pub rule: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// Where it is explained.
    pub url: &'static str,
    /// What it has to say here.
    pub detail: String,
    /// Where.
    pub span: Option<Span>,
}

/// What the rules found.
#[derive(Debug, Clone, Default)]
pub struct LintReport {
    /// The warnings, in order.
    pub warnings: Vec<Lint>,
    /// Why the Dockerfile cannot be built, if it cannot.
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

/// Checks a Dockerfile.
pub fn lint(
    _dockerfile: &Dockerfile,
    _request: &PlanRequest,
    _scope: Scope,
    _inputs: &dyn LintInputs,
) -> LintReport {
    todo!()
}

/// Writes a report in the shape of `docker buildx build --call=lint,format=json`.
pub fn to_json(_dockerfile: &Dockerfile, _report: &LintReport) -> serde_json::Value {
    todo!()
}
