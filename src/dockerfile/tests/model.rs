//! Expansion against a naive model: words are built from parts whose meaning is known, written out, and
//! expanded; patterns are matched by trying every way.

use proptest::prelude::*;

use crate::dockerfile::{expand, expand_heredoc, expand_words};

/// A part of a word.
#[derive(Debug, Clone)]
enum Part {
    Plain(String),
    Escaped(char),
    Single(String),
    Double(Vec<Part>),
    Bare(&'static str),
    Braced(&'static str),
    Conditional(&'static str, &'static str, Vec<Part>),
    Trim(&'static str, &'static str, String),
    Replace(&'static str, bool, String, String),
}

const VARIABLES: [(&str, &str); 5] =
    [("A", "a"), ("E", ""), ("PATHS", "/usr/lib:/usr/lib64"), ("U_1", "\u{fc}ber"), ("B", "x y")];

fn variables() -> Vec<(String, String)> {
    VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn value(name: &str) -> Option<&'static str> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Writes a part as source; `quoted` is inside double quotes.
fn write(part: &Part, out: &mut String) {
    let all = |parts: &[Part], out: &mut String| parts.iter().for_each(|part| write(part, out));
    match part {
        Part::Plain(text) => out.push_str(text),
        Part::Escaped(c) => out.extend(['\\', *c]),
        Part::Single(text) => out.push_str(&format!("'{text}'")),
        Part::Double(parts) => {
            out.push('"');
            all(parts, out);
            out.push('"');
        }
        // A dot ends the name: it is part of none.
        Part::Bare(name) => out.push_str(&format!("${name}.")),
        Part::Braced(name) => out.push_str(&format!("${{{name}}}")),
        Part::Conditional(name, operator, word) => {
            out.push_str(&format!("${{{name}{operator}"));
            all(word, out);
            out.push('}');
        }
        Part::Trim(name, operator, pattern) => out.push_str(&format!("${{{name}{operator}{pattern}}}")),
        Part::Replace(name, every, pattern, with) => {
            let slash = if *every { "//" } else { "/" };
            out.push_str(&format!("${{{name}{slash}{pattern}/{with}}}"));
        }
    }
}

/// Says what a part means; the error is the message of a `?`.
fn mean(part: &Part) -> Result<String, String> {
    Ok(match part {
        Part::Plain(text) | Part::Single(text) => text.clone(),
        Part::Escaped(c) => c.to_string(),
        Part::Double(parts) => mean_all(parts)?,
        Part::Bare(name) => format!("{}.", value(name).unwrap_or_default()),
        Part::Braced(name) => value(name).unwrap_or_default().to_owned(),
        Part::Conditional(name, operator, word) => {
            // The word is evaluated even where it is not needed.
            let word = mean_all(word)?;
            let value = value(name).filter(|value| !operator.starts_with(':') || !value.is_empty());
            match (operator.trim_start_matches(':'), value) {
                ("-", None) | ("+", Some(_)) => word,
                ("-" | "?", Some(value)) => value.to_owned(),
                ("+", None) => String::new(),
                _ if word.is_empty() => return Err(format!("{name}: is not allowed to be ")),
                _ => return Err(format!("{name}: {word}")),
            }
        }
        Part::Trim(name, operator, pattern) => {
            let value: Vec<char> = value(name).unwrap_or_default().chars().collect();
            let pattern: Vec<char> = pattern.chars().collect();
            let mut lengths: Vec<usize> = (0..=value.len()).collect();
            if operator.len() == 2 {
                lengths.reverse();
            }
            let split = |length: usize| match operator.starts_with('#') {
                true => (&value[..length], &value[length..]),
                false => (&value[value.len() - length..], &value[..value.len() - length]),
            };
            let rest = lengths.into_iter().map(split).find(|(part, _)| matches(&pattern, part));
            rest.map_or_else(|| value.iter().collect(), |(_, rest)| rest.iter().collect())
        }
        Part::Replace(name, every, pattern, with) => {
            replace(value(name).unwrap_or_default(), *every, pattern, with)
        }
    })
}

fn mean_all(parts: &[Part]) -> Result<String, String> {
    parts.iter().map(mean).collect()
}

/// Matches by trying every length of every star.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        Some(('?', rest)) => !text.is_empty() && matches(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && matches(rest, &text[1..]),
    }
}

/// Replaces the leftmost longest match, or each in turn.
fn replace(value: &str, every: bool, pattern: &str, with: &str) -> String {
    let text: Vec<char> = value.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at <= text.len() {
        let length = (0..=text.len() - at).rev().find(|n| matches(&pattern, &text[at..at + n]));
        match length {
            Some(length) if length > 0 => {
                out.push_str(with);
                at += length;
                if !every {
                    break;
                }
            }
            _ => {
                out.extend(text.get(at));
                at += 1;
            }
        }
    }
    out.extend(text.get(at..).unwrap_or_default());
    out
}

fn names() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("A"), Just("E"), Just("PATHS"), Just("U_1"), Just("B"), Just("UNSET"), Just("_X")]
}

