//! Physical lines to logical lines: comments, continuations, directives, heredoc bodies.

use super::directives::DirectiveScanner;
use super::{ParseError, Span};

/// Longest physical line, in bytes without its line end, as in BuildKit.
const MAX_LINE_BYTES: usize = 65_535;

/// An instruction's text with its continuations joined.
#[derive(Debug)]
pub(super) struct LogicalLine {
    /// The text; leading blanks are gone.
    pub(super) text: String,
    /// Its lines, comments and blank lines in between included.
    pub(super) span: Span,
    /// The comments above it.
    pub(super) comments: Vec<String>,
    /// Whether a blank line stands between its lines.
    pub(super) empty_continuation: bool,
    /// Whether some of it is not UTF-8.
    pub(super) invalid_utf8: bool,
}

/// A heredoc's body.
#[derive(Debug)]
pub(super) struct Body {
    /// The bytes between the instruction and the terminator.
    pub(super) text: String,
    /// Whether some of it is not UTF-8.
    pub(super) invalid_utf8: bool,
}

/// Reads a Dockerfile line by line.
pub(super) struct Reader<'a> {
    /// What has not been read yet.
    rest: &'a [u8],
    number: usize,
    escape: char,
    directives: DirectiveScanner,
}

impl<'a> Reader<'a> {
    /// Starts at the first line; a byte order mark is skipped.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        Self { rest: bytes, number: 0, escape: '\\', directives: DirectiveScanner::new("#") }
    }

    /// Returns the escape character as far as it is known: for good once a logical line was read.
    pub(super) fn escape(&self) -> char {
        self.escape
    }

    /// Returns the number of the line read last.
    pub(super) fn line_number(&self) -> usize {
        self.number
    }

    fn physical(&mut self) -> Result<Option<&'a [u8]>, ParseError> {
        let Some(line) = self.rest.split_inclusive(|byte| *byte == b'\n').next() else { return Ok(None) };
        self.rest = &self.rest[line.len()..];
        self.number += 1;
        if line.strip_suffix(b"\n").unwrap_or(line).len() > MAX_LINE_BYTES {
            return Err(
                self.error(format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}"))
            );
        }
        Ok(Some(line))
    }

    fn error(&self, message: String) -> ParseError {
        ParseError { message, span: Some(Span::line(self.number)), hint: None }
    }

    /// Reads the next instruction's text; `None` at the end of the file.
    pub(super) fn logical(&mut self) -> Result<Option<LogicalLine>, ParseError> {
        let mut comments = Vec::new();
        while let Some(bytes) = self.physical()? {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim_end_matches(['\r', '\n']);
            let line = text.trim_start();
            if line.starts_with('#') {
                if !self.directive(line)? {
                    comment(text, &mut comments);
                }
                continue;
            }
            // Anything else ends the directives, a blank line too.
            self.directive(line)?;
            let (content, continued) = self.continuation(line);
            if content.is_empty() && !continued {
                continue;
            }
            let mut logical = LogicalLine {
                text: content.to_owned(),
                span: Span::line(self.number),
                comments,
                empty_continuation: false,
                invalid_utf8: std::str::from_utf8(bytes).is_err(),
            };
            if continued {
                self.continue_line(&mut logical)?;
            }
            logical.span.end_line = self.number;
            return Ok(Some(logical));
        }
        Ok(None)
    }

    /// Appends the lines that continue `logical`.
    fn continue_line(&mut self, logical: &mut LogicalLine) -> Result<(), ParseError> {
        while let Some(bytes) = self.physical()? {
            let text = String::from_utf8_lossy(bytes);
            let line = text.trim_end_matches(['\r', '\n']);
            match line.trim_start().chars().next() {
                Some('#') => continue,
                None => {
                    logical.empty_continuation = true;
                    continue;
                }
                Some(_) => {}
            }
            logical.invalid_utf8 |= std::str::from_utf8(bytes).is_err();
            let (content, continued) = self.continuation(line);
            logical.text.push_str(content);
            if !continued {
                break;
            }
        }
        Ok(())
    }

    /// Takes a line as a parser directive if it is one.
    fn directive(&mut self, line: &str) -> Result<bool, ParseError> {
        let directive = self.directives.line(line).map_err(|message| self.error(message))?;
        let Some(directive) = directive else { return Ok(false) };
        if directive.key == "escape" {
            self.escape = match directive.value.as_str() {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(self.error(format!("invalid escape token '{other}' does not match ` or \\")));
                }
            };
        }
        Ok(true)
    }

    /// Splits a continuation off the end of a line: the escape character, not itself escaped, and blanks.
    fn continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(content) if !content.ends_with(self.escape) => (content, true),
            _ => (line, false),
        }
    }

    /// Reads a heredoc's body up to its terminator; `None` if there is no terminator.
    pub(super) fn heredoc_body(
        &mut self,
        terminator: &str,
        strip_tabs: bool,
    ) -> Result<Option<Body>, ParseError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.physical()? {
            let mut line = bytes;
            while let Some(shorter) = line.strip_suffix(b"\n").or_else(|| line.strip_suffix(b"\r")) {
                line = shorter;
            }
            while strip_tabs && line.first() == Some(&b'\t') {
                line = &line[1..];
            }
            if line == terminator.as_bytes() {
                return Ok(Some(match String::from_utf8(body) {
                    Ok(text) => Body { text, invalid_utf8: false },
                    Err(error) => Body {
                        text: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                        invalid_utf8: true,
                    },
                }));
            }
            body.extend_from_slice(bytes);
        }
        Ok(None)
    }
}

