//! The shell-like lexer under [`super::expand`] and heredoc recognition.
//!
//! One pass over the characters; the [`Mode`] says what survives of quotes, escapes and unset variables.

use super::expand::{ExpandError, Expanded, Variables};
use super::pattern::Pattern;

/// What the lexer does with what it recognises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    /// Quote characters stay in the result.
    pub(super) keep_quotes: bool,
    /// Escape characters stay in the result (what they escape is still not special).
    pub(super) keep_escapes: bool,
    /// Quotes are ordinary characters.
    pub(super) ignore_quotes: bool,
    /// A variable that is not set stays as it is written.
    pub(super) keep_unset: bool,
}

impl Mode {
    /// Expansion of an instruction's word.
    pub(super) const WORD: Self =
        Self { keep_quotes: false, keep_escapes: false, ignore_quotes: false, keep_unset: false };
    /// Expansion of a heredoc's body.
    pub(super) const HEREDOC: Self = Self { ignore_quotes: true, ..Self::WORD };
    /// Recognition of words only: everything stays.
    pub(super) const VERBATIM: Self = Self { keep_quotes: true, keep_escapes: true, ..Self::UNQUOTE };
    /// Removal of quotes and escapes only.
    pub(super) const UNQUOTE: Self = Self { keep_unset: true, ..Self::WORD };
    /// Recognition of words whose quotes matter: only escapes go.
    pub(super) const KEEP_QUOTES: Self = Self { keep_quotes: true, ..Self::UNQUOTE };
}

/// What a pass over a text found.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The text and the names in it.
    pub(super) expanded: Expanded,
    /// The text's words.
    pub(super) words: Vec<String>,
}

/// A pass over one text.
pub(super) struct Lexer<'a> {
    source: &'a str,
    chars: Vec<char>,
    position: usize,
    variables: &'a dyn Variables,
    escape: char,
    mode: Mode,
    undefined: Vec<String>,
    used: Vec<String>,
}

/// Nesting of `${a:-${b:-…}}` beyond this is refused rather than risked on the stack.
const MAX_DEPTH: usize = 100;

