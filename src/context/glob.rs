//! Wildcards in the sources of `COPY` and `ADD`, one path component at a time, as Go's `filepath.Match` has them.
//!
//! `*` stands for any number of characters, `?` for one, `[a-z]` and `[^a-z]` for one of a class; a backslash takes
//! the next character literally. A leading dot is nothing special. A byte of a name that is not UTF-8 counts as one
//! character that only `*`, `?` and `[^…]` match. `**` is two stars and thus one: patterns that cross directories are
//! the ignore file's business.

use std::ffi::OsStr;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt as _;
use std::str::Chars;

use super::ContextError;

/// Go sees this character in place of a byte that is not UTF-8.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Tells whether `part` holds a `*`, `?` or `[` that is not behind a backslash.
pub fn has_wildcard(part: &str) -> bool {
    let mut chars = part.chars();
    while let Some(char) = chars.next() {
        match char {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// Checks that `part` is well formed.
pub fn check(part: &str) -> Result<(), ContextError> {
    match parse(part) {
        Ok(_) => Ok(()),
        Err(reason) => Err(ContextError::Pattern { pattern: part.to_owned(), reason: reason.to_owned() }),
    }
}

/// Tells whether `name`, one component of a path, matches `pattern`; a malformed pattern matches nothing.
pub fn match_component(pattern: &str, name: &OsStr) -> bool {
    parse(pattern).is_ok_and(|tokens| match_tokens(&tokens, &symbols(name.as_bytes())))
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// The character itself.
    Literal(char),
    /// `?`.
    One,
    /// `*`.
    Star,
    /// `[…]`.
    Class(Class),
}

/// The characters between brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) negated: bool,
    /// First and last of each range; one the wrong way round holds nothing.
    pub(super) ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, symbol: Symbol) -> bool {
        let char = match symbol {
            Symbol::Char(char) => char,
            Symbol::Byte => REPLACEMENT,
        };
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&char)) != self.negated
    }
}

/// Takes a pattern apart, or says what is wrong with it.
pub(super) fn parse(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' => Token::Star,
            '?' => Token::One,
            '[' => Token::Class(parse_class(&mut chars)?),
            '\\' => Token::Literal(chars.next().ok_or("a `\\` at its end escapes nothing")?),
            char => Token::Literal(char),
        });
    }
    Ok(tokens)
}

fn parse_class(chars: &mut Peekable<Chars<'_>>) -> Result<Class, &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_member(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_member(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
    Ok(Class { negated, ranges })
}

fn class_member(chars: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    const UNCLOSED: &str = "a `[` is not closed by `]`";
    match chars.next().ok_or(UNCLOSED)? {
        '\\' => chars.next().ok_or(UNCLOSED),
        ']' => Err("`]` where a character is expected between `[` and `]`"),
        '-' => Err("`-` where a character is expected between `[` and `]`"),
        char => Ok(char),
    }
}

#[derive(Debug, Clone, Copy)]
enum Symbol {
    Char(char),
    Byte,
}

fn symbols(name: &[u8]) -> Vec<Symbol> {
    let mut symbols = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        symbols.extend(chunk.valid().chars().map(Symbol::Char));
        symbols.extend(chunk.invalid().iter().map(|_| Symbol::Byte));
    }
    symbols
}

