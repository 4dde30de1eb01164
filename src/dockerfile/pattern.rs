//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, nothing else.

use std::fmt::Write as _;

use regex::{NoExpand, Regex};

/// A pattern.
pub(super) struct Pattern {
    /// As a regular expression in which `*` takes as much as it can.
    greedy: String,
    /// As a regular expression in which `*` takes as little as it can.
    lazy: String,
}

impl Pattern {
    /// Parses a pattern in which escapes are still written out.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH_BYTES {
            return Err(format!("invalid pattern in substitution: longer than {MAX_LENGTH_BYTES} bytes"));
        }
        let (mut greedy, mut lazy) = (String::new(), String::new());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' => {
                    greedy.push_str(".*");
                    lazy.push_str(".*?");
                    continue;
                }
                '?' => {
                    greedy.push('.');
                    lazy.push('.');
                    continue;
                }
                // What `${…}` itself needs escaped is no escape of the pattern's.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\')) => escaped,
                    other => {
                        let other = other.map_or_else(String::new, String::from);
                        return Err(format!(
                            "invalid pattern ({text}) in substitution: invalid escape '\\{other}'"
                        ));
                    }
                },
                c => c,
            };
            let escaped = regex::escape(literal.encode_utf8(&mut [0; 4]));
            // Writing to a String cannot fail.
            let _ = write!(greedy, "{escaped}");
            let _ = write!(lazy, "{escaped}");
        }
        Ok(Self { greedy, lazy })
    }

    /// Removes the shortest or longest prefix that matches.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let body = if longest { &self.greedy } else { &self.lazy };
        match compile(&format!(r"\A(?:{body})")).and_then(|regex| regex.find(value).map(|m| m.end())) {
            Some(end) => value[end..].to_owned(),
            None => value.to_owned(),
        }
    }

    /// Removes the shortest or longest suffix that matches.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        // The leftmost match that reaches the end is the longest suffix; to get the shortest, let
        // everything before it take as much as it can.
        let before = if longest { "" } else { r"\A(?s:.*)" };
        let start = compile(&format!(r"{before}({})\z", self.greedy))
            .and_then(|regex| regex.captures(value)?.get(1).map(|m| m.start()));
        match start {
            Some(start) => value[..start].to_owned(),
            None => value.to_owned(),
        }
    }

    /// Replaces the first match or all of them; a match is as long as it can be.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let Some(regex) = compile(&self.greedy) else { return value.to_owned() };
        let limit = usize::from(!all);
        regex.replacen(value, limit, NoExpand(replacement)).into_owned()
    }
}

/// Longest pattern: its compiled form stays well below the regex engine's default limit of 10 MiB.
const MAX_LENGTH_BYTES: usize = 8 * 1024;

/// Compiles an expression made of escaped literals and wildcards: always valid, and never too large.
fn compile(expression: &str) -> Option<Regex> {
    Regex::new(expression).ok()
}
