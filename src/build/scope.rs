//! The variables of a stage: what its `ENV` and `ARG` instructions made, and who wins.
//!
//! The image's environment and the variables a step sees differ: `ARG` after `ENV` of the same name wins
//! in steps and expansions from there on, while the image keeps the `ENV` value (facts: measured on
//! BuildKit; docker's documentation says otherwise).

use std::collections::BTreeMap;

use crate::dockerfile::Variables;

/// The variables in force at one point of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    values: BTreeMap<String, String>,
    /// Names in order of first appearance: the order of a step's environment.
    order: Vec<String>,
    /// Declared build arguments, in order, once each; the value is the last declaration's own.
    declared: Vec<(String, Option<String>)>,
}

/// Build arguments that never become variables of a step (BuildKit's `nonEnvArgs`).
const NEVER_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Predefined build arguments that reach every step without a declaration.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

impl Scope {
    /// Starts from an image's environment.
    pub(super) fn from_environment(env: &[String]) -> Self {
        let mut scope = Self::default();
        for entry in env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            scope.set(name, value);
        }
        scope
    }

    /// Sets a variable, as `ENV` does.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if self.values.insert(name.to_owned(), value.to_owned()).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// Declares a build argument; without a value it is known but unset.
    pub(super) fn declare(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value
            && !NEVER_IN_ENVIRONMENT.contains(&name)
        {
            self.set(name, value);
        }
        match self.declared.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.map(str::to_owned),
            None => self.declared.push((name.to_owned(), value.map(str::to_owned))),
        }
    }

    /// Tells whether a variable was declared as a build argument.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.declared.iter().any(|(known, _)| known == name)
    }

    /// Returns the declared arguments with the values in force, for a step's history.
    pub(super) fn history_arguments(&self) -> Vec<(String, String)> {
        let value = |name: &str, own: &Option<String>| {
            self.values.get(name).cloned().or_else(|| own.clone()).unwrap_or_default()
        };
        self.declared.iter().map(|(name, own)| (name.clone(), value(name, own))).collect()
    }

    /// Returns the environment of a step: every variable in force, and the proxies among `build_args`
    /// in both cases, unless the Dockerfile has its own.
    pub(super) fn environment(&self, build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = self
            .order
            .iter()
            .map(|name| (name.clone(), self.values.get(name).cloned().unwrap_or_default()))
            .collect();
        for name in PROXIES {
            let lower = name.to_ascii_lowercase();
            let given = build_args.get(name).or_else(|| build_args.get(&lower));
            if let Some(value) = given {
                for name in [name, lower.as_str()] {
                    if !self.values.contains_key(name) {
                        env.push((name.to_owned(), value.clone()));
                    }
                }
            }
        }
        env
    }
}

impl Variables for Scope {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.values.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_after_env_wins_and_one_without_a_value_does_not() {
        let mut scope = Scope::from_environment(&["A=env".to_owned(), "B=env".to_owned()]);
        scope.declare("A", Some("arg"));
        scope.declare("B", None);
        scope.declare("C", None);
        assert_eq!(scope.get("A"), Some("arg"));
        assert_eq!(scope.get("B"), Some("env"));
        assert_eq!(scope.get("C"), None);
        let arguments = scope.history_arguments().into_iter().map(|(name, value)| format!("{name}={value}"));
        assert_eq!(arguments.collect::<Vec<_>>(), ["A=arg", "B=env", "C="]);
        scope.set("A", "env again");
        assert_eq!(scope.get("A"), Some("env again"));
    }

    #[test]
    fn proxies_reach_a_step_in_both_cases() {
        let args = BTreeMap::from([("http_proxy".to_owned(), "p".to_owned())]);
        let env = Scope::default().environment(&args);
        assert_eq!(
            env,
            [("HTTP_PROXY".to_owned(), "p".to_owned()), ("http_proxy".to_owned(), "p".to_owned())]
        );
    }
}