/// A text and its words, while they grow.
#[derive(Default)]
struct Sink {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Sink {
    /// Takes text that a blank does not split.
    fn whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    /// Takes text that blanks split into words.
    fn split(&mut self, text: &str) {
        self.text.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() {
                self.end_word();
            } else {
                self.word.push(c);
            }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Lexer<'a> {
    /// Prepares a pass over `source`.
    pub(super) fn new(source: &'a str, variables: &'a dyn Variables, escape: char, mode: Mode) -> Self {
        Self {
            source,
            chars: source.chars().collect(),
            position: 0,
            variables,
            escape,
            mode,
            undefined: Vec::new(),
            used: Vec::new(),
        }
    }

    /// Makes the pass.
    pub(super) fn run(mut self) -> Result<Output, ExpandError> {
        match self.until(None, self.mode.keep_escapes, 0) {
            Ok(sink) => Ok(Output {
                expanded: Expanded { text: sink.text, undefined: self.undefined, used: self.used },
                words: sink.words,
            }),
            Err(reason) => Err(ExpandError { word: self.source.to_owned(), reason }),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.position += usize::from(c.is_some());
        c
    }

    /// Reads to the stop character, which is consumed, or to the end of the text if there is none.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool, depth: usize) -> Result<Sink, String> {
        if depth > MAX_DEPTH {
            return Err(format!("substitutions are nested more than {MAX_DEPTH} deep"));
        }
        let mut sink = Sink::default();
        while let Some(c) = self.peek() {
            match c {
                _ if Some(c) == stop => {
                    self.next();
                    sink.end_word();
                    return Ok(sink);
                }
                '$' => {
                    let value = self.dollar(depth)?;
                    sink.split(&value);
                }
                '\'' if !self.mode.ignore_quotes => {
                    let text = self.single_quoted()?;
                    sink.whole(&text);
                }
                '"' if !self.mode.ignore_quotes => {
                    let text = self.double_quoted(keep_escapes, depth)?;
                    sink.whole(&text);
                }
                '<' => {
                    let operator = self.angle();
                    sink.whole(&operator);
                }
                _ if c == self.escape => {
                    self.next();
                    if keep_escapes {
                        sink.whole(c.encode_utf8(&mut [0; 4]));
                    }
                    if let Some(escaped) = self.next() {
                        sink.whole(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => {
                    self.next();
                    sink.split(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => {
                sink.end_word();
                Ok(sink)
            }
        }
    }

    /// Reads `'…'`: nothing in it is special.
    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.next();
        if self.mode.keep_quotes {
            text.push('\'');
        }
        loop {
            match self.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
                Some('\'') => {
                    if self.mode.keep_quotes {
                        text.push('\'');
                    }
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    /// Reads `"…"`: variables expand, and the escape character escapes `"`, `$` and itself.
    fn double_quoted(&mut self, keep_escapes: bool, depth: usize) -> Result<String, String> {
        let mut text = String::new();
        self.next();
        if self.mode.keep_quotes {
            text.push('"');
        }
        loop {
            match self.peek() {
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
                Some('"') => {
                    self.next();
                    if self.mode.keep_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar(depth)?),
                Some(c) if c == self.escape => {
                    self.next();
                    match self.peek() {
                        Some(special) if matches!(special, '"' | '$') || special == self.escape => {
                            if keep_escapes {
                                text.push(c);
                            }
                            text.push(special);
                            self.next();
                        }
                        _ => text.push(c),
                    }
                }
                Some(c) => {
                    text.push(c);
                    self.next();
                }
            }
        }
    }

    /// Reads `<`, and `<<` with the blanks that may stand between it and a heredoc's word.
    fn angle(&mut self) -> String {
        self.next();
        let mut text = "<".to_owned();
        if self.peek() == Some('<') {
            self.next();
            text.push('<');
            while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
                text.push(c);
                self.next();
            }
        }
        text
    }

    /// Reads `$…` and returns what it stands for.
    fn dollar(&mut self, depth: usize) -> Result<String, String> {
        let start = self.position;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                None if self.mode.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(MISSING_BRACE.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        let value = self.braced(&name, depth)?;
        Ok(match value {
            Braced::Unset if self.mode.keep_unset => self.chars[start..self.position].iter().collect(),
            Braced::Unset => String::new(),
            Braced::Text(text) => text,
        })
    }

    /// Reads what follows the name in `${name…}`.
    fn braced(&mut self, name: &str, depth: usize) -> Result<Braced, String> {
        let modifier = self.next().ok_or(MISSING_BRACE)?;
        match modifier {
            '}' => Ok(self.lookup(name).map_or(Braced::Unset, Braced::Text)),
            ':' => {
                let modifier = self.next().ok_or(MISSING_BRACE)?;
                if !matches!(modifier, '-' | '+' | '?') {
                    return Err(unsupported(&format!(":{modifier}")));
                }
                self.conditional(name, modifier, true, depth)
            }
            '-' | '+' | '?' => self.conditional(name, modifier, false, depth),
            '#' | '%' => self.trimmed(name, modifier, depth),
            '/' => self.replaced(name, depth),
            other => Err(unsupported(&other.to_string())),
        }
    }

    /// `${name:-word}` and its sisters; with a colon an empty value counts as unset.
    fn conditional(
        &mut self,
        name: &str,
        modifier: char,
        colon: bool,
        depth: usize,
    ) -> Result<Braced, String> {
        let word = self.operand('}', false, MISSING_BRACE, depth)?;
        let value = self.lookup(name);
        if value.is_none() && self.mode.keep_unset {
            return Ok(Braced::Unset);
        }
        let missing = match &value {
            None => Some("unset"),
            Some(value) if colon && value.is_empty() => Some("empty"),
            Some(_) => None,
        };
        match (modifier, missing) {
            ('-', Some(_)) | ('+', None) => Ok(Braced::Text(word)),
            ('?', Some(how)) if word.is_empty() => Err(format!("{name}: is not allowed to be {how}")),
            ('?', Some(_)) => Err(format!("{name}: {word}")),
            ('+', Some(_)) => Ok(Braced::Text(String::new())),
            _ => Ok(Braced::Text(value.unwrap_or_default())),
        }
    }

    /// `${name#pattern}`, `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`.
    fn trimmed(&mut self, name: &str, side: char, depth: usize) -> Result<Braced, String> {
        let word = self.operand('}', true, MISSING_BRACE, depth)?;
        let Some(value) = self.lookup_or_keep(name) else { return Ok(Braced::Unset) };
        let (word, longest) = match word.strip_prefix(side) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::parse(word)?;
        Ok(Braced::Text(match side {
            '#' => pattern.trim_prefix(&value, longest),
            _ => pattern.trim_suffix(&value, longest),
        }))
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str, depth: usize) -> Result<Braced, String> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let word = self.operand('/', true, "syntax error: missing '/' in ${}", depth)?;
        let replacement = self.operand('}', true, MISSING_BRACE, depth)?;
        let Some(value) = self.lookup_or_keep(name) else { return Ok(Braced::Unset) };
        Ok(Braced::Text(Pattern::parse(&word)?.replace(&value, &replacement, all)))
    }

    /// Reads a word inside `${…}`; at the end of the text the error is `missing`, whatever was open.
    fn operand(
        &mut self,
        stop: char,
        keep_escapes: bool,
        missing: &str,
        depth: usize,
    ) -> Result<String, String> {
        match self.until(Some(stop), keep_escapes, depth + 1) {
            Ok(sink) => Ok(sink.text),
            Err(_) if self.peek().is_none() => Err(missing.to_owned()),
            Err(reason) => Err(reason),
        }
    }

    /// Reads a name: letters, digits and `_`; or digits only; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(c);
                    self.next();
                }
                return name;
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.next();
                return name;
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.next();
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        let list = if value.is_some() { &mut self.used } else { &mut self.undefined };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
        value
    }

    /// Looks a name up for a form in which unset is as good as empty; `None` if it is to stay as written.
    fn lookup_or_keep(&mut self, name: &str) -> Option<String> {
        match self.lookup(name) {
            None if self.mode.keep_unset => None,
            value => Some(value.unwrap_or_default()),
        }
    }
}

/// What `${…}` stands for.
enum Braced {
    Unset,
    Text(String),
}

const MISSING_BRACE: &str = "syntax error: missing '}'";

fn unsupported(modifier: &str) -> String {
    format!("unsupported modifier ({modifier}) in substitution")
}
