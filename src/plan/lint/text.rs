//! Rules about how things are written: keywords, names, comments.

use std::collections::BTreeSet;

use super::{Sink, rules};
use crate::dockerfile::{Dockerfile, Instruction, InstructionKind, quote};
use crate::plan::stages::Parts;

/// `NoEmptyContinuation`
pub(super) fn empty_continuations(dockerfile: &Dockerfile, sink: &mut Sink) {
    for span in &dockerfile.empty_continuations {
        sink.warn(&rules::NO_EMPTY_CONTINUATION, *span, "Empty continuation line".to_owned());
    }
}

/// The rules that look at one instruction and the comments above it.
pub(super) fn each_instruction(dockerfile: &Dockerfile, sink: &mut Sink) {
    for instruction in &dockerfile.instructions {
        let Instruction { span, keyword, comments, .. } = instruction;
        let mut warn = |rule, detail| sink.warn_at(comments, rule, *span, detail);
        match &instruction.kind {
            InstructionKind::Maintainer(_) => warn(
                &rules::MAINTAINER_DEPRECATED,
                "Maintainer instruction is deprecated in favor of using label".to_owned(),
            ),
            InstructionKind::From(from) => {
                if let Some(name) = from.written_name.as_ref().filter(|name| name.to_lowercase() != **name) {
                    warn(&rules::STAGE_NAME_CASING, format!("Stage name '{name}' should be lowercase"));
                }
                if let Some(word) = from.as_keyword.as_ref().filter(|word| !cases_match(keyword, word)) {
                    warn(
                        &rules::FROM_AS_CASING,
                        format!("'{word}' and '{keyword}' keywords' casing do not match"),
                    );
                }
                if let Some(name) = &from.name
                    && let Some(detail) = bad_description("FROM", &[name], comments)
                {
                    warn(&rules::INVALID_DEFINITION_DESCRIPTION, detail);
                }
            }
            InstructionKind::Arg(declarations) => {
                let names: Vec<&str> = declarations.iter().map(|d| d.name.as_str()).collect();
                if let Some(detail) = bad_description("ARG", &names, comments) {
                    warn(&rules::INVALID_DEFINITION_DESCRIPTION, detail);
                }
            }
            _ => {}
        }
    }
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}

/// A keyword in mixed case is another rule's business.
fn cases_match(from: &str, word: &str) -> bool {
    match (is_lower(from), is_upper(from)) {
        (true, _) => is_lower(word),
        (_, true) => is_upper(word),
        _ => true,
    }
}

/// Checks that the comment right above a definition describes it by name.
fn bad_description(keyword: &str, names: &[impl AsRef<str>], comments: &[String]) -> Option<String> {
    let first_word = comments.last()?.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name.as_ref() == first_word) {
        return None;
    }
    let example = match names {
        [name] => name.as_ref(),
        _ => "<arg_key>",
    };
    Some(format!("Comment for {keyword} should follow the format: `# {example} <description>`"))
}

/// `ReservedStageName` and `DuplicateStageName`
pub(super) fn stage_names(parts: &Parts<'_>, sink: &mut Sink) {
    let mut seen = BTreeSet::new();
    for part in &parts.stages {
        let Some(name) = &part.from.name else { continue };
        if matches!(name.as_str(), "context" | "scratch") {
            let detail =
                format!("Stage name should not use the same name as reserved stage {}", quote::go(name));
            sink.warn(&rules::RESERVED_STAGE_NAME, part.span(), detail);
        }
        if !seen.insert(name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quote::go(name));
            sink.warn(&rules::DUPLICATE_STAGE_NAME, part.span(), detail);
        }
    }
}

/// `ConsistentInstructionCasing`: the majority decides; global `ARG`s have no vote.
pub(super) fn keyword_casing(parts: &Parts<'_>, sink: &mut Sink) {
    let instructions =
        || parts.stages.iter().flat_map(|part| std::iter::once(part.from_instruction).chain(part.steps));
    let lower = instructions().filter(|instruction| is_lower(&instruction.keyword)).count();
    let upper = instructions().filter(|instruction| is_upper(&instruction.keyword)).count();
    let (fits, casing): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for instruction in instructions().filter(|instruction| !fits(&instruction.keyword)) {
        let detail = format!(
            "Command '{}' should match the case of the command majority ({casing})",
            instruction.keyword
        );
        sink.warn(&rules::CONSISTENT_INSTRUCTION_CASING, instruction.span, detail);
    }
}
