//! Reports in the shape of `docker buildx build --call=lint,format=json`.
//!
//! The fields and their order are BuildKit's; what is zero or empty is left out as there, no warnings at all are `null`,
//! a span is one range per line, and characters are not told. BuildKit's `definition` of a source (how its own solver
//! would fetch the Dockerfile again) has no meaning here and is left out too.

use base64::Engine as _;
use serde::Serialize;

use super::{Lint, LintReport};
use crate::dockerfile::{Dockerfile, Span};

/// A report as it is written.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    warnings: Option<Vec<Warning<'a>>>,
    sources: Vec<Source<'a>>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Debug, Serialize)]
struct BuildError<'a> {
    message: &'a str,
    location: Location,
}

#[derive(Debug, Serialize)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    line: usize,
}

impl<'a> Report<'a> {
    /// Puts together what is known of a Dockerfile.
    pub fn new(dockerfile: &'a Dockerfile, report: &'a LintReport) -> Self {
        let warnings = match report.warnings.as_slice() {
            [] => None,
            warnings => Some(warnings.iter().map(warning).collect()),
        };
        let data = base64::engine::general_purpose::STANDARD.encode(dockerfile.source.as_bytes());
        let source = Source { filename: &dockerfile.name, data, language: "Dockerfile" };
        let error = report.error.as_ref();
        let build_error =
            error.map(|error| BuildError { message: &error.message, location: location(error.span) });
        Self { warnings, sources: vec![source], build_error }
    }

    /// Says that there is no Dockerfile to check.
    pub fn unread(message: &'a str) -> Self {
        let build_error = BuildError { message, location: location(None) };
        Self { warnings: None, sources: Vec::new(), build_error: Some(build_error) }
    }
}

fn warning(lint: &Lint) -> Warning<'_> {
    Warning {
        rule_name: lint.rule.name,
        description: lint.rule.description,
        url: lint.rule.url,
        detail: &lint.detail,
        location: location(Some(lint.span)),
    }
}

fn location(span: Option<Span>) -> Location {
    let range = |line| Range { start: Position { line }, end: Position { line } };
    let lines = span.map(|span| span.start_line..=span.end_line);
    Location { ranges: lines.into_iter().flatten().map(range).collect() }
}
