//! Parser directives: `# key = value` at the very top of a Dockerfile.
//!
//! `syntax` and `check` are looked for as BuildKit's front door does (a `#!` line may come first, and
//! `syntax` has two more spellings); `escape` is read by the parser itself, line by line.

use super::{CheckDirective, ParseError, Span, Syntax};

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    /// `syntax`, `escape` or `check`.
    pub(super) key: &'static str,
    /// The value, without outer blanks.
    pub(super) value: String,
}

/// Recognises directives line by line until something else comes.
#[derive(Debug)]
pub(super) struct DirectiveScanner {
    prefix: &'static str,
    seen: Vec<&'static str>,
    done: bool,
}

const KEYS: [&str; 3] = ["syntax", "escape", "check"];

impl DirectiveScanner {
    /// Starts at the top of a text in which `prefix` begins a comment.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { prefix, seen: Vec::new(), done: false }
    }

    /// Looks at the next line. The error is the text for a directive that comes twice.
    pub(super) fn line(&mut self, line: &str) -> Result<Option<Directive>, String> {
        if self.done {
            return Ok(None);
        }
        let directive = line.strip_prefix(self.prefix).and_then(split);
        let Some(directive) = directive else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&directive.key) {
            return Err(format!("only one {} parser directive can be used", directive.key));
        }
        self.seen.push(directive.key);
        Ok(Some(directive))
    }
}

/// Splits `key = value`; the key must be a known one.
fn split(text: &str) -> Option<Directive> {
    let (key, value) = text.trim_start().split_once('=')?;
    let key = key.trim_end_matches(|c: char| c.is_ascii_whitespace()).to_ascii_lowercase();
    let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
    let key = KEYS.into_iter().find(|known| *known == key)?;
    (!value.is_empty()).then(|| Directive { key, value: value.to_owned() })
}

/// Splits a comment (without its `#`) that is a `check=` directive for the instruction below it.
pub(crate) fn check_comment(comment: &str) -> Option<String> {
    let directive = split(comment).filter(|directive| directive.key == "check")?;
    Some(directive.value.split(' ').next().unwrap_or_default().to_owned())
}

/// Finds a directive from the top of a text; the number is its line.
fn find(text: &str, key: &str, prefix: &'static str) -> Option<(String, usize)> {
    let mut scanner = DirectiveScanner::new(prefix);
    let lines = text.lines().enumerate().skip(usize::from(text.starts_with("#!")));
    for (index, line) in lines {
        match scanner.line(line) {
            Ok(Some(directive)) if directive.key == key => return Some((directive.value, index + 1)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

/// Finds `# check=`.
pub(super) fn find_check(text: &str) -> Option<CheckDirective> {
    find(text, "check", "#").map(|(value, line)| CheckDirective { value, span: Span::line(line) })
}

/// Finds the frontend a file asks for: `# syntax=`, `// syntax=`, or a JSON object with a `syntax`.
pub(super) fn find_syntax(text: &str) -> Option<Syntax> {
    let (command_line, line) =
        find(text, "syntax", "#").or_else(|| find(text, "syntax", "//")).or_else(|| {
            let skipped = usize::from(text.starts_with("#!"));
            let json = if skipped == 1 { text.split_once('\n')?.1 } else { text };
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
            Some((object.get("syntax")?.as_str()?.to_owned(), skipped + 1))
        })?;
    let image = command_line.split(' ').next().unwrap_or_default().to_owned();
    Some(Syntax { image, command_line, span: Span::line(line) })
}

impl Syntax {
    /// Tells whether the frontend named is the language kiln itself implements: `docker/dockerfile` or
    /// `docker/dockerfile-upstream` at any version, or BuildKit's own `dockerfile.v0`.
    pub fn is_builtin(&self) -> bool {
        is_builtin(&self.image)
    }
}

fn is_builtin(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let name = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"]
        .into_iter()
        .find_map(|host| name.strip_prefix(host))
        .unwrap_or(name);
    let repository = name.split(':').next().unwrap_or_default();
    matches!(repository, "docker/dockerfile" | "docker/dockerfile-upstream") || image == "dockerfile.v0"
}

/// Refuses a file that asks for a frontend other than the builtin one. `requested` is the build argument
/// `BUILDKIT_SYNTAX`, which counts instead of what the file says.
pub fn check_syntax(bytes: &[u8], requested: Option<&str>) -> Result<(), ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (image, span) = match requested.filter(|requested| !requested.is_empty()) {
        Some(requested) => (requested.split(' ').next().unwrap_or_default().to_owned(), None),
        None => match find_syntax(text) {
            Some(syntax) => (syntax.image, Some(syntax.span)),
            None => return Ok(()),
        },
    };
    if is_builtin(&image) {
        return Ok(());
    }
    Err(ParseError {
        message: format!("unsupported frontend `{image}`, expected `docker/dockerfile`"),
        span,
        hint: Some(
            "kiln implements docker/dockerfile itself and runs no other frontend: remove the syntax directive"
                .to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_has_three_spellings() {
        for (text, image, line) in [
            ("# syntax=docker/dockerfile:1\nFROM x", "docker/dockerfile:1", 1),
            ("#SYNTAX = a b c \r\nFROM x", "a", 1),
            ("#!/bin/sh\n# syntax=a\n", "a", 2),
            ("# escape=`\n# syntax=a\n", "a", 2),
            ("// syntax=a\nhello", "a", 1),
            ("{\"syntax\": \"a\", \"x\": 1}", "a", 1),
        ] {
            let syntax = find_syntax(text).expect(text);
            assert_eq!((syntax.image.as_str(), syntax.span), (image, Span::line(line)), "{text}");
        }
        for text in
            ["", "FROM x\n# syntax=a", "# hello\n# syntax=a", "\n# syntax=a", "# syntax=\n", "#\n#syntax=a"]
        {
            assert_eq!(find_syntax(text), None, "{text}");
        }
    }

    #[test]
    fn builtin_frontends() {
        for image in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1@sha256:00",
            "docker/dockerfile-upstream:master",
            "dockerfile.v0",
        ] {
            check_syntax(format!("# syntax={image}\n").as_bytes(), None).unwrap();
        }
        for image in ["docker/dockerfile2", "mydocker/dockerfile:1", "tonistiigi/x", "dockerfile.v1"] {
            let error = check_syntax(format!("# syntax={image}\n").as_bytes(), None).unwrap_err();
            assert_eq!(error.span, Some(Span::line(1)));
            check_syntax(format!("# syntax={image}\n").as_bytes(), Some("docker/dockerfile:1")).unwrap();
        }
        assert!(check_syntax(b"FROM x", Some("other/frontend")).is_err());
    }

    #[test]
    fn a_directive_comes_once() {
        let mut scanner = DirectiveScanner::new("#");
        assert!(scanner.line("# escape=`").unwrap().is_some());
        assert_eq!(scanner.line("#Escape=\\").unwrap_err(), "only one escape parser directive can be used");
        let mut scanner = DirectiveScanner::new("#");
        assert_eq!(scanner.line("# unknown=1"), Ok(None));
        assert_eq!(scanner.line("# escape=`"), Ok(None));
    }

    #[test]
    fn check_comments() {
        assert_eq!(check_comment("check=skip=all // why").as_deref(), Some("skip=all"));
        assert_eq!(check_comment(" check = skip=A,B").as_deref(), Some("skip=A,B"));
        assert_eq!(check_comment("checks=skip=all"), None);
    }
}
