//! `# check=skip=…;experimental=…;error=…`: which rules apply.

use std::collections::BTreeSet;

use super::{Lint, Rule};
use crate::dockerfile::directives::check_comment;
use crate::dockerfile::mount::parse_bool;
use crate::dockerfile::{Dockerfile, quote};
use crate::plan::{PlanError, PlanRequest};

/// The build argument that counts instead of the directive.
const BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Which rules apply, and whether warnings are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: Selection,
    experimental: Selection,
    /// Whether warnings fail the build.
    pub error: bool,
}

/// Some rules, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    names: BTreeSet<String>,
}

impl Selection {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: BTreeSet::new() },
            names => {
                Self { all: false, names: names.split(',').map(|name| name.trim().to_owned()).collect() }
            }
        }
    }

    fn contains(&self, rule: &Rule) -> bool {
        self.all || self.names.contains(rule.name)
    }

    fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
    }
}

/// Reads the options of a build: the build argument's, else the directive's.
pub fn check_options(dockerfile: &Dockerfile, request: &PlanRequest) -> Result<CheckOptions, PlanError> {
    if let Some(text) = request.build_args.get(BUILD_ARG) {
        return CheckOptions::parse(text)
            .map_err(|message| PlanError::new(format!("failed to parse {BUILD_ARG}: {message}"), None));
    }
    let Some(directive) = &dockerfile.directives.check else { return Ok(CheckOptions::default()) };
    // Like the syntax's, the directive's value ends at a blank.
    let value = directive.value.split(' ').next().unwrap_or_default();
    CheckOptions::parse(value).map_err(|message| {
        PlanError::new(format!("failed to parse check options: {message}"), Some(directive.span))
    })
}

impl CheckOptions {
    fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", quote::go(part)));
            };
            match key.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => {
                    options.error = parse_bool(value.trim()).ok_or_else(|| {
                        format!(
                            "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
                            quote::go(part),
                            quote::go(value.trim())
                        )
                    })?;
                }
                key => return Err(format!("invalid check option {}", quote::go(key))),
            }
        }
        Ok(options)
    }

    /// Tells whether a rule applies.
    pub(super) fn allows(&self, rule: &Rule) -> bool {
        if rule.experimental { self.experimental.contains(rule) } else { !self.skip.contains(rule) }
    }

    /// Adds what the first `check=` comment above an instruction says; one that cannot be read says nothing.
    pub(super) fn with_comments(&self, comments: &[String]) -> Self {
        let mut options = self.clone();
        let more = comments.iter().find_map(|comment| check_comment(comment));
        if let Some(Ok(more)) = more.map(|text| Self::parse(&text)) {
            options.skip.merge(more.skip);
            options.experimental.merge(more.experimental);
        }
        options
    }

    /// Returns the message of a build that fails because of its warnings.
    pub(super) fn violation(&self, warnings: &[Lint]) -> Option<String> {
        if !self.error || warnings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = Vec::new();
        for warning in warnings {
            if !names.contains(&warning.rule.name) {
                names.push(warning.rule.name);
            }
        }
        Some(format!("lint violation found for rules: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{INVALID_DEFINITION_DESCRIPTION, STAGE_NAME_CASING, UNDEFINED_VAR};
    use super::*;

    #[test]
    fn options_are_read() {
        let options = CheckOptions::parse("skip=UndefinedVar, X ; error = true;experimental=all").unwrap();
        assert!(options.error);
        assert!(!options.allows(&UNDEFINED_VAR));
        assert!(options.allows(&STAGE_NAME_CASING));
        assert!(options.allows(&INVALID_DEFINITION_DESCRIPTION));
        assert!(!CheckOptions::default().allows(&INVALID_DEFINITION_DESCRIPTION));
        assert!(!CheckOptions::parse("skip=all").unwrap().allows(&STAGE_NAME_CASING));
        let comments = ["hello".to_owned(), "check=skip=UndefinedVar // why".to_owned()];
        assert!(!CheckOptions::default().with_comments(&comments).allows(&UNDEFINED_VAR));
    }

    #[test]
    fn bad_options_have_their_literal_text() {
        for (text, error) in [
            ("x", "invalid check option \"x\""),
            ("skp=all", "invalid check option \"skp\""),
            (
                "error=maybe",
                "failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
        ] {
            assert_eq!(CheckOptions::parse(text).unwrap_err(), error);
        }
    }
}