/// Texts in which nothing is special, in or out of quotes and braces.
fn plain() -> impl Strategy<Value = String> {
    "[a-z :=,.\u{e4}-]{0,4}"
}

fn part(depth: u32) -> BoxedStrategy<Part> {
    let leaf = prop_oneof![
        plain().prop_map(Part::Plain),
        names().prop_map(Part::Bare),
        names().prop_map(Part::Braced),
        (names(), prop_oneof![Just("#"), Just("##"), Just("%"), Just("%%")], "[a-b/:ursl*?]{1,4}")
            .prop_map(|(name, operator, pattern)| Part::Trim(name, operator, pattern)),
        (names(), any::<bool>(), "[abursl:][abursl:*?]{0,3}", "[a-z]{0,2}")
            .prop_map(|(name, every, pattern, with)| Part::Replace(name, every, pattern, with)),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let operators = ["-", ":-", "+", ":+", "?", ":?"];
    prop_oneof![
        4 => leaf,
        1 => "[a-z $\"\\\\}]{0,4}".prop_map(Part::Single),
        1 => prop::sample::select(vec!['a', '$', '"', '\'', '\\', ' ', '}', '\u{e9}']).prop_map(Part::Escaped),
        1 => prop::collection::vec(quoted(depth - 1), 0..3).prop_map(Part::Double),
        2 => (names(), prop::sample::select(operators.to_vec()), prop::collection::vec(part(depth - 1), 0..3))
            .prop_map(|(name, operator, word)| Part::Conditional(name, operator, word)),
    ]
    .boxed()
}

/// Parts that mean the same in double quotes: there, quotes are literal and only some characters escape.
fn quoted(depth: u32) -> BoxedStrategy<Part> {
    prop_oneof![
        3 => plain().prop_map(Part::Plain),
        1 => Just(Part::Plain("it's \\n".to_owned())),
        1 => prop::sample::select(vec!['$', '"', '\\']).prop_map(Part::Escaped),
        2 => names().prop_map(Part::Bare),
        2 => (names(), prop::collection::vec(part(depth), 0..2))
            .prop_map(|(name, word)| Part::Conditional(name, ":-", word)),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn words_mean_what_their_parts_mean(parts in prop::collection::vec(part(3), 0..6)) {
        let mut source = String::new();
        parts.iter().for_each(|part| write(part, &mut source));
        match (mean_all(&parts), expand(&source, &variables(), '\\')) {
            (Ok(meant), Ok(expanded)) => prop_assert_eq!(meant, expanded.text, "{}", source),
            (Err(meant), Err(error)) => {
                prop_assert!(error.reason.starts_with(&meant), "{}: {} {}", source, error.reason, meant);
            }
            (meant, expanded) => prop_assert!(false, "{source}: {meant:?} {expanded:?}"),
        }
    }

    /// Splitting after expansion is splitting the expanded text, if nothing is quoted.
    #[test]
    fn unquoted_words_split_at_blanks(parts in prop::collection::vec(
        prop_oneof![plain().prop_map(Part::Plain), names().prop_map(Part::Bare)], 0..6)
    ) {
        let mut source = String::new();
        parts.iter().for_each(|part| write(part, &mut source));
        let meant = mean_all(&parts).unwrap();
        let words: Vec<String> = meant.split_whitespace().map(str::to_owned).collect();
        prop_assert_eq!(expand_words(&source, &variables(), '\\').unwrap(), words);
    }

    /// A heredoc's body without escapes and variables stays as it is.
    #[test]
    fn plain_heredoc_bodies_stay(body in "[a-z '\"\n\t<>(){}#`-]{0,40}") {
        prop_assert_eq!(expand_heredoc(&body, &variables()).unwrap().text, body);
    }
}
