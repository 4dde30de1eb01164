//! Reports in the shape of `docker buildx build --call=lint,format=json`.
//!
//! As there, what is zero or empty is left out, a span is one range per line, and characters are not told.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Lint, LintReport};
use crate::dockerfile::{Dockerfile, Span};

/// Writes a report.
pub fn to_json(dockerfile: &Dockerfile, report: &LintReport) -> Value {
    let data = base64::engine::general_purpose::STANDARD.encode(dockerfile.source.as_bytes());
    let mut value = json!({
        "warnings": report.warnings.iter().map(warning).collect::<Vec<_>>(),
        "sources": [{"filename": dockerfile.name, "language": "Dockerfile", "data": data}],
    });
    if let Some(error) = &report.error {
        value["buildError"] = json!({"message": error.message, "location": location(error.span)});
    }
    value
}

fn warning(lint: &Lint) -> Value {
    let mut value = json!({
        "ruleName": lint.rule.name,
        "description": lint.rule.description,
        "detail": lint.detail,
        "location": location(Some(lint.span)),
    });
    if !lint.rule.url.is_empty() {
        value["url"] = lint.rule.url.into();
    }
    value
}

fn location(span: Option<Span>) -> Value {
    let Some(Span { start_line, end_line }) = span else { return json!({}) };
    let range = |line| json!({"start": {"line": line}, "end": {"line": line}});
    json!({"ranges": (start_line..=end_line).map(range).collect::<Vec<_>>()})
}
