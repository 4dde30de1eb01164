//! Which paths a `.dockerignore` file or `--exclude` hides, by the rules of moby/patternmatcher.
//!
//! The last pattern that matches decides; one behind `!` brings back. A pattern that matches a directory covers what
//! is below it. `**` crosses directories, `*`, `?` do not; otherwise patterns are as in [`super::glob`].
//!
//! Two faults of the original are not kept: a special character between brackets means itself, and `^` outside of
//! brackets does as well.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};

use regex::Regex;

use super::ContextError;
use super::glob::{self, Token};

/// Patterns of paths, of which the last that matches decides.
#[derive(Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
    /// The patterns as texts, in order.
    texts: Vec<String>,
    /// What was found out about the last path that was asked for, a level for each of its components: paths
    /// mostly come in the order of a walk.
    way: Mutex<Vec<Level>>,
}

impl Ignore {
    /// Compiles patterns as they are written behind `--exclude`.
    pub fn new(patterns: &[String]) -> Result<Self, ContextError> {
        let texts: Vec<String> = patterns
            .iter()
            .map(|pattern| pattern.trim())
            .filter(|pattern| !pattern.is_empty())
            .map(str::to_owned)
            .collect();
        let patterns = texts.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>()?;
        Ok(Self { patterns, texts, way: Mutex::default() })
    }

    /// Returns the patterns in order, `!` included.
    pub fn patterns(&self) -> &[String] {
        &self.texts
    }

    /// Reads an ignore file.
    pub fn parse(text: &[u8]) -> Result<Self, ContextError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let line = std::str::from_utf8(line)
                .map_err(|_| ContextError::IgnoreNotText { line: index + 1 })?
                .trim();
            let (negation, path) = match line.strip_prefix('!') {
                Some(path) => ("!", path.trim()),
                None => ("", line),
            };
            let cleaned = if path.is_empty() { String::new() } else { clean(path) };
            let relative = match cleaned.strip_prefix('/') {
                Some(relative) if !relative.is_empty() => relative,
                _ => &cleaned,
            };
            patterns.push(format!("{negation}{relative}"));
        }
        Self::new(&patterns)
    }

    /// Hides nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Tells whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Tells whether `path`, relative to the context's root, is hidden. The root itself never is.
    pub fn is_ignored(&self, path: &Path) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut depth = 0;
        for name in names(path) {
            if depth > 0 {
                text.push('/');
            }
            push_lossy(&mut text, name);
            if way.get(depth).is_none_or(|level| level.name != name) {
                way.truncate(depth);
                let level = self.level(name, &text, way.last());
                way.push(level);
            }
            depth += 1;
        }
        depth > 0 && way[depth - 1].ignored
    }

    /// Tells whether something below `directory`, which is hidden, may be brought back by a `!` pattern. Says
    /// yes where telling for sure would be too much work.
    pub fn may_include_below(&self, directory: &Path) -> bool {
        self.patterns.iter().filter(|pattern| pattern.negated).any(|pattern| {
            let mut parts = pattern.text.split('/');
            for name in names(directory) {
                match parts.next() {
                    // What the pattern did not bring back with the directory it does not bring back below.
                    None => return false,
                    Some(part) if part.contains("**") || glob::check(part).is_err() => return true,
                    Some(part) if !glob::match_component(part, name) => return false,
                    Some(_) => {}
                }
            }
            parts.next().is_some()
        })
    }

    /// Asks every pattern about the path `text`, whose last component is `name`. A pattern that covers the
    /// directory above need not be asked; one that could not change the outcome is not, which is what its
    /// answer for the paths below then builds on, as in the original.
    fn level(&self, name: &OsStr, text: &str, above: Option<&Level>) -> Level {
        let mut level =
            Level { name: name.to_owned(), matched: vec![false; self.patterns.len()], ignored: false };
        for (index, pattern) in self.patterns.iter().enumerate() {
            let covered = above.is_some_and(|above| above.matched[index]);
            if covered || (pattern.negated == level.ignored && pattern.matches(text)) {
                level.matched[index] = true;
                level.ignored = !pattern.negated;
            }
        }
        level
    }
}

/// What is known about one component on the way to a path.
#[derive(Debug)]
struct Level {
    name: OsString,
    /// Which patterns match it, or a directory above it.
    matched: Vec<bool>,
    ignored: bool,
}

#[derive(Debug)]
struct Pattern {
    negated: bool,
    /// Cleaned, without `!`.
    text: String,
    /// None if `text` is to be taken literally.
    regex: Option<Regex>,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, ContextError> {
        let cleaned = clean(pattern);
        let (negated, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err(ContextError::LoneExclamation),
            Some(text) => (true, text.to_owned()),
            None => (false, cleaned),
        };
        let bad = |reason: String| ContextError::Pattern { pattern: pattern.to_owned(), reason };
        let tokens = glob::parse(&text).map_err(|reason| bad(reason.to_owned()))?;
        let is_literal = !text.contains(['*', '?', '[', '\\']);
        let regex = match is_literal {
            true => None,
            false => Some(Regex::new(&translate(&text, &tokens)).map_err(|error| bad(error.to_string()))?),
        };
        Ok(Self { negated, text, regex })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(path),
            None => self.text == path,
        }
    }
}

/// Writes a pattern as a regular expression.
fn translate(text: &str, tokens: &[Token]) -> String {
    // `**name` also ends longer names, but `**na*e` and `**/name` do not.
    let suffix = text.strip_prefix("**").is_some_and(|rest| !rest.contains(['*', '?', '[', ']', '\\', '/']));
    let mut regex = String::from("^(?s:");
    let mut rest = tokens;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        match token {
            Token::Star if after.first() == Some(&Token::Star) => {
                rest = &after[1..];
                if rest.first() == Some(&Token::Literal('/')) {
                    rest = &rest[1..];
                }
                regex.push_str(if rest.is_empty() || suffix { ".*" } else { "(?:.*/)?" });
            }
            Token::Star => regex.push_str("[^/]*"),
            Token::One => regex.push_str("[^/]"),
            Token::Literal(char) => push_literal(&mut regex, *char),
            Token::Class(class) => push_class(&mut regex, class),
        }
    }
    regex.push_str(")$");
    regex
}

fn push_literal(regex: &mut String, char: char) {
    regex.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
}

fn push_class(regex: &mut String, class: &glob::Class) {
    let ranges: Vec<_> = class.ranges.iter().filter(|(low, high)| low <= high).collect();
    match (ranges.is_empty(), class.negated) {
        (true, true) => return regex.push('.'),
        (true, false) => return regex.push_str("[^\\x{0}-\\x{10FFFF}]"),
        (false, true) => regex.push_str("[^"),
        (false, false) => regex.push('['),
    }
    for (low, high) in ranges {
        write!(regex, "\\x{{{:X}}}-\\x{{{:X}}}", u32::from(*low), u32::from(*high))
            .expect("writing to a string succeeds");
    }
    regex.push(']');
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// Each byte that is not UTF-8 becomes a character of its own, which `?` matches.
fn push_lossy(text: &mut String, name: &OsStr) {
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// Shortens a path as Go's `path.Clean` does: no empty parts, no `.`, and `..` only at the front.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

#[cfg(test)]
mod tests;
