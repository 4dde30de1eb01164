//! Expansion of variables, as `docker/dockerfile` does it: quotes, escapes, `$name` and `${…}`.
//!
//! Pure and single-pass: what a variable's value contains is never looked at again. Arithmetic, command
//! substitution and bracket patterns do not exist. Every error names the whole text it was found in.

use std::collections::BTreeMap;

use super::lexer::{Lexer, Mode};

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

/// Has no variables at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// A text after expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were not set, whatever form asked for them, in order, once each (lint `UndefinedVar`).
    pub undefined: Vec<String>,
    /// Names that were set and looked at, in order, once each.
    pub used: Vec<String>,
}

/// Why a text cannot be expanded: `failed to process "WORD": …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", super::quote::go(.word))]
pub struct ExpandError {
    /// The whole text.
    pub word: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Expands one text; quotes are removed, nothing is split.
pub fn expand(word: &str, variables: &dyn Variables, escape: char) -> Result<Expanded, ExpandError> {
    Lexer::new(word, variables, escape, Mode::WORD).run().map(|run| run.expanded)
}

/// Expands one text and splits the result at blanks outside quotes (`EXPOSE`); empty words vanish.
pub fn expand_words(word: &str, variables: &dyn Variables, escape: char) -> Result<Vec<String>, ExpandError> {
    Lexer::new(word, variables, escape, Mode::WORD).run().map(|run| run.words)
}

/// Expands the body of a `COPY` or `ADD` heredoc: quotes stay, the escape is always a backslash.
pub fn expand_heredoc(body: &str, variables: &dyn Variables) -> Result<Expanded, ExpandError> {
    Lexer::new(body, variables, '\\', Mode::HEREDOC).run().map(|run| run.expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Vec<(String, String)> {
        [
            ("PWD", "/home"),
            ("NULL", ""),
            ("WORD", "a b"),
            ("PATHS", "x/y/z.tar.gz"),
            ("KOREAN", "한국어"),
            ("1", "one"),
            ("P", "80 81"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }

    fn text(word: &str) -> String {
        expand(word, &variables(), '\\').unwrap_or_else(|error| panic!("{word}: {error}")).text
    }

    fn reason(word: &str) -> String {
        expand(word, &variables(), '\\').expect_err(word).reason
    }

    #[test]
    fn plain_forms() {
        for (word, expected) in [
            ("", ""),
            ("$PWD", "/home"),
            ("${PWD}", "/home"),
            ("$PWDx", ""),
            ("${PWD}x", "/homex"),
            ("a$", "a$"),
            ("$.", "$."),
            ("$ ", "$ "),
            ("$1x", "onex"),
            ("$12", ""),
            ("$@x", "x"),
            ("${NONE}", ""),
            ("${KOREAN}어", "한국어어"),
            ("he\\$PWD", "he$PWD"),
            ("he\\\\$PWD", "he\\/home"),
            ("\\a", "a"),
            ("a\\", "a"),
            ("'$PWD'", "$PWD"),
            ("'a\\'", "a\\"),
            ("\"$PWD\"", "/home"),
            ("\"a\\b\\\"\\$\\\\\"", "a\\b\"$\\"),
            ("\"it's\"", "it's"),
            ("'a'\"b\"c", "abc"),
        ] {
            assert_eq!(text(word), expected, "{word}");
        }
    }

    #[test]
    fn modifiers() {
        for (word, expected) in [
            ("${NONE:-w}", "w"),
            ("${NONE-w}", "w"),
            ("${NULL:-w}", "w"),
            ("${NULL-w}", ""),
            ("${PWD:+w}", "w"),
            ("${NULL:+w}", ""),
            ("${NULL+w}", "w"),
            ("${NONE+w}", ""),
            ("${PWD:?m}", "/home"),
            ("${NULL?m}", ""),
            ("${NONE:-${PWD}x}", "/homex"),
            ("${NONE:-${ALSO:-${PWD}}}", "/home"),
            ("${NONE:-'a}b'}", "a}b"),
            ("${NONE:-a\\}b}", "a}b"),
            ("${NONE:-\"a $PWD\"}", "a /home"),
        ] {
            assert_eq!(text(word), expected, "{word}");
        }
    }

    #[test]
    fn patterns() {
        for (word, expected) in [
            ("${PATHS#*/}", "y/z.tar.gz"),
            ("${PATHS##*/}", "z.tar.gz"),
            ("${PATHS%.*}", "x/y/z.tar"),
            ("${PATHS%%.*}", "x/y/z"),
            ("${PATHS%?z}", "x/y/z.tar."),
            ("${PATHS#y}", "x/y/z.tar.gz"),
            ("${PATHS/\\//-}", "x-y/z.tar.gz"),
            ("${PATHS//\\//-}", "x-y-z.tar.gz"),
            ("${PATHS/t*r/T}", "x/y/z.T.gz"),
            ("${PATHS//[a-z]/T}", "x/y/z.tar.gz"),
            ("${PATHS/$NONE/T}", "Tx/y/z.tar.gz"),
            ("${NONE#x}", ""),
            ("${PATHS%\\*}", "x/y/z.tar.gz"),
            ("${PATHS/x/$PWD}", "/home/y/z.tar.gz"),
        ] {
            assert_eq!(text(word), expected, "{word}");
        }
    }

    #[test]
    fn errors_have_their_literal_text() {
        for (word, expected) in [
            ("'x", "unexpected end of statement while looking for matching single-quote"),
            ("\"x", "unexpected end of statement while looking for matching double-quote"),
            ("\"x\\", "unexpected end of statement while looking for matching double-quote"),
            ("${}", "syntax error: bad substitution"),
            ("${:x}", "syntax error: bad substitution"),
            ("${{x}", "syntax error: bad substitution"),
            ("${", "syntax error: missing '}'"),
            ("${PWD", "syntax error: missing '}'"),
            ("${PWD:", "syntax error: missing '}'"),
            ("${PWD:-x", "syntax error: missing '}'"),
            ("${PWD:=x}", "unsupported modifier (:=) in substitution"),
            ("${PWD=x}", "unsupported modifier (=) in substitution"),
            ("${PWD:#x}", "unsupported modifier (:#) in substitution"),
            ("${PWD:%%}", "unsupported modifier (:%) in substitution"),
            ("${PWD/x}", "syntax error: missing '/' in ${}"),
            ("${PWD/x/y", "syntax error: missing '}'"),
            ("${NONE?}", "NONE: is not allowed to be unset"),
            ("${NULL:?}", "NULL: is not allowed to be empty"),
            ("${NONE?need $PWD}", "NONE: need /home"),
            ("${PWD#\\n}", "invalid pattern (\\n) in substitution: invalid escape '\\n'"),
        ] {
            assert_eq!(reason(word), expected, "{word}");
        }
        let error = expand("a\"b", &NoVariables, '\\').unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to process \"a\\\"b\": unexpected end of statement while looking for matching double-quote"
        );
    }

    #[test]
    fn the_escape_character_can_be_a_backtick() {
        let expanded = expand("a\\b`$PWD`\"", &variables(), '`').unwrap();
        assert_eq!(expanded.text, "a\\b$PWD\"");
    }

    #[test]
    fn names_are_reported_once_and_in_order() {
        let expanded = expand("$B$PWD${A:-$B}${PWD}$NULL", &variables(), '\\').unwrap();
        assert_eq!(expanded.undefined, ["B", "A"]);
        assert_eq!(expanded.used, ["PWD", "NULL"]);
    }

    #[test]
    fn words_split_after_expansion_but_not_in_quotes() {
        let words = |word| expand_words(word, &variables(), '\\').unwrap();
        assert_eq!(words("$P 'a b' 9$P"), ["80", "81", "a b", "980", "81"]);
        assert_eq!(words("\"$P\""), ["80 81"]);
        assert_eq!(words("8${NONE:-0}1"), ["801"]);
        assert_eq!(words("  "), Vec::<String>::new());
    }

    #[test]
    fn heredoc_bodies_keep_quotes() {
        let body = |text| expand_heredoc(text, &variables()).unwrap().text;
        assert_eq!(body("'$PWD' \"$PWD\" \\$PWD \\\\ \\\nx `"), "'/home' \"/home\" $PWD \\ \nx `");
    }
}