/// Remembers a comment for the instruction below it; an empty one cuts the tie to those above.
///
/// Only the line's first character is dropped, so an indented comment keeps its `#`, as in BuildKit.
fn comment(line: &str, comments: &mut Vec<String>) {
    let mut chars = line.chars();
    chars.next();
    match chars.as_str().trim() {
        "" => comments.clear(),
        text => comments.push(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, usize, usize)> {
        let mut reader = Reader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = reader.logical().unwrap() {
            lines.push((line.text, line.span.start_line, line.span.end_line));
        }
        lines
    }

    fn line(text: &str, start: usize, end: usize) -> (String, usize, usize) {
        (text.to_owned(), start, end)
    }

    #[test]
    fn lines_are_joined() {
        for (text, expected) in [
            ("\u{feff}a\r\nb\r\n", vec![line("a", 1, 1), line("b", 2, 2)]),
            ("  a \\\n  b\n", vec![line("a   b", 1, 2)]),
            ("a \\ \t\n# c\n  # d\nb", vec![line("a b", 1, 4)]),
            ("a \\\n\n  \nb\n", vec![line("a b", 1, 4)]),
            ("a \\\\\nb\n", vec![line("a \\\\", 1, 1), line("b", 2, 2)]),
            ("a\\\n\\\nb", vec![line("ab", 1, 3)]),
            ("\\\na\n", vec![line("a", 1, 2)]),
            ("a \\\n", vec![line("a ", 1, 1)]),
            ("a \\\r\nb", vec![line("a b", 1, 2)]),
            ("# escape=`\na `\nb \\\n", vec![line("a b \\", 2, 3)]),
            ("\n# escape=`\na \\\nb", vec![line("a b", 3, 4)]),
            ("#\n# escape=`\na \\\nb", vec![line("a b", 3, 4)]),
            ("a # no comment\n", vec![line("a # no comment", 1, 1)]),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_stay_with_what_follows() {
        let mut reader = Reader::new(b"# syntax=x\n#a\n# b\n\nX\n#c\n#\n# d \n # e\nY\nZ");
        let mut comments = || reader.logical().unwrap().unwrap().comments;
        assert_eq!(comments(), ["a", "b"]);
        assert_eq!(comments(), ["d", "# e"]);
        assert_eq!(comments(), Vec::<String>::new());
    }

    #[test]
    fn bad_directives() {
        let error = |text: &str| Reader::new(text.as_bytes()).logical().unwrap_err().message;
        assert_eq!(error("# escape=x\n"), "invalid escape token 'x' does not match ` or \\");
        assert_eq!(error("#escape=`\n#escape=`\n"), "only one escape parser directive can be used");
        assert_eq!(error("#syntax=a\n#syntax=a\n"), "only one syntax parser directive can be used");
    }

    #[test]
    fn a_line_may_be_64_kib_less_one_byte() {
        let longest = "x".repeat(MAX_LINE_BYTES);
        assert_eq!(read(&format!("{longest}\ny")).len(), 2);
        let error = Reader::new(format!("y\\\n{longest}x\n").as_bytes()).logical().unwrap_err();
        assert_eq!(error.message, "dockerfile line greater than max allowed size of 65535");
        assert_eq!(error.span, Some(Span::line(2)));
    }

    #[test]
    fn heredoc_bodies() {
        let mut reader = Reader::new(b"\tx\r\n\\\n# y\n\tEOF\r\nz\nEOF");
        assert_eq!(reader.heredoc_body("EOF", true).unwrap().unwrap().text, "\tx\r\n\\\n# y\n");
        assert_eq!(reader.heredoc_body("EOF", false).unwrap().unwrap().text, "z\n");
        assert!(reader.heredoc_body("EOF", false).unwrap().is_none());
    }
}
