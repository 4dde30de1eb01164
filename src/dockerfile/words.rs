//! How the arguments of an instruction fall into words. No quotes are removed here.

/// Blanks between words; a newline cannot occur in a logical line.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at blanks, whatever is quoted.
pub(super) fn split_blanks(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Splits off the first word; the rest starts after the blanks that follow it. `None` if there is no blank.
pub(super) fn split_first(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once(is_blank)?;
    Some((first, rest.trim_start_matches(is_blank)))
}

/// Splits at blanks outside quotes (`ENV`, `LABEL`, `ARG`). Quotes and escapes stay, but for an escape
/// at the very end, which goes.
pub(super) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == escape && quote != Some('\'') {
            if let Some(escaped) = chars.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        word.push(c);
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Splits the flags (`--x=y`) off the front of an instruction's arguments. In them quotes and escapes are
/// removed; a lone `--` ends them.
pub(super) fn split_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, quoted, after) = flag_word(rest, escape);
        rest = after;
        if flag == "--" {
            break;
        }
        if quoted || !flag.is_empty() {
            flags.push(flag);
        }
        rest = rest.trim_start();
    }
    (flags, rest)
}

/// Reads one flag; tells whether any of it was quoted, and what follows it.
fn flag_word(text: &str, escape: char) -> (String, bool, &str) {
    let mut word = String::new();
    let mut quoted = false;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, quoted, &text[index..]),
            None if matches!(c, '\'' | '"') => (quote, quoted) = (Some(c), true),
            Some(open) if open == c => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, quoted, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words() {
        for (text, expected) in [
            ("a=b c=d", vec!["a=b", "c=d"]),
            ("a=\"b c\" d='e f'", vec!["a=\"b c\"", "d='e f'"]),
            ("f=g\\ h", vec!["f=g\\ h"]),
            ("a='x\\' b", vec!["a='x\\'", "b"]),
            ("a=\"x\\\" y\" b", vec!["a=\"x\\\" y\"", "b"]),
            ("a=b\\", vec!["a=b"]),
            ("a=\"b\\", vec!["a=\"b"]),
            ("a=\"\"  b", vec!["a=\"\"", "b"]),
            ("a=\"b c", vec!["a=\"b c"]),
            ("  ", vec![]),
        ] {
            assert_eq!(split_quoted(text, '\\'), expected, "{text}");
        }
        assert_eq!(split_quoted("a=b` c\\ d", '`'), ["a=b` c\\", "d"]);
    }

    #[test]
    fn flags() {
        for (text, flags, rest) in [
            ("a --b", vec![], "a --b"),
            ("--a --b=c d", vec!["--a", "--b=c"], "d"),
            ("--a=\"b c\"' d' e", vec!["--a=b c d"], "e"),
            ("--a=b\\ c\\\\ d", vec!["--a=b c\\"], "d"),
            ("-- --a", vec![], " --a"),
            ("--a -- b", vec!["--a"], " b"),
            ("-a b", vec![], "-a b"),
            ("--\u{e9}=\u{fc} x", vec!["--\u{e9}=\u{fc}"], "x"),
            ("--a\\", vec!["--a"], ""),
            ("--a=\"b", vec!["--a=b"], ""),
            ("", vec![], ""),
        ] {
            let found = split_flags(text, '\\');
            assert_eq!((found.0.iter().map(String::as_str).collect(), found.1), (flags, rest), "{text}");
        }
    }
}
