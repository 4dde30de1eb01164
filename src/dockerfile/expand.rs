//! Expansion of variables, as a POSIX shell does it and no further.

use std::collections::BTreeMap;

/// Where variables come from.
pub trait Variables {
    /// Returns the value of `name`; `None` if it is not set.
    fn get(&self, name: &str) -> Option<&str>;
    /// Returns the names that are set, for suggestions.
    fn names(&self) -> Vec<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

impl Variables for [(String, String)] {
    /// The last pair of a name counts.
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|(key, _)| key.as_str()).collect()
    }
}

impl Variables for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        Variables::get(self.as_slice(), name)
    }

    fn names(&self) -> Vec<&str> {
        Variables::names(self.as_slice())
    }
}

/// A text after expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were not set, and for which no `-`, `+` or `?` form said what to do (lint `UndefinedVar`).
    pub undefined: Vec<String>,
    /// Names that were looked at, in order, once each.
    pub used: Vec<String>,
}

/// Why a text cannot be expanded: `failed to process "WORD": …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    /// The whole text.
    pub word: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Expands one text; quotes are removed, nothing is split.
pub fn expand(_word: &str, _variables: &dyn Variables, _escape: char) -> Result<Expanded, ExpandError> {
    todo!()
}

/// Expands one text and splits the result at unquoted blanks (`EXPOSE`).
pub fn expand_words(
    _word: &str,
    _variables: &dyn Variables,
    _escape: char,
) -> Result<Vec<String>, ExpandError> {
    todo!()
}

/// Expands the body of a `COPY` or `ADD` heredoc: quotes stay, the escape is always a backslash.
pub fn expand_heredoc(_body: &str, _variables: &dyn Variables) -> Result<Expanded, ExpandError> {
    todo!()
}

/// Expands a source pattern of `COPY` or `ADD`: as [`expand`], but what the escape character protects from
/// the matcher stays protected.
pub fn expand_pattern(
    _word: &str,
    _variables: &dyn Variables,
    _escape: char,
) -> Result<Expanded, ExpandError> {
    todo!()
}
