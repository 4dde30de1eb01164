//! The global scope: platform arguments, the `ARG`s before the first `FROM`, and what overrides them.

use std::collections::{BTreeMap, BTreeSet};

use super::{PlanError, PlanRequest};
use crate::dockerfile::{
    ArgDecl, Dockerfile, Expanded, Instruction, InstructionKind, Span, Variables, expand, parse_trigger,
};
use crate::oci::Platform;

/// A global `ARG` instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct GlobalArg<'a> {
    pub(super) declarations: &'a [ArgDecl],
    pub(super) span: Span,
}

/// The variables of the global scope.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    declared: BTreeSet<String>,
}

impl Variables for Globals {
    fn get(&self, name: &str) -> Option<&str> {
        Variables::get(&self.values, name)
    }

    fn names(&self) -> Vec<&str> {
        Variables::names(&self.values)
    }
}

/// Writes a platform with its operating system's version.
pub(super) fn format_all(platform: &Platform) -> String {
    match &platform.os_version {
        Some(version) => {
            platform.to_string().replacen(&platform.os, &format!("{}({version})", platform.os), 1)
        }
        None => platform.to_string(),
    }
}

impl Globals {
    /// Starts with the platform arguments; build arguments of the same name override them.
    pub(super) fn defaults(request: &PlanRequest, target_name: Option<&str>) -> Self {
        let (build, target) = (&request.build_platform, &request.target_platform);
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let arguments = [
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", optional(&build.os_version)),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", optional(&build.variant)),
            ("TARGETPLATFORM", format_all(target)),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", optional(&target.os_version)),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", optional(&target.variant)),
            ("TARGETSTAGE", target_name.unwrap_or("default").to_owned()),
        ];
        let values = arguments
            .into_iter()
            .map(|(name, value)| (name.to_owned(), request.build_args.get(name).cloned().unwrap_or(value)));
        Self { values: values.collect(), declared: BTreeSet::new() }
    }

    /// Evaluates the global `ARG`s in order. The default of an overridden one is not looked at.
    pub(super) fn evaluate(
        &mut self,
        globals: &[GlobalArg<'_>],
        build_args: &BTreeMap<String, String>,
        escape: char,
    ) -> Result<(), PlanError> {
        for global in globals {
            for ArgDecl { name, default } in global.declarations {
                let value = match (build_args.get(name), default) {
                    (Some(value), _) => Some(value.clone()),
                    (None, Some(default)) => {
                        let expanded = self
                            .expand(default, escape)
                            .map_err(|message| PlanError::new(message, Some(global.span)))?;
                        Some(expanded.text)
                    }
                    (None, None) => None,
                };
                self.declared.insert(name.clone());
                if let Some(value) = value {
                    self.values.insert(name.clone(), value);
                }
            }
        }
        Ok(())
    }

    /// Expands a text of a `FROM`.
    pub(super) fn expand(&self, text: &str, escape: char) -> Result<Expanded, String> {
        expand(text, self, escape).map_err(|error| error.to_string())
    }

    /// Tells whether a name is declared or predefined, set or not.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.declared.contains(name) || self.values.contains_key(name)
    }

    /// Returns the names that are declared or predefined.
    pub(super) fn known_names(&self) -> BTreeSet<&str> {
        self.declared.iter().chain(self.values.keys()).map(String::as_str).collect()
    }

    /// Returns the same scope without one name.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut globals = self.clone();
        globals.values.remove(name);
        globals
    }

    /// Sets a name.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.values.insert(name.to_owned(), value);
    }

    pub(super) fn into_values(self) -> BTreeMap<String, String> {
        self.values
    }
}

/// Lists the build arguments that nothing in the file declares and that mean nothing by themselves.
pub(super) fn unused(dockerfile: &Dockerfile, build_args: &BTreeMap<String, String>) -> Vec<String> {
    let mut declared = BTreeSet::new();
    for instruction in &dockerfile.instructions {
        declare(instruction, &mut declared);
        if let InstructionKind::OnBuild(on_build) = &instruction.kind
            && let Ok(trigger) = parse_trigger(&on_build.text)
        {
            declare(&trigger, &mut declared);
        }
    }
    let unused = build_args.keys().filter(|name| !declared.contains(*name) && !is_predefined(name));
    unused.cloned().collect()
}

fn declare(instruction: &Instruction, declared: &mut BTreeSet<String>) {
    if let InstructionKind::Arg(declarations) = &instruction.kind {
        declared.extend(declarations.iter().map(|declaration| declaration.name.clone()));
    }
}

/// Tells whether a build argument has a meaning without an `ARG`.
fn is_predefined(name: &str) -> bool {
    let proxy = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"]
        .iter()
        .any(|proxy| name.eq_ignore_ascii_case(proxy));
    let platform = name
        .strip_prefix("BUILD")
        .or_else(|| name.strip_prefix("TARGET"))
        .is_some_and(|rest| matches!(rest, "PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT"));
    proxy || platform || name.starts_with("BUILDKIT_") || matches!(name, "TARGETSTAGE" | "SOURCE_DATE_EPOCH")
}