/// Matches from left to right; after a mismatch the last star takes one symbol more, which is enough.
fn match_tokens(tokens: &[Token], symbols: &[Symbol]) -> bool {
    let (mut token, mut symbol) = (0, 0);
    let mut star = None;
    while symbol < symbols.len() {
        let step = match tokens.get(token) {
            Some(Token::Star) => {
                token += 1;
                star = Some((token, symbol));
                continue;
            }
            Some(Token::One) => true,
            Some(Token::Literal(literal)) => {
                matches!(symbols[symbol], Symbol::Char(char) if char == *literal)
            }
            Some(Token::Class(class)) => class.contains(symbols[symbol]),
            None => false,
        };
        match (step, star) {
            (true, _) => {
                token += 1;
                symbol += 1;
            }
            (false, Some((after, taken))) => {
                token = after;
                symbol = taken + 1;
                star = Some((after, symbol));
            }
            (false, None) => return false,
        }
    }
    tokens[token..].iter().all(|token| *token == Token::Star)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_are_seen_unless_escaped() {
        for (part, expected) in [
            ("", false),
            ("plain.txt", false),
            ("*", true),
            ("a*b", true),
            ("a?", true),
            ("[", true),
            ("a]", false),
            (r"\*", false),
            (r"\\*", true),
            (r"\\\*", false),
            (r"\[a\?\*", false),
            (r"\[a\?\**", true),
            (r"trailing\", false),
            ("^", false),
        ] {
            assert_eq!(has_wildcard(part), expected, "{part}");
        }
    }

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("*", "abc", true),
            ("*", "", true),
            ("*", ".hidden", true),
            ("?", ".", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*b*c*d*e*", "axbxcxdxe", true),
            ("a*b*c*d*e*", "axbxcxdxexxx", true),
            ("a*b*c*d*e*f", "axbxcxdxexx", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a][^a][^a]b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            (r"[\]a]", "]", true),
            (r"[\-]", "-", true),
            (r"[x\-]", "x", true),
            (r"[x\-]", "-", true),
            (r"[x\-]", "z", false),
            (r"[\-x]", "a", false),
            ("[a-b-c]", "a", false),
            ("*x", "xxx", true),
            ("**", "abc", true),
            ("**.txt", "d.txt", true),
            ("a]", "a]", true),
            ("[z-a]", "m", false),
            ("[^z-a]", "m", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[?]", "?", true),
            ("[!a]", "!", true),
            ("[!a]", "b", false),
            ("[", "[", false),
            ("[-]", "-", false),
            ("[^bc", "a", false),
            ("a[", "a", false),
            (r"a\", "a", false),
            ("\u{fffd}", "\u{fffd}", true),
            ("a\nb*", "a\nbc", true),
        ] {
            assert_eq!(match_component(pattern, OsStr::new(name)), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_told_wherever_the_fault_is() {
        for pattern in [
            "[", "[]", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[^", "[^bc", "[^]", "a[", "*[", r"a\",
            r"[\", r"[a-\", "abc[x-]", r"[a]\",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
        for pattern in ["", "*", "a]", "[a]", r"[\]]", r"\[", "[^a]", "]", "[^^]", "{a,b}", "!x"] {
            assert!(check(pattern).is_ok(), "{pattern}");
        }
        assert_eq!(check("a[").unwrap_err().to_string(), "invalid pattern `a[`: a `[` is not closed by `]`");
    }

    #[test]
    fn names_need_not_be_text() {
        let name = OsStr::from_bytes(b"a\xff\xfeb");
        for (pattern, expected) in [
            ("a*b", true),
            ("a??b", true),
            ("a?b", false),
            ("a[^x][^x]b", true),
            ("a[x]?b", false),
            ("a\u{fffd}\u{fffd}b", false),
        ] {
            assert_eq!(match_component(pattern, name), expected, "{pattern}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let name = "a".repeat(5000);
        assert!(!match_component(&format!("{}b", "a*".repeat(100)), OsStr::new(&name)));
    }

    /// Tries everything a star could take; works on the text, not on tokens.
    fn naive(pattern: &[char], name: &[char]) -> bool {
        let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
        match first {
            '*' => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            '?' => !name.is_empty() && naive(rest, &name[1..]),
            '\\' => name.first() == rest.first() && naive(&rest[1..], &name[1..]),
            '[' => {
                let end = rest.iter().position(|char| *char == ']').unwrap();
                let (negated, members) = match rest[0] {
                    '^' => (true, &rest[1..end]),
                    _ => (false, &rest[..end]),
                };
                let Some(char) = name.first() else { return false };
                let inside = match members {
                    [low, '-', high] => low <= char && char <= high,
                    members => members.contains(char),
                };
                inside != negated && naive(&rest[end + 1..], &name[1..])
            }
            char => name.first() == Some(char) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(
            pattern in r"([ab.é*?]|\\[*?a]|\[\^?[ab]{1,3}\]|\[a-c\]){0,8}",
            name in r"[abcé.*?]{0,8}",
        ) {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(match_component(&pattern, OsStr::new(&name)), naive(&chars(&pattern), &chars(&name)));
            prop_assert!(check(&pattern).is_ok());
        }

        #[test]
        fn never_panics(pattern in any::<String>(), name in any::<Vec<u8>>()) {
            let _ = match_component(&pattern, OsStr::from_bytes(&name));
        }
    }
}
